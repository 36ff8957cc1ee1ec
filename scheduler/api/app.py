"""Builds the application: routes, access control before them, and errors as problem documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from tuttilab.scheduler import __version__
from tuttilab.scheduler.api import changes, dags, details, health, jobs, notebooks, pods, problems, quota, schema, spark
from tuttilab.scheduler.api.artifacts import routes as artifact_routes
from tuttilab.scheduler.api.artifacts.process import ArtifactProcess
from tuttilab.scheduler.api.dependencies import BodyTurns, known_query_only
from tuttilab.scheduler.api.middleware import PREFIX, AccessMiddleware
from tuttilab.scheduler.api.watchers import Watchers
from tuttilab.scheduler.domain.wire import ReloadView
from tuttilab.scheduler.identity.auth import Authenticator
from tuttilab.scheduler.identity.rate import WriteRate
from tuttilab.scheduler.runtime.writable import Folders
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.spark.proxy.process import SparkProxy

ROUTERS = (
    jobs.router,
    details.router,
    quota.router,
    artifact_routes.router,
    spark.router,
    notebooks.router,
    dags.router,
    changes.router,
    pods.router,
    health.router,
)


def _operation_id(route: APIRoute) -> str:
    """The name of the route's function; generated clients use it."""
    return route.name


def create_app(
    service: Service,
    authenticator: Authenticator,
    *,
    shut_down: Callable[[bool], None] | None = None,
    reload: Callable[[bool, tuple[str, ...], str], Awaitable[ReloadView]] | None = None,
    artifacts: ArtifactProcess | None = None,
    spark_proxy: SparkProxy | None = None,
) -> FastAPI:
    """The application for ``service``, which the caller starts and stops, because it outlives the application.

    ``shut_down(now)`` ends a local control plane; without it `POST /shutdown` is refused. ``reload`` reads the configuration
    again; without it `POST /reload` is refused. ``artifacts`` serves the bytes of big artifacts; without it this process does.
    Kernels reach Spark sessions through ``spark_proxy``; without it they are told each session's own address and token.
    """
    app = FastAPI(
        title="tuttilab",
        version=__version__,
        description="The gang scheduler's API. Amounts are Kubernetes quantities, times are seconds since the epoch.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(known_query_only)],
        responses=schema.PROBLEMS,
    )
    app.state.service = service
    app.state.shut_down = shut_down
    app.state.reload = reload
    app.state.artifacts = artifacts
    app.state.spark_proxy = spark_proxy
    app.state.authenticator = authenticator
    app.state.watchers = Watchers()
    app.state.folders = Folders(service.folders)
    app.state.body_turns = BodyTurns()
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    # Probes and Prometheus request the root; a proxy may forward only what is below the prefix.
    app.include_router(health.probes)
    app.include_router(health.probes, prefix=PREFIX, include_in_schema=False)
    app.add_api_route("/metrics", health.metrics, include_in_schema=False)
    problems.install(app)
    schema.install(app)
    rate = WriteRate(service.config.limits)
    app.add_middleware(AccessMiddleware, authenticator=authenticator, hosts=service.config.host_names, rate=rate)
    return app
