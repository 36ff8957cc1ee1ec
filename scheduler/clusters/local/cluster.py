"""The cluster on this machine: virtual nodes, and pods that are process groups below one sidecar each.

Pods outlive the service. Their state is in their directories (`pods`), so another `LocalCluster` over the same state directory sees
the same pods with the same identities and takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tuttilab.scheduler.clusters.base import DisplayChunk, LaunchPlan, LogChunk, Observation, PodState, Usage
from tuttilab.scheduler.clusters.kept import folders
from tuttilab.scheduler.clusters.kept.displays import read_displays
from tuttilab.scheduler.clusters.kept.logs import PodLog
from tuttilab.scheduler.clusters.kept.usage import read_usage
from tuttilab.scheduler.clusters.local import cgroups, known
from tuttilab.scheduler.clusters.local import launch as local_launch
from tuttilab.scheduler.clusters.local import nodes as local_nodes
from tuttilab.scheduler.clusters.local import pods as local_pods
from tuttilab.scheduler.clusters.local.env import OF_THE_SERVICE, PodDirs, base_env
from tuttilab.scheduler.clusters.local.fence import Fence
from tuttilab.scheduler.clusters.local.launch import Settings
from tuttilab.scheduler.clusters.local.owners import Owners, acting_as_owner_of
from tuttilab.scheduler.clusters.local.pods import LocalPod
from tuttilab.scheduler.domain.errors import ClusterUnreachable, NotFound, StaleEpoch
from tuttilab.scheduler.domain.model import MASTER, Node, PodPhase
from tuttilab.scheduler.domain.titles import pod_title, title_of
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar import protocol, records

log = logging.getLogger(__name__)

STARTING_POLL_S: Final = 0.25
"""Polling interval while a pod is starting."""
POLL_S: Final = 1.0
FORCE_S: Final = 10.0
"""After the grace period, for the sidecar's own work. Then it is killed, and its pod counts as lost."""
OPEN_LOGS: Final = 256
READERS: Final = 4
"""Threads that read files of pods for callers."""
READ_S: Final = 10.0

T = TypeVar("T")

_Key = tuple[str, int, str]


