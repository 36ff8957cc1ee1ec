"""A cluster that is late, lossy, stale, doubled and out of order. Its pods run the real machines of worker and master.

The cluster outlives the control plane: `SimCluster` is the world, `Door` is what one control plane sees of it until it dies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from tests.simulation.service.oracle import Oracle
from tuttilab.scheduler.clusters.base import DisplayChunk, LaunchPlan, LogChunk, Observation, PodPlan, PodState, Usage
from tuttilab.scheduler.domain.errors import Bug, ClusterUnreachable, LaunchRefused, NotFound, StaleEpoch
from tuttilab.scheduler.domain.model import Node, PodPhase
from tuttilab.sidecar import master_machine, protocol
from tuttilab.sidecar import worker_machine as m
from tuttilab.sidecar.master_machine import MasterMachine
from tuttilab.sidecar.protocol import Member
from tuttilab.sidecar.worker_machine import WorkerMachine

HEARTBEAT_S = 5.0
LOOK_S = 0.5
FORCE_S = 10.0
LEASE_S = 15.0


@dataclass
class Faults:
    """How unkind the world is now; all zero at rest."""

    refusal: float = 0.0
    """Of a launch, after some of its pods were made."""
    timeout: float = 0.0
    """Of a call, before or after it took effect."""
    loss: float = 0.0
    """Of a message, and of a change that watchers are told."""
    double: float = 0.0
    delay_s: float = 0.01
    is_down: bool = False


class Reports(Protocol):
    """Where pods report; the reply, or None when nobody answers."""

    async def __call__(self, plan: LaunchPlan, seq: int, members: Sequence[Member]) -> dict[str, Any] | None: ...


@dataclass(eq=False)
class SimPod:
    cluster: SimCluster
    plan: LaunchPlan
    pod: PodPlan
    uid: str
    shown: PodState
    is_alive: bool = True
    frozen_until: float = 0.0
    stubborn: bool = False
    has_code: bool = False
    machine: WorkerMachine | None = None
    master: MasterMachine | None = None
    told: protocol.Orders = field(default_factory=protocol.Orders)
    heard_at: float = 0.0
    seq: int = 0
    last: list[Member] = field(default_factory=list)
    timer: int = 0

    def begin(self) -> None:
        self.heard_at = self.cluster.now()
        if self.pod.is_master:
            ranks = {pod.name: pod.rank for pod in self.plan.pods if not pod.is_master}
            self.master = MasterMachine(ranks)
            self.show(PodPhase.RUNNING)
            self.later(LOOK_S, self.look_after_members)
        else:
            has_master = any(pod.is_master for pod in self.plan.pods)
            outputs = bool(self.plan.work.outputs)
            grace = self.plan.work.grace_s
            self.machine = WorkerMachine(
                Member(self.pod.name, self.pod.rank, self.uid), has_master=has_master, grace_s=grace, has_outputs=outputs
            )
            self.perform(self.machine.begin())
            if has_master:
                self.later(1.0, self.poll)
        self.later(HEARTBEAT_S, self.beat)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """In the pod: not while it is frozen, never after its death."""

        def happen() -> None:
            if not self.is_alive:
                return
            left = self.frozen_until - self.cluster.now()
            if left > 0:
                self.later(left, call)
            else:
                call()

        self.cluster.loop.call_later(seconds, happen)

    def show(self, phase: PodPhase, **more: Any) -> None:
        self.shown = replace(self.shown, phase=phase, **more)
        self.cluster.changed(self)

    def handle(self, event: Any) -> None:
        if self.machine is not None:
            self.perform(self.machine.handle(event))
        elif self.master is not None:
            self.perform(self.master.handle(event))

    def perform(self, instructions: Sequence[Any]) -> None:
        chance = self.cluster.chance
        for instruction in instructions:
            match instruction:
                case m.Report():
                    if self.machine is not None and self.machine.member.phase in ("Ready", "Running"):
                        self.cluster.ready.add(self.pod.name)
                        self.show(PodPhase(self.machine.member.phase), endpoints=dict(self.machine.member.endpoints))
                    self.report()
                case m.Prepare():
                    if self.pod.joins and chance.random() < 0.1:
                        continue  # it hangs: whoever waits for it has to give it up
                    is_bad = chance.random() < 0.02
                    event = m.NotPrepared(protocol.INPUT_MISSING, "the input is missing") if is_bad else m.Prepared()
                    self.after(0.05, 2.0, event)
                case m.StartMain():
                    self.later(chance.uniform(0.01, 0.1), self.start_main)
                case m.TerminateMain():
                    if not self.stubborn:
                        self.later(chance.uniform(0.01, 1.0), lambda: self.main_exits(143))
                case m.KillAll():
                    self.later(chance.uniform(0.01, 0.1), self.clear)
                case m.SetTimer(seconds):
                    self.timer += 1
                    self.later(seconds, partial(self.time_over, self.timer))
                case m.KeepOutputs():
                    self.later(chance.uniform(0.05, 1.0), self.keep)
                case m.Record(exit_code, reason):
                    self.record(exit_code, reason)
                case master_machine.Announce():
                    self.cluster.announce(self)
                case m.Exit():
                    self.later(0.2, self.end)

    def after(self, least: float, most: float, event: Any) -> None:
        self.later(self.cluster.chance.uniform(least, most), lambda: self.handle(event))

    def time_over(self, number: int) -> None:
        if number == self.timer:
            self.handle(m.TimerExpired())

    def start_main(self) -> None:
        if self.machine is None or self.has_code or self.machine._end is not None:
            return
        self.has_code = True
        self.cluster.oracle.user_code(self.plan.job_id, self.plan.attempt, self.pod.name, self.cluster.ready)
        self.stubborn = self.cluster.chance.random() < 0.1
        self.handle(m.MainStarted())
        _, seconds, code = self.plan.work.command
        self.later(float(seconds) * self.cluster.chance.uniform(0.5, 1.0), lambda: self.main_exits(int(code)))

    def main_exits(self, exit_code: int) -> None:
        if self.has_code:
            self.has_code = False
            self.cluster.oracle.main_exited(self.pod.name, exit_code)
            self.handle(m.MainExited(exit_code))

    def clear(self) -> None:
        if self.has_code:
            self.main_exits(137)
        self.handle(m.AllProcessesEnded())

    def keep(self) -> None:
        if self.machine is None or self.machine.member.phase == protocol.ENDED:
            return  # its time was over before it was done
        outputs = {"out": f"sha-{self.pod.name}"}
        self.cluster.oracle.flushed(self.pod.name, outputs)
        self.handle(m.OutputsKept(outputs))

    def record(self, exit_code: int, reason: str) -> None:
        outputs: dict[str, str] = {}
        if self.machine is not None:
            outputs = dict(self.machine.member.outputs)
            self.cluster.oracle.exited(self.pod.name, exit_code)
        self.show(PodPhase.ENDED, exit_code=exit_code, reason=reason, outputs=outputs)

    def end(self) -> None:
        """The process is gone. Without a record of its end the cluster says, after a while, that it is lost."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.cluster.oracle.died(self.plan.job_id, self.plan.attempt, self.pod.name)
        if self.shown.phase is not PodPhase.ENDED:
            self.cluster.loop.call_later(self.cluster.chance.uniform(0.1, 2.0), self.settle_lost)

    def settle_lost(self) -> None:
        if self.shown.phase is not PodPhase.ENDED:
            self.show(PodPhase.ENDED, exit_code=None, reason="Lost")

    # --- messages --------------------------------------------------------------------------------------------------

    def report(self) -> None:
        members = self.master.state() if self.master is not None else [self.machine.member] if self.machine is not None else []
        self.last = members
        self.send(members)

    def beat(self) -> None:
        if self.last:
            self.send(self.last)
        self.later(HEARTBEAT_S, self.beat)

    def send(self, members: Sequence[Member]) -> None:
        self.seq += 1
        master = self.cluster.master_of(self.plan)
        for _ in range(self.cluster.copies()):
            if self.master is None and master is not None:
                event = master_machine.MemberReported(members[0], self.seq)
                self.cluster.loop.call_later(self.cluster.delay(), self.to_master, master, event)
            else:
                self.cluster.loop.call_later(self.cluster.delay(), self.to_control_plane, self.seq, tuple(members))

    def to_master(self, master: SimPod, event: master_machine.MemberReported) -> None:
        if master.is_alive and master.frozen_until <= self.cluster.now():
            master.handle(event)
            self.heard(master)

    def to_control_plane(self, seq: int, members: Sequence[Member]) -> None:
        async def tell() -> None:
            reply = await self.cluster.reports(self.plan, seq, members)
            if reply is not None and self.cluster.copies():
                stop = protocol.read_stop(reply)
                if stop is not None:
                    self.later(0.0, lambda: self.handle(m.StopRequested(*stop)))

        self.cluster.spawn(tell())

    def heard(self, master: SimPod) -> None:
        """The master's orders reach its member."""
        if not self.is_alive:
            return
        orders = master.master.orders if master.master is not None else self.told
        known, self.told, self.heard_at = self.told, max(self.told, orders, key=lambda each: each.version), self.cluster.now()
        if self.told.is_open and not known.is_open:
            self.later(0.0, lambda: self.handle(m.BarrierOpened()))
        if self.told.stop is not None and self.told.stop != known.stop:
            stop = self.told.stop
            self.later(0.0, lambda: self.handle(m.StopRequested(*stop)))

    def poll(self) -> None:
        """The lease: a member that is cut off from its master stops itself."""
        master = self.cluster.master_of(self.plan)
        if master is None or not master.is_alive:
            self.handle(m.MasterLost("the gang's master is gone"))
        elif master.frozen_until <= self.cluster.now() and self.cluster.copies():
            self.heard(master)
        elif self.cluster.now() - self.heard_at > LEASE_S:
            self.handle(m.MasterLost(f"no word for {LEASE_S:g} s"))
        self.later(1.0, self.poll)

    def look_after_members(self) -> None:
        for pod in self.cluster.members_of(self.plan):
            if not pod.is_alive:
                gone = pod.shown
                if gone.phase is PodPhase.ENDED:
                    self.handle(master_machine.SidecarEnded(pod.pod.name, gone.exit_code, gone.reason, gone.outputs))
                else:
                    self.handle(master_machine.SidecarEnded(pod.pod.name))
        self.later(LOOK_S, self.look_after_members)


