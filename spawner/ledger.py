"""The server as a job: asked for before it exists, renewed while it lives, ended whatever happens; refusals as the hub tells them.

A refusal is a `SpawnException`, which the hub shows to the user and does not count as a failure of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from jupyterhub.spawner import SpawnException

from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.errors import (
    AboveMax,
    BadInput,
    Forbidden,
    NeverFits,
    NotFound,
    TuttiError,
    Unauthenticated,
    Unavailable,
)
from tuttilab.scheduler.requests import NotebookRequest, ProfileRequest, RenewRequest
from tuttilab.scheduler.wire import NotebookView

LOOK_S: Final = 1.0
"""Between two looks at a server that waits."""
FIRST_LOOK_S: Final = 0.1
JUDGED_S: Final = 10.0
"""How long the control plane may take to see whether there is room, whatever the patience."""
REQUEST_S: Final = 10.0
LONGEST_PAUSE_S: Final = 60.0

log = logging.getLogger(__name__)
_untold: set[asyncio.Task[None]] = set()
"""Ends that the control plane has not heard yet."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The control plane as the hub speaks to it. ``token`` is that of the hub's service, which nobody else has."""

    url: str
    token: str = field(repr=False)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(self.url, self.token, timeout_s=REQUEST_S) as client:
            yield client

    async def profiles(self, owner: str, groups: Sequence[str]) -> list[ProfileRequest]:
        """Those that this user is offered. Raises TuttiError."""
        async with self._client() as client:
            return [view.profile for view in await client.profiles(owner=owner, groups=groups)]

    async def admit(self, asked: NotebookRequest, patience_s: float, tell: Callable[[str], None]) -> NotebookView:
        """Wait for room. Raises SpawnException when there is none within ``patience_s``, and leaves nothing behind then."""
        began = time.monotonic()
        try:
            async with self._client() as client:
                view = await client.notebook(asked)
        except TuttiError as error:
            raise refusal(error) from error
        try:
            return await self._wait(view, began, patience_s, tell)
        except BaseException:
            await self.end(view.job.id, None, "its user waits no longer")
            raise

    async def _wait(self, view: NotebookView, began: float, patience_s: float, tell: Callable[[str], None]) -> NotebookView:
        pause = FIRST_LOOK_S
        async with self._client() as client:
            while not view.is_admitted:
                if not view.is_wanted:
                    raise SpawnException(
                        f"The server was not started: {view.job.reason or 'cancelled'}.", reason="cancelled", status_code=409
                    )
                # Nobody is refused before the control plane has looked whether there is room.
                until = began + (patience_s if view.place is not None else max(patience_s, JUDGED_S))
                if time.monotonic() >= until:
                    raise SpawnException(f"No room for {view.profile.name}: {view.refusal}.", reason="quota", status_code=409)
                if view.place is not None:
                    tell(place_of(view))
                await asyncio.sleep(max(0.0, min(pause, until - time.monotonic())))
                pause = min(pause * 1.5, LOOK_S)
                try:
                    view = await client.renew(view.job.id, RenewRequest(phase="waiting"))
                except Unavailable as error:
                    if time.monotonic() >= until:
                        raise refusal(error) from error
                    tell("The control plane does not answer; your place is kept")
                except TuttiError as error:
                    raise refusal(error) from error
        return view

    async def renew(self, job_id: str) -> bool:
        """Say that the server runs, and hear whether it is wanted. It is, as long as nobody says otherwise."""
        try:
            async with self._client() as client:
                return (await client.renew(job_id, RenewRequest(phase="running"))).is_wanted
        except NotFound:
            return False
        except TuttiError as error:
            log.warning("the control plane was not told that server %s runs, it is told again: %s", job_id, error)
            return True

    async def end(self, job_id: str, exit_code: int | None, reason: str) -> None:
        """The server is gone. Told again and again in the background, should the control plane not hear it at once."""
        if not await self._tell_end(job_id, exit_code, reason):
            task = asyncio.create_task(self._go_on_telling(job_id, exit_code, reason))
            _untold.add(task)
            task.add_done_callback(_untold.discard)

    async def _go_on_telling(self, job_id: str, exit_code: int | None, reason: str) -> None:
        pause = LOOK_S
        while not await self._tell_end(job_id, exit_code, reason):
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _tell_end(self, job_id: str, exit_code: int | None, reason: str) -> bool:
        said = RenewRequest(phase="ended", exit_code=exit_code, reason=reason)
        try:
            async with self._client() as client:
                await client.renew(job_id, said)
        except NotFound:
            return True
        except TuttiError as error:
            log.warning("the control plane was not told that server %s ended, it is told again: %s", job_id, error)
            return False
        return True


def place_of(view: NotebookView) -> str:
    """For the hub's progress page: where the server stands in line, and why it waits."""
    place = f"Place {view.place} in queue {view.job.queue}" if view.place else f"Waiting in queue {view.job.queue}"
    return f"{place}: {view.refusal or 'it waits for its turn'}"


def refusal(error: TuttiError) -> SpawnException:
    """What the control plane refused, as the hub tells it to the user."""
    match error:
        case AboveMax() | NeverFits():
            return SpawnException(str(error), reason="quota", status_code=409)
        case Forbidden():
            return SpawnException(str(error), reason="rights", status_code=403)
        case BadInput():
            return SpawnException(str(error), reason="options", status_code=400)
        case Unauthenticated():
            what = "The control plane does not accept the hub's token; an admin has to check control_token. Nothing was started."
            return SpawnException(what, reason="control-plane", status_code=503, log_message=f"{what} {error}")
        case _:
            what = "The control plane does not answer, so nobody knows whether there is room. Nothing was started; try again soon."
            return SpawnException(what, reason="control-plane", status_code=503, log_message=f"{what} {error}")
