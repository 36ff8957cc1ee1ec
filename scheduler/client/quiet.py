"""Keeps the client's own requests out of the user's logs.

`logging.basicConfig(level=INFO)` is among the commonest first cells of a notebook, and a cell that waits for a job asks a few
times a second. What the HTTP library logs below WARNING in the client's own thread is dropped; the user's requests are logged.
Who wants to see ours sets a level of the logger `tuttilab.client`.
"""

from __future__ import annotations

import logging
from typing import Final

THREAD: Final = "tuttilab-client"
LOGGER: Final = logging.getLogger("tuttilab.client")
_LIBRARIES: Final = ("httpx", "httpcore", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "asyncio")


def _passes(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.threadName != THREAD or 0 < LOGGER.level <= record.levelno


def keep_quiet() -> None:
    """Call once."""
    for name in _LIBRARIES:
        logging.getLogger(name).addFilter(_passes)
