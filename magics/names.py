"""Which of the notebook's names a cell needs, found by reading the cell and not by running it.

A name is needed when some path through the cell may read it before the cell itself has bound it. Code that runs later or
perhaps never (function bodies, loops, branches) counts as a reader at once: a name too many costs bytes that the user is
shown, a name too few is a NameError on a far machine.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Sequence


def needed_names(source: str) -> tuple[str, ...]:
    """The global names that the cell may read before it binds them, in order of first use. Raises SyntaxError."""
    flow = _Flow()
    flow.block(ast.parse(source).body)
    return tuple(flow.needed)


class _Flow(ast.NodeVisitor):
    """Walks the cell's own level in order of execution. ``bound`` holds what is surely bound by now, ``needed`` what is not."""

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
        """One of these runs: bound afterwards is what each of them binds."""
        before = self.bound
        ends = []
        for body in bodies:
            self.bound = set(before)
            self.block(body)
            ends.append(self.bound)
        self.bound = set.intersection(*ends)

    def perhaps(self, body: Sequence[ast.AST]) -> None:
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
        self.perhaps(node.values[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        self.branches([node.body], [node.orelse])

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.perhaps([node.target, *node.body])
        self.perhaps(node.orelse)

    visit_AsyncFor = visit_For

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        self.perhaps(node.body)
        self.perhaps(node.orelse)

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        before = set(self.bound)
        self.block([*node.body, *node.orelse])
        ends = [self.bound]
        for handler in node.handlers:
            self.bound = set(before)
            self.visit(handler)
            ends.append(self.bound)
        # The last block runs however the others ended, so it may rely on nothing that they bound.
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
        # A function may call itself, so its own name counts as bound in its body; a class body runs before its name is.
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
        """A node that opens a scope of its own: Python's symbol table knows which of its names are global."""
        text = ast.unparse(ast.Expr(node) if isinstance(node, ast.expr) else node)
        for name in _global_reads(symtable.symtable(text, "<cell>", "exec")):
            if name != also_bound:
                self.read(name)


def _global_reads(table: symtable.SymbolTable) -> Iterable[str]:
    """Global names that a scope and those within it read. Sorted, since symbol tables keep no order worth showing."""
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
