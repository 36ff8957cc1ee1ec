"""`%listjob`, `%status`, `%progress`, `%log`, `%kill`, `%listengine`, `%enginekill` and `%flashcookies`."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from tuttilab.magics.jobs.collect import resolve
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.linkis.lines import ENGINE, LIST, LOG, ONE, read_line
from tuttilab.magics.shared import job_text
from tuttilab.magics.shared.connection import client, disconnect
from tuttilab.magics.shared.display import Shown, count, preformatted, show, table
from tuttilab.magics.shared.parse import Option, Parsed, UsageError
from tuttilab.magics.spark.session import SparkSessionInfo, executors_of
from tuttilab.magics.spark.sessions import Sessions
from tuttilab.scheduler.domain.wire import JobView
from tuttilab.scheduler.domain.words import word

MOST_LINES: Final = 1_000_000
"""Of a log that a variable gets."""
_MOST_JOBS: Final = 50
_PAGE: Final = 1000
_WAIT_S: Final = 10.0
_STATUS: Final = {"Succeeded": "Succeed", "Failed": "Failed", "Cancelled": "Cancelled", "Running": "Running"}


@magics_class
class LinkisJobs(Magics):
    """Jobs and sessions ("engines") by id, the beginning of one, a name, or last."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell, sessions: Sessions) -> None:
        super().__init__(shell)
        self.sessions = sessions

    @line_magic
    def listjob(self, line: str) -> None:
        """List your jobs, newest first."""
        parsed = self._read("%listjob", LIST, line)
        if parsed is None:
            return
        jobs = client().jobs(all=True, limit=_MOST_JOBS).jobs
        if parsed["output"] is None:
            show(job_text.job_table(jobs, time.time(), is_all=True))
        else:
            self.shell.user_ns[parsed["output"]] = {"tasks": [_task(job) for job in jobs], "totalPage": 1}

    @line_magic
    def status(self, line: str) -> None:
        """The phase of a job, and why it waits or ended."""
        parsed = self._read("%status", ONE, line)
        if parsed is not None:
            job = self._job("%status", parsed["id"])
            show(Shown(": ".join(part for part in (word(job.status), job.reason) if part)))

    @line_magic
    def progress(self, line: str) -> None:
        """How far a job is, from 0.0 to 1.0: the share of its pods that have ended."""
        parsed = self._read("%progress", ONE, line)
        if parsed is None:
            return
        job = self._job("%progress", parsed["id"])
        view = job.view()
        attempt = job_text.newest(view)
        pods = attempt.pods if attempt is not None else ()
        ended = sum(pod.phase == "Ended" for pod in pods)
        share = 1.0 if view.is_ended else ended / len(pods) if pods else 0.0
        show(Shown(f"{share:.2g}  {word(view.phase)}" + (f", {ended} of {count(len(pods), 'pod')} ended" if pods else "")))

    @line_magic
    def log(self, line: str) -> None:
        """The last lines of a job's log, lines from --start on, or all of them in a variable."""
        parsed = self._read("%log", LOG, line)
        if parsed is None:
            return
        job = self._job("%log", parsed["id"])
        if parsed["output"] is not None:
            all_lines = list(collections.deque(_lines(job), maxlen=MOST_LINES))
            self.shell.user_ns[parsed["output"]] = all_lines
            last = " (the last)" if len(all_lines) == MOST_LINES else ""
            show(Shown(f"{parsed['output']} has {count(len(all_lines), 'line')}{last}"))
            return
        first, kept, total = _page(job, parsed["start"], parsed["lines"])
        if not total:
            return show(Shown(f"job {job_text.short_id(job.id)} has printed nothing yet."))
        text = "\n".join(kept)
        if len(kept) < total:
            shown = f"lines {first:,} to {first + len(kept) - 1:,} of {total:,}, counted from 0"
            text = f"… {shown}; `--start N --lines N` shows others, `-o VAR` binds all\n{text}"
        show(Shown(text, preformatted(text)))

    @line_magic
    def kill(self, line: str) -> None:
        """Cancel a job."""
        parsed = self._read("%kill", ONE, line)
        if parsed is None:
            return
        job = self._job("%kill", parsed["id"])
        if job.view().is_ended:
            return show(Shown(f"There is nothing to kill: {job_text.end_sentence(job.seen)}"))
        job.cancel()
        try:
            show(Shown(f"Succeed: {job_text.end_sentence(job.wait(_WAIT_S).seen)}"))
        except TimeoutError:
            show(Shown(f"Succeed: job {job_text.short_id(job.id)} is being cancelled; `%status -i {job_text.short_id(job.id)}`."))

    @line_magic
    def listengine(self, line: str) -> None:
        """List your Spark sessions."""
        parsed = self._read("%listengine", LIST, line)
        if parsed is None:
            return
        found = self.sessions.provider.list()
        if parsed["output"] is not None:
            self.shell.user_ns[parsed["output"]] = [_engine(info) for info in found]
        elif not found:
            show(Shown("No Spark session; any cell of Spark starts one."))
        else:
            head = ("instance", "name", "phase", "cores", "memory", "executors", "reason")
            sized = [(info, info.request) for info in found]
            cells = [
                (i.job_id, i.name, i.phase, str(asked.cores or ""), asked.memory or "", executors_of(asked), i.reason)
                for i, asked in sized
            ]
            show(table(head, cells))

    @line_magic
    def enginekill(self, line: str) -> None:
        """Stop a Spark session with its executors; what runs in it is cancelled and its cores are free."""
        parsed = self._read("%enginekill", ENGINE, line)
        if parsed is None:
            return
        asked = parsed["instance"]
        if asked is None:
            raise UsageError("%enginekill: which session? `%enginekill -i NAME`; `%listengine` lists them.")
        found = [info for info in self.sessions.provider.list() if asked == info.name or info.job_id.startswith(asked)]
        if len(found) != 1:
            known = ", ".join(info.name for info in self.sessions.provider.list()) or "none"
            problem = "is the beginning of several sessions' ids" if found else "is no Spark session of yours"
            raise UsageError(f"%enginekill: {asked} {problem}; you have: {known}.")
        self.sessions.provider.stop(found[0].name)
        gone = self.sessions.drop(found[0].name)
        show(Shown(f"Success: session {found[0].name} is stopped. {gone}".rstrip()))

    @line_magic
    def flashcookies(self, line: str) -> None:
        """Connect anew; there are no cookies to renew."""
        if self._read("%flashcookies", (), line) is not None:
            disconnect()
            show(Shown("There are no cookies to renew: the next use of a magic reads your token and connects anew."))

    def _read(self, magic: str, options: tuple[Option, ...], line: str) -> Parsed | None:
        parsed = read_line(magic, options, line)
        if parsed.help_text is not None:
            show(Shown(parsed.help_text))
            return None
        return parsed

    def _job(self, magic: str, name: str) -> JobHandle:
        if name == "last":  # a session too
            newest = client().jobs(all=True, limit=1).jobs
            if not newest:
                raise UsageError(f"{magic}: you have no job yet; `%listjob` has them once there are some.")
            return JobHandle.of(newest[0])
        found = resolve(self.shell, name)
        if not isinstance(found, JobHandle):
            raise UsageError(f"{magic}: {name} is {count(len(found), 'job')}; name one of them by its id, `%listjob` has them.")
        return found


