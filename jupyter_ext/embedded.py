"""The server's one connection to its control plane, made when the panel first asks.

Where none is configured the local one is started, once: after a `tuttilab down` the panel says that it is down and offers to
start it, and does not undo what the user did.
"""

from __future__ import annotations

import asyncio

from tuttilab.scheduler.client import AsyncClient, connect_async
from tuttilab.scheduler.errors import Unavailable


class ControlPlane:
    """Use it in the server's event loop. ``may_start``: whether the first use may start a local control plane."""

    def __init__(self, may_start: bool) -> None:
        self._may_start = may_start
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> AsyncClient:
        """Raises the error of the start, or Unavailable when none runs and none may be started."""
        async with self._connecting:
            if self._client is None:
                may_start, self._may_start = self._may_start, False
                self._client = await asyncio.to_thread(connect_async, start=may_start, restart=False)
            return self._client

    async def start(self) -> None:
        """Start a local control plane when none runs: the user asked for it."""
        async with self._connecting:
            fresh = await asyncio.to_thread(connect_async, start=True, restart=False)
            old, self._client = self._client, fresh
            if old is not None:
                await old.close()

    async def send(
        self, method: str, path: str, params: dict[str, str], *, may_repeat: bool = False, key: str | None = None
    ) -> bytes:
        """As of `AsyncClient`. A client that was closed by a start meanwhile is no fault of the request's."""
        client = await self.client()
        try:
            return await client.send(method, path, params, may_repeat=may_repeat, key=key)
        except Unavailable:
            if client is self._client:
                raise
            return await (await self.client()).send(method, path, params, may_repeat=may_repeat, key=key)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
