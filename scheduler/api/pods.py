"""Reports of sidecars and masters about their own pods. The one route that takes an attempt's token, and no user's."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tuttilab.scheduler import reports, wire
from tuttilab.scheduler.api.parts import AttemptToken, Direct, ServiceHere, answer, body_of
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import PodPhase

router = APIRouter(prefix="/pods", tags=["pods"])


async def report(request: Request, service: ServiceHere, token: AttemptToken) -> Response:
    """Take in the state of the pods; the answer says whether they are to stop."""
    told = await body_of(request, wire.PodReport, "report")
    for index, member in enumerate(told.members):
        if member.phase not in tuple(PodPhase):
            raise BadInput(f"report: members[{index}].phase: {member.phase[:40]!r} is none of {', '.join(PodPhase)}.")
    return answer(await reports.take_in(service, told, token), dict[str, object])


router.add_api_route(
    "/report",
    report,
    methods=["POST"],
    response_model=dict[str, object],
    openapi_extra=takes(wire.PodReport),
    route_class_override=Direct,
)
