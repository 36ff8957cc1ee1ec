"""An independent judge: reads the rows after every step and the decisions, and says which promise was broken.

Written from the list of invariants (docs/scheduling-proof.md), not from the code: it keeps its own books in plain dictionaries and
uses nothing of `core` but the rows that it judges. Violation names the invariant.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Attempt, Cluster, Job, Queue, Wait

Amounts = Counter[str]
JOB_EDGES = {
    "Queued": {"Queued", "Active", "Failed", "Cancelled"},
    "Active": {"Active", "Queued", "Succeeded", "Failed", "Cancelled"},
    "Succeeded": {"Succeeded"},
    "Failed": {"Failed"},
    "Cancelled": {"Cancelled"},
}
SPARED = ("notebook", "service")
"""Kinds that are not stopped for others unless their request says so."""
LIVE = {"Admitted", "Launching", "Running", "Stopping"}
ATTEMPT_END = {"Succeeded", "Failed", "Cancelled", "Preempted", "Lost"}


class Violation(AssertionError):
    """The message begins with the invariant's name."""


def need(is_true: bool, invariant: str, what: str) -> None:
    if not is_true:
        raise Violation(f"{invariant}: {what}")


def amounts(resources: Iterable[tuple[str, int]], times: int = 1) -> Amounts:
    return Counter({key: value * times for key, value in resources})


def asked(job: Job, attempt: Attempt) -> Amounts:
    """What the pods of the attempt must hold by the job's own request (bare pods: nothing of ours is added)."""
    sizes = {pod_set.role: pod_set.resources for pod_set in job.gang.pod_sets}
    whole: Amounts = Counter()
    for pod in attempt.pods:
        whole.update(amounts(sizes[pod.role]))
    return whole


def ancestors(queues: Mapping[str, Queue], name: str) -> list[str]:
    """The queue and those above it, root first."""
    parent = queues[name].parent
    return [*(ancestors(queues, parent) if parent else ()), name]


def parted(queues: Mapping[str, Queue], one: str, other: str) -> tuple[str, str]:
    """The first queues, from the root, in which the two paths differ."""
    return next((a, b) for a, b in zip(ancestors(queues, one), ancestors(queues, other), strict=False) if a != b)


def promised(queues: Mapping[str, Queue], name: str) -> Amounts:
    """What a queue is guaranteed; where it says nothing of a resource, what those below it are."""
    below: Amounts = Counter()
    for child, queue in queues.items():
        if queue.parent == name:
            below.update(promised(queues, child))
    return Counter(dict(below) | dict(queues[name].guaranteed))


