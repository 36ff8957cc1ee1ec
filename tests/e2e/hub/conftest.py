"""One hub for all tests of a file: starting one takes seconds."""

from collections.abc import Iterator

import pytest

from tests.e2e.hub.site import Browser, HubSite, made_hub
from tests.user_machine import eventually


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with made_hub(tmp_path_factory.mktemp("hub")) as site:
        yield site


@pytest.fixture
def ann(site: HubSite) -> Iterator[Browser]:
    yield from _user(site, "ann")


@pytest.fixture
def amy(site: HubSite) -> Iterator[Browser]:
    yield from _user(site, "amy")


@pytest.fixture
def bob(site: HubSite) -> Iterator[Browser]:
    yield from _user(site, "bob")


def _user(site: HubSite, name: str) -> Iterator[Browser]:
    """A user who has logged in, and has no server when the test is over, nor the job that stood for one."""
    browser = site.browser(name)
    yield browser
    if browser.model()["servers"]:
        browser.stop()
    eventually(lambda: site.jobs(kind="notebook", owner=name) == [])
