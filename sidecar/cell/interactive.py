"""What a notebook has and a job has not: somebody who answers `input`, and widgets. Code that counts on them is told, or helped.

`tqdm.notebook` draws with widgets; here its names are those of the bar of text, which is live in the cell and in the log.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any, NoReturn

from .display import AfterImport


class NobodyAnswers(EOFError):
    """An EOFError, as `input` raises without a terminal, that says what to do."""


NobodyAnswers.__name__ = NobodyAnswers.__qualname__ = "EOFError"


def install() -> None:
    """For the cell that runs next."""
    builtins.input = _refusal("input()")
    sys.meta_path.insert(0, AfterImport({"getpass": _take_over_getpass, "tqdm.notebook": _take_over_tqdm}))


def _refusal(what: str) -> Any:  # Any: takes whatever the function that it replaces takes
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NobodyAnswers(
            f"{what} in a job has nobody to ask: assign the answer to a variable in a cell before, which the job then takes "
            "along, or give it with --env."
        )

    return refuse


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
