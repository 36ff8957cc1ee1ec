"""The shape of a request in JSON, checked against its class before anything is built from it.

A validator that builds first and counts afterwards needs minutes and gigabytes for a body of many small wrong parts, and makes an
error of each. This check reads the text once, builds nothing, and ends at the first thing that is wrong: more elements than
`AtMost` allows, an unknown, missing or repeated key, a list in place of a text. What it lets pass has few errors left for pydantic.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, Final

from tuttilab.scheduler.domain.errors import BadInput

MAX_DEPTH: Final = 20
LARGEST_NUMBER: Final = 2**63 - 1
"""Of whole numbers: the database has 64 bits for one."""

LONGEST_NUMBER: Final = 400
"""Characters of any number: more digits than a float has places."""

GPU_WAYS: Final = (
    ("gpus", "`gpus: 1`"),
    ("resources", "`resources: {nvidia.com/gpu: 1}`"),
    ("pods", "`pods: [{gpus: 1}]`"),
    ("guaranteed", "`guaranteed: {nvidia.com/gpu: 1}` or `max: {nvidia.com/gpu: 1}`"),
)
"""How GPUs are written, by a key that is known beside them; the names that people try first are nearer to other keys."""

Step = str | int


@dataclass(frozen=True, slots=True)
class AtMost:
    """How many elements a list or an object of a request may have, as metadata of the field's type.

    pydantic shows it in the schema and does not check it: rows that the product wrote before there was a limit stay readable.
    """

    items: int

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core_schema)
        key = "maxProperties" if schema.get("type") == "object" else "maxItems"
        return {**schema, key: self.items}


def show_path(path: Sequence[Step]) -> str:
    """``pods[0].gpus`` for ``("pods", 0, "gpus")``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text


def unknown_key(what: str, path: Sequence[Step], known: Iterable[str]) -> BadInput:
    names = list(known)
    if str(path[-1]).lower() in ("gpu", "gpus") and (way := next((way for name, way in GPU_WAYS if name in names), None)):
        return BadInput(f"{what}: unknown key {_cut(show_path(path), 200)}; GPUs are written as {way} here.")
    near = difflib.get_close_matches(str(path[-1])[:200], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}."
    return BadInput(f"{what}: unknown key {_cut(show_path(path), 200)}; {hint}")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


# --- what a class expects ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A text, number or truth value; any value at all without ``kinds``."""

    kinds: tuple[type, ...] = ()
    is_nullable: bool = True


@dataclass(frozen=True, slots=True)
class _Record:
    cls: type
    keys: Mapping[str, _Shape]
    required: frozenset[str]
    is_nullable: bool


@dataclass(frozen=True, slots=True)
class _Map:
    most: int | None
    value: _Shape
    is_nullable: bool


@dataclass(frozen=True, slots=True)
class _List:
    most: int | None
    item: _Shape
    is_nullable: bool


_Shape = _Leaf | _Record | _Map | _List


@lru_cache(maxsize=256)
def shape_of(cls: Any) -> _Shape:
    """The shape of a request's class, or of any type in one (``Any``: a type expression)."""
    return _shape(cls, None, is_nullable=False)


def _shape(hint: Any, most: int | None, *, is_nullable: bool) -> _Shape:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limit = next((one.items for one in hint.__metadata__ if isinstance(one, AtMost)), most)
        return _shape(inner[0], limit, is_nullable=is_nullable)
    if origin in (types.UnionType, typing.Union):
        others = tuple(one for one in inner if one is not type(None))
        is_nullable = is_nullable or len(others) < len(inner)
        if len(others) == 1:
            return _shape(others[0], most, is_nullable=is_nullable)
        return _Leaf(others, is_nullable) if all(isinstance(one, type) for one in others) else _Leaf()
    if isinstance(hint, type) and is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        keys = {one.name: _shape(hints[one.name], None, is_nullable=False) for one in fields(hint)}
        required = {one.name for one in fields(hint) if one.default is MISSING and one.default_factory is MISSING}
        return _Record(hint, keys, frozenset(required), is_nullable)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return _List(most, _shape(inner[0], None, is_nullable=False), is_nullable)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _Map(most, _shape(inner[1], None, is_nullable=False), is_nullable)
    return _Leaf((hint,), is_nullable) if hint in (str, int, float, bool) else _Leaf()


# --- the check -----------------------------------------------------------------------------------------------------------

