"""Provides Spark sessions for `%%spark`: they are jobs of the service."""

from __future__ import annotations

import collections
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.job_text import end_sentence, newest, short_id, waiting
from tuttilab.magics.spark.session import SessionRequest, SparkEndpoint, SparkSessionInfo
from tuttilab.scheduler.client import Client, connect
from tuttilab.scheduler.domain.errors import Conflict, NotFound, TuttiError, Unavailable
from tuttilab.scheduler.domain.model import StopReason
from tuttilab.scheduler.domain.requests import SparkRequest
from tuttilab.scheduler.domain.wire import JobView, SparkSessionView
from tuttilab.scheduler.domain.words import word

_POLL_S: Final = 0.2

_SLOWEST_POLL_S: Final = 1.0
_CHANGES_S: Final = 5.0
_SLOWEST_WATCH_S: Final = 5.0
_FOR_GOOD: Final = (StopReason.CANCELLED, StopReason.MEMBER_FAILED, StopReason.TIMEOUT)
"""Why an attempt stops after which the session has no other."""
_STOP_LIMIT_S: Final = 60.0
_LOG_PAGE: Final = 1000
_RECENT: Final = 20


class RestProvider:
    """A `SessionProvider` over the REST client."""

    def __init__(self) -> None:
        # The service returns a session's size, not the other options: those are known for sessions started here.
        self._requests: dict[str, SessionRequest] = {}

    def endpoint(self, name: str, on_wait: Callable[[str], None]) -> SparkEndpoint:
        ready = next((view for view in client().spark_sessions() if view.name == name and view.is_ready), None)
        return self._wait_until_ready(ready or self._submit(name, SessionRequest()), on_wait)

    def start(self, name: str, request: SessionRequest, on_wait: Callable[[str], None]) -> SparkEndpoint:
        running = next((view for view in client().spark_sessions() if view.name == name), None)
        if running is not None:
            self._stop_and_wait(running, on_wait)
        return self._wait_until_ready(self._submit(name, request), on_wait)

    def list(self) -> list[SparkSessionInfo]:
        return [self._info(view) for view in client().spark_sessions()]

    def stop(self, name: str) -> None:
        try:
            client().spark_stop(name)
        except NotFound:
            return

    def is_live(self, endpoint: SparkEndpoint) -> bool:
        return _is_live(client(), endpoint)

    def wait_for_end(self, endpoint: SparkEndpoint, is_enough: threading.Event) -> bool:
        pause = _POLL_S
        while not is_enough.is_set():
            try:
                # One of its own: it starts no control plane that somebody has ended, and says nothing in the cell.
                with connect(start=False) as watcher:
                    seq = watcher.changes(None).seq
                    while not is_enough.is_set():
                        if not _is_live(watcher, endpoint):
                            return True
                        pause = _POLL_S
                        seq = watcher.changes(seq, _CHANGES_S, key=endpoint.job_id).seq
            except TuttiError:
                is_enough.wait(pause)
                pause = min(pause * 2, _SLOWEST_WATCH_S)
        return False

    def why_ended(self, job_id: str) -> str:
        try:
            job = client().job(job_id)
        except TuttiError:
            return "ended"
        if job.phase == "Succeeded":
            return "was idle for as long as --idle allows and ended"
        if job.reason.startswith("was "):
            return job.reason
        if not job.is_ended:
            why = _why_lost(job)
            if job.reason in _FOR_GOOD:
                return why if why.startswith(("was ", "ran ")) else f"ended ({why})"
            # A gang that lost a pod: the service starts all of it again.
            return f"was lost ({why})" if why else "ends"
        return f"ended ({job.reason})" if job.reason else "ended"

    def logs(self, name: str, lines: int) -> str:
        view = self._find(name)
        last: collections.deque[str] = collections.deque(maxlen=lines)
        start = 0
        while True:
            page = client().logs(view.job_id, start=start, limit=_LOG_PAGE)
            last.extend(line.rstrip("\n") for line in page.lines)
            if not page.lines:
                return "\n".join(last)
            start = page.next

    def _find(self, name: str) -> SparkSessionView:
        for view in client().spark_sessions():
            if view.name == name:
                return view
        raise NotFound(f"There is no Spark session {name}; `%spark list` shows yours, `%spark start {name}` starts it.")

    def _submit(self, name: str, request: SessionRequest) -> SparkSessionView:
        default = SparkRequest()
        # Functions of the notebook run in the server's Python: on this machine it is the kernel's own.
        local = all(cluster.kind == "local" for cluster in client().clusters())
        spark = SparkRequest(
            name=name,
            cpus=request.cores,
            memory=request.memory,
            queue=request.queue,
            conf=dict(request.conf),
            idle=default.idle if request.idle_s is None else max(1, round(request.idle_s)),
            ui=request.ui,
            keep=request.keep,
            interpreter=sys.executable if local and request.image is None else None,
            image=request.image,
            cluster=request.cluster,
            executors=request.executors or 0,
            executor_cores=request.executor_cores,
            executor_memory=request.executor_memory,
            driver_cores=request.driver_cores,
            driver_memory=request.driver_memory,
            ttl=None if request.ttl_s is None else max(1, round(request.ttl_s)),
        )
        view = client().spark_start(spark)
        self._requests[view.job_id] = request
        return view

    def _wait_until_ready(self, session: SparkSessionView, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """Wait until the session answers. Raises Unavailable with the reason when it ends instead."""
        last_status = ""
        pause = _POLL_S
        while True:
            job = client().job(session.job_id)
            if job.is_ended:
                raise Unavailable(f"The Spark session {session.name} did not start: {self._failure_text(job)}")
            try:
                found = client().spark_endpoint(session.name)
                own = None if found.token else client().token
                where = found.host, found.port, found.token
                return SparkEndpoint(*where, found.job_id, found.name, own, found.tls, found.here, found.attempt)
            except (Conflict, NotFound):
                pass
            now = f"Spark session {session.name}: {_state(job)}"
            if now != last_status:
                on_wait(now)
                last_status = now
            time.sleep(pause)
            pause = min(pause * 1.2, _SLOWEST_POLL_S)

    def _failure_text(self, job: JobView) -> str:
        """How it ended, and the last line of its log, which usually names the cause."""
        try:
            last = self._last_line(job)
        except TuttiError:
            last = ""
        return end_sentence(job) + (f" Its last line: {last[:200]}" if last else "")

    def _last_line(self, job: JobView) -> str:
        lines = client().logs(job.id, limit=_LOG_PAGE).lines
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _stop_and_wait(self, view: SparkSessionView, on_wait: Callable[[str], None]) -> None:
        on_wait(f"Spark session {view.name}: the one that runs is being stopped")
        self.stop(view.name)
        try:
            client().wait(view.job_id, timeout_s=_STOP_LIMIT_S)
        except TimeoutError as error:
            sentence = f"The Spark session {view.name} does not end; `%job {short_id(view.job_id)}` shows why."
            raise Unavailable(sentence) from error

    def _info(self, view: SparkSessionView) -> SparkSessionInfo:
        asked = self._requests.get(view.job_id, SessionRequest())
        job = client().job(view.job_id)
        cores = int(view.cpus) if view.cpus.isdigit() else None
        request = replace(
            asked,
            cores=cores,
            memory=view.memory,
            queue=job.queue,
            executors=view.executors,
            executor_cores=view.executor_cores or None,
            executor_memory=view.executor_memory or None,
            driver_cores=cores,
        )
        phase = "ready" if view.is_ready else word(view.phase).lower()
        reason = waiting(view.wait, time.time()) if view.wait is not None else view.reason
        endpoint = client().spark_endpoint(view.name) if view.is_ready else None
        ui = None if endpoint is None else endpoint.ui
        if endpoint is not None and endpoint.ui_token:
            # At their own address the pages ask for a token, which a browser does not send.
            ui = f"The pages of {view.name} open through Lab: /tuttilab/spark/{view.name}/ui below its address."
        return SparkSessionInfo(view.name, view.job_id, phase, reason, request, job.started_at, ui)


def _is_live(service: Client, endpoint: SparkEndpoint) -> bool:
    try:
        found = service.spark_endpoint(endpoint.name)
    except (Conflict, NotFound):
        return False
    return (found.job_id, found.attempt) == (endpoint.job_id, endpoint.attempt)


def _why_lost(job: JobView) -> str:
    """Why its newest attempt stops, or the one before ended, as far as that was not its owner's wish."""
    return next((one.reason for one in reversed(job.attempts) if one.reason), "")


def _state(job: JobView) -> str:
    if job.wait is not None:
        return f"{word(job.phase).lower()}: {waiting(job.wait, time.time())}"
    attempt = newest(job)
    if attempt is not None and attempt.started_at is not None:
        return "its server is starting"
    return word(job.phase).lower() + (f": {job.reason}" if job.reason else "")
