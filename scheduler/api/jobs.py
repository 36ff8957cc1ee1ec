"""Jobs: submit, dry run, list, show, cancel, retry, delete, explain, events, results."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.bodies import BATCH_LIMIT, parse_body
from tuttilab.scheduler.api.dependencies import (
    LONGEST_KEY,
    Caller,
    DirectRoute,
    IdempotencyKey,
    Rank,
    ServiceDep,
    Whole,
    json_response,
    owner_filter,
    query_store,
)
from tuttilab.scheduler.api.event_text import sentence
from tuttilab.scheduler.api.schema import MOST_JOBS, BatchRequest, takes
from tuttilab.scheduler.core.kinds.definition import definition_of
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, Forbidden, NotFound
from tuttilab.scheduler.domain.model import LIVE, Attempt, AttemptPhase, Job, JobPhase
from tuttilab.scheduler.domain.requests import JobRequest
from tuttilab.scheduler.domain.titles import title
from tuttilab.scheduler.domain.words import STARTING, WAITING, word
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.base import JobQuery
from tuttilab.scheduler.store.rows import matches
from tuttilab.scheduler.usecases.jobs import Jobs

router = APIRouter(tags=["jobs"])

MOST_EVENTS: Final = 10_000
STATES: Final[dict[str, tuple[JobPhase | AttemptPhase, ...]]] = {
    **{str(phase).lower(): (phase,) for phase in (*JobPhase, *sorted(LIVE))},
    WAITING.lower(): (JobPhase.QUEUED,),
    STARTING.lower(): (AttemptPhase.ADMITTED, AttemptPhase.LAUNCHING),
}
"""The phases that views show, by their names in lower case and by the words that users see for them."""


async def submit_job(
    request: Request,
    service: ServiceDep,
    who: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Accept a job. A request repeated under its Idempotency-Key returns the same job; another body under that key is 409."""
    if idempotency_key is not None and not 0 < len(idempotency_key) <= LONGEST_KEY:
        raise BadInput(f"header: idempotency-key: it has {len(idempotency_key)} letters; expected 1 to {LONGEST_KEY}.")
    job = await Jobs(service).submit(await parse_body(request, JobRequest, "job"), who, idempotency_key)
    return json_response(await _view(service, job), status=201)


router.add_api_route(
    "/jobs",
    submit_job,
    methods=["POST"],
    status_code=201,
    response_model=wire.JobView,
    openapi_extra=takes(JobRequest),
    route_class_override=DirectRoute,
)


@router.post("/jobs:batch", status_code=201, response_model=list[wire.JobView], openapi_extra=takes(BatchRequest))
async def submit_jobs(request: Request, service: ServiceDep, who: Caller) -> Response:
    """Accept all of the jobs in one commit, or none."""
    batch = await parse_body(request, BatchRequest, "batch", BATCH_LIMIT)
    if not 0 < len(batch.jobs) <= MOST_JOBS:
        raise BadInput(f"jobs: {len(batch.jobs)} were given; expected 1 to {MOST_JOBS}.")
    if batch.keys is not None and len(batch.keys) != len(batch.jobs):
        raise BadInput(f"keys: {len(batch.keys)} were given for {len(batch.jobs)} jobs; expected one for each.")
    if any(not 0 < len(key) <= LONGEST_KEY for key in batch.keys or ()):
        raise BadInput(f"keys: one has no letter or more than {LONGEST_KEY}; expected 1 to {LONGEST_KEY}.")
    jobs = await Jobs(service).submit_many(batch.jobs, who, batch.keys)
    return json_response(await _views(service, jobs), list[wire.JobView], status=201)


@router.post("/jobs:dryrun", response_model=wire.DryRunView, openapi_extra=takes(JobRequest))
async def dry_run(request: Request, service: ServiceDep, who: Caller) -> Response:
    """What would happen to the job if it were submitted now. Nothing is accepted."""
    found = await Jobs(service).dry_run(await parse_body(request, JobRequest, "job"), who)
    charge = views.expected_charge(found.job, service.state).show() if found.job else {}
    view = wire.DryRunView(
        verdict=found.verdict,
        sentence=found.sentence,
        charge=charge,
        placements=found.placements,
        wait=views.wait_view(found.wait) if found.wait else None,
    )
    return json_response(view)


