"""The queue of a job that names none: of those that its owner's groups leave, the first that has room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from tuttilab.scheduler.core.kinds import Site, asker_of, build
from tuttilab.scheduler.core.ordering.queues import usable_queues
from tuttilab.scheduler.core.placement.fit import charge_of, has_master
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import AboveMax, NeverFits
from tuttilab.scheduler.domain.model import Job
from tuttilab.scheduler.domain.requests import JobRequest, Who
from tuttilab.scheduler.spark.conf import check_conf


@dataclass(frozen=True)
class QueueChoice:
    """For the requests of one caller at one moment. An admin, who may use every queue, gets the default one as before."""

    state: State
    site: Site
    who: Who

    def build(self, request: JobRequest, *, job_id: str, order: int, now: float, preemptible: bool | None = None) -> Job:
        """As `kinds.build`. Raises what the first queue is refused for where no other one takes the job."""
        if request.spark is not None:
            check_conf(request.spark.conf)
        refusal: AboveMax | NeverFits | None = None
        jobs: list[Job] = []
        for asked in self._alternatives(request):
            try:
                job = build(asked, self.who, self.site, job_id=job_id, order=order, now=now)
            except (AboveMax, NeverFits) as error:
                refusal = refusal or error
                continue
            jobs.append(job if preemptible is None else replace(job, preemptible=preemptible))
        if not jobs:
            assert refusal is not None
            raise refusal
        return jobs[0] if len(jobs) == 1 else min(jobs, key=self._wait)

    def _alternatives(self, request: JobRequest) -> list[JobRequest]:
        if request.queue is not None or self.who.is_admin:
            return [request]
        asker = asker_of(request, self.who, self.site.queues)
        queues = usable_queues(self.site.queues, self.site.default_queue, asker)
        return [replace(request, queue=queue.name) for queue in queues] if len(queues) > 1 else [request]

    @cached_property
    def _has_waiting(self) -> frozenset[str]:
        return frozenset(job.queue for job in self.state.queued())

    def _wait(self, job: Job) -> int:
        """0 where it starts at once by quota, 1 where it waits for others, 2 where it would wait although nobody used anything."""
        if job.queue not in self._has_waiting and self._may_start(job, self.state.usage.ledger):
            return 0
        return 1 if self._may_start(job, self.state.usage.ledger.idle()) else 2

    def _may_start(self, job: Job, ledger: Ledger) -> bool:
        charges = [charge_of(job, cluster) for cluster in self.state.clusters.values()] or [job.gang.resources]
        pods = job.gang.size + int(has_master(job))
        return any(ledger.shortage(job.queue, charge, pods, may_borrow=job.is_preemptible) is None for charge in charges)
