"""CPU and memory of a pod over time: bounded, and right for what real processes used."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuttilab.sidecar.records import USAGE, USAGE_POINTS
from tuttilab.sidecar.usage import Usage, thinned


def test_two_points_become_one_with_the_mean_of_the_cores_and_the_larger_bytes() -> None:
    points = [(1.0, 2.0, 10), (2.0, 0.0, 30), (3.0, 1.0, 5), (5.0, 4.0, 5), (6.0, 3.0, 7)]

    assert thinned(points) == [(2.0, 1.0, 30), (5.0, 3.0, 5), (6.0, 3.0, 7)]


def test_a_week_has_no_more_points_than_four_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    usage = Usage(str(tmp_path))
    for second in range(1, 7 * 24 * 3600, 61):
        now[0] = float(second)
        usage.sample([])
    record = json.loads((tmp_path / USAGE).read_text())

    assert USAGE_POINTS / 2 <= len(record["points"]) <= USAGE_POINTS
    assert record["points"][-1][0] > 6.9 * 24 * 3600
    assert (tmp_path / USAGE).stat().st_size < 16_000


BUSY = """
import time
kept = bytearray(60 * 2**20)
while time.process_time() < 0.6:
    pass
print("done", flush=True)
time.sleep(60)
"""


def test_cores_and_bytes_are_those_of_the_processes(tmp_path: Path) -> None:
    usage = Usage(str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            usage.sample([process.pid])
        finally:
            process.kill()
    usage.sample([], is_last=True)
    record = json.loads((tmp_path / USAGE).read_text())

    assert 0.5 < record["cpu_s"] < 3
    # Children that other tests of this process had count as well.
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert 60 * 2**20 <= record["peak_bytes"] < max(200 * 2**20, others + 1)
    times = [0.0, *(at for at, _, _ in record["points"])]
    whole = sum(cores * (times[index + 1] - times[index]) for index, (_, cores, _) in enumerate(record["points"]))
    assert whole == pytest.approx(record["cpu_s"], abs=0.05)
    assert os.stat(tmp_path / USAGE).st_mode & 0o777 == 0o600


def test_what_the_job_put_in_the_records_place_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("mine")
    usage = Usage(str(tmp_path))

    usage.sample([os.getpid()], is_last=True)

    assert (tmp_path / "usage").read_text() == "mine"
