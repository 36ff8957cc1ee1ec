"""The application: routes, the guard before them, and errors as problem documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from tuttilab.scheduler import __version__
from tuttilab.scheduler.api import artifacts, changes, dags, health, jobs, logs, notebooks, pods, problems, quota, schema, spark
from tuttilab.scheduler.api.artifact_process import ArtifactProcess
from tuttilab.scheduler.api.guard import PREFIX, Guard
from tuttilab.scheduler.api.parts import known_query_only
from tuttilab.scheduler.auth import Authenticator
from tuttilab.scheduler.service import Service

ROUTERS = (
    jobs.router,
    logs.router,
    quota.router,
    artifacts.router,
    spark.router,
    notebooks.router,
    dags.router,
    changes.router,
    pods.router,
    health.router,
)


def _operation_id(route: APIRoute) -> str:
    """The function's name: it becomes the name in generated clients."""
    return route.name


def create_app(
    service: Service,
    authenticator: Authenticator,
    *,
    shut_down: Callable[[bool], None] | None = None,
    reload: Callable[[], Awaitable[tuple[str, ...]]] | None = None,
    artifacts: ArtifactProcess | None = None,
) -> FastAPI:
    """``shut_down(now)`` ends a local control plane; without it `POST /shutdown` is refused. ``reload`` reads the configuration
    again. ``artifacts`` serves the bytes of big artifacts; without it they all go through here.

    The service is started and stopped by the caller: its life is longer than the application's.
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
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    # Probes and Prometheus look at the root; a proxy may forward only what is below the prefix.
    app.include_router(health.probes)
    app.include_router(health.probes, prefix=PREFIX, include_in_schema=False)
    app.add_api_route("/metrics", health.metrics, include_in_schema=False)
    problems.install(app)
    schema.install(app)
    app.add_middleware(Guard, authenticator=authenticator, hosts=[service.config.listen.host, *service.config.listen.names])
    return app
