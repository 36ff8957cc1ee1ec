"""The working set of one cycle: what is still free, who was met, who holds what; tries one gang and takes room for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from tuttilab.scheduler.core.accounts import Use
from tuttilab.scheduler.core.backfill import Hold, QuotaHold, Releases, end_of, hold_for, latest_end, quota_beside, quota_hold
from tuttilab.scheduler.core.causes import Cause, Refusal
from tuttilab.scheduler.core.estimates import UNKNOWN
from tuttilab.scheduler.core.layout import Amounts
from tuttilab.scheduler.core.line import Candidate, Known, Line, put_in_order
from tuttilab.scheduler.core.placement import (
    Counts,
    Fit,
    Misfit,
    allowed_clusters,
    charge_of,
    fits_somewhere,
    named_clusters,
    permitted_clusters,
    place_demand,
)
from tuttilab.scheduler.core.protection import Protection, protection
from tuttilab.scheduler.core.queues import parting
from tuttilab.scheduler.core.quota import JOBS, PODS, Ledger, Shortage, counts_of
from tuttilab.scheduler.core.rules import Keep, Order
from tuttilab.scheduler.core.shapes import Shape, shape_key
from tuttilab.scheduler.core.sieve import FEW, FIRST_AHEAD, MOST_AHEAD, Sieve
from tuttilab.scheduler.core.snapshot import Room, Running, Snapshot
from tuttilab.scheduler.events import GangAdmitted
from tuttilab.scheduler.model import MASTER, Cluster, Job, JobPhase, Wait, Why
from tuttilab.scheduler.resources import GPU, Resources, show_duration, total

MOST_PROTECTED_TRIED: Final = 32
"""Protected gangs looked at for the hold in one cycle; the first of them that does not fit gets it."""


@dataclass(slots=True)
class Desk:
    snapshot: Snapshot
    now: float
    room: Room
    ledger: Ledger
    site: Resources
    protection: Protection
    running: list[Running]
    admitted: list[GangAdmitted] = field(default_factory=list)
    started: list[Candidate] = field(default_factory=list)
    lines_: dict[str, list[Candidate]] = field(default_factory=dict)
    early: dict[str, Wait] = field(default_factory=dict)
    """Those that may not be considered: dependency, back-off, no queue."""
    holds: dict[str, Hold] = field(default_factory=dict)
    quota_holds: dict[str, QuotaHold] = field(default_factory=dict)
    kept_quota: dict[str, list[tuple[QuotaHold, Hold]]] = field(default_factory=dict)
    """By queue: what a gang with a hold on room will need of the limits of this queue, too."""
    coming: dict[str, Hold] = field(default_factory=dict)
    """By cluster: the room of gangs that stop for those that claimed it, kept from everybody else."""
    coming_use: Ledger | None = None
    """What queues will use when the stopping gangs have ended and those that claimed it have started."""
    claimed: set[str] = field(default_factory=set)
    """Who may use that room and quota: claimants that fit now, or will when the stopping gangs have ended."""
    known: Known | None = None
    """What is known of the gangs that may be considered, where the order or the told starts ask for it."""
    _shapes: dict[tuple[int, tuple[str, ...]], Shape] = field(default_factory=dict)
    _unknown: dict[Hashable, int] = field(default_factory=dict)
    _choices: dict[tuple[str, frozenset[str]], tuple[tuple[Cluster, ...], tuple[str, ...]]] = field(default_factory=dict)
    """By queue and named clusters: the clusters that are left, and their names."""
    _sieves: dict[str, Sieve] = field(default_factory=dict)
    """By cluster, where many unlike gangs wait."""
    _sifted: dict[Shape, int] = field(default_factory=dict)
    """How many gangs had started when the sieves were asked about a shape last."""
    _ahead: int = 0
    """How many gangs of a line they are asked about next; none before one was tried in vain."""
    _free_totals: dict[str, Resources] = field(default_factory=dict)
    """By cluster, while gangs are served."""
    _idle: Ledger | None = None
    _ever: dict[tuple[Shape, str], bool] = field(default_factory=dict)
    _refusals: dict[str, dict[Shape, Refusal]] = field(default_factory=dict)
    """By queue and shape."""

    @classmethod
    def of(cls, snapshot: Snapshot, now: float) -> Desk:
        room = snapshot.room.copy()
        site = total(layout.total for layout in room.layouts.values())
        ledger = snapshot.ledger.copy()
        desk = cls(snapshot, now, room, ledger, site, Protection(), list(snapshot.running))
        if snapshot.rules.protects and snapshot.waiting:
            desk.protection = desk._protection()
        return desk

    # --- who may be considered, in which order -----------------------------------------------------------------------

    def _protection(self) -> Protection:
        layouts = self.room.layouts
        weights = {name: layout.total.dominant_share(self.site) for name, layout in layouts.items()}
        in_use = [use_of(runner, self.now) for runner in self.running]
        usable: dict[str, frozenset[str]] = {}
        if len(weights) > 1:
            for job in self.snapshot.waiting:
                names = frozenset(c.name for c in allowed_clusters(job, self.snapshot.clusters, self.ledger.path(job.queue)))
                if len(names) < len(weights):
                    usable[job.id] = names
        return protection(self.snapshot.waiting, self.snapshot.accounts, in_use, self.snapshot.queues, weights, usable, self.now)

    def lines(self) -> Mapping[str, Sequence[Candidate]]:
        """Every gang that may be considered, by queue, first in line first."""
        snapshot, now = self.snapshot, self.now
        protected, lifted = self.protection.protected, self.protection.lifted
        lines: dict[str, Line] = {}
        for job in snapshot.waiting:
            line = lines.get(job.queue)
            if job.after or job.not_before > now or line is None:
                wait = self._not_yet(job)
                if wait is not None:
                    self.early[job.id] = wait
                    continue
                line = lines.setdefault(job.queue, Line())
            shape = line.shapes.get(snapshot.shapes.get(job.id)) or self._shape(job, line)
            shape.count += 1
            is_lifted = job.id in lifted
            prediction = snapshot.predictions.get(job.id, UNKNOWN)
            line.candidates.append(Candidate(job, shape, prediction, is_lifted or job.id in protected, is_lifted))
        self.lines_ = {queue: line.candidates for queue, line in lines.items()}
        is_short = snapshot.rules.order is Order.SMALL_FIRST and self._is_short()
        if is_short or snapshot.rules.tells_all:
            self.known = Known.of([candidate for line in self.lines_.values() for candidate in line])
        put_in_order(self.lines_, self.known if is_short else None)
        return self.lines_

    def _is_short(self) -> bool:
        """Whether there is less room than all ready gangs ask for together, by any resource."""
        asked: dict[str, int] = {}
        for shape in self._shapes.values():
            for key, amount in shape.asked:
                asked[key] = asked.get(key, 0) + amount * shape.count
        free = total(self.room.free_total(name) for name in self.room.layouts)
        return not Resources.of(asked).fits(free)

    def _shape(self, job: Job, line: Line) -> Shape:
        """The shape of a gang that is the first of it in its queue."""
        number = self.snapshot.shapes.get(job.id)
        if number is None:
            number = self._unknown.setdefault(shape_key(job), -1 - len(self._unknown))
        clusters, names = self._choice(job)
        key = (number, names)
        shape = self._shapes.get(key)
        if shape is None:
            kept = self.snapshot.kept.get(key)
            if kept is None or not kept.is_of(clusters):
                kept = Shape.of(job, clusters, total(self.room.layouts[name].total for name in names))
                if number >= 0:
                    self.snapshot.kept[key] = kept
            shape = self._shapes[key] = kept.again()
        line.shapes[number] = shape
        return shape

    def _choice(self, job: Job) -> tuple[tuple[Cluster, ...], tuple[str, ...]]:
        key = (job.queue, frozenset(named_clusters(job)))
        if key not in self._choices:
            clusters = tuple(allowed_clusters(job, self.snapshot.clusters, self.ledger.path(job.queue)))
            self._choices[key] = clusters, tuple(cluster.name for cluster in clusters)
        return self._choices[key]

    def _not_yet(self, job: Job) -> Wait | None:
        """Why a job may not even be considered: its dependencies, its back-off, or a queue that is gone."""
        waiting_for = tuple(j for j in job.after if self.snapshot.phases.get(j) is not JobPhase.SUCCEEDED)
        if waiting_for:
            names = ", ".join(waiting_for)
            return Wait(job.id, Why.DEPENDENCY, f"waits for job {names} to succeed", 0, blockers=waiting_for)
        if job.not_before > self.now:
            left = show_duration(max(job.not_before - self.now, 1))
            why = f": {job.reason}" if job.reason else ""
            sentence = f"tries again in {left}{why}"
            return Wait(job.id, Why.BACK_OFF, sentence, 0, estimated_start=job.not_before, basis="back-off")
        if job.queue not in self.snapshot.queues:
            return Wait(job.id, Why.QUOTA, f"queue {job.queue} no longer exists; submit to another", 0)
        return None

    def next_at(self) -> float | None:
        """When a back-off ends or a gang becomes protected: before that nothing changes by itself."""
        times = [job.not_before for job in self.snapshot.waiting if job.not_before > self.now]
        if self.protection.next_at is not None:
            times.append(self.protection.next_at)
        return min(times, default=None)

    # --- trying ------------------------------------------------------------------------------------------------------

    def may_start_any(self) -> bool:
        """False when no shape has room anywhere and nobody may be stopped, so that only reasons are left to find."""
        if self.snapshot.rules.tells_all or self.may_preempt():
            return bool(self.lines_)
        layouts = self.room.layouts
        return any(
            fits_somewhere(shape.demand(layouts[c.name]), layouts[c.name], self.room.free[c.name])
            for shape in self._shapes.values()
            for c in shape.clusters
        )

    def may_preempt(self) -> bool:
        """Whether any gang could ever stop another: something is guaranteed, or there is more than one class."""
        if not self.snapshot.rules.preempts or self.ledger.lent():
            return self.snapshot.rules.preempts
        heads = {line[0].job.priority for line in self.lines_.values()}
        return bool(heads) and any(runner.job.priority < max(heads) for runner in self.running)

    def hold_for_protected(self, lines: Mapping[str, Sequence[Candidate]]) -> None:
        """A protected gang always has the hold: the first of them that quota allows and that does not fit."""
        if self.snapshot.rules.keep is not Keep.HOLD:
            return
        urgent = sorted((c for line in lines.values() for c in line if c.is_protected), key=lambda c: c.protected_rank)
        for candidate in urgent[:MOST_PROTECTED_TRIED]:
            shape = candidate.shape
            charges = [shape.charges[c.name] for c in shape.clusters]
            if not charges or all(self._shortage(candidate.job, shape, charge) is not None for charge in charges):
                continue
            trials = {c.name: self.room.free[c.name].copy() for c in shape.clusters}
            if not any(self._places(shape, c, trials[c.name]) for c in shape.clusters):
                self._keep_room(candidate)
                return

    def hold_for_claimants(self, lines: Mapping[str, Sequence[Candidate]]) -> None:
        """What stops for a claimant is not taken by others while it ends, who would only be stopped next."""
        stopping = [runner for runner in self.running if runner.is_stopping]
        if not stopping or not self.snapshot.rules.preempts:
            return
        free = {name: amounts.copy() for name, amounts in self.room.free.items()}
        future = Room(self.room.layouts, free)
        ledger = self.ledger.copy()
        for runner in stopping:
            for key, amount in runner.holds:
                future.give(key, amount)
            ledger.remove(runner.queue, runner.charge, runner.pods)
        failed: set[tuple[Shape, str]] = set()
        starts: dict[tuple[Shape, str], bool] = {}
        for candidate, _ in self.claimants(lines):
            shape, job = candidate.shape, candidate.job
            claim = (shape, job.queue)
            if claim in failed:
                continue
            if claim not in starts:
                starts[claim] = any(self._starts(candidate, c) for c in shape.clusters)
            if starts[claim]:
                self.claimed.add(job.id)
                continue
            cluster = next((c for c in shape.clusters if self._comes(candidate, c, ledger, free[c.name])), None)
            if cluster is None:
                failed.add(claim)
                continue
            self.claimed.add(job.id)
            _, charge, pods = shape.smallest(cluster)
            ledger.add(job.queue, charge, pods)
            self.coming_use = ledger
            if cluster.name not in self.coming:
                ends = [end_of(runner, self.now) for runner in stopping if runner.cluster == cluster.name]
                start = max(ends, default=self.now)
                self.coming[cluster.name] = Hold(job, cluster.name, start, free[cluster.name], margin=None)

    def _starts(self, candidate: Candidate, cluster: Cluster) -> bool:
        """Whether room and quota would take the gang now."""
        shape = candidate.shape
        _, charge, pods = shape.smallest(cluster)
        if self._shortage(candidate.job, shape, charge, pods) is not None:
            return False
        return self._places(shape, cluster, self.room.free[cluster.name].copy())

    def _comes(self, candidate: Candidate, cluster: Cluster, ledger: Ledger, free: Amounts) -> bool:
        job, shape, layout = candidate.job, candidate.shape, self.room.layouts[cluster.name]
        counts, charge, pods = shape.smallest(cluster)
        if ledger.shortage(job.queue, charge, pods, job.is_preemptible) is not None:
            return False
        return isinstance(place_demand(shape.demand(layout), layout, free, counts, False), Fit)

    def claimants(self, lines: Mapping[str, Sequence[Candidate]]) -> Iterator[tuple[Candidate, bool]]:
        """Gangs that may stop others, were they not to fit: above a class in their queue, or (told) within a guarantee."""
        lowest: dict[str, int] = {}
        for runner in self.running:
            lowest[runner.queue] = min(runner.job.priority, lowest.get(runner.queue, runner.job.priority))
        for queue, line in lines.items():
            entitled: dict[Shape, bool] = {}
            least = lowest.get(queue, inf)
            for candidate in line:
                shape = candidate.shape
                is_entitled = entitled.get(shape)
                if is_entitled is None:
                    is_entitled = entitled[shape] = self.is_entitled(candidate)
                if (is_entitled or candidate.job.priority > least) and shape.clusters:
                    yield candidate, is_entitled

    def _places(self, shape: Shape, cluster: Cluster, free: Amounts) -> bool:
        layout = self.room.layouts[cluster.name]
        return isinstance(place_demand(shape.demand(layout), layout, free, shape.smallest(cluster)[0], False), Fit)

    def alone(self, shape: Shape, cluster: Cluster) -> Misfit | None:
        """What gangs of this shape would lack were the cluster empty; None for those that would fit."""
        return shape.alone(self.room.layouts[cluster.name])

    def serve(self, line: Sequence[Candidate], begin: int) -> int:
        """Try the gangs of one queue from place ``begin`` on until one of them starts; answers the place after it."""
        refusals = self._refusals.setdefault(line[begin].job.queue, {})
        before = len(self.admitted)
        for place in range(begin, len(line)):
            candidate = line[place]
            refusal = refusals.get(candidate.shape)
            if refusal is not None and (refusal.is_for_all or refusal.holds_for(candidate.prediction, candidate.job, self.now)):
                candidate.cause = refusal.again
                continue
            if self._ahead and self._sifted.get(candidate.shape, -1) < before:
                self._sift(line[place : place + self._ahead])
            self._consider(candidate)
            if len(self.admitted) > before:
                self._ahead = 0
                return place + 1
            if not self._ahead and len(self._shapes) >= FEW:
                self._ahead = FIRST_AHEAD
        return len(line)

    def _sift(self, candidates: Sequence[Candidate]) -> None:
        """Ask about the shapes of these gangs at once, as things stand; about more of them the next time."""
        self._ahead = min(2 * self._ahead, MOST_AHEAD)
        by_cluster: dict[str, list[Shape]] = {}
        for shape in dict.fromkeys(candidate.shape for candidate in candidates):
            self._sifted[shape] = len(self.admitted)
            for cluster in shape.clusters:
                by_cluster.setdefault(cluster.name, []).append(shape)
        for name, shapes in by_cluster.items():
            sieve = self._sieves.get(name)
            if sieve is None:
                sieve = self._sieves[name] = Sieve(self.room.layouts[name])
            sieve.sift(shapes, self.room.free[name])

    def tell_closest(self, cluster: str | None = None) -> None:
        """Before room changes: fill in which nodes came closest for the gangs that the sieves refused."""
        for name in self._sieves if cluster is None else self._sieves.keys() & {cluster}:
            self._sieves[name].tell(self.room.free[name])

    def _consider(self, candidate: Candidate) -> None:
        """Start the gang, or note its cause for waiting; the first that only lacks room gets the hold."""
        job, shape = candidate.job, candidate.shape
        if not shape.clusters:
            permitted = permitted_clusters(job, self.snapshot.clusters, self.ledger.path(job.queue))
            self._refuse(candidate, Cause(Why.CLUSTER_DOWN, clusters=tuple(sorted(cluster.name for cluster in permitted))))
            return
        if shape.misfits and all(self._shortage(job, shape, shape.charges[c.name]) is None for c, _ in shape.misfits):
            self._refuse(candidate, Cause(Why.NO_ROOM, misfits=shape.misfits, hold=self._keep_room(candidate)))
            return
        shortages: list[tuple[Cluster, Shortage]] = []
        misfits: list[tuple[Cluster, Misfit]] = []
        held: Hold | QuotaHold | None = None
        for cluster in self._by_room(shape):
            outcome = self._try(candidate, cluster)
            if isinstance(outcome, Fit):
                return
            if isinstance(outcome, Shortage):
                shortages.append((cluster, outcome))
            elif isinstance(outcome, Misfit):
                misfits.append((cluster, outcome))
            else:
                held = held or outcome
        if held is not None:
            ends_at = latest_end(job, candidate.prediction, self.now, held.margin)
            self._refuse(candidate, Cause(Why.HOLD, hold=held), ends_at, held.margin)
        elif misfits:
            kept = self._keep_room(candidate)
            shape.misfits = tuple(misfits) if not shortages else ()
            self._refuse(candidate, Cause(Why.NO_ROOM, misfits=tuple(misfits), hold=kept))
        else:
            self._refuse_quota(candidate, shortages[0][1])

    def _refuse(self, candidate: Candidate, cause: Cause, ends_at: float = 0.0, margin: float | None = 0.0) -> None:
        candidate.cause = cause
        refusal = Refusal(cause, cause.again(), cause.why is not Why.HOLD, ends_at, margin)
        self._refusals.setdefault(candidate.job.queue, {})[candidate.shape] = refusal

    def _refuse_quota(self, candidate: Candidate, shortage: Shortage) -> None:
        held = None
        keeps = self.snapshot.rules.keep is not Keep.NOTHING and shortage.queue not in self.quota_holds
        if keeps and self.is_ever_allowed(candidate):
            below = self.queues_below(shortage.queue)
            users = [runner for runner in self.running if runner.queue in below]
            over, expects = shortage.over + shortage.counted, self.snapshot.rules.expects
            held = quota_hold(candidate.job, over, users, self.now, self._margin(candidate), expects)
            if held is not None:
                self.quota_holds[shortage.queue] = held
        self._refuse(candidate, Cause(Why.QUOTA, shortage=shortage, hold=held))

    def is_ever_allowed(self, candidate: Candidate) -> bool:
        """Whether its queues' limits would let the gang, at its smallest, start if nothing ran; else nothing is kept for it."""
        job, shape = candidate.job, candidate.shape
        key = (shape, job.queue)
        if key not in self._ever:
            if self._idle is None:
                self._idle = self.ledger.idle()
            idle = self._idle
            sizes = [shape.smallest(cluster)[1:] for cluster in shape.clusters]
            self._ever[key] = any(idle.shortage(job.queue, *size, job.is_preemptible) is None for size in sizes)
        return self._ever[key]

    def _by_room(self, shape: Shape) -> Iterable[Cluster]:
        """Most room first, as a share of the cluster, clusters with GPUs last for gangs that want none; ties by name."""
        if len(shape.clusters) == 1:
            return shape.clusters
        layouts, wants_gpu = self.room.layouts, shape.asked[GPU] > 0
        return sorted(
            shape.clusters,
            key=lambda cluster: (
                not wants_gpu and layouts[cluster.name].total[GPU] > 0,
                -self._free_share(shape, cluster),
                cluster.name,
            ),
        )

    def _free_share(self, shape: Shape, cluster: Cluster) -> float:
        """The free part of the scarcest resource that the shape asks for."""
        layout, free = self.room.layouts[cluster.name], self._free_totals.get(cluster.name)
        if free is None:
            free = self._free_totals[cluster.name] = self.room.free_total(cluster.name)
        asked = shape.charges[cluster.name]
        return min((free[key] / layout.total[key] if layout.total[key] else 0.0 for key, _ in asked), default=0.0)

    def _shortage(self, job: Job, shape: Shape, charge: Resources, pods: int | None = None) -> Shortage | None:
        return self.ledger.shortage(job.queue, charge, pods if pods is not None else shape.pods, job.is_preemptible)

    def _try(self, candidate: Candidate, cluster: Cluster) -> Fit | Shortage | Misfit | Hold | QuotaHold:
        """At full size, else at the largest size that an elastic gang can start with (found by halving)."""
        outcome = self._try_size(candidate, cluster, None)
        shape = candidate.shape
        if isinstance(outcome, Fit) or not shape.is_elastic:
            return outcome
        low, high = 1, shape.slack
        best: Fit | None = None
        while low <= high:
            middle = (low + high) // 2
            smaller = self._try_size(candidate, cluster, shape.counts_less(middle), is_trial=True)
            if isinstance(smaller, Fit):
                best, high = smaller, middle - 1
            else:
                low = middle + 1
        return outcome if best is None else self._try_size(candidate, cluster, shape.counts_less(low))

    def _try_size(
        self, candidate: Candidate, cluster: Cluster, counts: Counts | None, is_trial: bool = False
    ) -> Fit | Shortage | Misfit | Hold | QuotaHold:
        job, shape, layout = candidate.job, candidate.shape, self.room.layouts[cluster.name]
        charge = shape.charges[cluster.name] if counts is None else charge_of(job, cluster, counts)
        pods = shape.pods if counts is None else shape.pods - job.gang.size + sum(counts.values())
        shortage = self._shortage(job, shape, charge, pods)
        if shortage is None and self.coming_use is not None and job.id not in self.claimed:
            shortage = self.coming_use.shortage(job.queue, charge, pods, job.is_preemptible)
        if shortage is not None:
            return shortage
        passed: list[tuple[QuotaHold, float]] = []
        for quota in self._quota_kept_from(candidate):
            ends_at = latest_end(job, candidate.prediction, self.now, quota.margin)
            if not quota.allows(charge + counts_of(pods), ends_at, is_trial=True):
                return quota
            passed.append((quota, ends_at))
        free, sieve = self.room.free[cluster.name], self._sieves.get(cluster.name)
        if sieve is not None:
            misfit = sieve.misfit(shape, counts, free, self.snapshot.rules.tells_all and not is_trial)
            if misfit is not None:
                return misfit
        trial = free.copy()
        fit = place_demand(shape.demand(layout), layout, trial, counts, self.snapshot.rules.tells_all)
        if isinstance(fit, Misfit):
            return fit
        used, bound = free - trial, self._room_kept_from(candidate, cluster)
        ends = [latest_end(job, candidate.prediction, self.now, hold.margin) for hold in bound]
        for hold, ends_at in zip(bound, ends, strict=True):
            if not hold.allows(used, ends_at, is_trial=True):
                return hold
        if not is_trial:
            # Only what starts uses up what the holds leave.
            for quota, ends_at in passed:
                quota.allows(charge + counts_of(pods), ends_at)
            for hold, ends_at in zip(bound, ends, strict=True):
                hold.allows(used, ends_at)
            self._admit(candidate, cluster, fit, trial, charge)
        return fit

    def _quota_kept_from(self, candidate: Candidate) -> Iterator[QuotaHold]:
        for step in self.ledger.path(candidate.job.queue):
            quota = self.quota_holds.get(step.name)
            if quota is not None and quota.job is not candidate.job:
                yield quota
            for kept, hold in self.kept_quota.get(step.name, ()):
                if not self._precedes(candidate, hold):
                    yield kept

    def _room_kept_from(self, candidate: Candidate, cluster: Cluster) -> list[Hold]:
        coming = None if candidate.job.id in self.claimed else self.coming.get(cluster.name)
        hold = self.holds.get(cluster.name)
        bound = [] if coming is None else [coming]
        return bound if hold is None or self._precedes(candidate, hold) else [*bound, hold]

    def is_entitled(self, candidate: Candidate) -> bool:
        """Whether the gang asks for no more than its queue is guaranteed, which no hold of a borrower keeps from it."""
        return is_within_guarantee(self.ledger, candidate)

    def _precedes(self, candidate: Candidate, hold: Hold) -> bool:
        """Whether a gang goes before the one that has the hold, so that the hold does not bind it."""
        holder = hold.holder_rank
        if candidate.job is hold.job or (self.is_entitled(candidate) and not hold.is_entitled):
            return True
        if not hold.is_protected:
            return False
        if candidate.is_protected and candidate.protected_rank < holder:
            return True
        if not holder[0]:
            return False
        if candidate.job.queue == hold.job.queue:
            return candidate.job.priority > hold.job.priority
        parts = parting(self.snapshot.queues, candidate.job.queue, hold.job.queue)
        return parts is not None and parts[0].priority > parts[1].priority

    def _admit(self, candidate: Candidate, cluster: Cluster, fit: Fit, free: Amounts, charge: Resources) -> None:
        job = candidate.job
        self.tell_closest(cluster.name)
        self.room.free[cluster.name][:] = free
        self._free_totals.pop(cluster.name, None)
        self.ledger.add(job.queue, charge, len(fit.placements))
        if self.coming_use is not None and job.id not in self.claimed:
            self.coming_use.add(job.queue, charge, len(fit.placements))
        self.admitted.append(
            GangAdmitted(
                job.id,
                job.attempts + 1,
                cluster.name,
                fit.placements,
                self.snapshot.epoch,
                candidate.is_lifted,
                candidate.prediction,
            )
        )
        self.started.append(candidate)
        costs = {p.role: p.resources + cluster.sidecar_cost if job.work.sidecar else p.resources for p in job.gang.pod_sets}
        costs[MASTER] = cluster.master_cost
        holds = tuple(((cluster.name, place.node), costs[place.role]) for place in fit.placements)
        limit = None if job.timeout_s is None else self.now + job.timeout_s
        self.running.append(
            Running(
                job,
                job.attempts + 1,
                cluster.name,
                holds,
                charge,
                self.now,
                self.now,
                limit,
                candidate.prediction,
                self.room.layouts[cluster.name].share_of(charge),
                pods=len(fit.placements),
            )
        )

    def _keep_room(self, candidate: Candidate) -> Hold | None:
        """The hold for a gang that does not fit, on the cluster where it can start first; None where all are taken."""
        keep = self.snapshot.rules.keep
        if keep is Keep.NOTHING:
            return None
        own = next((hold for hold in self.holds.values() if hold.job is candidate.job), None)
        if own is not None:
            return own
        if all(cluster.name in self.holds for cluster in candidate.shape.clusters) or not self.is_ever_allowed(candidate):
            return None
        best: Hold | None = None
        for cluster in candidate.shape.clusters:
            if cluster.name in self.holds or self._never_fits(candidate.shape, cluster):
                continue
            layout, free = self.room.layouts[cluster.name], self.room.free[cluster.name]
            releases = Releases.of(layout, self.running, self.now, self.snapshot.rules.expects)
            counts = candidate.shape.counts_less(candidate.shape.slack) if candidate.shape.is_elastic else None
            hold = hold_for(candidate.job, candidate.shape.demand(layout), layout, free, releases, counts)
            if hold is not None:
                hold.start = max(hold.start, self.now)
                hold.is_protected = candidate.is_protected
                hold.is_entitled = self.is_entitled(candidate)
                hold.margin = self._margin(candidate)
                hold.holder_rank = candidate.protected_rank
                hold.shuts = keep is Keep.EVERYTHING
                if best is None or hold.start < best.start:
                    best = hold
        if best is not None:
            self.holds[best.cluster] = best
            self._keep_quota(candidate, best)
        return best

    def _never_fits(self, shape: Shape, cluster: Cluster) -> bool:
        misfit = self.alone(shape, cluster)
        return misfit is not None and misfit.is_certain

    def _keep_quota(self, candidate: Candidate, hold: Hold) -> None:
        """Beside the room, what the held gang will need of the limits on its queue's path when its room is there."""
        job = candidate.job
        _, charge, pods = candidate.shape.smallest(self.snapshot.clusters[hold.cluster])
        needs = charge + counts_of(pods)
        for step in self.ledger.path(job.queue):
            left = {key: most - self.ledger.use[step.name][key] for key, most in step.max if needs[key]}
            if step.max_jobs is not None:
                left[JOBS] = step.max_jobs - self.ledger.jobs[step.name]
            if step.max_pods is not None:
                left[PODS] = step.max_pods - self.ledger.pods[step.name]
            if left:
                below = self.queues_below(step.name)
                users = [runner for runner in self.running if runner.queue in below]
                kept = quota_beside(hold, left, needs, users, self.now, self.snapshot.rules.expects)
                self.kept_quota.setdefault(step.name, []).append((kept, hold))

    def _margin(self, candidate: Candidate) -> float | None:
        """How far the gang's hold trusts predictions: less, the more it was overtaken."""
        if candidate.is_lifted or candidate.job.id in self.protection.strict:
            return None
        return 1.0 if candidate.job.id in self.protection.overdue else 0.0

    def queues_below(self, name: str) -> set[str]:
        """The queue and every queue below it."""
        return {queue for queue in self.snapshot.queues if any(step.name == name for step in self.ledger.path(queue))}


def use_of(runner: Running, now: float) -> Use:
    """What a running gang has used so far, for the accounts."""
    job, seconds = runner.job, max(now - runner.admitted_at, 0.0)
    return Use(job.id, job.order, (job.queue, job.priority), runner.cluster, runner.counted_share, seconds)


def is_within_guarantee(ledger: Ledger, candidate: Candidate) -> bool:
    """Whether the gang, at its smallest, would be within the guaranteed share of its queue and may fetch it from borrowers."""
    shape = candidate.shape
    if not shape.clusters or not ledger.lent():
        return False
    return ledger.is_within(candidate.job.queue, shape.smallest(shape.clusters[0])[1])
