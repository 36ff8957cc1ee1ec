"""The asyncio client of the REST API. Import it from `tuttilab.scheduler.client`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from tuttilab.scheduler.client.silence import Say
from tuttilab.scheduler.client.transport import MakeTransport, Params, Rediscover, Transport
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.detail_views import DetailsView, DisplaysView, ShownListView, UsageView
from tuttilab.scheduler.domain.errors import BadInput, NotFound, TuttiError, Unavailable
from tuttilab.scheduler.domain.requests import (
    SLASH,
    DagRequest,
    JobRequest,
    NotebookRequest,
    ProfileRequest,
    RenewRequest,
    RunRequest,
    SparkRequest,
)
from tuttilab.scheduler.domain.titles import SHORT_ID, title_of
from tuttilab.scheduler.domain.wire import (
    ArtifactView,
    AuditView,
    ChangesView,
    ClusterView,
    DagView,
    DryRunView,
    EventView,
    IdentityView,
    JobList,
    JobView,
    LogView,
    NodeView,
    NotebookView,
    PolicyView,
    ProfileView,
    QueueView,
    ReloadView,
    ResultView,
    RunView,
    SparkEndpointView,
    SparkSessionView,
    UploadView,
    WaitView,
)
from tuttilab.scheduler.domain.words import word

T = TypeVar("T")

POLL_S: Final = 25.0
LONGEST_PAUSE_S: Final = 5.0
"""The longest backoff between two tries to reach the service while `wait` follows a job."""
JOB_OF_BATCH_S: Final = 0.01
"""How much longer the answer to a batch may take for each of its jobs."""
CHUNK: Final = 2**20
BIG_BYTES: Final = 2**20
"""From this size on, the client asks the service for the URL to upload an artifact to."""


class AsyncClient:
    """The asyncio client. Use and `close` it in one event loop. Every method raises the classes of `errors`, also Unavailable.

    ``timeout_s``: how long the answer to one call is waited for, its retries included. ``rediscover`` returns the service's URL and
    token after a restart; see `connect`. ``say`` is told, in the client's event loop, when an answer takes long. ``connections``
    makes connections in place of httpx's own.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        rediscover: Rediscover | None = None,
        say: Say | None = None,
        connections: MakeTransport | None = None,
    ) -> None:
        self._transport = Transport(url, token, timeout_s=timeout_s, rediscover=rediscover, say=say, connections=connections)

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def token(self) -> str:
        return self._transport.token

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _get(self, cls: type[T], path: str, params: Params | None = None, *, wait_s: float = 0.0) -> T:
        return wire.from_json(cls, await self._transport.send("GET", path, params=params, may_repeat=True, wait_s=wait_s))

    async def _post(
        self,
        cls: type[T],
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        may_repeat: bool = False,
        wait_s: float = 0.0,
        params: Params | None = None,
    ) -> T:
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        content = None if body is None else wire.to_json(body)
        answer = await self._transport.send(
            "POST", path, params=params, body=content, headers=headers, may_repeat=may_repeat, wait_s=wait_s
        )
        return wire.from_json(cls, answer)

    async def send(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        may_repeat: bool = False,
        key: str | None = None,
        wait_s: float = 0.0,
    ) -> bytes:
        """The unparsed body of the response, for a proxy that forwards it. ``path`` is below the API's prefix."""
        headers = {"Idempotency-Key": key} if key else None
        return await self._transport.send(method, path, params=params, headers=headers, may_repeat=may_repeat, wait_s=wait_s)

    # --- jobs ----------------------------------------------------------------------------------------------------------

    async def submit(self, request: JobRequest, *, key: str | None = None) -> JobView:
        """Return when the job is accepted. Retried under one idempotency key, so one call makes one job."""
        return await self._post(JobView, "/jobs", request, key=key or new_key(), may_repeat=True)

    async def submit_many(self, requests: Sequence[JobRequest], keys: Sequence[str] | None = None) -> list[JobView]:
        """Submit all jobs in one commit, or none."""
        batch = {"jobs": list(requests), "keys": list(keys) if keys is not None else [new_key() for _ in requests]}
        wait_s = len(requests) * JOB_OF_BATCH_S
        return await self._post(list[JobView], "/jobs:batch", batch, may_repeat=True, wait_s=wait_s)

    async def dry_run(self, request: JobRequest) -> DryRunView:
        return await self._post(DryRunView, "/jobs:dryrun", request, may_repeat=True)

    async def jobs(
        self,
        *,
        all: bool = False,
        state: str | None = None,
        group: str | None = None,
        owner: str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        text: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> JobList:
        """One page, newest first; pass its ``next`` as ``cursor`` to get the next page."""
        query: Params = {
            "all": all,
            "state": state,
            "group": group,
            "owner": owner,
            "queue": queue,
            "kind": kind,
            "text": text,
            "limit": limit,
            "cursor": cursor,
        }
        return await self._get(JobList, "/jobs", query)

    async def job(self, id: str) -> JobView:
        """By its id, or a prefix of it."""
        return await self._get(JobView, f"/jobs/{_part(id)}")

    async def cancel(self, id: str) -> JobView:
        return await self._post(JobView, f"/jobs/{_part(id)}/cancel", may_repeat=True)

    async def retry(self, id: str, *, key: str | None = None) -> JobView:
        """Submit an ended job again; returns the new job. Retried under one idempotency key, like a submit."""
        return await self._post(JobView, f"/jobs/{_part(id)}/retry", key=key or new_key(), may_repeat=True)

    async def delete(self, id: str) -> None:
        await self._transport.send("DELETE", f"/jobs/{_part(id)}")

    async def explain(self, id: str) -> WaitView | None:
        """Why the job waits; None when it does not."""
        body = await self._transport.send("GET", f"/jobs/{_part(id)}/explain", may_repeat=True)
        return None if body == b"null" else wire.from_json(WaitView, body)

    async def logs(self, id: str, *, rank: int = 0, start: int = 0, limit: int = 1000, attempt: int | None = None) -> LogView:
        return await self._get(
            LogView, f"/jobs/{_part(id)}/logs", {"rank": rank, "start": start, "limit": limit, "attempt": attempt}
        )

    async def details(self, id: str) -> DetailsView:
        """What was sent along with the job, and what its newest attempt has kept."""
        return await self._get(DetailsView, f"/jobs/{_part(id)}/details")

    async def shown(self, id: str, *, rank: int = 0, known: int = 0) -> ShownListView:
        """The texts and pictures that a cell showed so far; none when ``known`` is the size of all of them."""
        return await self._get(ShownListView, f"/jobs/{_part(id)}/shown", {"rank": rank, "known": known})

    async def usage(self, id: str, *, attempt: int | None = None, first: int = 0, limit: int = 16) -> UsageView:
        """CPU and memory over time of ``limit`` pods from rank ``first`` on."""
        return await self._get(UsageView, f"/jobs/{_part(id)}/usage", {"attempt": attempt, "first": first, "limit": limit})

    async def displays(self, id: str, *, attempt: int, rank: int = 0, start: int = 0) -> DisplaysView:
        """What the cell displayed so far, while it runs."""
        return await self._get(DisplaysView, f"/jobs/{_part(id)}/displays", {"attempt": attempt, "rank": rank, "start": start})

    async def definition(self, id: str) -> JobRequest:
        """The request that submits the same job again. Raises Forbidden for another's job."""
        return await self._get(JobRequest, f"/jobs/{_part(id)}/definition")

    async def events(self, id: str) -> list[EventView]:
        return await self._get(list[EventView], f"/jobs/{_part(id)}/events")

    async def result(self, id: str, *, rank: int = 0) -> ResultView:
        return await self._get(ResultView, f"/jobs/{_part(id)}/result", {"rank": rank})

    async def wait(self, id: str, *, timeout_s: float | None = None, on_change: Callable[[JobView], None] | None = None) -> JobView:
        """Wait until the job has ended. ``on_change`` gets the first view and every later one that differs from the one before.

        While the service is unavailable the wait goes on, also over a restart at another port. Raises TimeoutError after
        ``timeout_s``.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        shown: JobView | None = None
        seq: int | None = None
        pause = 0.2
        while True:
            left = POLL_S if until is None else until - time.monotonic()
            try:
                if seq is None:
                    # Read before the job, so that no change between the two is missed.
                    seq = (await self._changes(None)).seq
                else:
                    seq = (await self._changes(seq, max(0.0, min(left, POLL_S)), id)).seq
                job = await self.job(id)
                id, pause = job.id, 0.2
            except NotFound:
                if seq is None or not await self._exists(id):
                    raise
                # The service keeps the job, but its journal not back to ``seq`` any more: start from its end again.
                seq = None
                continue
            except Unavailable as error:
                if until is not None and time.monotonic() + pause > until:
                    raise TimeoutError(
                        f"Job {id[:SHORT_ID]} had not ended after {timeout_s:g} s, and the service does not answer: {error}"
                    ) from error
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                with contextlib.suppress(TuttiError):
                    await self._transport.find_again()
                continue
            if job != shown and on_change is not None:
                on_change(job)
            shown = job
            if job.is_ended:
                return job
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(
                    f"Job {title_of(job.id, job.name)} is {word(job.phase).lower()} after {timeout_s:g} s and goes on; "
                    "wait again or cancel it."
                )

    async def _exists(self, id: str) -> bool:
        try:
            await self.job(id)
        except NotFound:
            return False
        return True

    # --- artifacts -----------------------------------------------------------------------------------------------------

    async def put_artifact(self, source: bytes | Path) -> str:
        """Upload bytes or a file; returns the artifact's id, the sha256 of the content."""
        artifact_id, size = await asyncio.to_thread(_measure, source)
        path, url = f"/artifacts/{artifact_id}", None
        if size >= BIG_BYTES:
            url = (await self._get(UploadView, f"{path}/upload", {"size": size})).url
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        async with self._transport.stream("PUT", path, at=url, content=lambda: _chunks(source), headers=headers) as response:
            return wire.from_json(ArtifactView, await response.aread()).id

    async def get_artifact(self, id: str, to: Path | None = None) -> bytes:
        """Download an artifact; with ``to`` into that file, returning no bytes. Raises TuttiError when the digest is another."""
        digest = hashlib.sha256()
        parts: list[bytes] = []
        with _file_for(to) as write:
            async with self._transport.stream("GET", f"/artifacts/{_part(id)}", params={"redirect": True}) as response:
                async for chunk in response.aiter_bytes(CHUNK):
                    digest.update(chunk)
                    write(chunk) if to is not None else parts.append(chunk)
            if digest.hexdigest() != id:
                raise TuttiError(f"artifact {id} came with other content (sha256 {digest.hexdigest()}); fetch it again.")
        return b"".join(parts)

    # --- the site ------------------------------------------------------------------------------------------------------

    async def quota(self) -> list[QueueView]:
        """The queues whose limits apply to the caller."""
        return await self._get(list[QueueView], "/quota")

    async def queues(self) -> list[QueueView]:
        return await self._get(list[QueueView], "/queues")

    async def clusters(self) -> list[ClusterView]:
        return await self._get(list[ClusterView], "/clusters")

    async def nodes(self) -> list[NodeView]:
        return await self._get(list[NodeView], "/nodes")

    async def me(self) -> IdentityView:
        return await self._get(IdentityView, "/me")

    async def check_ready(self) -> None:
        """Raises Unavailable when the service answers and cannot do its work, as on a read-only disk."""
        await self._transport.send("GET", "/readyz")

    async def shutdown(self, now: bool) -> None:
        """End a local control plane as soon as no job is live; with ``now`` all jobs are cancelled first."""
        await self._post(IdentityView, "/shutdown", {"now": now})

    async def reload(self, *, dry_run: bool = False, accept: Sequence[str] = ()) -> ReloadView:
        """Have the control plane read queues, defaults, storages, sidecars, policy and tune of its configuration file again.

        With ``dry_run`` only say what differs.

        Raises Conflict, and changes nothing, when more differs, or when a limit is loosened that ``accept`` does not name.
        """
        return await self._post(ReloadView, "/reload", {"dry_run": dry_run, "accept": list(accept)})

    async def policy(self) -> PolicyView:
        """Which parameters of the decision rule are in force, since when, by whom and why."""
        return await self._get(PolicyView, "/policy")

    async def set_policy(self, values: Mapping[str, float | str | bool], why: str = "") -> PolicyView:
        """Set parameters of the decision rule in place of those set before; none: the built-in rule.

        Raises Conflict, and changes nothing, for one that the configuration fixes.
        """
        return await self._post(PolicyView, "/policy", {"values": dict(values), "why": why})

    async def changes(self, since: int | None, wait_s: float = POLL_S, key: str | None = None) -> ChangesView:
        """Long poll for changes after ``since``; None gives only the number from which to go on.

        Raises NotFound when ``since`` is older than the journal kept.
        """
        return await self._changes(since, wait_s, key)

    async def _changes(self, since: int | None, wait_s: float = 0.0, key: str | None = None) -> ChangesView:
        return await self._get(ChangesView, "/changes", {"since": since, "wait": wait_s, "key": key}, wait_s=wait_s)

    async def audit(self, *, key: str | None = None, limit: int = 50, cursor: str | None = None) -> AuditView:
        """Who changed what, newest first: all for an admin, for others what is theirs."""
        return await self._get(AuditView, "/audit", {"key": key, "limit": limit, "cursor": cursor})

    # --- servers of the hub --------------------------------------------------------------------------------------------

    async def notebook(self, request: NotebookRequest, *, wait_s: float = 0.0) -> NotebookView:
        """For the hub: queue a user's server. A repeated request has no second effect, and the server keeps its place.

        ``wait_s``: how long the service may take to answer while the server has no room yet, 10 s at most.
        """
        return await self._post(
            NotebookView, "/notebooks", request, may_repeat=True, wait_s=wait_s, params={"wait": wait_s} if wait_s else None
        )

    async def renew(self, id: str, request: RenewRequest, *, wait_s: float = 0.0) -> NotebookView:
        """For the hub: report a server's phase; the response says whether it may start and is still wanted.

        ``wait_s``: as in `notebook`.
        """
        path, params = f"/notebooks/{_part(id)}/renew", {"wait": wait_s} if wait_s else None
        return await self._post(NotebookView, path, request, may_repeat=True, wait_s=wait_s, params=params)

    async def active(self, id: str) -> None:
        """For a server: report that one of its cells runs. Repeat it within a minute while that is so."""
        await self._transport.send("POST", f"/notebooks/{_part(id)}/active", may_repeat=True)

    async def profiles(self, *, owner: str | None = None, groups: Sequence[str] = ()) -> list[ProfileView]:
        """The profiles that the caller may use; for the hub, those of the user ``owner``, who is in ``groups``."""
        query: Params = {"owner": owner, "group": list(groups) if owner is not None else None}
        return await self._get(list[ProfileView], "/profiles", query)

    async def profile(self, name: str) -> ProfileView:
        return await self._get(ProfileView, f"/profiles/{_part(name)}")

    async def apply_profile(self, request: ProfileRequest) -> ProfileView:
        return await self._post(ProfileView, "/profiles", request, may_repeat=True)

    async def delete_profile(self, name: str) -> None:
        await self._transport.send("DELETE", f"/profiles/{_part(name)}")

    # --- DAGs ----------------------------------------------------------------------------------------------------------

    async def dags(self) -> list[DagView]:
        return await self._get(list[DagView], "/dags")

    async def dag_definition(self, name: str) -> DagRequest:
        """An applied DAG as it was applied. Raises Forbidden for another's."""
        return await self._get(DagRequest, f"/dags/{_part(name)}/definition")

    async def apply_dag(self, request: DagRequest) -> DagView:
        return await self._post(DagView, "/dags", request, may_repeat=True)

    async def run_dag(self, request: RunRequest, *, key: str | None = None) -> RunView:
        """Return when the run is accepted. Retried under one idempotency key, so one call makes one run."""
        return await self._post(RunView, "/runs", request, key=key or new_key(), may_repeat=True)

    async def runs(self, limit: int = 100) -> list[RunView]:
        """Newest first."""
        return await self._get(list[RunView], "/runs", {"limit": limit})

    async def run(self, id: str) -> RunView:
        """By its id, or a prefix of it."""
        return await self._get(RunView, f"/runs/{_part(id)}")

    async def cancel_run(self, id: str) -> RunView:
        return await self._post(RunView, f"/runs/{_part(id)}/cancel", may_repeat=True)

    async def retry_run(self, id: str, *, key: str | None = None) -> RunView:
        """Run the nodes that did not succeed again. Retried under one idempotency key, so they run again once."""
        return await self._post(RunView, f"/runs/{_part(id)}/retry", key=key or new_key(), may_repeat=True)

    async def wait_run(self, id: str, *, on_change: Callable[[RunView], None] | None = None) -> RunView:
        """Wait until the run has ended; ``on_change`` gets the first view and every later one that differs."""
        shown: RunView | None = None
        while True:
            since = (await self._changes(None)).seq
            view = await self.run(id)
            if view != shown and on_change is not None:
                on_change(view)
            shown = view
            if view.is_ended:
                return view
            await self.changes(since, wait_s=2.0)

    # --- Spark sessions ------------------------------------------------------------------------------------------------

    async def spark_sessions(self) -> list[SparkSessionView]:
        return await self._get(list[SparkSessionView], "/spark/sessions")

    async def spark_start(self, request: SparkRequest) -> SparkSessionView:
        """The live session of that name, started if there is none."""
        return await self._post(SparkSessionView, "/spark/sessions", request, may_repeat=True)

    async def spark_endpoint(self, name: str) -> SparkEndpointView:
        """Raises Conflict while the session is not ready."""
        return await self._get(SparkEndpointView, f"/spark/sessions/{_part(name)}/endpoint")

    async def spark_stop(self, name: str) -> None:
        await self._transport.send("DELETE", f"/spark/sessions/{_part(name)}")


def new_key() -> str:
    """A new, unique idempotency key."""
    return uuid.uuid4().hex


def _part(text: str) -> str:
    """``text`` quoted as one segment of a URL path. Raises NotFound for what a path would read as a folder.

    A slash goes as ``%2F`` inside the segment: quoted once, it would end the segment at the server.
    """
    if text in ("", ".", ".."):
        raise NotFound(f"{text!r} is nobody's name or id; `tuttilab jobs --all` and `tuttilab dag runs` list yours.")
    if problem := wire.check_text(text):
        raise BadInput(problem)
    return quote(text.replace("/", SLASH), safe="")


def _measure(source: bytes | Path) -> tuple[str, int]:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest(), len(source)
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size


async def _chunks(source: bytes | Path) -> AsyncIterator[bytes]:
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK):
            yield source[start : start + CHUNK]
        return
    file = await asyncio.to_thread(open, source, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
    finally:
        file.close()


@contextlib.contextmanager
def _file_for(to: Path | None) -> Iterator[Callable[[bytes], object]]:
    """The function that writes chunks. The file gets its name only after all were written; without ``to`` they are dropped."""
    if to is None:
        yield lambda chunk: None
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{to.name}.", dir=to.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
        os.replace(name, to)
    finally:
        Path(name).unlink(missing_ok=True)
