"""Requests about Spark sessions, which are jobs: start one, list them, get the endpoint."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.kinds import spark as spark_kind
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import Conflict, NotFound
from tuttilab.scheduler.domain.model import AttemptPhase, Job, JobKind, JobPhase, StopReason
from tuttilab.scheduler.domain.requests import SparkRequest, Who
from tuttilab.scheduler.domain.wire import SparkEndpointView
from tuttilab.scheduler.domain.words import word
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.spark.conf import LOOPBACK, check_conf
from tuttilab.scheduler.spark.pages import bearer
from tuttilab.scheduler.usecases.caps import check_caps
from tuttilab.scheduler.usecases.queue_choice import QueueChoice

FOR_GOOD: Final = (StopReason.MEMBER_FAILED, StopReason.TIMEOUT, StopReason.REQUIRED_DONE)
"""Why an attempt stops after which the session has no other; a lost one is started again."""


def _ends(state: State, job: Job) -> bool:
    """Whether the session is on its way out: the next one of its name need not wait until its last pod has ended."""
    attempt = state.live_attempt(job.id)
    if attempt is None or attempt.phase is not AttemptPhase.STOPPING:
        return False
    return attempt.stop_reason in FOR_GOOD and (attempt.stop_reason is not StopReason.MEMBER_FAILED or job.failures >= job.retries)


class SparkSessions:
    """Methods that change something return after the commit. All raise the errors of `domain.errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def live(self, who: Who) -> list[Job]:
        """The caller's live sessions."""
        live = [job for job in self._service.state.jobs.values() if job.kind is JobKind.SPARK and job.owner == who.name]
        return [job for job in live if job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE)]

    async def start(self, request: SparkRequest, who: Who, *, has_proxy: bool = True) -> Job:
        """The caller's live session of that name, or a new one that is queued. ``has_proxy``: whether kernels go through one."""
        if not has_proxy:
            spark_kind.check_reachable(request, self._service.state.clusters)
        conf = {**self._service.config.defaults.spark_conf, **check_conf(request.conf)}
        nodes = [node for cluster in self._service.state.clusters.values() for node in cluster.nodes]
        submit = spark_kind.request_of(replace(request, conf=conf), sys.executable, nodes)

        def run(turn: Turn) -> Job:
            for job in turn.state.jobs.values():
                if spark_kind.is_live_session(job, request.name, who.name) and not _ends(turn.state, job):
                    return job
            service = self._service
            check_caps(turn.state, service.config.limits, who.name, 1)
            service.last_order += 1
            choice = QueueChoice(turn.state, service.site(), who)
            job = choice.build(submit, job_id=service.new_id(), order=service.last_order, now=turn.now)
            turn.apply(ev.JobSubmitted(job), job.id)
            return turn.state.jobs[job.id]

        return await self._service.ask(run)

    def endpoint(self, name: str, who: Who) -> SparkEndpointView:
        """Address and token of the session. Raises NotFound without one, Conflict while it is not ready, or ends."""
        state = self._service.state
        named = (job for job in self.live(who) if spark_kind.is_live_session(job, name, who.name))
        job = next((job for job in named if not _ends(state, job)), None)
        if job is None:
            raise NotFound(f"There is no Spark session {name!r}; `%spark start {name}` starts one.")
        attempt = state.live_attempt(job.id)
        is_stopping = attempt is not None and attempt.phase is AttemptPhase.STOPPING
        endpoints = attempt.members[0].endpoints if attempt is not None and not is_stopping else {}
        if attempt is None or spark_kind.CONNECT_ENDPOINT not in endpoints:
            wait = state.waits.get(job.id)
            why = wait.sentence if wait else word(attempt.phase if attempt else job.phase).lower()
            raise Conflict(f"Spark session {name!r} is not ready yet: {why}.")
        host, _, port = endpoints[spark_kind.CONNECT_ENDPOINT].rpartition(":")
        token = self._service.secrets.spark_token(job.id, attempt.number)
        ui = endpoints.get(spark_kind.UI_ENDPOINT)
        return SparkEndpointView(
            name=name,
            job_id=job.id,
            host=host,
            port=int(port),
            token=token,
            ui=ui,
            attempt=attempt.number,
            ui_token=bearer(token) if ui is not None and host != LOOPBACK else "",
        )
