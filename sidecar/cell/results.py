"""``result.pkl``: the value of the cell and the names that come back, pickled one after the other.

The pickles are followed by an index as JSON, its length in 8 bytes (big endian) and `MAGIC`. The index is::

    {
        "value": {"name": "value", "at": 0, "size": 57, "group": 0} | {"same_as": "model"} | {"repr": "…", "why": "…", "type": "…"},
        "out": {"model": {…}},
        "notes": ["sentence for the user"],
        "is_assigned": true,
    }

``is_assigned``: the cell ends with an assignment, and its value is what that assigned.

Entries of one group were written by one pickler and are read by one unpickler in order, so objects that they share stay shared.
What cannot be pickled costs nothing but itself: its ``repr`` and the reason stand in its place, and the next entries are a new
group.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

MAGIC = b"tuttires"
_VALUES = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))
"""What cannot have been changed in place."""
LARGEST_UNASKED = 2**31
"""Bytes of a name that nobody asked for by ``--out``."""
MOST_REPR = 2000


class NotSent(Exception):
    """A variable that was asked for cannot go back to the notebook."""


class _TooLarge(Exception):
    pass


@dataclass(frozen=True)
class Wanted:
    """``out``: names that were asked for. ``brought``: names that come back if they can, because the cell ends with them or
    because the submit's own variable is called so. ``value_names``: whose values are the cell's, when it ends with an assignment.
    """

    out: tuple[str, ...] = ()
    brought: tuple[str, ...] = ()
    value_names: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    """Names that came from the notebook."""
    ending: str = ""
    """The last statement in a word or two, for the user; empty for an expression."""

    @classmethod
    def of(cls, bundle: dict[str, Any]) -> Wanted:
        out, brought, value_names = (tuple(bundle.get(key) or ()) for key in ("out", "brought", "value_names"))
        return cls(out, brought, value_names, ending=bundle.get("ending") or "")

    def optional(self) -> Wanted:
        """When the cell left before its end: what it has made by then comes back."""
        return replace(self, out=(), brought=(*self.out, *self.brought))

    def value_of(self, value: Any, namespace: dict[str, Any]) -> Any:
        """The value of the last expression, or of what the last statement assigned."""
        if value is not None or not all(name in namespace for name in self.value_names):
            return value
        values = tuple(namespace[name] for name in self.value_names)
        return values[0] if len(values) == 1 else values or None


def save(folder: str, value: Any, wanted: Wanted, namespace: dict[str, Any]) -> None:
    """Writes whatever can be pickled. Then raises NotSent naming what was asked for and is missing or cannot travel."""
    path = os.path.join(folder, "result.pkl")
    problems: list[str] = []
    nothing: list[str] = []
    """For the notebook only: the log says what went wrong."""
    names: list[tuple[str, Any, bool]] = []
    for name in dict.fromkeys((*wanted.out, *wanted.brought)):
        if name in namespace:
            names.append((name, namespace[name], name in wanted.out))
        elif name in wanted.out:
            problems.append(f"--out {name}: the cell has set no variable {name}.")
    with open(path + ".new", "wb") as file:
        writer = _Writer(file)
        out = {name: writer.add(name, each, None if is_asked else LARGEST_UNASKED) for name, each, is_asked in names}
        same = next((name for name, each, _ in names if each is value and "at" in out[name]), None)
        index: dict[str, Any] = {"out": out, "notes": [], "is_assigned": bool(wanted.value_names)}
        if value is None and not out:
            ending = wanted.ending or "an expression whose value is None"
            nothing.append(
                f"The cell brings nothing back: it ends with {ending}; end it with the variable that you need, or name it with "
                "--out."
            )
        sent = next((name for name in wanted.sent if name not in out and namespace.get(name) is value), None)
        if sent is not None and value is not None and not wanted.value_names and not isinstance(value, _VALUES):
            nothing.append(
                f"The value is `{sent}` as it is in the job; the notebook's own is unchanged: `{sent} = …` brings it back."
            )
        index["value"] = {"same_as": same} if same is not None and value is not None else writer.add("value", value, None)
        for name, _, is_asked in names:
            if "why" in out[name]:
                said = f"variable {name} (a {out[name]['type']}) cannot be sent back: {out[name]['why']}"
                (problems if is_asked else index["notes"]).append(f"The cell ran, but {said}")
        if "why" in index["value"] and not wanted.value_names:
            index["notes"].append(
                f"The value of the last expression (a {index['value']['type']}) stays in the job, only its text came back: "
                f"{index['value']['why']}"
            )
        body = json.dumps({**index, "notes": [*index["notes"], *nothing]}).encode()
        file.write(body + len(body).to_bytes(8, "big") + MAGIC)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
    if problems:
        raise NotSent(" ".join(problems))


class _Counted:
    """Stops a pickle that becomes larger than a limit."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.room: int | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.room is not None:
            self.room -= size
            if self.room < 0:
                raise _TooLarge
        self._file.write(data)
        return size


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._counted = _Counted(file)
        self._group = -1
        self._pickler: Any = None

    def add(self, name: str, value: Any, limit: int | None) -> dict[str, Any]:
        """The entry of the index."""
        import cloudpickle

        if self._pickler is None:
            self._group += 1
            self._pickler = cloudpickle.CloudPickler(self._counted)
        at = self._file.tell()
        self._counted.room = limit
        try:
            self._pickler.dump(value)
        except Exception as error:
            # What the pickler remembers of it was not written: the next one begins anew.
            self._pickler = None
            self._file.seek(at)
            self._file.truncate()
            too_large = f"it is larger than {LARGEST_UNASKED >> 20} MiB; --out {name} brings it back all the same."
            why = too_large if isinstance(error, _TooLarge) else f"{type(error).__name__}: {_text(error)}"
            kind = type(value)
            return {"repr": _repr(value), "why": why, "type": f"{kind.__module__}.{kind.__qualname__}".replace("builtins.", "")}
        return {"at": at, "size": self._file.tell() - at, "group": self._group}


def _repr(value: Any) -> str:
    try:
        return _valid(repr(value)[:MOST_REPR])
    except Exception as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def _text(error: Exception) -> str:
    try:
        return _valid(str(error)[:MOST_REPR])
    except Exception:
        return "<its text cannot be had>"


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def write_whole(path: str, body: bytes) -> None:
    with open(path + ".new", "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