class LocalCluster:
    """``nodes`` None: one node with the resources of this machine. ``python``: the interpreter that runs the sidecars.

    ``owners``: pods run as the users who own their jobs. All calls belong to one event loop; call `close` before it ends.
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
        output_bytes: int = protocol.MOST_OUTPUT_BYTES,
        unpacked_bytes: int = protocol.MOST_UNPACKED_BYTES,
        owners: Owners | None = None,
    ) -> None:
        self.name = name
        self.nodes = nodes or (local_nodes.machine_node(name),)
        self._state_dir = state_dir.absolute()
        self._root = self._state_dir / folders.ROOT
        devices = local_nodes.devices(self.nodes, local_nodes.real_gpus())
        self._fence = Fence(self._state_dir)
        base = base_env(environ, python)
        if owners is not None:
            python = owners.prepare(self._state_dir, self._root, self._state_dir / known.FOLDER, python)
            base = {name: text for name, text in base_env(environ, python).items() if name not in OF_THE_SERVICE}
        self._settings = Settings(
            python, base, devices, heartbeat_s, lease_s, log_bytes, output_bytes, unpacked_bytes, owners=owners
        )
        self._pods: dict[_Key, LocalPod] = {}
        self._lock = threading.Lock()
        """Guards `_pods`, which threads read and write."""
        self._launching = asyncio.Lock()
        self._is_adopted = False
        self._watched: dict[_Key, int] = {}
        self._observers: set[asyncio.Event] = set()
        self._forcing: set[asyncio.Task[None]] = set()
        self._logs: OrderedDict[Path, PodLog] = OrderedDict()
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="pod-files")
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
                is_starting = any(pod.state is None or pod.state.phase in _STARTING for pod in self._live_pods())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STARTING_POLL_S if is_starting else POLL_S):
                        await wake.wait()
                wake.clear()
                if changed := await self._changes(shown):
                    yield Observation(changed)
        finally:
            self._observers.discard(wake)

    async def launch(self, plan: LaunchPlan) -> None:
        await self._adopt()
        async with self._launching:
            folder = folders.attempt_folder(self._state_dir, plan.job_id, plan.attempt)
            was = local_pods.epoch_of(folder)
            if was is not None and was < plan.epoch:
                point("launch.replace")
                await self._remove_attempt(plan.job_id, plan.attempt, erase=True)
            await asyncio.to_thread(self._launch, plan)
        self._wake()

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        await self._adopt()
        async with self._launching:  # after a launch in flight, so that its pods are stopped too
            stopping = await asyncio.to_thread(self._fenced_stop, job_id, attempt, grace_s, pods, why)
        self._wake()
        if stopping:
            task = asyncio.create_task(self._force_after(stopping, grace_s + FORCE_S))
            self._forcing.add(task)
            task.add_done_callback(self._forcing.discard)

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        folder = folders.pod_folder(self._state_dir, job_id, attempt, pod)
        if not folder.is_dir():
            raise NotFound(f"{pod_title(pod)} of attempt {attempt} of job {title_of(job_id)}: no log is kept here.")
        log = self._logs.setdefault(folder, PodLog(self._root, self._settings.log_bytes, _path(job_id, attempt, pod)))
        self._logs.move_to_end(folder)
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)
        return await self._read(partial(_read_log, log, folder, start, limit))

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        folders.pod_folder(self._state_dir, job_id, attempt, pod)  # an invalid name is refused
        found = await self._read(partial(read_usage, self._root, _path(job_id, attempt, pod)))
        if found is None:
            raise NotFound(f"{pod_title(pod)} of attempt {attempt} of job {title_of(job_id)}: nothing is known of what it used.")
        return found

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        folder = folders.pod_folder(self._state_dir, job_id, attempt, pod)
        return await self._read(partial(self._read_displays, PodDirs.of(folder.parent, pod).result, start))

    def _read_displays(self, results: Path, start: int) -> DisplayChunk:
        try:
            with acting_as_owner_of(results, self._settings.owners):
                return read_displays(self._root, start, str(results.relative_to(self._root)))
        except OSError:
            return DisplayChunk((), start)

    async def _read(self, work: Callable[[], T]) -> T:
        """Run ``work`` in one of the few threads for files of pods: whatever a job puts there, launches have others."""
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.get_running_loop().run_in_executor(self._reading, work)
        except TimeoutError:
            raise ClusterUnreachable(f"files of a pod could not be read within {READ_S:g} s; try again.") from None

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        await self._adopt()
        async with self._launching:
            await self._remove_attempt(job_id, attempt, erase=erase)
        self._watch()

    async def _remove_attempt(self, job_id: str, attempt: int, *, erase: bool) -> None:
        await asyncio.to_thread(self._fenced_forget, job_id, attempt, erase)
        if erase:
            folder = folders.attempt_folder(self._state_dir, job_id, attempt)
            for known in [pod for pod in self._logs if pod.parent == folder]:
                del self._logs[known]

    async def close(self) -> None:
        """Release all resources; pods keep running."""
        self._is_closed = True
        self._wake()
        for task in self._forcing:
            task.cancel()
        for key in list(self._watched):
            self._unwatch(key)
        self._reading.shutdown(wait=False, cancel_futures=True)
        if self._settings.cgroups is not None:
            cgroups.close(self._settings.cgroups)

    async def _adopt(self) -> None:
        async with self._launching:
            if not self._is_adopted:
                place = await asyncio.to_thread(cgroups.place_for, self._state_dir)
                self._settings = replace(self._settings, cgroups=place)
                for pod in await asyncio.to_thread(self._pods_before):
                    self._pods[pod.job_id, pod.attempt, pod.name] = pod
                self._is_adopted = True

    def _pods_before(self) -> list[LocalPod]:
        # Behind the fence, so that a launch of the leader before is whole: its other pods would not be known here.
        with self._fence.held():
            return list(known.all_pods(self._state_dir))

    def _live_pods(self) -> list[LocalPod]:
        with self._lock:
            return [pod for pod in self._pods.values() if not pod.has_ended]

    def _pods_of(self, job_id: str, attempt: int) -> list[LocalPod]:
        with self._lock:
            return [pod for key, pod in self._pods.items() if key[:2] == (job_id, attempt)]

    async def _changes(self, shown: dict[_Key, PodState]) -> tuple[PodState, ...]:
        """States that differ from those in ``shown``, which is updated."""
        await asyncio.to_thread(self._refresh)
        self._watch()
        with self._lock:
            now = {key: pod.state for key, pod in self._pods.items() if pod.state is not None}
        for key in shown.keys() - now.keys():
            del shown[key]
        changed = tuple(state for key, state in now.items() if shown.get(key) != state)
        shown.update(now)
        return changed

    def _refresh(self) -> None:
        # A refresh may write the end of a lost pod, so it needs the fence too.
        with self._fence.held():
            for pod in self._live_pods():
                was = pod.sidecar
                local_pods.refresh(pod)
                if pod.sidecar != was:
                    known.note(self._state_dir, pod)

    def _watch(self) -> None:
        """Watch the pidfd of each pod's last process, so that an end is noticed at once."""
        living = {(pod.job_id, pod.attempt, pod.name): pod for pod in self._live_pods()}
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
                local_launch.launch(plan, self._state_dir, self._settings, self._live_pods(), started)
        finally:
            with self._lock:
                for pod in started:
                    if not pod.is_forgotten:
                        self._pods[pod.job_id, pod.attempt, pod.name] = pod
            self._drop_erased(plan.job_id, plan.attempt)

    def _drop_erased(self, job_id: str, attempt: int) -> None:
        for pod in self._pods_of(job_id, attempt):
            if pod.is_forgotten:
                with self._lock:
                    del self._pods[job_id, attempt, pod.name]

    def _fenced_stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None, why: str) -> list[LocalPod]:
        with self._fence.held():
            return self._stop(job_id, attempt, grace_s, pods, why)

    def _stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None, why: str) -> list[LocalPod]:
        """Stop the live pods of the attempt, or ``pods``, the master last; mark those not started yet as never to start.

        Returns the pods that were signaled.
        """
        folder = folders.attempt_folder(self._state_dir, job_id, attempt)
        if (folder / local_pods.FORGOTTEN).exists():
            return []
        # The job may have taken away any of these files: what was started is stopped nevertheless.
        record = records.read(str(folder / folders.ATTEMPT)) or {}
        with self._lock:
            for pod in known.all_pods(self._state_dir, job_id, attempt):
                self._pods.setdefault((job_id, attempt, pod.name), pod)
        if record:
            try:
                if pods is None:
                    (folder / local_pods.STOPPED).touch()
                for name in record.get("pods", ()) if pods is None else pods:
                    if (job_id, attempt, name) not in self._pods:
                        local_pods.record_never_started(folder / name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                # Where nothing can be written, nothing starts either; what runs is stopped all the same.
                log.warning("a stop of attempt %s of job %s could not be noted: %s", attempt, job_id, error)
            with self._lock:
                for pod in known.all_pods(self._state_dir, job_id, attempt):
                    self._pods.setdefault((job_id, attempt, pod.name), pod)
        stopping = []
        concerned = [pod for pod in self._pods_of(job_id, attempt) if pods is None or pod.name in pods]
        for pod in sorted(concerned, key=_is_master):
            local_pods.refresh(pod)
            if not pod.has_ended:
                # The file first: a starting sidecar whose pid is not known yet checks it.
                point("stop.file")
                with contextlib.suppress(OSError):
                    owners = self._settings.owners
                    reader = -1 if owners is None else owners.sidecar.uid
                    records.write(str(pod.folder / records.STOP), {"grace_s": grace_s, "why": why}, owner=reader)
                local_pods.refresh(pod)
                point("stop.signal")
                local_pods.signal_sidecar(pod, signal.SIGTERM)
                stopping.append(pod)
        return stopping

    async def _force_after(self, stopping: list[LocalPod], seconds: float) -> None:
        await asyncio.sleep(seconds)
        left = [pod for pod in stopping if not pod.has_ended]
        while left:
            try:
                await asyncio.to_thread(self._end_by_force, left)
                break
            except ClusterUnreachable as error:
                log.warning("pods that do not end could not be killed, it is tried again: %s", error)
            except StaleEpoch:
                return  # the new leader stops them
            await asyncio.sleep(POLL_S)
        self._wake()

    def _end_by_force(self, pods: list[LocalPod]) -> None:
        with self._fence.held():
            for pod in pods:
                local_pods.signal_sidecar(pod, signal.SIGKILL)
            for pod in pods:
                local_pods.end_by_force(pod)

    def _fenced_forget(self, job_id: str, attempt: int, erase: bool) -> None:
        with self._fence.held():
            try:
                self._forget(job_id, attempt, erase)
            except OSError as error:
                raise ClusterUnreachable(
                    f"attempt {attempt} of job {title_of(job_id)} cannot be let go of yet ({error}); it is tried again."
                ) from error

    def _forget(self, job_id: str, attempt: int, erase: bool) -> None:
        folder = folders.attempt_folder(self._state_dir, job_id, attempt)
        for pod in self._pods_of(job_id, attempt):
            pod.is_forgotten = True
            if not pod.has_ended or records.is_locked(str(pod.folder / records.LOCK)):
                local_pods.end_by_force(pod)
            local_pods.reap(pod)
            with self._lock:
                del self._pods[job_id, attempt, pod.name]
        point("forget.ended")
        known.drop(self._state_dir, job_id, attempt)
        if erase:
            folders.erase(folder)
            with contextlib.suppress(OSError):  # other attempts are still there
                folder.parent.rmdir()
        elif folder.is_dir():
            (folder / local_pods.FORGOTTEN).touch()
            records.sync_folder(str(folder))


_STARTING: Final = (PodPhase.PENDING, PodPhase.READY)


def _path(job_id: str, attempt: int, pod: str) -> str:
    """Of a pod's folder below the root of all."""
    return f"{job_id}/{attempt}/{pod}"


def _is_master(pod: LocalPod) -> bool:
    plan = records.read(str(pod.folder / records.PLAN)) or {}
    return plan.get("role") == MASTER


def _read_log(log: PodLog, folder: Path, start: int, limit: int) -> LogChunk:
    # Checked before the read: everything was written by then. The lock of a pod that is being started is not taken yet.
    is_over = (folder / records.END).exists() or (
        (folder / records.SIDECAR).exists() and not records.is_locked(str(folder / records.LOCK))
    )
    return log.read(start, limit, is_over=is_over)
