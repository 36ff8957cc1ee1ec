"""Logs of a job's pods, by line number, so that a reader can continue where it stopped."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tuttilab.scheduler.api.dependencies import Caller, Counted, Rank, ServiceDep, Whole, json_response
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.usecases.jobs import Jobs

router = APIRouter(tags=["jobs"])


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
    """Whole lines of one rank from line ``start``, of the newest attempt unless another is named. A waiting job has none yet."""
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
