"""What the hub's progress page says while a server waits."""

import time

import pytest

from tests.unit.magics.builders import a_job, a_wait
from tuttilab.scheduler.domain.requests import ProfileRequest
from tuttilab.scheduler.domain.wire import NotebookView, WaitView
from tuttilab.spawner.notebook_jobs import queue_position


def waiting(wait: WaitView | None, place: int | None) -> NotebookView:
    job = a_job(phase="Queued", started_at=None, wait=wait)
    return NotebookView(
        job=job,
        profile=ProfileRequest(name="small"),
        is_admitted=False,
        is_wanted=True,
        place=place,
        refusal="asks for 1 GPU; your job 'train' (3f2a9c12) holds 1 GPU",
    )


@pytest.mark.feature("B02", "B30")
def test_the_page_says_the_place_when_it_starts_and_who_holds_the_room_by_name() -> None:
    now = time.time()
    said = queue_position(waiting(a_wait(earliest=now + 600, latest=now + 1800, basis="past run times of 1 job ahead"), 2))
    zone = time.strftime("%Z", time.localtime(now + 1800))
    first = time.strftime("%H:%M", time.localtime(now + 600))
    assert said.startswith("Place 2 in queue research, starts between ")
    assert f" {first} and " in said
    assert said.endswith(f" {zone}: asks for 1 GPU; your job 'train' (3f2a9c12) holds 1 GPU")


def test_without_a_basis_the_page_tells_no_start() -> None:
    assert queue_position(waiting(a_wait(), None)) == (
        "Waiting in queue research: asks for 1 GPU; your job 'train' (3f2a9c12) holds 1 GPU"
    )
