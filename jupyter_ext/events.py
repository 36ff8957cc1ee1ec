"""The change feed: one long poll per server, whatever the number of tabs, passed on to them as small jupyter-events notices.

Jupyter's event socket carries a notice to every open page within milliseconds. It neither filters nor repeats, so a notice only
names what changed, and the page fetches it through the handlers. After missed notices a page fetches everything, as after a
notice with `resync`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from tuttilab.scheduler.domain import events, wire
from tuttilab.scheduler.domain.errors import NotFound, TuttiError
from tuttilab.scheduler.domain.wire import ChangesView, EventView

SCHEMA_ID: Final = "https://tuttilab/events/changed/v1"
SCHEMA_FILE: Final = Path(__file__).parent / "schemas" / "changed.v1.yaml"
POLL_S: Final = 25.0
GAP_S: Final = 0.05
"""Pause between two notices: batches changes, so that many changes make few notices."""
MOST_KEYS: Final = 200
"""In one notice. A page shows fewer jobs at once, so with more changes it is cheaper to fetch the list."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0

SITE_EVENTS: Final = {
    events.QueuesConfigured.__name__,
    events.ClusterObserved.__name__,
    events.OthersObserved.__name__,
    events.ClusterLost.__name__,
    events.ClusterBack.__name__,
    events.DagApplied.__name__,
}
RUN_EVENTS: Final = {events.RunSubmitted.__name__, events.RunCancelRequested.__name__, events.RunRetried.__name__}
UNSEEN_EVENTS: Final = {events.ArtifactStored.__name__}
"""Of which the page shows nothing."""

log = logging.getLogger(__name__)


class Sender(Protocol):
    """The part of `ControlPlane` that the feed uses."""

    async def send(
        self, method: str, path: str, params: dict[str, str], *, may_repeat: bool = False, wait_s: float = 0.0
    ) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """See schemas/changed.v1.yaml."""

    status: str
    detail: str = ""
    since: int = 0
    seq: int = 0
    resync: bool = False
    jobs: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    site: bool = False

    def data(self) -> dict[str, object]:
        return asdict(self) | {"jobs": list(self.jobs), "runs": list(self.runs)}


def notice_of(since: int, seq: int, changes: Sequence[EventView]) -> Notice:
    """The changes as one notice, each id once and in the order of the journal."""
    site = any(change.kind in SITE_EVENTS for change in changes)
    runs = tuple(dict.fromkeys(change.key for change in changes if change.kind in RUN_EVENTS))
    jobs = tuple(dict.fromkeys(change.key for change in changes if change.kind not in RUN_EVENTS | SITE_EVENTS | UNSEEN_EVENTS))
    if len(jobs) + len(runs) > MOST_KEYS:
        return Notice(status="up", since=since, seq=seq, resync=True, site=site)
    return Notice(status="up", since=since, seq=seq, jobs=jobs, runs=runs, site=site)


class ChangeFeed:
    """Runs from the first `ensure_running` until `stop`.

    ``state`` is the newest notice about the control plane's state, ``seq`` the last journal number that was passed on.
    """

    def __init__(self, plane: Sender, emit: Callable[[Notice], None]) -> None:
        self._plane = plane
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._retry_requested = asyncio.Event()
        self.state = Notice(status="down", detail="Connecting to the control plane.")
        self.seq = 0

    def ensure_running(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tuttilab change feed")

    def retry_now(self) -> None:
        """Retry at once: the control plane is probably back."""
        self._retry_requested.set()

    def hear_nothing(self, sentence: str) -> None:
        """Some request has no answer yet: the pages are told at once, and asking anew shows when there is one again."""
        if self.state.status == "down":
            return
        self._publish(Notice(status="down", detail=sentence))
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self.ensure_running()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        seq: int | None = None
        pause = FIRST_PAUSE_S
        while True:
            try:
                if seq is None:
                    # First of all, so that no change between this answer and the pages' requests is missed.
                    seq = self.seq = (await self._fetch_changes({})).seq
                    self._publish(Notice(status="up", seq=seq, resync=True))
                    pause = FIRST_PAUSE_S
                view = await self._fetch_changes({"since": str(seq), "wait": f"{POLL_S:g}"}, POLL_S)
                if view.changes:
                    # A page whose last number is not `since` has missed something.
                    self._emit(notice_of(self.seq, view.seq, view.changes))
                    self.seq = view.seq
                    await asyncio.sleep(GAP_S)
                seq = view.seq
            except NotFound:
                # The journal no longer holds our position.
                seq = None
            except TuttiError as error:
                seq = None
                self._publish(Notice(status="down", detail=str(error)))
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Exception:
                # A bug here must not leave the panel without notices for the rest of the day.
                log.exception("the change feed failed and starts again")
                seq = None
                await self._pause(LONGEST_PAUSE_S)

    async def _fetch_changes(self, params: dict[str, str], wait_s: float = 0.0) -> ChangesView:
        return wire.from_json(ChangesView, await self._plane.send("GET", "/changes", params, wait_s=wait_s))

    async def _pause(self, seconds: float) -> None:
        self._retry_requested.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._retry_requested.wait(), seconds)

    def _publish(self, notice: Notice) -> None:
        """Emits a state only when it has changed: repeated failures are one notice."""
        if notice.status == "up" or (self.state.status, self.state.detail) != (notice.status, notice.detail):
            self.state = notice
            self._emit(notice)
