"""Artifacts: bytes by their sha256. Code bundles and inputs on the way in, results on the way out."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from tuttilab.scheduler import wire
from tuttilab.scheduler.api.artifact_process import WORTH_BYTES, ArtifactProcess
from tuttilab.scheduler.api.parts import Caller, ServiceHere, answer, reading
from tuttilab.scheduler.api.receiving import receive
from tuttilab.scheduler.api.schema import takes_bytes
from tuttilab.scheduler.config import Config
from tuttilab.scheduler.errors import NotFound
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.base import ArtifactRow
from tuttilab.scheduler.store.blobs import Blobs, too_large

router = APIRouter(tags=["artifacts"])


def blobs_of(config: Config) -> Blobs:
    return Blobs(config.artifacts_dir, config.limits.bundle_bytes)


async def received(service: Service, artifact_id: str, owner: str, size: int) -> None:
    """Commits the row of an artifact that is there."""
    row = ArtifactRow(artifact_id, owner, size, artifact_id, service.now())
    await reading(service).add_artifact(service.state.epoch, row)


@router.put("/artifacts/{artifact_id}", status_code=201, response_model=wire.ArtifactView, openapi_extra=takes_bytes())
async def put_artifact(artifact_id: str, request: Request, service: ServiceHere, who: Caller) -> Response:
    """Keep the body under its sha256. Sending it again changes nothing."""
    size = await receive(blobs_of(service.config), artifact_id, request)
    await received(service, artifact_id, who.name, size)
    return answer(wire.ArtifactView(id=artifact_id, size=size), status=201)


@router.get("/artifacts/{artifact_id}/upload", response_model=wire.UploadView)
async def upload_of(
    artifact_id: str, request: Request, service: ServiceHere, who: Caller, size: Annotated[int, Query(ge=0)]
) -> Response:
    """Where to PUT an artifact of ``size`` bytes: a URL that is good for an hour and takes no token, or null for here."""
    blobs = blobs_of(service.config)
    blobs.path(artifact_id)
    if size > blobs.limit:
        raise too_large(size, blobs.limit)
    return answer(wire.UploadView(url=await _elsewhere(request, "PUT", artifact_id, who) if size >= WORTH_BYTES else None))


@router.get("/artifacts/{artifact_id}", response_class=FileResponse)
async def get_artifact(artifact_id: str, request: Request, service: ServiceHere, who: Caller, redirect: bool = False) -> Response:
    """The bytes. With ``redirect`` a big one is answered with 307 and a URL that is good for an hour and takes no token."""
    path = blobs_of(service.config).find(artifact_id)
    if not await _may_read(service, artifact_id, who):
        raise NotFound(f"There is no artifact {artifact_id}.")
    if redirect and path.stat().st_size >= WORTH_BYTES:
        url = await _elsewhere(request, "GET", artifact_id, who)
        if url is not None:
            return RedirectResponse(url, 307)
    return FileResponse(path, media_type="application/octet-stream", content_disposition_type="attachment", filename=artifact_id)


async def _elsewhere(request: Request, method: str, artifact_id: str, who: Who) -> str | None:
    """At the process for big artifacts, under the host name by which the caller reached us; None when there is none."""
    process = cast("ArtifactProcess | None", request.app.state.artifacts)
    if process is None or request.url.hostname is None:
        return None
    return await process.url(method, artifact_id, who.name, request.url.scheme, request.url.hostname)


async def _may_read(service: Service, artifact_id: str, who: Who) -> bool:
    """Who brought it, whose job left it, and an admin."""
    if who.is_admin or await reading(service).artifact(artifact_id, who.name) is not None:
        return True
    mine = {job.id for job in service.state.jobs.values() if job.owner == who.name}
    attempts = (attempt for attempt in service.state.attempts.values() if attempt.job_id in mine)
    return any(artifact_id in pod.outputs.values() for attempt in attempts for pod in (*attempt.pods, *attempt.left))
