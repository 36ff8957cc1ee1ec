"""Texts about jobs: live status, how a job ended and what to do about it, lists of jobs, queues and their use.

Pure functions from views of the service to `Shown`; the time is an argument.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Final

from tuttilab.magics.shared.ansi import newest_state, plain
from tuttilab.magics.shared.box import HEAD_CLASS, job_box
from tuttilab.magics.shared.display import Shown, bar, count, html_bar, preformatted, show_duration, table
from tuttilab.scheduler.domain.exit_codes import signal_of
from tuttilab.scheduler.domain.wire import AttemptView, JobView, PodView, QueueView, WaitView
from tuttilab.scheduler.domain.words import kept_text, overtaken_text, passed_text, pod_word, start_text, word

SHORT_ID: Final = 8
_SUCCEEDED: Final = "Succeeded"
_CANCELLED: Final = "Cancelled"
_LINE: Final = 160
WRONG_VERSIONS: Final = 78
"""The runner's exit code when the job's Python or cloudpickle cannot read what the notebook wrote."""


def short_id(job_id: str) -> str:
    """The beginning of an id that is shown to users; all magics accept it."""
    return job_id[:SHORT_ID]


def title(view: JobView) -> str:
    return f"job {short_id(view.id)} {view.name!r}" if view.name else f"job {short_id(view.id)}"


def progress(view: JobView, now: float, log: Sequence[str] = (), note: str = "") -> Shown:
    """The live status of one job: phase, why and where it waits, time, and the last lines that it printed."""
    facts = [word(view.phase)]
    if view.wait is not None and not view.is_ended:
        facts.append(waiting(view.wait, now))
    elif view.unreachable_since is not None and not view.is_ended:
        facts.append(f"its cluster has not answered for {show_duration(now - view.unreachable_since)}")
    elif view.reason and view.phase != _SUCCEEDED:
        facts.append(view.reason)
    members = _members(view)
    if len(members) > 1 and not view.is_ended:
        phases = [pod.phase for pod in members]
        facts.append(", ".join(f"{phases.count(phase)} {pod_word(phase)}" for phase in sorted(set(phases))))
    head = f"{title(view)}: {', '.join(facts)}"
    lines = [_cut(newest_state(line)) for line in log]
    text = "\n".join([f"{head} ({_time(view, now)})", *([note] if note else []), *(f"  | {plain(line)}" for line in lines)])
    name, said, time = (html.escape(part) for part in (title(view), ", ".join(facts), _time(view, now)))
    marked = f"<b>{name}</b>: {said} <small>({time})</small>"
    below = (f"<div>{html.escape(note)}</div>" if note else "") + (preformatted("\n".join(lines)) if lines else "")
    why = view.wait.sentence if view.wait else view.reason
    head = f'<div class="{HEAD_CLASS}">{marked}</div>'
    return Shown(text, head + below, change_key=f"{view.phase} {why} {note}", box=job_box(view, now))


def waiting(wait: WaitView, now: float) -> str:
    """When it starts and on what basis, where that is told; then place and reason.

    ``starts between 14:05 and 14:20, from past run times of 2 jobs ahead; place 2; queue research uses 4 of 4 GPU``.
    """
    start = start_text(wait.earliest, wait.latest, now)
    parts = [f"{start}, from {wait.basis}" if wait.basis else start] if start else []
    if wait.place > 0:
        parts.append(f"place {wait.place}")
    return "; ".join([*parts, wait.sentence.rstrip(".")])


def _time(view: JobView, now: float) -> str:
    """How long it has run, ``3 min 05 s``; before it started ``waited 59 s``, as no reason says that this is a wait."""
    if view.started_at is not None:
        return show_duration((view.ended_at or now) - view.started_at)
    return f"waited {show_duration((view.ended_at or now) - view.created_at)}"


def _cut(line: str) -> str:
    """At most `_LINE` characters; a line that is longer loses its colours."""
    if len(line) <= _LINE:
        return line
    text = plain(line)
    return text if len(text) <= _LINE else text[: _LINE - 1] + "…"


def newest(view: JobView) -> AttemptView | None:
    return max(view.attempts, key=lambda attempt: attempt.number, default=None)


def _members(view: JobView) -> list[PodView]:
    attempt = newest(view)
    return [pod for pod in attempt.pods if pod.rank >= 0] if attempt else []


def culprit(view: JobView) -> PodView | None:
    """The member that failed first; later ones of its gang were only stopped because of it."""
    failed = [pod for pod in _members(view) if pod.exit_code != 0 and pod.reason != "Stopped" and pod.phase == "Ended"]
    return min(failed, key=lambda pod: (pod.ended_at or float("inf"), pod.rank), default=None)


def end_sentence(view: JobView) -> str:
    """One sentence on how the job ended and what to do about it."""
    job, name = title(view), short_id(view.id)
    if view.phase == _SUCCEEDED:
        return f"{job} succeeded."
    if view.phase == _CANCELLED:
        return f"{job} was cancelled; `%job {name} retry` runs it again."
    pod = culprit(view)
    attempt = newest(view)
    code = pod.exit_code if pod is not None else view.exit_code
    words = " ".join([pod.reason if pod else "", attempt.reason if attempt else "", view.reason])
    at = f" on rank {pod.rank}" if pod is not None and len(_members(view)) > 1 else ""
    if "OOMKilled" in words:
        asked = f" (it asked for {view.pods[0].memory} a pod)" if view.pods else ""
        return f"{job} ran out of memory{at}{asked}; give it more with --memory, or send and load less."
    if re.search(r"past its limit|\bTimeout\b", words):
        limit = f" of {show_duration(view.timeout_s)}" if view.timeout_s else ""
        return f"{job} passed its time limit{limit} and was stopped; give it more with --timeout."
    if "CommandNotFound" in words or code == 127:
        return f"{job} found no Python to run the cell with{at}; --image must name an image that has one."
    if re.search(r"\bLost\b|was lost|no sign of life", words) or (pod is not None and code is None):
        return (
            f"{job} was lost{at}: its process or node went away and nobody can tell how it ended; `%job {name} retry` runs "
            "it again, and --retries does so by itself."
        )
    killed_by = signal_of(code)
    if killed_by is not None:
        return f"{job} was killed by {killed_by}{at}; `%job {name} logs` shows what it printed last."
    if pod is None and attempt is not None and attempt.started_at is None:
        return f"{job} could not start: {(view.reason or attempt.reason or 'no reason was given').rstrip('.')}."
    if code == WRONG_VERSIONS:
        return (
            f"{job} could not read the cell{at}: its Python or cloudpickle differs from this notebook's; "
            f"`%job {name} logs` names both, and --python or --image must have the same Python minor version."
        )
    said = view.reason.rstrip(".")
    if said and not re.search(r"exited with code|^Error$|^Failed$", said):
        return f"{job} failed: {said}; `%job {name} logs` shows what it printed."
    return f"{job} ended with exit code {code}{at}; `%job {name} logs` shows what it printed."


def job_table(jobs: Sequence[JobView], now: float, is_all: bool) -> Shown:
    """``%jobs``: one row a job, waiting ones with their reason."""
    if not jobs:
        return Shown("No jobs." if is_all else "No live jobs; `%jobs -a` lists those that ended.")
    rows = []
    for view in jobs:
        why = waiting(view.wait, now) if view.wait and not view.is_ended else ("" if view.phase == _SUCCEEDED else view.reason)
        rows.append((short_id(view.id), view.name, view.queue, word(view.phase), _time(view, now), why))
    return table(("id", "name", "queue", "phase", "time", "why"), rows)


def job_detail(view: JobView, now: float) -> Shown:
    """``%job ID``: what it asks for, where it runs, how far it is."""
    facts = [
        ("id", view.id),
        ("name", view.name),
        ("phase", word(view.phase)),
        ("why", "" if view.is_ended else (waiting(view.wait, now) if view.wait else view.reason)),
        ("how it ended", end_sentence(view) if view.is_ended else ""),
        ("queue", f"{view.queue} (priority {view.priority})"),
        ("asks for", "; ".join(f"{pod.count} x {pod.role}: {_amounts(pod.cpus, pod.memory, pod.gpus)}" for pod in view.pods)),
        ("time", _time(view, now)),
        ("retry of", view.retry_of or ""),
        ("after", ", ".join(map(short_id, view.after))),
    ]
    facts += [
        (
            f"attempt {attempt.number}",
            f"{word(attempt.phase)} on {attempt.cluster}"
            + (f", {attempt.reason}" if attempt.reason else "")
            + "".join(f"; {pod.role} {pod.rank} at {pod.node}: {_pod(pod)}" for pod in attempt.pods if pod.rank >= 0),
        )
        for attempt in view.attempts
    ]
    rows = [fact for fact in facts if fact[1]]
    width = max(len(key) for key, _ in rows)
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(key)}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
        for key, value in rows
    )
    return Shown("\n".join(f"{key.ljust(width)}  {value}" for key, value in rows), f"<table>{cells}</table>")


def _amounts(cpus: str, memory: str, gpus: int) -> str:
    return f"{cpus} CPU, {memory}" + (f", {gpus} GPU" if gpus else "")


def _pod(pod: PodView) -> str:
    return (
        pod_word(pod.phase) if pod.exit_code is None else f"exit code {pod.exit_code}" + (f" ({pod.reason})" if pod.reason else "")
    )


def explanation(view: JobView, wait: WaitView | None, now: float) -> Shown:
    """``%job ID explain``."""
    if wait is None:
        return Shown(f"{title(view)} does not wait: it is {word(view.phase).lower()}." if not view.is_ended else end_sentence(view))
    lines = [f"{title(view)}: {waiting(wait, now)}."]
    if wait.short:
        lines.append("missing: " + ", ".join(f"{amount} {key}" for key, amount in wait.short.items()))
    if wait.held_by:
        lines.append("held by: " + "; ".join(wait.held_by))
    if wait.latest is None and wait.basis:
        lines.append(wait.basis)
    if wait.kept is not None:
        lines.append(f"kept for it: {kept_text(wait.kept, now)}")
    lines += [f"passed by {passed_text(one, now)}" for one in wait.passed]
    if overtaken := overtaken_text(wait):
        lines.append(overtaken)
    return Shown("\n".join(lines))


def quota_table(queues: Sequence[QueueView]) -> Shown:
    """``%quota``: live use of each queue and resource against guaranteed and max, a bar each."""
    rows, cells = [], []
    for queue in queues:
        for use in queue.use:
            whole = use.max if use.max is not None else use.guaranteed
            amounts = f"{use.used_text} of {use.max_text if use.max is not None else 'no limit'}"
            guaranteed = use.guaranteed_text if use.guaranteed else ""
            rows.append((queue.name, use.resource, bar(use.used, whole), amounts, guaranteed))
            cells.append((queue.name, use.resource, html_bar(use.used, whole), amounts, guaranteed))
        if not queue.use:
            rows.append((queue.name, "", bar(0, 0), "nothing used", ""))
            cells.append((queue.name, "", html_bar(0, 0), "nothing used", ""))
    head = ("queue", "resource", "", "used", "guaranteed")
    jobs = [f"{queue.name}: {count(queue.running, 'job')} running, {queue.waiting} waiting" for queue in queues]
    plain = table(head, rows)
    left = ' style="text-align:left"'
    body = "".join(
        "<tr>" + "".join(f"<td{left}>{cell if i == 2 else html.escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in cells
    )
    heads = "".join(f"<th{left}>{html.escape(word)}</th>" for word in head)
    return Shown(
        "\n".join([plain.text, *jobs]),
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        + "".join(f"<div>{html.escape(line)}</div>" for line in jobs),
    )
