"""TensorBoard on a job's RESULT_DIR, in a tab of Lab: a process on loopback, reached only through the user's own server.

The path that it is served under holds 128 random bits, which the process itself asks for too: another user of this machine can
reach the port, but not the path. Cookies and tokens pass in neither direction, and nothing but a board of ours is ever called.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from tornado import web

from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import ChangeFeed
from tuttilab.jupyter_ext.handlers import ID, PREFIX, RESOURCE, TuttiHandler
from tuttilab.scheduler import wire
from tuttilab.scheduler.client import results_here
from tuttilab.scheduler.errors import EnvironmentProblem, NotFound, Refused
from tuttilab.scheduler.wire import JobView

BOARDS: Final = f"{PREFIX}/tensorboard"
MOST_BOARDS: Final = 4
"""Each takes some 300 MB. A further one ends the one that was left alone longest."""
START_LIMIT_S: Final = 60.0
IDLE_CHECK_S: Final = 30.0
STOP_GRACE_S: Final = 3.0
BODY_LIMIT: Final = 2**20
PASSED_IN: Final = ("accept", "accept-encoding", "accept-language", "content-type", "x-tensorboard-feature-flags")
PASSED_OUT: Final = ("content-type", "content-encoding", "cache-control", "expires", "content-security-policy")


@dataclass(slots=True, eq=False)
class Board:
    """A TensorBoard that runs. ``key`` is the random part of its path."""

    folder: Path
    key: str
    port: int
    process: asyncio.subprocess.Process
    used_at: float = field(default_factory=time.monotonic)


class Boards:
    """All of this server's, at most MOST_BOARDS, each ended after ``idle_s`` without a request and with the server."""

    def __init__(self, base_url: str, idle_s: float) -> None:
        self._root = base_url.rstrip("/") + BOARDS
        self._idle_s = idle_s
        self._boards: dict[str, Board] = {}
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient | None = None

    def path(self, board: Board) -> str:
        return f"{self._root}/{board.key}/"

    def find(self, key: str) -> Board | None:
        """The one that is served under ``key``, noted as used now."""
        board = self._boards.get(key)
        if board is None or board.process.returncode is not None:
            return None
        board.used_at = time.monotonic()
        return board

    async def open(self, folder: Path) -> Board:
        """The board of a folder, started when there is none."""
        async with self._starting:
            for board in self._boards.values():
                if board.folder == folder and self.find(board.key):
                    return board
            if len(self._boards) >= MOST_BOARDS:
                await self._end(min(self._boards.values(), key=lambda board: board.used_at))
            board = await self._start(folder)
            self._boards[board.key] = board
            if self._watching is None:
                self._watching = asyncio.create_task(self._watch(), name="tuttilab TensorBoards")
            return board

    async def _start(self, folder: Path) -> Board:
        key = secrets.token_urlsafe(16)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tuttilab.jupyter_ext.board_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        told = {"logdir": str(folder), "prefix": f"{self._root}/{key}"}
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), START_LIMIT_S)
            said: dict[str, str] = json.loads(line)
            port = urlsplit(said["url"]).port if "url" in said else None
        except (TimeoutError, ValueError, ConnectionError):
            said, port = {}, None
        if port is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise EnvironmentProblem(said.get("error", "TensorBoard did not start; run `tensorboard --version` to see why."))
        return Board(folder, key, port, process)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(IDLE_CHECK_S, self._idle_s))
            now = time.monotonic()
            for board in list(self._boards.values()):
                if now - board.used_at >= self._idle_s or board.process.returncode is not None:
                    await self._end(board)

    async def _end(self, board: Board) -> None:
        del self._boards[board.key]
        assert board.process.stdin is not None
        board.process.stdin.close()
        try:
            await asyncio.wait_for(board.process.wait(), STOP_GRACE_S)
        except TimeoutError:
            board.process.kill()
            await board.process.wait()

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        await asyncio.gather(*(self._end(board) for board in list(self._boards.values())))
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            # No proxy of the environment's between us and loopback, and no redirect is ever followed.
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=60.0)
        return self._http


