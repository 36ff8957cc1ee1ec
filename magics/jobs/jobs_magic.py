"""`%jobs`, `%job`, `%quota` and `%attach`: manages jobs from a notebook, by handle variable, name or the beginning of an id."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from tuttilab.magics.jobs.collect import resolve, uncollected, variable_of, wait_and_collect, whole_sweep
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.shared import job_text
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Area, Shown, count, preformatted, show
from tuttilab.magics.shared.notebook import notebook_name
from tuttilab.magics.shared.parse import Option, Parsed, Positional, UsageError, nearest, parse_line, whole_number
from tuttilab.magics.spark.recover import attach_spark

JOBS_OPTIONS = (
    Option("--all", short="-a", help="also those that have ended"),
    Option("--queue", "Q", help="of this queue only"),
    Option("--state", "S", help="in this phase only, such as waiting"),
    Option("--limit", "N", whole_number, default=50, help="how many, newest first"),
)
JOB_OPTIONS = (
    Option("--rank", "R", whole_number, help="logs of this rank only"),
    Option("--tail", "N", whole_number, default=1000, help="lines of the logs, from their end"),
)
ATTACH_OPTIONS = (Option("--on-interrupt", choices=("detach", "cancel"), default="detach", help="what the first Stop does"),)
_ID: Final = Positional("ID", help="handle variable, a job's name, the beginning of its id, or last")
_MOST_LISTED: Final = 10


@magics_class
class JobsMagics(Magics):
    """The job magics of one kernel."""

    shell: InteractiveShell

    # Any: the Spark magics' provider of sessions, whose type needs the spark extra; None without it
    spark_provider: Any = None

    @line_magic
    def jobs(self, line: str) -> None:
        """List your jobs: live ones, with -a also those that ended."""
        parsed = parse_line("%jobs", JOBS_OPTIONS, line, positionals=())
        if _showed_help(parsed):
            return
        found = client().jobs(all=parsed["all"], queue=parsed["queue"], state=parsed["state"], limit=parsed["limit"])
        show(job_text.job_table(found.jobs, time.time(), parsed["all"]))

    @line_magic
    def job(self, line: str) -> Any:
        """One job: %job ID, and then logs, cancel, attach, retry, yaml, explain or download."""
        required = Positional("ID", required=True, help=_ID.help)
        command = Positional("COMMAND", help=f"one of {', '.join(COMMANDS)}; without one the job is shown")
        folder = Positional("FOLDER", help="for download: where its outputs go (default: a folder with the job's id)")
        parsed = parse_line("%job", JOB_OPTIONS, line, positionals=(required, command, folder))
        if _showed_help(parsed):
            return None
        jobs = resolve(self.shell, parsed.positionals["ID"])
        word = parsed.positionals.get("COMMAND", "show")
        if word == "attach":
            return self._attach_to(jobs, "detach")
        if word == "retry":
            retried = jobs.retry()
            show(Shown(f"submitted again: {', '.join(map(job_text.short_id, _ids(retried)))}"))
            return retried
        if word != "download" and "FOLDER" in parsed.positionals:
            raise UsageError(
                f"%job: {parsed.positionals['FOLDER']!r} was not expected after {word}; `%job --help` shows the usage."
            )
        if word not in _COMMANDS:
            guess = nearest(word, COMMANDS)
            hint = f"did you mean {guess}?" if guess else f"it takes {', '.join(COMMANDS)}."
            raise UsageError(f"%job: unknown command {word}; {hint}")
        if isinstance(jobs, MapHandle):
            if word == "show":
                jobs.refresh()
                return show(jobs.shown(time.time()))
            if word == "cancel":
                jobs.cancel()
                return show(jobs.shown(time.time()))
            which = parsed.positionals["ID"]
            raise UsageError(f"%job: {which} is {count(len(jobs), 'job')}; name one of them by its id for {word}.")
        return show(_COMMANDS[word](jobs, parsed))

    @line_magic
    def quota(self, line: str) -> None:
        """Live use of the queues against guaranteed and max."""
        parsed = parse_line("%quota", (), line, positionals=(Positional("QUEUE", help="only this one"),))
        if _showed_help(parsed):
            return
        queues = client().quota()
        wanted = parsed.positionals.get("QUEUE")
        if wanted is not None:
            names = [queue.name for queue in queues]
            if wanted not in names:
                guess = nearest(wanted, names)
                hint = f"did you mean {guess}?" if guess else f"expected one of {', '.join(names)}."
                raise UsageError(f"%quota: there is no queue {wanted}; {hint}")
            queues = [queue for queue in queues if queue.name == wanted]
        show(job_text.quota_table(queues))

    @line_magic
    def attach(self, line: str) -> Any:
        """Attach to a job: %attach ID waits and gives its value; without ID, to jobs that were not collected yet."""
        parsed = parse_line("%attach", ATTACH_OPTIONS, line, positionals=(_ID,))
        if _showed_help(parsed):
            return None
        name = parsed.positionals.get("ID")
        if name is not None:
            jobs = resolve(self.shell, name)
            if isinstance(jobs, JobHandle) and name not in self.shell.user_ns:
                jobs = whole_sweep(jobs.seen)
            return self._attach_to(jobs, parsed["on-interrupt"])
        waiting = uncollected(self.shell, notebook_name())
        spark = attach_spark(self.shell, self.spark_provider)
        if not waiting:
            if not spark:
                show(Shown("Nothing to come back to: every job of this notebook was collected; `%jobs -a` lists all."))
            return None
        if len(waiting) == 1:
            return self._attach_to(waiting[0], parsed["on-interrupt"])
        return self._list_uncollected(waiting)

    def _attach_to(self, jobs: JobHandle | MapHandle, on_interrupt: str) -> Any:
        variable = variable_of(jobs)
        if variable is not None and self.shell.user_ns.get(variable) is None:
            self.shell.user_ns[variable] = jobs
            return wait_and_collect(self.shell, jobs, Area(header=f"{variable} is the handle of {_described(jobs)}."), on_interrupt)
        return wait_and_collect(self.shell, jobs, Area(), on_interrupt)

    def _list_uncollected(self, waiting: list[JobHandle | MapHandle]) -> None:
        """Lists several jobs for the user to choose from; binds their variables where the name is free."""
        bound = []
        for jobs in waiting[:_MOST_LISTED]:
            variable = variable_of(jobs)
            if variable is not None and variable not in self.shell.user_ns:
                self.shell.user_ns[variable] = jobs
                bound.append(f"{variable} is the handle of {_described(jobs)}")
        first = [jobs[0].seen if isinstance(jobs, MapHandle) else jobs.seen for jobs in waiting[:_MOST_LISTED]]
        listed = job_text.job_table(first, time.time(), is_all=True)
        more = [f"… and {len(waiting) - _MOST_LISTED} more"] if len(waiting) > _MOST_LISTED else []
        below = [*more, *bound, "`%attach ID` waits for one of them and gives its value."]
        show(Shown("\n".join([listed.text, *below]), listed.html + preformatted("\n".join(below))))


def _ids(jobs: JobHandle | MapHandle) -> list[str]:
    return jobs.ids if isinstance(jobs, MapHandle) else [jobs.id]


def _described(jobs: JobHandle | MapHandle) -> str:
    return count(len(jobs), "job") if isinstance(jobs, MapHandle) else f"job {job_text.short_id(jobs.id)}"


def _showed_help(parsed: Parsed) -> bool:
    if parsed.help_text is not None:
        show(Shown(parsed.help_text))
        return True
    return False


def _show(job: JobHandle, parsed: Parsed) -> Shown:
    return job_text.job_detail(job.view(), time.time())


def _logs(job: JobHandle, parsed: Parsed) -> Shown:
    # One line more than is shown tells whether there are more. The whole of a long log would bloat the notebook file.
    lines = job.logs(parsed["rank"], parsed["tail"] + 1).splitlines()
    if not lines:
        return Shown(f"job {job_text.short_id(job.id)} has printed nothing yet.")
    if len(lines) > parsed["tail"] and "[rank " not in lines[0]:
        lines[0] = f"… the last {parsed['tail']} lines; --tail N shows more, and .logs() of the handle has all"
    return Shown("\n".join(lines))


def _cancel(job: JobHandle, parsed: Parsed) -> Shown:
    if job.view().is_ended:
        return Shown(f"There is nothing to cancel: {job_text.end_sentence(job.seen)}")
    job.cancel()
    try:
        return Shown(job_text.end_sentence(job.wait(_CANCEL_WAIT_S).seen))
    except TimeoutError:
        return Shown(f"job {job_text.short_id(job.id)} is being cancelled.")


_CANCEL_WAIT_S: Final = 3.0


def _explain(job: JobHandle, parsed: Parsed) -> Shown:
    view = job.view()
    return job_text.explanation(view, None if view.is_ended else client().explain(job.id), time.time())


def _yaml(job: JobHandle, parsed: Parsed) -> Shown:
    return Shown(client().manifest(job.id))


def _download(job: JobHandle, parsed: Parsed) -> Shown:
    from tuttilab.scheduler.client.downloads import download

    view = job.view()
    folder = Path(parsed.positionals.get("FOLDER") or job_text.short_id(job.id)).expanduser()
    saved = download(client(), view, folder)
    return Shown("\n".join(map(str, saved)) or f"job {job_text.short_id(job.id)} left no outputs.")


_COMMANDS: Final[dict[str, Callable[[JobHandle, Parsed], Shown]]] = {
    "show": _show,
    "logs": _logs,
    "cancel": _cancel,
    "yaml": _yaml,
    "explain": _explain,
    "download": _download,
}
COMMANDS: Final = (*(word for word in _COMMANDS if word != "show"), "attach", "retry")
