"""The caller's Spark sessions, by name: list, start, connect, stop."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.bodies import parse_body
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, json_response
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.core.kinds.spark import session_name
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.requests import SparkRequest
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.scheduler.usecases.spark_sessions import SparkSessions

router = APIRouter(prefix="/spark", tags=["spark"])


@router.get("/sessions", response_model=list[wire.SparkSessionView])
async def spark_sessions(service: ServiceDep, who: Caller) -> Response:
    found = [views.spark_view(job, service.state) for job in SparkSessions(service).live(who)]
    return json_response(found, list[wire.SparkSessionView])


@router.post("/sessions", response_model=wire.SparkSessionView, openapi_extra=takes(SparkRequest))
async def start_spark_session(request: Request, service: ServiceDep, who: Caller) -> Response:
    """The live session of that name, else a new one, which waits in its queue like any job."""
    job = await SparkSessions(service).start(await parse_body(request, SparkRequest, "session"), who)
    return json_response(views.spark_view(job, service.state))


@router.get("/sessions/{name}/endpoint", response_model=wire.SparkEndpointView)
async def spark_endpoint(name: str, service: ServiceDep, who: Caller) -> Response:
    """Address and token with which the caller's kernel connects. 409 with the reason while the session is not ready."""
    return json_response(SparkSessions(service).endpoint(name, who))


@router.delete("/sessions/{name}", status_code=204)
async def stop_spark_session(name: str, service: ServiceDep, who: Caller) -> Response:
    jobs = [job for job in SparkSessions(service).live(who) if session_name(job) == name]
    if not jobs:
        raise NotFound(f"There is no Spark session {name!r}; `%spark list` shows yours.")
    for job in jobs:
        await Jobs(service).cancel(job.id, who)
    return Response(status_code=204)
