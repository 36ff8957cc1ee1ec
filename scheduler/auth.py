"""Who asks: identity from a verified token and from nothing else."""

from __future__ import annotations

import hmac
from typing import Protocol

from tuttilab.scheduler.errors import BadInput, Unauthenticated
from tuttilab.scheduler.requests import Who


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
