"""Receives the body of an upload into the artifact folder."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Final

from starlette.requests import Request

from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.scheduler.store.blobs import Blobs, too_large

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 2**20
SWEEP_EVERY_S: Final = 3600.0


async def sweep_periodically(blobs: Blobs) -> None:
    """Remove the files of killed uploads, now and then once an hour."""
    while True:
        try:
            swept = await asyncio.to_thread(blobs.sweep, time.time())
        except OSError as error:
            log.warning("files of killed uploads in %s are not removed, they are looked at again: %s", blobs.folder, error)
        else:
            if swept:
                log.info("%d files of killed uploads removed from %s", swept, blobs.folder)
        await asyncio.sleep(SWEEP_EVERY_S)


async def receive(blobs: Blobs, artifact_id: str, request: Request) -> int:
    """Store the body and return its size. Writes a mebibyte at a time in threads, so disk and digest never block the event loop.

    Raises BadInput for an invalid id or another digest, TooLarge (before reading, when the length is declared), StoreError.
    """
    declared = request.headers.get("content-length", "")
    blobs.path(artifact_id)
    if declared.isdecimal() and int(declared) > blobs.limit:
        raise too_large(int(declared), blobs.limit)
    receiving = blobs.receive(artifact_id)
    upload = await asyncio.to_thread(receiving.__enter__)
    try:
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= CHUNK_BYTES:
                await asyncio.to_thread(upload.write, bytes(buffer))
                buffer.clear()
        if buffer:
            await asyncio.to_thread(upload.write, bytes(buffer))
        await asyncio.to_thread(upload.finish, artifact_id)
        point("artifact.whole")
    except BaseException:
        await asyncio.to_thread(receiving.__exit__, *sys.exc_info())
        raise
    await asyncio.to_thread(receiving.__exit__, None, None, None)
    point("artifact.kept")
    return upload.size
