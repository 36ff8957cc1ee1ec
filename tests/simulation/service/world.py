"""One run: the real `Service` in an unkind world, clients that ask it, and the oracle that watches both. Everything by one seed.

What can happen at a step: a client submits, sends the same submit again, cancels, deletes, runs a graph and retries it; what is
old is let go of; a pod is killed, freezes or vanishes; the cluster refuses, is late or away; the store fails before or after the
effect; the control plane is killed, at a step or in the middle of a commit, and starts again from the rows, or stands still
wherever it is, and goes on when another one leads. At the end everything is kind, and the oracle looks at what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.builders import ADMIN, node, queue, request
from tests.simulation.service import virtual
from tests.simulation.service.cluster import Door, Faults, SimCluster, SimPod
from tests.simulation.service.oracle import Oracle, Violation, must
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig, Limits
from tuttilab.scheduler.domain.errors import CommitUnknown, StoreError, TuttiError
from tuttilab.scheduler.domain.events import Event
from tuttilab.scheduler.domain.model import Job, Run, When
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, OutputRequest, PodRequest, RunRequest
from tuttilab.scheduler.domain.resources import GPU
from tuttilab.scheduler.domain.wire import MemberReport, PodReport
from tuttilab.scheduler.service.clock import World
from tuttilab.scheduler.service.launch_plans import Secrets
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import Batch
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.scheduler.store.verify import Replay
from tuttilab.scheduler.usecases import pod_reports
from tuttilab.scheduler.usecases.dags import Dags
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.sidecar.protocol import Member

T = TypeVar("T")
NODES = (node("a", cpus=4, gpus=2), node("b", cpus=4, gpus=2))
QUEUES = (
    queue("root", max={"cpu": 7}),
    queue("x", parent="root", guaranteed={"cpu": 3}, max={GPU: 3}),
    queue("y", parent="root", guaranteed={"cpu": 3}, max={"cpu": 4}),
)
EPOCH_S = 1_700_000_000.0
REST_LIMIT_S = 4 * 3600.0


class Store(MemoryStore):
    """Fails at any commit: before the effect, after it, or with an answer that leaves both open. Shared by all control planes."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__()
        self._sim = sim
        self.batches: list[Batch] = []
        self.replayed = Replay()

    async def open(self) -> int:
        epoch = await super().open()
        self._sim.oracle.opened(epoch)
        return epoch

    async def commit(self, batch: Batch) -> int:
        seq = await super().commit(batch)
        self.batches.append(batch)
        for entry in batch.entries:
            self.replayed.take(entry.event, entry.at)
        must(self.replayed.accounts == self._accounts, "I12: the journal gives other accounts of overtaking than the rows")
        keys = {f"{row.owner}/{row.key}": row.made_id for row in self._keys.values()}
        self._sim.oracle.committed(batch, keys)
        return seq

    def rows(self) -> dict[str, Job]:
        return dict(self._jobs)

    def run_rows(self) -> dict[str, Run]:
        return dict(self._runs)

    def lines(self) -> list[tuple[float, Event]]:
        return [(change.at, event) for change, event in self._lines]


class StoreDoor:
    """`Store` for one control plane; nothing of it has any effect after the control plane's death."""

    def __init__(self, sim: Simulation, store: Store, goes_on: asyncio.Event) -> None:
        self._sim = sim
        self._store = store
        self._goes_on = goes_on
        self.epoch = 0
        self.is_shut = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*given: Any) -> Any:
            await self._way()
            if self._sim.chance.random() < self._sim.read_failure:
                raise StoreError("the disk does not answer.")
            return await method(*given)

        return call

    async def _way(self) -> None:
        await asyncio.sleep(self._sim.chance.expovariate(1000.0))
        await self._goes_on.wait()
        if self.is_shut:
            await asyncio.get_running_loop().create_future()

    async def open(self) -> int:
        await self._way()
        self.epoch = await self._store.open()
        return self.epoch

    async def close(self) -> None:
        return

    async def commit(self, batch: Batch) -> int:
        await self._way()
        sim = self._sim
        dice = sim.chance.random()
        if dice < sim.commit_failure:
            sim.count("commits refused")
            raise StoreError("the disk is full.")
        if dice < 2 * sim.commit_failure:
            sim.count("commits unknown, not made")
            raise CommitUnknown("the connection broke.")
        if dice < 2 * sim.commit_failure + sim.commit_crash:
            sim.count("crashes before a commit")
            sim.crash()
            await self._way()
        seq = await self._store.commit(batch)
        if dice > 1 - sim.commit_crash:
            sim.count("crashes after a commit")
            sim.crash()
        await self._way()
        if 1 - sim.commit_crash >= dice > 1 - sim.commit_crash - sim.commit_failure:
            sim.count("commits unknown, made")
            raise CommitUnknown("the connection broke.")
        return seq


