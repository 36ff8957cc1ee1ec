"""TensorBoard on a job's RESULT_DIR, in a tab of Lab: a process on loopback, proxied by the user's Jupyter server.

Its URL path holds 128 random bits, which the process itself requires too: other users of the machine can reach the port, but do
not know the path. Cookies and tokens are passed in neither direction, and only our own boards are ever called.
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

from tuttilab.jupyter_ext import event_files
from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import ChangeFeed
from tuttilab.jupyter_ext.handlers import ID, PREFIX, RESOURCE, TuttiHandler
from tuttilab.scheduler.client import results_here
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import EnvironmentProblem, NotFound, Refused
from tuttilab.scheduler.domain.wire import JobView

BOARDS: Final = f"{PREFIX}/tensorboard"
MOST_BOARDS: Final = 4
"""Each takes about 300 MB. A further one ends the board that was unused longest."""
START_LIMIT_S: Final = 60.0
IDLE_CHECK_S: Final = 30.0
STOP_GRACE_S: Final = 3.0
BODY_LIMIT: Final = 2**20
LARGEST_ANSWER: Final = 64 * 2**20
"""Of TensorBoard, passed on to a page."""
REQUEST_HEADERS: Final = ("accept", "accept-encoding", "accept-language", "content-type", "x-tensorboard-feature-flags")
RESPONSE_HEADERS: Final = ("content-type", "content-encoding", "cache-control", "expires", "content-security-policy")

ITS_OWN: Final = ("text/html", "text/javascript", "application/javascript", "text/css")
"""Types of TensorBoard's own pages, on which it sets a policy itself. Everything else may be the bytes of a job."""
MOST_LAST_WORDS: Final = 100
LAST_WORD_S: Final = 1.0
"""How long it may take to arrive once the process has ended."""
SANDBOX: Final = "sandbox; default-src 'none'"
"""Opened as a page, such an answer runs no script and is of no origin, whatever type TensorBoard gives it."""


@dataclass(slots=True, eq=False)
class Board:
    """A running TensorBoard. ``key`` is the random part of its path."""

    folder: Path
    key: str
    port: int
    process: asyncio.subprocess.Process
    used_at: float = field(default_factory=time.monotonic)
    last_word: asyncio.Task[str] | None = None
    """One sentence of why it ended; empty where it has not said so."""

    async def listen(self) -> str:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, ConnectionError):
            return str(json.loads(await self.process.stdout.readline())["error"])
        return ""

    async def why_ended(self) -> str:
        """Of one that has ended by itself."""
        said = ""
        if self.last_word is not None and (await asyncio.wait([self.last_word], timeout=LAST_WORD_S))[0]:
            said = self.last_word.result()
        return said or f"TensorBoard ended by itself (exit code {self.process.returncode}); open it again from its job."


class Boards:
    """The boards of this server, at most MOST_BOARDS. Each ends after ``idle_s`` without a request, or with the server."""

    def __init__(self, base_url: str, idle_s: float) -> None:
        self._root = base_url.rstrip("/") + BOARDS
        self._idle_s = idle_s
        self._boards: dict[str, Board] = {}
        self._last_words: dict[str, str] = {}
        """Why boards ended that did so by themselves, by their keys: the newest `MOST_LAST_WORDS`."""
        self._starting = asyncio.Lock()
        self._idle_check: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient | None = None

    def path(self, board: Board) -> str:
        return f"{self._root}/{board.key}/"

    def find(self, key: str) -> Board | None:
        """The live board with this key, marked as used now."""
        board = self._boards.get(key)
        if board is None or board.process.returncode is not None:
            return None
        board.used_at = time.monotonic()
        return board

    async def why_ended(self, key: str) -> str:
        board = self._boards.get(key)
        if board is not None and board.process.returncode is not None:
            return await board.why_ended()
        return self._last_words.get(key, "This TensorBoard has ended; open it again from its job.")

    async def open(self, folder: Path) -> Board:
        """The board of a folder; started when there is none."""
        async with self._starting:
            for board in self._boards.values():
                if board.folder == folder and self.find(board.key):
                    return board
            if len(self._boards) >= MOST_BOARDS:
                await self._end(min(self._boards.values(), key=lambda board: board.used_at))
            board = await self._start(folder)
            self._boards[board.key] = board
            if self._idle_check is None:
                self._idle_check = asyncio.create_task(self._end_idle_boards(), name="tuttilab TensorBoards")
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
        request = {"logdir": str(folder), "prefix": f"{self._root}/{key}"}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), START_LIMIT_S)
            answer: dict[str, str] = json.loads(line)
            port = urlsplit(answer["url"]).port if "url" in answer else None
        except (TimeoutError, ValueError, ConnectionError):
            answer, port = {}, None
        if port is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise EnvironmentProblem(answer.get("error", "TensorBoard did not start; run `tensorboard --version` to see why."))
        board = Board(folder, key, port, process)
        board.last_word = asyncio.create_task(board.listen(), name="tuttilab TensorBoard")
        return board

    async def _end_idle_boards(self) -> None:
        while True:
            await asyncio.sleep(min(IDLE_CHECK_S, self._idle_s))
            now = time.monotonic()
            for board in list(self._boards.values()):
                if now - board.used_at >= self._idle_s or board.process.returncode is not None:
                    await self._end(board)

    async def _end(self, board: Board) -> None:
        if board.process.returncode is not None:
            self._last_words[board.key] = await board.why_ended()
            while len(self._last_words) > MOST_LAST_WORDS:
                del self._last_words[next(iter(self._last_words))]
        self._boards.pop(board.key, None)
        assert board.process.stdin is not None
        board.process.stdin.close()
        try:
            await asyncio.wait_for(board.process.wait(), STOP_GRACE_S)
        except TimeoutError:
            board.process.kill()
            await board.process.wait()

    async def stop(self) -> None:
        if self._idle_check is not None:
            self._idle_check.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._idle_check
            self._idle_check = None
        await asyncio.gather(*(self._end(board) for board in list(self._boards.values())))
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def http(self) -> httpx.AsyncClient:
        if self._http is None:
            # Ignores proxies of the environment, and follows no redirect.
            self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=60.0)
        return self._http


