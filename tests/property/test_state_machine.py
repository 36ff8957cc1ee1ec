"""The core under random histories: submits, cycles whose every decision is applied, pods that come, fail and vanish, cancels,
queues that are configured anew, nodes that go and come back, restarts. Checked after every step.

The checks keep their own books: they are written from the list of invariants, not from the code.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.builders import cluster, node, queue, request
from tests.simulation.oracle import Oracle
from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.rows.lifecycle import due_timers
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import UserError
from tuttilab.scheduler.domain.model import AttemptPhase, Gang, JobKind, PodPhase, Queue
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest, Who
from tuttilab.scheduler.domain.resources import GPU

pytestmark = pytest.mark.feature("S03")

CLUSTERS = {
    "here": cluster(node("a", cpus=4, gpus=2), node("b", cpus=4, gpus=2), node("c", cpus=8)),
    "there": cluster(node("d", cpus=4, gpus=1), node("e", cpus=8), name="there"),
}
TREES: Final[tuple[tuple[Queue, ...], ...]] = (
    (
        queue("root", max={"cpu": 14, GPU: 4}),
        queue("x", parent="root", max={GPU: 3}, guaranteed={GPU: 1}),
        queue("y", parent="root", weight=2, max_pods=4),
    ),
    (
        queue("root"),
        queue("x", parent="root", guaranteed={"cpu": 4, GPU: 2}),
        queue("y", parent="root", guaranteed={"cpu": 8}, priority=1),
    ),
    (
        queue("root", max={"cpu": 8, GPU: 2}),
        queue("x", parent="root", max_jobs=1, can_borrow=False, guaranteed={"cpu": 2}),
        queue("y", parent="root", max_pods=2, stops_busy_notebooks=True),
    ),
    (queue("root"), queue("x", parent="root", clusters=("there",), weight=3), queue("y", parent="root", can_reclaim=False)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A submit. ``kind`` with what it says of being stopped for others; other kinds than batch are one pod."""

    kind: tuple[JobKind, bool | None]
    count: int
    least: int | None
    cpus: int
    gpus: int
    queue: str
    priority: int
    cluster: str | None
    retries: int
    timeout: str | None

    def request(self) -> JobRequest:
        is_batch = self.kind[0] is JobKind.BATCH
        least = self.least if is_batch else None
        count = max(self.count, least or 1) if is_batch else 1
        pods = (PodRequest(role="worker", count=count, min_count=least, cpus=self.cpus, gpus=self.gpus),)
        return request(
            pods=pods,
            queue=self.queue,
            priority=self.priority,
            cluster=self.cluster,
            retries=self.retries,
            timeout=self.timeout,
            sidecar=False,
        )


asked = st.builds(
    Asked,
    kind=st.sampled_from([(JobKind.BATCH, None), (JobKind.BATCH, None), (JobKind.NOTEBOOK, True), (JobKind.SERVICE, None)]),
    count=st.integers(1, 4),
    least=st.sampled_from([None, None, 1, 2]),
    cpus=st.sampled_from([1, 2, 4]),
    gpus=st.integers(0, 2),
    queue=st.sampled_from(["x", "y"]),
    priority=st.sampled_from([0, 0, 0, 3, 7]),
    cluster=st.sampled_from([None, None, "here", "there"]),
    retries=st.integers(0, 2),
    timeout=st.sampled_from([None, "1m", "1h"]),
)
REST_CYCLES: Final = 60
"""Many more than a few gangs need until nothing is left to decide."""


