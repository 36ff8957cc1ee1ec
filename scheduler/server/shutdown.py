"""Decides when the process of the control plane ends: on a signal, on request after its jobs, or after a long idle time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.usecases.jobs import Jobs

IDLE_CHECK_S: Final = 5.0
DRAIN_CHECK_S: Final = 0.05
IGNORED_PATHS: Final = ("/healthz", "/readyz", "/metrics", "/pods/report", "/pods/displays")
"""Ends of paths whose requests do not keep the process alive: probes and sidecars send them without any user."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


class Activity:
    """ASGI middleware that measures the time since the last request of a client; a long poll counts until it is answered."""

    def __init__(self, application: Application, clock: Callable[[], float] = time.monotonic) -> None:
        self._application = application
        self._clock = clock
        self._last_at = clock()
        self._in_flight = 0

    def idle_s(self) -> float:
        return 0.0 if self._in_flight else self._clock() - self._last_at

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or str(scope["path"]).endswith(IGNORED_PATHS):
            return await self._application(scope, receive, send)
        self._in_flight += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._last_at = self._clock()


class Shutdown:
    """Collects the reasons to end; `wait` returns at the first of them."""

    def __init__(self, service: Service, user: str) -> None:
        self._service = service
        self._who = Who(user, is_admin=True, in_every_group=True)
        self._event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self) -> None:
        await self._event.wait()

    def at_once(self, why: str) -> None:
        """End without waiting for jobs: their pods go on by themselves."""
        log.info("ending: %s", why)
        self._event.set()

    def after_jobs(self, now: bool) -> None:
        """End as soon as no job is live; with ``now`` all jobs are cancelled first."""
        log.info("ending after %d live jobs%s", len(self._live_jobs()), ", which are cancelled" if now else "")
        self._spawn(self._after_jobs(now))

    def when_idle(self, activity: Activity, idle_stop_s: float) -> None:
        """End after ``idle_stop_s`` seconds without a live job and without a request."""
        self._spawn(self._when_idle(activity, idle_stop_s))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _live_jobs(self) -> list[str]:
        return [job.id for job in self._service.state.jobs.values() if not job.phase.is_terminal]

    async def _after_jobs(self, now: bool) -> None:
        cancelled: set[str] = set()
        while not self._service.is_idle():
            for job_id in [job_id for job_id in self._live_jobs() if now and job_id not in cancelled]:
                try:
                    await Jobs(self._service).cancel(job_id, self._who)
                    cancelled.add(job_id)
                except TuttiError as error:
                    log.warning("job %s cannot be cancelled yet: %s", job_id, error)
            await asyncio.sleep(DRAIN_CHECK_S)
        self.at_once("shutdown was requested, and no job is live")

    async def _when_idle(self, activity: Activity, idle_stop_s: float) -> None:
        while not self._event.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(IDLE_CHECK_S, idle_stop_s / 4)):
                    await self._event.wait()
            if self._service.is_idle() and activity.idle_s() >= idle_stop_s:
                self.at_once(f"no job and no request for {idle_stop_s:.0f} s")
