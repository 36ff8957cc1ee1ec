"""Why each gang waits: a sentence, the same as data, and when it will probably start and on what basis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan
from typing import Final

import numpy as np
import numpy.typing as npt

from tuttilab.scheduler.core.backfill import Hold, QuotaHold, end_of, hold_for
from tuttilab.scheduler.core.candidates import Candidate, CandidateArrays
from tuttilab.scheduler.core.causes import Cause
from tuttilab.scheduler.core.explain.bases import TOO_WIDE, Bases, facts
from tuttilab.scheduler.core.explain.forecast import are_wide, predicted_starts
from tuttilab.scheduler.core.explain.kept import kept_by
from tuttilab.scheduler.core.explain.names import HeldBy, Holders, blocked_by, count
from tuttilab.scheduler.core.explain.ranges import EndTable, first_end, hold_range, quota_range
from tuttilab.scheduler.core.explain.starts import Forecasts, Reasons, told
from tuttilab.scheduler.core.ordering.run_times import told_spreads
from tuttilab.scheduler.core.placement.fit import Misfit, named_clusters, possible_clusters
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.core.quota import Shortage
from tuttilab.scheduler.core.rules import EndEstimate
from tuttilab.scheduler.core.snapshot import Running
from tuttilab.scheduler.core.told.ranges import ToldRanges
from tuttilab.scheduler.core.told.waits import Waits
from tuttilab.scheduler.core.working_set import WorkingSet
from tuttilab.scheduler.domain.model import Job, Kept, StartForecast, Wait, Why
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

    def explained(self, waiting: Sequence[Candidate]) -> _Explained:
        """``waiting``: queue by queue, by place."""
        working_set = self.working_set
        snapshot, now = working_set.snapshot, working_set.now
        templates: list[_Template] = []
        numbers: dict[Cause | None, int] = {}
        of_each: list[int] = []
        for candidate in waiting:
            number = numbers.get(candidate.cause)
            if number is None:
                number = numbers[candidate.cause] = len(templates)
                templates.append(self._template_of(candidate))
            of_each.append(number)
        which = np.array(of_each, dtype=np.intp)
        job_ids = [candidate.job.id for candidate in waiting]
        rows = dict(zip(job_ids, range(len(job_ids)), strict=True))
        spreads = told_spreads((candidate.prediction, candidate.job) for candidate in waiting)
        arrays = working_set.lines.arrays
        arrays = arrays.take(waiting) if arrays is not None else CandidateArrays.of(waiting)
        starts = predicted_starts(working_set, waiting, arrays, spreads)
        forecasts = Forecasts.of(are_wide(arrays), starts, _reasons(templates, which, rows), now)
        several = {id(template.holders): template.holders for template in templates}
        facts_of = {key: facts(holders) for key, holders in several.items()}
        held = np.array([facts_of[id(template.holders)] for template in templates], dtype=np.intp).reshape(-1, 3)
        bases = Bases.of(waiting, spreads, arrays.limit, held[which])
        ranges = told(job_ids, forecasts, bases, snapshot.factors, snapshot.told, now)
        return _Explained(working_set, waiting, templates, of_each, rows, forecasts, bases, ranges)

    def _template_of(self, candidate: Candidate) -> _Template:
        cause = candidate.cause
        assert cause is not None
        template = self._causes.get(cause)
        if template is None:
            template = self._causes[cause] = self._template(candidate, cause)
        return template

    def _holders(self, holds: Callable[[Running], bool]) -> Holders:
        """The holders that ran before this cycle; where there are none, those that it admitted."""
        before = [runner for runner in self.working_set.snapshot.running if holds(runner)]
        return Holders.of(before or filter(holds, self.working_set.running), self.working_set.now)

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
        template = self._causes.get(first)
        if template is None:
            template = self._causes[first] = self._no_room(candidate, first)
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
            self._end_table = EndTable(self.working_set.running, self.working_set.ends())
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


@dataclass(frozen=True, slots=True)
class _Explained:
    """What is known of every waiting gang, by its number, and how it is put into words."""

    working_set: WorkingSet
    waiting: Sequence[Candidate]
    templates: Sequence[_Template]
    which: Sequence[int]
    """The template of each."""
    rows: Mapping[str, int]
    """By job id."""
    forecasts: Forecasts
    bases: Bases
    ranges: ToldRanges

    def waits(self) -> Waits:
        waits = {**self.rows, **self.working_set.lines.not_ready}
        waiting = [job.id for job in self.working_set.snapshot.waiting if job.id in waits]
        foreseen = [self.waiting[row].job.id for row in np.nonzero(self.forecasts.is_made)[0].tolist()]
        return Waits(waiting, self._wait, self._why, foreseen, self._forecast, self.ranges)

    def _why(self, job_id: str) -> Why:
        row = self.rows.get(job_id)
        return self.working_set.lines.not_ready[job_id].why if row is None else self.templates[self.which[row]].pattern.why

    def _forecast(self, job_id: str) -> StartForecast | None:
        row = self.rows.get(job_id)
        return None if row is None else self.forecasts.of_gang(row)

    def _wait(self, job_id: str) -> Wait:
        row = self.rows.get(job_id)
        if row is None:
            return self.working_set.lines.not_ready[job_id]
        candidate, template = self.waiting[row], self.templates[self.which[row]]
        job, forecast = candidate.job, self.forecasts.of_gang(row)
        _, why, sentence, _, short, queue, role, blockers = template.pattern[:8]
        held: HeldBy | None = None
        listed: tuple[str, ...] = ()
        if template.holders is not None:
            held = template.holders.shown_to(job)
            blockers, listed = held.blockers, held.listed
            sentence = "; ".join([part for part in (sentence, held.text, template.detail) if part])
        elif template.behind is not None:
            sentence, blockers = _behind(template.behind, template.what, job)
        says = self.ranges.get(job_id)
        start, earliest, latest, basis = (None, None, None, "") if says is None else says
        if says is None and template.is_by_line:
            basis = TOO_WIDE if forecast is not None else self.bases.of_none(row, held)
        return Wait(
            job.id, why, sentence, candidate.place, short, queue, role, blockers, start, basis,
            self.working_set.protection.overtaken_s.get(job.id, 0.0), candidate.is_protected, earliest, latest, listed, forecast,
            self._kept(candidate), self._allowed_s(job),
        )  # fmt: skip

    def _kept(self, candidate: Candidate) -> Kept | None:
        hold = candidate.cause.hold if candidate.cause is not None else None
        return kept_by(hold, candidate, self.working_set) if isinstance(hold, Hold) and hold.job is candidate.job else None

    def _allowed_s(self, job: Job) -> float:
        """How far later jobs may overtake it before it is protected."""
        snapshot = self.working_set.snapshot
        queue, account = snapshot.queues[job.queue], snapshot.accounts.get(job.id)
        waited_s = self.working_set.now - (job.submitted_at if account is None else account.since)
        return snapshot.rules.protected_at * (queue.overtaking * waited_s + queue.overtaking_s)


def _behind(first: Job, what: str, job: Job) -> tuple[str, tuple[str, ...]]:
    """The sentence and blockers of a gang whose room or quota is held for another."""
    seen = (first.id,) if first.group == job.group else ()
    return f"{what} is kept for {blocked_by(first, job)}, which goes first; this one could delay it", seen


def _reasons(templates: Sequence[_Template], which: npt.NDArray[np.intp], rows: Mapping[str, int]) -> Reasons:
    """``which``: the template of each gang."""
    start = np.array([nan if one.start is None else one.start for one in templates])
    bounds = np.array([one.bounds for one in templates]).reshape(-1, 2)
    is_first = np.zeros(len(which), dtype=np.bool_)
    for number, template in enumerate(templates):
        row = rows.get(template.holder.id) if template.holder is not None and template.start is not None else None
        if row is not None and which[row] == number:
            is_first[row] = True
    return Reasons(
        start[which],
        bounds[which, 0],
        bounds[which, 1],
        is_first,
        np.array([one.is_by_line for one in templates], dtype=np.bool_)[which],
        np.array([one.behind is not None for one in templates], dtype=np.bool_)[which],
    )


def explain(working_set: WorkingSet) -> Waits:
    """One `Wait` for every waiting gang that does not start, in the order of the snapshot."""
    waiting = [candidate for candidate in working_set.lines.candidates() if candidate.cause is not None]
    if not waiting:
        return Waits.of_all(
            working_set.lines.not_ready[job.id] for job in working_set.snapshot.waiting if job.id in working_set.lines.not_ready
        )
    return _Explainer(working_set).explained(waiting).waits()
