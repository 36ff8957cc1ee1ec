"""A notebook's shell with the Spark magics in it, as tests drive it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.utils.capture import RichOutput, capture_output

from tests.e2e.spark.session_provider import FolderProvider
from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.magic import SparkMagics


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