class Core(RuleBasedStateMachine):
    """Drives a `State` as the service would, and a second one from the journal alone."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(epoch=1)
        self.oracle = Oracle()
        self.journal: list[tuple[ev.Event, float]] = []
        self.now = 0.0
        self.accepted: set[str] = set()
        self.gone: dict[str, frozenset[str]] = {}
        """Nodes that a cluster does not show now."""
        self.apply(ev.QueuesConfigured(TREES[0]))
        for one in CLUSTERS.values():
            self.apply(ev.ClusterObserved(one))

    def apply(self, event: ev.Event) -> bool:
        told = self.state.handle(event, self.now)
        self.journal.append((event, self.now))
        if isinstance(event, ev.NotebookActive):
            self.oracle.active_at[event.job_id] = self.now
        state = self.state
        self.oracle.look(self.now, state.jobs, state.attempts, state.queues, state.clusters)
        return bool(told)

    def some_live(self, data: Any) -> Any:
        return data.draw(st.sampled_from([attempt for _, attempt in self.state.live()]))

    @rule(wanted=st.lists(asked, min_size=1, max_size=4))
    def submit(self, wanted: list[Asked]) -> None:
        for one in wanted:
            site = Site(self.state.queues, self.state.clusters)
            number = len(self.accepted)
            try:
                job = build(one.request(), Who("ann"), site, job_id=f"job{number}", order=number, now=self.now)
            except UserError:
                continue
            sets = tuple(replace(each, can_grow=each.min_count is not None) for each in job.gang.pod_sets)
            job = replace(job, kind=one.kind[0], preemptible=one.kind[1], gang=Gang(sets))
            self.accepted.add(job.id)
            self.apply(ev.JobSubmitted(job))

    @rule()
    def cycle(self) -> None:
        self._decide()

    def _decide(self) -> Decision:
        snapshot = self.state.snapshot()
        decision = schedule(snapshot, self.now)
        assert decision == schedule(snapshot, self.now)
        self.oracle.judge(self.now, decision.events, decision.waits, self.state.queues, self.state.clusters)
        for event in decision.events:
            assert self.apply(event), f"I12: a fresh decision is dropped: {event}"
        return decision

    @rule()
    def comes_to_rest(self) -> None:
        """I16: what is told to stop stops, what is admitted starts, and nothing else happens: soon nothing is left to decide."""
        stops: list[ev.GangPreempted] = []
        for _ in range(REST_CYCLES):
            decision = self._decide()
            stops += decision.preempted
            if not decision.events:
                break
            self._stopped_end()
            for _, attempt in self.state.live():
                if attempt.phase is AttemptPhase.LAUNCHING or any(pod.phase is PodPhase.PENDING for pod in attempt.pods):
                    self._start(attempt)
        else:
            raise AssertionError(f"I16: decisions go on for ever: {decision.events}")
        still = {wait.job_id: wait.sentence for wait in decision.waits}
        for stop in stops:
            assert stop.by not in still, f"I16: {stop.job_id} was stopped in vain for {stop.by}: {still[stop.by]}"

    def _stopped_end(self) -> None:
        for _, attempt in self.state.live():
            for pod in reversed(attempt.pods):
                if attempt.phase is AttemptPhase.STOPPING or pod.is_given_back:
                    self.apply(ev.PodEnded(attempt.job_id, attempt.number, pod.name, 143))

    def _start(self, attempt: Any) -> None:
        for pod in attempt.pods:
            self.apply(ev.PodSeen(attempt.job_id, attempt.number, pod.name, f"uid-{pod.name}"))
            self.apply(ev.PodReady(attempt.job_id, attempt.number, pod.name))
        for pod in attempt.pods:
            self.apply(ev.PodStarted(attempt.job_id, attempt.number, pod.name))

    @rule(seconds=st.one_of(st.floats(0.1, 4000), st.just(90_000.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for event in due_timers(self.state.live(), self.state.clusters, self.now, self.oracle.barrier_s)[0]:
            self.apply(event)

    @precondition(lambda self: self.state.live())
    @rule(data=st.data())
    def all_pods_ready_and_started(self, data: Any) -> None:
        self._start(self.some_live(data))

    @precondition(lambda self: self.state.live())
    @rule(data=st.data(), code=st.sampled_from([0, 0, 0, 1, 137, None]))
    def pod_ends(self, data: Any, code: int | None) -> None:
        attempt = self.some_live(data)
        pod = data.draw(st.sampled_from(attempt.pods))
        self.apply(ev.PodEnded(attempt.job_id, attempt.number, pod.name, code, "Error" if code else ""))

    @precondition(lambda self: self.state.live())
    @rule(data=st.data(), code=st.sampled_from([0, 1, None]))
    def gang_ends(self, data: Any, code: int | None) -> None:
        attempt = self.some_live(data)
        for pod in reversed(attempt.pods):
            self.apply(ev.PodEnded(attempt.job_id, attempt.number, pod.name, code))

    @precondition(lambda self: self.state.live())
    @rule()
    def what_is_told_to_stop_ends(self) -> None:
        self._stopped_end()

    @precondition(lambda self: self.state.live())
    @rule(data=st.data(), permanent=st.booleans())
    def launch_fails(self, data: Any, permanent: bool) -> None:
        attempt = self.some_live(data)
        self.apply(ev.LaunchFailed(attempt.job_id, attempt.number, "refused", permanent, attempt.pods[0].node))

    @precondition(lambda self: self.state.live())
    @rule(data=st.data())
    def a_cell_runs(self, data: Any) -> None:
        attempt = self.some_live(data)
        self.apply(ev.NotebookActive(attempt.job_id, attempt.number))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.apply(ev.JobCancelRequested(data.draw(st.sampled_from(sorted(self.accepted))), "ann"))

    @rule(
        name=st.sampled_from(sorted(CLUSTERS)), what=st.sampled_from(["lost", "back", "fewer nodes", "all nodes"]), data=st.data()
    )
    def cluster_or_nodes_come_and_go(self, name: str, what: str, data: Any) -> None:
        """Some nodes are not shown any more, one is not ready; what is shown again is as it was."""
        if what == "lost":
            self.apply(ev.ClusterLost(name))
            return
        self.apply(ev.ClusterBack(name))
        names = [one.name for one in CLUSTERS[name].nodes]
        gone = data.draw(st.sets(st.sampled_from(names))) if what == "fewer nodes" else frozenset[str]()
        cordoned = data.draw(st.sampled_from([None, *names])) if what == "fewer nodes" else None
        nodes = tuple(replace(one, is_ready=one.name != cordoned) for one in CLUSTERS[name].nodes if one.name not in gone)
        self.gone[name] = frozenset(gone)
        self.apply(ev.ClusterObserved(replace(CLUSTERS[name], nodes=nodes)))

    @precondition(lambda self: any(self.gone.values()))
    @rule()
    def pods_of_nodes_that_are_gone_are_missed(self) -> None:
        for _, attempt in self.state.live():
            for pod in attempt.pods:
                if pod.node in self.gone.get(pod.cluster, ()):
                    self.apply(ev.HeartbeatMissed(attempt.job_id, attempt.number, pod.name))

    @rule(tree=st.sampled_from(TREES))
    def queues_are_configured(self, tree: tuple[Queue, ...]) -> None:
        """Limits may fall below what runs, shares and clusters move; what runs goes on."""
        live = [(job.id, attempt.number) for job, attempt in self.state.live()]
        self.apply(ev.QueuesConfigured(tree))
        assert [(job.id, attempt.number) for job, attempt in self.state.live()] == live

    @precondition(lambda self: self.journal)
    @rule(data=st.data())
    def an_old_event_comes_again(self, data: Any) -> None:
        event, _ = data.draw(st.sampled_from(self.journal))
        rows = (dict(self.state.jobs), dict(self.state.attempts))
        if isinstance(event, ev.GangAdmitted | ev.JobSubmitted):
            assert self.state.handle(event, self.now) == []
            assert (dict(self.state.jobs), dict(self.state.attempts)) == rows

    @rule()
    def restart(self) -> None:
        """Everything in memory is lost; the rows and the clusters' nodes are not."""
        before = self.state
        self.state = State.load(
            before.jobs.values(),
            before.attempts.values(),
            before.queues.values(),
            before.epoch,
            accounts=before.accounts.rows.values(),
            history=before.history.rows.values(),
            at=self.now,
        )
        self.state.clusters = before.clusters
        assert self.state.charges() == before.charges()
        self.oracle.active_at = {job.id: self.now for job, _ in self.state.live() if job.kind is JobKind.NOTEBOOK}

    @invariant()
    def invariants_hold(self) -> None:
        self.state.check_invariants(self.oracle.lowered)

    @invariant()
    def I1_accepted_jobs_stay(self) -> None:
        assert set(self.state.jobs) == self.accepted

    @invariant()
    def I3_no_node_of_the_site_is_over_its_size(self) -> None:
        """Also while it is not shown: it comes back with what it holds."""
        used: dict[tuple[str, str], Counter[str]] = {}
        for _, attempt in self.state.live():
            for pod in attempt.pods:
                used.setdefault((pod.cluster, pod.node), Counter()).update(dict(pod.resources))
        for name, one in CLUSTERS.items():
            for each in one.nodes:
                for key, amount in used.get((name, each.name), Counter()).items():
                    assert amount <= each.allocatable[key], (each.name, key, amount)

    @invariant()
    def I6_a_running_attempt_has_every_member_started(self) -> None:
        for _, attempt in self.state.live():
            if attempt.phase is AttemptPhase.RUNNING:
                early = [pod for pod in attempt.members if pod.phase not in (PodPhase.RUNNING, PodPhase.ENDED)]
                assert all(pod.joined_at is not None for pod in early)

    @invariant()
    def I12_the_journal_gives_the_same_rows(self) -> None:
        if len(self.journal) % 7 == 0:
            replayed = State(epoch=1)
            for event, at in self.journal:
                replayed.handle(event, at)
            assert (replayed.jobs, replayed.attempts) == (self.state.jobs, self.state.attempts)
            assert replayed.accounts.rows == self.state.accounts.rows


TestCore = Core.TestCase
TestCore.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
