"""What users ask about their Spark sessions, which are jobs: have one, find it, reach it."""

from __future__ import annotations

import sys
from dataclasses import replace

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.kinds import build
from tuttilab.scheduler.core.kinds import spark as spark_kind
from tuttilab.scheduler.errors import Conflict, NotFound
from tuttilab.scheduler.model import Job, JobKind, JobPhase
from tuttilab.scheduler.requests import SparkRequest, Who
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.turn import Turn
from tuttilab.scheduler.wire import SparkEndpointView


class Sessions:
    """Methods that change something return after the commit; all raise the errors of `errors`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def live(self, who: Who) -> list[Job]:
        """The caller's live sessions."""
        live = [job for job in self._service.state.jobs.values() if job.kind is JobKind.SPARK and job.owner == who.name]
        return [job for job in live if job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE)]

    async def start(self, request: SparkRequest, who: Who) -> Job:
        """The caller's session by that name: the one that lives, else a new one in the queue."""
        conf = {**self._service.config.defaults.spark_conf, **request.conf}
        submit = spark_kind.request_of(replace(request, conf=conf), sys.executable)

        def run(turn: Turn) -> Job:
            for job in turn.state.jobs.values():
                if spark_kind.is_live_session(job, request.name, who.name):
                    return job
            self._service.order += 1
            job = build(submit, who, self._service.site(), job_id=self._service.new_id(), order=self._service.order, now=turn.now)
            turn.apply(ev.JobSubmitted(job), job.id)
            return turn.state.jobs[job.id]

        return await self._service.ask(run)

    def endpoint(self, name: str, who: Who) -> SparkEndpointView:
        """How the owner reaches the session. Raises NotFound without one, Conflict while it is not ready."""
        job = next((j for j in self.live(who) if spark_kind.session_name(j) == name), None)
        if job is None:
            raise NotFound(f"There is no Spark session {name!r}; `%spark start {name}` starts one.")
        attempt = self._service.state.live_attempt(job.id)
        endpoints = attempt.members[0].endpoints if attempt is not None else {}
        if attempt is None or spark_kind.CONNECT_ENDPOINT not in endpoints:
            wait = self._service.state.waits.get(job.id)
            why = wait.sentence if wait else (attempt.phase.lower() if attempt else "queued")
            raise Conflict(f"Spark session {name!r} is not ready yet: {why}.")
        host, _, port = endpoints[spark_kind.CONNECT_ENDPOINT].rpartition(":")
        token = self._service.keys.spark_token(job.id, attempt.number)
        return SparkEndpointView(name=name, job_id=job.id, host=host, port=int(port), token=token, ui=endpoints.get("ui"))
