"""Jobs: submit, list, look at, cancel, retry, delete, and why one waits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler import wire
from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.narrate import sentence
from tuttilab.scheduler.api.parts import (
    LONGEST_KEY,
    Caller,
    Direct,
    IdempotencyKey,
    ServiceHere,
    answer,
    body_of,
    check_owner,
    reading,
)
from tuttilab.scheduler.api.schema import BatchRequest, takes
from tuttilab.scheduler.errors import BadInput, NotFound
from tuttilab.scheduler.jobs import Jobs
from tuttilab.scheduler.model import LIVE, Attempt, AttemptPhase, Job, JobPhase
from tuttilab.scheduler.requests import JobRequest
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.base import JobQuery
from tuttilab.scheduler.store.rows import is_asked_for

router = APIRouter(tags=["jobs"])

MOST_JOBS: Final = 10_000
"""In one batch."""
MOST_EVENTS: Final = 10_000
STATES: Final[dict[str, JobPhase | AttemptPhase]] = {str(phase).lower(): phase for phase in (*JobPhase, *sorted(LIVE))}
"""The phases that people see, by how a caller may write them."""


async def submit_job(
    request: Request,
    service: ServiceHere,
    who: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job. The same Idempotency-Key gives the same job; another body under it is 409."""
    if idempotency_key is not None and not 0 < len(idempotency_key) <= LONGEST_KEY:
        raise BadInput(f"header: idempotency-key: it has {len(idempotency_key)} letters; expected 1 to {LONGEST_KEY}.")
    job = await Jobs(service).submit(await body_of(request, JobRequest, "job"), who, idempotency_key)
    return answer(await _view(service, job), status=201)


router.add_api_route(
    "/jobs",
    submit_job,
    methods=["POST"],
    status_code=201,
    response_model=wire.JobView,
    openapi_extra=takes(JobRequest),
    route_class_override=Direct,
)


@router.post("/jobs:batch", status_code=201, response_model=list[wire.JobView], openapi_extra=takes(BatchRequest))
async def submit_jobs(request: Request, service: ServiceHere, who: Caller) -> Response:
    """Accept all of the jobs in one commit, or none."""
    batch = await body_of(request, BatchRequest, "batch")
    if not 0 < len(batch.jobs) <= MOST_JOBS:
        raise BadInput(f"jobs: {len(batch.jobs)} were given; expected 1 to {MOST_JOBS}.")
    if batch.keys is not None and len(batch.keys) != len(batch.jobs):
        raise BadInput(f"keys: {len(batch.keys)} were given for {len(batch.jobs)} jobs; expected one for each.")
    if any(not 0 < len(key) <= LONGEST_KEY for key in batch.keys or ()):
        raise BadInput(f"keys: one has no letter or more than {LONGEST_KEY}; expected 1 to {LONGEST_KEY}.")
    jobs = await Jobs(service).submit_many(batch.jobs, who, batch.keys)
    return answer(await _views(service, jobs), list[wire.JobView], status=201)


@router.post("/jobs:dryrun", response_model=wire.DryRunView, openapi_extra=takes(JobRequest))
async def dry_run(request: Request, service: ServiceHere, who: Caller) -> Response:
    """What a submit would lead to now. Nothing is accepted."""
    found = await Jobs(service).dry_run(await body_of(request, JobRequest, "job"), who)
    charge = views.expected_charge(found.job, service.state).show() if found.job else {}
    view = wire.DryRunView(
        verdict=found.verdict,
        sentence=found.sentence,
        charge=charge,
        placements=found.placements,
        wait=views.wait_view(found.wait) if found.wait else None,
    )
    return answer(view)


