"""The Kubernetes cluster: observes by informers, launches, stops and forgets by what it noted and what the API server shows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.base import DisplayChunk, LaunchPlan, LogChunk, Observation, PodState, Usage
from tuttilab.scheduler.clusters.kubernetes import logs, names, states
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.attempts import Attempts, Noted
from tuttilab.scheduler.clusters.kubernetes.fence import LeaseFence
from tuttilab.scheduler.clusters.kubernetes.informer import Informer
from tuttilab.scheduler.clusters.kubernetes.launch import Launcher, Remover
from tuttilab.scheduler.clusters.kubernetes.others import Others
from tuttilab.scheduler.clusters.kubernetes.pods import MAIN, Body
from tuttilab.scheduler.clusters.kubernetes.settings import MASTER_COST, SIDECAR_COST, KubernetesSettings
from tuttilab.scheduler.clusters.kubernetes.states import Seen
from tuttilab.scheduler.clusters.local.logs import PodLog
from tuttilab.scheduler.domain.errors import Bug, ClusterError, ClusterUnreachable, LaunchRefused, NotFound
from tuttilab.scheduler.domain.model import MASTER, Node, PodPhase
from tuttilab.scheduler.domain.resources import NOTHING
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar import protocol

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Between two looks while nothing changes: for what depends on time alone."""
UNREACHABLE_S: Final = 5.0
"""After this time without an answer the cluster counts as unreachable."""
MASTER_GRACE_S: Final = 10.0
"""A master gets this much longer than its members, to hear of their ends."""
LOG_WAIT_S: Final = 10.0
"""An end is shown once the log is copied, at the latest after this time."""
REPLACE_S: Final = 60.0
"""For the pods of an earlier epoch to end before their names are used again."""
OPEN_LOGS: Final = 256

_Key = tuple[str, int, str]