class OpenHandler(TuttiHandler):
    """`POST /tuttilab/jobs/ID/tensorboard`: where the board of that job's results is."""

    def initialize(self, plane: ControlPlane, feed: ChangeFeed, boards: Boards | None = None) -> None:
        super().initialize(plane, feed)
        assert boards is not None
        self.boards = boards

    @web.authenticated
    @authorized
    async def post(self, id: str) -> None:
        self.check_write()

        async def work() -> bytes:
            # The control plane says whether the job is the user's.
            job = wire.from_json(JobView, await self.plane.send("GET", f"/jobs/{id}", {}, may_repeat=True))
            if not job.attempts:
                raise Refused(f"Job {job.name} has not started, so it has no results yet.")
            folder = await asyncio.to_thread(results_here, job)
            if folder is None:
                raise NotFound(f"The results of job {job.name} are not on this machine, so TensorBoard cannot show them from here.")
            return json.dumps({"path": self.boards.path(await self.boards.open(folder))}).encode()

        await self.answer(work)


class BoardHandler(JupyterHandler):
    """One board's own pages and data, for who is signed in and knows its path."""

    auth_resource = RESOURCE

    def initialize(self, boards: Boards) -> None:
        self.boards = boards

    def check_xsrf_cookie(self) -> None:
        """Its page cannot know Jupyter's token. Its posts only read, and carry a header that no foreign page may send."""
        if self.request.method == "POST" and self.request.headers.get("X-XSRF-Protected") is None:
            raise web.HTTPError(403, "X-XSRF-Protected is missing.")

    @web.authenticated
    @authorized
    async def get(self, key: str, rest: str) -> None:
        await self._pass(key, rest)

    @web.authenticated
    @authorized
    async def post(self, key: str, rest: str) -> None:
        await self._pass(key, rest)

    async def _pass(self, key: str, rest: str) -> None:
        board = self.boards.find(key)
        if board is None or not self.check_origin():
            raise web.HTTPError(404, "This TensorBoard has ended; open it again from its job.")
        if len(self.request.body) > BODY_LIMIT:
            raise web.HTTPError(413)
        # From our own registration, never from the request: the host and port; its path is the one we were reached by.
        url = httpx.URL(f"http://127.0.0.1:{board.port}").copy_with(raw_path=str(self.request.uri).encode())
        headers = {name: self.request.headers[name] for name in PASSED_IN if name in self.request.headers}
        try:
            async with self.boards.http().stream(
                str(self.request.method), url, headers=headers, content=self.request.body or None
            ) as answer:
                await self._pass_back(answer)
        except httpx.HTTPError as error:
            raise web.HTTPError(502, "TensorBoard did not answer.") from error

    async def _pass_back(self, answer: httpx.Response) -> None:
        self.set_status(answer.status_code)
        self.clear_header("Content-Type")
        for name in PASSED_OUT:
            if name in answer.headers:
                # Two policies hold together: TensorBoard's own, and Jupyter's on who may frame it.
                (self.add_header if name == "content-security-policy" else self.set_header)(name, answer.headers[name])
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        async for chunk in answer.aiter_raw():
            self.write(chunk)
            await self.flush()
        self.finish()


def board_handlers(plane: ControlPlane, feed: ChangeFeed, boards: Boards) -> list[tuple[Any, ...]]:
    """Handler lines for tornado. ``Any``: its own type for them is as wide."""
    parts: dict[str, Any] = {"plane": plane, "feed": feed, "boards": boards}
    return [
        (f"{PREFIX}/jobs/({ID})/tensorboard", OpenHandler, parts),
        (rf"{BOARDS}/([A-Za-z0-9_-]{{22}})/(.*)", BoardHandler, {"boards": boards}),
    ]
