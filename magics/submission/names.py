"""Finds the notebook names that a cell needs, by static analysis.

A name is needed when some path through the cell may read it before the cell has bound it. Code that runs later or never
(function bodies, loops, branches) counts as reading at once: a name too many costs bytes that are shown to the user, a name too
few is a NameError in the job.
"""

from __future__ import annotations

import ast
import copy
import re
import symtable
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final


def needed_names(source: str) -> tuple[str, ...]:
    """The global names that the cell may read before it binds them, in order of first use. Raises SyntaxError."""
    flow = _Flow()
    flow.block(ast.parse(source).body)
    return tuple(flow.needed)


def names_in_strings(source: str) -> tuple[str, ...]:
    """Names after an ``@`` in the texts of the cell, as in ``df.query("price > @limit")``: pandas looks these up itself."""
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return tuple(dict.fromkeys(name for text in texts for name in _AT_NAME.findall(text)))


_AT_NAME: Final = re.compile(r"(?<![\w@.])@([^\W\d]\w*)")


@dataclass(frozen=True)
class Brought:
    """What a cell brings back without being asked by ``--out``.

    ``names``: variables that its last statement assigns, and the submit's own variable if the cell assigns it anywhere.
    ``value_names``: those whose values are the value of the cell, when it ends with a plain assignment. ``ending``: the last
    statement in a word or two, empty for an expression.
    """

    names: tuple[str, ...] = ()
    value_names: tuple[str, ...] = ()
    ending: str = ""


def brought_names(source: str, variable: str | None) -> Brought:
    """Raises SyntaxError."""
    body = ast.parse(source).body
    own = (variable,) if variable is not None and _assigns(source, variable) else ()
    if not body:
        return Brought(own, (), "a comment")
    if isinstance(body[-1], ast.Expr):
        return Brought(own)
    last = tuple(dict.fromkeys(_last_assigned(body[-1])))
    is_plain = isinstance(body[-1], (ast.Assign, ast.AnnAssign, ast.AugAssign))
    names = tuple(dict.fromkeys((*own, *last)))
    if is_plain and not last:
        return Brought(names, (), "an assignment to no variable")
    return Brought(names, last if is_plain else (), _STATEMENTS.get(type(body[-1]), "a statement"))


_STATEMENTS: Final = {
    ast.Assign: "an assignment",
    ast.AnnAssign: "an assignment",
    ast.AugAssign: "an assignment",
    ast.For: "a `for` loop",
    ast.While: "a `while` loop",
    ast.If: "an `if`",
    ast.With: "a `with` block",
    ast.Try: "a `try` block",
    ast.Match: "a `match`",
    ast.Pass: "`pass`",
    ast.FunctionDef: "a function's definition",
    ast.ClassDef: "a class's definition",
    ast.Import: "an import",
    ast.ImportFrom: "an import",
    ast.Assert: "an `assert`",
    ast.Delete: "a `del`",
}


def _assigns(source: str, name: str) -> bool:
    table = symtable.symtable(source, "<cell>", "exec")
    try:
        symbol = table.lookup(name)
    except KeyError:
        return False
    return symbol.is_assigned() and not symbol.is_imported()


def _last_assigned(statement: ast.stmt) -> Iterable[str]:
    """The names that the statement assigns; of a block, those that any statement in it assigns, without loop variables."""
    match statement:
        case ast.Assign(targets=targets):
            return [name for target in targets for name in _target_names(target)]
        case ast.AnnAssign(target=target, value=value) if value is not None:
            return _target_names(target)
        case ast.AugAssign(target=target):
            return _target_names(target)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return ()
        case _:
            inner = [node for node in ast.iter_child_nodes(statement) if isinstance(node, _INSIDE)]
            return [name for node in inner for name in _last_assigned(node)]  # type: ignore[arg-type]  # handlers and cases too


_INSIDE: Final = (ast.stmt, ast.ExceptHandler, ast.match_case)


def _target_names(target: ast.expr) -> Iterable[str]:
    """``a`` of ``a``, ``a.b`` and ``a[0]``, all of ``a, *b``."""
    match target:
        case ast.Name(id=name):
            return [name]
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [name for part in parts for name in _target_names(part)]
        case ast.Starred(value=inner) | ast.Attribute(value=inner) | ast.Subscript(value=inner):
            return _target_names(inner)
        case _:
            return ()


