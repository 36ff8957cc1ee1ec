"""Connections to sessions: one for each session in use, closed when it was not used for a while."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Final

import grpc
import grpc.aio

from tuttilab.scheduler.domain.errors import Unavailable
from tuttilab.scheduler.spark.proxy.limits import Limits
from tuttilab.scheduler.spark.proxy.routes import Route

MOST: Final = 512
KEPT_S: Final = 24 * 3600.0
"""Longer than any call may take, so that none is cut."""


class Channels:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: OrderedDict[tuple[str, str], tuple[grpc.aio.Channel, float]] = OrderedDict()

    async def ready(self, route: Route) -> grpc.aio.Channel:
        """A connected channel. Raises Unavailable when the session's server does not answer in time."""
        key = (route.job_id, route.target)
        channel, _ = self._open.pop(key, (None, 0.0))
        if channel is None:
            channel = self._new(route)
        self._open[key] = (channel, time.monotonic())
        await self._close_old()
        if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return channel
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await _connected(channel)
        except (TimeoutError, ConnectionError) as error:
            raise Unavailable("The server of this Spark session does not answer; try again in a moment.") from error
        return channel

    def _new(self, route: Route) -> grpc.aio.Channel:
        size = self._limits.message_bytes
        options = (
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", size + 1024),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2000),
        )
        return grpc.aio.insecure_channel(route.target, options=options)

    async def _close_old(self) -> None:
        while self._open:
            key, (channel, used_at) = next(iter(self._open.items()))
            if len(self._open) <= MOST and time.monotonic() - used_at < KEPT_S:
                return
            del self._open[key]
            await channel.close(grace=None)

    async def close(self) -> None:
        for channel, _ in self._open.values():
            await channel.close(grace=None)
        self._open.clear()


async def _connected(channel: grpc.aio.Channel) -> None:
    """Raises ConnectionError as soon as a try has failed: nothing listens there."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise ConnectionError
