"""One of several control planes on one database: leads, or forwards every request to the leader.

The epoch in the database, checked in each commit, decides who leads. A lease on top of it bounds the time to a new leader and
keeps an old one off the clusters. The leader increments its beat every second. A follower that sees the beat unchanged for
`LEASE_S` takes over. A leader whose last written beat is that old performs nothing and answers no request until the next beat is
written. Each side uses its own monotonic clock: the leader counts from before it writes a beat, the follower from when it reads
it, so the old lease ends first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from tuttilab.scheduler.api.forward import LeaderProxy, NoLeader
from tuttilab.scheduler.domain.errors import StaleEpoch, StoreError
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.leadership import Candidate, Leader, of_another_site
from tuttilab.scheduler.store.sql import SqlStore

log = logging.getLogger(__name__)

LEASE_S: Final = 6.0
BEAT_S: Final = 1.0
POLL_S: Final = 0.5
"""Between two reads of the leader's row by a follower."""

MayAct = Callable[[], bool]


class Lease:
    """How long this process may still act as the leader."""

    def __init__(self) -> None:
        self._until = 0.0

    def renew(self, beat_at: float) -> None:
        self._until = beat_at + LEASE_S

    def is_held(self) -> bool:
        # The clock goes on while the process is stopped (SIGSTOP, a suspended machine), so the lease runs out then too.
        return time.monotonic() < self._until


@dataclass(slots=True)
class _Role:
    """The application that answers requests for now. When ``over`` is set, its requests in flight are cancelled and get a 503."""

    application: ASGIApp
    over: asyncio.Event = field(default_factory=asyncio.Event)
    proxy: LeaderProxy | None = None


