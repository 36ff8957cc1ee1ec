"""The log of a job as it grows, all ranks in one stream, over attempts and over a restart of the control plane."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import click

from tuttilab.scheduler.cli.console import note, short, took
from tuttilab.scheduler.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from tuttilab.scheduler.wire import AttemptView, JobView, LogView

T = TypeVar("T")

PAGE: Final = 1000
POLL_S: Final = 0.25
SLOWEST_POLL_S: Final = 2.0
DRAIN_S: Final = 3.0
"""How long after a job's end its last lines may still be on their way (a lost pod never says that it has no more)."""
OUTAGE_S: Final = 600.0
MASTER_RANK: Final = -1


class Source(Protocol):
    """What following needs of the client."""

    def job(self, job_id: str) -> JobView: ...

    def logs(self, job_id: str, *, rank: int = 0, start: int = 0, limit: int = PAGE, attempt: int | None = None) -> LogView: ...


@dataclass
class Stream:
    """Where each rank of one attempt was read up to. ``rank`` None: all of them, each line with its rank when there are several."""

    source: Source
    job_id: str
    put: Callable[[str], None]
    rank: int | None = None
    start: int = 0
    attempt: int = 0
    _at: dict[int, int] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)
    _pods: dict[int, str] = field(default_factory=dict)

    def read(self, attempt: AttemptView) -> int:
        """Put every line that is there by now; answers how many."""
        if attempt.number != self.attempt:
            self.attempt = attempt.number
            self._at.clear()
            self._ended.clear()
            self._pods.clear()
        self._begin_again(attempt)
        ranks = [pod.rank for pod in attempt.pods if pod.rank != MASTER_RANK]
        wanted = ranks if self.rank is None else [self.rank]
        width = len(str(max(ranks, default=0)))
        count = 0
        for rank in wanted:
            prefix = f"[{rank:>{width}}] " if len(wanted) > 1 else ""
            for line in self._lines(rank):
                self.put(prefix + line)
                count += 1
        return count

    def _begin_again(self, attempt: AttemptView) -> None:
        """A rank that was given back and came again is another pod, with a log of its own."""
        for pod in attempt.pods:
            if self._pods.setdefault(pod.rank, pod.name) != pod.name:
                self._pods[pod.rank] = pod.name
                self._at[pod.rank] = 0
                self._ended.discard(pod.rank)

    def has_all(self, attempt: AttemptView) -> bool:
        """Whether every wanted rank has said that there is no more."""
        ranks = {pod.rank for pod in attempt.pods if pod.rank != MASTER_RANK}
        return attempt.number == self.attempt and self._ended >= (ranks if self.rank is None else {self.rank})

    def _lines(self, rank: int) -> Iterator[str]:
        while rank not in self._ended:
            try:
                page = self.source.logs(
                    self.job_id, rank=rank, start=self._at.get(rank, self.start), limit=PAGE, attempt=self.attempt
                )
            except NotFound:
                # Its pod is not there yet, or left no log.
                return
            yield from page.lines
            self._at[rank] = page.next
            if page.is_end:
                self._ended.add(rank)
            if not page.lines:
                return


def print_log(source: Source, job_id: str, *, rank: int | None, start: int, attempt: int | None, follow: bool) -> None:
    """`tuttilab logs`. Without ``attempt`` the newest one."""
    job = source.job(job_id)
    chosen = [one for one in job.attempts if attempt is None or one.number == attempt]
    if attempt is not None and not chosen:
        raise NotFound(f"Job {short(job.id)} has no attempt {attempt}; it has had {len(job.attempts)}.")
    if rank is not None and chosen:
        ranks = [pod.rank for pod in chosen[-1].pods]
        if rank not in ranks:
            raise NotFound(f"Job {short(job.id)} has no rank {rank}; expected {min(ranks, default=0)} to {max(ranks, default=0)}.")
    stream = Stream(source, job.id, click.echo, rank, start)
    if follow and attempt is None:
        until_end(stream, Silent())
    elif chosen:
        stream.read(chosen[-1])
    else:
        note(f"Job {short(job.id)} has not started: {job.wait.sentence if job.wait else job.reason or job.phase}")


def wait_for(source: Source, job_id: str) -> int:
    """`tuttilab submit --wait`: the job's log, then its exit code; 1 when it failed without one."""
    status = Line() if sys.stderr.isatty() else Notes()
    stream = Stream(source, job_id, status.above)
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
    """What is said about the job beside its log."""

    def show(self, job: JobView) -> None: ...

    def clear(self) -> None: ...


class Silent:
    def show(self, job: JobView) -> None: ...

    def clear(self) -> None: ...


class Notes:
    """For a pipe: a plain line on stderr whenever the phase or its reason changes."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, job: JobView) -> None:
        text = describe(job)
        if text != self._last:
            note(text)
            self._last = text

    def clear(self) -> None: ...

    def above(self, line: str) -> None:
        click.echo(line)


class Line:
    """For a terminal: one line below the log that is written again and again, on stderr."""

    def __init__(self) -> None:
        self._is_shown = False

    def show(self, job: JobView) -> None:
        import shutil

        text = f"{describe(job)}  {took(job)}".rstrip()
        if job.is_ended:
            self.clear()
            note(text)
            return
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[2K{text[:width]}")
        sys.stderr.flush()
        self._is_shown = True

    def clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._is_shown = False

    def above(self, line: str) -> None:
        self.clear()
        click.echo(line)


def describe(job: JobView) -> str:
    """One line: which job, how far, why."""
    text = f"{short(job.id)} {job.name}: {job.phase}"
    why = job.wait.sentence if job.wait is not None and not job.is_ended else job.reason
    if job.is_ended and job.exit_code and str(job.exit_code) not in why:
        why = f"{why}, exit code {job.exit_code}" if why else f"exit code {job.exit_code}"
    return f"{text} ({why})" if why else text


def until_end(stream: Stream, status: Status) -> JobView:
    """Read the log until the job has ended and its last lines are there."""
    pause, ended_at = POLL_S, None
    while True:
        job = _patiently(lambda: stream.source.job(stream.job_id), status)
        count = 0
        for attempt in job.attempts:
            # An attempt that ended while we slept still has lines that were not read.
            if attempt.number >= stream.attempt:
                if 0 < stream.attempt < attempt.number:
                    note(f"{short(job.id)} {job.name}: attempt {attempt.number}")
                count += _patiently(lambda one=attempt: stream.read(one), status)  # type: ignore[misc]  # a default of a lambda has no type
        if job.is_ended:
            ended_at = time.monotonic() if ended_at is None else ended_at
            is_drained = not job.attempts or stream.has_all(job.attempts[-1])
            if is_drained or time.monotonic() - ended_at > DRAIN_S:
                status.show(job)
                return job
        else:
            status.show(job)
        pause = POLL_S if count or job.is_ended else min(pause * 1.2, SLOWEST_POLL_S)
        time.sleep(pause)


def _patiently(ask: Callable[[], T], status: Status) -> T:
    """The answer, also when the control plane restarts meanwhile. Raises Unavailable after ten minutes of silence."""
    until, pause = time.monotonic() + OUTAGE_S, 0.5
    is_first = True
    while True:
        try:
            return ask()
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
