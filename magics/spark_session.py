"""What the magics know of a Spark session before they speak to it: where it is, what was asked for, who provides it.

Apart from the rest because it needs no Spark: importing pyspark takes more than a second, and a kernel that never runs
a Spark cell should not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class SparkEndpoint:
    """Where one session answers and the secret that it asks for; `job_id` changes when the session is started anew."""

    host: str
    port: int
    token: str = field(repr=False)
    job_id: str
    name: str


@dataclass(frozen=True)
class SessionRequest:
    """What a person asks for when starting a session; None leaves the choice to the service. `memory` as in "8Gi"."""

    cores: int | None = None
    memory: str | None = None
    queue: str | None = None
    idle_s: float | None = None
    conf: tuple[tuple[str, str], ...] = ()
    ui: bool = False


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
    """Whoever starts and stops sessions for this kernel. Each call may take a while and may raise TuttiError."""

    def endpoint(self, name: str, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """The running session of that name, started with defaults if there is none. Blocks until it answers, calling
        `on_wait` with a line like "queued: quota of research is used up" whenever the reason changes."""
        ...

    def start(self, name: str, request: SessionRequest, on_wait: Callable[[str], None]) -> SparkEndpoint:
        """Start a session of that size; one of that name that runs already is stopped first."""
        ...

    def list(self) -> list[SparkSessionInfo]:
        """This user's sessions, running and waiting, and those that ended lately with the reason."""
        ...

    def stop(self, name: str) -> None:
        """End the session; nothing happens when there is none of that name."""
        ...

    def logs(self, name: str, lines: int) -> str:
        """The last lines that the session's server wrote."""
        ...
