"""Ends the processes that a control plane starts beside itself."""

from __future__ import annotations

import asyncio
import contextlib


async def end_child(child: asyncio.subprocess.Process, limit_s: float) -> None:
    """End a child that ends when its standard input closes; one that has not after ``limit_s`` is killed."""
    if child.returncode is not None:
        return
    assert child.stdin is not None
    child.stdin.close()
    try:
        async with asyncio.timeout(limit_s):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
