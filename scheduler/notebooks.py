"""Servers of the hub as the service keeps them: who was heard of last, what the hub is told, and profiles as they are stored.

When a server was heard of is not a row: after a restart every one counts as just heard from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.kinds.notebook import SERVER_LABEL, TTL_S, is_live_server, is_same, may_expire, news, request_of
from tuttilab.scheduler.core.placement import charge_of
from tuttilab.scheduler.core.profiles import choose, image_of
from tuttilab.scheduler.core.queues import choose_queue, path_of
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.errors import AboveMax, NeverFits
from tuttilab.scheduler.model import Attempt, Job, JobKind, Profile, Queue
from tuttilab.scheduler.requests import NotebookRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.resources import NOTHING, Resources, short_name, show_amount
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import from_json

MOST_SHOWN = 5
"""Holders that a refusal names; the rest is a number."""


@dataclass(slots=True)
class Heard:
    """When the hub last spoke of each live server. ``since``: when this service began to listen."""

    since: float = 0.0
    _at: dict[str, float] = field(default_factory=dict)

    def note(self, job_id: str, at: float) -> None:
        self._at[job_id] = at

    def begin(self, state: State, at: float) -> None:
        """Every live server counts as just heard from."""
        self.since = at
        self._at = {job.id: at for job in state.jobs.values() if job.kind is JobKind.NOTEBOOK and not job.phase.is_terminal}

    def deadline(self, job_id: str, attempt: Attempt | None) -> float | None:
        """When it is given up; None while it runs."""
        if not may_expire(attempt):
            return None
        stopping = attempt.stopping_at if attempt is not None else None
        return max(self._at.get(job_id, self.since), stopping or 0.0) + TTL_S

    def silent(self, state: State, before: float) -> list[Job]:
        """Servers that run and were last heard of before that."""
        live = ((job_id, state.jobs.get(job_id), state.live_attempt(job_id)) for job_id, at in self._at.items() if at <= before)
        return [job for _, job, attempt in live if job is not None and attempt is not None and not may_expire(attempt)]

    def expired(self, state: State, now: float) -> tuple[list[ev.NotebookExpired], float | None]:
        """The servers that nobody waits for any more, and when the next one is given up."""
        due: list[ev.NotebookExpired] = []
        upcoming: list[float] = []
        for job_id in list(self._at):
            job = state.jobs.get(job_id)
            if job is None or job.phase.is_terminal:
                del self._at[job_id]
                continue
            at = self.deadline(job_id, state.live_attempt(job_id))
            if at is not None and at <= now:
                due.append(ev.NotebookExpired(job_id))
            elif at is not None:
                upcoming.append(at)
        return due, min(upcoming, default=None)


def profiles_of(state: State) -> dict[str, ProfileRequest]:
    return {name: from_json(ProfileRequest, profile.body) for name, profile in state.profiles.items()}


def body_of(profile: Profile) -> ProfileRequest:
    return from_json(ProfileRequest, profile.body)


def build_server(
    asked: NotebookRequest, state: State, site: Site, *, job_id: str, order: int, now: float
) -> tuple[Job, ProfileRequest]:
    """The job of a server by its profile. Raises Forbidden, BadInput, and AboveMax or NeverFits with who holds what."""
    profile = choose(profiles_of(state), asked)
    request = request_of(asked, profile, image_of(profile, asked.image))
    owner = Who(asked.owner, asked.groups, is_hub=True)
    try:
        job = build(request, owner, site, job_id=job_id, order=order, now=now)
        return replace(job, preemptible=profile.preemptible), profile
    except (AboveMax, NeverFits) as refusal:
        queue = choose_queue(state.queues, request.queue, site.default_queue, owner)
        free = shortage(state, queue, NOTHING, asked.owner, asked.groups)
        raise type(refusal)(f"{refusal} Now {free}.") from refusal


def place(turn: Turn, job: Job) -> Job:
    """Submit the server. One of the same name that still waits keeps its place; any other of that name is not there any more."""
    for old in [old for old in turn.state.jobs.values() if is_live_server(old, job.owner, job.labels[SERVER_LABEL])]:
        attempt = turn.state.live_attempt(old.id)
        if is_same(old, job) and not old.cancel_requested and may_expire(attempt):
            return old
        apply_news(turn, old, RenewRequest(phase="ended", reason="its hub starts another in its place"))
    turn.apply(ev.JobSubmitted(job), job.id)
    return turn.state.jobs[job.id]


def apply_news(turn: Turn, job: Job, said: RenewRequest) -> None:
    for event in list(news(job, turn.state.live_attempt(job.id), said)):
        turn.apply(event, job.id)


def has_news(state: State, job: Job, said: RenewRequest) -> bool:
    return not job.phase.is_terminal and any(True for _ in news(job, state.live_attempt(job.id), said))


def refusal_of(state: State, job: Job, groups: Iterable[str]) -> str:
    """For a server that has to wait and may not: what it asks for, what is free, and who holds the rest."""
    wait = state.waits.get(job.id)
    if wait is None:
        return "it waits for its turn"
    clusters = [state.clusters[job.cluster]] if job.cluster in state.clusters else list(state.clusters.values())
    asked = charge_of(job, clusters[0]) if clusters else job.gang.resources
    short = Resources.of((key, asked[key]) for key, _ in wait.short) or asked
    queue = state.queues.get(wait.queue or "")
    if queue is None or not (state.use(queue.name) + asked).over(queue.max):
        return f"asks for {short}; {wait.sentence}"
    return f"asks for {short}; {shortage(state, queue, short, job.owner, groups)}"


def shortage(state: State, queue: Queue, short: Resources, owner: str, groups: Iterable[str]) -> str:
    """``queue research has 1 of 4 GPU free; ann's notebook holds 2 GPU``: the owner's groups by name, others as one number."""
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
            whose = "your" if job.owner == owner else f"{job.owner}'s"
            known.append(f"{whose} {job.name} holds {held}")
        else:
            others = others + held
    parts = known[:MOST_SHOWN]
    if len(known) > MOST_SHOWN:
        parts.append(f"{len(known) - MOST_SHOWN} more of your group hold the rest")
    if others:
        parts.append(f"other groups hold {others}")
    return "".join(f"; {part}" for part in parts)


def shown(profiles: Mapping[str, ProfileRequest], who: Who) -> Iterator[ProfileRequest]:
    """The profiles that the caller may see: an admin all of them, others what they are offered."""
    for _, profile in sorted(profiles.items()):
        is_mine = not profile.disabled and (not profile.groups or any(who.is_in(group) for group in profile.groups))
        if who.is_admin or is_mine:
            yield profile
