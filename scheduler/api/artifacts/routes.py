"""Artifacts: bytes by their sha256. Code bundles and inputs on the way in, results on the way out."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from tuttilab.scheduler.api.artifacts.process import REDIRECT_BYTES, ArtifactProcess
from tuttilab.scheduler.api.artifacts.uploads import receive
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, Whole, json_response, query_store
from tuttilab.scheduler.api.schema import takes_bytes
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.base import ArtifactRow
from tuttilab.scheduler.store.blobs import Blobs, too_large
from tuttilab.scheduler.usecases.artifacts import readable

router = APIRouter(tags=["artifacts"])


def blobs_of(config: Config) -> Blobs:
    return Blobs(config.artifacts_dir, config.limits.bundle_bytes)


async def commit_artifact(service: Service, artifact_id: str, owner: str, size: int, of_job: str = "") -> None:
    """Commit the row of an artifact whose bytes are stored, and who brought it. One that the owner has already stays as it is."""
    if await query_store(service).artifacts_of(owner, [artifact_id]):
        return

    def run(turn: Turn) -> None:
        turn.artifacts.append(ArtifactRow(artifact_id, owner, size, artifact_id, turn.now))
        turn.apply(ev.ArtifactStored(artifact_id, owner, size, of_job), artifact_id)

    await service.ask(run)


@router.put("/artifacts/{artifact_id}", status_code=201, response_model=wire.ArtifactView, openapi_extra=takes_bytes())
async def put_artifact(artifact_id: str, request: Request, service: ServiceDep, who: Caller) -> Response:
    """Store the body under its sha256. A repeated upload changes nothing."""
    size = await receive(blobs_of(service.config), artifact_id, request)
    await commit_artifact(service, artifact_id, who.name, size)
    return json_response(wire.ArtifactView(id=artifact_id, size=size), status=201)


@router.get("/artifacts/{artifact_id}/upload", response_model=wire.UploadView)
async def upload_of(artifact_id: str, request: Request, service: ServiceDep, who: Caller, size: Whole) -> Response:
    """Where to PUT an artifact of ``size`` bytes: a signed URL that needs no token for an hour, or null for this path."""
    blobs = blobs_of(service.config)
    blobs.path(artifact_id)
    if size > blobs.limit:
        raise too_large(size, blobs.limit)
    return json_response(
        wire.UploadView(url=await _signed_url(request, "PUT", artifact_id, who) if size >= REDIRECT_BYTES else None)
    )


@router.get("/artifacts/{artifact_id}", response_class=FileResponse)
async def get_artifact(artifact_id: str, request: Request, service: ServiceDep, who: Caller, redirect: bool = False) -> Response:
    """The bytes. With ``redirect`` a big artifact is answered with 307 and a signed URL that needs no token for an hour."""
    path = blobs_of(service.config).find(artifact_id)
    if not await readable(service, [artifact_id], who):
        raise NotFound(f"There is no artifact {artifact_id}.")
    if redirect and path.stat().st_size >= REDIRECT_BYTES:
        url = await _signed_url(request, "GET", artifact_id, who)
        if url is not None:
            return RedirectResponse(url, 307)
    return FileResponse(path, media_type="application/octet-stream", content_disposition_type="attachment", filename=artifact_id)


async def _signed_url(request: Request, method: str, artifact_id: str, who: Who) -> str | None:
    """A URL of the process for big artifacts, under the host name of this request; None when there is no such process."""
    process = cast("ArtifactProcess | None", request.app.state.artifacts)
    if process is None or request.url.hostname is None:
        return None
    return await process.url(method, artifact_id, who.name, request.url.scheme, request.url.hostname)
