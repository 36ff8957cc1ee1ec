"""Follows the log of a job, all ranks in one stream, over attempts and over restarts of the control plane."""

from __future__ import annotations

import contextlib
import heapq
import re
import shutil
import sys
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypeVar

from tuttilab.scheduler.cli.console import at_prompt, note, put, run_time, short
from tuttilab.scheduler.domain.errors import NotFound, Unavailable
from tuttilab.scheduler.domain.terminal import clean
from tuttilab.scheduler.domain.words import start_text, word

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.wire import AttemptView, JobView, LogView

T = TypeVar("T")

PAGE: Final = 1000
LONG_PAGE: Final = 10_000
"""When lines are only counted."""
POLL_S: Final = 0.25
SLOWEST_POLL_S: Final = 2.0
RUNNING_POLL_S: Final = 0.7
"""Of a running job: what it prints is to be seen within a second."""
MOST_UNFINISHED: Final = 8
"""Unfinished lines shown at once, one a rank."""
DRAIN_S: Final = 3.0
"""How long after a job's end to wait for its last lines (the log of a lost pod is never marked as complete)."""
OUTAGE_S: Final = 600.0
MASTER_RANK: Final = -1


class Source(Protocol):
    """The part of the client that is needed here."""

    def job(self, job_id: str) -> JobView: ...

    def logs(self, job_id: str, *, rank: int = 0, start: int = 0, limit: int = PAGE, attempt: int | None = None) -> LogView: ...


@dataclass
class Stream:
    """Reads the logs of one attempt after another, and keeps the position in each rank's log.

    ``rank`` None reads all ranks; when there are several, each line has its rank before it.
    """

    source: Source
    job_id: str
    put: Callable[[str], None]
    rank: int | None = None
    start: int = 0
    attempt: int = 0
    unfinished: dict[int, str] = field(default_factory=dict)
    """By rank: newest state of the line that has no line feed yet, such as a progress bar."""
    tail: int | None = None
    """Of each rank's log only so many lines before what is written from now on."""
    _positions: dict[int, int] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)
    _pods: dict[int, str] = field(default_factory=dict)

    def read(self, attempt: AttemptView) -> int:
        """Put every line written by now; returns their number."""
        if attempt.number != self.attempt:
            self.attempt = attempt.number
            self._positions.clear()
            self._ended.clear()
            self._pods.clear()
            self.unfinished.clear()
        self._restart_replaced_ranks(attempt)
        ranks = [pod.rank for pod in attempt.pods if pod.rank != MASTER_RANK]
        wanted = ranks if self.rank is None else [self.rank]
        width = len(str(max(ranks, default=0)))
        count = 0
        # In the order of time as far as the cluster knows it, else rank after rank.
        for _, rank, line in heapq.merge(*(self._timed_lines(rank) for rank in wanted), key=itemgetter(0)):
            self.put((f"[{rank:>{width}}] " if len(wanted) > 1 else "") + line)
            count += 1
        return count

    def _timed_lines(self, rank: int) -> Iterator[tuple[float, int, str]]:
        """Lines with when they were written; 0.0 where that is unknown."""
        for page in self._pages(rank):
            times, at = deque(page.times), 0.0
            for number, line in enumerate(page.lines, page.start):
                while times and times[0][0] <= number:
                    at = times.popleft()[1]
                yield at, rank, line

    def unfinished_lines(self) -> list[str]:
        """What is being written at the moment, a line a rank; only as many as fit below a log."""
        found = [(rank, text) for rank, text in sorted(self.unfinished.items()) if text.strip()]
        several = len(self._pods) > 1 and self.rank is None
        return [f"[{rank}] {text}" if several else text for rank, text in found[:MOST_UNFINISHED]]

    def _restart_replaced_ranks(self, attempt: AttemptView) -> None:
        """When an elastic gang shrank and grew again, a rank may be a new pod, with a log of its own."""
        for pod in attempt.pods:
            if self._pods.setdefault(pod.rank, pod.name) != pod.name:
                self._pods[pod.rank] = pod.name
                self._positions[pod.rank] = 0
                self._ended.discard(pod.rank)

    def is_complete(self, attempt: AttemptView) -> bool:
        """Whether the log of every wanted rank was read to its end."""
        ranks = {pod.rank for pod in attempt.pods if pod.rank != MASTER_RANK}
        return attempt.number == self.attempt and self._ended >= (ranks if self.rank is None else {self.rank})

    def _pages(self, rank: int) -> Iterator[LogView]:
        self._skip_to_tail(rank)
        while rank not in self._ended:
            try:
                page = self.source.logs(
                    self.job_id, rank=rank, start=self._positions.get(rank, self.start), limit=PAGE, attempt=self.attempt
                )
            except NotFound:
                # Its pod does not exist yet, or left no log.
                return
            yield page
            self._positions[rank] = page.next
            self.unfinished[rank] = page.partial
            if page.is_end:
                self._ended.add(rank)
            if not page.lines:
                return

    def _skip_to_tail(self, rank: int) -> None:
        """Sets the position of a rank that was not read yet so that `tail` lines follow, as far as it is written now."""
        if self.tail is None or rank in self._positions:
            return
        start = 0
        with contextlib.suppress(NotFound):
            while True:
                page = self.source.logs(self.job_id, rank=rank, start=start, limit=LONG_PAGE, attempt=self.attempt)
                start = page.next
                if not page.lines or page.is_end:
                    break
            self._positions[rank] = max(0, start - self.tail)