def has_events(folder: Path) -> bool:
    """Whether there is something for TensorBoard to show."""
    return next(event_files.found_in(folder), None) is not None


class OpenHandler(TuttiHandler):
    """`GET /tuttilab/jobs/ID/tensorboard`: whether the job wrote event files; `POST`: opens a board on its results."""

    def initialize(self, plane: ControlPlane, feed: ChangeFeed, boards: Boards | None = None) -> None:
        super().initialize(plane, feed)
        assert boards is not None
        self.boards = boards

    @web.authenticated
    @authorized
    async def get(self, id: str) -> None:
        async def work() -> bytes:
            job = wire.from_json(JobView, await self.plane.send("GET", f"/jobs/{id}", {}, may_repeat=True))
            folder = await asyncio.to_thread(results_here, job)
            found = folder is not None and await asyncio.to_thread(has_events, folder)
            return json.dumps({"has_events": found}).encode()

        await self.answer(work)

    @web.authenticated
    @authorized
    async def post(self, id: str) -> None:
        self.check_write()

        async def work() -> bytes:
            # The control plane checks that the user may see the job.
            job = wire.from_json(JobView, await self.plane.send("GET", f"/jobs/{id}", {}, may_repeat=True))
            if not job.attempts:
                raise Refused(f"Job {job.name} has not started, so it has no results yet.")
            folder = await asyncio.to_thread(results_here, job)
            if folder is None:
                raise NotFound(f"The results of job {job.name} are not on this machine, so TensorBoard cannot show them from here.")
            found = await asyncio.to_thread(event_files.look, folder)
            if found.refusal:
                raise Refused(found.refusal)
            return json.dumps({"path": self.boards.path(await self.boards.open(folder)), "note": found.note}).encode()

        await self.answer(work)


class BoardHandler(JupyterHandler):
    """Proxies the pages and data of one board, for signed-in users who know its path."""

    auth_resource = RESOURCE

    def initialize(self, boards: Boards) -> None:
        self.boards = boards

    def check_xsrf_cookie(self) -> None:
        """TensorBoard's pages lack Jupyter's XSRF token. Their posts only read, with a header that foreign pages cannot send."""
        if self.request.method == "POST" and self.request.headers.get("X-XSRF-Protected") is None:
            raise web.HTTPError(403, "X-XSRF-Protected is missing.")

    @web.authenticated
    @authorized
    async def get(self, key: str, rest: str) -> None:
        await self._proxy(key, rest)

    @web.authenticated
    @authorized
    async def post(self, key: str, rest: str) -> None:
        await self._proxy(key, rest)

    async def _proxy(self, key: str, rest: str) -> None:
        board = self.boards.find(key)
        if board is None or not self.check_origin():
            raise web.HTTPError(404, await self.boards.why_ended(key))
        if len(self.request.body) > BODY_LIMIT:
            raise web.HTTPError(413)
        # Host and port come from our own table, never from the request; the path is that of the request.
        url = httpx.URL(f"http://127.0.0.1:{board.port}").copy_with(raw_path=str(self.request.uri).encode())
        headers = {name: self.request.headers[name] for name in REQUEST_HEADERS if name in self.request.headers}
        try:
            async with self.boards.http().stream(
                str(self.request.method), url, headers=headers, content=self.request.body or None
            ) as answer:
                await self._send_back(answer)
        except httpx.HTTPError as error:
            raise web.HTTPError(502, "TensorBoard did not answer.") from error

    async def _send_back(self, answer: httpx.Response) -> None:
        length = answer.headers.get("content-length", "")
        left = LARGEST_ANSWER
        if length.isdecimal() and int(length) > left:
            raise web.HTTPError(502, f"This has {int(length) >> 20} MiB; at most {left >> 20} MiB of TensorBoard are shown.")
        self.set_status(answer.status_code)
        self.clear_header("Content-Type")
        for name in RESPONSE_HEADERS:
            if name in answer.headers:
                # Both policies apply: TensorBoard's own, and Jupyter's on framing.
                (self.add_header if name == "content-security-policy" else self.set_header)(name, answer.headers[name])
        if not answer.headers.get("content-type", "").startswith(ITS_OWN):
            self.add_header("Content-Security-Policy", SANDBOX)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        async for chunk in answer.aiter_raw():
            left -= len(chunk)
            if left < 0:
                # The status is sent: only a broken connection tells the page that this is not all.
                raise web.HTTPError(502, f"More than {LARGEST_ANSWER >> 20} MiB of TensorBoard.")
            self.write(chunk)
            await self.flush()
        self.finish()


def board_handlers(plane: ControlPlane, feed: ChangeFeed, boards: Boards) -> list[tuple[Any, ...]]:
    """The handlers for tornado. ``Any``: its own type is as wide."""
    arguments: dict[str, Any] = {"plane": plane, "feed": feed, "boards": boards}
    return [
        (f"{PREFIX}/jobs/({ID})/tensorboard", OpenHandler, arguments),
        (rf"{BOARDS}/([A-Za-z0-9_-]{{22}})/(.*)", BoardHandler, {"boards": boards}),
    ]
