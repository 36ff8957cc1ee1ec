"""The people of a hub's tests as fixtures; each test gives the fixture `site`, which is its hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.hub.site import Browser, HubSite
from tests.user_machine import eventually


@pytest.fixture
def ann(site: HubSite) -> Iterator[Browser]:
    with logged_in(site, "ann") as browser:
        yield browser


@pytest.fixture
def amy(site: HubSite) -> Iterator[Browser]:
    with logged_in(site, "amy") as browser:
        yield browser


@pytest.fixture
def bob(site: HubSite) -> Iterator[Browser]:
    with logged_in(site, "bob") as browser:
        yield browser


@contextmanager
def logged_in(site: HubSite, name: str) -> Iterator[Browser]:
    """Who has no server when the test is over, nor the job that stood for one."""
    browser = site.browser(name)
    yield browser
    if browser.model()["servers"]:
        browser.stop()
    eventually(lambda: site.jobs(kind="notebook", owner=name) == [])
