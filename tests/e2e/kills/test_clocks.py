"""A control plane whose wall clock is hours from that of its pods, and that comes up again with another one."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.kills.plane import MARK, Plane, plane_in
from tests.e2e.kills.pods import running, sidecars
from tuttilab.scheduler.domain.wire import JobView

HOURS = 7200.0
BEATS_S = 10
"""More than the lease and the limit of silence of the plane's configuration, each of 4 s."""
CLOSE_S = 600.0
"""How far two clocks of the same machine can seem apart when it is loaded."""


def shifted(plane: Plane, by_s: float) -> None:
    plane.program = (str(Path(__file__).with_name("shifted.py")),)
    plane.more_environ["CLOCK_SHIFT_S"] = str(by_s)


def written_at(plane: Plane, job_id: str) -> float:
    """By the clock of the pod, when its first line was written."""
    return plane.ask(lambda client: client.logs(job_id)).times[0][1]


def check_times(job: JobView, now: float) -> None:
    """In order, and by one clock, whatever that of the pods says."""
    first, last = job.attempts[0], job.attempts[-1]
    assert first.started_at is not None
    assert last.ended_at is not None
    assert job.created_at <= first.started_at <= last.ended_at <= now
    assert last.ended_at - job.created_at < CLOSE_S


@pytest.mark.feature("C02")
@pytest.mark.parametrize("by_s", [HOURS, -HOURS], ids=["ahead", "behind"])
def test_a_gang_whose_clock_differs_is_heard_and_not_lost(tmp_path: Path, by_s: float) -> None:
    with plane_in(tmp_path / "p") as plane:
        shifted(plane, by_s)
        job_id = running(plane, "gang", 2, f"echo begun; {MARK}; sleep {BEATS_S}")
        done = plane.ended(job_id)

        assert (done.phase, [attempt.phase for attempt in done.attempts]) == ("Succeeded", ["Succeeded"])
        assert plane.ran(job_id) == Counter({"0 1": 1, "1 1": 1})
        check_times(done, time.time() + by_s)
        assert abs(done.created_at - by_s - written_at(plane, job_id)) < CLOSE_S
        plane.check_at_rest()


@pytest.mark.feature("C02", "S15")
@pytest.mark.parametrize("by_s", [HOURS, -HOURS], ids=["ahead", "behind"])
def test_a_master_that_falls_silent_is_lost_whatever_the_clocks_say(tmp_path: Path, by_s: float) -> None:
    with plane_in(tmp_path / "p") as plane:
        shifted(plane, by_s)
        job_id = running(plane, "gang", 2, f'{MARK}; if [ "$TUTTILAB_ATTEMPT" = 1 ]; then sleep 300; fi')
        (master,) = sidecars(plane, "master")
        master.send_signal(signal.SIGSTOP)
        done = plane.ended(job_id)

        assert (done.phase, [attempt.phase for attempt in done.attempts]) == ("Succeeded", ["Lost", "Succeeded"])
        check_times(done, time.time() + by_s)
        plane.check_at_rest()


@pytest.mark.feature("C02")
@pytest.mark.parametrize("first_s", [HOURS, -HOURS], ids=["set back", "set forward"])
def test_a_control_plane_that_comes_up_with_another_clock_loses_nothing(tmp_path: Path, first_s: float) -> None:
    with plane_in(tmp_path / "p") as plane:
        shifted(plane, first_s)
        job_id = running(plane, "gang", 2, f"{MARK}; while [ ! -e done ]; do sleep 0.1; done")
        plane.kill()
        shifted(plane, -first_s)

        plane.ensure()
        until = time.monotonic() + BEATS_S
        while time.monotonic() < until:
            assert plane.ask(lambda client: client.job(job_id)).phase == "Running"
            time.sleep(0.5)
        (plane.home / "done").touch()
        done = plane.ended(job_id)

        assert (done.phase, [attempt.phase for attempt in done.attempts]) == ("Succeeded", ["Succeeded"])
        assert plane.ran(job_id) == Counter({"0 1": 1, "1 1": 1})
        assert done.created_at <= (done.attempts[0].ended_at or 0.0)
        plane.check_at_rest()
