"""One of several control planes on one database: it leads, or it forwards every request to the one that does.

Who leads is the epoch in the database, checked in each commit. Around it stands a lease, so that a new leader is found in
time and an old one leaves the clusters alone: the leader counts up its beat every second, a follower that sees it stand still
for `LEASE_S` takes over, and a leader whose last beat is as old touches nothing and answers nobody until it has heard from the
database. Both measure with their own monotonic clock, from the beat's beginning here and from its sight there, so that the old
lease ends first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from tuttilab.scheduler.api.forward import Forward, NoLeader
from tuttilab.scheduler.errors import StaleEpoch, StoreError
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.leading import Candidate, Leader
from tuttilab.scheduler.store.sql import SqlStore

log = logging.getLogger(__name__)

LEASE_S: Final = 6.0
BEAT_S: Final = 1.0
LOOK_S: Final = 0.5

MayAct = Callable[[], bool]


class Lease:
    """Until when this process may act as the leader."""

    def __init__(self) -> None:
        self._until = 0.0

    def renew(self, heard_at: float) -> None:
        self._until = heard_at + LEASE_S

    def is_held(self) -> bool:
        # A process that was stopped for a while sees here how long: this clock went on.
        return time.monotonic() < self._until


@dataclass(slots=True)
class _Role:
    """What requests meet now. When it is over, those that still wait hear that they may ask again."""

    application: ASGIApp
    over: asyncio.Event = field(default_factory=asyncio.Event)
    forward: Forward | None = None


class Replica:
    """An ASGI application, and `run`, which decides what it does. ``service_of`` and ``app_of`` make what leading takes."""

    def __init__(
        self,
        store_url: str,
        candidate: Candidate,
        service_of: Callable[[SqlStore, MayAct], Service],
        app_of: Callable[[Service], ASGIApp],
        guarded: Callable[[ASGIApp], ASGIApp],
        *,
        ended_epoch: int | None = None,
        note_leading: Callable[[int], None] = lambda epoch: None,
    ) -> None:
        """``ended_epoch``: whose leader is certainly gone, so that its lease need not run out. ``note_leading`` hears of ours."""
        self._store_url = store_url
        self._candidate = candidate
        self._service_of = service_of
        self._app_of = app_of
        self._guarded = guarded
        self._ended_epoch = ended_epoch
        self._note_leading = note_leading
        self._role = _Role(NoLeader())
        self._leader_url = ""
        self.is_settled = asyncio.Event()
        """Set once requests reach a leader, this one or another."""

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
        """Follow, lead when nobody does, follow again when another took over; until it is cancelled. Raises EnvironmentProblem."""
        while True:
            try:
                await self._lead(await self._vacancy())
            except StoreError as error:
                log.warning("neither leading nor following: %s", error)
            finally:
                await self._become(_Role(NoLeader()))
            await asyncio.sleep(LOOK_S)

    async def _become(self, role: _Role) -> None:
        before, self._role = self._role, role
        before.over.set()
        if before.forward is not None:
            await before.forward.close()
        if not isinstance(role.application, NoLeader):
            self.is_settled.set()

    # --- following -----------------------------------------------------------------------------------------------------

    async def _vacancy(self) -> int | None:
        """Forward to the leader as long as it lives; answers the epoch that ended, None for a database without our tables."""
        store = SqlStore(self._store_url)
        if not await store.attach():
            await store.close()
            return None
        try:
            first = seen = await store.leader()
            if seen.epoch == self._ended_epoch:
                log.info("epoch %d has ended: its leader ran here and is gone", seen.epoch)
                return seen.epoch
            since = time.monotonic()
            while True:
                quiet_s = time.monotonic() - since
                # What the row says at first may be the last word of one that was killed: only a beat that goes on is a leader's.
                await self._follow(seen, quiet_s if seen != first else LEASE_S)
                if seen.beat < 0 or quiet_s > LEASE_S:
                    log.info(
                        "epoch %d has ended (%s)", seen.epoch, "it said so" if seen.beat < 0 else f"silent for {quiet_s:.1f} s"
                    )
                    return seen.epoch
                await asyncio.sleep(LOOK_S)
                seen, since = await self._look(store, seen, since)
        finally:
            await store.close()

    @staticmethod
    async def _look(store: SqlStore, before: Leader, since: float) -> tuple[Leader, float]:
        try:
            now = await store.leader()
        except StoreError as error:
            log.warning("the leader's beat cannot be seen: %s", error)
            # Nor can the leader be heard then: its silence begins when the database is back.
            return before, time.monotonic()
        return now, since if now == before else time.monotonic()

    async def _follow(self, leader: Leader, quiet_s: float) -> None:
        # One missed beat is nothing; after half a lease a caller had better ask again than wait.
        url = leader.url if quiet_s < LEASE_S / 2 else ""
        if url == self._leader_url and (self._role.forward is not None) == bool(url):
            return
        self._leader_url = url
        if not url:
            await self._become(_Role(NoLeader()))
            return
        log.info("following epoch %d at %s", leader.epoch, url)
        forward = Forward(url)
        await self._become(_Role(self._guarded(forward), forward=forward))

    # --- leading -------------------------------------------------------------------------------------------------------

    async def _lead(self, after: int | None) -> None:
        """Until another one does. Raises StaleEpoch when another one was quicker."""
        candidate = replace(self._candidate, after=after)
        store, beats, lease = SqlStore(self._store_url, candidate=candidate), SqlStore(self._store_url), Lease()
        heard_at = time.monotonic()
        epoch = await store.open()
        self._note_leading(epoch)
        try:
            service = self._service_of(store, lease.is_held)
            await beats.attach()
            lease.renew(heard_at)
            ready = asyncio.Event()
            beating = asyncio.create_task(self._beat(beats, epoch, lease, ready), name="beat")
            try:
                log.info("leading with epoch %d", epoch)
                await service.start(epoch)
                await self._become(_Role(self._leading(self._app_of(service), lease)))
                ready.set()
                deposed = asyncio.ensure_future(service.deposed.wait())
                await asyncio.wait({beating, deposed}, return_when=asyncio.FIRST_COMPLETED)
                deposed.cancel()
                log.warning("epoch %d is over", epoch)
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                await self._become(_Role(NoLeader()))
                await service.stop()
                with contextlib.suppress(StoreError):
                    await beats.release(epoch)
        finally:
            await beats.close()
            await store.close()

    async def _beat(self, beats: SqlStore, epoch: int, lease: Lease, ready: asyncio.Event) -> None:
        """Returns when another one leads."""
        while True:
            began = time.monotonic()
            try:
                await beats.beat(epoch, self._candidate.url if ready.is_set() else "")
                lease.renew(began)
            except StaleEpoch as stale:
                log.warning("%s", stale)
                return
            except StoreError as error:
                log.warning("the leader's beat was not heard: %s", error)
            if ready.is_set():
                await asyncio.sleep(BEAT_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await ready.wait()

    @staticmethod
    def _leading(application: ASGIApp, lease: Lease) -> ASGIApp:
        """What is read is as true as the lease: after a long stop another one may lead, and know more."""
        no_leader = NoLeader()

        async def lead(scope: Scope, receive: Receive, send: Send) -> None:
            await (application if lease.is_held() else no_leader)(scope, receive, send)

        return lead
