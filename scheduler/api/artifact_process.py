"""The control plane's side of `artifact_server`: starts that process when it is first needed, and again when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tuttilab.scheduler.api.tickets import LASTS_S, Ticket
from tuttilab.scheduler.errors import TuttiError, Unavailable
from tuttilab.scheduler.store.blobs import Blobs

log = logging.getLogger(__name__)

WORTH_BYTES: Final = 2**20
"""Smaller artifacts are served by the control plane itself: a second connection would cost more than they do."""
ENDS_S: Final = 2.0

Received = Callable[[str, str, int], Awaitable[None]]
"""Commits the row of an artifact that is there: its id, its owner, its size in bytes."""


async def _nobody(artifact_id: str, owner: str, size: int) -> None:
    raise Unavailable("Nobody leads who could note the artifact; try again in a moment.")


class ArtifactProcess:
    """``host`` is where it listens, at a port that stays the same over its restarts."""

    def __init__(self, blobs: Blobs, host: str) -> None:
        self._blobs = blobs
        self._received: Received = _nobody
        self._key = secrets.token_bytes(32)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Without the protocol's number asyncio does not turn Nagle's algorithm off.
        self._listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listening.bind((host, 0))
        self._listening.listen(512)
        self.port: int = self._listening.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._notes: asyncio.Task[None] | None = None

    def acknowledged_by(self, received: Received) -> None:
        """Who commits the rows of artifacts from now on."""
        self._received = received

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def url(self, method: str, artifact_id: str, owner: str, scheme: str, host: str) -> str | None:
        """Where its bytes go, or come from, for the next hour; None when the process does not start."""
        try:
            await self._ensure()
        except OSError as error:
            log.error("the process for artifacts does not start, the control plane serves them itself: %s", error)
            return None
        ticket = Ticket(method, artifact_id, owner, int(time.time()) + LASTS_S)
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}:{self.port}/artifacts/{artifact_id}?{ticket.query(self._key)}"

    async def _ensure(self) -> None:
        async with self._starting:
            if self.pid is not None:
                return
            number = self._listening.fileno()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tuttilab.scheduler.api.artifact_server",
                str(number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(number,),
                start_new_session=True,
            )
            settings = {"key": self._key.hex(), "folder": str(self._blobs.folder), "limit": self._blobs.limit}
            self._say(self._process, settings)
            self._notes = asyncio.create_task(self._listen(self._process), name="notes of the process for artifacts")
            log.info("big artifacts go through pid %d at port %d", self._process.pid, self.port)

    @staticmethod
    def _say(process: asyncio.subprocess.Process, told: object) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(told).encode() + b"\n")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            note = json.loads(line)
            try:
                await self._received(note["artifact"], note["owner"], note["size"])
                error = None
            except TuttiError as refusal:
                error = str(refusal)
            self._say(process, {"number": note["number"], "error": error})
        log.info("the process for artifacts ended with %s", await process.wait())

    async def close(self) -> None:
        """Ends the process; what was on its way is not acknowledged."""
        self._listening.close()
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(ENDS_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
        if self._notes is not None:
            await self._notes
