"""Notebook servers, for the hub that starts them; and the profiles that they are started from, for all users."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.dependencies import Caller, ServiceDep, json_response, parse_body
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.core.kinds.driver_ports import ports_of
from tuttilab.scheduler.core.kinds.notebook import PHASES, PROFILE_LABEL, RUN_AS_LABEL
from tuttilab.scheduler.core.profiles import queues_for
from tuttilab.scheduler.core.storages import as_seen_by
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import BadInput, Forbidden, NotFound
from tuttilab.scheduler.domain.model import AttemptPhase, Job, Profile
from tuttilab.scheduler.domain.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.usecases.notebooks import Notebooks, refusal_of
from tuttilab.scheduler.usecases.profiles import Profiles, parse_profile

router = APIRouter(tags=["notebooks"])


LONGEST_WAIT_S: Final = 10.0
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)]


@router.post("/notebooks", status_code=201, response_model=wire.NotebookView, openapi_extra=takes(NotebookRequest))
async def start_notebook(request: Request, service: ServiceDep, who: Caller, wait: Wait = 0.0) -> Response:
    """Queue a server before the hub creates its pod. A request repeated while it waits keeps its place in the queue.

    With ``wait`` the response comes when the server may start or is no longer wanted, after so many seconds at most.
    """
    _require_hub(who)
    body = await parse_body(request, NotebookRequest, "notebook")
    job = await Notebooks(service).start(body)
    await _until_decided(service, job, wait)
    return json_response(_view(service, job, body.groups), status=201)


@router.post("/notebooks/{job_id}/renew", response_model=wire.NotebookView, openapi_extra=takes(RenewRequest))
async def renew_notebook(job_id: str, request: Request, service: ServiceDep, who: Caller, wait: Wait = 0.0) -> Response:
    """Report the server's phase and renew its lease. The response says whether it may start and whether it is still wanted.

    ``wait``: as when it is queued.
    """
    _require_hub(who)
    body = await parse_body(request, RenewRequest, "renewal")
    if body.phase not in PHASES:
        raise BadInput(f"phase: {body.phase[:40]!r} is not known; expected {', '.join(PHASES)}.")
    job = await Notebooks(service).renew(job_id, body)
    await _until_decided(service, job, wait)
    return json_response(_view(service, job, (job.group,)))


@router.post("/notebooks/{job_id}/active", status_code=204)
async def notebook_active(job_id: str, service: ServiceDep, who: Caller) -> Response:
    """Sent by the server itself, repeatedly while a cell runs: meanwhile it is not preempted."""
    await Notebooks(service).mark_active(job_id, who)
    return Response(status_code=204)


def _require_hub(who: Who) -> None:
    if not who.is_hub:
        raise Forbidden("notebooks: only the hub's own service token starts and ends servers; start one on the hub's page.")


async def _until_decided(service: Service, job: Job, limit_s: float) -> None:
    """Wait while the server has no room yet, for so long at most."""
    until = asyncio.get_running_loop().time() + limit_s
    while (left := until - asyncio.get_running_loop().time()) > 0:
        seq, job = service.last_seq, service.state.jobs.get(job.id, job)
        if job.phase.is_terminal or job.cancel_requested or service.state.live_attempt(job.id) is not None:
            return
        await service.wait_change(seq, left)


def _view(service: Service, job: Job, groups: tuple[str, ...]) -> wire.NotebookView:
    job = service.state.jobs.get(job.id, job)
    attempt = service.state.live_attempt(job.id)
    stored = service.state.profiles.get(job.labels[PROFILE_LABEL])
    wait = service.state.waits.get(job.id)
    is_waiting = attempt is None and not job.phase.is_terminal
    profile = _profile_for(service, stored, job.group) if stored else ProfileRequest(name=job.labels[PROFILE_LABEL])
    return wire.NotebookView(
        job=views.job_view(job, [attempt] if attempt else [], service.state),
        # A profile may be deleted while its server lives; the server has its volumes and does not need the profile any more.
        profile=profile,
        is_admitted=attempt is not None and attempt.phase is not AttemptPhase.STOPPING,
        is_wanted=not job.phase.is_terminal and not job.cancel_requested and (attempt is None or attempt.stopping_at is None),
        node=attempt.pods[0].node if attempt else None,
        image=job.work.image,
        installation=service.secrets.installation,
        run_as=profile.proxy_users.get(job.labels.get(RUN_AS_LABEL, "")),
        driver_ports=ports_of(job),
        place=wait.place if wait else None,
        refusal=refusal_of(service.state, job, groups) if is_waiting else "",
        expires_at=None if job.phase.is_terminal else Notebooks(service).expires_at(job.id),
    )


def _profile_for(service: Service, stored: Profile, group: str) -> ProfileRequest:
    """As a server of the group gets it. Whose storage was taken off the list after its admission starts without volumes."""
    profile = parse_profile(stored)
    try:
        return as_seen_by(group, profile, service.site().storages)
    except Forbidden:
        return replace(profile, mounts=())


@router.get("/profiles", response_model=list[wire.ProfileView])
async def list_profiles(
    service: ServiceDep, who: Caller, group: Annotated[list[str] | None, Query()] = None, owner: str | None = None
) -> Response:
    """The profiles that the caller may use; an admin sees all. The hub lists those of a user: ``owner``, and each ``group``."""
    if owner is not None:
        _require_hub(who)
        who = Who(owner, tuple(group or ()))
    elif group is not None:
        raise BadInput("query: group goes with owner, and both are for the hub.")
    views = [_profile(service, one) for one in Profiles(service).visible_to(who)]
    if owner is not None:
        views = [replace(view, queues=queues_for(view.profile, who, service.site())) for view in views]
    return json_response(views, list[wire.ProfileView])


@router.get("/profiles/{name}", response_model=wire.ProfileView)
async def get_profile(name: str, service: ServiceDep, who: Caller) -> Response:
    found = next((one for one in Profiles(service).visible_to(who) if one.name == name), None)
    if found is None:
        raise NotFound(f"There is no profile {name!r}; `tuttilab profile list` shows those that you are offered.")
    return json_response(_profile(service, found))


@router.post("/profiles", response_model=wire.ProfileView, openapi_extra=takes(ProfileRequest))
async def apply_profile(request: Request, service: ServiceDep, who: Caller) -> Response:
    """Store a profile under its name, replacing an earlier one. Running servers keep what they have."""
    _require_admin(who)
    profile = await Profiles(service).apply(await parse_body(request, ProfileRequest, "profile"), who)
    return json_response(_profile(service, parse_profile(profile)))


@router.delete("/profiles/{name}", status_code=204)
async def delete_profile(name: str, service: ServiceDep, who: Caller) -> Response:
    _require_admin(who)
    await Profiles(service).delete(name, who)
    return Response(status_code=204)


def _require_admin(who: Who) -> None:
    if not who.is_admin:
        raise Forbidden(f"profiles: {who.name} is no admin; ask one to apply it.")


def _profile(service: Service, body: ProfileRequest) -> wire.ProfileView:
    stored = service.state.profiles[body.name]
    return wire.ProfileView(profile=body, applied_by=stored.applied_by, applied_at=stored.applied_at)
