"""The core under random histories: submits, cycles, pods that come, fail and vanish, cancels, restarts. Checked after every step.

The checks keep their own books: they are written from the list of invariants, not from the code.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.builders import cluster, node, queue, request
from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.lifecycle import due_timers
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.errors import Refused
from tuttilab.scheduler.model import AttemptPhase, JobPhase, PodPhase
from tuttilab.scheduler.requests import PodRequest, Who
from tuttilab.scheduler.resources import GPU, Resources, total

NODES = (node("a", cpus=4, gpus=2), node("b", cpus=4, gpus=2), node("c", cpus=8))
QUEUES = (
    queue("root", max={"cpu": 14, GPU: 4}),
    queue("x", parent="root", max={GPU: 3}, guaranteed={GPU: 1}),
    queue("y", parent="root", weight=2, max_pods=4),
)
shapes = st.builds(
    PodRequest,
    role=st.just("worker"),
    count=st.integers(1, 3),
    cpus=st.sampled_from([1, 2, 4]),
    gpus=st.integers(0, 2),
)


class Core(RuleBasedStateMachine):
    """Drives a `State` as the service would, and a second one from the journal alone."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(epoch=1)
        self.journal: list[tuple[ev.Event, float]] = []
        self.now = 0.0
        self.accepted: set[str] = set()
        self.user_code: set[tuple[str, int, str]] = set()
        self.phases: dict[str, JobPhase] = {}
        self.apply(ev.QueuesConfigured(QUEUES))
        self.apply(ev.ClusterObserved(cluster(*NODES)))

    def apply(self, event: ev.Event) -> None:
        self.state.handle(event, self.now)
        self.journal.append((event, self.now))

    def some_live(self, data: Any) -> Any:
        return data.draw(st.sampled_from([attempt for _, attempt in self.state.live()]))

    @rule(shape=shapes, name=st.sampled_from(["x", "y"]), retries=st.integers(0, 2), limit=st.sampled_from([None, "1m", "1h"]))
    def submit(self, shape: PodRequest, name: str, retries: int, limit: str | None) -> None:
        site = Site(self.state.queues, self.state.clusters)
        number = len(self.accepted)
        asked = request(pods=(shape,), queue=name, retries=retries, timeout=limit)
        try:
            job = build(asked, Who("ann"), site, job_id=f"job{number}", order=number, now=self.now)
        except Refused:
            return
        self.accepted.add(job.id)
        self.apply(ev.JobSubmitted(job))

    @rule()
    def cycle(self) -> None:
        snapshot = self.state.snapshot()
        decision = schedule(snapshot, self.now)
        assert decision == schedule(snapshot, self.now)
        waiting = {job.id for job in snapshot.waiting}
        assert {a.job_id for a in decision.admitted} | {w.job_id for w in decision.waits} == waiting
        for admitted in decision.admitted:
            self.apply(admitted)
            assert self.state.jobs[admitted.job_id].phase is JobPhase.ACTIVE, "a fresh decision is never dropped"
        assert all(wait.sentence for wait in decision.waits)

    @rule(seconds=st.floats(0.1, 4000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for event in due_timers(self.state.live(), self.now, 300.0)[0]:
            self.apply(event)

    @precondition(lambda self: self.state.live())
    @rule(data=st.data())
    def all_pods_ready_and_started(self, data: Any) -> None:
        attempt = self.some_live(data)
        for pod in attempt.pods:
            self.apply(ev.PodSeen(attempt.job_id, attempt.number, pod.name, f"uid-{pod.name}"))
            self.apply(ev.PodReady(attempt.job_id, attempt.number, pod.name))
        for pod in attempt.pods:
            self.apply(ev.PodStarted(attempt.job_id, attempt.number, pod.name))

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
    @rule(data=st.data(), permanent=st.booleans())
    def launch_fails(self, data: Any, permanent: bool) -> None:
        attempt = self.some_live(data)
        self.apply(ev.LaunchFailed(attempt.job_id, attempt.number, "refused", permanent, attempt.pods[0].node))

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.apply(ev.JobCancelRequested(data.draw(st.sampled_from(sorted(self.accepted))), "ann"))

    @rule(is_lost=st.booleans())
    def cluster_comes_and_goes(self, is_lost: bool) -> None:
        self.apply(ev.ClusterLost("here") if is_lost else ev.ClusterBack("here"))

    @precondition(lambda self: self.journal)
    @rule(data=st.data())
    def an_old_event_comes_again(self, data: Any) -> None:
        event, _ = data.draw(st.sampled_from(self.journal))
        rows = (dict(self.state.jobs), dict(self.state.attempts))
        if isinstance(event, (ev.ClusterLost, ev.ClusterBack, ev.QueuesConfigured, ev.ClusterObserved)):
            return
        if isinstance(event, ev.GangAdmitted | ev.JobSubmitted):
            assert self.state.handle(event, self.now) == []
            assert (dict(self.state.jobs), dict(self.state.attempts)) == rows

    @rule()
    def restart(self) -> None:
        """Everything in memory is lost; the rows and the clusters' nodes are not."""
        before = self.state
        self.state = State.load(before.jobs.values(), before.attempts.values(), before.queues.values(), before.epoch)
        self.state.clusters = before.clusters
        assert self.state.charges() == before.charges()

    @invariant()
    def invariants_hold(self) -> None:
        self.state.check_invariants()

    @invariant()
    def I1_I10_accepted_jobs_stay_and_ends_are_final(self) -> None:
        assert set(self.state.jobs) == self.accepted
        for job in self.state.jobs.values():
            before = self.phases.get(job.id)
            assert before is None or not before.is_terminal or before is job.phase
            self.phases[job.id] = job.phase

    @invariant()
    def I3_I4_no_node_and_no_queue_is_over_its_limit(self) -> None:
        held = [(pod.node, pod.resources) for _, attempt in self.state.live() for pod in attempt.pods]
        for one in NODES:
            used = total(amount for name, amount in held if name == one.name)
            assert used.fits(one.allocatable), (one.name, used)
        by_queue = [(self.state.jobs[a.job_id].queue, a) for _, a in self.state.live()]
        assert total(a.charge for name, a in by_queue if name == "x")[GPU] <= 3
        assert total(a.charge for _, a in by_queue).within(Resources.parse({"cpu": 14, GPU: 4}))
        assert sum(len(a.pods) for name, a in by_queue if name == "y") <= 4

    @invariant()
    def I6_a_running_attempt_has_every_member_started(self) -> None:
        for _, attempt in self.state.live():
            if attempt.phase is AttemptPhase.RUNNING:
                assert all(pod.phase in (PodPhase.RUNNING, PodPhase.ENDED) for pod in attempt.members)

    @invariant()
    def I12_the_journal_gives_the_same_rows(self) -> None:
        if len(self.journal) % 7 == 0:
            replayed = State(epoch=1)
            for event, at in self.journal:
                replayed.handle(event, at)
            assert (replayed.jobs, replayed.attempts) == (self.state.jobs, self.state.attempts)


TestCore = Core.TestCase
TestCore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
