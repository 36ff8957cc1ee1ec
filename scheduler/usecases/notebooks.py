"""Requests of the hub about its notebook servers: start one, renew its lease, and why one cannot start now."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.explain.names import named
from tuttilab.scheduler.core.kinds import Site, driver_ports
from tuttilab.scheduler.core.kinds.notebook import (
    SERVER_LABEL,
    events_of_report,
    is_interchangeable,
    is_live_server,
    may_expire,
    request_of,
)
from tuttilab.scheduler.core.kinds.spark import session_name
from tuttilab.scheduler.core.ordering.queues import choose_queue, path_of
from tuttilab.scheduler.core.placement.fit import charge_of
from tuttilab.scheduler.core.profiles import as_user_of, check_queue, check_run_as, choose, image_of
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.core.storages import as_seen_by
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, NeverFits, NotFound
from tuttilab.scheduler.domain.model import Job, JobKind, Queue
from tuttilab.scheduler.domain.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.domain.resources import NOTHING, Resources, short_name, show_amount
from tuttilab.scheduler.domain.titles import SHORT_ID
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.usecases.profiles import stored_profiles
from tuttilab.scheduler.usecases.queue_choice import QueueChoice

log = logging.getLogger(__name__)

MOST_SHOWN: Final = 5
"""Holders that a refusal names; the rest is a number."""


class Notebooks:
    """Methods that change something return after the commit. All raise the errors of `domain.errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def start(self, request: NotebookRequest) -> Job:
        """Submit the job of a server before its pod exists. Raises Forbidden, BadInput, AboveMax, NeverFits.

        One that runs already is adopted: it is charged as soon as its queue has room, and goes on meanwhile.
        """
        if request.is_running:
            log.warning("server %r of %s runs and is not known here: it is adopted", request.server, request.owner)

        def run(turn: Turn) -> Job:
            service, order = self._service, self._service.last_order + 1
            job = build_server(request, turn.state, service.site(), job_id=service.new_id(), order=order, now=turn.now)
            submitted = submit_server(turn, job, is_running=request.is_running)
            service.last_order = max(service.last_order, submitted.order)
            service.notebook_leases.renew(submitted.id, turn.now)
            return submitted

        return await self._service.ask(run)

    async def renew(self, job_id: str, renewal: RenewRequest) -> Job:
        """Renew the server's lease and apply the phase that the hub reports. Raises NotFound for a job that is no server."""
        job = self._service.state.jobs.get(job_id) or await self._service.store.job(job_id)
        if job is None or job.kind is not JobKind.NOTEBOOK:
            raise NotFound(f"There is no notebook server {job_id[:SHORT_ID]!r}; expected the id that its submit answered.")
        self._service.notebook_leases.renew(job_id, self._service.now())
        if _changes_server(self._service.state, job, renewal):
            await self._service.ask(lambda turn: apply_renewal(turn, turn.state.jobs[job_id], renewal))
        return self._service.state.jobs.get(job_id, job)

    async def mark_active(self, job_id: str, who: Who) -> None:
        """Note in memory that a cell of the server runs. Raises NotFound for a server that is not live or not the caller's.

        The report of the server's own user is trusted: a false one gains no more than an endless cell would.
        """

        def run(turn: Turn) -> None:
            job, attempt = turn.state.jobs.get(job_id), turn.state.live_attempt(job_id)
            is_mine = job is not None and job.kind is JobKind.NOTEBOOK and (who.name == job.owner or who.is_admin)
            if not is_mine or attempt is None:
                raise NotFound(
                    f"{who.name} has no notebook server {job_id[:SHORT_ID]!r} that starts or runs; start one on the hub."
                )
            turn.state.handle(ev.NotebookActive(job_id, attempt.number), turn.now)

        await self._service.ask(run)

    def silent(self, for_s: float) -> list[Job]:
        """Servers that run and that the hub has not renewed for ``for_s`` seconds."""
        return self._service.notebook_leases.silent(self._service.state, self._service.now() - for_s)

    def expires_at(self, job_id: str) -> float | None:
        return self._service.notebook_leases.expires_at(job_id, self._service.state.live_attempt(job_id))


def build_server(request: NotebookRequest, state: State, site: Site, *, job_id: str, order: int, now: float) -> Job:
    """The job of a server by its profile. Raises Forbidden, BadInput, and AboveMax or NeverFits with who holds what."""
    profile = choose(stored_profiles(state), request)
    check_run_as(profile, request.run_as)
    check_queue(profile, request.queue)
    job_request = request_of(request, profile, image_of(profile, request.image))
    owner = as_user_of(profile, Who(request.owner, request.groups, is_hub=True))
    try:
        choice = QueueChoice(state, site, owner)
        job = choice.build(job_request, job_id=job_id, order=order, now=now, preemptible=profile.preemptible)
    except (AboveMax, NeverFits) as refusal:
        queue = choose_queue(state.queues, job_request.queue, site.default_queue, owner)
        free = _shortage(state, queue, NOTHING, request.owner, request.groups)
        raise type(refusal)(f"{refusal} Now {free}.") from refusal
    as_seen_by(job.group, profile, site.storages)
    return replace(job, labels={**job.labels, **driver_ports.label_of(_ports(request, profile, state, site, job))})


def _ports(request: NotebookRequest, profile: ProfileRequest, state: State, site: Site, job: Job) -> tuple[int, ...]:
    """The driver ports of the server: those that it has if it runs, else free ones. Raises AboveMax when there are too few."""
    if request.is_running or not profile.driver_ports:
        return request.driver_ports
    servers = [one for one in state.jobs.values() if one.kind is JobKind.NOTEBOOK and not one.phase.is_terminal]
    others = [one for one in servers if not is_live_server(one, job.owner, request.server)]
    taken = {port for other in others for port in driver_ports.ports_of(other)}
    return driver_ports.chosen(profile.driver_ports, site.driver_ports, taken, job.order)


def submit_server(turn: Turn, job: Job, *, is_running: bool = False) -> Job:
    """Submit the server. One of the same name that still waits keeps its place; any other of that name counts as ended.

    ``is_running``: it runs already, so a live one of that name is the same server.
    """
    for old in [old for old in turn.state.jobs.values() if is_live_server(old, job.owner, job.labels[SERVER_LABEL])]:
        attempt = turn.state.live_attempt(old.id)
        if is_interchangeable(old, job) and not old.cancel_requested and (is_running or may_expire(attempt)):
            return old
        apply_renewal(turn, old, RenewRequest(phase="ended", reason="its hub starts another in its place"))
    turn.apply(ev.JobSubmitted(job), job.id)
    return turn.state.jobs[job.id]


def apply_renewal(turn: Turn, job: Job, renewal: RenewRequest) -> None:
    """Apply the events that follow from what the hub reports about a live server."""
    for event in list(events_of_report(job, turn.state.live_attempt(job.id), renewal)):
        turn.apply(event, job.id)


def _changes_server(state: State, job: Job, renewal: RenewRequest) -> bool:
    return not job.phase.is_terminal and any(True for _ in events_of_report(job, state.live_attempt(job.id), renewal))


def refusal_of(state: State, job: Job, groups: Iterable[str]) -> str:
    """Why a server has to wait: what it asks for, what is free, and who holds the rest. ``groups``: of the server's owner."""
    wait = state.waits.get(job.id)
    if wait is None:
        return "it waits for its turn"
    clusters = [state.clusters[job.cluster]] if job.cluster in state.clusters else list(state.clusters.values())
    asked = charge_of(job, clusters[0]) if clusters else job.gang.resources
    short = Resources.of((key, asked[key]) for key, _ in wait.short) or asked
    queue = state.queues.get(wait.queue or "")
    if queue is None or not (state.use(queue.name) + asked).over(queue.max):
        return f"asks for {short}; {wait.sentence}"
    return f"asks for {short}; {_shortage(state, queue, short, job.owner, groups)}"


def _shortage(state: State, queue: Queue, short: Resources, owner: str, groups: Iterable[str]) -> str:
    """``queue research has 1 of 4 GPU free; job 'a' (3f2a9c12) of ann holds 2 GPU``: the owner's groups by name, others in one."""
    used = state.use(queue.name)
    keys = [key for key, _ in queue.max if not short or short[key]] or [key for key, _ in queue.max]
    left = {key: max(queue.max[key] - used[key], 0) for key in keys}
    free = [f"{show_amount(key, left[key])} of {show_amount(key, queue.max[key])} {short_name(key)}" for key in keys]
    holders = _holders(state, queue, keys, owner, frozenset(groups))
    return f"queue {queue.name} has {', '.join(free) or 'no limit'} free{holders}"


def _holders(state: State, queue: Queue, keys: list[str], owner: str, groups: frozenset[str]) -> str:
    known: list[str] = []
    others = NOTHING
    for job, attempt in state.live():
        held = Resources.of((key, attempt.charge[key]) for key in keys)
        if not held or job.queue not in state.queues or queue not in path_of(state.queues, job.queue):
            continue
        if job.owner == owner or job.group in groups:
            known.append(f"{named(job, owner, with_remedy=False)} holds {held}{_remedy(job, owner)}")
        else:
            others = others + held
    parts = known[:MOST_SHOWN]
    if len(known) > MOST_SHOWN:
        parts.append(f"{len(known) - MOST_SHOWN} more of your group hold the rest")
    if others:
        parts.append(f"other groups hold {others}")
    return "".join(f"; {part}" for part in parts)


def _remedy(job: Job, owner: str) -> str:
    """How the owner's own job gives up what it holds."""
    if job.owner != owner:
        return ""
    match job.kind:
        case JobKind.NOTEBOOK:
            return " (stop it on the hub to free it)"
        case JobKind.SPARK:
            return f" (`%spark stop {session_name(job)}` frees it)"
        case _:
            return f" (`tuttilab cancel {job.id[:SHORT_ID]}` frees it)"
