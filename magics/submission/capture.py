"""What a cell takes along to its job: the notebook's objects that it uses, pickled, each with its size shown.

Nothing leaves the kernel before everything is known to be picklable and small enough. Functions and classes that the
notebook defines travel by value with the globals they use (cloudpickle); modules travel as a name and are imported again.
With a function go its lines, so that an error in it shows them wherever it is looked at; other lines of its cell stay here.
"""

from __future__ import annotations

import io
import linecache
import operator
import pickle
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import Any, Final

import cloudpickle
from IPython.core.getipython import get_ipython

from tuttilab.magics.shared.display import show_bytes
from tuttilab.magics.shared.parse import nearest
from tuttilab.magics.submission.keyboard import Waiting, in_code
from tuttilab.magics.submission.names import names_in_strings, needed_names
from tuttilab.scheduler.domain.errors import BadInput, TooLarge

LIMIT_BYTES: Final = 200 * 1024 * 1024
"""The most that one submit may carry; the service's own default limit is the same."""

_COUNTED_BYTES: Final = 2 * LIMIT_BYTES
"""Counting an object stops here: far too large is known well before the last byte of it."""


_HISTORY: Final = re.compile(r"_{1,3}|_\d+|_i{1,3}|_i\d+|_[dio]h|In|Out")
"""What the shell keeps of cells and their values, under names of its own."""


@dataclass(frozen=True)
class Captured:
    """Objects by name, ready to travel.

    ``pickled``: the tuple of the names and then each value, by one pickler, so shared objects stay shared.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    pickled: bytes = b""
    sources: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """The lines of each function that travels, by number, under the name of its cell or file."""
    waiting: tuple[Waiting, ...] = ()
    """What waits at a keyboard in these functions."""

    @property
    def total(self) -> int:
        return len(self.pickled)

    def __str__(self) -> str:
        """``sends: df 1.2 MB, model 340 kB``, or an empty text when only modules travel."""
        if not self.sizes:
            return ""
        return "sends: " + show_sizes(self.sizes)


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
    """The notebook's names that the cell uses, or exactly those of ``only`` (``--in``); with ``+`` before each, both.

    ``hidden`` is what the shell put into the namespace itself (``In``, ``Out``, ``exit`` …): it never travels.
    Raises BadInput for a name of ``only`` that the notebook does not define, and for one of the notebook's history that is used.
    """
    asked = tuple(dict.fromkeys(only or ()))
    added = [name.removeprefix("+") for name in asked if name.startswith("+")]
    if added and len(added) < len(asked):
        raise BadInput(
            f"--in {','.join(asked)} mixes names with + and without: with + a name is sent beside those that the cell uses, "
            "without it the names given are all that is sent."
        )
    for name in added or asked:
        if name not in namespace:
            guess = nearest(name, [known for known in namespace if not known.startswith("_")])
            hint = f"did you mean {guess}?" if guess else "run the cell that defines it first."
            raise BadInput(f"--in names {name}, which this notebook does not define; {hint}")
    if only is not None and not added:
        return asked
    used = (*needed_names(source), *names_in_strings(source))
    for name in used:
        is_hidden = name in namespace and name in hidden and hidden[name] is namespace[name]
        if is_hidden and name not in added and _HISTORY.fullmatch(name):
            raise BadInput(
                f"{name} is the notebook's own history, which does not travel to a job; give what is meant a name in a cell "
                f"before, as in `value = {'_' if name in ('In', 'Out') else name}`, or send it as it is with --in +{name}."
            )
    found = [name for name in used if name in namespace and not (name in hidden and hidden[name] is namespace[name])]
    return tuple(dict.fromkeys((*found, *added)))


def capture(values: Mapping[str, Any], limit: int = LIMIT_BYTES) -> Captured:
    """Pickle the objects. Raises BadInput for one that cannot travel and TooLarge for more than ``limit`` bytes in all."""
    sizes: dict[str, int] = {}
    modules = []
    # One pickler for all, a pickle a name: shared objects stay shared, and each name's share of the bytes is known.
    buffer, sources = _Limited(2 * limit), _Sources()
    pickler = _Pickler(buffer, sources)
    pickler.dump(tuple(values))
    for name, value in values.items():
        before = buffer.tell()
        try:
            pickler.dump(value)
        except _Enough:
            sizes = {each: _pickled_size(values[each]) for each in values if not isinstance(values[each], ModuleType)}
            raise _too_large(sizes, sum(sizes.values()), limit) from None
        except _BoundToSession as error:
            raise _no_spark(name, value, str(error)) from None
        except Exception as error:  # whatever an object's own __reduce__ raises: it cannot travel, and the user must know which
            raise BadInput(
                f"{name} ({type(value).__name__}) cannot travel to a job: {_reason(error)}; "
                "make it inside the cell instead, or name what to send with --in."
            ) from error
        if isinstance(value, ModuleType):
            modules.append(name)
        else:
            sizes[name] = buffer.tell() - before
    if buffer.tell() > limit:
        raise _too_large(sizes, buffer.tell(), limit)
    return Captured(sizes, tuple(modules), buffer.getvalue(), sources.lines, tuple(sources.waiting))


def _too_large(sizes: Mapping[str, int], total: int, limit: int) -> TooLarge:
    in_all = f"more than {show_bytes(_COUNTED_BYTES)}" if total > _COUNTED_BYTES else show_bytes(total)
    return TooLarge(
        f"This cell would send {in_all} ({show_sizes(sizes)}), and at most {limit // 2**20} MiB may travel with a job; "
        "write the large object to a file on shared storage and read it in the cell, or name what to send with --in."
    )


class _Sources:
    """Where the code that travels was written: a name for each cell or file, and the lines of the functions themselves."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[int, str]] = {}
        self.waiting: list[Waiting] = []
        self._names: dict[str, str] = {}

    def add(self, code: CodeType) -> str:
        """The name under which it travels."""
        file = code.co_filename
        name = self._names.get(file)
        if name is None:
            name = self._names[file] = self._new_name(file)
        text = linecache.getlines(file)
        # A statement of several lines ends after the last line that runs.
        ends = [line for _, _, line in code.co_lines()] + [line for _, line, _, _ in code.co_positions()]
        last = max((line for line in ends if line), default=0)
        found = {n: text[n - 1].rstrip("\n") for n in range(max(1, code.co_firstlineno), min(last, len(text)) + 1)}
        if found:
            self.lines.setdefault(name, {}).update(found)
        self.waiting += in_code(code, getattr(get_ipython(), "user_ns", ()), name)
        return name

    def _new_name(self, file: str) -> str:
        """``<In[5]>`` for a cell, as its prompt has it. What ran without a prompt of its own is told apart from that."""
        shell = get_ipython()
        label = shell.compile.format_code_name(file) if shell is not None else None
        if label is None:
            return file
        name, again, taken = f"<{label[1]}>", 2, set(self._names.values())
        while name in taken:
            name, again = f"<{label[1]}, {again}>", again + 1
        return name


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle has no types
    """Sends code under the name of its cell. Left to itself cloudpickle may name all code alike, and none can be found again."""

    def __init__(self, file: Any, sources: _Sources) -> None:  # Any: whatever a pickler writes to
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._sources = sources
        # Functions of the notebook get the globals of the job's __main__: they see what the cell sets, and it what they set.
        stand_in = _MainGlobals(__name__="__main__")
        self.globals_ref[id(sys.modules["__main__"].__dict__)] = stand_in
        shell = get_ipython()
        if (namespace := getattr(shell, "user_ns", None)) is not None:
            self.globals_ref[id(namespace)] = stand_in

    def reducer_override(self, obj: Any) -> Any:  # Any: as in pickle
        if isinstance(obj, _MainGlobals):
            return getattr, (sys.modules["__main__"], "__dict__")
        if (what := _spark_object(obj)) is not None:
            raise _BoundToSession(what)
        if isinstance(obj, CodeType):
            return operator.methodcaller("replace", co_filename=self._sources.add(obj)), (_Code(obj),)
        return super().reducer_override(obj)


