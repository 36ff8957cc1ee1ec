"""What a cell takes along to its job: the notebook's objects that it uses, pickled, each with its size shown.

Nothing leaves the kernel before everything is known to be picklable and small enough. Functions and classes that the
notebook defines travel by value with the globals they use (cloudpickle); modules travel as a name and are imported again.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import cloudpickle

from tuttilab.magics.names import needed_names
from tuttilab.magics.parse import nearest
from tuttilab.scheduler.errors import BadInput, TooLarge

LIMIT_BYTES: Final = 200 * 1024 * 1024
"""The most that one submit may carry; the service's own default limit is the same."""

_COUNTED_BYTES: Final = 2 * LIMIT_BYTES
"""Counting an object stops here: far too large is known well before the last byte of it."""


@dataclass(frozen=True)
class Captured:
    """Objects by name, ready to travel: ``pickled`` is one pickle of the whole mapping, so shared objects stay shared."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    pickled: bytes = b""

    @property
    def total(self) -> int:
        return len(self.pickled)

    def __str__(self) -> str:
        """``sends: df 1.2 MB, model 340 kB``, or an empty text when only modules travel."""
        if not self.sizes:
            return ""
        return "sends: " + show_sizes(self.sizes)


def show_bytes(size: int) -> str:
    """``340 kB`` or ``1.2 MB``: decimal, two digits that mean something."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.5 or unit == "GB":
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    raise AssertionError("unreachable")


def show_sizes(sizes: Mapping[str, int], most: int = 12) -> str:
    """The names with their sizes, the largest first."""
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {_show_counted(size)}" for name, size in ranked[:most]]
    if len(ranked) > most:
        shown.append(f"and {len(ranked) - most} smaller")
    return ", ".join(shown)


def _show_counted(size: int) -> str:
    return f"more than {show_bytes(_COUNTED_BYTES)}" if size > _COUNTED_BYTES else show_bytes(size)


def choose_names(
    source: str, namespace: Mapping[str, Any], hidden: Mapping[str, Any], only: Iterable[str] | None = None
) -> tuple[str, ...]:
    """The notebook's names that the cell uses, or exactly those of ``only`` (``--in``).

    ``hidden`` is what the shell put into the namespace itself (``In``, ``Out``, ``exit`` …): it never travels.
    Raises BadInput for a name of ``only`` that the notebook does not define.
    """
    if only is None:
        return tuple(
            name for name in needed_names(source) if name in namespace and not (name in hidden and hidden[name] is namespace[name])
        )
    names = tuple(dict.fromkeys(only))
    for name in names:
        if name not in namespace:
            guess = nearest(name, [known for known in namespace if not known.startswith("_")])
            hint = f"did you mean {guess}?" if guess else "run the cell that defines it first."
            raise BadInput(f"--in names {name}, which this notebook does not define; {hint}")
    return names


def capture(values: Mapping[str, Any], limit: int = LIMIT_BYTES) -> Captured:
    """Pickle the objects. Raises BadInput for one that cannot travel and TooLarge for more than ``limit`` bytes in all."""
    sizes: dict[str, int] = {}
    modules = []
    for name, value in values.items():
        size = _pickled_size(name, value)
        if isinstance(value, ModuleType):
            modules.append(name)
        else:
            sizes[name] = size
    if sum(sizes.values()) > limit:
        raise _too_large(sizes, sum(sizes.values()), limit)
    pickled = cloudpickle.dumps(dict(values), protocol=pickle.HIGHEST_PROTOCOL)
    if len(pickled) > limit:
        raise _too_large(sizes, len(pickled), limit)
    return Captured(sizes, tuple(modules), pickled)


def _too_large(sizes: Mapping[str, int], total: int, limit: int) -> TooLarge:
    in_all = f"more than {show_bytes(_COUNTED_BYTES)}" if total > _COUNTED_BYTES else show_bytes(total)
    return TooLarge(
        f"This cell would send {in_all} ({show_sizes(sizes)}), and at most {limit // 2**20} MiB may travel with a job; "
        "write the large object to a file on shared storage and read it in the cell, or name what to send with --in."
    )


class _Enough(Exception):
    """The count went past every limit."""


class _Counter(io.RawIOBase):
    """A file that keeps nothing and knows how much was written."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: bytes, memoryview or pickle.PickleBuffer
        size = memoryview(data).nbytes
        self.size += size
        if self.size > _COUNTED_BYTES:
            raise _Enough
        return size


def _pickled_size(name: str, value: object) -> int:
    counter = _Counter()
    try:
        cloudpickle.CloudPickler(counter, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except _Enough:
        pass
    except Exception as error:  # whatever an object's own __reduce__ raises: it cannot travel, and the user must know which
        raise BadInput(
            f"{name} ({type(value).__name__}) cannot travel to a job: {_reason(error)}; "
            "make it inside the cell instead, or name what to send with --in."
        ) from error
    return counter.size


def _reason(error: BaseException) -> str:
    """The innermost cause in a line: picklers wrap the sentence that says why."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:200]