class KubernetesCluster:
    """``installation``: tells the objects of this control plane from those of others. All calls belong to one event loop."""

    def __init__(
        self,
        name: str,
        settings: KubernetesSettings,
        state_dir: Path,
        installation: str,
        *,
        heartbeat_s: float = 5.0,
        lease_s: float = 45.0,
        output_bytes: int = protocol.MOST_OUTPUT_BYTES,
        unpacked_bytes: int = protocol.MOST_UNPACKED_BYTES,
    ) -> None:
        self.name = name
        self._settings = settings
        self._installation = installation
        self._api = Api(name, settings)
        self._changed: set[asyncio.Event] = set()
        owner = names.selector({names.INSTALLATION: installation})
        self._nodes = Informer(self._api, name, "/api/v1/nodes", names.selector(settings.node_labels), self._wake)
        self._pods = {
            namespace: Informer(self._api, name, f"/api/v1/namespaces/{namespace}/pods", owner, self._wake)
            for namespace in settings.all_namespaces
        }
        self._others = Others(self._api, name, installation)
        self._attempts = Attempts(state_dir.absolute())
        self._fence = LeaseFence(self._api, name, settings.namespace, installation, state_dir.absolute())
        limits = {"heartbeat_s": heartbeat_s, "lease_s": lease_s, "output_bytes": output_bytes, "unpacked_bytes": unpacked_bytes}
        self._launcher = Launcher(name, settings, self._api, self._pods, installation, limits)
        self._remover = Remover(self._api, name)
        self._locks: dict[tuple[str, int], tuple[asyncio.Lock, int]] = {}
        """By attempt, with the number of those who hold it or wait for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._followers: dict[_Key, asyncio.Task[None]] = {}
        self._over_since: dict[_Key, float] = {}
        self._giving_up: set[str] = set()
        """Uids of pods that are being deleted because their user code will not start."""
        self._logs: OrderedDict[Path, PodLog] = OrderedDict()
        self._is_watching = False
        self._is_closed = False

    # --- looking -------------------------------------------------------------------------------------------------------

    async def lead(self, epoch: int) -> None:
        await self._fence.raise_to(epoch)

    async def observe(self) -> AsyncGenerator[Observation]:
        await self._fence.check()
        await self._sync()
        wake = asyncio.Event()
        self._changed.add(wake)
        try:
            shown: dict[_Key, PodState] = {}
            nodes = self._known_nodes()
            yield self._observation(self._changes(shown), nodes, is_complete=True)
            while not self._is_closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await wake.wait()
                wake.clear()
                self._raise_if_unreachable()
                changed, present = self._changes(shown), self._known_nodes()
                if changed or present != nodes:
                    yield self._observation(changed, present if present != nodes else None)
                    nodes = present
        finally:
            self._changed.discard(wake)

    @staticmethod
    def _observation(pods: tuple[PodState, ...], nodes: tuple[Node, ...] | None, *, is_complete: bool = False) -> Observation:
        return Observation(pods, nodes, is_complete, SIDECAR_COST, MASTER_COST)

    async def _sync(self) -> None:
        """List everything, and watch from now on. Raises ClusterUnreachable."""
        for informer in (self._nodes, *self._pods.values()):
            await informer.sync()
        if self._is_watching:
            return
        # Once: they may be all pods of a large cluster, and their watch lists them again by itself where it has to.
        await self._others.sync()
        if not self._is_watching and not self._is_closed:
            self._is_watching = True
            others = (self._others.informer,) if self._others.is_seen else ()
            for informer in (self._nodes, *self._pods.values(), *others):
                self._spawn(informer.run(), f"watch {self.name}")

    async def _synced(self) -> None:
        if not self._is_watching:
            await self._sync()

    def _raise_if_unreachable(self) -> None:
        for informer in (self._nodes, *self._pods.values()):
            if informer.failing_s() > UNREACHABLE_S:
                raise ClusterUnreachable(informer.failure)
        if self._api.failing_s() > UNREACHABLE_S:
            # Its watches may still be open: a server that hangs does not end them.
            raise ClusterUnreachable(f"cluster {self.name}: its API server takes calls and does not answer them.")

    def _known_nodes(self) -> tuple[Node, ...]:
        others, tolerations = self._others.by_node(), self._settings.tolerations
        objects = self._nodes.objects.items()
        found = (states.node_of(node, self.name, tolerations, others.get(key[1], NOTHING)) for key, node in objects)
        return tuple(sorted(found, key=lambda node: node.name))

    def _seen(self, pod: Body) -> Seen | None:
        """None for a pod that is none of ours, or forgotten."""
        labels = pod["metadata"].get("labels", {})
        if names.JOB not in labels or not str(labels.get(names.ATTEMPT, "")).isdecimal():
            return None
        node = self._nodes.objects.get(("", pod.get("spec", {}).get("nodeName", "")))
        has_node = bool(pod.get("spec", {}).get("nodeName"))
        seen = Seen(pod, not has_node or (node is not None and states.is_ready(node)))
        noted = self._attempts.get(seen.job_id, seen.attempt)
        if noted is None or str(noted.epoch) != labels.get(names.EPOCH):
            return seen
        return None if noted.is_forgotten else Seen(pod, seen.is_node_ready, seen.name in noted.told, noted.why.get(seen.name, ""))

    def _all_seen(self) -> list[Seen]:
        pods = (pod for informer in self._pods.values() for pod in informer.objects.values())
        return [seen for pod in pods if (seen := self._seen(pod)) is not None]

    def _pods_of(self, job_id: str, attempt: int) -> list[Seen]:
        mine = (names.label_value(job_id), str(attempt))
        pods = (pod for informer in self._pods.values() for pod in list(informer.objects.values()))
        found = [Seen(pod, is_node_ready=True) for pod in pods]
        return [each for each in found if (each.labels.get(names.JOB), each.labels.get(names.ATTEMPT)) == mine]

    def _changes(self, shown: dict[_Key, PodState]) -> tuple[PodState, ...]:
        """States that differ from those in ``shown``, which is updated. Starts followers, and gives up pods that will not run."""
        now, current = time.time(), {}
        for seen in self._all_seen():
            state = states.state_of(seen, now)
            key = (state.job_id, state.attempt, state.name)
            self._follow(key, seen)
            if state.phase is PodPhase.ENDED and not self._is_told(key, seen):
                known = shown.get(key)
                current[key] = known or replace(state, phase=PodPhase.PENDING, exit_code=None, reason="", outputs={})
                continue
            current[key] = state
            if (why := states.hopeless(seen, now)) is not None:
                self._give_up(key, seen, *why)
        changed = tuple(state for key, state in current.items() if shown.get(key) != state)
        shown.clear()
        shown.update(current)
        self._over_since = {key: since for key, since in self._over_since.items() if key in current}
        return changed

    def _is_told(self, key: _Key, seen: Seen) -> bool:
        """Whether all that the pod printed is copied, or was waited for long enough."""
        if seen.labels.get(names.ROLE) == MASTER or (self._attempts.pod_folder(*key) / logs.WHOLE).exists():
            return True
        return time.monotonic() - self._over_since.setdefault(key, time.monotonic()) > LOG_WAIT_S

    # --- logs ----------------------------------------------------------------------------------------------------------

    def _follow(self, key: _Key, seen: Seen) -> None:
        is_due = seen.has_started(MAIN) or seen.is_over
        if not is_due or key in self._followers or seen.labels.get(names.ROLE) == MASTER or self._is_closed:
            return
        if (self._attempts.pod_folder(*key) / logs.WHOLE).exists():
            return
        task = self._spawn(self._copy_log(key, seen), f"log of {seen.name}")
        self._followers[key] = task
        task.add_done_callback(lambda _: self._followers.pop(key, None))

    async def _copy_log(self, key: _Key, seen: Seen) -> None:
        metadata = seen.pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        copy = await asyncio.to_thread(logs.LogCopy, self._attempts.pod_folder(*key))

        def present() -> Seen | None:
            pod = self._pods[namespace].objects.get((namespace, name))
            return None if pod is None or pod["metadata"]["uid"] != metadata["uid"] else Seen(pod, is_node_ready=True)

        def is_over() -> bool:
            found = present()
            return found is None or found.is_over

        try:
            cut = await logs.follow(self._api, namespace, name, copy, is_over)
            noted = self._attempts.get(*key[:2])
            if noted is not None and await asyncio.to_thread(copy.is_of_another_machine):
                # Before the log is whole: the end is shown then.
                noted.why[key[2]] = states.WRONG_ARCHITECTURE
                await asyncio.to_thread(self._attempts.put, *key[:2], noted)
            last = present()
            message = str(states.message_of(last).get("message") or "") if last is not None else ""
            note = (noted.notes.get(key[2], "") if noted is not None else "") or message
            await asyncio.to_thread(copy.finish, cut, note)
            self._wake()
        except OSError as error:
            log.warning("the log of %s cannot be kept: %s", name, error)
        finally:
            copy.close()

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        folder = self._attempts.pod_folder(job_id, attempt, pod)
        if not folder.is_dir():
            raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: no log is kept here.")
        reader = self._logs.setdefault(folder, PodLog(folder, logs.LOG_BYTES))
        self._logs.move_to_end(folder)
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)
        # Checked before the read: everything was written by then.
        is_over = (folder / logs.WHOLE).exists() or pod.endswith(f"-{MASTER}")
        return await asyncio.to_thread(lambda: reader.read(start, limit, is_over=is_over))

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: pods of cluster {self.name} are not measured.")

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        return DisplayChunk((), start)

    # --- launching -----------------------------------------------------------------------------------------------------

    async def launch(self, plan: LaunchPlan) -> None:
        await self._synced()
        async with self._locked(plan.job_id, plan.attempt):
            await self._check_may_create()
            self._launcher.check(plan, (name for _, name in self._nodes.objects))
            await self._replace_earlier_epoch(plan)
            noted = self._noted_for(plan)
            await asyncio.to_thread(self._note, plan, noted)
            try:
                await self._launcher.create(plan, noted, self._attempts)
            except LaunchRefused as refusal:
                if not plan.is_growth:
                    await self._undo(plan, noted, str(refusal))
                raise
            finally:
                await asyncio.to_thread(self._attempts.put, plan.job_id, plan.attempt, noted)
        self._wake()

    async def _check_may_create(self) -> None:
        try:
            await self._fence.check(creates=True)
        except ClusterUnreachable as error:
            if self._fence.is_without_place:
                raise LaunchRefused(str(error)) from error
            raise

    async def _replace_earlier_epoch(self, plan: LaunchPlan) -> None:
        """End and erase pods and notes of an attempt of the same number that a restored database does not contain."""
        noted = self._attempts.get(plan.job_id, plan.attempt)
        if noted is not None and noted.epoch > plan.epoch:
            raise LaunchRefused(f"{plan.title} was launched in epoch {noted.epoch}, later than {plan.epoch}.")
        others = [seen for seen in self._pods_of(plan.job_id, plan.attempt) if int(seen.labels.get(names.EPOCH, 0)) < plan.epoch]
        if not others and (noted is None or noted.epoch == plan.epoch):
            return
        point("launch.replace")
        for seen in others:
            if not seen.is_over:
                await self._remover.delete(seen.pod, 1.0)
        uids = {seen.pod["metadata"]["uid"] for seen in others}
        until = time.monotonic() + REPLACE_S
        while time.monotonic() < until:
            left = [s for s in self._pods_of(plan.job_id, plan.attempt) if s.pod["metadata"]["uid"] in uids and not s.is_over]
            if not left:
                break
            await asyncio.sleep(0.1)
        await self._forget(plan.job_id, plan.attempt, erase=True)

    def _noted_for(self, plan: LaunchPlan) -> Noted:
        """Raises LaunchRefused for an attempt that was refused or forgotten, Bug for another digest."""
        noted = self._attempts.get(plan.job_id, plan.attempt)
        if noted is None:
            noted = Noted(plan.epoch, plan.digest, self._settings.namespace_of(plan.group))
        if noted.refused:
            # The caller of the refused launch may have been killed before it recorded the refusal.
            raise LaunchRefused(noted.refused)
        if noted.is_forgotten:
            raise LaunchRefused(f"{plan.title} was over and its pods let go of; it is not made again.")
        if noted.digest != plan.digest:
            raise Bug(f"{plan.title} was launched with another digest ({noted.digest}).")
        for pod in plan.pods:
            if noted.pods.get(pod.name, pod.digest) != pod.digest:
                raise Bug(f"pod {pod.name} was launched with another digest ({noted.pods[pod.name]}).")
        return noted

    def _note(self, plan: LaunchPlan, noted: Noted) -> None:
        if not noted.is_stopped:
            noted.pods.update({pod.name: pod.digest for pod in plan.pods})
        self._attempts.put(plan.job_id, plan.attempt, noted)
        self._attempts.make_folders(plan.job_id, plan.attempt, noted.pods)

    async def _undo(self, plan: LaunchPlan, noted: Noted, why: str) -> None:
        """Remove a gang that cannot start completely; no user code ran, because a member was missing."""
        noted.refused = why
        for seen in self._pods_of(plan.job_id, plan.attempt):
            await self._let_go(seen)

    # --- ending --------------------------------------------------------------------------------------------------------

    def _give_up(self, key: _Key, seen: Seen, reason: str, sentence: str) -> None:
        uid = seen.pod["metadata"]["uid"]
        if uid not in self._giving_up and not self._is_closed:
            self._giving_up.add(uid)
            self._spawn(self._delete_hopeless(key, seen, reason, sentence), f"give up {seen.name}")

    async def _delete_hopeless(self, key: _Key, seen: Seen, reason: str, sentence: str) -> None:
        """The reason first: what is shown once the pod has ended is read from there."""
        try:
            async with self._locked(*key[:2]):
                await self._fence.check()
                noted = self._attempts.get(*key[:2])
                if noted is not None:
                    noted.why[key[2]], noted.notes[key[2]] = reason, sentence
                    await asyncio.to_thread(self._attempts.put, *key[:2], noted)
                await self._remover.delete(seen.pod, 1.0)
        except ClusterError as error:
            log.warning("pod %s, which cannot run, could not be deleted: %s", seen.name, error)
        finally:
            self._giving_up.discard(seen.pod["metadata"]["uid"])

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        await self._synced()
        async with self._locked(job_id, attempt):
            await self._fence.check()
            noted = self._attempts.get(job_id, attempt)
            concerned = [seen for seen in self._pods_of(job_id, attempt) if pods is None or seen.name in pods]
            if noted is not None and not noted.is_forgotten:
                noted.told += [seen.name for seen in concerned if not seen.is_over and seen.name not in noted.told]
                for seen in concerned if why else ():
                    noted.notes.setdefault(seen.name, f"told to stop ({why}), within {grace_s:g} s.")
                if pods is None:
                    noted.is_stopped = True
                else:
                    noted.never += [name for name in pods if name not in noted.made and name not in noted.never]
                await asyncio.to_thread(self._attempts.put, job_id, attempt, noted)
            for seen in sorted(concerned, key=lambda each: each.labels.get(names.ROLE) == MASTER):
                if seen.is_over:
                    continue
                point("stop.signal")
                longer = MASTER_GRACE_S if seen.labels.get(names.ROLE) == MASTER else 0.0
                await self._remover.delete(seen.pod, max(1.0, grace_s) + longer)
        self._wake()

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        await self._synced()
        async with self._locked(job_id, attempt):
            await self._fence.check()
            await self._forget(job_id, attempt, erase=erase)
        self._wake()

    async def _forget(self, job_id: str, attempt: int, *, erase: bool) -> None:
        noted = self._attempts.get(job_id, attempt)
        for seen in self._pods_of(job_id, attempt):
            await self._let_go(seen)
        point("forget.ended")
        if erase:
            folder = self._attempts.folder(job_id, attempt)
            for key in [key for key in self._followers if key[:2] == (job_id, attempt)]:
                self._followers[key].cancel()
            for known in [each for each in self._logs if each.parent == folder]:
                del self._logs[known]
            await asyncio.to_thread(self._attempts.erase, job_id, attempt)
        elif noted is not None:
            noted.is_forgotten = True
            await asyncio.to_thread(self._attempts.put, job_id, attempt, noted)

    async def _let_go(self, seen: Seen) -> None:
        """Delete the pod at once and for good; a kubelet that still runs it ends it."""
        await self._remover.delete(seen.pod, 0.0)
        await self._remover.release(seen.pod)
        namespace = seen.pod["metadata"]["namespace"]
        self._pods[namespace].drop(seen.pod)

    async def close(self) -> None:
        """Release all resources; pods keep running."""
        self._is_closed = True
        self._wake()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._api.close()

    def _wake(self) -> None:
        for event in self._changed:
            event.set()

    def _spawn(self, work: object, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)  # type: ignore[arg-type]  # a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @contextlib.asynccontextmanager
    async def _locked(self, job_id: str, attempt: int) -> AsyncIterator[None]:
        """Calls about one attempt come one after the other."""
        lock, users = self._locks.get((job_id, attempt), (asyncio.Lock(), 0))
        self._locks[job_id, attempt] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop((job_id, attempt))
            if users > 1:
                self._locks[job_id, attempt] = lock, users - 1