def print_log(
    source: Source, job_id: str, *, rank: int | None, start: int, attempt: int | None, follow: bool, tail: int | None = None
) -> None:
    """`tuttilab logs`. Without ``attempt`` the newest one."""
    job = source.job(job_id)
    chosen = [one for one in job.attempts if attempt is None or one.number == attempt]
    if attempt is not None and not chosen:
        raise NotFound(f"Job {short(job.id)} has no attempt {attempt}; it has had {len(job.attempts)}.")
    if rank is not None and chosen:
        ranks = [pod.rank for pod in chosen[-1].pods]
        if rank not in ranks:
            raise NotFound(f"Job {short(job.id)} has no rank {rank}; expected {min(ranks, default=0)} to {max(ranks, default=0)}.")
    live: UnfinishedLines | NoStatus = UnfinishedLines() if follow and sys.stdout.isatty() else NoStatus()
    stream = Stream(source, job.id, live.print_line, rank, start, tail=tail)
    if follow and attempt is None:
        until_end(stream, live)
    elif chosen:
        stream.read(chosen[-1])
    else:
        note(f"Job {short(job.id)} has not started: {at_prompt(job.wait.sentence) if job.wait else job.reason or word(job.phase)}")


def follow_to_exit_code(source: Source, job_id: str) -> int:
    """`tuttilab submit --wait`: the job's log, then its exit code; 1 when it failed without one."""
    status: StatusLine | StatusNotes = StatusLine() if sys.stderr.isatty() else StatusNotes()
    stream = Stream(source, job_id, status.print_line)
    try:
        job = until_end(stream, status)
    except KeyboardInterrupt:
        status.clear()
        me = short(job_id)
        note(f"Job {me} goes on; `tuttilab logs {me} -f` follows it, `tuttilab cancel {me}` ends it.")
        raise
    return exit_code_of(job)


def exit_code_of(job: JobView) -> int:
    if job.phase == "Succeeded":
        return 0
    return job.exit_code if job.exit_code is not None and 0 < job.exit_code < 256 else 1


class Status(Protocol):
    """Shows the job's state beside its log."""

    def show(self, job: JobView, unfinished: Sequence[str]) -> None: ...

    def clear(self) -> None: ...

    def print_line(self, line: str) -> None: ...


class NoStatus:
    def show(self, job: JobView, unfinished: Sequence[str]) -> None: ...

    def clear(self) -> None: ...

    def print_line(self, line: str) -> None:
        put(line)


