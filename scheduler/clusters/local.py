"""The cluster that is this machine: virtual nodes, and pods that are process groups under a sidecar each.

Pods outlive the service. What they are stands in their directories (`local_pods`), so another object over the same state directory
sees the same pods with the same identities, and takes over where this one left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters import local_launch, local_nodes, local_pods
from tuttilab.scheduler.clusters.base import LaunchPlan, LogChunk, Observation, PodState
from tuttilab.scheduler.clusters.local_env import base_env
from tuttilab.scheduler.clusters.local_fence import Fence
from tuttilab.scheduler.clusters.local_launch import Settings
from tuttilab.scheduler.clusters.local_logs import PodLog
from tuttilab.scheduler.clusters.local_pods import LocalPod
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import ClusterUnreachable, NotFound, StaleEpoch
from tuttilab.scheduler.model import MASTER, Node, PodPhase
from tuttilab.sidecar import records

log = logging.getLogger(__name__)

SOON_S: Final = 0.25
"""Between looks while a pod is on its way to Running."""
LOOK_S: Final = 1.0
FORCE_S: Final = 10.0
"""After the grace, for the sidecar's own work; then it is ended by force, and its pod counts as lost."""
OPEN_LOGS: Final = 256

_Key = tuple[str, int, str]


class LocalCluster:
    """``nodes`` None: one node that is this machine. ``python``: the interpreter that runs the sidecars.

    Calls are for one event loop; `close` before it ends.
    """

    def __init__(
        self,
        name: str,
        nodes: tuple[Node, ...] | None,
        state_dir: Path,
        environ: Mapping[str, str],
        python: str,
        *,
        heartbeat_s: float = 5.0,
        lease_s: float = 45.0,
        log_bytes: int = 64 * 2**20,
    ) -> None:
        self.name = name
        self.nodes = nodes or (local_nodes.machine_node(name),)
        self._state_dir = state_dir.absolute()
        devices = local_nodes.devices(self.nodes, local_nodes.real_gpus())
        self._fence = Fence(self._state_dir)
        self._settings = Settings(python, base_env(environ, python), devices, heartbeat_s, lease_s, log_bytes)
        self._pods: dict[_Key, LocalPod] = {}
        self._turn = threading.Lock()
        """Around `_pods`, which threads read and write."""
        self._launching = asyncio.Lock()
        self._is_adopted = False
        self._watched: dict[_Key, int] = {}
        self._observers: set[asyncio.Event] = set()
        self._forcing: set[asyncio.Task[None]] = set()
        self._logs: OrderedDict[Path, PodLog] = OrderedDict()
        self._is_closed = False

    async def lead(self, epoch: int) -> None:
        await asyncio.to_thread(self._fence.raise_to, epoch)

    async def observe(self) -> AsyncGenerator[Observation]:
        await self._adopt()
        wake = asyncio.Event()
        self._observers.add(wake)
        try:
            shown: dict[_Key, PodState] = {}
            yield Observation(await self._changes(shown), self.nodes, is_complete=True)
            while not self._is_closed:
                is_soon = any(pod.state is None or pod.state.phase in _ON_ITS_WAY for pod in self._living())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SOON_S if is_soon else LOOK_S):
                        await wake.wait()
                wake.clear()
                if changed := await self._changes(shown):
                    yield Observation(changed)
        finally:
            self._observers.discard(wake)

    async def launch(self, plan: LaunchPlan) -> None:
        await self._adopt()
        async with self._launching:
            folder = local_pods.attempt_folder(self._state_dir, plan.job_id, plan.attempt)
            was = local_pods.epoch_of(folder)
            if was is not None and was < plan.epoch:
                point("launch.replace")
                await self._let_go(plan.job_id, plan.attempt, erase=True)
            await asyncio.to_thread(self._launch, plan)
        self._wake()

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None) -> None:
        await self._adopt()
        async with self._launching:  # a launch under way ends first: what it makes is stopped
            told = await asyncio.to_thread(self._fenced_stop, job_id, attempt, grace_s, pods)
        self._wake()
        if told:
            task = asyncio.create_task(self._force(told, grace_s + FORCE_S))
            self._forcing.add(task)
            task.add_done_callback(self._forcing.discard)

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        folder = local_pods.pod_folder(self._state_dir, job_id, attempt, pod)
        if not folder.is_dir():
            raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: no log is kept here.")
        log = self._logs.setdefault(folder, PodLog(folder, self._settings.log_bytes))
        self._logs.move_to_end(folder)
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)
        return await asyncio.to_thread(_read_log, log, folder, start, limit)

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        await self._adopt()
        async with self._launching:
            await self._let_go(job_id, attempt, erase=erase)
        self._watch()

    async def _let_go(self, job_id: str, attempt: int, *, erase: bool) -> None:
        await asyncio.to_thread(self._fenced_forget, job_id, attempt, erase)
        if erase:
            folder = local_pods.attempt_folder(self._state_dir, job_id, attempt)
            for known in [pod for pod in self._logs if pod.parent == folder]:
                del self._logs[known]

    async def close(self) -> None:
        """Lets go of everything; pods keep running."""
        self._is_closed = True
        self._wake()
        for task in self._forcing:
            task.cancel()
        for key in list(self._watched):
            self._unwatch(key)

    async def _adopt(self) -> None:
        async with self._launching:
            if not self._is_adopted:
                for pod in await asyncio.to_thread(lambda: list(local_pods.found_pods(self._state_dir))):
                    self._pods[pod.job_id, pod.attempt, pod.name] = pod
                self._is_adopted = True

    def _living(self) -> list[LocalPod]:
        with self._turn:
            return [pod for pod in self._pods.values() if not pod.has_ended]

    def _of(self, job_id: str, attempt: int) -> list[LocalPod]:
        with self._turn:
            return [pod for key, pod in self._pods.items() if key[:2] == (job_id, attempt)]

    async def _changes(self, shown: dict[_Key, PodState]) -> tuple[PodState, ...]:
        """States that differ from those in ``shown``, which is brought up to date."""
        await asyncio.to_thread(self._refresh)
        self._watch()
        with self._turn:
            now = {key: pod.state for key, pod in self._pods.items() if pod.state is not None}
        for key in shown.keys() - now.keys():
            del shown[key]
        changed = tuple(state for key, state in now.items() if shown.get(key) != state)
        shown.update(now)
        return changed

    def _refresh(self) -> None:
        # A look settles what became of lost pods, and so is an effect too.
        with self._fence.held():
            for pod in self._living():
                local_pods.refresh(pod)

    def _watch(self) -> None:
        """An end is seen at once: the pidfd of the pod's last process becomes readable."""
        living = {(pod.job_id, pod.attempt, pod.name): pod for pod in self._living()}
        for key in self._watched.keys() - living.keys():
            self._unwatch(key)
        for key, pod in living.items():
            if key not in self._watched and not self._is_closed:
                descriptor = local_pods.open_pod(pod)
                if descriptor is not None:
                    self._watched[key] = descriptor
                    asyncio.get_running_loop().add_reader(descriptor, self._pod_ended, key, pod)

    def _unwatch(self, key: _Key) -> None:
        descriptor = self._watched.pop(key)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def _pod_ended(self, key: _Key, pod: LocalPod) -> None:
        self._unwatch(key)
        local_pods.reap(pod)
        self._wake()

    def _wake(self) -> None:
        for wake in self._observers:
            wake.set()

    def _launch(self, plan: LaunchPlan) -> None:
        started: list[LocalPod] = []
        try:
            with self._fence.held():
                local_launch.launch(plan, self._state_dir, self._settings, self._living(), started)
        finally:
            with self._turn:
                for pod in started:
                    self._pods[pod.job_id, pod.attempt, pod.name] = pod
            self._drop_erased(plan.job_id, plan.attempt)

    def _drop_erased(self, job_id: str, attempt: int) -> None:
        for pod in self._of(job_id, attempt):
            if not pod.folder.exists():
                with self._turn:
                    del self._pods[job_id, attempt, pod.name]

    def _fenced_stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None) -> list[LocalPod]:
        with self._fence.held():
            return self._stop(job_id, attempt, grace_s, pods)

    def _stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None) -> list[LocalPod]:
        """Tells every living pod, the master last, or these, and settles that what was not started of them never will be."""
        folder = local_pods.attempt_folder(self._state_dir, job_id, attempt)
        record = records.read(str(folder / local_pods.ATTEMPT))
        if record is None or (folder / local_pods.FORGOTTEN).exists():
            return []
        if pods is None:
            (folder / local_pods.STOPPED).touch()
        for name in record["pods"] if pods is None else pods:
            if (job_id, attempt, name) not in self._pods:
                local_pods.record_never_started(folder / name)
        with self._turn:
            for pod in local_pods.found_pods(self._state_dir, job_id, attempt):
                self._pods.setdefault((job_id, attempt, pod.name), pod)
        told = []
        concerned = [pod for pod in self._of(job_id, attempt) if pods is None or pod.name in pods]
        for pod in sorted(concerned, key=_is_master):
            local_pods.refresh(pod)
            if not pod.has_ended:
                # The file first: a sidecar that is just starting, whose pid nobody knows yet, looks for it.
                point("stop.file")
                records.write(str(pod.folder / records.STOP), {"grace_s": grace_s, "why": "the cluster was told so"})
                local_pods.refresh(pod)
                point("stop.signal")
                local_pods.signal_sidecar(pod, signal.SIGTERM)
                told.append(pod)
        return told

    async def _force(self, told: list[LocalPod], seconds: float) -> None:
        await asyncio.sleep(seconds)
        left = [pod for pod in told if not pod.has_ended]
        while left:
            try:
                await asyncio.to_thread(self._end_by_force, left)
                break
            except ClusterUnreachable as error:
                log.warning("pods that do not end cannot be forced to, it is tried again: %s", error)
            except StaleEpoch:
                return  # whoever leads now stops them
            await asyncio.sleep(LOOK_S)
        self._wake()

    def _end_by_force(self, pods: list[LocalPod]) -> None:
        with self._fence.held():
            for pod in pods:
                local_pods.signal_sidecar(pod, signal.SIGKILL)
            for pod in pods:
                local_pods.end_by_force(pod)

    def _fenced_forget(self, job_id: str, attempt: int, erase: bool) -> None:
        with self._fence.held():
            self._forget(job_id, attempt, erase)

    def _forget(self, job_id: str, attempt: int, erase: bool) -> None:
        folder = local_pods.attempt_folder(self._state_dir, job_id, attempt)
        for pod in self._of(job_id, attempt):
            if not pod.has_ended or records.is_locked(str(pod.folder / records.LOCK)):
                local_pods.end_by_force(pod)
            local_pods.reap(pod)
            with self._turn:
                del self._pods[job_id, attempt, pod.name]
        point("forget.ended")
        if erase:
            local_pods.erase(folder)
            with contextlib.suppress(OSError):  # other attempts are still there
                folder.parent.rmdir()
        elif folder.is_dir():
            (folder / local_pods.FORGOTTEN).touch()
            records.sync_folder(str(folder))


_ON_ITS_WAY: Final = (PodPhase.PENDING, PodPhase.READY)


def _is_master(pod: LocalPod) -> bool:
    plan = records.read(str(pod.folder / records.PLAN)) or {}
    return plan.get("role") == MASTER


def _read_log(log: PodLog, folder: Path, start: int, limit: int) -> LogChunk:
    # Asked before the read: what is written by then is all.
    is_over = (folder / records.END).exists() or not records.is_locked(str(folder / records.LOCK))
    return log.read(start, limit, is_over=is_over)