class SimCluster:
    def __init__(self, nodes: tuple[Node, ...], chance: random.Random, oracle: Oracle, reports: Reports) -> None:
        self.nodes = nodes
        self.chance = chance
        self.oracle = oracle
        self.reports = reports
        self.faults = Faults()
        self.loop = asyncio.get_running_loop()
        self.pods: dict[tuple[str, int], dict[str, SimPod]] = {}
        self.doors: list[Door] = []
        self.launching: Counter[tuple[str, int]] = Counter()
        """Calls under way, by attempt."""
        self.ready: set[str] = set()
        """Pods that have waited at the barrier, or passed it."""
        self._digests: dict[tuple[str, int], str] = {}
        self._pod_digests: dict[str, str] = {}
        self._fenced_pods: set[str] = set()
        self._refused: dict[tuple[str, int], str] = {}
        self._fenced: set[tuple[str, int]] = set()
        self._forgotten: set[tuple[str, int]] = set()
        self.erased: set[tuple[str, int]] = set()
        """Attempts whose logs and files are gone."""
        self.epoch = 0
        """The newest that led; calls under an earlier one are refused."""
        self._uids = 0
        self._tasks: dict[asyncio.Task[None], None] = {}

    def now(self) -> float:
        return self.loop.time()

    def spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def delay(self) -> float:
        return self.chance.expovariate(1.0 / self.faults.delay_s)

    def copies(self) -> int:
        """How often a message arrives."""
        if self.chance.random() < self.faults.loss:
            return 0
        return 2 if self.chance.random() < self.faults.double else 1

    def members_of(self, plan: LaunchPlan) -> list[SimPod]:
        return [pod for pod in self.pods.get((plan.job_id, plan.attempt), {}).values() if not pod.pod.is_master]

    def master_of(self, plan: LaunchPlan) -> SimPod | None:
        return next((pod for pod in self.pods.get((plan.job_id, plan.attempt), {}).values() if pod.pod.is_master), None)

    def announce(self, master: SimPod) -> None:
        for pod in self.members_of(master.plan):
            for _ in range(min(self.copies(), 1)):
                self.loop.call_later(self.delay(), pod.heard, master)

    def listed(self) -> list[PodState]:
        return [pod.shown for key, pods in self.pods.items() if key not in self._forgotten for pod in pods.values()]

    def alive(self) -> list[SimPod]:
        return [pod for pods in self.pods.values() for pod in pods.values() if pod.is_alive]

    def changed(self, pod: SimPod) -> None:
        if (pod.plan.job_id, pod.plan.attempt) not in self._forgotten:
            for door in self.doors:
                for _ in range(self.copies()):
                    self.loop.call_later(self.delay(), door.tell, pod.shown)

    # --- effects ---------------------------------------------------------------------------------------------------

    def make(self, plan: LaunchPlan, pod: PodPlan, began: float) -> None:
        key = (plan.job_id, plan.attempt)
        made = self.pods.setdefault(key, {})
        is_fenced = key in self._fenced or pod.name in self._fenced_pods
        if pod.was_made or pod.name in made or key in self._forgotten or is_fenced:
            return
        if self._pod_digests.setdefault(pod.name, pod.digest) != pod.digest:
            raise Bug(f"pod {pod.name} was launched with another digest.")
        self._uids += 1
        uid = f"uid-{self._uids}"
        self.oracle.created(plan.job_id, plan.attempt, pod.name, uid, began)
        made[pod.name] = SimPod(self, plan, pod, uid, PodState(plan.job_id, plan.attempt, pod.name, uid, PodPhase.PENDING))
        made[pod.name].begin()
        self.changed(made[pod.name])

    def reserve(self, plan: LaunchPlan) -> None:
        key = (plan.job_id, plan.attempt)
        if self._digests.setdefault(key, plan.digest) != plan.digest:
            raise Bug(f"attempt {plan.attempt} of job {plan.job_id} was launched with another digest.")
        if key in self._refused:
            raise LaunchRefused(self._refused[key])

    def refuse(self, plan: LaunchPlan) -> None:
        """What was made is ended and erased; the refusal stays. What joins a gang leaves that alone."""
        key = (plan.job_id, plan.attempt)
        if plan.is_growth:
            raise LaunchRefused(f"node {plan.pods[-1].node} has no room for {plan.pods[-1].name}", node=plan.pods[-1].node)
        self._refused[key] = f"node {plan.pods[-1].node} has no room for {plan.pods[-1].name}"
        for pod in self.pods.pop(key, {}).values():
            pod.end()
        raise LaunchRefused(self._refused[key])

    def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None) -> None:
        """Tells living pods, ends them by force after the grace, and makes sure that no other is made."""
        key = (job_id, attempt)
        if pods is None:
            self._fenced.add(key)
        else:
            self._fenced_pods.update(pods)
        for name, pod in self.pods.get(key, {}).items():
            if pods is not None and name not in pods:
                continue
            pod.later(self.chance.uniform(0.0, 0.2), partial(pod.handle, m.StopRequested(grace_s, "")))
            self.loop.call_later(grace_s + FORCE_S, pod.end)

    def forget(self, job_id: str, attempt: int, *, erase: bool) -> None:
        if erase:
            self.erased.add((job_id, attempt))
        self.oracle.forgotten(job_id, attempt)
        for pod in self.pods.get((job_id, attempt), {}).values():
            pod.end()
        self._forgotten.add((job_id, attempt))


