"""What comes back from a job: its value, unpickled in its owner's kernel and nowhere else, or its error, shown like a local one.

A failed cell shows its own lines with the failing one marked, in under a kilobyte; `%tb` shows all that the job reported.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tuttilab.magics.shared.connection import user
from tuttilab.magics.shared.job_text import WRONG_VERSIONS, culprit, end_sentence, newest, short_id, title
from tuttilab.magics.shared.labels import CELL, DISPLAY, ERROR, FIRST_LINE, RESULT
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import Forbidden, NotFound
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.wire import JobView, PodView

LIMIT_BYTES: Final = 1000
_CONTEXT: Final = 2
_MOST_FRAMES: Final = 3
_MOST_CAUSES: Final = 3
_CANCELLED: Final = "Cancelled"


@dataclass(frozen=True)
class Frame:
    """One line of the remote stack. ``code`` is its text; ``around`` are lines of the cell near it by number."""

    file: str
    line: int
    function: str
    code: str = ""
    around: Mapping[int, str] = field(default_factory=dict)


class RemoteError(Exception):
    """A job did not succeed. ``str()`` is a sentence; ``type_name``, ``message`` and ``frames`` tell of the error in the cell."""

    def __init__(
        self,
        sentence: str,
        job_id: str,
        *,
        type_name: str = "",
        message: str = "",
        frames: Sequence[Frame] = (),
        trace: str = "",
        causes: Sequence[str] = (),
        job: str = "",
    ) -> None:
        """``job``: what the job is called, ``job 3f2a9c12 'train'``."""
        super().__init__(sentence)
        self.job_id = job_id
        self.job = job or f"job {short_id(job_id)}"
        self.type_name = type_name
        self.message = message
        self.frames = tuple(frames)
        self.trace = trace
        self.causes = tuple(causes)
        self._was_rendered = False

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the short form first, everything when asked again (`%tb`)."""
        if self._was_rendered and self.trace:
            return clean("\n".join([self.trace, str(self)])).splitlines()
        self._was_rendered = True
        return clean(self.short()).splitlines()

    def short(self) -> str:
        """The error with the cell's own lines, under a kilobyte."""
        if not self.type_name:
            return str(self)
        head = _cut(f"{self.type_name}: {self.message}" if self.message else self.type_name, 300)
        head = "\n".join([head, *(f"  {_cut(cause, 120)}" for cause in self.causes[:_MOST_CAUSES])])
        tail = f"In {_cut(self.job, 80)}; `%job {short_id(self.job_id)} logs` shows what it printed, %tb the whole trace."
        shown = self.frames[-_MOST_FRAMES:]
        for most in range(len(shown), -1, -1):
            for context in (_CONTEXT, 0):
                lines = [line for frame in shown[len(shown) - most :] for line in _frame_lines(frame, context)]
                text = "\n".join([head, *lines, tail])
                if len(text.encode()) <= LIMIT_BYTES:
                    return text
        return f"{head}\n{tail}"


def _frame_lines(frame: Frame, context: int) -> list[str]:
    where = f"{frame.file}, line {frame.line}" + (f", in {frame.function}" if frame.function != "<module>" else "")
    near = {n: text for n, text in frame.around.items() if abs(n - frame.line) <= context and text.rstrip() != FIRST_LINE.rstrip()}
    lines = near | {frame.line: frame.code}
    marked = [f"{'--> ' if n == frame.line else '    '}{n:>3} {_cut(text.rstrip(), 100)}" for n, text in sorted(lines.items())]
    return [where, *marked] if frame.code.strip() else [where]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def failure_of(client: Client, view: JobView, rank: int) -> RemoteError | None:
    """None for a job that succeeded, else the error to raise. ``rank`` chooses among members that left an error each."""
    if view.phase == "Succeeded":
        return None
    sentence = end_sentence(view)
    if view.phase == _CANCELLED:
        return RemoteError(sentence, view.id)
    # The first to fail explains the others, which often fail only because it is gone.
    for pod in (culprit(view), _member(view, rank)):
        if pod is not None and ERROR in pod.outputs:
            return _remote_error(client.get_artifact(pod.outputs[ERROR]), view, sentence)
        if pod is not None and pod.exit_code == WRONG_VERSIONS:
            said = client.logs(view.id, rank=pod.rank).lines
            return RemoteError(f"{title(view)}: {said[-1].strip()}" if said else sentence, view.id)
    return RemoteError(sentence, view.id)