class _Flow(ast.NodeVisitor):
    """Walks the cell's top level in order of execution. ``bound``: names bound on every path so far; ``needed``: read before."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.needed: dict[str, None] = {}

    def read(self, name: str) -> None:
        if name not in self.bound:
            self.needed.setdefault(name)

    def block(self, body: Iterable[ast.AST]) -> None:
        for node in body:
            self.visit(node)

    def branches(self, *bodies: Sequence[ast.AST]) -> None:
        """One of these bodies runs: bound afterwards are the names that each of them binds."""
        before = self.bound
        ends = []
        for body in bodies:
            self.bound = set(before)
            self.block(body)
            ends.append(self.bound)
        self.bound = set.intersection(*ends)

    def optional(self, body: Sequence[ast.AST]) -> None:
        self.branches(body, ())

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)
        else:
            self.read(node.id)
            self.bound.discard(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        self.block(node.targets)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)
        elif not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self.optional(node.values[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self.branches([node.body], [node.orelse])

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.optional([node.target, *node.body])
        self.optional(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self.optional(node.body)
        self.optional(node.orelse)

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        before = set(self.bound)
        self.block([*node.body, *node.orelse])
        ends = [self.bound]
        for handler in node.handlers:
            self.bound = set(before)
            self.visit(handler)
            ends.append(self.bound)
        # The finally block runs however the others ended, so nothing that they bind counts as bound in it.
        self.bound = set(before)
        self.block(node.finalbody)
        self.bound |= set.intersection(*ends)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name is not None:
            self.bound.add(node.name)
        self.block(node.body)
        if node.name is not None:
            self.bound.discard(node.name)

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self.branches((), *([case.pattern, *([case.guard] if case.guard else []), *case.body] for case in node.cases))

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.generic_visit(node)
        if node.name is not None:
            self.bound.add(node.name)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name is not None:
            self.bound.add(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest is not None:
            self.bound.add(node.rest)

    def visit_Import(self, node: ast.Import) -> None:
        self.bound.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.bound.update(alias.asname or alias.name for alias in node.names)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        # A function may call itself, so its name counts as bound in its body; a class body runs before its name is bound.
        if not isinstance(node, ast.ClassDef):
            self.scope(node, also_bound=node.name)
        else:
            self.scope(node)
        self.bound.add(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_ClassDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.expr) -> None:
        self.scope(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_Lambda

    def scope(self, node: ast.stmt | ast.expr, also_bound: str = "") -> None:
        """Reads a node with a scope of its own; Python's symbol table tells which of its names are global."""
        plain = _GeneratorsOnly().visit(copy.deepcopy(node))
        text = ast.unparse(ast.Expr(plain) if isinstance(plain, ast.expr) else plain)
        for name in _global_reads(symtable.symtable(text, "<cell>", "exec")):
            if name != also_bound:
                self.read(name)


class _GeneratorsOnly(ast.NodeTransformer):
    """Makes each comprehension a generator expression, which reads the same names.

    From Python 3.12 on other comprehensions have no scope of their own (PEP 709): their variables would look like global reads.
    """

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.AST:
        return self.generic_visit(ast.GeneratorExp(node.elt, node.generators))

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        return self.generic_visit(ast.GeneratorExp(ast.Tuple([node.key, node.value], ast.Load()), node.generators))


def _global_reads(table: symtable.SymbolTable) -> Iterable[str]:
    """Global names that a scope and its inner scopes read, sorted: symbol tables keep no order of use."""
    found: set[str] = set()
    is_module = table.get_type() == "module"
    is_class = table.get_type() == "class"
    for symbol in table.get_symbols():
        if is_module:
            is_read = symbol.is_referenced()
        elif is_class and symbol.is_assigned():
            # `limit = limit` in a class body reads the global before it binds the attribute.
            is_read = symbol.is_referenced()
        else:
            # `global total; total += 1` counts as no reference in the symbol table.
            is_read = symbol.is_global() and (symbol.is_referenced() or symbol.is_declared_global())
        if is_read:
            found.add(symbol.get_name())
    for child in table.get_children():
        found.update(_global_reads(child))
    return sorted(found)