class StatusNotes:
    """For a pipe: prints a plain line on stderr whenever the phase or its reason changes."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, job: JobView, unfinished: Sequence[str]) -> None:
        text = status_line(job, time.time())
        if text != self._last:
            note(text)
            self._last = text

    def clear(self) -> None: ...

    def print_line(self, line: str) -> None:
        put(line)


class UnfinishedLines:
    """For a terminal: below the log the lines that are being written, such as progress bars, in their newest state."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._shown: list[str] = []

    def show(self, job: JobView, unfinished: Sequence[str]) -> None:
        self._draw([] if job.is_ended else unfinished)

    def clear(self) -> None:
        self._draw([])

    def print_line(self, line: str) -> None:
        self.clear()
        put(line)

    def _draw(self, lines: Sequence[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        wanted = [cut_to_width(clean(line), width) for line in lines]
        if wanted == self._shown:
            return
        back = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (len(self._shown) - 1) if self._shown else ""
        self._stream.write(back + "\n".join(wanted))
        self._stream.flush()
        self._shown = wanted


class StatusLine(UnfinishedLines):
    """For a terminal: the lines that are being written, and below them the job's state, on stderr."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def show(self, job: JobView, unfinished: Sequence[str]) -> None:
        text = status_line(job, time.time(), run_time(job))
        if job.is_ended:
            self.clear()
            note(text)
            return
        self._draw([*unfinished, text])


def cut_to_width(line: str, width: int) -> str:
    """At most ``width`` characters; escape sequences take no room and are kept, others that move the cursor are not."""
    shown, room = [], width
    for piece in _SEQUENCE.split(line):
        if _SEQUENCE.fullmatch(piece):
            shown.append(piece if piece.endswith("m") else "")
            continue
        for char in piece.expandtabs(4):
            room -= 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if room < 0:
                break
            shown.append(char if char.isprintable() else " ")
    text = "".join(shown)
    return f"{text}\x1b[0m" if "\x1b" in text else text


_SEQUENCE: Final = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z])")


def status_line(job: JobView, now: float, took: str = "") -> str:
    """The job's id, name and phase, how long it ran, and the reason: ``3f2a9c12 train: Failed (ran 2s; exit code 1)``."""
    facts = [f"{'ran' if job.is_ended else 'for'} {took}"] if took else []
    if job.wait is not None and not job.is_ended:
        start = start_text(job.wait.earliest, job.wait.latest, now)
        facts += [*([start] if start else []), at_prompt(job.wait.sentence)]
    elif job.reason:
        facts.append(job.reason)
    if job.is_ended and job.exit_code and str(job.exit_code) not in job.reason:
        facts.append(f"exit code {job.exit_code}")
    return f"{short(job.id)} {job.name}: {word(job.phase)}" + (f" ({'; '.join(facts)})" if facts else "")


def until_end(stream: Stream, status: Status) -> JobView:
    """Follow the log until the job has ended and its last lines were read."""
    pause, ended_at = POLL_S, None
    while True:
        job = _retry_while_unavailable(lambda: stream.source.job(stream.job_id), status)
        count = 0
        for attempt in job.attempts:
            # An attempt that ended since the last poll has lines that were not read.
            if attempt.number >= stream.attempt:
                if 0 < stream.attempt < attempt.number:
                    note(f"{short(job.id)} {job.name}: attempt {attempt.number}")
                count += _retry_while_unavailable(lambda one=attempt: stream.read(one), status)  # type: ignore[misc]  # a default of a lambda has no type
        if job.is_ended:
            ended_at = time.monotonic() if ended_at is None else ended_at
            is_drained = not job.attempts or stream.is_complete(job.attempts[-1])
            if is_drained or time.monotonic() - ended_at > DRAIN_S:
                status.show(job, ())
                return job
        else:
            status.show(job, stream.unfinished_lines())
        slowest = RUNNING_POLL_S if job.phase == "Running" else SLOWEST_POLL_S
        pause = POLL_S if count or job.is_ended else min(pause * 1.2, slowest)
        time.sleep(pause)


def _retry_while_unavailable(call: Callable[[], T], status: Status) -> T:
    """The result of ``call``, retried while the control plane restarts. Raises Unavailable after `OUTAGE_S`."""
    until, pause = time.monotonic() + OUTAGE_S, 0.5
    is_first = True
    while True:
        try:
            return call()
        except Unavailable as error:
            if time.monotonic() > until:
                raise
            if is_first:
                status.clear()
                note(f"{error} Waiting for it; the job goes on.")
                is_first = False
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        time.sleep(pause)
        pause = min(pause * 2, 10.0)