_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN: Final = re.compile(rb"[\s,:]*+(?:(%b)(?:\s*+(:))?|([][{}])|([^][{},:\"\s]++)|\")" % _TEXT, re.DOTALL)
"""A text, which is a key where a colon follows; a bracket; anything else. The last quote is of a text without an end."""
_WHOLE: Final = re.compile(rb"-?\d++")
_NUMBER: Final = re.compile(rb"-?\d++(?:\.\d++)?(?:[eE][-+]?\d++)?")
_QUOTE: Final = ord('"')
_EXPECTED: Final[Mapping[type, str]] = {
    str: "input should be a valid string",
    int: "input should be a valid integer",
    float: "input should be a valid number",
    bool: "input should be a valid boolean",
}


@lru_cache(maxsize=64)
def _plain(most: int, *, is_map: bool) -> re.Pattern[bytes]:
    """Matches a whole object or list of at most ``most`` texts, behind its first bracket: what is long is mostly that."""
    key, last = (_TEXT + rb"\s*+:\s*+", rb"\}") if is_map else (b"", rb"\]")
    return re.compile(rb"\s*+(?:%b%b\s*+(?:,\s*+|(?=%b))){0,%d}+%b" % (key, _TEXT, last, most, last), re.DOTALL)


@dataclass(slots=True)
class _Frame:
    """A list or object that is open at this place of the text."""

    shape: _Record | _Map | _List
    begin: int
    """Of its content in the text."""
    count: int = 0
    step: Step = ""
    expected: _Shape = _Leaf()
    seen: set[str] = field(default_factory=set)
    items: list[tuple[int, int]] = field(default_factory=list)
    item_begin: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """An outermost list of objects of class ``cls``: its path, the span of its content, and the spans of its elements."""

    cls: type
    path: tuple[str, ...]
    span: tuple[int, int]
    items: tuple[tuple[int, int], ...]


