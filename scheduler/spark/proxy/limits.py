"""What one user may have under way at once, what each call may take, and counters of all of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.domain.errors import TooMany


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    message_bytes: int = 128 * 1024 * 1024
    """Of one message in either direction: what Spark's own server takes."""
    user_calls: int = 64
    """Calls of one user that are under way."""
    calls: int = 2048
    user_reads: int = 4
    """Requests of one user that are read at a time; the others wait, so that nobody fills the memory with messages."""
    request_s: float = 120.0
    """Until a request is whole."""
    call_s: float = 600.0
    """Of a call with one answer. Spark looks through files of a source in one of these."""
    stream_s: float = 12 * 3600.0
    """Of a call with many answers. Spark ends them after two minutes, and its clients go on with the next."""
    connect_s: float = 10.0


@dataclass
class Calls:
    """The calls under way, of all users, and what was counted since the start."""

    limits: Limits
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By method and gRPC status."""
    bytes_in: int = 0
    bytes_out: int = 0
    _of: Counter[str] = field(default_factory=Counter)
    _readers: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    @property
    def under_way(self) -> int:
        return self._of.total()

    @asynccontextmanager
    async def one_of(self, owner: str) -> AsyncIterator[asyncio.Semaphore]:
        """Counts a call while it is entered, and gives what bounds the reading of requests. Raises TooMany."""
        if self._of[owner] >= self.limits.user_calls:
            raise TooMany(
                f"{owner} has {self.limits.user_calls} Spark calls under way at once, which is the most of one user; "
                "wait until some have ended, or stop the cells of other notebooks."
            )
        if self.under_way >= self.limits.calls:
            raise TooMany("The Spark proxy has as many calls under way as it takes; try again in a moment.")
        self._of[owner] += 1
        try:
            yield self._readers.setdefault(owner, asyncio.Semaphore(self.limits.user_reads))
        finally:
            self._of[owner] -= 1
            if not self._of[owner]:
                del self._of[owner]
                self._readers.pop(owner, None)

    def text(self) -> Iterator[str]:
        """Lines in the text format of Prometheus."""
        yield "# HELP tuttilab_spark_proxy_calls_total Calls that have ended, by method and gRPC status."
        yield "# TYPE tuttilab_spark_proxy_calls_total counter"
        for (method, status), count in sorted(self.ended.items()):
            yield f'tuttilab_spark_proxy_calls_total{{method="{method}",status="{status}"}} {count}'
        yield "# HELP tuttilab_spark_proxy_calls Calls under way."
        yield "# TYPE tuttilab_spark_proxy_calls gauge"
        yield f"tuttilab_spark_proxy_calls {self.under_way}"
        yield "# HELP tuttilab_spark_proxy_users Users with calls under way."
        yield "# TYPE tuttilab_spark_proxy_users gauge"
        yield f"tuttilab_spark_proxy_users {len(self._of)}"
        yield "# HELP tuttilab_spark_proxy_bytes_total Bytes of messages, to and from sessions."
        yield "# TYPE tuttilab_spark_proxy_bytes_total counter"
        yield f'tuttilab_spark_proxy_bytes_total{{direction="to_session"}} {self.bytes_in}'
        yield f'tuttilab_spark_proxy_bytes_total{{direction="from_session"}} {self.bytes_out}'


NO_TOKEN: Final = "There is no token; send the hub's or the local one as `authorization: Bearer TOKEN`."  # noqa: S105
