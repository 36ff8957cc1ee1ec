"""One real Spark session for all tests here, and a notebook's shell with the magics in it.

The server takes seconds to start, so it is shared; each test has its own shell namespace, workspace and state folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.e2e.spark.notebook import Notebook
from tests.e2e.spark.session_provider import FolderProvider
from tests.user_machine import UserMachine, made_machine
from tuttilab.magics.spark.magic import SparkMagics, register
from tuttilab.magics.spark.session import SessionRequest
from tuttilab.magics.submission.modules import module_path


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
    magics = register(shell, provider, module_path)
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


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMachine]:
    """A control plane with the `CONFIG` of the file."""
    with made_machine(tmp_path_factory.mktemp(request.path.stem)) as machine:
        config = machine.home / "tuttilab.yaml"
        config.write_text(request.module.CONFIG)
        said = machine.run("up", "--config", str(config))
        assert said.code == 0, said
        yield machine


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
