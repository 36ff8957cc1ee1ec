"""Reports of sidecars and masters about their own pods, and their jobs' artifacts: the routes that take the token of an attempt."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from tuttilab.scheduler.api.artifacts.routes import blobs_of, commit_artifact
from tuttilab.scheduler.api.artifacts.uploads import receive
from tuttilab.scheduler.api.bodies import parse_body, read_body
from tuttilab.scheduler.api.dependencies import AttemptToken, DirectRoute, ServiceDep, Whole, json_response
from tuttilab.scheduler.api.schema import takes, takes_bytes
from tuttilab.scheduler.clusters.kept.displays import LARGEST
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import PodPhase
from tuttilab.scheduler.usecases import pod_reports

router = APIRouter(prefix="/pods", tags=["pods"])


async def report(
    request: Request, service: ServiceDep, token: AttemptToken, job_id: str = "", attempt: str = "", epoch: str = ""
) -> Response:
    """Record the state of the pods; the response says whether they shall stop. The address repeats what the token is checked by."""
    claim = pod_reports.Claim(job_id, _number(attempt), _number(epoch))
    body = await parse_body(request, wire.PodReport, "report", await pod_reports.largest_report(service, claim, token))
    for index, member in enumerate(body.members):
        if member.phase not in tuple(PodPhase):
            raise BadInput(f"report: members[{index}].phase: {member.phase[:40]!r} is none of {', '.join(PodPhase)}.")
    return json_response(await pod_reports.handle_report(service, body, token), dict[str, object])


def _number(text: str) -> int:
    """0, which no attempt has, for anything that is no number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


router.add_api_route(
    "/report",
    report,
    methods=["POST"],
    response_model=dict[str, object],
    openapi_extra=takes(wire.PodReport),
    route_class_override=DirectRoute,
)


@router.post("/displays", response_model=dict[str, int], openapi_extra=takes_bytes())
async def keep_displays(
    request: Request,
    service: ServiceDep,
    token: AttemptToken,
    job_id: str = "",
    attempt: Whole = 0,
    epoch: Whole = 0,
    start: Whole = 0,
) -> Response:
    """Keep what the pod's cell displayed from byte ``start`` on, in whole lines; the answer says from which byte to go on."""
    claim = pod_reports.Claim(job_id, attempt, epoch)
    await pod_reports.largest_report(service, claim, token)
    body = await read_body(request, "displays", LARGEST)
    return json_response({"next": await pod_reports.keep_displays(service, claim, token, start, body)}, dict[str, int])


@router.get("/artifacts/{artifact_id}", response_class=FileResponse)
async def get_artifact_of_job(
    artifact_id: str, service: ServiceDep, token: AttemptToken, job_id: str = "", attempt: Whole = 0, epoch: Whole = 0
) -> Response:
    """The bytes of the code or of an input of the pod's own job."""
    claim = pod_reports.Claim(job_id, attempt, epoch)
    await pod_reports.owner_of_artifact(service, claim, token, artifact_id, is_upload=False)
    path = blobs_of(service.config).find(artifact_id)
    return FileResponse(path, media_type="application/octet-stream", content_disposition_type="attachment", filename=artifact_id)


@router.put("/artifacts/{artifact_id}", status_code=201, response_model=wire.ArtifactView, openapi_extra=takes_bytes())
async def put_artifact_of_job(
    artifact_id: str,
    request: Request,
    service: ServiceDep,
    token: AttemptToken,
    job_id: str = "",
    attempt: Whole = 0,
    epoch: Whole = 0,
) -> Response:
    """Store an output of the pod under its sha256; it belongs to the job's owner. A repeated upload changes nothing."""
    claim = pod_reports.Claim(job_id, attempt, epoch)
    owner = await pod_reports.owner_of_artifact(service, claim, token, artifact_id, is_upload=True)
    size = await receive(blobs_of(service.config), artifact_id, request)
    await commit_artifact(service, artifact_id, owner, size, of_job=job_id)
    return json_response(wire.ArtifactView(id=artifact_id, size=size), status=201)
