"""The hold: when a gang that may start but does not fit will start at the latest, and whether another gang would delay it (EASY).

EASY backfill: Lifka, The ANL/IBM SP scheduling system, JSSPP 1995. Ends are taken from run-time limits, never from hopes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuttilab.scheduler.core.placement import Fit, place, pod_cost
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.snapshot import NodeKey, Room, Running
from tuttilab.scheduler.model import MASTER, Cluster, Job
from tuttilab.scheduler.resources import Resources, total


@dataclass(slots=True)
class Hold:
    """The room kept for ``job`` on ``cluster``: from ``start`` on it runs on what ``room_at_start`` has left without it."""

    job: Job
    cluster: str
    start: float
    after: Room
    """Free room at ``start`` once the held gang has taken its places: what others may still use by then."""

    def allows(self, job: Job, fit: Fit, cluster: Cluster, now: float) -> bool:
        """Whether starting ``job`` now leaves the held gang's start where it is; takes the room it uses beyond the start."""
        if fit.cluster != self.cluster:
            return True
        if job.timeout_s is not None and now + job.timeout_s <= self.start:
            return True
        trial = self.after.copy()
        for key, amount in holds_of_fit(job, fit, cluster):
            if key not in trial.free or not amount.fits(trial.free[key]):
                return False
            trial.take(key, amount)
        self.after = trial
        return True


def holds_of_fit(job: Job, fit: Fit, cluster: Cluster) -> list[tuple[NodeKey, Resources]]:
    by_role = {pod_set.role: pod_cost(job, pod_set, cluster) for pod_set in job.gang.pod_sets}
    return [
        ((fit.cluster, placement.node), cluster.master_cost if placement.role == MASTER else by_role[placement.role])
        for placement in fit.placements
    ]


def _by_end(running: tuple[Running, ...], now: float) -> list[tuple[float, Running]]:
    """The gangs with a limit and when it ends them, first to end first."""
    ends = [(max(runner.ends_by, now), runner) for runner in running if runner.ends_by is not None]
    return sorted(ends, key=lambda pair: (pair[0], pair[1].job_id))


def hold_for(job: Job, cluster: Cluster, room: Room, running: tuple[Running, ...], now: float) -> Hold | None:
    """The earliest start of ``job`` on ``cluster`` as running gangs reach their limits; None when no limit makes room for it.

    A running gang without a limit never makes room here; one past its limit makes room now.
    """
    future = room.copy()
    for end, runner in _by_end(running, now):
        for key, amount in runner.holds:
            future.give(key, amount)
        trial = future.copy()
        if isinstance(place(job, cluster, trial), Fit):
            return Hold(job, cluster.name, end, trial)
    return None


@dataclass(frozen=True, slots=True)
class QuotaHold:
    """A queue's max is kept for ``job`` from ``start`` on: later gangs may not take more of ``keys`` past that time."""

    job: Job
    start: float
    keys: frozenset[str]

    def allows(self, job: Job, charge: Resources, now: float) -> bool:
        if job.timeout_s is not None and now + job.timeout_s <= self.start:
            return True
        return not any(charge[key] for key in self.keys)


def quota_hold(
    job: Job, charge: Resources, keys: Resources, ledger: Ledger, running: tuple[Running, ...], now: float
) -> QuotaHold | None:
    """When the gangs that use up a max reach their limits; None when no limit ever makes room."""
    future = Ledger(ledger.tree, dict(ledger.use), dict(ledger.jobs), dict(ledger.pods))
    for end, runner in _by_end(running, now):
        future.remove(runner.queue, total(amount for _, amount in runner.holds), len(runner.holds))
        if future.shortage(job.queue, charge, job.gang.size) is None:
            return QuotaHold(job, end, frozenset(key for key, _ in keys))
    return None
