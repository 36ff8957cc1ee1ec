"""What comes back from a job: its value, unpickled in its owner's kernel and nowhere else, or its error, shown like a local one.

A failed cell shows its own lines with the failing one marked, in under a kilobyte; `%tb` shows all that the job reported.
"""

from __future__ import annotations

import json
import linecache
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tuttilab.magics.connection import user
from tuttilab.magics.job_text import WRONG_VERSIONS, culprit, end_sentence, newest, short_id, title
from tuttilab.magics.submission import ERROR, RESULT
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.errors import Forbidden, NotFound
from tuttilab.scheduler.wire import JobView, PodView

LIMIT_BYTES: Final = 1000
_CONTEXT: Final = 2
_MOST_FRAMES: Final = 3
_CANCELLED: Final = "Cancelled"
_CELLS: Final = ("<%%submit ", "<submit ", "<ipython-input-")
"""How cells are named that are no files."""


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
    ) -> None:
        super().__init__(sentence)
        self.job_id = job_id
        self.type_name = type_name
        self.message = message
        self.frames = tuple(frames)
        self.trace = trace
        self._was_rendered = False

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the short form first, everything when asked again (`%tb`)."""
        if self._was_rendered and self.trace:
            return [*self.trace.splitlines(), str(self)]
        self._was_rendered = True
        return self.short().splitlines()

    def short(self) -> str:
        """The error with the cell's own lines, under a kilobyte."""
        if not self.type_name:
            return str(self)
        head = _cut(f"{self.type_name}: {self.message}" if self.message else self.type_name, 300)
        tail = f"In {_job_words(self.job_id)}; `%job {short_id(self.job_id)} logs` shows what it printed, %tb the whole trace."
        shown = self.frames[-_MOST_FRAMES:]
        for most in range(len(shown), -1, -1):
            for context in (_CONTEXT, 0):
                lines = [line for frame in shown[len(shown) - most :] for line in _frame_lines(frame, context)]
                text = "\n".join([head, *lines, tail])
                if len(text.encode()) <= LIMIT_BYTES:
                    return text
        return f"{head}\n{tail}"


def _job_words(job_id: str) -> str:
    return f"job {short_id(job_id)}"


def _frame_lines(frame: Frame, context: int) -> list[str]:
    where = f"{frame.file}, line {frame.line}" + (f", in {frame.function}" if frame.function != "<module>" else "")
    # The first line stands for the magic's own and says nothing.
    lines = {n: text for n, text in frame.around.items() if abs(n - frame.line) <= context and n > 1} | {frame.line: frame.code}
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
        type_name, message, trace = str(told["type"]), str(told["message"]), str(told["traceback"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return RemoteError(sentence, view.id)
    # Lines of libraries explain little; the cell's own, and those of functions that cells defined, are the user's.
    own = [frame for frame in frames if frame.file.startswith(_CELLS) or _cell_lines(frame.file)]
    words = f"{type_name}: {_cut(message, 300)} (in {title(view)})" if message else f"{type_name} (in {title(view)})"
    return RemoteError(words, view.id, type_name=type_name, message=message, frames=own or frames[-1:], trace=trace)


def _frame(item: Mapping[str, Any]) -> Frame:
    """A function that an earlier cell defined is known here by its lines; the job has them for its own cell only."""
    file, line = str(item["file"]), int(item["line"])
    around = {int(number): str(text) for number, text in item["around"].items()}
    if not around:
        around = {n: text.rstrip("\n") for n, text in enumerate(_cell_lines(file), 1) if abs(n - line) <= _CONTEXT}
    return Frame(file, line, str(item["function"]), str(item["code"]) or around.get(line, ""), around)


def _cell_lines(file: str) -> Sequence[str]:
    """The text of a cell of this kernel. It lives in linecache only: there is no file to check it against, hence no time."""
    entry = linecache.cache.get(file)
    return entry[2] if entry is not None and len(entry) == 4 and entry[1] is None else ()


def _member(view: JobView, rank: int) -> PodView | None:
    attempt = newest(view)
    return next((pod for pod in attempt.pods if pod.rank == rank), None) if attempt else None


def load_value(client: Client, view: JobView, rank: int) -> tuple[Any, dict[str, Any]]:
    """The value of the cell's last expression and the names of ``--out``, of a job that succeeded."""
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
        raise NotFound(f"{title(view)} left no result: it was not submitted by %%submit, or its cell ended the process itself.")
    try:
        left = pickle.loads(client.get_artifact(pod.outputs[RESULT]))
    except Exception as error:  # an object's own __setstate__ may raise anything, a missing module most often
        raise RemoteError(
            f"The result of {title(view)} cannot be loaded here: {type(error).__name__}: {_cut(str(error), 300)}; "
            "install what it needs in this kernel, or let the cell return plain values.",
            view.id,
        ) from error
    return left["value"], dict(left["out"])
