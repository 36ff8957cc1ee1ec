"""Who asks: identity from a verified token and from nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx

from tuttilab.scheduler.config import AuthConfig
from tuttilab.scheduler.errors import (
    BadInput,
    EnvironmentProblem,
    Forbidden,
    TuttiError,
    Unauthenticated,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.requests import Who

REMEMBERED_S: Final = 15.0
"""How long a revoked hub token may still count. At most a minute is promised."""
REFUSAL_REMEMBERED_S: Final = 5.0
MOST_REMEMBERED: Final = 10_000
HUB_TIMEOUT_S: Final = 10.0
HUB_CONNECTIONS: Final = 20
NOT_A_TOKEN: Final = "The hub does not know this token, or it was revoked or has expired; get another on the hub's token page."  # noqa: S105


class Authenticator(Protocol):
    async def who(self, token: str) -> Who:
        """The identity behind a token. Raises Unauthenticated for every token that is not known."""
        ...


class LocalAuthenticator:
    """The local control plane's one token: whoever can read its file is the user who started it, and admin."""

    def __init__(self, token: str, user: str) -> None:
        if not token or not user:
            raise BadInput("a local control plane needs a token and a user; one of them is empty.")
        self._token = token.encode()
        self._who = Who(user, is_admin=True, in_every_group=True)

    async def who(self, token: str) -> Who:
        # In the same time for every wrong token.
        if not hmac.compare_digest(token.encode(), self._token):
            raise Unauthenticated("This is not the token of this control plane; `tuttilab status` names the file that holds it.")
        return self._who


def bearer(header: str | None) -> str:
    """The token of an Authorization header. Raises Unauthenticated when there is none; no other place is looked at."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("There is no token; expected the header Authorization: Bearer <token>.")
    return token.strip()


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How the hub is asked. ``token`` is the one that the hub gave this service; with it the hub itself speaks to us, too."""

    url: str
    service: str
    token: str = field(repr=False)
    admin_groups: frozenset[str] = frozenset()


class HubAuthenticator:
    """Users by their hub tokens: the hub says whose a token is, and it must carry ``access:services!service=NAME``.

    Any hub token may read its own user, so the scope is what counts. An answer counts for `REMEMBERED_S`, by the token's hash; the
    token that the hub gave this service is the hub itself, and the operator's token file on this machine goes on to count.
    """

    def __init__(self, hub: HubSettings, operator: Authenticator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._operator = operator
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Who | TuttiError]] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Who]] = {}
        self.http = httpx.AsyncClient(
            timeout=HUB_TIMEOUT_S,
            limits=httpx.Limits(max_connections=HUB_CONNECTIONS),
            # A proxy for the world must not see what goes to this machine.
            trust_env=urlsplit(hub.url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )

    async def close(self) -> None:
        await self.http.aclose()

    async def who(self, token: str) -> Who:
        # Each in the same time for every wrong token.
        if hmac.compare_digest(token.encode(), self._hub.token.encode()):
            return Who(self._hub.service, is_admin=True, is_hub=True)
        with contextlib.suppress(Unauthenticated):
            return await self._operator.who(token)
        key = hashlib.sha256(token.encode()).digest()
        until, known = self._known.get(key, (0.0, None))
        if known is not None and self._clock() < until:
            if isinstance(known, TuttiError):
                raise type(known)(str(known))
            return known
        if key not in self._asked:
            # One question for all who come with the same token at once; it goes on when the one who asked first goes away.
            self._asked[key] = asyncio.create_task(self._ask(token))
            self._asked[key].add_done_callback(partial(self._answered, key))
        return await asyncio.shield(self._asked[key])

    def _answered(self, key: bytes, task: asyncio.Task[Who]) -> None:
        del self._asked[key]
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or not isinstance(error, (UserError, type(None))):
            return  # That the hub does not answer is no answer.
        kept_s = REMEMBERED_S if error is None else REFUSAL_REMEMBERED_S
        self._known[key] = (self._clock() + kept_s, error or task.result())
        self._known.move_to_end(key)
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    async def _ask(self, token: str) -> Who:
        if not token.isascii() or not token.isprintable():
            raise Unauthenticated(NOT_A_TOKEN)
        try:
            response = await self.http.get(f"{self._hub.url}/user", headers={"Authorization": f"token {token}"})
            answer = response.json() if response.is_success else {}
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"The hub at {self._hub.url} does not answer ({type(error).__name__}); try again.") from error
        if response.status_code in (401, 403):
            raise Unauthenticated(NOT_A_TOKEN)
        if not isinstance(answer, dict) or not answer:
            raise Unavailable(f"auth.url: {self._hub.url} answers {response.status_code}; expected the API of a hub.")
        return self._identity(answer)

    def _identity(self, answer: Mapping[str, Any]) -> Who:
        """From the hub's model of the token's owner (``Any``: JSON of another program)."""
        name, groups = answer.get("name"), answer.get("groups", [])
        if answer.get("kind") != "user" or not isinstance(name, str) or not name:
            raise Forbidden("This token belongs to a service of the hub; expected a user's.")
        scope = f"access:services!service={self._hub.service}"
        if {scope, "access:services"}.isdisjoint(answer.get("scopes", [])):
            raise Forbidden(f"This token of {name} may not be used here: it lacks the scope {scope}; ask for one that has it.")
        mine = tuple(group for group in groups if isinstance(group, str))
        return Who(name, mine, is_admin=not self._hub.admin_groups.isdisjoint(mine))


def hub_settings(config: AuthConfig, environ: Mapping[str, str]) -> HubSettings:
    """The hub of the configuration, with the service's token. Raises EnvironmentProblem when there is none."""
    if config.token_file:
        try:
            token = Path(config.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EnvironmentProblem(f"auth.token_file: {config.token_file} cannot be read; expected the hub's token.") from error
    else:
        token = environ.get("JUPYTERHUB_API_TOKEN", "")
    if not token:
        raise EnvironmentProblem(
            "auth.kind is hub and there is no token of the hub's service; set auth.token_file or JUPYTERHUB_API_TOKEN."
        )
    return HubSettings(config.url.rstrip("/"), config.service, token, frozenset(config.admin_groups))
