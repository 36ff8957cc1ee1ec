"""An independent judge: reads the rows after every step and the decisions, and says which promise was broken.

Written from the list of invariants (docs and scheduling.md), not from the code: it keeps its own books in plain dictionaries and
uses nothing of `core` but the rows that it judges. Violation names the invariant.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.model import Attempt, Cluster, Job, Queue, Wait

Amounts = Counter[str]
JOB_EDGES = {
    "Queued": {"Queued", "Active", "Failed", "Cancelled"},
    "Active": {"Active", "Queued", "Succeeded", "Failed", "Cancelled"},
    "Succeeded": {"Succeeded"},
    "Failed": {"Failed"},
    "Cancelled": {"Cancelled"},
}
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
class Oracle:
    grace_s: float = 6.0
    jobs: dict[str, Job] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    queued_since: dict[str, float] = field(default_factory=dict)
    last_at: float = 0.0
    free_since: dict[str, int] = field(default_factory=dict)
    preempted_by: list[tuple[str, str]] = field(default_factory=list)
    steps: int = 0

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

    @staticmethod
    def _quota(jobs: Mapping[str, Job], live: list[Attempt], queues: Mapping[str, Queue]) -> None:
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
        for name, queue in queues.items():
            for key, limit in queue.max:
                need(use[name][key] <= limit, "I4", f"queue {name} uses {use[name][key]} {key} of {limit}")
            need(queue.max_jobs is None or running[name] <= queue.max_jobs, "I4", f"queue {name} runs {running[name]} jobs")
            need(queue.max_pods is None or pods[name] <= queue.max_pods, "I4", f"queue {name} runs {pods[name]} pods")

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
        decided = list(decided)
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
                self._preemption(event, queues, [one for one in decided if isinstance(one, ev.GangAdmitted)])
        self._idle(admitted, queues, clusters, at)

    def _preemption(self, event: ev.GangPreempted, queues: Mapping[str, Queue], admitted: list[ev.GangAdmitted]) -> None:
        victim, by = self.jobs[event.job_id], self.jobs[event.by]
        attempt = self.attempts[event.job_id, event.attempt]
        need(attempt.phase.value in LIVE - {"Stopping"}, "I16", f"{victim.id} is told to stop and does not run")
        need(by.phase.value == "Queued", "I16", f"{victim.id} is stopped for {by.id}, which does not wait")
        need(
            victim.preemptible is not False and victim.kind.value not in ("notebook", "service"),
            "I16",
            f"{victim.id} may not be stopped",
        )
        if victim.queue == by.queue:
            need(victim.priority < by.priority and not attempt.is_lifted, "I16", f"{victim.id} is not lower than {by.id}")
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
        need(level < (2 if own == lent else 1), "I16", f"{victim.id} was within its queue's share")

    def _used(self, branch: str, queues: Mapping[str, Queue]) -> Amounts:
        """By a queue and those below it, without what is stopping."""
        use: Amounts = Counter()
        for one in self.attempts.values():
            if one.phase.value in LIVE - {"Stopping"} and branch in ancestors(queues, self.jobs[one.job_id].queue):
                use.update(Counter(dict(one.charge)))
        return use

    def _idle(self, admitted: set[str], queues: Mapping[str, Queue], clusters: Mapping[str, Cluster], at: float) -> None:
        """I19: with nobody else waiting, a gang of one pod that fits a free node and every limit starts at once."""
        ready = [j for j in self.jobs.values() if j.phase.value == "Queued" and j.not_before <= at and not j.after]
        if len(ready) != 1 or ready[0].id in admitted or ready[0].gang.size != 1 or ready[0].avoid_nodes:
            return
        job = ready[0]
        one = job.gang.pod_sets[0]
        if any(
            queue.guaranteed or queue.max or queue.max_jobs is not None or queue.max_pods is not None for queue in queues.values()
        ):
            return
        used: dict[tuple[str, str], Amounts] = defaultdict(Counter)
        for attempt in self.attempts.values():
            if attempt.phase.value in LIVE:
                for pod in attempt.pods:
                    used[pod.cluster, pod.node].update(amounts(pod.resources))
        for cluster in clusters.values():
            if cluster.unreachable_since is not None or job.cluster not in (None, cluster.name) or one.node_labels:
                continue
            for node in cluster.nodes:
                free = {key: value - used[cluster.name, node.name][key] for key, value in node.allocatable}
                fits = node.is_ready and not node.taints and all(free.get(key, 0) >= value for key, value in one.resources)
                need(not fits, "I19", f"{job.id} waits alone while {node.name} has room")

    def at_rest(self, feasible: Iterable[str]) -> None:
        """When nothing happens any more."""
        for job_id in feasible:
            need(self.jobs[job_id].phase.value in ("Succeeded", "Failed", "Cancelled"), "I18", f"{job_id} never came to an end")
        left = [attempt.job_id for attempt in self.attempts.values() if attempt.phase.value in LIVE]
        need(not left, "I21", f"attempts of {left} still hold room")
