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
from tuttilab.scheduler.clusters.kept.displays import append, read_displays
from tuttilab.scheduler.clusters.kept.logs import PodLog
from tuttilab.scheduler.clusters.kept.usage import read_usage
from tuttilab.scheduler.clusters.kubernetes import logs, names, states
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.attempts import Attempts, FileNotes, Keeper, Noted
from tuttilab.scheduler.clusters.kubernetes.copies import LogCopies
from tuttilab.scheduler.clusters.kubernetes.fence import LeaseFence
from tuttilab.scheduler.clusters.kubernetes.informer import Informer
from tuttilab.scheduler.clusters.kubernetes.kept import Kept, Key, Observer, ShownNodes, due, node_kept, pod_kept
from tuttilab.scheduler.clusters.kubernetes.launch import Launcher, Remover
from tuttilab.scheduler.clusters.kubernetes.others import Others
from tuttilab.scheduler.clusters.kubernetes.pods import MAIN, Body
from tuttilab.scheduler.clusters.kubernetes.settings import MASTER_COST, SIDECAR_COST, KubernetesSettings
from tuttilab.scheduler.clusters.kubernetes.silence import Silence
from tuttilab.scheduler.clusters.kubernetes.states import Seen
from tuttilab.scheduler.clusters.kubernetes.usage import WHY, Measuring
from tuttilab.scheduler.domain.errors import Bug, ClusterError, ClusterUnreachable, LaunchRefused, NotFound, StoreError
from tuttilab.scheduler.domain.model import MASTER, Node, PodPhase
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar import protocol

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Between two looks while nothing changes: for what depends on time alone."""
UNREACHABLE_S: Final = 5.0
"""After this time without an answer the cluster counts as unreachable."""
MASTER_GRACE_S: Final = 10.0
"""A master gets this much longer than its members, to hear of their ends."""
TOGETHER_S: Final = 0.02
"""Between two observations of changes, at least."""
TOGETHER_REST: Final = 2.0
"""Pause after an observation, as a multiple of the time that whoever was shown it took; what comes meanwhile is shown together."""
LONGEST_TOGETHER_S: Final = 1.0
LAUNCHES_AT_ONCE: Final = 100
FEW_PODS: Final = 8
"""Launched at a time, beside which logs are copied without a delay."""
LISTING_REST: Final = 50.0
"""Pause after a list, as a multiple of its duration: lists take at most a fiftieth of the time."""
REPLACE_S: Final = 60.0
"""For the pods of an earlier epoch to end before their names are used again."""
OPEN_LOGS: Final = 256


class KubernetesCluster:
    """``installation``: tells the objects of this control plane from those of others. All calls belong to one event loop.

    ``keeper``: of notes, for one of several control planes; without it they are files in ``state_dir``.
    """

    def __init__(
        self,
        name: str,
        settings: KubernetesSettings,
        state_dir: Path,
        installation: str,
        *,
        keeper: Keeper | None = None,
        heartbeat_s: float = 5.0,
        lease_s: float = 45.0,
        output_bytes: int = protocol.MOST_OUTPUT_BYTES,
        unpacked_bytes: int = protocol.MOST_UNPACKED_BYTES,
    ) -> None:
        self.name = name
        self._settings = settings
        self._installation = installation
        self._api = Api(name, settings)
        owner = names.selector({names.INSTALLATION: installation})
        self._kept = kept = Kept()
        self._shown_nodes = ShownNodes(name, settings.tolerations)

        def note_node(was: Body | None, now: Body | None) -> None:
            self._shown_nodes.note(was, now)
            kept.note_node(was, now)

        self._nodes = Informer(
            self._api, name, "/api/v1/nodes", names.selector(settings.node_labels), kept.wake, keep=node_kept, on_item=note_node
        )
        self._pods = {
            namespace: Informer(
                self._api, name, f"/api/v1/namespaces/{namespace}/pods", owner, kept.wake, keep=pod_kept, on_item=kept.note_pod
            )
            for namespace in settings.all_namespaces
        }
        self._others = Others(self._api, name, installation)
        state_dir = state_dir.absolute()
        self._log_dir = state_dir if settings.logs is None else Path(settings.logs) / name
        self._attempts = Attempts(self._log_dir, keeper or FileNotes(state_dir))
        self._fence = LeaseFence(self._api, name, settings.namespace, installation, state_dir)
        limits = {"heartbeat_s": heartbeat_s, "lease_s": lease_s, "output_bytes": output_bytes, "unpacked_bytes": unpacked_bytes}
        self._launcher = Launcher(name, settings, self._api, self._pods, self._nodes, installation, limits)
        self._remover = Remover(self._api, name)
        self._silence = Silence(heartbeat_s, lease_s)
        self._measuring = Measuring(self._api, name, owner, self._running)
        self._turns = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self._launching = 0
        """Pods of launches under way, or waiting for their turn."""
        self._locks: dict[tuple[str, int], tuple[asyncio.Lock, int]] = {}
        """By attempt, with the number of those who hold it or wait for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._copies = LogCopies(
            self._api,
            self._attempts,
            kept,
            kept.wake,
            self._log_dir,
            is_shared=settings.logs is not None,
            is_launching=self._is_launching,
        )
        self._giving_up: set[str] = set()
        """Uids of pods that are being deleted because their user code will not start."""
        self._logs: OrderedDict[Path, PodLog] = OrderedDict()
        self._is_watching = False
        self._is_closed = False

    # --- looking -------------------------------------------------------------------------------------------------------

    async def lead(self, epoch: int) -> None:
        self._attempts.lead(epoch)
        self._launcher.epoch = epoch
        await self._fence.raise_to(epoch)

    async def observe(self) -> AsyncGenerator[Observation]:
        await self._fence.check()
        await self._sync()
        observer = Observer(changed=set(self._kept.pods))
        self._kept.observers.add(observer)
        try:
            nodes = self._known_nodes()
            yield self._observation(self._changes(observer), nodes, is_complete=True)
            while not self._is_closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await observer.wake.wait()
                observer.wake.clear()
                self._raise_if_unreachable()
                changed, present = self._changes(observer), self._known_nodes()
                if changed or present is not nodes:
                    began = time.monotonic()
                    yield self._observation(changed, present if present is not nodes else None)
                    nodes = present
                    rest_s = (time.monotonic() - began) * TOGETHER_REST
                    await asyncio.sleep(min(max(TOGETHER_S, rest_s), LONGEST_TOGETHER_S))
        finally:
            self._kept.observers.discard(observer)

    @staticmethod
    def _observation(pods: tuple[PodState, ...], nodes: tuple[Node, ...] | None, *, is_complete: bool = False) -> Observation:
        return Observation(pods, nodes, is_complete, SIDECAR_COST, MASTER_COST)

    async def _sync(self) -> None:
        """List everything, and watch from now on. Raises ClusterUnreachable, StoreError.

        What takes long to list is not listed again at once: its watch goes on.
        """
        await self._attempts.load()
        for informer in (self._nodes, *self._pods.values()):
            if not self._is_watching or time.monotonic() - informer.listed_at > informer.listing_s * LISTING_REST:
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
            self._spawn(self._measuring.run(), f"measure {self.name}")
            self._spawn(self._fence.renew(), f"renew the lease of {self.name}")

    async def _synced(self) -> None:
        await self._attempts.load()
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
        return self._shown_nodes.of(self._nodes.objects, self._others.by_node())

    def _seen(self, pod: Body) -> Seen | None:
        """None for a pod that is none of ours, or forgotten."""
        labels = pod["metadata"].get("labels", {})
        if names.JOB not in labels or not str(labels.get(names.ATTEMPT, "")).isdecimal():
            return None
        node = self._nodes.objects.get(("", pod.get("spec", {}).get("nodeName", "")))
        seen = Seen(pod, self._silence.has_outlasted(pod, node))
        noted = self._attempts.get(seen.job_id, seen.attempt)
        if noted is None or str(noted.epoch) != labels.get(names.EPOCH):
            return seen
        if noted.is_forgotten:
            return None
        return replace(seen, is_told=seen.name in noted.told, why=noted.why.get(seen.name, ""))

    def _pods_of(self, job_id: str, attempt: int) -> list[Seen]:
        return [Seen(pod) for pod in self._kept.of_attempt(job_id, attempt)]

    def _changes(self, observer: Observer) -> tuple[PodState, ...]:
        """States that differ from those that the observer was shown. Starts followers, and gives up pods that will not run."""
        now, changed = self._api.now(), []
        for key, pod in due(observer, self._kept, time.monotonic(), POLL_S):
            observer.unsettled.discard(key)
            seen = None if pod is None else self._seen(pod)
            if seen is None:
                observer.shown.pop(key, None)
                continue
            known, state = observer.shown.get(key), states.state_of(seen, now)
            own = (state.job_id, state.attempt, state.name)
            is_master = seen.labels.get(names.ROLE) == MASTER
            if not is_master and (seen.has_started(MAIN) or seen.is_over):
                self._copies.follow(own, seen)
            if state.phase is PodPhase.ENDED and not is_master and not self._copies.is_told(own):
                observer.unsettled.add(key)
                state = known or replace(state, phase=PodPhase.PENDING, exit_code=None, reason="", outputs={})
            elif state.exit_code and state.reason == "Error" and self._copies.is_of_another_machine(own):
                state = replace(state, reason=states.WRONG_ARCHITECTURE)
            elif not seen.is_over:
                if state.phase is PodPhase.PENDING or seen.is_deleted:
                    observer.unsettled.add(key)
                if (why := states.hopeless(seen, now, self._settings.container_patience_s)) is not None:
                    self._give_up(own, seen, *why)
            if state != known:
                observer.shown[key] = state
                changed.append(state)
        return tuple(changed)

    # --- logs ----------------------------------------------------------------------------------------------------------

    async def logs(self, job_id: str, attempt: int, pod: str, start: int, limit: int) -> LogChunk:
        folder = self._attempts.pod_folder(job_id, attempt, pod)
        if not folder.is_dir():
            noted = await self._attempts.find(job_id, attempt)
            where = ""
            if noted is not None and pod in noted.made:
                where = f": another control plane wrote it, to a folder that is not {self._log_dir} here; mend clusters[].logs"
            raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: no log is kept here{where}.")
        reader = self._logs.setdefault(folder, PodLog(folder, logs.LOG_BYTES))
        self._logs.move_to_end(folder)
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)
        self._copies.want((job_id, attempt, pod))
        # Checked before the read: everything was written by then.
        is_over = logs.is_whole(folder) or pod.endswith(f"-{MASTER}")
        return await asyncio.to_thread(lambda: reader.read(start, limit, is_over=is_over))

    async def usage(self, job_id: str, attempt: int, pod: str) -> Usage:
        found = await asyncio.to_thread(read_usage, self._attempts.pod_folder(job_id, attempt, pod))
        if found is None:
            why = WHY if self._measuring.is_refused else "it was not measured so far"
            raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}, on cluster {self.name}: {why}.")
        return found

    def _running(self) -> dict[tuple[str, str], tuple[Path, float]]:
        """Of members whose user code runs: their folder, and when it started."""
        found = {}
        for seen in filter(None, map(self._seen, self._kept.pods.values())):
            began = seen.container(MAIN).get("state", {}).get("running", {}).get("startedAt")
            if began and seen.labels.get(names.ROLE) != MASTER:
                metadata = seen.pod["metadata"]
                folder = self._attempts.pod_folder(seen.job_id, seen.attempt, seen.name)
                found[metadata["namespace"], metadata["name"]] = (folder, states.unix_time(began))
        return found

    async def displays(self, job_id: str, attempt: int, pod: str, start: int) -> DisplayChunk:
        return await asyncio.to_thread(read_displays, self._attempts.pod_folder(job_id, attempt, pod), start)

    async def keep_displays(self, job_id: str, attempt: int, pod: str, start: int, body: bytes) -> int:
        async with self._locked(job_id, attempt):
            folder = self._attempts.pod_folder(job_id, attempt, pod)
            if not folder.is_dir():
                raise NotFound(f"pod {pod} of attempt {attempt} of job {job_id}: nothing of it is kept here.")
            return await asyncio.to_thread(append, folder, start, body)

    # --- launching -----------------------------------------------------------------------------------------------------

    def _is_launching(self) -> bool:
        return self._launching > FEW_PODS or self._launcher.is_busy

    async def launch(self, plan: LaunchPlan) -> None:
        self._launching += len(plan.pods)
        try:
            await self._launch(plan)
        finally:
            self._launching -= len(plan.pods)
        self._kept.wake()

    async def _launch(self, plan: LaunchPlan) -> None:
        await self._synced()
        # Whoever waits for a turn has checked nothing yet.
        async with self._turns, self._locked(plan.job_id, plan.attempt):
            await self._check_may_create()
            self._launcher.check(plan, (name for _, name in self._nodes.objects))
            noted = self._noted_for(plan, await self._without_earlier_epoch(plan))
            await self._note(plan, noted)
            try:
                await self._launcher.create(plan, noted)
            except LaunchRefused as refusal:
                if not plan.is_growth:
                    await self._undo(plan, noted, str(refusal))
                raise
            finally:
                await self._put(plan, noted)

    async def _check_may_create(self) -> None:
        try:
            await self._fence.check(creates=True)
        except ClusterUnreachable as error:
            if self._fence.is_without_place:
                raise LaunchRefused(str(error)) from error
            raise

    async def _without_earlier_epoch(self, plan: LaunchPlan) -> Noted | None:
        """What is noted, once pods and notes of an attempt that a restored database does not contain are ended and erased."""
        noted = await self._attempts.find(plan.job_id, plan.attempt)
        if noted is not None and noted.epoch > plan.epoch:
            raise LaunchRefused(f"{plan.title} was launched in epoch {noted.epoch}, later than {plan.epoch}.")
        others = [seen for seen in self._pods_of(plan.job_id, plan.attempt) if int(seen.labels.get(names.EPOCH, 0)) < plan.epoch]
        if not others and (noted is None or noted.epoch == plan.epoch):
            return noted
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
        return None

    def _noted_for(self, plan: LaunchPlan, noted: Noted | None) -> Noted:
        """Raises LaunchRefused for an attempt that was refused or forgotten, Bug for another digest."""
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

    async def _note(self, plan: LaunchPlan, noted: Noted) -> None:
        if not noted.is_stopped:
            noted.pods.update({pod.name: pod.digest for pod in plan.pods})
        self._attempts.is_elsewhere(plan.job_id, plan.attempt)  # before there is a folder
        await self._attempts.make_folders(plan.job_id, plan.attempt, noted.pods)
        await self._put(plan, noted)

    async def _put(self, plan: LaunchPlan, noted: Noted) -> None:
        await self._attempts.put(plan.job_id, plan.attempt, noted, is_durable=bool(noted.refused))

    async def _undo(self, plan: LaunchPlan, noted: Noted, why: str) -> None:
        """Remove a gang that cannot start completely; no user code ran, because a member was missing."""
        noted.refused = why
        for seen in self._pods_of(plan.job_id, plan.attempt):
            await self._let_go(seen)

    # --- ending --------------------------------------------------------------------------------------------------------

    def _give_up(self, key: Key, seen: Seen, reason: str, sentence: str) -> None:
        uid = seen.pod["metadata"]["uid"]
        if uid not in self._giving_up and not self._is_closed:
            self._giving_up.add(uid)
            self._spawn(self._delete_hopeless(key, seen, reason, sentence), f"give up {seen.name}")

    async def _delete_hopeless(self, key: Key, seen: Seen, reason: str, sentence: str) -> None:
        """The reason first: what is shown once the pod has ended is read from there."""
        try:
            async with self._locked(*key[:2]):
                await self._fence.check()
                noted = await self._attempts.find(*key[:2])
                if noted is not None:
                    noted.why[key[2]], noted.notes[key[2]] = reason, sentence
                    await self._attempts.put(*key[:2], noted)
                await self._remover.delete(seen.pod, 1.0)
        except (ClusterError, StoreError) as error:
            log.warning("pod %s, which cannot run, could not be deleted: %s", seen.name, error)
        finally:
            self._giving_up.discard(seen.pod["metadata"]["uid"])

    async def stop(self, job_id: str, attempt: int, grace_s: float, pods: Collection[str] | None = None, *, why: str = "") -> None:
        await self._synced()
        async with self._locked(job_id, attempt):
            await self._fence.check()
            noted = await self._attempts.find(job_id, attempt) or _noted_by(self._pods_of(job_id, attempt))
            concerned = [seen for seen in self._pods_of(job_id, attempt) if pods is None or seen.name in pods]
            if noted is not None and not noted.is_forgotten:
                noted.told += [seen.name for seen in concerned if not seen.is_over and seen.name not in noted.told]
                for seen in concerned if why else ():
                    noted.notes.setdefault(seen.name, f"told to stop ({why}), within {grace_s:g} s.")
                if pods is None:
                    noted.is_stopped = True
                else:
                    noted.never += [name for name in pods if name not in noted.made and name not in noted.never]
                await self._attempts.put(job_id, attempt, noted)
            for seen in sorted(concerned, key=lambda each: each.labels.get(names.ROLE) == MASTER):
                if seen.is_over:
                    continue
                point("stop.signal")
                longer = MASTER_GRACE_S if seen.labels.get(names.ROLE) == MASTER else 0.0
                await self._remover.delete(seen.pod, max(1.0, grace_s) + longer)
        self._kept.wake()

    async def forget(self, job_id: str, attempt: int, *, erase: bool = False) -> None:
        await self._synced()
        async with self._locked(job_id, attempt):
            await self._fence.check()
            await self._forget(job_id, attempt, erase=erase)
        self._kept.wake()

    async def _forget(self, job_id: str, attempt: int, *, erase: bool) -> None:
        noted = await self._attempts.find(job_id, attempt)
        for seen in self._pods_of(job_id, attempt):
            await self._let_go(seen)
        self._copies.forget(job_id, attempt)
        point("forget.ended")
        if erase:
            folder = self._attempts.folder(job_id, attempt)
            self._copies.drop(job_id, attempt)
            for known in [each for each in self._logs if each.parent == folder]:
                del self._logs[known]
            await self._attempts.erase(job_id, attempt)
        elif noted is not None:
            noted.is_forgotten = True
            await self._attempts.put(job_id, attempt, noted)

    async def _let_go(self, seen: Seen) -> None:
        """Delete the pod at once and for good; a kubelet that still runs it ends it."""
        await self._remover.delete(seen.pod, 0.0)
        await self._remover.release(seen.pod)
        namespace = seen.pod["metadata"]["namespace"]
        self._pods[namespace].drop(seen.pod)

    async def close(self) -> None:
        """Release all resources; pods keep running."""
        self._is_closed = True
        self._kept.wake()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._copies.close()
        await self._api.close()

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


def _noted_by(pods: Collection[Seen]) -> Noted | None:
    """By the labels of pods whose note is lost, as that of a database that was restored."""
    epoch = max((int(seen.labels.get(names.EPOCH, 0)) for seen in pods), default=0)
    newest = [seen for seen in pods if seen.labels.get(names.EPOCH) == str(epoch)]
    if not newest:
        return None
    return Noted(
        epoch,
        newest[0].labels.get(names.GANG, ""),
        newest[0].pod["metadata"]["namespace"],
        pods={seen.name: seen.labels.get(names.DIGEST, "") for seen in newest},
        made={seen.name: seen.pod["metadata"]["uid"] for seen in newest},
    )
