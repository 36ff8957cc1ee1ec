"""The Spark sessions of this user as jobs of the service: what `%%spark` asks when it needs a server to talk to."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Callable
from typing import Final

from tuttilab.magics.connection import client
from tuttilab.magics.job_text import end_sentence, newest, short_id, waiting
from tuttilab.magics.spark_session import SessionRequest, SparkEndpoint, SparkSessionInfo
from tuttilab.scheduler.errors import Conflict, NotFound, TuttiError, Unavailable
from tuttilab.scheduler.requests import SparkRequest
from tuttilab.scheduler.wire import JobView, SparkSessionView

_POLL_S: Final = 0.2
_SLOWEST_POLL_S: Final = 1.0
_STOP_LIMIT_S: Final = 60.0
_LOG_PAGE: Final = 1000
_RECENT: Final = 20


class RestProvider:
    """A `spark_session.SessionProvider` over the REST client."""

    def __init__(self) -> None:
        # The service tells a session's size, not what else was asked for: that is known for sessions started here.
        self._asked: dict[str, SessionRequest] = {}

    def endpoint(self, name: str, on_wait: Callable[[str], None]) -> SparkEndpoint:
        ready = next((view for view in client().spark_sessions() if view.name == name and view.is_ready), None)
        return self._reach(ready or self._post(name, SessionRequest()), on_wait)

    def start(self, name: str, request: SessionRequest, on_wait: Callable[[str], None]) -> SparkEndpoint:
        running = next((view for view in client().spark_sessions() if view.name == name), None)
        if running is not None:
            self._stop_and_wait(running, on_wait)
        return self._reach(self._post(name, request), on_wait)

    def list(self) -> list[SparkSessionInfo]:
        return [self._info(view) for view in client().spark_sessions()]

    def stop(self, name: str) -> None:
        try:
            client().spark_stop(name)
        except NotFound:
            return

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

    def _post(self, name: str, request: SessionRequest) -> SparkSessionView:
        default = SparkRequest()
        # Functions of the notebook run in the server's Python: on this machine it is the kernel's own.
        local = all(cluster.kind == "local" for cluster in client().clusters())
        spark = SparkRequest(
            name=name,
            cpus=default.cpus if request.cores is None else request.cores,
            memory=default.memory if request.memory is None else request.memory,
            queue=request.queue,
            conf=dict(request.conf),
            idle=default.idle if request.idle_s is None else max(1, round(request.idle_s)),
            ui=request.ui,
            interpreter=sys.executable if local else None,
        )
        view = client().spark_start(spark)
        self._asked[view.job_id] = request
        return view

    def _reach(self, session: SparkSessionView, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """Wait until the session answers. Raises Unavailable with the reason when it ends instead."""
        said = ""
        pause = _POLL_S
        while True:
            job = client().job(session.job_id)
            if job.is_ended:
                raise Unavailable(f"The Spark session {session.name} did not start: {self._why(job)}")
            try:
                found = client().spark_endpoint(session.name)
                return SparkEndpoint(found.host, found.port, found.token, found.job_id, found.name)
            except (Conflict, NotFound):
                pass
            now = f"Spark session {session.name}: {_state(job)}"
            if now != said:
                on_wait(now)
                said = now
            time.sleep(pause)
            pause = min(pause * 1.2, _SLOWEST_POLL_S)

    def _why(self, job: JobView) -> str:
        """The end, and the last line that its server wrote, which mostly says it."""
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
        asked = self._asked.get(view.job_id, SessionRequest())
        job = client().job(view.job_id)
        cores = int(view.cpus) if view.cpus.isdigit() else None
        request = SessionRequest(cores, view.memory, job.queue, asked.idle_s, asked.conf, asked.ui)
        phase = "ready" if view.is_ready else view.phase.lower()
        reason = waiting(view.wait, time.time()) if view.wait is not None else view.reason
        ui = client().spark_endpoint(view.name).ui if view.is_ready else None
        return SparkSessionInfo(view.name, view.job_id, phase, reason, request, job.started_at, ui)


def _state(job: JobView) -> str:
    if job.wait is not None:
        return f"{job.phase.lower()}: {waiting(job.wait, time.time())}"
    attempt = newest(job)
    if attempt is not None and attempt.started_at is not None:
        return "its server is starting"
    return job.phase.lower() + (f": {job.reason}" if job.reason else "")