def _task(job: JobView) -> dict[str, Any]:  # Any: texts, times
    """A job under the keys and in the words of Linkis, and of ours."""
    ids = dict.fromkeys(("taskID", "execId", "strongerExecId", "id"), job.id)
    status = _STATUS.get(job.phase, "Scheduled" if job.wait is not None else "Running" if not job.is_ended else job.phase)
    ours = {"name": job.name, "kind": job.kind, "phase": job.phase, "reason": job.reason, "queue": job.queue}
    return {**ids, "umUser": job.owner, "createdTime": round(job.created_at * 1000), "status": status, **ours}


def _engine(info: SparkSessionInfo) -> dict[str, Any]:  # Any: texts, numbers
    """A session under the keys of Linkis, and of ours."""
    ids = dict.fromkeys(("engineManagerInstance", "engineInstance", "ticketId"), info.job_id)
    asked = info.request
    size = {"cores": asked.cores, "memory": asked.memory, "executors": asked.executors or 0}
    if asked.executors:
        size |= {"executorCores": asked.executor_cores, "executorMemory": asked.executor_memory}
    return {**ids, "moduleName": "spark", "engineStatus": info.phase, "name": info.name, **size, "reason": info.reason}


def _lines(job: JobHandle) -> Iterator[str]:
    """All lines of all ranks, page by page."""
    attempt = job_text.newest(job.view())
    ranks = sorted(pod.rank for pod in attempt.pods if pod.rank >= 0) if attempt else []
    for rank in ranks:
        start = 0
        while (page := client().logs(job.id, rank=rank, start=start, limit=_PAGE)).lines:
            for line in page.lines:
                yield (f"[rank {rank}] " if len(ranks) > 1 else "") + line.rstrip("\n")
            start = page.next


def _page(job: JobHandle, start: int | None, most: int) -> tuple[int, list[str], int]:
    """Number of the first line shown, the lines, and how many there are."""
    kept: collections.deque[str] = collections.deque(maxlen=most)
    total = 0
    for total, line in enumerate(_lines(job), 1):
        if start is None or start < total <= start + most:
            kept.append(line)
    return (max(0, total - len(kept)) if start is None else start), list(kept), total
