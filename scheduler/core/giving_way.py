"""Spark sessions that give way: an idle one ends when other work of its owner waits for what it holds.

Only its owner's own work, so nobody takes a session from another. A session says itself since when it is idle
(`kinds.spark.IDLE_SINCE`); one that its owner keeps says nothing. Unlike a preempted gang it does not start again by itself: its
temporary views are gone, and the next cell that uses it starts it anew. As in a preemption, nothing ends unless the gang then
fits, what already stops counts as free, and the session that has been idle for longest goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.preemption import Future, fits, whole_gang
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.events import GangPreempted, SessionGaveWay
from tuttilab.scheduler.domain.model import Why


def decide(working_set: WorkingSet, preempted: Iterable[GangPreempted] = ()) -> tuple[SessionGaveWay, ...]:
    """The sessions that end now, each for one waiting gang of its owner. ``preempted``: what this cycle stops anyway."""
    idle = _idle_sessions(working_set, {event.job_id for event in preempted})
    if not idle:
        return ()
    waiting = [c for c in working_set.lines.candidates() if c.cause is not None and c.job.owner in idle]
    if not waiting:
        return ()
    future = Future.of(working_set)
    for event in preempted:
        runner = next((one for one in working_set.running if one.job_id == event.job_id), None)
        if runner is not None:
            future.stop(whole_gang(runner, working_set.now))
    given: list[SessionGaveWay] = []
    for candidate in waiting:
        # What is kept for a gang before this one would not go to it.
        if candidate.cause is not None and candidate.cause.why is Why.HOLD:
            continue
        sessions = idle[candidate.job.owner]
        ending = _ending_for(working_set, future, candidate, sessions)
        for session in ending:
            sessions.remove(session)
            given.append(SessionGaveWay(session.job_id, session.attempt, candidate.job.id, _reason(candidate)))
    return tuple(given)


def _reason(candidate: Candidate) -> str:
    return f"was idle and gave way to your job {candidate.job.name}, which waited for what it held"


def _idle_sessions(working_set: WorkingSet, stopping: set[str]) -> dict[str, list[Running]]:
    """By owner, the session that has been idle for longest first."""
    found: dict[str, list[Running]] = {}
    for runner in working_set.snapshot.running:
        if runner.idle_since is not None and not runner.is_stopping and runner.job_id not in stopping:
            found.setdefault(runner.job.owner, []).append(runner)
    for sessions in found.values():
        sessions.sort(key=lambda runner: (runner.idle_since, runner.job_id))
    return found


def _ending_for(working_set: WorkingSet, future: Future, candidate: Candidate, sessions: Sequence[Running]) -> list[Running]:
    """The sessions that have to end so that the gang fits, in ``future`` too; none when it fits without, or not even then."""
    for cluster in candidate.shape.clusters:
        if fits(future, candidate, cluster, take=True):
            return []  # Something already stops for it.
    for cluster in candidate.shape.clusters:
        ending: list[Running] = []
        for session in sessions:
            future.stop(whole_gang(session, working_set.now))
            ending.append(session)
            if fits(future, candidate, cluster):
                break
        for session in list(ending):
            future.undo_stop(whole_gang(session, working_set.now))
            ending.remove(session)
            if not fits(future, candidate, cluster):
                future.stop(whole_gang(session, working_set.now))
                ending.append(session)
        if fits(future, candidate, cluster, take=True):
            return ending
        for session in ending:
            future.undo_stop(whole_gang(session, working_set.now))
    return []
