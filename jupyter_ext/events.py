"""The change feed: one long poll a server, whatever the number of tabs, told to them as small jupyter-events notices.

Jupyter's own event socket carries a notice to every open page within milliseconds. It neither filters nor repeats, so a notice only
names what changed; the page fetches it through the handlers. A page that missed notices, or a feed that did, starts anew from
`resync`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from tuttilab.scheduler import events, wire
from tuttilab.scheduler.errors import NotFound, TuttiError
from tuttilab.scheduler.wire import ChangesView, EventView

SCHEMA_ID: Final = "https://tuttilab/events/changed/v1"
SCHEMA_FILE: Final = Path(__file__).parent / "schemas" / "changed.v1.yaml"
POLL_S: Final = 25.0
GAP_S: Final = 0.05
"""Between two notices: what changes together arrives together, and a storm of changes is no storm of notices."""
MOST_KEYS: Final = 200
"""In one notice. A page shows fewer jobs than that at once, so beyond it fetching the list costs less."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0

OF_THE_SITE: Final = {
    events.QueuesConfigured.__name__,
    events.ClusterObserved.__name__,
    events.ClusterLost.__name__,
    events.ClusterBack.__name__,
    events.DagApplied.__name__,
}
OF_A_RUN: Final = {events.RunSubmitted.__name__, events.RunCancelRequested.__name__, events.RunRetried.__name__}

log = logging.getLogger(__name__)


class Sender(Protocol):
    """What the feed needs of `ControlPlane`."""

    async def send(self, method: str, path: str, params: dict[str, str], *, may_repeat: bool = False) -> bytes: ...


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
    """What changed as one notice, each id once and in the order of the journal."""
    site = any(change.kind in OF_THE_SITE for change in changes)
    runs = tuple(dict.fromkeys(change.key for change in changes if change.kind in OF_A_RUN))
    jobs = tuple(dict.fromkeys(change.key for change in changes if change.kind not in OF_A_RUN | OF_THE_SITE))
    if len(jobs) + len(runs) > MOST_KEYS:
        return Notice(status="up", since=since, seq=seq, resync=True, site=site)
    return Notice(status="up", since=since, seq=seq, jobs=jobs, runs=runs, site=site)


class ChangeFeed:
    """Runs from the first `ensure_running` until `stop`.

    ``state`` is the newest notice about the control plane's state, ``seq`` up to where the journal was told.
    """

    def __init__(self, plane: Sender, emit: Callable[[Notice], None]) -> None:
        self._plane = plane
        self._emit = emit
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self.state = Notice(status="down", detail="Connecting to the control plane.")
        self.seq = 0

    def ensure_running(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="tuttilab change feed")

    def try_now(self) -> None:
        """Somebody has a reason to believe that the control plane is back."""
        self._woken.set()

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
                    # Before anything is fetched, so that no change falls between the two.
                    seq = self.seq = (await self._ask({})).seq
                    self._say(Notice(status="up", seq=seq, resync=True))
                    pause = FIRST_PAUSE_S
                view = await self._ask({"since": str(seq), "wait": f"{POLL_S:g}"})
                if view.changes:
                    # A page that saw another number last than `since` has missed something.
                    self._emit(notice_of(self.seq, view.seq, view.changes))
                    self.seq = view.seq
                    await asyncio.sleep(GAP_S)
                seq = view.seq
            except NotFound:
                # Our place in the journal is not kept any more.
                seq = None
            except TuttiError as error:
                seq = None
                self._say(Notice(status="down", detail=str(error)))
                await self._rest(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Exception:
                # A mistake of ours must not leave the panel without news for the rest of the day.
                log.exception("the change feed stumbled and begins anew")
                seq = None
                await self._rest(LONGEST_PAUSE_S)

    async def _ask(self, params: dict[str, str]) -> ChangesView:
        return wire.from_json(ChangesView, await self._plane.send("GET", "/changes", params))

    async def _rest(self, seconds: float) -> None:
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    def _say(self, notice: Notice) -> None:
        """Each try that fails is no news."""
        if notice.status == "up" or (self.state.status, self.state.detail) != (notice.status, notice.detail):
            self.state = notice
            self._emit(notice)
