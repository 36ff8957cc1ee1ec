"""The hub's own page while a server waits for room, in a real browser: why, where, until when, with names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.hub.site import PASSWORD, SERVICE_TOKEN, HubSite, made_hub
from tests.lab import pictures
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("browser"), pytest.mark.timeout(700)]

PATIENCE_S = 60.0
LIMIT = "10m"
LONG_ID = re.compile(r"[0-9A-Z]{20,}|[0-9a-f]{16,}")


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with made_hub(tmp_path_factory.mktemp("patient"), patience_s=PATIENCE_S) as site:
        yield site


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_context(viewport={"width": 1000, "height": 700}).new_page()
    page.set_default_timeout(150_000)
    yield page
    page.context.close()


@pytest.mark.feature("B02", "B30")
def test_the_page_of_a_server_that_waits_says_place_start_reason_and_names(patient: HubSite, page: Page) -> None:
    ann = patient.browser("ann")
    body = {
        "name": "factor-search",
        "queue": "research",
        "pods": [{"role": "worker", "gpus": 2, "memory": "64Mi"}],
        "command": ["sleep", "1000"],
        "grace": "1s",
        "timeout": LIMIT,
    }
    job = patient.control("POST", "/jobs", ann.token(), body).json()
    eventually(lambda: patient.control("GET", f"/jobs/{job['id']}", SERVICE_TOKEN).json()["phase"] == "Running")

    page.goto(f"{patient.url}/hub/login?next=/hub/spawn")
    page.get_by_label("Username").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("One GPU").check()
    page.locator("#spawn_form").get_by_role("button", name="Start").click()

    shown = page.locator("#progress-message")
    expect(shown).to_contain_text("Place 1 in queue research")
    expect(shown).to_contain_text(re.compile(r"starts (by|between) .*\d\d:\d\d"))
    expect(shown).to_contain_text("asks for 1 GPU; queue research has 0 of 2 GPU free; your job 'factor-search' (")
    page.locator("#progress-details summary").click()
    page.screenshot(path=pictures() / "hub-waiting.png")
    assert LONG_ID.findall(page.locator("body").inner_text()) == []

    patient.control("POST", f"/jobs/{job['id']}/cancel", ann.token())
    expect(page.locator("#jupyter-config-data").or_(page.locator(".jp-LabShell")).first).to_be_attached(timeout=150_000)
    ann.stop()
