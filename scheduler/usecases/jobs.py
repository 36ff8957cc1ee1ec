"""Requests about jobs: submit, dry run, find, cancel, retry, delete, logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.clusters.base import LogChunk
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.kinds import check_sizes
from tuttilab.scheduler.core.kinds.proxy_users import check_listed, check_proxy_user
from tuttilab.scheduler.core.rows.handlers.jobs import ended_without_success
from tuttilab.scheduler.core.storages import refusal_now
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, Conflict, Forbidden, NeverFits, NotFound, TooManyJobs
from tuttilab.scheduler.domain.model import Attempt, Job, JobKind, JobPhase, Pod, PodPhase, Wait
from tuttilab.scheduler.domain.requests import SLASH, JobRequest, Who
from tuttilab.scheduler.domain.titles import title, title_of
from tuttilab.scheduler.domain.wire import to_json
from tuttilab.scheduler.domain.words import word
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.store.base import IdempotencyKey, JobQuery
from tuttilab.scheduler.usecases.artifacts import ReadableArtifacts, needed_by, readable
from tuttilab.scheduler.usecases.caps import check_caps
from tuttilab.scheduler.usecases.idempotency import IdempotencyKeys, digest
from tuttilab.scheduler.usecases.lookup import LAST, MOST_NAMED, SHORTEST_PREFIX, Candidate, the_one
from tuttilab.scheduler.usecases.queue_choice import QueueChoice

NOT_WORK: Final = (JobKind.SPARK, JobKind.NOTEBOOK, JobKind.SERVICE)
"""Kinds that `lookup.LAST` passes over: a person means the last work that was submitted."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """``verdict`` is starts, waits or refused."""

    verdict: str
    sentence: str
    job: Job | None = None
    placements: Mapping[str, str] = field(default_factory=dict)
    wait: Wait | None = None


class Jobs:
    """Methods that change something return after the commit. All raise the errors of `domain.errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, request: JobRequest, who: Who, key: str | None = None) -> Job:
        """Submit a job. The same idempotency key gives the same job; with another request it raises Conflict."""
        return (await self.submit_many([request], who, None if key is None else [key]))[0]

    async def submit_many(self, requests: Sequence[JobRequest], who: Who, keys: Sequence[str] | None = None) -> list[Job]:
        """Submit all jobs or none, in one commit."""
        if keys is not None and len(keys) != len(requests):
            raise Conflict(f"{len(keys)} keys for {len(requests)} jobs; expected one key for each.")
        found = {prefix: await self.find(prefix, who) for prefix in {p: None for request in requests for p in request.after}}
        requests = [
            replace(request, after=tuple(found[prefix][0].id for prefix in request.after)) if request.after else request
            for request in requests
        ]
        idempotency_keys = await IdempotencyKeys.load(self._service, who, keys or ())
        digests = [digest(to_json(request)) for request in requests] if keys is not None else []
        earlier = await self._jobs_made_before(idempotency_keys)
        artifacts = ReadableArtifacts(await readable(self._service, needed_by(requests), who))

        def run(turn: Turn) -> list[Job]:
            for prefix, (before_it, attempts) in found.items():
                if before_it.phase.is_terminal and not turn.adopt(before_it, attempts):
                    raise _not_found(prefix)
            jobs: list[Job] = []
            fresh: dict[str, Job] = {}
            choice = QueueChoice(turn.state, self._service.site(), who)
            for index, request in enumerate(requests):
                before = idempotency_keys.find(turn, keys[index], digests[index]) if keys is not None else None
                if before is not None:
                    jobs.append(fresh.get(before.made_id) or _job_under_key(turn, before, earlier))
                    continue
                order = self._service.last_order + 1 + index
                job = choice.build(request, job_id=self._service.new_id(), order=order, now=turn.now)
                artifacts.check(job.work)
                if keys is not None:
                    idempotency_keys.record(keys[index], digests[index], job.id)
                fresh[job.id] = job
                jobs.append(job)
            check_caps(turn.state, self._service.config.limits, who.name, len(fresh))
            self._service.last_order += len(requests)
            for job in fresh.values():
                turn.apply(ev.JobSubmitted(job), job.id)
            turn.keys |= idempotency_keys.fresh
            return [turn.state.jobs.get(job.id, job) for job in jobs]

        return await self._service.ask(run)

    async def dry_run(self, request: JobRequest, who: Who) -> DryRun:
        """What would happen now if the job were submitted, computed by the same code."""
        before = {prefix: (await self.find(prefix, who))[0] for prefix in dict.fromkeys(request.after)}
        before = {prefix: self._service.state.jobs.get(one.id, one) for prefix, one in before.items()}
        artifacts = ReadableArtifacts(await readable(self._service, needed_by([request]), who))
        try:
            now, order = self._service.now(), self._service.last_order + 1
            choice = QueueChoice(self._service.state, self._service.site(), who)
            job = choice.build(request, job_id="dry-run", order=order, now=now)
            check_caps(self._service.state, self._service.config.limits, who.name, 1)
        except (AboveMax, NeverFits, TooManyJobs) as refusal:
            return DryRun("refused", str(refusal))
        artifacts.check(job.work)
        failed = next((one for one in before.values() if one.phase in (JobPhase.FAILED, JobPhase.CANCELLED)), None)
        if failed is not None:
            return DryRun("refused", f"would be cancelled at once: {ended_without_success(failed)}", job)
        # Predecessors that succeeded are not waited for, and need not be in the state.
        job = replace(job, after=tuple(one.id for one in before.values() if one.phase is not JobPhase.SUCCEEDED))
        decision = schedule(self._service.state.snapshot(also=job), self._service.now())
        for admission in decision.admitted:
            if admission.job_id == job.id:
                places = {f"{p.role}-{p.rank}" if p.rank >= 0 else p.role: p.node for p in admission.placements}
                return DryRun("starts", f"would start now on cluster {admission.cluster}", job, places)
        wait = decision.waits.of(job.id)
        return DryRun("waits", f"would wait: {wait.sentence}", job, {}, wait)

    async def find(self, text: str, who: Who) -> tuple[Job, tuple[Attempt, ...]]:
        """A job by its id, the beginning of it, its name, or ``last``, with its attempts. Only admins find others', and by id.

        Raises NotFound, with the candidates where there are several.
        """
        owner = None if who.is_admin else who.name
        text = text.replace(SLASH, "/")
        job = self._service.state.jobs.get(text) or await self._service.store.job(text)
        if job is None:
            job = await self._look_up(text, owner, who)
        if job is None or (owner is not None and job.owner != owner):
            raise _not_found(text)
        attempts = {a.number: a for a in await self._service.store.attempts(job.id)} if job.phase.is_terminal else {}
        attempts |= {number: a for (job_id, number), a in self._service.state.attempts.items() if job_id == job.id}
        return job, tuple(attempts[number] for number in sorted(attempts))

    async def _look_up(self, text: str, owner: str | None, who: Who) -> Job | None:
        ids: Sequence[str] = ()
        if len(text) >= SHORTEST_PREFIX:
            ids = await self._service.store.find_job(text, owner)
        if len(ids) == 1:
            return await self._known(ids[0])
        newest = await self._service.store.jobs(JobQuery(owner=who.name, text=None if text == LAST else text, limit=MOST_NAMED))
        found = [job for job in newest if job.name == text]
        if text == LAST and not found:
            return next((job for job in newest if job.kind not in NOT_WORK), None)
        found += [job for id in ids if (job := await self._known(id)) is not None]
        by_id = {job.id: self._service.state.jobs.get(job.id, job) for job in found}
        candidates = [
            Candidate(job.id, job.name, word(job.phase), job.submitted_at, not job.phase.is_terminal) for job in by_id.values()
        ]
        chosen = the_one(text, "job", candidates, self._service.now())
        return None if chosen is None else by_id[chosen]

    async def _known(self, job_id: str) -> Job | None:
        return self._service.state.jobs.get(job_id) or await self._service.store.job(job_id)

    async def cancel(self, job_id: str, who: Who) -> Job:
        def run(turn: Turn) -> Job | None:
            job = turn.state.jobs.get(job_id)
            if job is not None and not job.phase.is_terminal and not job.cancel_requested:
                turn.apply(ev.JobCancelRequested(job_id, who.name), job_id)
            return turn.state.jobs.get(job_id)

        job = await self._service.ask(run)
        # The acknowledgement promises that no pod of the job is created any more.
        await self._service.performer.wait_for_launch(job_id)
        return job or (await self.find(job_id, who))[0]

    async def retry(self, job_id: str, who: Who, key: str | None = None) -> Job:
        """Submit the same work as a new job with `retry_of`. The same idempotency key gives the same new job.

        Raises Conflict while the old job is live, and AboveMax or NeverFits if nodes and limits have become too small for it.
        """
        old, _ = await self.find(job_id, who)
        if not old.phase.is_terminal:
            raise Conflict(f"Job {title(old)} is {_word(old)}; cancel it or wait for its end before you retry it.")
        idempotency_keys = await IdempotencyKeys.load(self._service, who, [key] if key is not None else ())
        earlier = await self._jobs_made_before(idempotency_keys)
        asked = digest(b"retry job " + old.id.encode())

        def run(turn: Turn) -> Job:
            before = idempotency_keys.find(turn, key, asked)
            if before is not None:
                return _job_under_key(turn, before, earlier)
            self._service.last_order += 1
            fresh = Job(
                id=self._service.new_id(), name=old.name,
                owner=old.owner, group=old.group, queue=old.queue, kind=old.kind, gang=old.gang,
                work=old.work, submitted_at=turn.now, order=self._service.last_order, priority=old.priority,
                timeout_s=old.timeout_s, retries=old.retries, after=(), cluster=old.cluster, labels=old.labels, retry_of=old.id,
            )  # fmt: skip
            # Nodes and limits may be others than when the old one was accepted.
            check_sizes(fresh, self._service.site())
            if who.name == fresh.owner:
                check_proxy_user(fresh, who, self._service.site().proxy_users)
            check_listed(fresh, self._service.site().proxy_users)
            refusal = refusal_now(fresh.work.mounts, fresh.group, self._service.config.storages)
            if refusal:
                raise Forbidden(refusal)
            check_caps(turn.state, self._service.config.limits, fresh.owner, 1)
            turn.apply(ev.JobSubmitted(fresh, "" if who.name == fresh.owner else who.name), fresh.id)
            idempotency_keys.record(key, asked, fresh.id)
            turn.keys |= idempotency_keys.fresh
            return turn.state.jobs[fresh.id]

        return await self._service.ask(run)

    async def _jobs_made_before(self, idempotency_keys: IdempotencyKeys) -> dict[str, Job]:
        found = [await self._service.store.job(job_id) for job_id in idempotency_keys.made_ids]
        return {job.id: job for job in found if job is not None}

    async def delete(self, job_id: str, who: Who) -> None:
        """Remove an ended job with its logs and results. Raises Conflict while it is live."""
        job, attempts = await self.find(job_id, who)
        if not job.phase.is_terminal:
            raise Conflict(f"Job {title(job)} is {_word(job)}; cancel it first.")

        def run(turn: Turn) -> None:
            # Running successors too: a job may be queued again.
            successor = next((one for one in turn.state.unfinished_jobs() if job.id in one.after), None)
            if successor is not None:
                raise Conflict(
                    f"Job {title(successor)} comes after job {title(job)} and has not ended; cancel it or wait for its end."
                )
            if not turn.adopt(job, attempts):
                raise _not_found(job_id)
            turn.apply(ev.JobDeleted(job.id, who.name), job.id)

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
            raise NotFound(f"Job {title(job)} has no attempt {attempt}; it has {len(attempts)}.")
        pod = chosen.of_rank(rank)
        if pod is None:
            last = max(pod.rank for pod in chosen.pods)
            raise NotFound(f"Job {title(job)} has no rank {rank}; expected 0 to {last}.")
        try:
            return pod, await self._service.clusters[chosen.cluster].logs(job.id, chosen.number, pod.name, start, limit)
        except NotFound:
            return pod, LogChunk(start, (), pod.phase is PodPhase.ENDED)


def _job_under_key(turn: Turn, before: IdempotencyKey, earlier: Mapping[str, Job]) -> Job:
    job = turn.state.jobs.get(before.made_id) or earlier.get(before.made_id)
    if job is None:
        raise NotFound(f"Job {title_of(before.made_id)}, submitted under this key, was deleted; submit it under another key.")
    return job


def _not_found(prefix_or_id: str) -> NotFound:
    return NotFound(f"There is no job {prefix_or_id!r}; `tuttilab jobs --all` lists yours.")


def _word(job: Job) -> str:
    return "running" if job.phase is JobPhase.ACTIVE else word(job.phase).lower()
