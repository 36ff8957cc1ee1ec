"""Authentication: the caller's identity, from a verified token and from nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from tuttilab.scheduler.config.model import AuthConfig
from tuttilab.scheduler.domain.errors import (
    BadInput,
    EnvironmentProblem,
    Forbidden,
    TuttiError,
    Unauthenticated,
    Unavailable,
    UserError,
)
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.runtime.http_library import httpx

CACHE_S: Final = 15.0
"""How long an identity is cached, and so how long a revoked hub token may still be accepted. At most a minute is promised."""
REFUSAL_CACHE_S: Final = 5.0
CACHE_ENTRIES: Final = 10_000
HUB_TIMEOUT_S: Final = 10.0
HUB_CONNECTIONS: Final = 20
NOT_A_TOKEN: Final = "The hub does not know this token, or it was revoked or has expired; get another on the hub's token page."  # noqa: S105


log = logging.getLogger(__name__)


class Authenticator(Protocol):
    async def who(self, token: str) -> Who:
        """The identity of a token's owner. Raises Unauthenticated for an unknown token."""
        ...


class LocalAuthenticator:
    """Accepts the one token of a local control plane: whoever can read its file is the user who started it, and admin."""

    def __init__(self, token: str, user: str) -> None:
        if not token or not user:
            raise BadInput("a local control plane needs a token and a user; one of them is empty.")
        self._token = token.encode()
        self._who = Who(user, is_admin=True, in_every_group=True)

    async def who(self, token: str) -> Who:
        # In constant time, so that the answer's time reveals nothing of the token.
        if not hmac.compare_digest(token.encode(), self._token):
            raise Unauthenticated("This is not the token of this control plane; `tuttilab status` names the file that holds it.")
        return self._who


def bearer(header: str | None) -> str:
    """The token of an Authorization header, the only place where one is accepted. Raises Unauthenticated when there is none."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("There is no token; expected the header Authorization: Bearer <token>.")
    return token.strip()


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How to reach the hub. ``token`` is the one that the hub gave this service; requests of the hub itself carry it too."""

    url: str
    service: str
    token: str = field(repr=False)
    admin_groups: frozenset[str] = frozenset()
    viewer_groups: frozenset[str] = frozenset()


class HubAuthenticator:
    """Authenticates users by their hub tokens, which must carry the scope ``access:services!service=NAME``.

    Any hub token may read its own user, so the scope decides. The hub's answer is cached for `CACHE_S` by the token's hash. The
    token that the hub gave this service identifies the hub itself, and the operator's token on this machine is accepted as well.
    """

    def __init__(self, hub: HubSettings, operator: Authenticator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._operator = operator
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Who | TuttiError]] = OrderedDict()
        self._in_flight: dict[bytes, asyncio.Task[Who]] = {}
        self.http = httpx.AsyncClient(
            timeout=HUB_TIMEOUT_S,
            limits=httpx.Limits(max_connections=HUB_CONNECTIONS),
            # Requests to this machine must not go through a proxy of the environment.
            trust_env=urlsplit(hub.url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )

    async def close(self) -> None:
        await self.http.aclose()

    async def who(self, token: str) -> Who:
        # Both comparisons are in constant time.
        if hmac.compare_digest(token.encode(), self._hub.token.encode()):
            return Who(self._hub.service, is_admin=True, is_hub=True)
        with contextlib.suppress(Unauthenticated):
            return await self._operator.who(token)
        key = hashlib.sha256(token.encode()).digest()
        until, known = self._cache.get(key, (0.0, None))
        if known is not None and self._clock() < until:
            if isinstance(known, TuttiError):
                raise type(known)(str(known))
            return known
        if key not in self._in_flight:
            # Concurrent requests with the same token share one lookup, which goes on when the first of them is cancelled.
            self._in_flight[key] = asyncio.create_task(self._look_up(token))
            self._in_flight[key].add_done_callback(partial(self._store, key))
        return await asyncio.shield(self._in_flight[key])

    def _store(self, key: bytes, task: asyncio.Task[Who]) -> None:
        """Cache the outcome of a lookup, unless the hub could not be reached."""
        del self._in_flight[key]
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or not isinstance(error, (UserError, type(None))):
            return
        cache_s = CACHE_S if error is None else REFUSAL_CACHE_S
        self._cache[key] = (self._clock() + cache_s, error or task.result())
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)

    async def _look_up(self, token: str) -> Who:
        if not token.isascii() or not token.isprintable():
            raise Unauthenticated(NOT_A_TOKEN)
        try:
            response = await self.http.get(f"{self._hub.url}/user", headers={"Authorization": f"token {token}"})
            answer = response.json() if response.is_success else {}
        except (httpx.HTTPError, ValueError) as error:
            # What a user is told names no internal address.
            log.warning("the hub at %s does not answer: %s", self._hub.url, error or type(error).__name__)
            raise Unavailable(f"The hub does not answer the control plane ({type(error).__name__}); try again.") from error
        if response.status_code in (401, 403):
            raise Unauthenticated(NOT_A_TOKEN)
        if not isinstance(answer, dict) or not answer:
            log.warning("auth.url: %s answers %d; expected the API of a hub", self._hub.url, response.status_code)
            raise Unavailable(f"The hub answers the control plane {response.status_code}; an admin has to check auth.url.")
        return self._identity(answer)

    def _identity(self, answer: Mapping[str, Any]) -> Who:
        """The identity in the hub's user model (``Any``: JSON of another program). Raises Forbidden without the scope."""
        name, groups = answer.get("name"), answer.get("groups", [])
        if answer.get("kind") != "user" or not isinstance(name, str) or not name:
            raise Forbidden("This token belongs to a service of the hub; expected a user's.")
        scope = f"access:services!service={self._hub.service}"
        if {scope, "access:services"}.isdisjoint(answer.get("scopes", [])):
            raise Forbidden(f"This token of {name} may not be used here: it lacks the scope {scope}; ask for one that has it.")
        names = tuple(group for group in groups if isinstance(group, str))
        is_viewer = bool(names) and self._hub.viewer_groups.issuperset(names)
        return Who(name, names, is_admin=not self._hub.admin_groups.isdisjoint(names), is_viewer=is_viewer)


def hub_settings(config: AuthConfig, environ: Mapping[str, str]) -> HubSettings:
    """The configured hub and the token of this service. Raises EnvironmentProblem when there is no token."""
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
    groups = frozenset(config.admin_groups), frozenset(config.viewer_groups)
    return HubSettings(config.url.rstrip("/"), config.service, token, *groups)
