"""The copies of our pods' logs: a follower for each pod whose user code runs, as many of them connected as `logs.Turns` allows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.kubernetes import logs, states
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.attempts import Attempts
from tuttilab.scheduler.clusters.kubernetes.kept import Kept, Key, key_of
from tuttilab.scheduler.clusters.kubernetes.states import Seen
from tuttilab.scheduler.domain.errors import StoreError

log = logging.getLogger(__name__)

LOG_WAIT_S: Final = 10.0
"""An end is shown once the log is copied, at the latest after this time."""
ENDS_A_SECOND: Final = 20.0
"""Of pods that end together: each of them makes the others wait for so much longer."""


class LogCopies:
    """``told``: called once a log is whole. ``is_launching``: whether many pods are being made."""

    def __init__(
        self,
        api: Api,
        attempts: Attempts,
        kept: Kept,
        told: Callable[[], None],
        log_dir: Path,
        *,
        is_shared: bool,
        is_launching: Callable[[], bool],
    ) -> None:
        self._log_dir = log_dir
        self._is_shared = is_shared
        self._api = api
        self._attempts = attempts
        self._kept = kept
        self._told = told
        self._turns = logs.Turns(is_launching=is_launching)
        self._followers: dict[Key, asyncio.Task[None]] = {}
        self._over: dict[Key, asyncio.Event] = {}
        """Set when the pod has ended."""
        self._wanted: dict[Key, asyncio.Event] = {}
        """Set when it has ended, or somebody reads its log."""
        self._over_since: dict[Key, float] = {}
        self._is_closed = False

    def is_whole(self, key: Key) -> bool:
        return logs.is_whole(self._attempts.pod_folder(*key))

    def is_told(self, key: Key) -> bool:
        """Of a pod that has ended: whether all that it printed is copied, or was waited for long enough."""
        if self.is_whole(key):
            self._over_since.pop(key, None)
            return True
        since = self._over_since.setdefault(key, time.monotonic())
        return time.monotonic() - since > LOG_WAIT_S + len(self._followers) / ENDS_A_SECOND

    def is_of_another_machine(self, key: Key) -> bool:
        return logs.is_of_another_machine(self._attempts.pod_folder(*key))

    def follow(self, key: Key, seen: Seen) -> None:
        """Unless it is followed, or copied. Hurries the copy of a pod that has ended."""
        if key in self._followers:
            if seen.is_over:
                self._over[key].set()
                self._wanted[key].set()
            return
        if self._is_closed or self.is_whole(key):
            return
        over, wanted = self._over[key], self._wanted[key] = asyncio.Event(), asyncio.Event()
        if seen.is_over:
            over.set()
            wanted.set()
        task = asyncio.create_task(self._copy(key, seen, over, wanted), name=f"log of {seen.name}")
        self._followers[key] = task
        task.add_done_callback(lambda _: self._forget(key, task))

    def want(self, key: Key) -> None:
        """Somebody reads the log: its copy begins now, whatever else waits."""
        if key in self._wanted:
            self._wanted[key].set()

    def _forget(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._followers.get(key) is task:
            del self._followers[key], self._over[key], self._wanted[key]

    def drop(self, job_id: str, attempt: int) -> None:
        """Of an attempt that is erased."""
        for key in [key for key in self._followers if key[:2] == (job_id, attempt)]:
            self._followers[key].cancel()

    def forget(self, job_id: str, attempt: int) -> None:
        """Of an attempt whose pods are let go of."""
        for key in [key for key in self._over_since if key[:2] == (job_id, attempt)]:
            del self._over_since[key]

    async def close(self) -> None:
        self._is_closed = True
        tasks = list(self._followers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy(self, key: Key, seen: Seen, over: asyncio.Event, wanted: asyncio.Event) -> None:
        metadata = seen.pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        pod_key = key_of(seen.pod)

        def present() -> Seen | None:
            pod = self._kept.pods.get(pod_key)
            return None if pod is None or pod["metadata"]["uid"] != metadata["uid"] else Seen(pod)

        def is_over() -> bool:
            found = present()
            return found is None or found.is_over

        copy: logs.LogCopy | None = None
        try:
            await self._turns.begin(wanted, len(self._followers))
            is_elsewhere = self._attempts.is_elsewhere(*key[:2])
            copy = await asyncio.to_thread(logs.LogCopy, self._attempts.pod_folder(*key), is_shared=self._is_shared)
            if is_elsewhere:
                await asyncio.to_thread(copy.begin_anew, self._log_dir)
            cut = await logs.follow(self._api, namespace, name, copy, is_over, over, self._turns)
            noted = await self._attempts.find(*key[:2])
            last = present()
            message = str(states.message_of(last).get("message") or "") if last is not None else ""
            note = (noted.notes.get(key[2], "") if noted is not None else "") or message
            await asyncio.to_thread(copy.finish, cut, note)
            self._kept.tell((pod_key,))
            self._told()
        except (OSError, StoreError) as error:
            log.warning("the log of %s cannot be kept: %s", name, error)
        finally:
            if copy is not None:
                copy.close()
