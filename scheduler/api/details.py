"""What a job's page shows beside the job: its log, what was sent along and kept, and what the pods used over time."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tuttilab.scheduler.api.artifacts.routes import blobs_of
from tuttilab.scheduler.api.dependencies import Caller, Counted, Rank, ServiceDep, Whole, json_response
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.detail_views import (
    DetailsView,
    DisplaysView,
    OutputView,
    PodUsageView,
    SentView,
    ShownListView,
    ShownView,
    UsageView,
)
from tuttilab.scheduler.domain.model import Job
from tuttilab.scheduler.domain.resources import CPU, MEMORY
from tuttilab.scheduler.usecases.bundles import Bundle
from tuttilab.scheduler.usecases.job_details import PodUsage, details_of, displays_of, ranks_of, shown_by, usage_of
from tuttilab.scheduler.usecases.jobs import Jobs

router = APIRouter(tags=["jobs"])


@router.get("/jobs/{job_id}/details", response_model=DetailsView)
async def job_details(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """What was asked for and sent along with the job, and what its newest attempt has kept, with sizes."""
    found = await details_of(service, blobs_of(service.config), job_id, who)
    work = found.job.work
    view = DetailsView(
        image=work.image,
        workdir=work.workdir,
        framework=work.framework.value,
        retries=found.job.retries,
        env=tuple(sorted(work.env)),
        inputs=tuple(needed.path for needed in work.inputs),
        sent=_sent(found.bundle) if found.bundle else None,
        outputs=tuple(OutputView(rank=o.rank, name=o.name, artifact=o.artifact, size=o.size) for o in found.outputs),
        more_outputs=found.more_outputs,
    )
    return json_response(view)


def _sent(bundle: Bundle) -> SentView:
    return SentView(
        cell=bundle.cell,
        cell_name=bundle.cell_name,
        functions=bundle.functions,
        is_cut=bundle.is_cut,
        names=bundle.names,
        files=bundle.files,
        more=bundle.more,
        size=bundle.size,
    )


@router.get("/jobs/{job_id}/shown", response_model=ShownListView)
async def job_shown(
    job_id: str,
    service: ServiceDep,
    who: Caller,
    rank: Whole = 0,
    known: Whole = 0,
) -> Response:
    """The texts and pictures that a cell showed so far, its value among them. Without HTML and scripts.

    With ``known``, the ``size`` of an earlier response, they are left out when nothing has changed since.
    """
    found = await shown_by(service, blobs_of(service.config), job_id, who, rank, known)
    shown = tuple(
        ShownView(text=one.text, kind=one.kind, picture=one.picture, others=one.others, is_value=one.is_value)
        for one in found.shown
    )
    return json_response(ShownListView(rank=rank, size=found.size, shown=shown, more=found.more))


@router.get("/jobs/{job_id}/usage", response_model=UsageView)
async def job_usage(
    job_id: str,
    service: ServiceDep,
    who: Caller,
    attempt: Counted | None = None,
    first: Whole = 0,
    limit: Annotated[int, Query(ge=1, le=64)] = 16,
) -> Response:
    """CPU and memory over time of ``limit`` pods from rank ``first`` on, of the newest attempt unless another is named."""
    job, chosen, pods = await usage_of(service, job_id, who, attempt, first, limit)
    total = len(ranks_of(chosen)) if chosen else 0
    view = UsageView(attempt=chosen.number if chosen else 0, total=total, pods=tuple(_pod(job, one) for one in pods))
    return json_response(view)


@router.get("/jobs/{job_id}/displays", response_model=DisplaysView)
async def job_displays(
    job_id: str,
    service: ServiceDep,
    who: Caller,
    attempt: Counted = 1,
    rank: Whole = 0,
    start: Whole = 0,
) -> Response:
    """What the cell of one rank displayed while it runs, from byte ``start``; after its end it is an output of the job."""
    found = await displays_of(service, job_id, who, attempt, rank, start)
    return json_response(DisplaysView(lines=found.lines, next=found.next))


def _pod(job: Job, one: PodUsage) -> PodUsageView:
    pod, usage = one.pod, one.usage
    asked = next(pod_set.resources for pod_set in job.gang.pod_sets if pod_set.role == pod.role)
    return PodUsageView(
        pod=pod.name,
        rank=pod.rank,
        role=pod.role,
        node=pod.node,
        started_at=usage.started_at,
        seconds=tuple(at for at, _, _ in usage.points),
        cpus=tuple(cores for _, cores, _ in usage.points),
        memory=tuple(size for _, _, size in usage.points),
        cpu_s=usage.cpu_s,
        peak_memory=usage.peak_bytes,
        asked_cpus=asked[CPU] / 1000,
        asked_memory=asked[MEMORY],
    )


@router.get("/jobs/{job_id}/logs", response_model=wire.LogView)
async def job_logs(
    job_id: str,
    service: ServiceDep,
    who: Caller,
    rank: Rank = 0,
    start: Whole = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    attempt: Counted | None = None,
) -> Response:
    """Whole lines of one rank from line ``start``, so that a reader can continue where it stopped, of the newest attempt unless
    another is named. A waiting job has none yet."""
    job, _ = await Jobs(service).find(job_id, who)
    pod, chunk = await Jobs(service).logs(job.id, who, attempt, rank, start, limit)
    view = wire.LogView(
        pod=pod.name if pod else "",
        rank=rank,
        start=chunk.start,
        lines=chunk.lines,
        next=chunk.start + len(chunk.lines),
        is_end=chunk.is_end,
        partial=chunk.partial,
        times=chunk.times,
    )
    return json_response(view)
