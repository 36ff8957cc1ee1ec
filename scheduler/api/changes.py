"""Changes since a journal number: at once, by a long poll, or as a stream of server-sent events. And who asked for which."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final, NamedTuple, cast

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, Whole, json_response, query_store
from tuttilab.scheduler.api.event_text import WRITES, write_of
from tuttilab.scheduler.api.problems import Gone
from tuttilab.scheduler.api.watchers import Watchers
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, NotFound
from tuttilab.scheduler.domain.events import ArtifactStored, Event, JobSubmitted, RunSubmitted
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.shape import LARGEST_NUMBER
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import Change
from tuttilab.scheduler.store.queries import JournalQuery

router = APIRouter(tags=["changes"])

PAGE: Final = 1000
MOST_WRITES: Final = 200
LONGEST_WAIT_S: Final = 60.0
KEEP_ALIVE_S: Final = 15.0
"""Between two comments on a stream without changes, so that neither side closes it as dead."""


@router.get("/changes", response_model=wire.ChangesView)
async def changes(
    request: Request,
    service: ServiceDep,
    who: Caller,
    since: Whole | None = None,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = 0.0,
    key: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Changes after ``since`` (default: now), only those of ``key`` when given. With ``wait`` it is a long poll of so many seconds.

    410 when ``since`` is older than the journal kept: fetch everything anew, then continue from the ``seq`` of a call without
    ``since``. With ``Accept: text/event-stream`` the response is a stream, which a client resumes with Last-Event-ID. One caller
    has `MOST_WATCHERS` of both at most; one more is 429.
    """
    is_stream = "text/event-stream" in request.headers.get("accept", "")
    if is_stream and last_event_id:
        since = _seq_of(last_event_id)
    start = service.last_seq if since is None else since
    watchers = cast(Watchers, request.app.state.watchers)
    # Read before a stream begins: afterwards the status of the response cannot change to 410.
    seq, found = await _visible_since(service, watchers, who, start, key)
    if is_stream:
        watchers.enter(who.name)
        return _Stream(watchers, who.name, _stream(service, watchers, who, seq, found, key))
    until = asyncio.get_running_loop().time() + wait
    with watchers.one(who.name) if wait and not found and since is not None else contextlib.nullcontext():
        while not found and since is not None:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await service.wait_change(seq, left)
            seq, found = await _visible_since(service, watchers, who, seq, key)
    return json_response(wire.ChangesView(seq=seq, changes=tuple(_event(change) for change in found)))


def _seq_of(event_id: str) -> int:
    """The number in a Last-Event-ID, as the stream gave it. Raises BadInput."""
    if event_id.isascii() and event_id.isdecimal() and len(event_id) < 20 and int(event_id) <= LARGEST_NUMBER:
        return int(event_id)
    raise BadInput(f"header: last-event-id: {event_id[:40]!r} is no id of this stream; expected a number that it gave.")


class _Stream(StreamingResponse):
    """A stream of events, which counts as one of its caller's watchers until it is over."""

    def __init__(self, watchers: Watchers, caller: str, content: AsyncIterator[str]) -> None:
        super().__init__(content, media_type="text/event-stream")
        self._watchers = watchers
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watchers.leave(self._caller)


async def _visible_since(service: Service, watchers: Watchers, who: Who, since: int, key: str | None) -> tuple[int, list[Change]]:
    """The newest number that was read, and those changes of the page that the caller may see. Raises Gone."""
    try:
        page = await watchers.page(since, service.last_seq, lambda place: query_store(service).changes(place, PAGE))
    except NotFound as error:
        raise Gone(str(error)) from error
    return (page[-1].seq if page else since), [change for change in page if _is_visible(change, who, key)]


def _is_visible(change: Change, who: Who, key: str | None) -> bool:
    return (who.is_admin or change.owner in ("", who.name)) and key in (None, change.key)


def _event(change: Change) -> wire.EventView:
    return wire.EventView(seq=change.seq, at=change.at, kind=change.kind, key=change.key)


async def _stream(
    service: Service, watchers: Watchers, who: Who, seq: int, found: Sequence[Change], key: str | None
) -> AsyncIterator[str]:
    yield _message(seq, found)
    while True:
        newest = await service.wait_change(seq, KEEP_ALIVE_S)
        if newest <= seq:
            yield ": still here\n\n"
            continue
        try:
            seq, found = await _visible_since(service, watchers, who, seq, key)
        except Gone as error:
            yield f"event: gone\ndata: {json.dumps(str(error))}\n\n"
            return
        if found:
            yield _message(seq, found)


def _message(seq: int, found: Sequence[Change]) -> str:
    view = wire.ChangesView(seq=seq, changes=tuple(_event(change) for change in found))
    return f"id: {seq}\nevent: changes\ndata: {wire.to_json(view).decode()}\n\n"


@router.get("/audit", response_model=wire.AuditView)
async def audit(
    service: ServiceDep,
    who: Caller,
    key: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    cursor: Whole | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_WRITES)] = 50,
) -> Response:
    """Who changed what, newest first: all for an admin, for others what is theirs. ``key``: an id or name, or its beginning."""
    query = JournalQuery(kinds=WRITES, owner=None if who.is_admin else who.name, key=key, before=cursor, limit=limit + 1)
    lines = await query_store(service).newest(query)
    page = [WriteLine(*line) for line in lines[:limit]]
    names = await _names(service, page)
    writes = tuple(line.view(names.get(line.about, "")) for line in page)
    return json_response(wire.AuditView(writes=writes, next=str(page[-1].seq) if len(lines) > limit else None))


class WriteLine(NamedTuple):
    seq: int
    at: float
    key: str
    event: Event

    @property
    def about(self) -> str:
        """The id of the job or run that the line is about, else its key."""
        return self.event.of_job if isinstance(self.event, ArtifactStored) else self.key

    def view(self, name: str) -> wire.WriteView:
        by, text = write_of(self.event, name)
        return wire.WriteView(seq=self.seq, at=self.at, by=by, kind=wire.event_kind(self.event), key=self.key, text=text)


async def _names(service: Service, lines: Sequence[WriteLine]) -> dict[str, str]:
    """Names of the jobs and runs that are written of by their id, those of deleted ones from the journal."""
    found: dict[str, str] = {}
    for line in lines:
        about = line.about
        if about in found or not any(getattr(line.event, field, "") for field in ("job_id", "run_id", "of_job")):
            continue
        known = service.state.jobs.get(about) or service.state.runs.get(about)
        if known is not None:
            found[about] = known.name
            continue
        for _, _, first in await query_store(service).journal(0, 1, key=about):
            match first:
                case JobSubmitted(made) | RunSubmitted(made):
                    found[about] = made.name
    return found