@dataclass(eq=False)
class Life:
    """One control plane from its start to its death."""

    service: Service
    store: StoreDoor
    door: Door
    goes_on: asyncio.Event
    is_ready: bool = False
    tasks: dict[asyncio.Task[Any], None] = field(default_factory=dict)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        return task

    def end(self) -> None:
        self.store.is_shut = True
        self.door.shut()
        doomed = [*self.tasks, *self.service._tasks, *self.service.performer._workers.values()]
        for task in doomed:
            task.cancel()


class Simulation:
    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.oracle = Oracle(NODES, QUEUES, asyncio.get_running_loop().time)
        self.store = Store(self)
        self.cluster = SimCluster(NODES, self.chance, self.oracle, self.reported)
        self.life: Life | None = None
        self._halted: dict[Life, None] = {}
        self.commit_failure = self.commit_crash = self.read_failure = 0.0
        self.asked: list[tuple[str, JobRequest]] = []
        self.acknowledged: list[str] = []
        self.broken: list[BaseException] = []
        Violation.seen.clear()
        self._folder = folder
        self._numbers = 0
        self._wall_jump = 0.0
        self._ids = 0
        config = default_config(folder)
        limits = Limits(barrier_s=60.0, lost_after_s=20.0)
        clusters = (ClusterConfig("here", "fake", NODES),)
        self._config = replace(
            config, clusters=clusters, queues=QUEUES, defaults=replace(config.defaults, queue="x"), limits=limits
        )
        asyncio.get_running_loop().set_exception_handler(self._broke)

    def _broke(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.broken.append(context.get("exception") or RuntimeError(context["message"]))

    def raise_broken(self) -> None:
        for error in (*Violation.seen, *self.broken):
            raise error

    def count(self, what: str) -> None:
        self.oracle.counts[what] += 1

    # --- the control plane -----------------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[[], T], /) -> T:
        """A thread takes its time, and the world goes on meanwhile."""
        answer = call()
        await asyncio.sleep(self.chance.expovariate(100.0))
        return answer

    def _new_id(self) -> str:
        self._ids += 1
        return f"job{self._ids:04d}"

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        # The wall clock is set to something else between two lives; service time must not mind.
        jump = self._wall_jump
        world = World(
            wall=lambda: EPOCH_S + loop.time() + jump, monotonic=loop.time, new_id=self._new_id, in_thread=self._in_thread
        )
        goes_on = asyncio.Event()
        goes_on.set()
        store = StoreDoor(self, self.store, goes_on)
        door = Door("here", self.cluster, goes_on, lambda: store.epoch)
        service = Service(
            self._config, store, {"here": door}, state_dir=self._folder, world=world, may_act=lambda: not service.deposed.is_set()
        )
        life = self.life = Life(service, store, door, goes_on)

        async def begin() -> None:
            try:
                await service.start()
            except TuttiError:
                self.crash(life)
                return
            life.is_ready = True

        life.spawn(begin())

    def halt(self) -> None:
        """The leader stands still for a while, wherever it is. Another one takes over meanwhile, and then the first goes on."""
        life = self.life
        if life is None:
            return
        self.count("leaders halted")
        life.goes_on.clear()
        self._halted[life] = None
        self._let_another_lead()

        async def go_on() -> None:
            await asyncio.sleep(self.chance.uniform(0.5, 60.0))
            life.goes_on.set()
            # So long it may take until it has heard that another one leads; then its process ends.
            await asyncio.sleep(self.chance.uniform(0.0, 3.0))
            self._halted.pop(life, None)
            life.end()

        self.cluster.spawn(go_on())

    def crash(self, life: Life | None = None) -> None:
        """Of the leader, or of this one."""
        life = life or self.life
        if life is None or life is not self.life:
            return
        self.count("crashes")
        life.end()
        self._let_another_lead()

    def _let_another_lead(self) -> None:
        self.life = None
        self._wall_jump = self.chance.choice([0.0, 0.0, -7200.0, -30.0, 5.0])
        asyncio.get_running_loop().call_later(self.chance.uniform(0.1, 10.0), self.start)

    async def reported(self, plan: LaunchPlan, seq: int, members: Sequence[Member]) -> dict[str, Any] | None:
        life = self.life
        if life is None:
            return None
        told = tuple(MemberReport(**one._asdict()) for one in members)
        report = PodReport(plan.job_id, plan.attempt, plan.epoch, seq, told)
        sender = next((pod for pod in plan.pods if pod.is_master), plan.pods[0])
        answer = await self._try(life, lambda: pod_reports.handle_report(life.service, report, sender.token))
        if answer is not None and answer["stop"] is not None:
            row = self.oracle.attempts[plan.job_id, plan.attempt]
            must(row.stopping_at is not None, f"I1: {plan.job_id} was told to stop, and its row does not say so")
        return answer

    async def _try(self, life: Life, call: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None when it was an error or the control plane died over it."""
        task: asyncio.Task[T] = life.spawn(call())
        await asyncio.wait([task])
        if task.cancelled():
            return None
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, TuttiError):
            raise error
        return None

    # --- what happens ----------------------------------------------------------------------------------------------

    async def step(self) -> None:
        kinds: list[tuple[float, Callable[[], Any]]] = [
            (20, self.submit),
            (6, self.submit_again),
            (6, self.cancel),
            (6, self.delete),
            (1, self.purge),
            (3, self.submit_run),
            (2, self.retry_run),
            (1, self.cancel_run),
            (3, self.kill_pod),
            (3, self.freeze_pod),
            (2, self.lose_pod),
            (2, self.crash),
            (2, self.halt),
            (4, self.change_weather),
            (30, lambda: None),
        ]
        do = self.chance.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]
        do()
        await asyncio.sleep(self.chance.expovariate(1.0))
        self.raise_broken()
        # In the middle of a commit memory is ahead of the rows, and may yet be taken back; it is never inconsistent.
        if self.life is not None and self.life.is_ready:
            self.life.service.state.check_invariants()
            await self._check_shown(self.life)

    async def _check_shown(self, life: Life) -> None:
        """Whoever asks is shown what is committed."""

        async def look() -> None:
            await life.service.wait_until_committed()
            rows = self.store.rows()
            for job in life.service.state.jobs.values():
                must(rows.get(job.id) == job, f"I1: {job.id} is shown as {job.phase}, its row is {rows.get(job.id)}")

        await self._try(life, look)

    def submit(self) -> None:
        chance = self.chance
        workers = chance.choice([1, 1, 2, 3, 4])
        cpus, gpus = chance.choice([1, 2]), chance.choice([0, 0, 1])
        least = chance.choice([1, 1, 2]) if workers > 1 and chance.random() < 0.6 else None
        pods = (PodRequest(role="worker", count=workers, min_count=least, cpus=cpus, gpus=gpus, memory="1Gi"),)
        # One that can grow runs for longer, so that it does.
        seconds = chance.choice([0.5, 2, 10, 40] if least is None else [10, 40, 120])
        command = ("run", f"{seconds}", str(chance.choice([0, 0, 0, 0, 3])))
        after = tuple(chance.sample(self.acknowledged, 1)) if self.acknowledged and chance.random() < 0.2 else ()
        asked = request(
            pods=pods,
            command=command,
            queue=chance.choice(["x", "y"]),
            retries=chance.choice([0, 0, 2]),
            timeout=chance.choice(["30s", "100h"]),
            grace="5s",
            after=after,
            outputs=(OutputRequest(name="out", path="out"),) if chance.random() < 0.3 else (),
        )
        self._numbers += 1
        self.asked.append((f"key{self._numbers}", asked))
        self.send(*self.asked[-1])

    def submit_again(self) -> None:
        if self.asked:
            self.send(*self.chance.choice(self.asked[-5:]))

    def send(self, key: str, asked: JobRequest) -> None:
        life = self.life
        if life is None or not life.is_ready:
            return

        async def go() -> None:
            job = await self._try(life, lambda: Jobs(life.service).submit(asked, ADMIN, key))
            if job is not None:
                self.oracle.submitted(key, job.id)
                if job.id not in self.acknowledged:
                    self.acknowledged.append(job.id)

        self.cluster.spawn(go())

    def cancel(self) -> None:
        life = self.life
        if life is None or not self.acknowledged:
            return
        job_id = self.chance.choice(self.acknowledged[-self.chance.choice([1, 1, 8]) :])

        async def go() -> None:
            if await self._try(life, lambda: Jobs(life.service).cancel(job_id, ADMIN)) is not None:
                self.oracle.cancelled(job_id)

        self.cluster.spawn(go())

    def delete(self) -> None:
        life = self.life
        if life is not None and self.acknowledged:
            job_id = self.chance.choice(self.acknowledged)
            self.cluster.spawn(self._try(life, lambda: Jobs(life.service).delete(job_id, ADMIN)))

    def purge(self) -> None:
        """What has ended some time ago is let go of, as the configuration says."""
        life = self.life
        if life is None or not life.is_ready:
            return
        limits = replace(self._config.limits, keep_jobs_s=self.chance.choice([10.0, 100.0]))

        async def go() -> None:
            life.service.config = replace(self._config, limits=limits)
            went = await self._try(life, life.service.retention.purge)
            life.service.config = self._config
            if went is not None:
                self.oracle.counts["old jobs let go of"] += went[0]

        self.cluster.spawn(go())

    def submit_run(self) -> None:
        """A graph of up to four jobs, some of which fail."""
        chance = self.chance
        nodes: list[NodeRequest] = []
        for number in range(chance.choice([2, 3, 4])):
            after = tuple(node.name for node in nodes if chance.random() < 0.6)
            job = request(
                command=("run", f"{chance.choice([0.5, 2, 10])}", str(chance.choice([0, 0, 0, 3]))),
                queue=chance.choice(["x", "y"]),
                retries=chance.choice([0, 1]),
                grace="5s",
            )
            when = When.ALL_DONE if chance.random() < 0.3 else When.ALL_SUCCEEDED
            nodes.append(NodeRequest(name=f"n{number}", after=after, when=when, ignore_fail=chance.random() < 0.2, job=job))
        asked = RunRequest(dag=DagRequest(name="graph", nodes=tuple(nodes)))
        self._ask_of_graphs(lambda graphs: graphs.run(asked, ADMIN))

    def retry_run(self) -> None:
        if self.oracle.accepted_runs:
            run_id = self.chance.choice(list(self.oracle.accepted_runs))
            self._ask_of_graphs(lambda graphs: graphs.retry(run_id, ADMIN))

    def cancel_run(self) -> None:
        if self.oracle.accepted_runs:
            run_id = self.chance.choice(list(self.oracle.accepted_runs))
            self._ask_of_graphs(lambda graphs: graphs.cancel(run_id, ADMIN))

    def _ask_of_graphs(self, call: Callable[[Dags], Awaitable[Run]]) -> None:
        life = self.life
        if life is None or not life.is_ready:
            return

        async def go() -> None:
            run = await self._try(life, lambda: call(Dags(life.service)))
            if run is not None:
                self.oracle.accepted_run(run.id)

        self.cluster.spawn(go())

    def _some_pod(self) -> SimPod | None:
        alive = self.cluster.alive()
        return self.chance.choice(alive) if alive else None

    def kill_pod(self) -> None:
        pod = self._some_pod()
        if pod is not None:
            self.count("pods killed")
            pod.end()

    def freeze_pod(self) -> None:
        pod = self._some_pod()
        if pod is not None:
            self.count("pods frozen")
            pod.frozen_until = self.cluster.now() + self.chance.choice([3.0, 30.0])

    def lose_pod(self) -> None:
        """Gone, with its record, once it is known; best before it has run.

        Not while a launch of its attempt is on its way, which nobody could tell that the pod was there.
        """
        known = {pod.uid for attempt in self.oracle.attempts.values() for pod in attempt.pods}
        alive = [pod for pod in self.cluster.alive() if pod.uid in known]
        seen = [pod for pod in alive if not self.cluster.launching[pod.plan.job_id, pod.plan.attempt]]
        early = [pod for pod in seen if pod.shown.phase != "Running"]
        pod = self.chance.choice(early or seen) if seen else None
        if pod is not None:
            self.count("pods that vanished")
            pod.end()
            self.cluster.pods[pod.plan.job_id, pod.plan.attempt].pop(pod.pod.name)

    def change_weather(self) -> None:
        chance = self.chance
        is_fine = chance.random() < 0.3
        self.cluster.faults = (
            Faults(delay_s=0.01)
            if is_fine
            else Faults(
                refusal=chance.choice([0.0, 0.2]),
                timeout=chance.choice([0.0, 0.2]),
                loss=chance.choice([0.0, 0.1, 0.5]),
                double=chance.choice([0.0, 0.3]),
                delay_s=chance.choice([0.01, 0.3, 2.0]),
                is_down=chance.random() < 0.1,
            )
        )
        self.commit_failure = 0.0 if is_fine else chance.choice([0.0, 0.02, 0.1])
        self.commit_crash = 0.0 if is_fine else chance.choice([0.0, 0.02])
        self.read_failure = 0.0 if is_fine else chance.choice([0.0, 0.0, 0.2])

    # --- the whole run ---------------------------------------------------------------------------------------------

    async def run(self, steps: int) -> str:
        """Answers a digest of everything that was committed: the same seed gives the same."""
        self.start()
        await asyncio.sleep(1.0)
        for _ in range(steps):
            await self.step()
        await self.rest()
        trace = hashlib.sha256()
        for batch in self.store.batches:
            trace.update(repr(batch).encode())
        return trace.hexdigest()

    async def rest(self) -> None:
        """Faults stop: every job ends, nothing is left, nothing is written any more, and the journal gives the rows."""
        self.cluster.faults = Faults()
        self.commit_failure = self.commit_crash = self.read_failure = 0.0
        until = self.cluster.now() + REST_LIMIT_S
        while any(not job.phase.is_terminal for job in self.oracle.jobs.values()) and self.cluster.now() < until:
            await asyncio.sleep(30.0)
            self.raise_broken()
        await asyncio.sleep(120.0)
        before = len(self.store.batches)
        await asyncio.sleep(120.0)
        self.raise_broken()
        listed = [pod.name for pod in self.cluster.listed()]
        alive = [pod.pod.name for pod in self.cluster.alive()]
        self.oracle.at_rest(listed, alive, self.store.rows(), len(self.store.batches) - before, self.cluster.erased)
        replayed = self.store.replayed
        must(replayed.jobs == self.store.rows(), "I12: the journal gives other jobs than the rows")
        must(replayed.runs == self.store.run_rows() == self.oracle.runs, "I12: the journal gives other runs than the rows")
        kept = {key: attempt for key, attempt in self.oracle.attempts.items() if key[0] in self.oracle.jobs}
        must(replayed.attempts == kept, "I12: the journal gives other attempts than the rows")
        if self.life is not None:
            self.life.end()
            self.life = None
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Outcome:
    seed: int
    digest: str
    counts: dict[str, int]
    violation: str = ""


def simulate(seed: int, steps: int, folder: Path) -> Outcome:
    """A run by its seed; a violation is in the outcome, with the seed that shows it again."""
    sim: list[Simulation] = []

    async def main() -> str:
        sim.append(Simulation(seed, folder))
        return await sim[0].run(steps)

    Secrets.in_folder(folder)
    try:
        digest = virtual.run(main())
    except (Violation, Exception) as error:
        counts = dict(sim[0].oracle.counts) if sim else {}
        return Outcome(seed, "", counts, f"seed {seed}, {steps} steps: {type(error).__name__}: {error}")
    finally:
        with contextlib.suppress(IndexError):
            sim[0].life = None
    return Outcome(seed, digest, dict(sim[0].oracle.counts))
