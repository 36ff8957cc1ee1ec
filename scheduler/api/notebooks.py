"""Notebook servers, for the hub that starts them, and the profiles they are started from, for everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from tuttilab.scheduler import notebooks, wire
from tuttilab.scheduler.api import views
from tuttilab.scheduler.api.parts import Caller, ServiceHere, answer, body_of
from tuttilab.scheduler.api.schema import takes
from tuttilab.scheduler.core.kinds.notebook import PHASES, PROFILE_LABEL
from tuttilab.scheduler.errors import BadInput, Forbidden, NotFound
from tuttilab.scheduler.model import AttemptPhase, Job
from tuttilab.scheduler.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.servers import Servers
from tuttilab.scheduler.service import Service

router = APIRouter(tags=["notebooks"])


@router.post("/notebooks", status_code=201, response_model=wire.NotebookView, openapi_extra=takes(NotebookRequest))
async def start_notebook(request: Request, service: ServiceHere, who: Caller) -> Response:
    """Put a server into the ledger before its pod is made. Asked again while it waits, it keeps its place."""
    _only_the_hub(who)
    asked = await body_of(request, NotebookRequest, "notebook")
    job = await Servers(service).start(asked)
    return answer(_view(service, job, asked.groups), status=201)


@router.post("/notebooks/{job_id}/renew", response_model=wire.NotebookView, openapi_extra=takes(RenewRequest))
async def renew_notebook(job_id: str, request: Request, service: ServiceHere, who: Caller) -> Response:
    """Say how the server is, and hear whether it may start and whether it is still wanted."""
    _only_the_hub(who)
    said = await body_of(request, RenewRequest, "renewal")
    if said.phase not in PHASES:
        raise BadInput(f"phase: {said.phase[:40]!r} is not known; expected {', '.join(PHASES)}.")
    job = await Servers(service).renew(job_id, said)
    return answer(_view(service, job, (job.group,)))


@router.post("/notebooks/{job_id}/active", status_code=204)
async def notebook_active(job_id: str, service: ServiceHere, who: Caller) -> Response:
    """Said by the server itself, again and again while a cell runs: it is not stopped for others meanwhile."""
    await Servers(service).active(job_id, who)
    return Response(status_code=204)


def _only_the_hub(who: Who) -> None:
    if not who.is_hub:
        raise Forbidden("notebooks: only the hub's own service token starts and ends servers; start one on the hub's page.")


def _view(service: Service, job: Job, groups: tuple[str, ...]) -> wire.NotebookView:
    job = service.state.jobs.get(job.id, job)
    attempt = service.state.live_attempt(job.id)
    stored = service.state.profiles.get(job.labels[PROFILE_LABEL])
    wait = service.state.waits.get(job.id)
    is_waiting = attempt is None and not job.phase.is_terminal
    return wire.NotebookView(
        job=views.job_view(job, [attempt] if attempt else [], service.state),
        # One that was deleted while its server lives: the server has its volumes, nobody asks for them again.
        profile=notebooks.body_of(stored) if stored is not None else ProfileRequest(name=job.labels[PROFILE_LABEL]),
        is_admitted=attempt is not None and attempt.phase is not AttemptPhase.STOPPING,
        is_wanted=not job.phase.is_terminal and not job.cancel_requested and (attempt is None or attempt.stopping_at is None),
        node=attempt.pods[0].node if attempt else None,
        image=job.work.image,
        place=wait.place if wait else None,
        refusal=notebooks.refusal_of(service.state, job, groups) if is_waiting else "",
        expires_at=None if job.phase.is_terminal else Servers(service).expires_at(job.id),
    )


@router.get("/profiles", response_model=list[wire.ProfileView])
async def list_profiles(
    service: ServiceHere, who: Caller, group: Annotated[list[str] | None, Query()] = None, owner: str | None = None
) -> Response:
    """The profiles that the caller is offered; an admin sees all. The hub asks for a user: ``owner``, and each ``group``."""
    if owner is not None:
        _only_the_hub(who)
        who = Who(owner, tuple(group or ()))
    elif group is not None:
        raise BadInput("query: group goes with owner, and both are for the hub.")
    return answer(
        [_profile(service, one) for one in notebooks.shown(notebooks.profiles_of(service.state), who)], list[wire.ProfileView]
    )


@router.get("/profiles/{name}", response_model=wire.ProfileView)
async def get_profile(name: str, service: ServiceHere, who: Caller) -> Response:
    found = next((one for one in notebooks.shown(notebooks.profiles_of(service.state), who) if one.name == name), None)
    if found is None:
        raise NotFound(f"There is no profile {name!r}; `tuttilab profile list` shows those that you are offered.")
    return answer(_profile(service, found))


@router.post("/profiles", response_model=wire.ProfileView, openapi_extra=takes(ProfileRequest))
async def apply_profile(request: Request, service: ServiceHere, who: Caller) -> Response:
    """Keep a profile by its name, in place of the one before. Servers that run keep what they have."""
    _only_admins(who)
    profile = await Servers(service).apply_profile(await body_of(request, ProfileRequest, "profile"), who)
    return answer(_profile(service, notebooks.body_of(profile)))


@router.delete("/profiles/{name}", status_code=204)
async def delete_profile(name: str, service: ServiceHere, who: Caller) -> Response:
    _only_admins(who)
    await Servers(service).delete_profile(name)
    return Response(status_code=204)


def _only_admins(who: Who) -> None:
    if not who.is_admin:
        raise Forbidden(f"profiles: {who.name} is no admin; ask one to apply it.")


def _profile(service: Service, body: ProfileRequest) -> wire.ProfileView:
    stored = service.state.profiles[body.name]
    return wire.ProfileView(profile=body, applied_by=stored.applied_by, applied_at=stored.applied_at)
