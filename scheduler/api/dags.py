"""DAGs and their runs: apply, run, list, look at, cancel, retry."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler import wire
from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.parts import Caller, IdempotencyKey, ServiceHere, answer, body_of, check_owner
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.errors import NotFound
from tuttilab.scheduler.graphs import Graphs
from tuttilab.scheduler.model import Run, RunPhase
from tuttilab.scheduler.requests import DagRequest, RunRequest, Who
from tuttilab.scheduler.service import Service

router = APIRouter(tags=["dags"])


@router.get("/dags", response_model=list[wire.DagView])
async def list_dags(service: ServiceHere, who: Caller) -> Response:
    mine = [dag for dag in service.state.dags.values() if who.is_admin or dag.owner == who.name]
    return answer([views.dag_view(dag) for dag in mine], list[wire.DagView])


@router.post("/dags", response_model=wire.DagView, openapi_extra=takes(DagRequest))
async def apply_dag(request: Request, service: ServiceHere, who: Caller) -> Response:
    """Keep a DAG by its name; a changed one becomes its next version."""
    return answer(views.dag_view(await Graphs(service).apply(await body_of(request, DagRequest, "dag"), who)))


@router.get("/dags/{name}/runs", response_model=list[wire.RunView])
async def runs_of_dag(name: str, service: ServiceHere, who: Caller) -> Response:
    runs = [run for run in await _runs(service, who, None, 1000) if run.name == name]
    if not runs and name not in service.state.dags:
        raise NotFound(f"There is no DAG {name!r}; `tuttilab dag apply FILE` keeps one.")
    return answer([views.run_view(run, service.state) for run in runs], list[wire.RunView])


@router.get("/runs", response_model=list[wire.RunView])
async def list_runs(
    service: ServiceHere, who: Caller, owner: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Newest first."""
    runs = await _runs(service, who, owner, limit)
    return answer([views.run_view(run, service.state) for run in runs], list[wire.RunView])


async def _runs(service: Service, who: Who, owner: str | None, limit: int) -> list[Run]:
    stored = await service.store.runs(check_owner(owner, who), limit)
    return [service.state.runs.get(run.id, run) for run in stored]


@router.post("/runs", status_code=201, response_model=wire.RunView, openapi_extra=takes(RunRequest))
async def start_run(request: Request, service: ServiceHere, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Accept a run. The same Idempotency-Key gives the same run; another body under it is 409."""
    run = await Graphs(service).run(await body_of(request, RunRequest, "run"), who, idempotency_key)
    return answer(views.run_view(run, service.state), status=201)


@router.get("/runs/{run_id}", response_model=wire.RunView)
async def show_run(run_id: str, service: ServiceHere, who: Caller) -> Response:
    return answer(views.run_view(await Graphs(service).find(run_id, who), service.state))


@router.post("/runs/{run_id}/cancel", response_model=wire.RunView)
async def cancel_run(run_id: str, service: ServiceHere, who: Caller) -> Response:
    run = await Graphs(service).find(run_id, who)
    if run.phase is RunPhase.RUNNING:
        run = await Graphs(service).cancel(run.id, who)
    return answer(views.run_view(run, service.state))


@router.post("/runs/{run_id}/retry", response_model=wire.RunView)
async def retry_run(run_id: str, service: ServiceHere, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Start over what did not end well and what is below it, once under one Idempotency-Key."""
    run = await Graphs(service).find(run_id, who)
    return answer(views.run_view(await Graphs(service).retry(run.id, who, idempotency_key), service.state))
