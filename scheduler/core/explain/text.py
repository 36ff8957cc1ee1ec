"""Why each gang waits: a sentence, the same as data, and when it will probably start and on what basis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Final

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, end_of, hold_for
from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.causes import Cause
from tuttilab.scheduler.core.explain.bases import TOO_WIDE, Bases
from tuttilab.scheduler.core.explain.forecast import Forecast, is_wide, predicted_starts
from tuttilab.scheduler.core.explain.names import HeldBy, Holders, blocked_by, count
from tuttilab.scheduler.core.explain.ranges import (
    NOTHING_TOLD,
    EndTable,
    Told,
    first_end,
    hold_range,
    is_narrow,
    later_of,
    quota_range,
    still_told,
    told,
)
from tuttilab.scheduler.core.ordering.accuracy import scales, widened
from tuttilab.scheduler.core.ordering.run_times import told_spread
from tuttilab.scheduler.core.placement.fit import Misfit, named_clusters, possible_clusters
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import Shortage
from tuttilab.scheduler.core.rules import EndEstimate
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Job, StartForecast, StartKind, Wait, Why
from tuttilab.scheduler.domain.resources import Resources, total

MOST_SHAPES: Final = 4
"""Shapes of waiting gangs for which it is computed when there will be room; the others are told by the line alone."""
EQUAL: Final = "behind an equal job in line"


def _runs_on(cluster: str, keys: tuple[str, ...], runner: Running) -> bool:
    return runner.cluster == cluster and _has_any(runner.charge, keys)


def _has_any(charge: Resources, keys: tuple[str, ...]) -> bool:
    """Whether the charge has any of the short resources; with none named (jobs, pods, labels are short), every charge counts."""
    return not keys or any(charge[key] for key in keys)


def _first_of(names: tuple[str, ...]) -> str:
    return "it" if len(names) == 1 else "one of them"


@dataclass(slots=True)
class _Template:
    """The wait of all gangs with one cause. What differs by reader is added later: the holders, or the gang it waits behind."""

    pattern: Wait
    """Its sentence is what comes before the holders."""
    holders: Holders | None = None
    detail: str = ""
    """What follows the holders in the sentence."""
    behind: Job | None = None
    what: str = "room"
    """What is held for the gang it waits behind."""
    start: float | None = None
    """Expected start of ``holder``; for the others, the earliest start."""
    bounds: tuple[float, float] = (0.0, 0.0)
    """Seconds until that start, at the earliest and at the latest."""
    is_by_line: bool = False
    """Whether the forecast by line gives the start."""
    holder: Job | None = None
    """The gang with the hold: it starts when ``start`` says, whatever the line."""


@dataclass(slots=True)
class _Explainer:
    """Makes each sentence once per cause and reader."""

    working_set: WorkingSet
    _causes: dict[Cause, _Template] = field(default_factory=dict)
    _clusters: dict[tuple[str, tuple[str, ...]], Holders] = field(default_factory=dict)
    """By cluster and what is short there."""
    _queues: dict[tuple[str, tuple[str, ...]], Holders] = field(default_factory=dict)
    _first_ends: dict[str, tuple[float | None, tuple[float, float]]] = field(default_factory=dict)
    """When the first running gang of each cluster ends, and the seconds until then; None without any."""
    _rooms: dict[Shape, tuple[float | None, tuple[float, float]]] = field(default_factory=dict)
    _end_table: EndTable | None = None

    def waits(self, waiting: Sequence[Candidate]) -> Iterator[Wait]:
        causes, overtaken_s = self._causes, self.working_set.protection.overtaken_s
        now, before = self.working_set.now, self.working_set.snapshot.told
        factors = scales(self.working_set.snapshot.factors)
        spreads = [told_spread(candidate.prediction, candidate.job) for candidate in waiting]
        bases = Bases.of(waiting, spreads)
        for candidate, forecast in zip(waiting, predicted_starts(self.working_set, waiting, spreads), strict=True):
            job, cause = candidate.job, candidate.cause
            assert cause is not None
            template = causes.get(cause)
            if template is None:
                template = causes[cause] = self._template(candidate, cause)
            _, why, sentence, _, short, queue, role, blockers = template.pattern[:8]
            held: HeldBy | None = None
            listed: tuple[str, ...] = ()
            if template.holders is not None:
                held = template.holders.shown_to(job)
                blockers, listed = held.blockers, held.listed
                sentence = "; ".join([part for part in (sentence, held.text, template.detail) if part])
            elif template.behind is not None:
                sentence, blockers = self._behind(template.behind, template.what, job)
            start, made_of = self._start(template, job, forecast)
            if made_of is not None and made_of.kind is not StartKind.FIRST and is_wide(candidate):
                made_of = made_of._replace(kind=StartKind.WIDE)
            says = NOTHING_TOLD
            if start is not None and made_of is not None and is_narrow(after := widened(made_of, factors)):
                says = still_told(start, after, before.get(job.id), now) or told(
                    start, after, bases.of_start(candidate, template.holders), now
                )
            elif template.is_by_line:
                says = Told(None, None, None, TOO_WIDE if made_of is not None else bases.of_none(candidate, held))
            yield Wait(
                job.id, why, sentence, candidate.place, short, queue, role, blockers, says.start, says.basis,
                overtaken_s.get(job.id, 0.0), candidate.is_protected, says.earliest, says.latest, listed, made_of,
            )  # fmt: skip

    def _start(self, template: _Template, job: Job, forecast: Forecast) -> tuple[float | None, StartForecast | None]:
        """The expected start in service time, and the range around it; None where nothing tells its end."""
        is_first = template.start is not None and job is template.holder
        if not is_first and (forecast.latest == inf or template.bounds[1] == inf):
            return None, None
        if template.start is not None and is_first:
            start, bounds, kind = template.start, template.bounds, StartKind.FIRST
        elif template.is_by_line and forecast.expected < inf:
            expected = self.working_set.now + forecast.expected
            start = expected if template.start is None else max(expected, template.start)
            bounds, kind = later_of(forecast, template.bounds), StartKind.LINE
            if template.behind is not None:
                bounds, kind = (0.0, bounds[1]), StartKind.HELD
        else:
            return None, None
        return (start, StartForecast(*bounds, kind)) if bounds[1] < inf else (None, None)

    def _holders(self, holds: Callable[[Running], bool]) -> Holders:
        """The holders that ran before this cycle; where there are none, those that it admitted."""
        before = [runner for runner in self.working_set.snapshot.running if holds(runner)]
        return Holders.of(before or filter(holds, self.working_set.running), self.working_set.now)

    @staticmethod
    def _behind(first: Job, what: str, job: Job) -> tuple[str, tuple[str, ...]]:
        """The sentence and blockers of a gang whose room or quota is held for another."""
        seen = (first.id,) if first.group == job.group else ()
        return f"{what} is kept for {blocked_by(first, job)}, which goes first; this one could delay it", seen

    def _template(self, candidate: Candidate, cause: Cause) -> _Template:
        job = candidate.job
        if cause.why is Why.CLUSTER_DOWN:
            return _Template(self._down(job, cause.clusters))
        if cause.why is Why.QUOTA and cause.shortage is not None:
            return self._no_quota(candidate, cause, cause.shortage)
        if cause.why is Why.HOLD and cause.hold is not None:
            what = "quota" if isinstance(cause.hold, QuotaHold) else "room"
            return _Template(Wait(job.id, Why.HOLD, "", 0), behind=cause.hold.job, what=what, is_by_line=True)
        if cause.why is Why.NO_ROOM:
            return self._no_room(candidate, cause)
        return self._behind_equal(candidate, cause)

    def _down(self, job: Job, down: tuple[str, ...]) -> Wait:
        """The wait of a gang whose clusters do not answer, or that may use none."""
        if down:
            who = f"cluster {down[0]} does" if len(down) == 1 else f"clusters {', '.join(down)} do"
            clusters = self.working_set.snapshot.clusters
            told = (
                clusters[name].unreachable_why.removeprefix(f"cluster {name}: ").rstrip(".") for name in down if name in clusters
            )
            why = next((f" ({each})" for each in told if each), "")
            return Wait(job.id, Why.CLUSTER_DOWN, f"{who} not answer{why}; the job starts when {_first_of(down)} is back", 0)
        path, named = self.working_set.ledger.path(job.queue), sorted(named_clusters(job))
        possible = possible_clusters(job, path)
        if possible is None:
            return Wait(job.id, Why.CLUSTER_DOWN, "no cluster is there; the job starts when one is", 0)
        if possible:
            missing = tuple(sorted(possible))
            who = f"cluster {missing[0]} is" if len(missing) == 1 else f"clusters {', '.join(missing)} are"
            return Wait(job.id, Why.CLUSTER_DOWN, f"{who} not there; the job starts when {_first_of(missing)} is", 0)
        if len(named) > 1:
            return Wait(job.id, Why.NEVER_FITS, f"asks for clusters {' and '.join(named)}, but all of a job runs on one cluster", 0)
        bounds = [f"queue {step.name} uses only {', '.join(step.clusters)}" for step in path if step.clusters]
        asked = [f"the job asks for cluster {named[0]}"] if named else []
        return Wait(job.id, Why.NEVER_FITS, f"cannot start on any cluster: {' and '.join([*bounds, *asked])}", 0)

    def _no_quota(self, candidate: Candidate, cause: Cause, shortage: Shortage) -> _Template:
        job, hold = candidate.job, cause.hold
        if not self.working_set.is_ever_allowed(candidate):
            sentence = f"{shortage.sentence}, and it asks for more than it may ever use"
            return _Template(Wait(job.id, Why.QUOTA, sentence, 0, shortage.over, shortage.queue))
        keys = tuple(key for key, _ in shortage.over)
        users = (shortage.queue, keys)
        if users not in self._queues:
            below = self.working_set.queues_below(shortage.queue)
            self._queues[users] = self._holders(lambda runner: runner.queue in below and _has_any(runner.charge, keys))
        holders = self._queues[users]
        start, bounds = (None, (0.0, 0.0)) if hold is None else (hold.start, self._quota_bounds(shortage))
        pattern = Wait(job.id, Why.QUOTA, shortage.sentence, 0, shortage.over, shortage.queue)
        holder = None if hold is None else hold.job
        return _Template(pattern, holders, start=start, bounds=bounds, is_by_line=True, holder=holder)

    def _quota_bounds(self, shortage: Shortage) -> tuple[float, float]:
        now, below = self.working_set.now, self.working_set.queues_below(shortage.queue)
        users = [runner for runner in self.working_set.running if runner.queue in below]
        return quota_range(users, shortage, [end_of(runner, now) for runner in users], self._ends())

    def _behind_equal(self, candidate: Candidate, cause: Cause) -> _Template:
        first = cause.first
        if first is None or not first.misfits:
            return _Template(Wait(candidate.job.id, Why.BEHIND, EQUAL, 0), is_by_line=True)
        template = self._no_room(candidate, first)
        if template.pattern.why is Why.NEVER_FITS:
            return template
        pattern = template.pattern._replace(why=Why.BEHIND, sentence=f"{EQUAL}; {template.pattern.sentence}")
        return replace(template, pattern=pattern, holder=None, detail="")

    def _no_room(self, candidate: Candidate, cause: Cause) -> _Template:
        working_set, job, shape = self.working_set, candidate.job, candidate.shape
        never_fits: tuple[str, Misfit] | None = None
        for cluster, misfit in cause.misfits:
            name, misfit_when_empty = cluster.name, working_set.misfit_when_empty(shape, cluster)
            if misfit_when_empty is None:
                keys = tuple(key for key, _ in misfit.short)
                if (name, keys) not in self._clusters:
                    self._clusters[name, keys] = self._holders(partial(_runs_on, name, keys))
                hold = cause.hold
                start, bounds = self._of_hold(hold) if isinstance(hold, Hold) else self._room_for(shape, name)
                lacks = f"no room: short of {misfit.short}" if misfit.short else "no room"
                pattern = Wait(job.id, Why.NO_ROOM, lacks, 0, misfit.short, None, misfit.pod_set.role)
                return _Template(
                    pattern,
                    self._clusters[name, keys],
                    detail=misfit.sentence(names_shortage=False),
                    start=start,
                    bounds=bounds,
                    is_by_line=True,
                    holder=None if hold is None else hold.job,
                )
            never_fits = never_fits or (name, misfit_when_empty)
        assert never_fits is not None
        name, misfit = never_fits
        nodes = working_set.snapshot.clusters[name].nodes
        if others := total(node.others for node in nodes if node.is_ready):
            taken = Resources.of((key, others[key]) for key, _ in misfit.short)
            has = f", which have {taken}," if taken else ""
            sentence = (
                f"no room beside pods of others{has} on cluster {name}; it starts when they end or nodes are added; "
                f"{misfit.sentence()}"
            )
            return _Template(Wait(job.id, Why.NO_ROOM, sentence, 0, misfit.short, None, misfit.pod_set.role))
        what = "cannot start" if misfit.is_certain else "no way was found to start"
        down = sum(not node.is_ready for node in nodes)
        failing = total(node.failing for node in nodes)
        reasons = [f"{count(down, 'node')} {'is' if down == 1 else 'are'} down"] if down else []
        if devices := Resources.of((key, failing[key]) for key, _ in misfit.short):
            reasons.append(f"{devices} there cannot be given out now: devices are unhealthy, or their device plugin does not run")
        until = "; ".join(reasons) or "it starts when nodes are added"
        sentence = f"{what} on cluster {name} even when it is empty; {until}; {misfit.sentence()}"
        return _Template(Wait(job.id, Why.NEVER_FITS, sentence, 0, misfit.short, None, misfit.pod_set.role))

    def _of_hold(self, hold: Hold) -> tuple[float | None, tuple[float, float]]:
        return hold.start, hold_range(self.working_set, hold, self._ends())

    def _ends(self) -> EndTable:
        if self._end_table is None:
            self._end_table = EndTable(self.working_set.running, self.working_set.now)
        return self._end_table

    def _room_for(self, shape: Shape, cluster: str) -> tuple[float | None, tuple[float, float]]:
        """When gangs that run now have left room for one of this shape, if nobody else took it: no such gang starts earlier."""
        if shape in self._rooms:
            return self._rooms[shape]
        working_set = self.working_set
        rules = working_set.snapshot.rules
        if len(self._rooms) >= MOST_SHAPES or rules.end_estimate is not EndEstimate.PROBABILISTIC:
            return self._first_end(cluster)
        arrays = working_set.room.node_arrays[cluster]
        counts = shape.reduced_counts(shape.slack) if shape.is_elastic else None
        free = working_set.room.free[cluster]
        hold = hold_for(shape.job, shape.demand(arrays), arrays, free, working_set.releases(cluster), counts)
        found = self._first_end(cluster) if hold is None else self._of_hold(hold)
        self._rooms[shape] = found
        return found

    def _first_end(self, cluster: str) -> tuple[float | None, tuple[float, float]]:
        """When the first running gang of the cluster ends: the earliest start of a gang without a hold."""
        if cluster not in self._first_ends:
            now = self.working_set.now
            running = [runner for runner in self.working_set.running if runner.cluster == cluster]
            end = min((end_of(runner, now) for runner in running), default=None)
            self._first_ends[cluster] = (end, (0.0, 0.0) if end is None else first_end(running, self._ends()))
        return self._first_ends[cluster]


def explain(working_set: WorkingSet) -> tuple[Wait, ...]:
    """One `Wait` for every waiting gang that does not start, in the order of the snapshot."""
    waiting = [candidate for candidate in working_set.lines.candidates() if candidate.cause is not None]
    waits = {wait.job_id: wait for wait in _Explainer(working_set).waits(waiting)} | working_set.lines.not_ready
    return tuple([waits[job.id] for job in working_set.snapshot.waiting if job.id in waits])
