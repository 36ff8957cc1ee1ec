"""Finds what waits at a keyboard in a cell and in the functions that go with it: a job has none, and fails there.

The code may never come that far, so this is said and not refused. In the job `tuttilab.sidecar.cell.interactive` has the last word.
"""

from __future__ import annotations

import ast
import dis
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Final

_ANSWERS: Final = frozenset({"input", "getpass"})
_STOPS: Final = frozenset({"breakpoint", "set_trace"})
_DEBUGGERS: Final = frozenset({"pdb", "ipdb"})
_OF_DEBUGGERS: Final = frozenset({"set_trace", "post_mortem", "pm"})
_BUILTINS: Final = frozenset({"input", "breakpoint"})
"""What the user may have given another meaning; the others come by an import."""
_INTERESTING: Final = _ANSWERS | _STOPS | _OF_DEBUGGERS
_MOST: Final = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """``what`` stands in ``line`` of the cell, or of ``place``, where a function was written."""

    what: str
    line: int
    place: str = ""

    @property
    def is_stop(self) -> bool:
        return self.what not in _ANSWERS

    def __str__(self) -> str:
        return f"{self.what}() in line {self.line}" + (f" of {self.place}" if self.place else "")


def in_cell(source: str, name: str, known: Collection[str]) -> tuple[Waiting, ...]:
    """``known``: names of the notebook, which may be called as a function that waits is."""
    with warnings.catch_warnings(action="ignore"):  # they were shown when its syntax was checked
        whole = compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    codes = tuple(_with_inner(whole))
    own = {str(one.argval) for code in codes for one in dis.get_instructions(code) if one.opname in ("STORE_NAME", "STORE_GLOBAL")}
    return tuple(each for code in codes for each in in_code(code, {*known, *own}))


def in_code(code: CodeType, known: Collection[str], place: str = "") -> Iterator[Waiting]:
    """In this code itself, not in functions that it defines."""
    if not _INTERESTING.intersection(code.co_names):
        return
    found = list(dis.get_instructions(code))
    for before, one, after in zip([None, *found], found, [*found[1:], None], strict=False):
        line = one.positions.lineno if one.positions is not None else None
        if line is None:
            continue
        is_owner = after is not None and _is_attribute(after)
        if one.opname in ("LOAD_NAME", "LOAD_GLOBAL") and one.argval in _ANSWERS | _STOPS and not is_owner:
            if one.argval not in known or one.argval not in _BUILTINS:
                yield Waiting(one.argval, line, place)
        elif _is_attribute(one) and before is not None:
            owner = _loaded(before)
            if owner in _DEBUGGERS and one.argval in _OF_DEBUGGERS:
                yield Waiting(f"{owner}.{one.argval}", line, place)
            elif owner == one.argval == "getpass":
                yield Waiting("getpass", line, place)


def _is_attribute(one: dis.Instruction) -> bool:
    return one.opname in ("LOAD_ATTR", "LOAD_METHOD")


def _loaded(one: dis.Instruction) -> str:
    """The name of the variable; newer versions of Python put two instructions into one."""
    if "LOAD_" not in one.opname or _is_attribute(one):
        return ""
    return str(one.argval[-1] if isinstance(one.argval, tuple) and one.argval else one.argval)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _with_inner(const)


def sentences(waiting: Iterable[Waiting], environ: Mapping[str, str]) -> list[str]:
    """What will happen and what to do instead, for the user before the submit. ``environ``: of the job, as far as it is known."""
    found = list(dict.fromkeys(waiting))
    stops = [one for one in found if one.is_stop and not (one.what == "breakpoint" and environ.get("PYTHONBREAKPOINT"))]
    answers = [one for one in found if not one.is_stop]
    said = []
    if stops:
        over = ", or pass over it with --env PYTHONBREAKPOINT=0" if any(one.what == "breakpoint" for one in stops) else ""
        said.append(
            f"a job has no keyboard and fails where it comes to {_listed(stops)}: run the cell here, without its %%submit line, to "
            f"step through it{over}."
        )
    if answers:
        said.append(
            f"a job has no keyboard and fails where it comes to {_listed(answers)}: assign the answer to a variable in a cell "
            "before, or give it with --env."
        )
    return said


def _listed(found: list[Waiting]) -> str:
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(map(str, found[:_MOST])) + more
