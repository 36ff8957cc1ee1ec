"""The caller's Spark sessions, by name: list, start, connect, stop."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from fastapi import APIRouter, Request, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, json_response, parse_body
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.core.kinds.spark import session_name
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.requests import SparkRequest
from tuttilab.scheduler.identity.auth import Authenticator
from tuttilab.scheduler.runtime.addresses import is_loopback
from tuttilab.scheduler.spark.proxy.process import SparkProxy
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.scheduler.usecases.spark_routes import check_proxy, route_to
from tuttilab.scheduler.usecases.spark_sessions import SparkSessions

router = APIRouter(prefix="/spark", tags=["spark"])


@router.get("/sessions", response_model=list[wire.SparkSessionView])
async def spark_sessions(service: ServiceDep, who: Caller) -> Response:
    found = [views.spark_view(job, service.state) for job in SparkSessions(service).live(who)]
    return json_response(found, list[wire.SparkSessionView])


@router.post("/sessions", response_model=wire.SparkSessionView, openapi_extra=takes(SparkRequest))
async def start_spark_session(request: Request, service: ServiceDep, who: Caller) -> Response:
    """The live session of that name, else a new one, which waits in its queue like any job."""
    proxy = _proxy(request)
    asked = await parse_body(request, SparkRequest, "session")
    job = await SparkSessions(service).start(asked, who, has_proxy=proxy is not None)
    if proxy is not None:
        proxy.start_soon()
    return json_response(views.spark_view(job, service.state))


@router.get("/sessions/{name}/endpoint", response_model=wire.SparkEndpointView)
async def spark_endpoint(name: str, request: Request, service: ServiceDep, who: Caller) -> Response:
    """Where the caller's kernel connects: a Spark proxy, with the caller's own token, where there is one, else the session itself.

    409 with the reason while the session is not ready.
    """
    view = SparkSessions(service).endpoint(name, who)
    view = replace(view, here=is_loopback(view.host))
    proxy = _proxy(request)
    return json_response(view if proxy is None else await proxy.before(view))


@router.post("/routes", response_model=wire.SparkRouteView, openapi_extra=takes(wire.SparkRouteRequest))
async def spark_route(request: Request, service: ServiceDep) -> Response:
    """For the Spark proxy, with its token: where the session of a user is, whose token is in the body, and the session's secret."""
    check_proxy(service, cast(str, request.state.proxy_token))
    asked = await parse_body(request, wire.SparkRouteRequest, "route")
    who = await cast(Authenticator, request.app.state.authenticator).who(asked.token)
    return json_response(route_to(service, who, asked.session, asked.job_id))


def _proxy(request: Request) -> SparkProxy | None:
    return cast(SparkProxy | None, request.app.state.spark_proxy)


@router.delete("/sessions/{name}", status_code=204)
async def stop_spark_session(name: str, service: ServiceDep, who: Caller) -> Response:
    jobs = [job for job in SparkSessions(service).live(who) if session_name(job) == name]
    if not jobs:
        raise NotFound(f"There is no Spark session {name!r}; `%spark list` shows yours.")
    for job in jobs:
        await Jobs(service).cancel(job.id, who)
    return Response(status_code=204)