class _Reader:
    def __init__(self, cls: Any, what: str, prefix: Sequence[Step]) -> None:
        self._what = what
        self._prefix = prefix
        self._root = shape_of(cls)
        self._stack: list[_Frame] = []
        self.cuts: list[Cut] = []

    def read(self, text: bytes, *, is_whole: bool = True) -> None:
        at = 0
        while (match := _TOKEN.match(text, at)) is not None:
            at = match.end()
            string, colon, bracket, other = match.groups()
            if not is_whole and (at == len(text) or not (string or bracket or other)):
                # What is cut off here cannot be told apart from something else.
                return
            frame = self._stack[-1] if self._stack else None
            if colon and frame is not None:
                self._key(frame, string)
            elif bracket is None:
                token = string or other
                if token:
                    self._scalar(self._expected(frame, match.end() - len(token), match.end()), token)
            elif bracket in b"}]":
                if frame is not None:
                    self._close(frame, at - 1)
            else:
                at = self._open(self._expected(frame, at - 1, None), bracket, text, at)

    def _path(self) -> tuple[Step, ...]:
        return (*self._prefix, *(frame.step for frame in self._stack))

    def _refusal(self, sentence: str, path: Sequence[Step] | None = None) -> BadInput:
        where = _cut(show_path(self._path() if path is None else path), 200)
        return BadInput(f"{self._what}: {where + ': ' if where else ''}{sentence}.")

    def _key(self, frame: _Frame, token: bytes) -> None:
        try:
            key = str(json.loads(token)) if b"\\" in token else token[1:-1].decode()
        except ValueError:
            key = token[1:-1].decode(errors="replace")
        frame.step = key
        frame.count += 1
        if isinstance(frame.shape, _Map):
            frame.expected = frame.shape.value
            self._check_count(frame, frame.shape.most)
        elif isinstance(frame.shape, _Record):
            if key not in frame.shape.keys:
                raise unknown_key(self._what, self._path(), frame.shape.keys)
            if key in frame.seen:
                raise self._refusal("it is given twice; leave one of them out")
            frame.seen.add(key)
            frame.expected = frame.shape.keys[key]

    def _check_count(self, frame: _Frame, most: int | None) -> None:
        if most is not None and frame.count > most:
            raise self._refusal(f"more than {most} are given; expected at most {most}", self._path()[:-1])

    def _expected(self, frame: _Frame | None, begin: int, end: int | None) -> _Shape:
        """What the value that begins here has to be."""
        if frame is None:
            return self._root
        if not isinstance(frame.shape, _List):
            return frame.expected
        frame.step = frame.count
        frame.count += 1
        self._check_count(frame, frame.shape.most)
        frame.item_begin = begin
        return frame.shape.item

    def _open(self, expected: _Shape, bracket: bytes, text: bytes, at: int) -> int:
        """Where reading goes on: behind a list or an object of nothing but texts, else in it."""
        if len(self._stack) >= MAX_DEPTH:
            raise BadInput(f"{self._what}: it is nested too deeply to be read; expected a few levels.")
        if isinstance(expected, _Leaf) and not expected.kinds:
            expected = _Map(None, _Leaf(), True) if bracket == b"{" else _List(None, _Leaf(), True)
        if isinstance(expected, _Leaf):
            raise self._refusal(_EXPECTED[expected.kinds[0]])
        if (bracket == b"[") != isinstance(expected, _List):
            raise self._refusal(_expected_container(expected))
        if not isinstance(expected, _Record) and expected.most is not None and _inner(expected) == _ONLY_TEXT:
            plain = _plain(expected.most, is_map=bracket == b"{").match(text, at)
            if plain is not None:
                return plain.end()
        self._stack.append(_Frame(expected, at))
        return at

    def _close(self, frame: _Frame, at: int) -> None:
        if isinstance(frame.shape, _Record):
            missing = next((key for key in frame.shape.keys if key in frame.shape.required - frame.seen), None)
            if missing is not None:
                raise self._refusal("field required", (*self._path()[:-1], missing))
        self._stack.pop()
        outer = self._stack[-1] if self._stack else None
        if outer is not None and isinstance(outer.shape, _List):
            outer.items.append((outer.item_begin, at + 1))
        if isinstance(frame.shape, _List) and isinstance(frame.shape.item, _Record):
            path = tuple(one.step for one in self._stack if isinstance(one.step, str))
            if len(path) == len(self._stack):
                self.cuts.append(Cut(frame.shape.item.cls, path, (frame.begin, at), tuple(frame.items)))

    def _scalar(self, expected: _Shape, token: bytes) -> None:
        if token[0] in b"-0123456789" and (len(token) > LONGEST_NUMBER or (len(token) > 18 and _is_too_large(token))):
            number = _cut(token.decode(errors="replace"), 24)
            raise self._refusal(f"the number {number} is too large; expected at most {LARGEST_NUMBER}")
        if token == b"null":
            is_right = expected.is_nullable
        elif not isinstance(expected, _Leaf):
            is_right = False
        elif not expected.kinds:
            is_right = True
        elif token[0] == _QUOTE:
            is_right = str in expected.kinds
        elif token in (b"true", b"false"):
            is_right = bool in expected.kinds
        else:
            is_right = int in expected.kinds or float in expected.kinds or not _NUMBER.fullmatch(token)
        if is_right:
            return
        sentence = _EXPECTED[expected.kinds[0]] if isinstance(expected, _Leaf) else _expected_container(expected)
        raise self._refusal(f"{sentence}{_given(token)}")


def _is_too_large(token: bytes) -> bool:
    return _WHOLE.fullmatch(token) is not None and abs(int(token)) > LARGEST_NUMBER


_ONLY_TEXT: Final = _Leaf((str,), is_nullable=False)


def _inner(shape: _Map | _List) -> _Shape:
    return shape.value if isinstance(shape, _Map) else shape.item


def _expected_container(expected: _Record | _Map | _List) -> str:
    return "input should be a valid list" if isinstance(expected, _List) else "input should be an object"


def _given(token: bytes) -> str:
    if token[0] == _QUOTE and len(token) > 500:
        token = token[:82] + '…"'.encode()
    try:
        value = json.loads(token)
    except ValueError:
        return ""
    return f" (given: {f'{value[:80]}…' if isinstance(value, str) and len(value) > 80 else value!r})"


def check(cls: Any, text: bytes, what: str, prefix: Sequence[Step] = ()) -> tuple[Cut, ...]:
    """Raises BadInput for the first part of ``text`` that cannot belong to a ``cls``. Text that is no JSON is left to the parser.

    Returns the outermost lists of objects in it, in order. ``prefix``: where the text lies in the whole request.
    """
    reader = _Reader(cls, what, prefix)
    reader.read(text)
    return tuple(reader.cuts)


def check_beginning(cls: Any, text: bytes, what: str) -> None:
    """As `check`, where more of the text is still to come."""
    _Reader(cls, what, ()).read(text, is_whole=False)