class _MainGlobals(dict[str, Any]):
    """Stands for the globals of the notebook while its functions are pickled. Not empty, or cloudpickle would fill it."""


class _Code:
    """Stands for a code object while it is pickled: what cloudpickle makes of it, without asking `_Pickler` again."""

    def __init__(self, code: CodeType) -> None:
        self._code = code

    def __reduce__(self) -> Any:  # Any: as in pickle
        return cloudpickle.CloudPickler.dispatch_table[CodeType](self._code)


_SPARK_OBJECTS: Final = {
    "SparkSession": "a Spark session",
    "SparkContext": "a Spark context",
    "DataFrame": "a Spark DataFrame",
    "Column": "a Spark column",
    "GroupedData": "a grouped Spark DataFrame",
    "RDD": "an RDD of Spark",
    "Catalog": "a Spark catalog",
    "DataFrameReader": "a reader of a Spark session",
    "DataFrameWriter": "a writer of a Spark DataFrame",
}


class _BoundToSession(Exception):
    """An object that is only a name for something in the notebook's Spark session: it pickles, and is useless in a job."""


def _spark_object(value: object) -> str | None:
    """What the object of a Spark session is called; None for everything else, Spark's types, rows and classes among it."""
    kind = type(value)
    module = kind.__module__
    return _SPARK_OBJECTS.get(kind.__name__) if module == "pyspark" or module.startswith("pyspark.") else None


def _no_spark(name: str, value: object, what: str) -> BadInput:
    """``what`` was found in the value of ``name``, or is the value itself."""
    holds = "is" if _spark_object(value) is not None else f"({type(value).__name__}) uses"
    ways = [
        f"save the rows with %%sparksql --save PATH and read {'them' if what.endswith('DataFrame') else 'the file'} in the cell"
    ]
    if what.endswith("DataFrame"):
        frame = name if _spark_object(value) is not None else "df"
        ways.insert(0, f"send the rows with local = {frame}.toPandas()")
    ways.append("start a session inside the cell (SparkSession.builder.getOrCreate())")
    return BadInput(
        f"{name} {holds} {what}, which lives in this notebook and is of no use in a job; {', '.join(ways[:-1])}, or {ways[-1]}."
    )


class _Enough(Exception):
    """The count went past every limit."""


class _Limited(io.BytesIO):
    """Stops far beyond the limit: what is too large is known well before its last byte."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:  # Any: bytes, memoryview or pickle.PickleBuffer
        if self.tell() + memoryview(data).nbytes > self._most:
            raise _Enough
        return super().write(data)


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


def _pickled_size(value: object) -> int:
    """Bytes of its pickle, counted up to `_COUNTED_BYTES`; 0 when it cannot be pickled."""
    counter = _Counter()
    try:
        _Pickler(counter, _Sources()).dump(value)
    except _Enough:
        pass
    except Exception:  # as in `capture`; here only the size matters
        return 0
    return counter.size


def _reason(error: BaseException) -> str:
    """The innermost cause in a line: picklers wrap the sentence that says why."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")[:200]
