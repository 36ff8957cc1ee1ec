"""DAGs and their runs: apply, run, list, show, cancel, retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.bodies import DAG_LIMIT, parse_body
from tuttilab.scheduler.api.dependencies import Caller, IdempotencyKey, ServiceDep, json_response, owner_filter
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import Forbidden, NotFound
from tuttilab.scheduler.domain.model import Run, RunPhase
from tuttilab.scheduler.domain.requests import DagRequest, RunRequest, Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.usecases.dags import Dags

router = APIRouter(tags=["dags"])


@router.get("/dags", response_model=list[wire.DagView])
async def list_dags(service: ServiceDep, who: Caller) -> Response:
    visible = [dag for dag in service.state.dags.values() if who.is_admin or dag.owner == who.name]
    return json_response([views.dag_view(dag) for dag in visible], list[wire.DagView])


@router.post("/dags", response_model=wire.DagView, openapi_extra=takes(DagRequest))
async def apply_dag(request: Request, service: ServiceDep, who: Caller) -> Response:
    """Store a DAG under its name; a changed DAG becomes its next version."""
    return json_response(views.dag_view(await Dags(service).apply(await parse_body(request, DagRequest, "dag", DAG_LIMIT), who)))


@router.get("/dags/{name}/definition", response_model=DagRequest)
async def dag_definition(name: str, service: ServiceDep, who: Caller) -> Response:
    """The newest version of a DAG as it was applied, for its owner only: variables of its jobs may be secrets."""
    known = service.state.dags.get(name)
    found = Dags(service).definition(name, who)
    if known is not None and known.owner != who.name:
        raise Forbidden(f"The DAG {name!r} belongs to {known.owner}, who alone may export it: its variables may be secrets.")
    return json_response(found, DagRequest)


@router.get("/dags/{name}/runs", response_model=list[wire.RunView])
async def runs_of_dag(name: str, service: ServiceDep, who: Caller) -> Response:
    runs = [run for run in await _runs(service, who, None, 1000) if run.name == name]
    known = service.state.dags.get(name)
    if not runs and (known is None or (known.owner != who.name and not who.is_admin)):
        raise NotFound(f"There is no DAG {name!r}; `tuttilab dag apply FILE` keeps one.")
    return json_response([views.run_view(run, service.state) for run in runs], list[wire.RunView])


@router.get("/runs", response_model=list[wire.RunView])
async def list_runs(
    service: ServiceDep, who: Caller, owner: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Newest first."""
    runs = await _runs(service, who, owner, limit)
    return json_response([views.run_view(run, service.state) for run in runs], list[wire.RunView])


async def _runs(service: Service, who: Who, owner: str | None, limit: int) -> list[Run]:
    stored = await service.store.runs(owner_filter(owner, who), limit)
    return [service.state.runs.get(run.id, run) for run in stored]


@router.post("/runs", status_code=201, response_model=wire.RunView, openapi_extra=takes(RunRequest))
async def start_run(request: Request, service: ServiceDep, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Accept a run. A request repeated under its Idempotency-Key returns the same run; another body under that key is 409."""
    run = await Dags(service).run(await parse_body(request, RunRequest, "run", DAG_LIMIT), who, idempotency_key)
    return json_response(views.run_view(run, service.state), status=201)


@router.get("/runs/{run_id}", response_model=wire.RunView)
async def show_run(run_id: str, service: ServiceDep, who: Caller) -> Response:
    return json_response(views.run_view(await Dags(service).find(run_id, who), service.state))


@router.post("/runs/{run_id}/cancel", response_model=wire.RunView)
async def cancel_run(run_id: str, service: ServiceDep, who: Caller) -> Response:
    run = await Dags(service).find(run_id, who)
    if run.phase is RunPhase.RUNNING:
        run = await Dags(service).cancel(run.id, who)
    return json_response(views.run_view(run, service.state))


@router.post("/runs/{run_id}/retry", response_model=wire.RunView)
async def retry_run(run_id: str, service: ServiceDep, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Run the nodes that did not succeed and all nodes after them again, once for each Idempotency-Key."""
    run = await Dags(service).find(run_id, who)
    return json_response(views.run_view(await Dags(service).retry(run.id, who, idempotency_key), service.state))
