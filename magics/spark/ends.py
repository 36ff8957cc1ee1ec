"""Whether a session is there still, and its end while a cell uses it: learned from the control plane, which knows it first.

gRPC alone learns it late or not at all: behind a proxy a lost server looks like a proxy that starts again, and a driver whose
executor was lost answers until it is ended.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

from tuttilab.magics.spark.errors import grpc_status, spark_condition
from tuttilab.magics.spark.session import SessionProvider, SparkEndpoint
from tuttilab.scheduler.domain.errors import TuttiError

REFUSALS: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNAVAILABLE")
QUIET_S: Final = 0.5
"""Of a cell that is over sooner nothing is asked."""


class EndWatch:
    """One thread a session, while a cell uses it. `end` is called in that thread, once, when the session has ended."""

    def __init__(self, endpoint: SparkEndpoint, provider: SessionProvider, end: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._provider = provider
        self._end = end
        self._lock = threading.Lock()
        self._is_enough = threading.Event()
        self._is_running = False
        self.has_ended = False

    def begin(self) -> None:
        """A cell uses the session from here on."""
        with self._lock:
            self._is_enough.clear()
            if self._is_running or self.has_ended:
                return
            self._is_running = True
        threading.Thread(target=self._watch, name=f"end of {self._endpoint.name}", daemon=True).start()

    def finish(self) -> None:
        """Nobody uses it now. The thread may be in the middle of a question, and serves the next cell then."""
        self._is_enough.set()

    def _watch(self) -> None:
        while True:
            if not self._is_enough.wait(QUIET_S):
                self.has_ended = self._provider.wait_for_end(self._endpoint, self._is_enough)
            with self._lock:
                if self.has_ended or self._is_enough.is_set():
                    self._is_running = False
                    break
        if self.has_ended:
            with contextlib.suppress(Exception):  # the connection may be closed already
                self._end()


def answers(endpoint: SparkEndpoint, provider: SessionProvider) -> bool:
    """Whether the session is there still. A proxy listens also when the session has ended."""
    if endpoint.is_proxied:
        return provider.is_live(endpoint)
    try:
        # A tenth of a millisecond, against seconds of retries by the client.
        with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0):
            return True
    except OSError:
        return False


def refusal_of(error: BaseException, endpoint: SparkEndpoint, provider: SessionProvider) -> str | None:
    """What to show of a call that the session's proxy refused, empty when the session has ended; None for other errors."""
    status = grpc_status(error)
    if not endpoint.is_proxied or status not in REFUSALS or spark_condition(error) is not None:
        return None
    if status not in ("NOT_FOUND", "UNAVAILABLE"):
        return str(error)
    try:
        if not provider.is_live(endpoint):
            return ""
    except TuttiError as other:
        return f"The Spark session {endpoint.name} cannot be reached: neither its proxy nor the control plane answers ({other})."
    return f"The Spark session {endpoint.name} runs, but its proxy could not reach it: {str(error)[:300]}"
