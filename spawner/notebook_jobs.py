"""The client for a server's notebook job: submits it before the start, renews its lease while the server runs, ends it.

Refusals become `SpawnException`s, which the hub shows to the user and does not count as its own failures.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from jupyterhub.spawner import SpawnException

from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import (
    AboveMax,
    BadInput,
    EnvironmentProblem,
    Forbidden,
    NeverFits,
    NotFound,
    TuttiError,
    Unauthenticated,
    Unavailable,
)
from tuttilab.scheduler.domain.requests import NotebookRequest, RenewRequest
from tuttilab.scheduler.domain.wire import NotebookView, ProfileView
from tuttilab.scheduler.domain.words import start_text
from tuttilab.spawner.http import HubTransport

POLL_S: Final = 1.0
"""How long the control plane keeps the renewal of a waiting server; its answer comes at once when there is room."""
LEAST_PAUSE_S: Final = 0.1
"""Between two renewals at least."""
DECISION_TIMEOUT_S: Final = 10.0
"""How long the control plane may take for its first decision, whatever the patience."""
REQUEST_TIMEOUT_S: Final = 10.0
LONGEST_PAUSE_S: Final = 60.0

log = logging.getLogger(__name__)
TELL_AGAIN_S: Final = 300.0
_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], AsyncClient]] = weakref.WeakKeyDictionary()
"""By event loop, of which a hub has one; by URL and token."""
_told: dict[str, float] = {}
"""When to say again that a server is not counted, by its job."""
_unsent_ends: set[asyncio.Task[None]] = set()
"""Retries of ends that the control plane has not acknowledged yet."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """``job_id``: the job that stands for the server from now on. ``is_wanted``: false when the control plane ended that job."""

    job_id: str
    is_wanted: bool


@dataclass(frozen=True, slots=True)
class NotebookJobs:
    """The control plane's API for notebook jobs. ``token`` is that of the hub's service `tuttilab`."""

    url: str
    token: str = field(repr=False)

    def _client(self) -> AsyncClient:
        """One for all servers of the hub, so that a spawn needs no connections of its own. Raises EnvironmentProblem."""
        clients = _clients.setdefault(asyncio.get_running_loop(), {})
        client = clients.get((self.url, self.token))
        if client is None:
            try:
                client = AsyncClient(self.url, self.token, timeout_s=REQUEST_TIMEOUT_S, connections=HubTransport)
            except BadInput as error:
                # No choice of the user's: `control_url` or `control_token` of the hub.
                raise EnvironmentProblem(f"control_url or control_token of the hub: {error}") from error
            clients[self.url, self.token] = client
        return client

    async def profiles(self, owner: str, groups: Sequence[str]) -> list[ProfileView]:
        """The profiles that this user may choose, with the queues for each. Raises TuttiError."""
        return await self._client().profiles(owner=owner, groups=groups)

    async def admit(self, request: NotebookRequest, patience_s: float, on_status: Callable[[str], None]) -> NotebookView:
        """Submits the job and waits for its admission. After ``patience_s`` ends the job and raises SpawnException."""
        began = time.monotonic()
        try:
            view = await self._client().notebook(request, wait_s=min(POLL_S, patience_s))
        except TuttiError as error:
            raise refusal(error) from error
        try:
            return await self._wait(request, view, began, patience_s, on_status)
        except BaseException:
            await self.end(view.job.id, None, "its user waits no longer")
            raise

    async def _wait(
        self, request: NotebookRequest, view: NotebookView, began: float, patience_s: float, on_status: Callable[[str], None]
    ) -> NotebookView:
        client = self._client()
        while not view.is_admitted:
            if not view.is_wanted:
                raise SpawnException(
                    f"The server was not started: {view.job.reason or 'cancelled'}.", reason="cancelled", status_code=409
                )
            # Nobody is refused before the control plane has considered the job once.
            until = began + (patience_s if view.place is not None else max(patience_s, DECISION_TIMEOUT_S))
            if time.monotonic() >= until:
                raise SpawnException(f"No room for {view.profile.name}: {view.refusal}.", reason="quota", status_code=409)
            if view.place is not None:
                on_status(queue_position(view))
            asked = time.monotonic()
            try:
                view = await client.renew(view.job.id, RenewRequest(phase="waiting"), wait_s=max(0.0, min(POLL_S, until - asked)))
            except NotFound:
                view = await self._ask_again(client, request)
            except Unavailable as error:
                if time.monotonic() >= until:
                    raise refusal(error) from error
                on_status("The control plane does not answer; your place is kept")
            except TuttiError as error:
                raise refusal(error) from error
            if not view.is_admitted:
                # Where it answered at once, nothing has changed yet, or it does not answer at all.
                await asyncio.sleep(max(0.0, LEAST_PAUSE_S - (time.monotonic() - asked)))
        return view

    async def _ask_again(self, client: AsyncClient, request: NotebookRequest) -> NotebookView:
        """The control plane came up with another database while the user waited."""
        try:
            return await client.notebook(request)
        except TuttiError as error:
            raise refusal(error) from error

    async def renew(self, job_id: str, request: NotebookRequest | None = None) -> Renewal:
        """Renews the lease of a running server.

        Only a control plane that knows the job can end the server. One that does not has another database, an empty or a restored
        one: with ``request`` the server is adopted there, else it is left alone. Both are logged.
        """
        try:
            return Renewal(job_id, (await self._client().renew(job_id, RenewRequest(phase="running"))).is_wanted)
        except NotFound:
            return Renewal(await self._adopted(job_id, request) if request is not None else job_id, is_wanted=True)
        except TuttiError as error:
            log.warning("the renewal of server %s failed and is retried: %s", job_id, error)
            return Renewal(job_id, is_wanted=True)

    async def _adopted(self, job_id: str, request: NotebookRequest) -> str:
        """The id of the server's new job; ``job_id`` where it could not be adopted."""
        whose = f"the server {request.server!r} of {request.owner}"
        try:
            adopted = (await self._client().notebook(replace(request, is_running=True))).job.id
        except TuttiError as error:
            if time.monotonic() >= _told.get(job_id, 0.0):
                _told[job_id] = time.monotonic() + TELL_AGAIN_S
                log.error(
                    "the control plane does not know %s, does not count it, and cannot adopt it; it goes on: %s", whose, error
                )
            return job_id
        _told.pop(job_id, None)
        log.warning("the control plane did not know %s: it has another database; the server is adopted as job %s", whose, adopted)
        return adopted

    async def end(self, job_id: str, exit_code: int | None, reason: str) -> None:
        """Reports the server's end; retries in the background when the control plane does not answer."""
        if not await self._send_end(job_id, exit_code, reason):
            task = asyncio.create_task(self._retry_end(job_id, exit_code, reason))
            _unsent_ends.add(task)
            task.add_done_callback(_unsent_ends.discard)

    async def _retry_end(self, job_id: str, exit_code: int | None, reason: str) -> None:
        pause = POLL_S
        while not await self._send_end(job_id, exit_code, reason):
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _send_end(self, job_id: str, exit_code: int | None, reason: str) -> bool:
        report = RenewRequest(phase="ended", exit_code=exit_code, reason=reason)
        try:
            await self._client().renew(job_id, report)
        except NotFound:
            return True
        except TuttiError as error:
            log.warning("the report of the end of server %s failed and is retried: %s", job_id, error)
            return False
        return True


