"""The control plane's side of `server`: starts the process for big artifacts on first use, and again when it has died."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tuttilab.scheduler.api.artifacts.tickets import Ticket
from tuttilab.scheduler.domain.errors import TuttiError, Unavailable
from tuttilab.scheduler.runtime.children import end_child
from tuttilab.scheduler.store.blobs import Blobs

log = logging.getLogger(__name__)

REDIRECT_BYTES: Final = 2**20
"""Smaller artifacts are served by the control plane itself: a second connection would cost more than the transfer."""
STOP_S: Final = 2.0

CommitArtifact = Callable[[str, str, int], Awaitable[None]]
"""Commits the row of an artifact whose bytes are stored: its id, its owner, its size in bytes."""


async def _no_leader(artifact_id: str, owner: str, size: int) -> None:
    raise Unavailable("Nobody leads who could note the artifact; try again in a moment.")


class ArtifactProcess:
    """``host`` is the address it listens on; its port stays the same over its restarts."""

    def __init__(self, blobs: Blobs, host: str, ticket_s: float) -> None:
        """``ticket_s``: how long a ticket may start a transfer; one that has started goes on."""
        self._blobs = blobs
        self._ticket_s = ticket_s
        self._commit: CommitArtifact = _no_leader
        self._key = secrets.token_bytes(32)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Without the protocol's number asyncio does not turn Nagle's algorithm off.
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind((host, 0))
        self._socket.listen(512)
        self.port: int = self._socket.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None
        self._start_lock = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None

    def set_committer(self, commit: CommitArtifact) -> None:
        """Set the function that commits the rows of artifacts from now on."""
        self._commit = commit

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def url(self, method: str, artifact_id: str, owner: str, scheme: str, host: str) -> str | None:
        """A URL to PUT or GET the artifact, valid for ``ticket_s``; None when the process does not start."""
        try:
            await self._ensure_started()
        except OSError as error:
            log.error("the process for artifacts does not start, the control plane serves them itself: %s", error)
            return None
        ticket = Ticket(method, artifact_id, owner, math.ceil(time.time() + self._ticket_s))
        name = f"[{host}]" if ":" in host else host
        return f"{scheme}://{name}:{self.port}/artifacts/{artifact_id}?{ticket.query(self._key)}"

    async def _ensure_started(self) -> None:
        async with self._start_lock:
            if self.pid is not None:
                return
            number = self._socket.fileno()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tuttilab.scheduler.api.artifacts.server",
                str(number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(number,),
                start_new_session=True,
            )
            settings = {"key": self._key.hex(), "folder": str(self._blobs.folder), "limit": self._blobs.limit}
            self._send(self._process, settings)
            self._reader = asyncio.create_task(self._read_notices(self._process), name="artifact notices")
            log.info("big artifacts go through pid %d at port %d", self._process.pid, self.port)

    @staticmethod
    def _send(process: asyncio.subprocess.Process, message: object) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read_notices(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            notice = json.loads(line)
            try:
                await self._commit(notice["artifact"], notice["owner"], notice["size"])
                error = None
            except TuttiError as refusal:
                error = str(refusal)
            self._send(process, {"number": notice["number"], "error": error})
        log.info("the process for artifacts ended with %s", await process.wait())

    async def close(self) -> None:
        """End the process; uploads in flight are not acknowledged."""
        self._socket.close()
        process = self._process
        if process is None:
            return
        await end_child(process, STOP_S)
        if self._reader is not None:
            await self._reader
