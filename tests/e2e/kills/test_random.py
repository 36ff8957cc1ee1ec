"""kill -9 at random, replies that are lost, processes that are held up or killed: real processes, with shortened times."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doses import dose
from tests.e2e.kills.plane import MARK, plane_in
from tests.e2e.kills.pods import running, sidecars
from tuttilab.scheduler.client import Client

KILLS = dose("KILLS", suite=20, soak=1000)
REPEATS = dose("REPEATS", suite=60, soak=1000)


@pytest.mark.feature("B06", "S17")
@pytest.mark.timeout(600 + 30 * KILLS)
def test_random_kills_lose_nothing_and_start_nothing_twice(tmp_path: Path, tell: Callable[[str], None]) -> None:
    chance = random.Random(6)
    with plane_in(tmp_path / "p") as plane:
        number = 0
        while plane.kills < KILLS:
            for _ in range(2):
                number += 1
                plane.submit(f"k{number}", workers=chance.choice([1, 1, 2]), script=f"{MARK}; sleep {chance.choice([0, 0.3, 1])}")
            time.sleep(chance.uniform(0, 0.4))
            plane.kill()
        for job_id in plane.accepted.values():
            done = plane.ended(job_id)
            assert done.phase == "Succeeded", done
            assert [attempt.phase for attempt in done.attempts] == ["Succeeded"]
            assert plane.ran(job_id) == Counter({f"{rank} 1": 1 for rank in range(done.pods[0].count)})
        plane.check_at_rest()
        tell(f"{plane.kills} random kills, {len(plane.accepted)} jobs, each ran once")


def all_jobs(client: Client) -> list[str]:
    page = client.jobs(all=True, limit=100)
    found = [job.id for job in page.jobs]
    while page.next is not None:
        page = client.jobs(all=True, limit=100, cursor=page.next)
        found += [job.id for job in page.jobs]
    return found


@pytest.mark.timeout(600 + 4 * REPEATS)
def test_a_submit_sent_three_times_is_one_job(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        plane.ensure()
        for number in range(REPEATS):
            plane.submit(f"k{number}", script="true", times=3)
            if number % 30 == 15:
                plane.kill()
        jobs = plane.ask(all_jobs)
        assert sorted(jobs) == sorted(plane.accepted.values())
        assert len(set(jobs)) == REPEATS


def test_a_short_silence_of_a_sidecar_or_a_master_harms_nothing(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        job_id = running(plane, "gang", 2, f"{MARK}; while [ ! -e done ]; do sleep 0.1; done")
        held = [*sidecars(plane, "master"), *sidecars(plane, "worker-1")]
        assert len(held) == 2
        for process in held:
            process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        for process in held:
            process.send_signal(signal.SIGCONT)
        (plane.home / "done").touch()
        done = plane.ended(job_id)
        assert (done.phase, done.exit_code, len(done.attempts)) == ("Succeeded", 0, 1), done
        plane.check_at_rest()


@pytest.mark.feature("J09", "S15", "C02")
def test_a_master_that_is_silent_for_longer_than_the_lease_costs_one_attempt_and_no_retry(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        first = 'if [ "$TUTTILAB_ATTEMPT" = 1 ]; then sleep 300; fi'
        job_id = running(plane, "gang", 2, f"{MARK}; {first}")
        (master,) = sidecars(plane, "master")
        master.send_signal(signal.SIGSTOP)
        done = plane.ended(job_id)
        assert (done.phase, done.exit_code) == ("Succeeded", 0), done
        assert [attempt.phase for attempt in done.attempts] == ["Lost", "Succeeded"]
        assert plane.ran(job_id) == Counter({"0 1": 1, "1 1": 1, "0 2": 1, "1 2": 1})
        plane.check_at_rest()


@pytest.mark.feature("J09")
def test_a_killed_sidecar_costs_one_attempt_and_no_retry(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        job_id = running(plane, "single", 1, f'{MARK}; [ "$TUTTILAB_ATTEMPT" != 1 ] || sleep 300')
        (sidecar,) = sidecars(plane, "worker-0")
        sidecar.kill()
        done = plane.ended(job_id)
        assert (done.phase, [attempt.phase for attempt in done.attempts]) == ("Succeeded", ["Lost", "Succeeded"])
        plane.check_at_rest()


def test_a_stop_that_is_not_heard_is_forced_after_the_grace(tmp_path: Path) -> None:
    with plane_in(tmp_path / "p") as plane:
        job_id = running(plane, "deaf", 1, f"trap '' TERM; {MARK}; while true; do sleep 0.2; done")
        begun = time.monotonic()
        plane.ask(lambda client: client.cancel(job_id))
        done = plane.ended(job_id)
        assert (done.phase, done.exit_code) == ("Cancelled", 137), done
        assert time.monotonic() - begun >= 0.9
        plane.check_at_rest()