def queue_position(view: NotebookView) -> str:
    """For the hub's progress page: the server's place in its queue, when it starts where that is told, and why it waits."""
    wait, where = view.job.wait, f"in queue {view.job.queue}"
    place = f"Place {view.place} {where}" if view.place else f"Waiting {where}"
    start = start_text(wait.earliest, wait.latest, time.time(), with_zone=True) if wait is not None else ""
    return f"{place}{f', {start}' if start else ''}: {view.refusal or 'it waits for its turn'}"


def refusal(error: TuttiError) -> SpawnException:
    """The error of the control plane as an exception that the hub shows to the user."""
    match error:
        case AboveMax() | NeverFits():
            return SpawnException(str(error), reason="quota", status_code=409)
        case Forbidden():
            return SpawnException(str(error), reason="rights", status_code=403)
        case BadInput():
            return SpawnException(str(error), reason="options", status_code=400)
        case EnvironmentProblem():
            what = "The hub is not set up to ask the control plane; an admin has to check its log. Nothing was started."
            return SpawnException(what, reason="control-plane", status_code=503, log_message=f"{what} {error}")
        case Unauthenticated():
            what = "The control plane does not accept the hub's token; an admin has to check control_token. Nothing was started."
            return SpawnException(what, reason="control-plane", status_code=503, log_message=f"{what} {error}")
        case _:
            what = "The control plane does not answer, so nobody knows whether there is room. Nothing was started; try again soon."
            return SpawnException(what, reason="control-plane", status_code=503, log_message=f"{what} {error}")