def _remote_error(body: bytes, view: JobView, sentence: str) -> RemoteError:
    """From what the runner wrote. It came from user code: nothing in it is trusted to have any shape."""
    try:
        told = json.loads(body)
        frames = [_frame(item) for item in told["frames"]]
        own = [frame for frame, item in zip(frames, told["frames"], strict=True) if item.get("own")]
        type_name, message, trace = str(told["type"]), str(told["message"]), str(told["traceback"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return RemoteError(sentence, view.id)
    # Lines of libraries explain little; the cell's own, and those of functions that cells defined, are the user's.
    words = f"{type_name}: {_cut(message, 300)} (in {title(view)})" if message else f"{type_name} (in {title(view)})"
    causes = told.get("causes")
    return RemoteError(
        words,
        view.id,
        type_name=type_name,
        message=message,
        frames=own or frames[-1:],
        trace=trace,
        causes=[str(cause) for cause in causes] if isinstance(causes, list) else (),
        job=title(view),
    )


def _frame(item: Mapping[str, Any]) -> Frame:
    around = {int(number): str(text) for number, text in item["around"].items()}
    return Frame(str(item["file"]), int(item["line"]), str(item["function"]), str(item["code"]), around)


def _member(view: JobView, rank: int) -> PodView | None:
    attempt = newest(view)
    return next((pod for pod in attempt.pods if pod.rank == rank), None) if attempt else None


@dataclass(frozen=True)
class Returned:
    """What came back from one rank of a job that ran: the cell's value, names to bind, and sentences on what did not come."""

    value: Any = None
    names: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Pickled bytes of the names."""
    problem: RemoteError | None = None
    """What could not be loaded here; the rest was."""
    is_assigned: bool = False
    """The value is what the cell's last statement assigned; there is nothing to show for it."""


class StayedInJob:
    """Stands for a value that could not be sent back: shows its text there, and why."""

    def __init__(self, text: str, kind: str, why: str) -> None:
        self.text = text
        self.kind = kind
        self.why = why

    def __repr__(self) -> str:
        return f"<stayed in the job: {self.text}>"


def load_value(client: Client, view: JobView, rank: int) -> Returned:
    """What the cell left on this rank. Raises Forbidden for another owner's job, NotFound when it left nothing."""
    # To unpickle is to run what the job's author wrote: only the author does that.
    if view.owner != user():
        raise Forbidden(
            f"{title(view)} belongs to {view.owner}, and only that user's notebooks load its result (you are {user()})."
        )
    pod = _member(view, rank)
    if pod is None:
        ranks = [pod.rank for pod in (newest(view) or view).pods if isinstance(pod, PodView) and pod.rank >= 0]
        raise NotFound(f"{title(view)} has no rank {rank}; expected one of {', '.join(map(str, ranks)) or 'none'}.")
    if RESULT not in pod.outputs:
        if not pod.outputs and rank != 0:
            raise NotFound(f"{title(view)}: rank {rank} left no result.")
        raise NotFound(f"{title(view)} left no result: {_why_nothing(view)}.")
    return unpack(client.get_artifact(pod.outputs[RESULT]), title(view), view.id)


def _why_nothing(view: JobView) -> str:
    return "its cell ended the process itself (os._exit)" if CELL in view.labels else "it was not submitted by %%submit"


def unpack(body: bytes, words: str, job_id: str) -> Returned:
    """Reads ``result.pkl`` (`tuttilab.sidecar.cell.results` has the format). Raises RemoteError when the value cannot be loaded."""
    try:
        if not body.endswith(_MAGIC):
            raise ValueError("it is no result of a cell")
        end = len(body) - len(_MAGIC) - 8
        size = int.from_bytes(body[end : end + 8], "big")
        index = json.loads(body[end - size : end])
        entries = {**{str(name): dict(entry) for name, entry in index["out"].items()}, _VALUE_KEY: dict(index["value"])}
        notes = tuple(str(note) for note in index["notes"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RemoteError(f"The result of {words} cannot be read: {_cut(str(error), 200)}.", job_id) from error
    loaded = _Loader(body, words, job_id)
    names: dict[str, Any] = {}
    problem: RemoteError | None = None
    for name, entry in entries.items():
        try:
            names[name] = names[entry["same_as"]] if "same_as" in entry else loaded.load(entry, name)
        except RemoteError as error:
            problem = problem or error
        except KeyError:
            pass  # the value is one of the names, which could not be loaded
    value = names.pop(_VALUE_KEY, None)
    sizes = {name: int(entry["size"]) for name, entry in entries.items() if name != _VALUE_KEY and "size" in entry}
    kept = {name: each for name, each in names.items() if not isinstance(each, StayedInJob)}
    return Returned(value, kept, notes, sizes, problem, index.get("is_assigned") is True)


_MAGIC: Final = b"tuttires"
_VALUE_KEY: Final = ""
"""No variable is called so."""


class _Loader:
    """Loads entries in the order in which they were written."""

    def __init__(self, body: bytes, words: str, job_id: str) -> None:
        self._file = io.BytesIO(body)
        self._words = words
        self._job_id = job_id
        self._group = -1
        self._unpickler = pickle.Unpickler(self._file)
        self._read: list[tuple[int, int]] = []
        """Place and size of the group's entries so far."""
        self._lost: object | None = None
        """Stands for what other entries may share with one that could not be loaded."""
        self._uses_of_lost = 0

    def load(self, entry: Mapping[str, Any], name: str) -> Any:
        if "at" not in entry:
            return StayedInJob(str(entry["repr"]), str(entry["type"]), str(entry["why"]))
        if entry["group"] != self._group:
            self._group = entry["group"]
            self._unpickler, self._read, self._lost = pickle.Unpickler(self._file), [], None
        place = int(entry["at"]), int(entry["size"])
        self._file.seek(place[0])
        try:
            value = self._unpickler.load()
        except Exception as error:  # an object's own __setstate__ may raise anything, a missing module most often
            self._go_on_after(place)
            what = f"Variable {name}" if name != _VALUE_KEY else "The result"
            raise RemoteError(
                f"{what} of {self._words} cannot be loaded here: {type(error).__name__}: {_cut(_text_of(error), 300)}; "
                f"{_advice(error)}",
                self._job_id,
            ) from error
        self._read.append(place)
        if self._lost is not None and sys.getrefcount(self._lost) > self._uses_of_lost:
            raise RemoteError(f"Variable {name} of {self._words} holds a part of one that cannot be loaded here.", self._job_id)
        return value

    def _go_on_after(self, failed: tuple[int, int]) -> None:
        """A new unpickler that remembers what the entries before have in common with the next ones, and misses the failed one's."""
        before = sum(map(self._remembered, self._read))
        until = before + self._remembered(failed)
        self._read.append(failed)
        self._lost = lost = object()
        known = self._unpickler.memo.copy()
        memo: dict[int, Any] = {place: known[place] for place in range(before)} | dict.fromkeys(range(before, until), lost)
        self._unpickler = pickle.Unpickler(self._file)
        self._unpickler.memo = memo
        del memo, known
        self._uses_of_lost = sys.getrefcount(lost)

    def _remembered(self, place: tuple[int, int]) -> int:
        """How many objects the pickle there puts into the memo."""
        at, size = place
        return sum(code.name == "MEMOIZE" for code, _, _ in pickletools.genops(self._file.getbuffer()[at : at + size].tobytes()))


def _advice(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return "install what it needs in this kernel, or let the cell return plain values."
    if isinstance(error, AttributeError):
        return "this kernel has another version of that module: import it again (importlib.reload), or restart the kernel."
    return "let the cell return plain values."


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its text cannot be had: {type(broken).__name__})"


def displays_of(client: Client, view: JobView, rank: int) -> list[dict[str, Any]]:
    """What the cell showed on this rank, in order: lines of ``display.jsonl``. Lines that cannot be read are left out."""
    pod = _member(view, rank)
    if pod is None or DISPLAY not in pod.outputs or view.owner != user():
        return []
    return read_records(client.get_artifact(pod.outputs[DISPLAY]).splitlines())


def read_records(lines: Sequence[str | bytes]) -> list[dict[str, Any]]:
    """JSON objects; lines that are none are left out."""
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
