"""Spark sessions of the caller, by name."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tuttilab.scheduler import wire
from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.parts import Caller, ServiceHere, answer, body_of
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.core.kinds.spark import session_name
from tuttilab.scheduler.errors import NotFound
from tuttilab.scheduler.jobs import Jobs
from tuttilab.scheduler.requests import SparkRequest
from tuttilab.scheduler.sessions import Sessions

router = APIRouter(prefix="/spark", tags=["spark"])


@router.get("/sessions", response_model=list[wire.SparkSessionView])
async def spark_sessions(service: ServiceHere, who: Caller) -> Response:
    found = [views.spark_view(job, service.state) for job in Sessions(service).live(who)]
    return answer(found, list[wire.SparkSessionView])


@router.post("/sessions", response_model=wire.SparkSessionView, openapi_extra=takes(SparkRequest))
async def start_spark_session(request: Request, service: ServiceHere, who: Caller) -> Response:
    """The session by that name: the one that lives, else a new one, which waits in its queue like any job."""
    job = await Sessions(service).start(await body_of(request, SparkRequest, "session"), who)
    return answer(views.spark_view(job, service.state))


@router.get("/sessions/{name}/endpoint", response_model=wire.SparkEndpointView)
async def spark_endpoint(name: str, service: ServiceHere, who: Caller) -> Response:
    """How the caller's own kernel reaches it, with the session's token. 409 while it is not ready, with the reason."""
    return answer(Sessions(service).endpoint(name, who))


@router.delete("/sessions/{name}", status_code=204)
async def stop_spark_session(name: str, service: ServiceHere, who: Caller) -> Response:
    jobs = [job for job in Sessions(service).live(who) if session_name(job) == name]
    if not jobs:
        raise NotFound(f"There is no Spark session {name!r}; `%spark list` shows yours.")
    for job in jobs:
        await Jobs(service).cancel(job.id, who)
    return Response(status_code=204)
