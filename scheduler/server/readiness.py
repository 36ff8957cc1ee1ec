"""The pipe on which a starting control plane reports that it is ready, or why it is not."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.runtime.discovery import NOTIFY_FD

LONGEST: Final = select.PIPE_BUF
"""Bytes that are written, and read, at once."""


def _short(notice: Mapping[str, object]) -> bytes:
    """At most `LONGEST` bytes; of a longer message the beginning."""
    message = str(notice.get("message", ""))
    while len(body := json.dumps(notice, ensure_ascii=False).encode(errors="replace")) > LONGEST:
        message = message[: -max(1, (len(body) - LONGEST) // 4)]
        notice = {**notice, "message": f"{message} …"}
    return body


class ReadinessPipe:
    """Sends one notice to the process that started this one, if that process passed a pipe."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        number = environ.get(NOTIFY_FD, "")
        self._fd = int(number) if number.isdecimal() else None
        self.is_connected = self._fd is not None
        if self._fd is not None:
            # Pods must not inherit it: the starter waits until its last holder has closed it.
            os.set_inheritable(self._fd, False)
            os.environ.pop(NOTIFY_FD, None)

    def ready(self) -> None:
        self._send({"ready": True})

    def failed(self, error: TuttiError) -> None:
        self._send({"type": error.type, "message": str(error)})

    def _send(self, notice: Mapping[str, object]) -> None:
        if self._fd is None:
            return
        # The starter may have ended.
        with contextlib.suppress(OSError):
            os.write(self._fd, _short(notice))
            os.close(self._fd)
        self._fd = None
