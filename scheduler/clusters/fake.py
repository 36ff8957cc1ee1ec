"""A cluster in memory: its pods run the steps of their command, in real time or on a clock that a test moves.

A command is a sequence of steps: ``print TEXT``, ``sleep SECONDS``, ``offer NAME ADDRESS``, ``use CORES BYTES`` (for a second, as
`usage` tells it), ``stubborn`` (from here on only a kill ends it), ``exit CODE``. After the last step, or when the first word is no
step, the pod exits 0. ``FAKE_READY_S`` in the environment of the job or of a pod is the time until the pod is ready; ``FAKE_STEPS``
of a pod replaces the steps of the command.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.clusters.base import DisplayChunk, LaunchPlan, LogChunk, Observation, PodPlan, PodState, Usage
from tuttilab.scheduler.domain.errors import Bug, ClusterUnreachable, LaunchRefused, NotFound, StaleEpoch
from tuttilab.scheduler.domain.model import Node, PodPhase
from tuttilab.scheduler.domain.titles import pod_title, title_of

READY_S: Final = "FAKE_READY_S"
STEPS: Final = "FAKE_STEPS"
ARGUMENTS: Final = {"print": 1, "sleep": 1, "offer": 2, "use": 2, "stubborn": 0, "exit": 1}
_NEVER: Final = float("inf")

_Attempt = tuple[str, int]


@dataclass(slots=True, eq=False)
class _FakePod:
    state: PodState
    is_master: bool
    steps: deque[tuple[str, ...]]
    due: float
    """Time of its next step."""
    kill_at: float = _NEVER
    joins: bool = False
    """It does not wait at the barrier."""
    is_stubborn: bool = False
    used: list[tuple[float, float, int]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.state.phase is PodPhase.ENDED

    def move(self, phase: PodPhase) -> None:
        self.state = replace(self.state, phase=phase)

    def end(self, exit_code: int | None, reason: str) -> None:
        self.state = replace(self.state, phase=PodPhase.ENDED, exit_code=exit_code, reason=reason)
        self.due = self.kill_at = _NEVER


class FakeCluster:
    """A ``clock`` other than the default is advanced by the caller, who calls `tick` afterwards.

    Faults: `is_unreachable`, `refusals` (node to message), `lose`.
    """

    def __init__(self, name: str, nodes: tuple[Node, ...], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.nodes = nodes
        self.is_unreachable = False
        self.refusals: dict[str, str] = {}
        self._clock = clock
        self._is_real_time = clock is time.monotonic
        self._uids = itertools.count(1)
        self._epochs: dict[_Attempt, int] = {}
        self._digests: dict[_Attempt, str] = {}
        """Of every attempt ever launched: a forgotten one is not created again."""
        self._pod_digests: dict[str, str] = {}
        self._fenced: set[str] = set()
        """Pods that were stopped before they were created."""
        self._stopped: set[_Attempt] = set()
        self._pods: dict[_Attempt, dict[str, _FakePod]] = {}
        self._forgotten: set[_Attempt] = set()
        self._observers: set[asyncio.Event] = set()
        self._epoch = 0
        self._newest_epoch = [0]
        """One element: the newest epoch, shared by all clients of these pods."""

    def another_client(self) -> FakeCluster:
        """The same pods, for another control plane."""
        return copy.copy(self)

    async def lead(self, epoch: int) -> None:
        self._epoch = epoch
        self._check_access()

    def tick(self) -> None:
        """Run everything that is due."""
        now = self._clock()
        while True:
            due = [(min(pod.due, pod.kill_at), pod) for pods in self._pods.values() for pod in pods.values()]
            at, pod = min(due, key=lambda each: each[0], default=(_NEVER, None))
            if pod is None or at > now:
                break
            self._advance(pod, at)
        for wake in self._observers:
            wake.set()

    def lose(self, pod: str) -> None:
        """Lose the pod with its node: how it ended is unknown."""
        for pods in self._pods.values():
            if pod in pods and not pods[pod].has_ended:
                pods[pod].end(None, "Lost")
                self._master_follows(pods)
        self.tick()

    async def observe(self) -> AsyncGenerator[Observation]:
        self._check_access()
        wake = asyncio.Event()
        self._observers.add(wake)
        try:
            self.tick()
            shown = self._states()
            yield Observation(tuple(shown.values()), self.nodes, is_complete=True)
            while True:
                wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s()):
                        await wake.wait()
                self._check_access()
                if self._is_real_time:
                    self.tick()
                states = self._states()
                changed = tuple(state for name, state in states.items() if shown.get(name) != state)
                shown = states
                if changed:
                    yield Observation(changed)
        finally:
            self._observers.discard(wake)

    async def launch(self, plan: LaunchPlan) -> None:
        self._check_access()
        key = (plan.job_id, plan.attempt)
        what = plan.title
        if (was := self._epochs.get(key, plan.epoch)) > plan.epoch:
            raise LaunchRefused(f"{what} was launched in epoch {was}, later than {plan.epoch}.")
        if was < plan.epoch:
            self._discard_attempt(key)
        if key in self._forgotten:
            raise LaunchRefused(f"{what} was over and its pods let go of; it is not made again.")
        for name, digest, known in (
            (what, plan.digest, self._digests.get(key)),
            *((f"pod {pod.name}", pod.digest, self._pod_digests.get(pod.name)) for pod in plan.pods),
        ):
            if known not in (None, digest):
                raise Bug(f"{name} was launched with another digest ({known}).")
        wanted = [pod for pod in plan.pods if self._must_create(key, pod)]
        for pod in wanted:
            if pod.node not in {node.name for node in self.nodes}:
                raise LaunchRefused(f"node {pod.node!r} is not part of this cluster.", node=pod.node)
            if pod.node in self.refusals:
                raise LaunchRefused(self.refusals[pod.node], node=pod.node)
        self._epochs[key], self._digests[key] = plan.epoch, plan.digest
        self._pods.setdefault(key, {}).update({pod.name: self._create(plan, pod) for pod in wanted})
        self._pod_digests.update({pod.name: pod.digest for pod in wanted})
        self.tick()

    def _discard_attempt(self, key: _Attempt) -> None:
        """Discard an attempt of an earlier epoch."""
        for name in self._pods.pop(key, {}):
            del self._pod_digests[name]
            self._fenced.discard(name)
        del self._epochs[key], self._digests[key]
        self._stopped.discard(key)
        self._forgotten.discard(key)

    def _must_create(self, key: _Attempt, pod: PodPlan) -> bool:
        """Whether to create the pod: only once, and for a known attempt only pods that join."""
        is_new = key not in self._digests or (pod.joins and key not in self._stopped | self._forgotten)
        return is_new and not pod.was_made and pod.name not in self._pod_digests and pod.name not in self._fenced

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        self._check_access()
        if pods is None:
            self._stopped.add((job_id, attempt))
        else:
            self._fenced.update(pods)
        known = self._pods.get((job_id, attempt), {})
        for name, pod in known.items():
            if pod.has_ended or pod.is_master or (pods is not None and name not in pods):
                continue
            if pod.state.phase is not PodPhase.RUNNING:
                pod.end(143, "NeverStarted")
            elif pod.is_stubborn:
                pod.kill_at = min(pod.kill_at, self._clock() + grace_s)
            else:
                pod.end(143, "Stopped")
        self._master_follows(known)
        self.tick()

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        self._check_access()
        found = self._pods.get((job_id, attempt), {}).get(pod)
        if found is None:
            raise NotFound(f"{pod_title(pod)} of attempt {attempt} of job {title_of(job_id)}: no log is kept here.")
        lines = tuple(found.lines[start : start + limit])
        return LogChunk(start, lines, is_end=found.has_ended and start + len(lines) >= len(found.lines))

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        self._check_access()
        found = self._pods.get((job_id, attempt), {}).get(pod)
        if found is None or not found.used:
            raise NotFound(f"{pod_title(pod)} of attempt {attempt} of job {title_of(job_id)}: nothing is known of what it used.")
        cores, sizes = sum(point[1] for point in found.used), max(point[2] for point in found.used)
        return Usage(0.0, tuple(found.used), cores, sizes)

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        self._check_access()
        return DisplayChunk((), start)

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        self._check_access()
        if (job_id, attempt) in self._digests:
            self._forgotten.add((job_id, attempt))
        if erase:
            self._pods.pop((job_id, attempt), None)
        self.tick()

    async def close(self) -> None:
        """Nothing to release."""

    def _check_access(self) -> None:
        if self.is_unreachable:
            raise ClusterUnreachable(f"cluster {self.name} does not answer.")
        if self._newest_epoch[0] > self._epoch:
            raise StaleEpoch(f"epoch {self._epoch} was given, and {self._newest_epoch[0]} leads cluster {self.name}.")
        self._newest_epoch[0] = self._epoch

    def _states(self) -> dict[str, PodState]:
        kept = [pods for key, pods in self._pods.items() if key not in self._forgotten]
        return {name: pod.state for pods in kept for name, pod in pods.items()}

    def _wait_s(self) -> float | None:
        due = min((min(pod.due, pod.kill_at) for pods in self._pods.values() for pod in pods.values()), default=_NEVER)
        return max(0.0, due - self._clock()) if self._is_real_time and due < _NEVER else None

    def _create(self, plan: LaunchPlan, pod: PodPlan) -> _FakePod:
        ready_s = float({**plan.work.env, **pod.env}.get(READY_S, "0"))
        state = PodState(plan.job_id, plan.attempt, pod.name, f"fake-{next(self._uids)}", PodPhase.PENDING, epoch=plan.epoch)
        if pod.is_master:
            return _FakePod(replace(state, phase=PodPhase.RUNNING), True, deque(), _NEVER)
        steps = deque(_steps(pod.env[STEPS].split() if STEPS in pod.env else plan.work.command))
        return _FakePod(state, False, steps, self._clock() + ready_s, joins=pod.joins)

    def _advance(self, pod: _FakePod, at: float) -> None:
        pods = self._pods[pod.state.job_id, pod.state.attempt]
        if at >= pod.kill_at:
            pod.end(137, "Stopped")
        elif pod.state.phase is PodPhase.PENDING:
            pod.move(PodPhase.READY)
            pod.due = _NEVER
            members = [pod] if pod.joins else [each for each in pods.values() if not each.is_master and not each.joins]
            if all(each.state.phase is PodPhase.READY for each in members):
                for member in members:
                    member.move(PodPhase.RUNNING)
                    member.due = at
        else:
            _run(pod, at)
        self._master_follows(pods)

    @staticmethod
    def _master_follows(pods: dict[str, _FakePod]) -> None:
        """The master ends when all its members have."""
        if all(pod.has_ended or pod.is_master for pod in pods.values()):
            for pod in pods.values():
                if pod.is_master and not pod.has_ended:
                    pod.end(0, "Completed")


def _steps(command: Iterable[str]) -> Iterable[tuple[str, ...]]:
    words = deque(command)
    while words and words[0] in ARGUMENTS:
        yield tuple(words.popleft() for _ in range(ARGUMENTS[words[0]] + 1) if words)


def _run(pod: _FakePod, at: float) -> None:
    """Run the steps up to the next sleep."""
    while pod.steps:
        match pod.steps.popleft():
            case ("print", text):
                pod.lines.append(text)
            case ("sleep", seconds):
                pod.due = at + float(seconds)
                return
            case ("offer", name, address):
                pod.state = replace(pod.state, endpoints={**pod.state.endpoints, name: address})
            case ("use", cores, size):
                pod.used.append((len(pod.used) + 1.0, float(cores), int(size)))
            case ("stubborn",):
                pod.is_stubborn = True
            case ("exit", code):
                pod.end(int(code), "Completed" if int(code) == 0 else "Error")
                return
    pod.end(0, "Completed")
