"""What users ask about jobs: submit them, try it without, find one, cancel, retry, delete it, read its logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.clusters.base import LogChunk
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.handlers.jobs import ended_without_success
from tuttilab.scheduler.core.kinds import build
from tuttilab.scheduler.errors import AboveMax, Conflict, NeverFits, NotFound
from tuttilab.scheduler.model import Attempt, Job, JobPhase, Pod, PodPhase, Wait
from tuttilab.scheduler.repeats import Repeats, digest
from tuttilab.scheduler.requests import JobRequest, Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.store.base import Keyed
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import to_json

SHORTEST_PREFIX: Final = 4
"""Of an id, that stands for all of it."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """``verdict`` is starts, waits or refused."""

    verdict: str
    sentence: str
    job: Job | None = None
    placements: Mapping[str, str] = field(default_factory=dict)
    wait: Wait | None = None


class Jobs:
    """Methods that change something return after the commit; all raise the errors of `errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, request: JobRequest, who: Who, key: str | None = None) -> Job:
        """Accept a job. The same key of the same owner gives the same job; another body under it raises Conflict."""
        return (await self.submit_many([request], who, None if key is None else [key]))[0]

    async def submit_many(self, requests: Sequence[JobRequest], who: Who, keys: Sequence[str] | None = None) -> list[Job]:
        """Accept all or none, in one commit."""
        if keys is not None and len(keys) != len(requests):
            raise Conflict(f"{len(keys)} keys for {len(requests)} jobs; expected one key for each.")
        found = {prefix: await self.find(prefix, who) for prefix in {p: None for request in requests for p in request.after}}
        requests = [
            replace(request, after=tuple(found[prefix][0].id for prefix in request.after)) if request.after else request
            for request in requests
        ]
        repeats = await Repeats.among(self._service, who, keys or ())
        digests = [digest(to_json(request)) for request in requests] if keys is not None else []
        earlier = await self._made_before(repeats)

        def run(turn: Turn) -> list[Job]:
            for prefix, (before_it, attempts) in found.items():
                if before_it.phase.is_terminal and not turn.adopt(before_it, attempts):
                    raise _not_found(prefix)
            jobs: list[Job] = []
            fresh: dict[str, Job] = {}
            site = self._service.site()
            for index, request in enumerate(requests):
                before = repeats.of(turn, keys[index], digests[index]) if keys is not None else None
                if before is not None:
                    jobs.append(fresh.get(before.made_id) or _made(turn, before, earlier))
                    continue
                order = self._service.order + 1 + index
                job = build(request, who, site, job_id=self._service.new_id(), order=order, now=turn.now)
                if keys is not None:
                    repeats.first(keys[index], digests[index], job.id)
                fresh[job.id] = job
                jobs.append(job)
            self._service.order += len(requests)
            for job in fresh.values():
                turn.apply(ev.JobSubmitted(job), job.id)
            turn.keys |= repeats.fresh
            return [turn.state.jobs.get(job.id, job) for job in jobs]

        return await self._service.ask(run)

    async def dry_run(self, request: JobRequest, who: Who) -> DryRun:
        """What a submit would lead to now, by the same code."""
        before = {prefix: (await self.find(prefix, who))[0] for prefix in dict.fromkeys(request.after)}
        before = {prefix: self._service.state.jobs.get(one.id, one) for prefix, one in before.items()}
        try:
            now, order = self._service.now(), self._service.order + 1
            job = build(request, who, self._service.site(), job_id="dry-run", order=order, now=now)
        except (AboveMax, NeverFits) as refusal:
            return DryRun("refused", str(refusal))
        hopeless = next((one for one in before.values() if one.phase in (JobPhase.FAILED, JobPhase.CANCELLED)), None)
        if hopeless is not None:
            return DryRun("refused", f"would be cancelled at once: {ended_without_success(hopeless)}", job)
        # Those that ended well are waited for no more, and need not be in memory.
        job = replace(job, after=tuple(one.id for one in before.values() if one.phase is not JobPhase.SUCCEEDED))
        decision = schedule(self._service.state.snapshot(also=job), self._service.now())
        for admission in decision.admitted:
            if admission.job_id == job.id:
                places = {f"{p.role}-{p.rank}" if p.rank >= 0 else p.role: p.node for p in admission.placements}
                return DryRun("starts", f"would start now on cluster {admission.cluster}", job, places)
        wait = next(wait for wait in decision.waits if wait.job_id == job.id)
        return DryRun("waits", f"would wait: {wait.sentence}", job, {}, wait)

    async def find(self, prefix_or_id: str, who: Who) -> tuple[Job, tuple[Attempt, ...]]:
        """A job by its id or a unique prefix of it, with its attempts. Another owner's job is not found, except by an admin."""
        owner = None if who.is_admin else who.name
        job = self._service.state.jobs.get(prefix_or_id) or await self._service.store.job(prefix_or_id)
        if job is None and len(prefix_or_id) >= SHORTEST_PREFIX:
            ids = await self._service.store.find_job(prefix_or_id, owner)
            if len(ids) > 1:
                raise NotFound(f"{prefix_or_id!r} stands for {len(ids)} jobs ({', '.join(ids[:3])} …); give more of the id.")
            job = (self._service.state.jobs.get(ids[0]) or await self._service.store.job(ids[0])) if ids else None
        if job is None or (owner is not None and job.owner != owner):
            raise _not_found(prefix_or_id)
        attempts = {a.number: a for a in await self._service.store.attempts(job.id)} if job.phase.is_terminal else {}
        attempts |= {number: a for (job_id, number), a in self._service.state.attempts.items() if job_id == job.id}
        return job, tuple(attempts[number] for number in sorted(attempts))

    async def cancel(self, job_id: str, who: Who) -> Job:
        def run(turn: Turn) -> Job | None:
            job = turn.state.jobs.get(job_id)
            if job is not None and not job.phase.is_terminal and not job.cancel_requested:
                turn.apply(ev.JobCancelRequested(job_id, who.name), job_id)
            return turn.state.jobs.get(job_id)

        job = await self._service.ask(run)
        # Acknowledged is: no pod of it is made from here on.
        await self._service.performer.launched(job_id)
        return job or (await self.find(job_id, who))[0]

    async def retry(self, job_id: str, who: Who, key: str | None = None) -> Job:
        """The same work again as a new job that knows where it comes from; under a key that was used for that, the same new job.

        Raises Conflict while the first one is live.
        """
        old, _ = await self.find(job_id, who)
        if not old.phase.is_terminal:
            raise Conflict(f"Job {old.id} is {old.phase}; cancel it or wait for its end before you retry it.")
        repeats = await Repeats.among(self._service, who, [key] if key is not None else ())
        earlier = await self._made_before(repeats)
        asked = digest(b"retry job " + old.id.encode())

        def run(turn: Turn) -> Job:
            before = repeats.of(turn, key, asked)
            if before is not None:
                return _made(turn, before, earlier)
            self._service.order += 1
            fresh = Job(
                id=self._service.new_id(), name=old.name,
                owner=old.owner, group=old.group, queue=old.queue, kind=old.kind, gang=old.gang,
                work=old.work, submitted_at=turn.now, order=self._service.order, priority=old.priority, timeout_s=old.timeout_s,
                retries=old.retries, after=(), cluster=old.cluster, labels=old.labels, retry_of=old.id,
            )  # fmt: skip
            turn.apply(ev.JobSubmitted(fresh), fresh.id)
            repeats.first(key, asked, fresh.id)
            turn.keys |= repeats.fresh
            return turn.state.jobs[fresh.id]

        return await self._service.ask(run)

    async def _made_before(self, repeats: Repeats) -> dict[str, Job]:
        found = [await self._service.store.job(job_id) for job_id in repeats.made_ids]
        return {job.id: job for job in found if job is not None}

    async def delete(self, job_id: str, who: Who) -> None:
        """Remove an ended job with its logs and results. Raises Conflict while it is live."""
        job, attempts = await self.find(job_id, who)
        if not job.phase.is_terminal:
            raise Conflict(f"Job {job.id} is {job.phase}; cancel it first.")

        def run(turn: Turn) -> None:
            # One that runs too: it may be queued again.
            later = next((one for one in turn.state.unended() if job.id in one.after), None)
            if later is not None:
                raise Conflict(f"Job {later.id} comes after job {job.id} and has not ended; cancel it or wait for its end.")
            if not turn.adopt(job, attempts):
                raise _not_found(job_id)
            turn.apply(ev.JobDeleted(job.id), job.id)

        await self._service.ask(run)

    async def logs(
        self, job_id: str, who: Who, attempt: int | None, rank: int, start: int, limit: int
    ) -> tuple[Pod | None, LogChunk]:
        """Lines of one member's output. A job that has not started has none yet."""
        job, attempts = await self.find(job_id, who)
        if not attempts:
            return None, LogChunk(start, (), job.phase.is_terminal)
        chosen = next((a for a in attempts if a.number == attempt), None) if attempt is not None else attempts[-1]
        if chosen is None:
            raise NotFound(f"Job {job.id} has no attempt {attempt}; it has {len(attempts)}.")
        pod = chosen.of_rank(rank)
        if pod is None:
            last = max(pod.rank for pod in chosen.pods)
            raise NotFound(f"Job {job.id} has no rank {rank}; expected 0 to {last}.")
        try:
            return pod, await self._service.clusters[chosen.cluster].logs(job.id, chosen.number, pod.name, start, limit)
        except NotFound:
            return pod, LogChunk(start, (), pod.phase is PodPhase.ENDED)


def _made(turn: Turn, before: Keyed, earlier: Mapping[str, Job]) -> Job:
    job = turn.state.jobs.get(before.made_id) or earlier.get(before.made_id)
    if job is None:
        raise NotFound(f"Job {before.made_id}, submitted under this key, was deleted.")
    return job


def _not_found(prefix_or_id: str) -> NotFound:
    return NotFound(f"There is no job {prefix_or_id!r}; `tuttilab jobs --all` lists yours.")
