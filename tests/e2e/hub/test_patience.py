"""A user whose server waits for room, on a hub that is patient enough for a busy machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hub.site import SERVICE_TOKEN, HubSite, made_hub
from tests.e2e.hub.test_refusals import sleeper
from tests.user_machine import eventually

pytestmark = pytest.mark.timeout(700)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[HubSite]:
    with made_hub(tmp_path, patience_s=60.0) as site:
        yield site


def test_user_who_waits_is_started_when_there_is_room(patient: HubSite) -> None:
    ann = patient.browser("ann")
    job = patient.control("POST", "/jobs", SERVICE_TOKEN, sleeper("research", gpus=2)).json()
    eventually(lambda: patient.use("research") == 2)

    def waits() -> bool:
        return [one["phase"] for one in patient.jobs(kind="notebook")] == ["Queued"]

    def make_room() -> None:
        eventually(waits)
        patient.control("POST", f"/jobs/{job['id']}/cancel", SERVICE_TOKEN)

    other = threading.Thread(target=make_room)
    other.start()
    assert ann.spawn(profile="gpu").status_code in (201, 202)
    other.join()

    assert ann.has_server()
    ann.stop()
