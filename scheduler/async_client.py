"""The client for code that awaits. `tuttilab.scheduler.client` is where it is imported from.

Light to import, because every kernel does: httpx and pydantic and nothing else that is not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from tuttilab.scheduler import wire
from tuttilab.scheduler.errors import NotFound, TuttiError, Unavailable
from tuttilab.scheduler.requests import (
    DagRequest,
    JobRequest,
    NotebookRequest,
    ProfileRequest,
    RenewRequest,
    RunRequest,
    SparkRequest,
)
from tuttilab.scheduler.transport import Params, Rediscover, Transport
from tuttilab.scheduler.wire import (
    ArtifactView,
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

T = TypeVar("T")

POLL_S: Final = 25.0
LONGEST_PAUSE_S: Final = 5.0
"""Between two tries to reach a service that is away, while a job is waited for."""
CHUNK: Final = 2**20
BIG_BYTES: Final = 2**20
"""Of an artifact for which the service is asked whether another process of it takes it."""


class AsyncClient:
    """Use it in one event loop, and `close` it there. Every method raises the errors of `errors`, Unavailable among them.

    ``rediscover`` tells where the service is after a restart; see `connect`.
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 30.0, rediscover: Rediscover | None = None) -> None:
        self._transport = Transport(url, token, timeout_s=timeout_s, rediscover=rediscover)

    @property
    def url(self) -> str:
        return self._transport.url

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _get(self, cls: type[T], path: str, params: Params | None = None, *, wait_s: float = 0.0) -> T:
        return wire.from_json(cls, await self._transport.send("GET", path, params=params, may_repeat=True, wait_s=wait_s))

    async def _post(self, cls: type[T], path: str, body: object = None, *, key: str | None = None, may_repeat: bool = False) -> T:
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        content = None if body is None else wire.to_json(body)
        return wire.from_json(cls, await self._transport.send("POST", path, body=content, headers=headers, may_repeat=may_repeat))

    async def send(
        self, method: str, path: str, params: Params | None = None, *, may_repeat: bool = False, key: str | None = None
    ) -> bytes:
        """The body of an answer as it came, for a proxy that passes it on. ``path`` is below the API's prefix."""
        headers = {"Idempotency-Key": key} if key else None
        return await self._transport.send(method, path, params=params, headers=headers, may_repeat=may_repeat)

    # --- jobs ----------------------------------------------------------------------------------------------------------

    async def submit(self, request: JobRequest, *, key: str | None = None) -> JobView:
        """Returns when the job is accepted. Sent again under its key when no answer came, so one call makes one job."""
        return await self._post(JobView, "/jobs", request, key=key or new_key(), may_repeat=True)

    async def submit_many(self, requests: Sequence[JobRequest], keys: Sequence[str] | None = None) -> list[JobView]:
        """All or none, in one commit."""
        batch = {"jobs": list(requests), "keys": list(keys) if keys is not None else [new_key() for _ in requests]}
        return await self._post(list[JobView], "/jobs:batch", batch, may_repeat=True)

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
        """One page, newest first; the next one by its ``next`` as ``cursor``."""
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
        """By its id, or the beginning of it."""
        return await self._get(JobView, f"/jobs/{_part(id)}")

    async def cancel(self, id: str) -> JobView:
        return await self._post(JobView, f"/jobs/{_part(id)}/cancel", may_repeat=True)

    async def retry(self, id: str, *, key: str | None = None) -> JobView:
        """The new job. Like a submit it is sent again under its key when no answer came."""
        return await self._post(JobView, f"/jobs/{_part(id)}/retry", key=key or new_key(), may_repeat=True)

    async def delete(self, id: str) -> None:
        await self._transport.send("DELETE", f"/jobs/{_part(id)}")

    async def explain(self, id: str) -> WaitView | None:
        """Why it waits; None when it does not."""
        body = await self._transport.send("GET", f"/jobs/{_part(id)}/explain", may_repeat=True)
        return None if body == b"null" else wire.from_json(WaitView, body)

    async def logs(self, id: str, *, rank: int = 0, start: int = 0, limit: int = 1000, attempt: int | None = None) -> LogView:
        return await self._get(
            LogView, f"/jobs/{_part(id)}/logs", {"rank": rank, "start": start, "limit": limit, "attempt": attempt}
        )

    async def events(self, id: str) -> list[EventView]:
        return await self._get(list[EventView], f"/jobs/{_part(id)}/events")

    async def result(self, id: str, *, rank: int = 0) -> ResultView:
        return await self._get(ResultView, f"/jobs/{_part(id)}/result", {"rank": rank})

    async def wait(self, id: str, *, timeout_s: float | None = None, on_change: Callable[[JobView], None] | None = None) -> JobView:
        """The job when it has ended. ``on_change`` gets every view that differs from the one before, the first one included.

        A service that goes away is waited for, whatever port it comes back at. Raises TimeoutError after ``timeout_s``.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        shown: JobView | None = None
        seq: int | None = None
        pause = 0.2
        while True:
            left = POLL_S if until is None else until - time.monotonic()
            try:
                if seq is None:
                    # Before the look at the job, so that no change falls between the two.
                    seq = (await self._changes(None)).seq
                else:
                    seq = (await self._changes(seq, max(0.0, min(left, POLL_S)), id)).seq
                job = await self.job(id)
                id, pause = job.id, 0.2
            except NotFound:
                if seq is None or not await self._is_there(id):
                    raise
                # Our place in the journal is not kept any more, the job is: begin anew.
                seq = None
                continue
            except Unavailable as error:
                if until is not None and time.monotonic() + pause > until:
                    raise TimeoutError(
                        f"Job {id} had not ended after {timeout_s:g} s, and the service does not answer: {error}"
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
                raise TimeoutError(f"Job {job.id} is {job.phase} after {timeout_s:g} s and goes on; wait again or cancel it.")

    async def _is_there(self, id: str) -> bool:
        try:
            await self.job(id)
        except NotFound:
            return False
        return True

    # --- artifacts -----------------------------------------------------------------------------------------------------

    async def put_artifact(self, source: bytes | Path) -> str:
        """Send bytes or a file; answers its id, the sha256 of the content."""
        artifact_id, size = await asyncio.to_thread(_measure, source)
        path, url = f"/artifacts/{artifact_id}", None
        if size >= BIG_BYTES:
            url = (await self._get(UploadView, f"{path}/upload", {"size": size})).url
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        async with self._transport.stream("PUT", path, at=url, content=lambda: _chunks(source), headers=headers) as response:
            return wire.from_json(ArtifactView, await response.aread()).id

    async def get_artifact(self, id: str, to: Path | None = None) -> bytes:
        """The content, or with ``to`` a file of it and no bytes. What does not have the digest that ``id`` says is an error."""
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
        """The queues whose limits count for the caller."""
        return await self._get(list[QueueView], "/quota")

    async def queues(self) -> list[QueueView]:
        return await self._get(list[QueueView], "/queues")

    async def clusters(self) -> list[ClusterView]:
        return await self._get(list[ClusterView], "/clusters")

    async def nodes(self) -> list[NodeView]:
        return await self._get(list[NodeView], "/nodes")

    async def me(self) -> IdentityView:
        return await self._get(IdentityView, "/me")

    async def shutdown(self, now: bool) -> None:
        """End a local control plane once no job is live; with ``now`` they are all cancelled first."""
        await self._post(IdentityView, "/shutdown", {"now": now})

    async def reload(self) -> ReloadView:
        """Have the control plane read queues and defaults of its configuration file again. Raises Conflict when more differs."""
        return await self._post(ReloadView, "/reload")

    async def changes(self, since: int, wait_s: float = POLL_S, key: str | None = None) -> ChangesView:
        """What changed after ``since``, as soon as there is something. Raises NotFound when that is not kept any more."""
        return await self._changes(since, wait_s, key)

    async def _changes(self, since: int | None, wait_s: float = 0.0, key: str | None = None) -> ChangesView:
        return await self._get(ChangesView, "/changes", {"since": since, "wait": wait_s, "key": key}, wait_s=wait_s)

    # --- servers of the hub --------------------------------------------------------------------------------------------

    async def notebook(self, request: NotebookRequest) -> NotebookView:
        """For the hub: room for a server of a user. Asked twice is as good as once: the server keeps its place."""
        return await self._post(NotebookView, "/notebooks", request, may_repeat=True)

    async def renew(self, id: str, request: RenewRequest) -> NotebookView:
        """For the hub: how the server is; answers whether it may start and is still wanted."""
        return await self._post(NotebookView, f"/notebooks/{_part(id)}/renew", request, may_repeat=True)

    async def active(self, id: str) -> None:
        """For a server: one of its cells runs. Said again within the minute for as long as that is so."""
        await self._transport.send("POST", f"/notebooks/{_part(id)}/active", may_repeat=True)

    async def profiles(self, *, owner: str | None = None, groups: Sequence[str] = ()) -> list[ProfileView]:
        """What the caller is offered, or for the hub what ``owner`` is, who is in ``groups``."""
        query: Params = {"owner": owner, "group": list(groups) if owner is not None else None}
        return await self._get(list[ProfileView], "/profiles", query)

    async def profile(self, name: str) -> ProfileView:
        return await self._get(ProfileView, f"/profiles/{_part(name)}")

    async def apply_profile(self, request: ProfileRequest) -> ProfileView:
        return await self._post(ProfileView, "/profiles", request, may_repeat=True)

    async def delete_profile(self, name: str) -> None:
        await self._transport.send("DELETE", f"/profiles/{_part(name)}")

    # --- graphs of jobs ------------------------------------------------------------------------------------------------

    async def dags(self) -> list[DagView]:
        return await self._get(list[DagView], "/dags")

    async def apply_dag(self, request: DagRequest) -> DagView:
        return await self._post(DagView, "/dags", request, may_repeat=True)

    async def run_dag(self, request: RunRequest, *, key: str | None = None) -> RunView:
        """Returns when the run is accepted. Sent again under its key when no answer came, so one call makes one run."""
        return await self._post(RunView, "/runs", request, key=key or new_key(), may_repeat=True)

    async def runs(self, limit: int = 100) -> list[RunView]:
        """Newest first."""
        return await self._get(list[RunView], "/runs", {"limit": limit})

    async def run(self, id: str) -> RunView:
        """By its id, or the beginning of it."""
        return await self._get(RunView, f"/runs/{_part(id)}")

    async def cancel_run(self, id: str) -> RunView:
        return await self._post(RunView, f"/runs/{_part(id)}/cancel", may_repeat=True)

    async def retry_run(self, id: str, *, key: str | None = None) -> RunView:
        """Starts over once what did not end well, however often it has to be sent."""
        return await self._post(RunView, f"/runs/{_part(id)}/retry", key=key or new_key(), may_repeat=True)

    async def wait_run(self, id: str, *, on_change: Callable[[RunView], None] | None = None) -> RunView:
        """Until the run is over; ``on_change`` sees each state of it that differs from the one before."""
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
        """The session by that name, started if it does not live."""
        return await self._post(SparkSessionView, "/spark/sessions", request, may_repeat=True)

    async def spark_endpoint(self, name: str) -> SparkEndpointView:
        """Raises Conflict while the session is not ready."""
        return await self._get(SparkEndpointView, f"/spark/sessions/{_part(name)}/endpoint")

    async def spark_stop(self, name: str) -> None:
        await self._transport.send("DELETE", f"/spark/sessions/{_part(name)}")


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return uuid.uuid4().hex


def _part(text: str) -> str:
    """One step of a path, whatever is in it."""
    return quote(text, safe="") or "-"


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
    """Where chunks go. The file appears under its name when all is well; without a name there is none."""
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
