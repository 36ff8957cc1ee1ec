"""Authentication by hub tokens: which requests go to the hub, how long its answers are cached, and what they mean."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tuttilab.scheduler.config.model import AuthConfig
from tuttilab.scheduler.domain.errors import EnvironmentProblem, Forbidden, Unauthenticated, Unavailable
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.identity.auth import (
    CACHE_ENTRIES,
    CACHE_S,
    REFUSAL_CACHE_S,
    HubAuthenticator,
    HubSettings,
    LocalAuthenticator,
    hub_settings,
)

SCOPE = "access:services!service=tuttilab"
ANN = {"kind": "user", "name": "ann", "groups": ["research"], "scopes": [SCOPE, "read:users:name!user=ann"]}


@dataclass
class Hub:
    """A hub that answers by token and records the tokens it was asked about."""

    answers: dict[str, Any] = field(default_factory=lambda: {"token-of-ann": ANN})
    asked: list[str] = field(default_factory=list)
    now: float = 100.0
    is_down: bool = False

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://hub/hub/api/user"
        await asyncio.sleep(0)
        token = request.headers["Authorization"].removeprefix("token ")
        self.asked.append(token)
        if self.is_down:
            raise httpx.ConnectError("refused")
        if token not in self.answers:
            return httpx.Response(403, json={"status": 403, "message": "Forbidden"})
        return httpx.Response(200, json=self.answers[token])

    def authenticator(self) -> HubAuthenticator:
        settings = HubSettings(
            "http://hub/hub/api", "tuttilab", "token-of-the-hub", frozenset({"admins"}), frozenset({"auditors", "guests"})
        )
        made = HubAuthenticator(settings, LocalAuthenticator("token-of-the-operator", "op"), clock=lambda: self.now)
        made.http = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return made


async def test_user_has_the_groups_of_the_hub() -> None:
    assert await Hub().authenticator().who("token-of-ann") == Who("ann", ("research",))


async def test_admin_comes_from_the_admin_groups_and_not_from_the_hubs_admin_flag() -> None:
    hub = Hub({"a": {**ANN, "admin": True}, "b": {**ANN, "groups": ["admins"]}})
    authenticator = hub.authenticator()

    assert (await authenticator.who("a")).is_admin is False
    assert (await authenticator.who("b")).is_admin is True


@pytest.mark.parametrize(
    ("groups", "is_viewer"),
    [(["auditors"], True), (["auditors", "guests"], True), (["auditors", "research"], False), (["research"], False), ([], False)],
)
async def test_a_viewer_has_groups_of_viewers_only(groups: list[str], is_viewer: bool) -> None:
    who = await Hub({"a": {**ANN, "groups": groups}}).authenticator().who("a")

    assert (who.is_viewer, who.is_admin) == (is_viewer, False)


async def test_hub_and_operator_need_no_lookup() -> None:
    hub = Hub()
    authenticator = hub.authenticator()

    assert await authenticator.who("token-of-the-hub") == Who("tuttilab", is_admin=True, is_hub=True)
    assert (await authenticator.who("token-of-the-operator")).name == "op"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({**ANN, "scopes": ["read:users:name!user=ann"]}, "lacks the scope access:services!service=tuttilab"),
        ({**ANN, "scopes": ["access:services!service=tuttilabs"]}, "lacks the scope"),
        ({"kind": "user", "name": "ann"}, "lacks the scope"),
        ({**ANN, "kind": "service"}, "belongs to a service of the hub"),
        ({**ANN, "name": ""}, "belongs to a service of the hub"),
    ],
)
async def test_token_that_is_not_meant_for_us_is_refused(answer: dict[str, object], said: str) -> None:
    with pytest.raises(Forbidden, match=said):
        await Hub({"t": answer}).authenticator().who("t")


async def test_scope_for_all_services_is_accepted() -> None:
    assert (await Hub({"t": {**ANN, "scopes": ["access:services"]}}).authenticator().who("t")).name == "ann"


@pytest.mark.parametrize("token", ["wrong", "token-of-ann ", "tökén", "a\nb"])
async def test_wrong_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated, match="The hub does not know this token"):
        await Hub().authenticator().who(token)


async def test_answer_is_cached_until_it_expires() -> None:
    hub = Hub()
    authenticator = hub.authenticator()
    await authenticator.who("token-of-ann")
    hub.answers.clear()

    hub.now += CACHE_S - 1
    assert (await authenticator.who("token-of-ann")).name == "ann"
    hub.now += 1
    with pytest.raises(Unauthenticated):
        await authenticator.who("token-of-ann")
    assert len(hub.asked) == 2
    assert CACHE_S <= 60


async def test_refusal_is_cached_for_a_shorter_time() -> None:
    hub = Hub({})
    authenticator = hub.authenticator()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await authenticator.who("token-of-ann")
    assert len(hub.asked) == 1

    hub.answers["token-of-ann"] = ANN
    hub.now += REFUSAL_CACHE_S
    assert (await authenticator.who("token-of-ann")).name == "ann"


async def test_concurrent_requests_share_one_lookup() -> None:
    hub = Hub()
    authenticator = hub.authenticator()

    found = await asyncio.gather(*(authenticator.who("token-of-ann") for _ in range(50)))

    assert {who.name for who in found} == {"ann"}
    assert hub.asked == ["token-of-ann"]


async def test_cancelled_request_does_not_cancel_the_shared_lookup() -> None:
    hub = Hub()
    authenticator = hub.authenticator()
    first = asyncio.create_task(authenticator.who("token-of-ann"))
    await asyncio.sleep(0)
    second = asyncio.create_task(authenticator.who("token-of-ann"))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).name == "ann"
    assert hub.asked == ["token-of-ann"]


async def test_failure_to_reach_the_hub_is_not_cached() -> None:
    hub = Hub(is_down=True)
    authenticator = hub.authenticator()
    with pytest.raises(Unavailable, match="does not answer"):
        await authenticator.who("token-of-ann")

    hub.is_down = False
    assert (await authenticator.who("token-of-ann")).name == "ann"


async def test_cache_is_bounded_and_holds_no_token() -> None:
    hub = Hub({})
    authenticator = hub.authenticator()
    for number in range(CACHE_ENTRIES, CACHE_ENTRIES + 3):
        authenticator._cache[number.to_bytes(4)] = (0.0, Unauthenticated(""))
    authenticator._cache.update({number.to_bytes(4): (0.0, Unauthenticated("")) for number in range(CACHE_ENTRIES)})
    with pytest.raises(Unauthenticated):
        await authenticator.who("one more")

    assert len(authenticator._cache) == CACHE_ENTRIES
    assert b"one more" not in authenticator._cache


def test_token_of_the_service_comes_from_its_file_or_from_the_hub(tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    url = "http://hub/hub/api/"

    assert hub_settings(AuthConfig(kind="hub", url=url, token_file=str(file)), {"JUPYTERHUB_API_TOKEN": "x"}).token == "from-file"
    assert hub_settings(AuthConfig(kind="hub", url=url), {"JUPYTERHUB_API_TOKEN": "given"}).token == "given"
    assert hub_settings(AuthConfig(kind="hub", url=url), {"JUPYTERHUB_API_TOKEN": "given"}).url == "http://hub/hub/api"
    with pytest.raises(EnvironmentProblem, match="there is no token of the hub's service"):
        hub_settings(AuthConfig(kind="hub", url=url), {})
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        hub_settings(AuthConfig(kind="hub", url=url, token_file=str(tmp_path / "none")), {})