class Replica:
    """An ASGI application; `run` decides whether it leads or forwards. ``service_of`` and ``app_of`` build what a leader needs."""

    def __init__(
        self,
        store_url: str,
        candidate: Candidate,
        service_of: Callable[[SqlStore, MayAct], Service],
        app_of: Callable[[Service], ASGIApp],
        guard: Callable[[ASGIApp], ASGIApp],
        *,
        ended_epoch: int | None = None,
        note_leading: Callable[[int], None] = lambda epoch: None,
        while_leading: Callable[[Service], Coroutine[None, None, None]] | None = None,
    ) -> None:
        """``guard`` puts authentication before an application. ``ended_epoch``: its leader has certainly ended, so its lease need
        not run out. ``note_leading`` is called with each epoch that this process leads, ``while_leading`` runs meanwhile."""
        self._store_url = store_url
        self._candidate = candidate
        self._service_of = service_of
        self._app_of = app_of
        self._guard = guard
        self._ended_epoch = ended_epoch
        self._note_leading = note_leading
        self._while_leading = while_leading
        self._role = _Role(NoLeader())
        self._leader_url = ""
        self.has_leader = asyncio.Event()
        """Set once requests reach a leader, this process or another."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        role = self._role
        work = asyncio.ensure_future(role.application(scope, receive, send))
        over = asyncio.ensure_future(role.over.wait())
        try:
            await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def run(self) -> None:
        """Follow, lead when there is no leader, follow again after losing the lead; until cancelled. Raises EnvironmentProblem."""
        while True:
            try:
                await self._lead(await self._follow_until_vacant())
            except StoreError as error:
                log.warning("neither leading nor following: %s", error)
            finally:
                await self._switch_to(_Role(NoLeader()))
            await asyncio.sleep(POLL_S)

    async def _switch_to(self, role: _Role) -> None:
        before, self._role = self._role, role
        before.over.set()
        if before.proxy is not None:
            await before.proxy.close()
        if not isinstance(role.application, NoLeader):
            self.has_leader.set()

    # --- following -----------------------------------------------------------------------------------------------------

    async def _follow_until_vacant(self) -> int | None:
        """Forward to the leader while it lives. Returns the epoch that ended, None for a database without our tables."""
        store = SqlStore(self._store_url)
        if not await store.attach():
            await store.close()
            return None
        try:
            first = leader = await store.leader()
            if leader.key_digest and leader.key_digest != self._candidate.key_digest:
                # It could forward, and would end when the leader does, which is when it is needed.
                raise of_another_site()
            if leader.epoch == self._ended_epoch:
                log.info("epoch %d has ended: its leader ran here and is gone", leader.epoch)
                return leader.epoch
            changed_at = time.monotonic()
            while True:
                silent_s = time.monotonic() - changed_at
                # The first row read may be the last one of a leader that was killed: only a beat that changes proves a leader.
                await self._follow(leader, silent_s if leader != first else LEASE_S)
                if leader.beat < 0 or silent_s > LEASE_S:
                    why = "it was released" if leader.beat < 0 else f"silent for {silent_s:.1f} s"
                    log.info("epoch %d has ended (%s)", leader.epoch, why)
                    return leader.epoch
                await asyncio.sleep(POLL_S)
                leader, changed_at = await self._read_leader(store, leader, changed_at)
        finally:
            await store.close()

    @staticmethod
    async def _read_leader(store: SqlStore, before: Leader, changed_at: float) -> tuple[Leader, float]:
        """The leader's row, and when this process saw it change last."""
        try:
            leader = await store.leader()
        except StoreError as error:
            log.warning("the leader's beat cannot be read: %s", error)
            # The leader cannot write its beat either, so its silence counts from when the database is back.
            return before, time.monotonic()
        return leader, changed_at if leader == before else time.monotonic()

    async def _follow(self, leader: Leader, silent_s: float) -> None:
        # One missed beat is normal; after half a lease a caller gets a 503 and retries, instead of waiting.
        url = leader.url if silent_s < LEASE_S / 2 else ""
        if url == self._leader_url and (self._role.proxy is not None) == bool(url):
            return
        self._leader_url = url
        if not url:
            await self._switch_to(_Role(NoLeader()))
            return
        log.info("following epoch %d at %s", leader.epoch, url)
        proxy = LeaderProxy(url)
        await self._switch_to(_Role(self._guard(proxy), proxy=proxy))

    # --- leading -------------------------------------------------------------------------------------------------------

    async def _lead(self, after: int | None) -> None:
        """Lead until another process does. Raises StaleEpoch when another process took over first."""
        candidate = replace(self._candidate, after=after)
        store, beats, lease = SqlStore(self._store_url, candidate=candidate), SqlStore(self._store_url), Lease()
        opened_at = time.monotonic()
        epoch = await store.open()
        self._note_leading(epoch)
        try:
            service = self._service_of(store, lease.is_held)
            await beats.attach()
            lease.renew(opened_at)
            ready = asyncio.Event()
            beating = asyncio.create_task(self._beat(beats, epoch, lease, ready), name="beat")
            try:
                log.info("leading with epoch %d", epoch)
                await service.start(epoch)
                await self._switch_to(_Role(self._while_leased(self._app_of(service), lease)))
                ready.set()
                deposed = asyncio.ensure_future(service.deposed.wait())
                async with self._beside(service):
                    await asyncio.wait({beating, deposed}, return_when=asyncio.FIRST_COMPLETED)
                deposed.cancel()
                log.warning("epoch %d is over", epoch)
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                await self._switch_to(_Role(NoLeader()))
                await service.stop()
                with contextlib.suppress(StoreError):
                    await beats.release(epoch)
        finally:
            await beats.close()
            await store.close()

    @contextlib.asynccontextmanager
    async def _beside(self, service: Service) -> AsyncIterator[None]:
        """Runs ``while_leading`` until the end of the block."""
        task = asyncio.create_task(self._while_leading(service), name="while leading") if self._while_leading else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _beat(self, beats: SqlStore, epoch: int, lease: Lease, ready: asyncio.Event) -> None:
        """Write a beat every `BEAT_S`, at once when ``ready`` is set. Returns when another process leads."""
        while True:
            beat_at = time.monotonic()
            try:
                await beats.beat(epoch, self._candidate.url if ready.is_set() else "")
                lease.renew(beat_at)
            except StaleEpoch as stale:
                log.warning("%s", stale)
                return
            except StoreError as error:
                log.warning("the leader's beat could not be written: %s", error)
            if ready.is_set():
                await asyncio.sleep(BEAT_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await ready.wait()

    @staticmethod
    def _while_leased(application: ASGIApp, lease: Lease) -> ASGIApp:
        """Answers with `NoLeader` once the lease has run out: another process may lead then, and answers from here be stale."""
        no_leader = NoLeader()

        async def lead(scope: Scope, receive: Receive, send: Send) -> None:
            await (application if lease.is_held() else no_leader)(scope, receive, send)

        return lead
