"""Seeded runs of the core on a virtual clock with an unkind world, judged after every step by the oracle."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tests.simulation.oracle import Oracle, Violation
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rows.lifecycle import due_timers
from tuttilab.scheduler.core.rules import Rules
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Cluster, Gang, Job, JobKind, Node, PodSet, Queue, Toleration, Work
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources

Journal = list[tuple[ev.Event, float]]


def a_site(chance: random.Random) -> tuple[list[Cluster], list[list[Queue]]]:
    """Clusters, and trees of queues, each with the leaves `a` and `b`, that the site may be configured with."""
    clusters = []
    for name in ("east", "west")[: chance.randint(1, 2)]:
        nodes = tuple(
            Node(
                f"{name}{i}",
                name,
                Resources.of({CPU: 8000, MEMORY: 2**36, GPU: chance.choice((0, 2, 4))}),
                {"rack": f"r{i % 2}", "gpu-model": chance.choice(("a", "b"))},
            )
            for i in range(chance.randint(2, 4))
        )
        clusters.append(Cluster(name, "fake", nodes))
    gpus = sum(node.allocatable[GPU] for cluster in clusters for node in cluster.nodes)
    half = Resources.of({GPU: gpus // 2})
    trees = [
        [Queue("a"), Queue("b", weight=2)],
        [
            Queue("a", guaranteed=half),
            Queue("b", guaranteed=Resources.of({GPU: gpus // 4}), max=Resources.of({GPU: max(gpus - 1, 1)})),
        ],
        [Queue("top", max=Resources.of({CPU: 20_000})), Queue("a", "top", max_pods=5), Queue("b", "top", priority=1, max_jobs=3)],
    ]
    chance.shuffle(trees)
    return clusters, trees


def a_job(chance: random.Random, number: int, at: float, clusters: Sequence[Cluster]) -> Job:
    pods = chance.choice((1, 1, 1, 2, 3))
    each = Resources.of({CPU: chance.choice((500, 1000, 4000)), MEMORY: 2**30, GPU: chance.choice((0, 0, 1, 2))})
    kind = chance.choice((JobKind.BATCH, JobKind.BATCH, JobKind.BATCH, JobKind.SERVICE))
    if pods == 1 and chance.random() < 0.15:
        kind = JobKind.NOTEBOOK
    can_grow = pods > 1 and chance.random() < 0.3
    labels = {"gpu-model": "a"} if chance.random() < 0.1 else {}
    tolerations = (Toleration("spot"),) if chance.random() < 0.2 else ()
    sets = (PodSet("worker", pods, each, 1 if can_grow else None, node_labels=labels, tolerations=tolerations, can_grow=can_grow),)
    return Job(
        id=f"j{number:03d}",
        name=f"n{number % 5}",
        owner=f"u{number % 3}",
        group=f"u{number % 3}",
        queue=chance.choice("ab"),
        kind=kind,
        preemptible=True if kind is JobKind.NOTEBOOK else None,
        gang=Gang(sets),
        work=Work(("true",), sidecar=False, grace_s=5.0),
        submitted_at=at,
        order=number,
        priority=chance.choice((0, 0, 0, 3)),
        timeout_s=chance.choice((None, 30.0, 300.0)),
        retries=chance.randint(0, 1),
        after=(f"j{number - 1:03d}",) if number > 1 and chance.random() < 0.08 else (),
        cluster=chance.choice([None, None, None, *(cluster.name for cluster in clusters)]),
    )


class World:
    """Applies events as a service would; keeps the journal; has the oracle look after each one."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clusters, self.trees = a_site(self.chance)
        self.queues = self.trees[0]
        self.state = State(epoch=1, rules=Rules())
        self.oracle = Oracle()
        self.journal: Journal = []
        self.now = 0.0
        self.submitted = 0
        self.apply(ev.QueuesConfigured(tuple(self.queues)))
        for cluster in self.clusters:
            self.apply(ev.ClusterObserved(cluster))

    def apply(self, event: ev.Event) -> None:
        self.state.handle(event, self.now)
        self.journal.append((event, self.now))
        if isinstance(event, ev.NotebookActive):
            self.oracle.active_at[event.job_id] = self.now
        state = self.state
        self.oracle.look(self.now, state.jobs, state.attempts, state.queues, state.clusters)

    def cycle(self) -> bool:
        snapshot = self.state.snapshot()
        decision = schedule(snapshot, self.now)
        self.oracle.judge(self.now, decision.events, decision.waits, self.state.queues, self.state.clusters)
        for event in decision.events:
            self.apply(event)
        for admitted in decision.admitted:
            if self.state.live_attempt(admitted.job_id) is None:
                raise Violation(f"I12: the fresh decision about {admitted.job_id} was dropped")
        return bool(decision.events)

    def step(self) -> None:
        chance, live = self.chance, self.state.live()
        self.now += chance.choice((0.0, 1.0, 5.0, 40.0))
        for due in due_timers(live, self.state.clusters, self.now, 300.0)[0]:
            self.apply(due)
        live = self.state.live()
        what = chance.random()
        if what < 0.35:
            self.submitted += 1
            self.apply(ev.JobSubmitted(a_job(chance, self.submitted, self.now, self.clusters)))
        elif what < 0.85 and live:
            job, attempt = chance.choice(live)
            if attempt.stopping_at is not None or chance.random() < 0.6:
                code = chance.choice((0, 0, 0, 1, None)) if attempt.stopping_at is None else 143
                for pod in reversed(attempt.pods):
                    self.apply(ev.PodEnded(job.id, attempt.number, pod.name, code, "Error" if code else ""))
            else:
                self.start(job.id)
        elif what < 0.88 and self.submitted:
            self.apply(ev.JobCancelRequested(f"j{chance.randint(1, self.submitted):03d}", "u"))
        elif what < 0.92:
            name = chance.choice(self.clusters).name
            self.apply(ev.ClusterLost(name) if chance.random() < 0.5 else ev.ClusterBack(name))
        elif what < 0.95 and self.journal:
            event, _ = chance.choice(self.journal)
            if not isinstance(
                event, ev.QueuesConfigured | ev.ClusterLost | ev.ClusterBack | ev.ClusterObserved | ev.NotebookActive
            ):
                before = (dict(self.state.jobs), dict(self.state.attempts))
                told = self.state.handle(event, self.now)
                late = isinstance(event, ev.JobSubmitted | ev.GangAdmitted)
                if late and (told or before != (self.state.jobs, self.state.attempts)):
                    raise Violation("I12: an event that came twice changed something")
                self.journal.append((event, self.now))
        elif what < 0.97:
            self.change_the_site()
        elif live:
            job, attempt = chance.choice(live)
            self.apply(ev.NotebookActive(job.id, attempt.number))
        self.cycle()
        self.state.check_invariants(self.oracle.lowered)

    def change_the_site(self) -> None:
        """Queues are configured anew, or a cluster shows other nodes than before; what runs goes on, or is missed."""
        chance = self.chance
        if chance.random() < 0.4:
            self.apply(ev.QueuesConfigured(tuple(chance.choice(self.trees))))
            return
        cluster = chance.choice(self.clusters)
        nodes = tuple(replace(node, is_ready=chance.random() < 0.9) for node in cluster.nodes if chance.random() < 0.7)
        self.apply(ev.ClusterObserved(replace(cluster, nodes=nodes)))
        shown = {node.name for node in nodes}
        for job, attempt in self.state.live() if chance.random() < 0.5 else ():
            for pod in attempt.pods:
                if pod.cluster == cluster.name and pod.node not in shown:
                    self.apply(ev.HeartbeatMissed(job.id, attempt.number, pod.name))

    def start(self, job_id: str) -> None:
        attempt = self.state.live_attempt(job_id)
        assert attempt is not None
        for pod in attempt.pods:
            self.apply(ev.PodSeen(job_id, attempt.number, pod.name, f"uid-{pod.name}"))
        for pod in attempt.pods:
            self.apply(ev.PodStarted(job_id, attempt.number, pod.name))

    def settle(self) -> None:
        """Faults stop; everything that can end does."""
        self.apply(ev.QueuesConfigured(tuple(self.queues)))
        for cluster in self.clusters:
            self.apply(ev.ClusterObserved(cluster))
            self.apply(ev.ClusterBack(cluster.name))
        for _ in range(400):
            self.now += 700.0
            for job, attempt in self.state.live():
                if attempt.phase.value == "Launching":
                    self.start(job.id)
                for pod in reversed(attempt.pods):
                    code = 0 if attempt.stopping_at is None else 143
                    self.apply(ev.PodEnded(job.id, attempt.number, pod.name, code))
            is_backing_off = any(job.not_before > self.now for job in self.state.queued())
            if not self.cycle() and not self.state.live() and not is_backing_off:
                break
        never = {job.id for job in self.state.queued() if self._never_starts(job)}
        self.oracle.at_rest(job_id for job_id in self.state.jobs if job_id not in never)

    def _never_starts(self, job: Job) -> bool:
        """Whether it asks for more than empty nodes, a max, or the share that unstoppable work is held to can ever give."""
        one = job.gang.pod_sets[0]
        least = one.count if one.min_count is None else one.min_count
        room = 0
        for cluster in self.clusters:
            fits = [n for n in cluster.nodes if job.cluster in (None, cluster.name) and one.node_labels.items() <= n.labels.items()]
            room = max(room, sum(min(n.allocatable[key] // value for key, value in one.resources) for n in fits))
        path = [queue for queue in self.queues if queue.name in (job.queue, "top")]
        whole = one.resources * least
        is_held = job.kind is JobKind.SERVICE and any(q.guaranteed for q in self.queues)
        share = next(q.guaranteed for q in self.queues if q.name == job.queue)
        above = any(not whole.within(q.max) or (q.max_pods is not None and least > q.max_pods) for q in path)
        follows = any(self.state.jobs[j].phase.value == "Queued" for j in job.after if j in self.state.jobs)
        return room < least or above or follows or (is_held and whole[GPU] > share[GPU])


def trace_hash(journal: Journal) -> str:
    """Of everything that happened, in order."""
    digest = hashlib.sha256()
    for event, at in journal:
        digest.update(f"{at:.6f} {event!r}\n".encode())
    return digest.hexdigest()


STEPS: Final = 120


def run(seed: int, steps: int = STEPS) -> World:
    world = World(seed)
    try:
        for _ in range(steps):
            world.step()
        world.settle()
    except Exception as error:
        raise Violation(f"seed {seed} at {world.now:.0f} s, event {len(world.journal)}: {type(error).__name__}: {error}") from error
    return world


def replay(journal: Journal) -> State:
    state = State(epoch=1, rules=Rules())
    for event, at in journal:
        state.handle(event, at)
    return state
