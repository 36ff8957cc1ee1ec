"""The Jupyter server's one connection to the control plane, opened at the panel's first request.

Where none is configured, a local control plane is started, once: after a `tuttilab down` the panel only offers to start it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tuttilab.scheduler.client import AsyncClient, connect_async
from tuttilab.scheduler.domain.errors import Unavailable


class ControlPlane:
    """Use it in the server's event loop. ``may_start``: whether the first use may start a local control plane."""

    def __init__(self, may_start: bool) -> None:
        self._may_start = may_start
        self.say: Callable[[str], None] | None = None
        """Told when an answer of the control plane takes long."""
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> AsyncClient:
        """Raises the error of the start, or Unavailable when none runs and none may be started."""
        async with self._connecting:
            if self._client is None:
                may_start, self._may_start = self._may_start, False
                self._client = await asyncio.to_thread(connect_async, start=may_start, restart=False, say=self._tell)
            return self._client

    async def start(self) -> None:
        """Start a local control plane when none runs, at the user's request."""
        async with self._connecting:
            fresh = await asyncio.to_thread(connect_async, start=True, restart=False, say=self._tell)
            old, self._client = self._client, fresh
            if old is not None:
                await old.close()

    def _tell(self, sentence: str) -> None:
        if self.say is not None:
            self.say(sentence)

    async def send(
        self,
        method: str,
        path: str,
        params: dict[str, str],
        *,
        may_repeat: bool = False,
        key: str | None = None,
        wait_s: float = 0.0,
    ) -> bytes:
        """Sends as `AsyncClient.send`; retries once when `start` replaced the client meanwhile."""
        client = await self.client()
        try:
            return await client.send(method, path, params, may_repeat=may_repeat, key=key, wait_s=wait_s)
        except Unavailable:
            if client is self._client:
                raise
            return await (await self.client()).send(method, path, params, may_repeat=may_repeat, key=key, wait_s=wait_s)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
