"""Where a caller's session is: asked of the control plane with the caller's own token, and remembered for a few seconds.

The proxy's token alone opens nothing: each question carries the token of a user, and the answer is about that user's session.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tuttilab.scheduler.domain.errors import (
    BadInput,
    Conflict,
    EnvironmentProblem,
    Forbidden,
    NotFound,
    TuttiError,
    Unauthenticated,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.runtime.http_library import httpx

CACHE_S: Final = 10.0
"""How long a session that has ended, or a token that was revoked, may still be taken as good for new calls."""
REFUSAL_CACHE_S: Final = 2.0
CACHE_ENTRIES: Final = 10_000
ASK_S: Final = 10.0
LONGEST_TOKEN: Final = 4096
LONGEST_NAME: Final = 253
LARGEST_ANSWER: Final = 64 * 1024
PATH: Final = "/api/v1/spark/routes"

_ERRORS: Final[dict[str, type[TuttiError]]] = {
    kind.type: kind for kind in (BadInput, Conflict, Forbidden, NotFound, Unauthenticated, Unavailable)
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """One session of one user. `secret` goes to the session's server and nowhere else."""

    owner: str
    job_id: str
    host: str
    port: int
    secret: str = field(repr=False)

    @property
    def target(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Question:
    """`job_id` empty: whichever session has that name now."""

    token: str = field(repr=False)
    session: str
    job_id: str = ""

    @property
    def key(self) -> bytes:
        return hashlib.sha256("\0".join((self.token, self.session, self.job_id)).encode()).digest()


class Routes:
    """Make and use it in one event loop; `clock` is any monotonic one."""

    def __init__(self, url: str, token_file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"--url: {url!r} is no address of a control plane; expected one such as http://127.0.0.1:8080.")
        self._url = url.rstrip("/")
        self._token_file = token_file
        read_token(token_file)
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Route | TuttiError]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Route]] = {}
        self._http = httpx.AsyncClient(
            timeout=ASK_S,
            limits=httpx.Limits(max_connections=32),
            trust_env=parts.hostname not in ("127.0.0.1", "localhost", "::1"),
            verify=parts.scheme == "https",
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def find(self, question: Question) -> Route:
        """Raises Unauthenticated, Forbidden, NotFound, Conflict while the session is not ready, Unavailable."""
        key = question.key
        until, known = self._known.get(key, (0.0, None))
        if known is not None and self._clock() < until:
            if isinstance(known, TuttiError):
                raise type(known)(str(known))
            return known
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._ask(question))
            self._asked[key].add_done_callback(partial(self._store, key))
        return await asyncio.shield(self._asked[key])

    def forget(self, question: Question) -> None:
        """The session did not answer there: ask anew next time."""
        self._known.pop(question.key, None)

    def _store(self, key: bytes, task: asyncio.Task[Route]) -> None:
        del self._asked[key]
        error = None if task.cancelled() else task.exception()
        # A session that is not ready yet may be so at the next question.
        if task.cancelled() or isinstance(error, Conflict) or not isinstance(error, (UserError, type(None))):
            return
        self._known[key] = (self._clock() + (CACHE_S if error is None else REFUSAL_CACHE_S), error or task.result())
        self._known.move_to_end(key)
        while len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)

    async def _ask(self, question: Question) -> Route:
        body = json.dumps({"token": question.token, "session": question.session, "job_id": question.job_id})
        try:
            headers = {"Authorization": f"Bearer {read_token(self._token_file)}", "Content-Type": "application/json"}
            async with asyncio.timeout(ASK_S):
                response = await self._http.post(self._url + PATH, content=body, headers=headers)
                answer = json.loads(response.content[:LARGEST_ANSWER])
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            log.warning("the control plane does not answer: %s", error or type(error).__name__)
            raise Unavailable("The control plane does not answer the Spark proxy; try again in a moment.") from error
        if not response.is_success:
            raise self._refusal(response.status_code, answer)
        try:
            return Route(
                str(answer["owner"]), str(answer["job_id"]), str(answer["host"]), int(answer["port"]), str(answer["token"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable("The control plane's answer to the Spark proxy is of another version; update both.") from error

    def _refusal(self, status: int, answer: object) -> TuttiError:
        problem = answer if isinstance(answer, dict) else {}
        kind, detail = _ERRORS.get(str(problem.get("type"))), problem.get("detail")
        if kind is None or not isinstance(detail, str):
            log.warning("the control plane answers %d", status)
            return Unavailable(f"The control plane answers the Spark proxy {status}; try again in a moment.")
        return kind(detail)


def read_token(path: Path) -> str:
    """The proxy's token, read anew for each question, so that it can be renewed. Raises EnvironmentProblem."""
    try:
        with path.open("rb") as file:
            token = file.read(LONGEST_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(
            f"The token of the Spark proxy cannot be read from {path}; give the file with --token-file."
        ) from error
    if not token:
        raise EnvironmentProblem(f"{path} is empty; expected the token of the Spark proxy, which the control plane writes.")
    return token
