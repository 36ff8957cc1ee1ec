"""Makes a function of a cell of Python, with the cell's own line numbers in its errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.shared.display import cell_number
from tuttilab.magics.spark.errors import SparkCellError, short_syntax_error, short_text

_AWAITS = re.compile(r"'await' outside|asynchronous comprehension outside|'async (?:for|with)' outside")
_NO_AWAIT = "%%spark does not await; move these lines into a cell without the magic, where `spark` is bound too."


def compiled(shell: InteractiveShell, body: str, names: dict[str, Any] | None = None) -> tuple[Callable[[], Any], bool]:
    """A function that runs the cell and returns its last expression, and if there is one. In the notebook's names, or in others.

    Empty lines stand in for the magic's own and for those at its start, which IPython strips: errors have the cell's lines.
    """
    try:
        leading = len(body) - len(body.lstrip())
        source = "\n" * (1 + body[:leading].count("\n")) + shell.transform_cell(body)  # type: ignore[no-untyped-call]  # IPython has no types here
        name = shell.compile.cache(source, cell_number(shell), raw_code=source)
        tree: ast.Module = shell.transform_ast(shell.compile.ast_parse(source, name))  # type: ignore[no-untyped-call]
        last = tree.body[-1] if tree.body else None
        has_value = isinstance(last, ast.Expr)
        statements = compile(ast.Module(tree.body[:-1] if has_value else tree.body, tree.type_ignores), name, "exec")
        expression = compile(ast.Expression(last.value), name, "eval") if isinstance(last, ast.Expr) else None
    except SyntaxError as error:
        if _AWAITS.search(error.msg) is not None:
            raise SparkCellError(short_text(short_syntax_error(error), _NO_AWAIT)) from error
        raise SparkCellError(short_syntax_error(error)) from error

    inside = (shell.user_global_ns, shell.user_ns) if names is None else (names, names)

    def run() -> Any:
        exec(statements, *inside)
        # The person's own last line, in the person's own kernel.
        return None if expression is None else eval(expression, *inside)  # noqa: S307

    return run, has_value
