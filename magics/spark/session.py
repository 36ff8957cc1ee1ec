"""Types of Spark sessions: endpoint, request, description, provider.

This module needs no Spark: importing pyspark takes more than a second, and kernels without Spark cells should not load it.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

_SPARKS: Final = re.compile(r"\s*(\d+)\s*([kmgt])b?\s*", re.IGNORECASE)


def has_spark() -> bool:
    """Whether the Spark extra is installed, without importing it, which takes a second."""
    return all(importlib.util.find_spec(name) is not None for name in ("pyspark", "pyarrow", "grpc"))


@dataclass(frozen=True)
class SparkEndpoint:
    """Where a session is reached. `job_id` changes when it is started anew, `attempt` when its job is tried again.

    `token` is the session's own, or empty behind a proxy: then `own_token` gives the user's as it is valid now.
    """

    host: str
    port: int
    token: str = field(repr=False)
    job_id: str
    name: str
    own_token: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    tls: bool = False
    here: bool = True
    """Whether the session's processes are on the machine of that address."""
    attempt: int = 1

    def is_same_session(self, other: SparkEndpoint) -> bool:
        """Whether views and settings are still there."""
        return (self.job_id, self.attempt) == (other.job_id, other.attempt)

    @property
    def is_proxied(self) -> bool:
        return self.own_token is not None

    def metadata(self) -> list[tuple[str, str]]:
        """Who calls and, to a proxy, for which session: it refuses another that has the name by now."""
        if self.own_token is None:
            return [("authorization", f"Bearer {self.token}")]
        return [("authorization", f"Bearer {self.own_token()}"), ("tuttilab-session", self.name), ("tuttilab-job", self.job_id)]


@dataclass(frozen=True)
class SessionRequest:
    """The options of a new session; None leaves the choice to the service. `memory` as in "8Gi".

    `executor_memory` and `driver_memory` are heaps, as in "4g"; `driver_cores` is another word for `cores`.
    """

    cores: int | None = None
    memory: str | None = None
    queue: str | None = None
    idle_s: float | None = None
    conf: tuple[tuple[str, str], ...] = ()
    ui: bool = False
    keep: bool = False
    executors: int | None = None
    executor_cores: int | None = None
    executor_memory: str | None = None
    driver_cores: int | None = None
    driver_memory: str | None = None
    ttl_s: float | None = None
    image: str | None = None
    cluster: str | None = None


def as_quantity(text: str) -> str:
    """Spark's ``4g`` or ``1000MB`` as ``4Gi``, ``1000Mi``; anything else stays, and is refused where it is read."""
    found = _SPARKS.fullmatch(text)
    return text if found is None else f"{found[1]}{found[2].upper()}i"


def executors_of(request: SessionRequest) -> str:
    """As `4 x 2 cores, 4g`; empty without executors."""
    return f"{request.executors} x {request.executor_cores} cores, {request.executor_memory}" if request.executors else ""


@dataclass(frozen=True)
class SparkSessionInfo:
    """A session as `%spark list` shows it. `reason` says why it waits or why it ended; `ui` is a link or None."""

    name: str
    job_id: str
    phase: str
    reason: str
    request: SessionRequest
    started_at: float | None = None
    ui: str | None = None


class SessionProvider(Protocol):
    """Starts and stops sessions for this kernel. Each call may block and may raise TuttiError."""

    def endpoint(self, name: str, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """The running session of that name, started with defaults if there is none. Blocks until it answers, calling
        `on_wait` with a line like "waiting: quota of research is used up" whenever the reason changes."""
        ...

    def start(self, name: str, request: SessionRequest, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """Start a session of that size; a running one of the same name is stopped first."""
        ...

    def list(self) -> list[SparkSessionInfo]:
        """This user's sessions, running and waiting, and those that ended lately with the reason."""
        ...

    def stop(self, name: str) -> None:
        """End the session; does nothing when there is none of that name."""
        ...

    def is_live(self, endpoint: SparkEndpoint) -> bool:
        """Whether the session behind the proxy is still the one of this endpoint."""
        ...

    def wait_for_end(self, endpoint: SparkEndpoint, is_enough: threading.Event) -> bool:
        """Blocks until the session of this endpoint has ended (True), or nobody wants to know any more (False)."""
        ...

    def why_ended(self, job_id: str) -> str:
        """What became of the session with this job, as "was idle and gave way to your job train" or "ended"."""
        ...

    def logs(self, name: str, lines: int) -> str:
        """The last lines that the session's server wrote."""
        ...
