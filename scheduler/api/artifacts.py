"""Artifacts: bytes by their sha256. Code bundles and inputs on the way in, results on the way out."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from tuttilab.scheduler import wire
from tuttilab.scheduler.api.parts import Caller, ServiceHere, answer, reading
from tuttilab.scheduler.api.schema import takes_bytes
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import NotFound
from tuttilab.scheduler.requests import Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.base import ArtifactRow
from tuttilab.scheduler.store.blobs import Blobs, too_large

router = APIRouter(tags=["artifacts"])

PIECE_BYTES: Final = 2**20


def _blobs(service: Service) -> Blobs:
    return Blobs(service.config.artifacts_dir, service.config.limits.bundle_bytes)


@router.put("/artifacts/{artifact_id}", status_code=201, response_model=wire.ArtifactView, openapi_extra=takes_bytes())
async def put_artifact(artifact_id: str, request: Request, service: ServiceHere, who: Caller) -> Response:
    """Keep the body under its sha256. Sending it again changes nothing."""
    blobs = _blobs(service)
    declared = request.headers.get("content-length", "")
    blobs.path(artifact_id)
    if declared.isdecimal() and int(declared) > blobs.limit:
        raise too_large(int(declared), blobs.limit)
    size = await _receive(blobs, artifact_id, request)
    await reading(service).add_artifact(ArtifactRow(artifact_id, who.name, size, artifact_id, service.now()))
    return answer(wire.ArtifactView(id=artifact_id, size=size), status=201)


async def _receive(blobs: Blobs, artifact_id: str, request: Request) -> int:
    """The body into its file, a mebibyte at a time, in threads: disk and digest never hold up the loop. Answers its size."""
    receiving = blobs.receive(artifact_id)
    upload = await asyncio.to_thread(receiving.__enter__)
    try:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= PIECE_BYTES:
                await asyncio.to_thread(upload.write, bytes(waiting))
                waiting.clear()
        if waiting:
            await asyncio.to_thread(upload.write, bytes(waiting))
        await asyncio.to_thread(upload.finish, artifact_id)
        point("artifact.whole")
    except BaseException:
        await asyncio.to_thread(receiving.__exit__, *sys.exc_info())
        raise
    await asyncio.to_thread(receiving.__exit__, None, None, None)
    point("artifact.kept")
    return upload.size


@router.get("/artifacts/{artifact_id}", response_class=FileResponse)
async def get_artifact(artifact_id: str, service: ServiceHere, who: Caller) -> Response:
    path = _blobs(service).find(artifact_id)
    if not await _may_read(service, artifact_id, who):
        raise NotFound(f"There is no artifact {artifact_id}.")
    return FileResponse(path, media_type="application/octet-stream", content_disposition_type="attachment", filename=artifact_id)


async def _may_read(service: Service, artifact_id: str, who: Who) -> bool:
    """Who brought it, whose job left it, and an admin."""
    if who.is_admin or await reading(service).artifact(artifact_id, who.name) is not None:
        return True
    mine = {job.id for job in service.state.jobs.values() if job.owner == who.name}
    attempts = (attempt for attempt in service.state.attempts.values() if attempt.job_id in mine)
    return any(artifact_id in pod.outputs.values() for attempt in attempts for pod in attempt.pods)
