"""The body of a request into the artifact folder."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from starlette.requests import Request

from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.store.blobs import Blobs, too_large

PIECE_BYTES: Final = 2**20


async def receive(blobs: Blobs, artifact_id: str, request: Request) -> int:
    """Keeps the body, a mebibyte at a time, in threads: disk and digest never hold up the loop. Answers its size.

    Raises BadInput for what is no id or has another digest, TooLarge (before reading, when the length is declared), StoreError.
    """
    declared = request.headers.get("content-length", "")
    blobs.path(artifact_id)
    if declared.isdecimal() and int(declared) > blobs.limit:
        raise too_large(int(declared), blobs.limit)
    receiving = blobs.receive(artifact_id)
    upload = await asyncio.to_thread(receiving.__enter__)
    try:
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            if len(waiting) >= PIECE_BYTES:
                await asyncio.to_thread(upload.write, bytes(waiting))
                waiting.clear()
        if waiting:
            await asyncio.to_thread(upload.write, bytes(waiting))
        await asyncio.to_thread(upload.finish, artifact_id)
        point("artifact.whole")
    except BaseException:
        await asyncio.to_thread(receiving.__exit__, *sys.exc_info())
        raise
    await asyncio.to_thread(receiving.__exit__, None, None, None)
    point("artifact.kept")
    return upload.size
