"""A long time without a control plane, many times the lease: no running job stops, and logs and ends are complete afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.doses import dose
from tests.e2e.kills.plane import Plane, plane_in
from tests.e2e.kills.test_growth import mains
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client

AWAY_S = float(dose("AWAY_S", suite=60, soak=3600))
MARK = 'echo "$TUTTILAB_RANK $TUTTILAB_ATTEMPT" >> runs/$TUTTILAB_JOB_ID'
UNTIL_DONE = f"{MARK}; n=0; while [ ! -e done ]; do echo line $n; n=$((n+1)); sleep 0.2; done; echo $n > count.$TUTTILAB_RANK"


def lines(plane: Plane, job_id: str, rank: int) -> list[str]:
    found: list[str] = []
    while True:
        start = len(found)
        chunk = plane.ask(partial(Client.logs, id=job_id, rank=rank, start=start, limit=1000))
        found += chunk.lines
        if chunk.is_end and not chunk.lines:
            return found


@pytest.mark.feature("S17", "J09")
@pytest.mark.timeout(AWAY_S + 300)
def test_without_a_control_plane_no_job_stops_and_logs_and_ends_are_complete_afterwards(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    with plane_in(tmp_path / "p") as plane:
        plane.ensure()
        gang = plane.submit("gang", workers=2, script=UNTIL_DONE)
        single = plane.submit("single", script=UNTIL_DONE.replace("count.", "single."))
        # These end while nobody is there to hear of it, in the first third and in the last one.
        early = plane.submit("early", workers=2, script=f"{MARK}; sleep {AWAY_S / 4}; seq 20000; echo bye")
        late = plane.submit("late", script=f"{MARK}; sleep {AWAY_S * 3 / 4}; seq 20000; echo bye; exit 3")
        for job_id, workers in ((gang, 2), (single, 1), (early, 2), (late, 1)):
            plane.until_ran(job_id, Counter({f"{rank} 1": 1 for rank in range(workers)}))
        before = {**mains(plane, gang), **mains(plane, single)}
        assert len(before) == 4

        plane.kill()
        time.sleep(AWAY_S)

        assert {**mains(plane, gang), **mains(plane, single)} == before, "nobody stops because the control plane is away"
        eventually(lambda: (mains(plane, early), mains(plane, late)) == ({}, {}))
        plane.ensure()
        ended = {job_id: plane.ended(job_id) for job_id in (early, late)}
        assert [(job.phase, job.exit_code, len(job.attempts)) for job in ended.values()] == [("Succeeded", 0, 1), ("Failed", 3, 1)]
        for job_id, rank in ((early, 0), (early, 1), (late, 0)):
            assert lines(plane, job_id, rank) == [*map(str, range(1, 20001)), "bye"]
        assert plane.ask(lambda client: client.job(gang)).phase == "Running"
        (plane.home / "done").touch()
        for job_id, workers, name in ((gang, 2, "count"), (single, 1, "single")):
            done = plane.ended(job_id)
            assert (done.phase, done.exit_code, len(done.attempts)) == ("Succeeded", 0, 1), done
            assert plane.ran(job_id) == Counter({f"{rank} 1": 1 for rank in range(workers)})
            for rank in range(workers):
                count = int((plane.home / f"{name}.{rank}").read_text())
                assert lines(plane, job_id, rank) == [f"line {number}" for number in range(count)]
        plane.check_at_rest()
        tell(f"{AWAY_S:.0f} s without a control plane, many times the lease: no job stopped, every line and end was kept")
