"""When the control plane's process ends: on a signal, on request after its jobs, or after a long time without work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tuttilab.scheduler.errors import TuttiError
from tuttilab.scheduler.jobs import Jobs
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.service import Service

IDLE_CHECK_S: Final = 5.0
REST_CHECK_S: Final = 0.05
QUIET_PATHS: Final = ("/healthz", "/readyz", "/metrics", "/pods/report")
"""Ends of paths whose requests do not keep the process alive: programs send them, whether or not anybody is there."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


class Activity:
    """An ASGI application around ours that notes when somebody last asked for something; a long poll asks as long as it waits."""

    def __init__(self, application: Application, clock: Callable[[], float] = time.monotonic) -> None:
        self._application = application
        self._clock = clock
        self._last = clock()
        self._under_way = 0

    def quiet_s(self) -> float:
        return 0.0 if self._under_way else self._clock() - self._last

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or str(scope["path"]).endswith(QUIET_PATHS):
            return await self._application(scope, receive, send)
        self._under_way += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._under_way -= 1
            self._last = self._clock()


class Ending:
    """`wait` returns when the process is to end."""

    def __init__(self, service: Service, user: str) -> None:
        self._service = service
        self._who = Who(user, is_admin=True, in_every_group=True)
        self._event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self) -> None:
        await self._event.wait()

    def at_once(self, why: str) -> None:
        """The work under way is finished, jobs go on by themselves."""
        log.info("ending: %s", why)
        self._event.set()

    def after_jobs(self, now: bool) -> None:
        """As soon as no job is live; with ``now`` they are all cancelled first."""
        log.info("ending after %d live jobs%s", len(self._live()), ", which are cancelled" if now else "")
        self._spawn(self._after_jobs(now))

    def when_idle(self, activity: Activity, idle_stop_s: float) -> None:
        self._spawn(self._when_idle(activity, idle_stop_s))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _live(self) -> list[str]:
        return [job.id for job in self._service.state.jobs.values() if not job.phase.is_terminal]

    async def _after_jobs(self, now: bool) -> None:
        asked: set[str] = set()
        while not self._service.is_at_rest():
            for job_id in [job_id for job_id in self._live() if now and job_id not in asked]:
                try:
                    await Jobs(self._service).cancel(job_id, self._who)
                    asked.add(job_id)
                except TuttiError as error:
                    log.warning("job %s cannot be cancelled yet: %s", job_id, error)
            await asyncio.sleep(REST_CHECK_S)
        self.at_once("asked to, and no job is live")

    async def _when_idle(self, activity: Activity, idle_stop_s: float) -> None:
        while not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(IDLE_CHECK_S, idle_stop_s / 4)):
                    await self._event.wait()
            if self._service.is_at_rest() and activity.quiet_s() >= idle_stop_s:
                self.at_once(f"no job and no request for {idle_stop_s:.0f} s")