@router.get("/jobs", response_model=wire.JobList)
async def list_jobs(
    service: ServiceDep,
    who: Caller,
    all: bool = False,
    state: str | None = None,
    group: str | None = None,
    owner: str | None = None,
    queue: str | None = None,
    kind: str | None = None,
    text: str | None = None,
    cursor: Whole | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The caller's live jobs, newest first; with ``all`` ended jobs too. Admins may list an ``owner``, or all with ``*``."""
    phases = _states(state)
    query = JobQuery(owner_filter(owner, who), group, queue, (), kind, text, cursor, limit + 1)
    if phases and _are_terminal(phases):
        jobs = await _stored(service, query, tuple(phase.value for phase in phases))
    elif not phases and all:
        jobs = await _stored(service, query, ())
    else:
        jobs = _live_jobs(service, query, phases)
    page = jobs[:limit]
    next_cursor = str(page[-1].order) if len(jobs) > limit else None
    return json_response(wire.JobList(jobs=tuple(await _views(service, page)), next=next_cursor))


def _states(given: str | None) -> tuple[JobPhase | AttemptPhase, ...]:
    """The phases that the name of a phase or a user's word for it (`domain.words`) means; empty for none given."""
    if given is None:
        return ()
    found = STATES.get(given.lower())
    if found is None:
        near = difflib.get_close_matches(given.lower(), STATES, n=1, cutoff=0.5)
        words = dict.fromkeys(word(name.capitalize()) for name in STATES)
        hint = f"did you mean {word(near[0].capitalize())}?" if near else f"expected one of {', '.join(words)}."
        raise BadInput(f"state: there is no state {given[:40]!r}; {hint}")
    return found


def _are_terminal(phases: Sequence[JobPhase | AttemptPhase]) -> bool:
    return all(isinstance(phase, JobPhase) and phase.is_terminal for phase in phases)


async def _stored(service: Service, query: JobQuery, phases: tuple[str, ...]) -> list[Job]:
    fields = {name: getattr(query, name) for name in query.__slots__}
    return list(await service.store.jobs(JobQuery(**fields | {"phases": phases})))


def _live_jobs(service: Service, query: JobQuery, phases: tuple[JobPhase | AttemptPhase, ...]) -> list[Job]:
    """From memory, which holds every live job and, unlike the store, the phase of its live attempt."""
    state = service.state

    def has_phase(job: Job) -> bool:
        attempt = state.live_attempt(job.id)
        return not phases or job.phase in phases or (attempt is not None and attempt.phase in phases)

    live = (job for job in state.jobs.values() if not job.phase.is_terminal)
    found = [job for job in live if matches(job, query) and has_phase(job)]
    return sorted(found, key=lambda job: -job.order)[: query.limit]


async def _views(service: Service, jobs: Sequence[Job]) -> list[wire.JobView]:
    """Attempts come from memory where it holds them all, and otherwise from the store, in one query for the whole page."""
    attempts = {job.id: _cached_attempts(service, job) for job in jobs}
    missing = [job.id for job in jobs if len(attempts[job.id]) < job.attempts]
    for job_id in missing:
        attempts[job_id] = []
    for attempt in await query_store(service).attempts_of(missing) if missing else ():
        attempts[attempt.job_id].append(attempt)
    return [views.job_view(job, attempts[job.id], service.state) for job in jobs]


def _cached_attempts(service: Service, job: Job) -> list[Attempt]:
    keys = ((job.id, number) for number in range(1, job.attempts + 1))
    return [service.state.attempts[key] for key in keys if key in service.state.attempts]


async def _view(service: Service, job: Job) -> wire.JobView:
    return (await _views(service, [job]))[0]


@router.get("/jobs/{job_id}", response_model=wire.JobView)
async def get_job(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """A job by its id or an unambiguous prefix of it."""
    job, attempts = await Jobs(service).find(job_id, who)
    return json_response(views.job_view(job, attempts, service.state))


@router.delete("/jobs/{job_id}", status_code=204)
async def delete_job(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """Delete an ended job with its logs. 409 while it is live."""
    job, _ = await Jobs(service).find(job_id, who)
    await Jobs(service).delete(job.id, who)
    return Response(status_code=204)


@router.post("/jobs/{job_id}/cancel", response_model=wire.JobView)
async def cancel_job(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """Stop a job, or take it out of its queue. An ended job does not change."""
    job, _ = await Jobs(service).find(job_id, who)
    return json_response(await _view(service, await Jobs(service).cancel(job.id, who)))


@router.post("/jobs/{job_id}/retry", status_code=201, response_model=wire.JobView)
async def retry_job(job_id: str, service: ServiceDep, who: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Submit an ended job again as a new job; once for each Idempotency-Key. 409 while the job is live."""
    job, _ = await Jobs(service).find(job_id, who)
    return json_response(await _view(service, await Jobs(service).retry(job.id, who, idempotency_key)), status=201)


@router.get("/jobs/{job_id}/explain", response_model=wire.WaitView | None)
async def explain_job(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """Why the job waits; null when it does not."""
    job, attempts = await Jobs(service).find(job_id, who)
    wait = views.job_view(job, attempts, service.state).wait
    told = None if wait is None else replace(wait, rule=views.rule_text(service.state))
    return json_response(told, wire.WaitView | None)


@router.get("/jobs/{job_id}/definition", response_model=JobRequest)
async def job_definition(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """The request that submits the same job again, for its owner only: its variables may be secrets."""
    job, _ = await Jobs(service).find(job_id, who)
    if job.owner != who.name:
        raise Forbidden(f"{job.name} belongs to {job.owner}, who alone may export it: its variables may be secrets.")
    return json_response(definition_of(job), JobRequest)


@router.get("/jobs/{job_id}/events", response_model=list[wire.EventView])
async def job_events(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """The job's events, as far back as the journal is kept."""
    job, _ = await Jobs(service).find(job_id, who)
    lines = await query_store(service).journal(0, MOST_EVENTS, key=job.id)
    found = [
        wire.EventView(seq=seq, at=at, kind=wire.event_kind(event), key=job.id, text=sentence(event)) for seq, at, event in lines
    ]
    return json_response(found, list[wire.EventView])


@router.get("/jobs/{job_id}/result", response_model=wire.ResultView)
async def job_result(job_id: str, service: ServiceDep, who: Caller, rank: Rank = 0) -> Response:
    """The outputs of one rank of the newest attempt: output name to artifact id."""
    job, attempts = await Jobs(service).find(job_id, who)
    if not attempts:
        raise NotFound(f"job {title(job)} has not started, so it has left nothing yet; `tuttilab explain` says why.")
    pod = attempts[-1].of_rank(rank)
    if pod is None:
        raise NotFound(f"job {title(job)} has no rank {rank}; expected 0 to {max(pod.rank for pod in attempts[-1].pods)}.")
    return json_response(wire.ResultView(job_id=job.id, attempt=attempts[-1].number, rank=rank, outputs=pod.outputs))