@router.get("/jobs", response_model=wire.JobList)
async def list_jobs(
    service: ServiceHere,
    who: Caller,
    all: bool = False,
    state: str | None = None,
    group: str | None = None,
    owner: str | None = None,
    queue: str | None = None,
    kind: str | None = None,
    text: str | None = None,
    cursor: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Jobs, newest first: the caller's live ones, with ``all`` the ended ones too. ``owner`` is for admins; ``*`` is everybody."""
    phase = _state(state)
    query = JobQuery(check_owner(owner, who), group, queue, (), kind, text, cursor, limit + 1)
    if isinstance(phase, JobPhase) and phase.is_terminal:
        jobs = await _stored(service, query, (phase.value,))
    elif phase is None and all:
        jobs = await _stored(service, query, ())
    else:
        jobs = _live_jobs(service, query, phase)
    page = jobs[:limit]
    more = str(page[-1].order) if len(jobs) > limit else None
    return answer(wire.JobList(jobs=tuple(await _views(service, page)), next=more))


def _state(given: str | None) -> JobPhase | AttemptPhase | None:
    if given is None:
        return None
    if given.lower() not in STATES:
        near = difflib.get_close_matches(given.lower(), STATES, n=1, cutoff=0.5)
        hint = f"did you mean {STATES[near[0]]}?" if near else f"expected one of {', '.join(STATES.values())}."
        raise BadInput(f"state: there is no state {given[:40]!r}; {hint}")
    return STATES[given.lower()]


async def _stored(service: Service, query: JobQuery, phases: tuple[str, ...]) -> list[Job]:
    fields = {name: getattr(query, name) for name in query.__slots__}
    return list(await service.store.jobs(JobQuery(**fields | {"phases": phases})))


def _live_jobs(service: Service, query: JobQuery, phase: JobPhase | AttemptPhase | None) -> list[Job]:
    """From memory, which has every live job and knows the phase that people see."""
    state = service.state

    def is_in(job: Job) -> bool:
        attempt = state.live_attempt(job.id)
        return phase is None or phase in (job.phase, attempt.phase if attempt else None)

    live = (job for job in state.jobs.values() if not job.phase.is_terminal)
    found = [job for job in live if is_asked_for(job, query) and is_in(job)]
    return sorted(found, key=lambda job: -job.order)[: query.limit]


async def _views(service: Service, jobs: Sequence[Job]) -> list[wire.JobView]:
    """Attempts come from memory where it has them all, and otherwise from the store, for the whole page at once."""
    attempts = {job.id: _attempts_in_memory(service, job) for job in jobs}
    missing = [job.id for job in jobs if len(attempts[job.id]) < job.attempts]
    for job_id in missing:
        attempts[job_id] = []
    for attempt in await reading(service).attempts_of(missing) if missing else ():
        attempts[attempt.job_id].append(attempt)
    return [views.job_view(job, attempts[job.id], service.state) for job in jobs]


def _attempts_in_memory(service: Service, job: Job) -> list[Attempt]:
    keys = ((job.id, number) for number in range(1, job.attempts + 1))
    return [service.state.attempts[key] for key in keys if key in service.state.attempts]


async def _view(service: Service, job: Job) -> wire.JobView:
    return (await _views(service, [job]))[0]


@router.get("/jobs/{job_id}", response_model=wire.JobView)
async def get_job(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """A job by its id, or by the beginning of it where that is clear."""
    job, attempts = await Jobs(service).find(job_id, who)
    return answer(views.job_view(job, attempts, service.state))


@router.delete("/jobs/{job_id}", status_code=204)
async def delete_job(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """Remove an ended job with its logs. 409 while it is live."""
    job, _ = await Jobs(service).find(job_id, who)
    await Jobs(service).delete(job.id, who)
    return Response(status_code=204)


@router.post("/jobs/{job_id}/cancel", response_model=wire.JobView)
async def cancel_job(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """Stop a job, or take it out of its queue. Of an ended job nothing changes."""
    job, _ = await Jobs(service).find(job_id, who)
    return answer(await _view(service, await Jobs(service).cancel(job.id, who)))


@router.post("/jobs/{job_id}/retry", status_code=201, response_model=wire.JobView)
async def retry_job(job_id: str, service: ServiceHere, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """The same work again as a new job; under the same Idempotency-Key the same one. 409 while the old one is live."""
    job, _ = await Jobs(service).find(job_id, who)
    return answer(await _view(service, await Jobs(service).retry(job.id, who, idempotency_key)), status=201)


@router.get("/jobs/{job_id}/explain", response_model=wire.WaitView | None)
async def explain_job(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """Why the job waits; null when it does not."""
    job, attempts = await Jobs(service).find(job_id, who)
    return answer(views.job_view(job, attempts, service.state).wait, wire.WaitView | None)


@router.get("/jobs/{job_id}/events", response_model=list[wire.EventView])
async def job_events(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """The job's history, as far back as the journal is kept."""
    job, _ = await Jobs(service).find(job_id, who)
    lines = await reading(service).journal(0, MOST_EVENTS, key=job.id)
    found = [
        wire.EventView(seq=seq, at=at, kind=wire.event_kind(event), key=job.id, text=sentence(event)) for seq, at, event in lines
    ]
    return answer(found, list[wire.EventView])


@router.get("/jobs/{job_id}/result", response_model=wire.ResultView)
async def job_result(job_id: str, service: ServiceHere, who: Caller, rank: int = 0) -> Response:
    """What one rank of the newest attempt left: output name to artifact id."""
    job, attempts = await Jobs(service).find(job_id, who)
    if not attempts:
        raise NotFound(f"job {job.id} has not started, so it has left nothing yet; `tuttilab explain` says why.")
    pod = attempts[-1].of_rank(rank)
    if pod is None:
        raise NotFound(f"job {job.id} has no rank {rank}; expected 0 to {max(pod.rank for pod in attempts[-1].pods)}.")
    return answer(wire.ResultView(job_id=job.id, attempt=attempts[-1].number, rank=rank, outputs=pod.outputs))