@dataclass
class _Books:
    """What is free and what is used, counted from the rows."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    held: dict[tuple[str, str], Amounts] = field(default_factory=lambda: defaultdict(Counter))
    use: dict[str, Amounts] = field(default_factory=lambda: defaultdict(Counter))

    @classmethod
    def of(
        cls, jobs: Mapping[str, Job], live: list[Attempt], queues: Mapping[str, Queue], clusters: Mapping[str, Cluster]
    ) -> _Books:
        usage = cls(queues, clusters)
        for attempt in live:
            for pod in attempt.pods:
                usage.held[pod.cluster, pod.node].update(amounts(pod.resources))
            usage._charge(jobs[attempt.job_id], Counter(dict(attempt.charge)), len(attempt.pods))
        return usage

    def start(self, job: Job, event: ev.GangAdmitted) -> None:
        sizes = {pod_set.role: pod_set.resources for pod_set in job.gang.pod_sets}
        whole: Amounts = Counter()
        for place in event.placements:
            self.held[event.cluster, place.node].update(amounts(sizes[place.role]))
            whole.update(amounts(sizes[place.role]))
        self._charge(job, whole, len(event.placements))

    def _charge(self, job: Job, charge: Amounts, pods: int) -> None:
        for queue in self.path(job):
            self.use[queue.name].update(charge + Counter(jobs=1, pods=pods))

    def path(self, job: Job) -> list[Queue]:
        found, name = list[Queue](), str(job.queue)
        while name:
            found.append(self.queues[name])
            name = self.queues[name].parent or ""
        return found

    def place_for(self, job: Job) -> str | None:
        """A cluster where the least that the gang starts with has room now, in every limit; gangs of equal pods only."""
        if len(job.gang.pod_sets) != 1:
            return None
        one = job.gang.pod_sets[0]
        least = one.count if one.min_count is None else one.min_count
        path = self.path(job)
        if not self._is_allowed(job, path, amounts(one.resources, least), least):
            return None
        for cluster in self.clusters.values():
            is_open = all(not queue.clusters or cluster.name in queue.clusters for queue in path)
            if cluster.unreachable_since is not None or job.cluster not in (None, cluster.name) or not is_open:
                continue
            room = 0
            for node in cluster.nodes:
                is_mine = node.is_ready and not node.taints and one.node_labels.items() <= node.labels.items()
                free = {key: node.allocatable[key] - self.held[cluster.name, node.name][key] for key, _ in one.resources}
                room += max(min(free[key] // value for key, value in one.resources), 0) if is_mine else 0
            if room >= least:
                return cluster.name
        return None

    def _is_allowed(self, job: Job, path: list[Queue], charge: Amounts, pods: int) -> bool:
        for queue in path:
            used = self.use[queue.name] + charge + Counter(jobs=1, pods=pods)
            limits = dict(queue.max) | {k: v for k, v in (("jobs", queue.max_jobs), ("pods", queue.max_pods)) if v is not None}
            if any(used[key] > limit for key, limit in limits.items()):
                return False
        may_be_stopped = job.preemptible if job.preemptible is not None else job.kind.value not in SPARED
        if may_be_stopped and all(queue.can_borrow for queue in path):
            return True
        for key, value in charge.items():
            if any(queue.guaranteed[key] for queue in self.queues.values()):
                owner = next((queue for queue in path if queue.guaranteed[key]), None)
                if owner is None or self.use[owner.name][key] + value > owner.guaranteed[key]:
                    return False
        return True


@dataclass
class Oracle:
    barrier_s: float = 300.0
    idle_notebook_s: float = 60.0
    jobs: dict[str, Job] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    queued_since: dict[str, float] = field(default_factory=dict)
    last_at: float = 0.0
    free_since: dict[str, int] = field(default_factory=dict)
    preempted_by: list[tuple[str, str]] = field(default_factory=list)
    steps: int = 0
    active_at: dict[str, float] = field(default_factory=dict)
    """When a notebook's server last said that a cell runs; whoever applies that event notes it here."""
    lowered: dict[str, Amounts] = field(default_factory=dict)
    """Queues whose limits were set below what ran then, and what they have used at most since: it may only become less."""
    _queues: Mapping[str, Queue] = field(default_factory=dict)

    def look(
        self,
        at: float,
        jobs: Mapping[str, Job],
        attempts: Mapping[tuple[str, int], Attempt],
        queues: Mapping[str, Queue],
        clusters: Mapping[str, Cluster],
    ) -> None:
        """After every event: the rows as they are."""
        need(at >= self.last_at, "I24", f"time went back from {self.last_at} to {at}")
        self.last_at = at
        self.steps += 1
        for job_id in self.jobs:
            need(job_id in jobs, "I1", f"job {job_id} was accepted and is gone")
        live = [attempt for attempt in attempts.values() if attempt.phase.value in LIVE]
        for attempt in live:
            need(attempt.job_id in jobs, "I21", f"an attempt of {attempt.job_id}, which does not exist, holds room")
        self._edges(jobs, attempts)
        self._one_live(jobs, attempts, live)
        self._room(live, clusters)
        self._quota(jobs, live, queues)
        self._gangs(jobs, live)
        self.jobs, self.attempts = dict(jobs), dict(attempts)

    def _edges(self, jobs: Mapping[str, Job], attempts: Mapping[tuple[str, int], Attempt]) -> None:
        for job_id, job in jobs.items():
            before = self.jobs.get(job_id)
            if before is not None:
                need(job.phase.value in JOB_EDGES[before.phase.value], "I10", f"{job_id} went from {before.phase} to {job.phase}")
                need(job.attempts >= before.attempts, "I10", f"{job_id}: attempt numbers went back")
                need(not (before.cancel_requested and job.attempts > before.attempts), "I23", f"{job_id} started after its cancel")
            need(job.failures <= job.retries, "I10", f"{job_id} used {job.failures} of {job.retries} retries")
        for key, attempt in attempts.items():
            old = self.attempts.get(key)
            if old is not None and old.phase.value in ATTEMPT_END:
                need(attempt == old, "I10", f"attempt {key} changed after its end")
            if old is not None:
                was = {pod.name: pod.uid for pod in old.pods}
                for pod in attempt.pods:
                    need(was.get(pod.name) in (None, pod.uid), "I13", f"pod {pod.name} changed its identity")

    @staticmethod
    def _one_live(jobs: Mapping[str, Job], attempts: Mapping[tuple[str, int], Attempt], live: list[Attempt]) -> None:
        count = Counter(attempt.job_id for attempt in live)
        for job_id, job in jobs.items():
            need(
                count[job_id] == (1 if job.phase.value == "Active" else 0),
                "I2",
                f"{job_id} is {job.phase} with {count[job_id]} live",
            )
        names = [pod.name for attempt in attempts.values() for pod in attempt.pods]
        need(len(names) == len(set(names)), "I2", "two pods have one name")

    @staticmethod
    def _room(live: list[Attempt], clusters: Mapping[str, Cluster]) -> None:
        used: dict[tuple[str, str], Amounts] = defaultdict(Counter)
        for attempt in live:
            for pod in attempt.pods:
                used[pod.cluster, pod.node].update(amounts(pod.resources))
        for cluster in clusters.values():
            for node in cluster.nodes:
                for key, value in used[cluster.name, node.name].items():
                    need(value <= node.allocatable[key], "I3", f"{node.name} holds {value} {key} of {node.allocatable[key]}")

    def _quota(self, jobs: Mapping[str, Job], live: list[Attempt], queues: Mapping[str, Queue]) -> None:
        use: dict[str, Amounts] = defaultdict(Counter)
        running: Counter[str] = Counter()
        pods: Counter[str] = Counter()
        for attempt in live:
            charge = Counter(dict(attempt.charge))
            need(charge == asked(jobs[attempt.job_id], attempt), "I5", f"{attempt.job_id} is charged {dict(charge)}")
            name: str | None = jobs[attempt.job_id].queue
            while name is not None:
                use[name].update(charge)
                running[name] += 1
                pods[name] += len(attempt.pods)
                name = queues[name].parent
        is_new = queues != self._queues
        self._queues = dict(queues)
        for name, queue in queues.items():
            used = Counter({**use[name], "jobs": running[name], "pods": pods[name]})
            limits = dict(queue.max) | {k: v for k, v in (("jobs", queue.max_jobs), ("pods", queue.max_pods)) if v is not None}
            over = {key for key, limit in limits.items() if used[key] > limit}
            before = self.lowered.get(name, Counter())
            for key in over:
                is_lowered = is_new or (key in before and used[key] <= before[key])
                need(is_lowered, "I4", f"queue {name} uses {used[key]} {key} of {limits[key]}")
            self.lowered.pop(name, None)
            if over:
                self.lowered[name] = Counter({key: used[key] for key in over})

    @staticmethod
    def _gangs(jobs: Mapping[str, Job], live: list[Attempt]) -> None:
        for attempt in live:
            counts = Counter(pod.role for pod in attempt.pods)
            for one in jobs[attempt.job_id].gang.pod_sets:
                least = one.count if one.min_count is None else one.min_count
                need(
                    least <= counts[one.role] <= one.count,
                    "I6",
                    f"{attempt.job_id} has {counts[one.role]} {one.role} of {one.count}",
                )
            if attempt.phase.value == "Running" and all(one.min_count is None for one in jobs[attempt.job_id].gang.pod_sets):
                late = [pod.name for pod in attempt.pods if pod.phase.value in ("Pending", "Ready")]
                need(not late, "I6", f"{attempt.job_id} runs before {late}")

    def judge(
        self,
        at: float,
        decided: Iterable[ev.Event],
        waits: Iterable[Wait],
        queues: Mapping[str, Queue],
        clusters: Mapping[str, Cluster],
    ) -> None:
        """Before a decision is applied: rows as in the last `look`."""
        decided, waits = list(decided), list(waits)
        admitted = {e.job_id for e in decided if isinstance(e, ev.GangAdmitted)}
        told = {wait.job_id for wait in waits}
        waiting = {job_id for job_id, job in self.jobs.items() if job.phase.value == "Queued"}
        need(admitted | told == waiting and not admitted & told, "B02", f"without a reason: {waiting - admitted - told}")
        need(all(wait.sentence for wait in waits), "B02", "an empty sentence")
        for event in decided:
            if isinstance(event, ev.GangAdmitted):
                need(not self.jobs[event.job_id].cancel_requested, "I23", f"{event.job_id} is cancelled and starts")
                need(clusters[event.cluster].unreachable_since is None, "S13", f"{event.job_id} starts on a lost cluster")
                need(self.jobs[event.job_id].not_before <= at, "I19", f"{event.job_id} starts before its back-off ends")
                done = [self.jobs[j].phase.value == "Succeeded" for j in self.jobs[event.job_id].after if j in self.jobs]
                need(all(done), "I14", f"{event.job_id} starts before those it comes after")
            if isinstance(event, ev.GangPreempted):
                self._preemption(at, event, queues, [one for one in decided if isinstance(one, ev.GangAdmitted)])
        self._barrier(at, clusters)
        self._idle(at, decided, waits, queues, clusters)

    def _preemption(self, at: float, event: ev.GangPreempted, queues: Mapping[str, Queue], admitted: list[ev.GangAdmitted]) -> None:
        victim, by = self.jobs[event.job_id], self.jobs[event.by]
        attempt = self.attempts[event.job_id, event.attempt]
        need(attempt.phase.value in LIVE - {"Stopping"}, "I16", f"{victim.id} is told to stop and does not run")
        need(by.phase.value == "Queued", "I16", f"{victim.id} is stopped for {by.id}, which does not wait")
        may_be = victim.preemptible if victim.preemptible is not None else victim.kind.value not in SPARED
        need(may_be, "I16", f"{victim.id} may not be stopped")
        if victim.kind.value == "notebook" and not queues[victim.queue].stops_busy_notebooks:
            silent_s = at - self.active_at.get(victim.id, -self.idle_notebook_s)
            need(silent_s >= self.idle_notebook_s, "I16", f"{victim.id} has a running cell, told {silent_s} s ago")
        if victim.queue == by.queue:
            need(victim.priority < by.priority and not attempt.is_class_exempt, "I16", f"{victim.id} is not lower than {by.id}")
            return
        mine, its = parted(queues, by.queue, victim.queue)
        beside = [name for name, queue in queues.items() if queue.parent == queues[mine].parent]
        parent = queues[mine].parent
        asks = Counter[str]()
        for pod_set in by.gang.pod_sets:
            asks.update(amounts(pod_set.resources, pod_set.count if pod_set.min_count is None else pod_set.min_count))
        lent = {key for key in asks if any(promised(queues, name)[key] for name in beside)}
        spare = {
            key: promised(queues, parent)[key] - sum(promised(queues, name)[key] for name in beside) if parent else 0
            for key in lent
        }
        own = {key for key in lent if promised(queues, mine)[key] or spare[key]}
        need(bool(own), "I16", f"{by.id} claims a share of a queue that is guaranteed none")
        used = {name: self._used(name, queues) for name in (mine, its)}
        for key in own:
            limit = promised(queues, mine)[key] + spare[key]
            need(used[mine][key] + asks[key] <= limit, "I16", f"{by.id} stops others above its queue's share of {key}")
        for one in admitted:
            if its in ancestors(queues, self.jobs[one.job_id].queue):
                sizes = {pod_set.role: pod_set.resources for pod_set in self.jobs[one.job_id].gang.pod_sets}
                for place in one.placements:
                    used[its].update(amounts(sizes.get(place.role, ())))
        above = [key for key in own if used[its][key] > promised(queues, its)[key] and attempt.charge[key]]
        need(bool(above), "I16", f"{victim.id} is stopped and its queue is within its share")
        level = attempt.standing[len(ancestors(queues, mine)) - 1]
        need(level == 0, "I16", f"{victim.id} was within its queue's share")

    def _used(self, branch: str, queues: Mapping[str, Queue]) -> Amounts:
        """By a queue and those below it, without what is stopping."""
        use: Amounts = Counter()
        for one in self.attempts.values():
            if one.phase.value in LIVE - {"Stopping"} and branch in ancestors(queues, self.jobs[one.job_id].queue):
                use.update(Counter(dict(one.charge)))
        return use

    def _barrier(self, at: float, clusters: Mapping[str, Cluster]) -> None:
        """I7: a gang has all its members within the deadline or is told to end, and so has every member that joins it later.

        Time in which the cluster does not answer is not counted: the deadline begins anew when it answers again.
        """
        for attempt in self.attempts.values():
            cluster = clusters.get(attempt.cluster)
            if cluster is not None and cluster.unreachable_since is not None:
                continue
            back_at = 0.0 if cluster is None else cluster.reachable_since or 0.0
            is_server = self.jobs[attempt.job_id].kind.value == "notebook"
            if attempt.phase.value == "Launching" and not is_server:
                took = at - max(attempt.admitted_at, back_at)
                need(took < self.barrier_s, "I7", f"{attempt.job_id} starts for {took} s")
            for pod in attempt.pods if attempt.phase.value == "Running" else ():
                is_late = pod.joined_at is not None and pod.phase.value in ("Pending", "Ready") and not pod.is_given_back
                took = at - max(pod.joined_at or 0.0, back_at)
                need(not is_late or took < self.barrier_s, "I7", f"{pod.name} joins for too long")

    def _idle(
        self,
        at: float,
        decided: Iterable[ev.Event],
        waits: Iterable[Wait],
        queues: Mapping[str, Queue],
        clusters: Mapping[str, Cluster],
    ) -> None:
        """I19: who waits alone, or is told that room lacks, would not fit on the nodes or in the limits as they are."""
        world = _Books.of(self.jobs, [a for a in self.attempts.values() if a.phase.value in LIVE], queues, clusters)
        started = {event.job_id: event for event in decided if isinstance(event, ev.GangAdmitted)}
        for event in started.values():
            world.start(self.jobs[event.job_id], event)
        ready = {j.id for j in self.jobs.values() if j.phase.value == "Queued" and j.not_before <= at and not self._follows(j)}
        for wait in waits:
            job = self.jobs[wait.job_id]
            is_alone = len(ready) == 1 and not started
            # The reason of a gang that could start smaller is about its full size.
            is_rigid = all(one.min_count is None for one in job.gang.pod_sets)
            # Quota that is kept for another gang is told as quota that is used.
            is_told = is_rigid and wait.why.value in ("no-room", "never-fits")
            if job.id not in ready or job.avoid_nodes or not (is_alone or is_told):
                continue
            where = world.place_for(job)
            need(where is None, "I19", f"{job.id} waits ({wait.why.value}: {wait.sentence}) while {where} has room")

    def _follows(self, job: Job) -> bool:
        return any(self.jobs[name].phase.value != "Succeeded" for name in job.after if name in self.jobs)

    def at_rest(self, feasible: Iterable[str]) -> None:
        """When nothing happens any more."""
        for job_id in feasible:
            need(self.jobs[job_id].phase.value in ("Succeeded", "Failed", "Cancelled"), "I18", f"{job_id} never came to an end")
        left = [attempt.job_id for attempt in self.attempts.values() if attempt.phase.value in LIVE]
        need(not left, "I21", f"attempts of {left} still hold room")
