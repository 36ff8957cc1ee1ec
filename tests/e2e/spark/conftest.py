"""One real Spark session for all tests here, and a notebook's shell with the magics in it.

The server takes seconds to start, so it is shared; each test has its own shell namespace, workspace and state folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.utils.capture import RichOutput, capture_output

sys.path.insert(0, str(Path(__file__).parent))

from session_provider import FolderProvider

from tuttilab.magics.parse import UsageError
from tuttilab.magics.spark_magic import SparkMagics, register
from tuttilab.magics.spark_session import SessionRequest


@dataclass
class Ran:
    """What a cell did: its outputs as plain text, the text of its error, its result."""

    result: ExecutionResult
    outputs: list[RichOutput]
    stdout: str
    error: str = ""
    html: list[str] = field(default_factory=list)

    @property
    def success(self) -> bool:
        return bool(self.result.success)

    @property
    def text(self) -> str:
        """All that was displayed, without progress lines."""
        shown = [str(output.data["text/plain"]) for output in self.outputs]
        return "\n".join(line for line in shown if not line.startswith(("░", "█", "Spark: ", "starting: ")))


@dataclass
class Notebook:
    """A shell whose cells a test runs one by one."""

    shell: InteractiveShell
    magics: SparkMagics
    provider: FolderProvider
    workspace: Path

    def run(self, cell: str) -> Ran:
        with capture_output() as captured:
            result = self.shell.run_cell(cell, store_history=True)
        outputs = list(captured.outputs)
        exception = result.error_in_exec or result.error_before_exec
        # Shown by run_cell already: a second rendering would be that of %tb.
        error = f"UsageError: {exception}" if isinstance(exception, UsageError) else str(exception or "")
        return Ran(result, outputs, captured.stdout, error, [str(output.data.get("text/html", "")) for output in outputs])

    def __getitem__(self, name: str) -> Any:  # Any: a notebook variable
        return self.shell.user_ns[name]

    def __setitem__(self, name: str, value: object) -> None:
        self.shell.user_ns[name] = value


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderProvider]:
    root = tmp_path_factory.mktemp("sessions")
    provider = FolderProvider(root)
    yield provider
    provider.stop_all()


@pytest.fixture(scope="session")
def _shell_with_magics(provider: FolderProvider) -> Iterator[tuple[InteractiveShell, SparkMagics]]:
    shell = InteractiveShell.instance()
    shell.run_line_magic("colors", "nocolor")
    magics = register(shell, provider)
    provider.start("default", SessionRequest(cores=2, ui=True), lambda _reason: None)
    yield shell, magics
    magics.sessions.close()
    InteractiveShell.clear_instance()


@pytest.fixture
def notebook(
    _shell_with_magics: tuple[InteractiveShell, SparkMagics],
    provider: FolderProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Notebook]:
    shell, magics = _shell_with_magics
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.setenv("TUTTILAB_WORKSPACE", str(workspace))
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(tmp_path / "state"))
    before = set(shell.user_ns)
    magics.sessions.current = "default"
    yield Notebook(shell, magics, provider, workspace)
    for name in set(shell.user_ns) - before - {"spark"}:
        del shell.user_ns[name]


@pytest.fixture
def until() -> Callable[[Callable[[], bool], float], bool]:
    """Wait until something is true; false when it did not become so in time."""
    import time

    def wait(is_true: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if is_true():
                return True
            time.sleep(0.05)
        return False

    return wait