class Door:
    """`Cluster` for one control plane. After `shut` nothing of it has any effect; while ``goes_on`` is not set it stands still."""

    def __init__(self, name: str, world: SimCluster, goes_on: asyncio.Event, leads: Callable[[], int]) -> None:
        """``leads``: with which epoch this control plane does, whatever it says."""
        self.name = name
        self._world = world
        self._goes_on = goes_on
        self._leads = leads
        self._epoch = 0
        self._is_shut = False
        self._news: list[PodState] = []
        self._woken = asyncio.Event()
        world.doors.append(self)

    def shut(self) -> None:
        self._is_shut = True
        self._world.doors.remove(self)

    def tell(self, state: PodState) -> None:
        self._news.append(state)
        self._woken.set()

    async def _call(self) -> bool:
        """The way there. Answers whether the call takes effect although nobody will hear so."""
        world = self._world
        await asyncio.sleep(world.delay())
        await self._only_if_open()
        if world.faults.is_down:
            raise ClusterUnreachable("the cluster does not answer.")
        if world.chance.random() < world.faults.timeout:
            if world.chance.random() < 0.5:
                raise ClusterUnreachable("the call took too long.")
            return True
        return False

    async def _only_if_open(self) -> None:
        await self._goes_on.wait()
        if self._is_shut:
            await asyncio.get_running_loop().create_future()

    async def lead(self, epoch: int) -> None:
        self._epoch = epoch
        await self._call()
        self._act()

    def _act(self) -> None:
        """Before each effect, and at once with it."""
        if self._world.epoch > self._epoch:
            self._world.oracle.counts["stale calls refused"] += 1
            raise StaleEpoch(f"epoch {self._epoch} was given, and {self._world.epoch} leads.")
        self._world.epoch = self._epoch
        self._world.oracle.acted(self._leads())

    async def observe(self) -> AsyncGenerator[Observation]:
        await self._call()
        self._act()
        self._world.oracle.looked(self._leads())
        seen = self._world.listed()
        self._news.clear()
        await asyncio.sleep(self._world.delay())  # stale by now
        yield Observation(tuple(seen), self._world.nodes, is_complete=True)
        while True:
            await self._woken.wait()
            await self._only_if_open()
            self._woken.clear()
            if self._world.faults.is_down or self._world.chance.random() < self._world.faults.timeout / 4:
                raise ClusterUnreachable("the stream of changes broke.")
            news, self._news = self._news, []
            self._world.chance.shuffle(news)
            # No bigger than what changed, but it may be old: what was listed before is told again.
            if self._world.faults.double and seen and self._world.chance.random() < self._world.faults.double:
                news.append(self._world.chance.choice(seen))
            if self._world.chance.random() < self._world.faults.double / 2:
                news.extend(self._stranger())
            yield Observation(tuple(news))

    def _stranger(self) -> list[PodState]:
        """A pod of somebody else, or of long ago, by the name of one that is known already, and ended well."""
        known = [
            pod for a in self._world.oracle.attempts.values() for pod in a.pods if pod.uid is not None and a.phase == "Running"
        ]
        keys = {name: key for key, pods in self._world.pods.items() for name in pods}
        named = [pod for pod in known if pod.name in keys]
        if not named:
            return []
        pod = self._world.chance.choice(named)
        return [PodState(*keys[pod.name], pod.name, "stranger", PodPhase.ENDED, 0, "Completed")]

    async def launch(self, plan: LaunchPlan) -> None:
        key = (plan.job_id, plan.attempt)
        self._world.launching[key] += 1
        try:
            await self._launch(plan)
        finally:
            self._world.launching[key] -= 1

    async def _launch(self, plan: LaunchPlan) -> None:
        began = self._world.now()
        is_unheard = await self._call()
        self._act()
        self._world.reserve(plan)
        key_pods = list(plan.pods)
        refuses_at = self._world.chance.randrange(len(key_pods)) if self._world.chance.random() < self._world.faults.refusal else -1
        made = self._world.pods.get((plan.job_id, plan.attempt), {})
        if any(pod.name in made for pod in key_pods if not plan.is_growth or (pod.joins and not pod.was_made)):
            refuses_at = -1
        if plan.is_growth and refuses_at >= 0 and (not key_pods[refuses_at].joins or key_pods[refuses_at].was_made):
            refuses_at = -1
        for number, pod in enumerate(key_pods):
            self._act()
            if number == refuses_at:
                self._world.refuse(plan)
            self._world.make(plan, pod, began)
            await asyncio.sleep(self._world.delay())
            await self._only_if_open()
        if is_unheard:
            raise ClusterUnreachable("the call took too long.")

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        is_unheard = await self._call()
        self._act()
        self._world.stop(job_id, attempt, grace_s, pods)
        await self._come_back(is_unheard)

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        is_unheard = await self._call()
        self._act()
        self._world.forget(job_id, attempt, erase=erase)
        await self._come_back(is_unheard)

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: no log is kept here.")

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: nothing is known of what it used.")

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        return DisplayChunk((), start)

    async def _come_back(self, is_unheard: bool) -> None:
        await asyncio.sleep(self._world.delay())
        await self._only_if_open()
        if is_unheard:
            raise ClusterUnreachable("the call took too long.")
