"""What a notebook has and a job has not: somebody at a keyboard, who answers `input` or steps through a debugger, and widgets. Code
that counts on them is told, or helped.

`tqdm.notebook` draws with widgets; here its names are those of the bar of text, which is live in the cell and in the log.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .display import AfterImport


class NobodyAnswers(EOFError):
    """An EOFError, as `input` raises without a terminal, that says what to do."""


NobodyAnswers.__name__ = NobodyAnswers.__qualname__ = "EOFError"


def install() -> None:
    """For the cell that runs next."""
    builtins.input = _refusal("input()")
    sys.breakpointhook = _hook(sys.breakpointhook)
    calls: dict[str, Callable[[Any], None]]
    calls = {"getpass": _take_over_getpass, "pdb": _take_over_pdb, "tqdm.notebook": _take_over_tqdm}
    for name in [name for name in calls if name in sys.modules]:
        calls.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, AfterImport(calls))


def _refusal(what: str) -> Any:  # Any: takes whatever the function that it replaces takes
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NobodyAnswers(
            f"{what} in a job has nobody to ask: assign the answer to a variable in a cell before, which the job then takes "
            "along, or give it with --env."
        )

    return refuse


def _hook(usual: Any) -> Any:  # Any: as `sys.breakpointhook` is
    def hook(*args: object, **keywords: object) -> Any:  # Any: whatever the function returns that PYTHONBREAKPOINT names
        if os.environ.get("PYTHONBREAKPOINT"):
            return usual(*args, **keywords)
        raise _nobody_steps("breakpoint()", "pass over it with --env PYTHONBREAKPOINT=0")

    return hook


def _nobody_steps(what: str, otherwise: str = "print what you look for") -> RuntimeError:
    return RuntimeError(
        f"{what} in a job has no keyboard to stop at: run the cell in the notebook, without its %%submit line, to step through it, "
        f"or {otherwise}."
    )


def _take_over_pdb(module: Any) -> None:
    """IPython's debugger and ipdb build upon it. One that listens on a socket has an input of its own, and goes on."""
    usual_trace, usual_interaction = module.Pdb.set_trace, module.Pdb.interaction

    def set_trace(self: Any, *args: Any, **keywords: Any) -> Any:
        if _is_ours(self.stdin):
            raise _nobody_steps("set_trace()")
        frame = () if args or "frame" in keywords else (sys._getframe(1),)
        return usual_trace(self, *frame, *args, **keywords)

    def interaction(self: Any, *args: Any, **keywords: Any) -> Any:
        if _is_ours(self.stdin):
            raise _nobody_steps("The debugger")
        return usual_interaction(self, *args, **keywords)

    module.Pdb.set_trace, module.Pdb.interaction = set_trace, interaction


def _is_ours(stream: object) -> bool:
    """The job's own input, where nobody types."""
    return stream is sys.stdin or stream is sys.__stdin__


def _take_over_getpass(module: Any) -> None:
    module.getpass = _refusal("getpass()")


def _take_over_tqdm(module: Any) -> None:
    bar_of_text: Any = sys.modules["tqdm.std"].tqdm

    class Bar(bar_of_text):  # type: ignore[misc]  # a class of a library that need not be there
        """The bar of text with the one keyword that only the bar of widgets has."""

        def __init__(self, *args: Any, **keywords: Any) -> None:
            keywords.pop("display", None)
            super().__init__(*args, **keywords)

    def bar_of_range(*args: Any, **keywords: Any) -> Bar:
        return Bar(range(*args), **keywords)

    module.tqdm = module.tqdm_notebook = Bar
    module.trange = module.tnrange = bar_of_range
