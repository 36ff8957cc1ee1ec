"""The local token and its user; the header that carries a token."""

import pytest

from tuttilab.scheduler.domain.errors import BadInput, Unauthenticated
from tuttilab.scheduler.identity.auth import LocalAuthenticator, bearer


async def test_local_token_identifies_its_user_as_admin_in_every_group() -> None:
    who = await LocalAuthenticator("secret", "ana").who("secret")

    assert (who.name, who.is_admin, who.is_in("any")) == ("ana", True, True)


@pytest.mark.parametrize("token", ["", "secre", "secrets", "Secret", "sécret", "\x00"])
async def test_every_other_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await LocalAuthenticator("secret", "ana").who(token)


@pytest.mark.parametrize(("token", "user"), [("", "ana"), ("secret", "")])
def test_empty_token_or_user_is_refused(token: str, user: str) -> None:
    with pytest.raises(BadInput):
        LocalAuthenticator(token, user)


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_token_is_read_from_the_header(header: str) -> None:
    assert bearer(header) == "abc"


@pytest.mark.parametrize("header", [None, "", "abc", "Basic abc", "Bearer", "Bearer  ", "token abc"])
def test_what_is_no_bearer_token_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="expected the header Authorization: Bearer"):
        bearer(header)
