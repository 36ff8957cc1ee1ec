"""`%listengine` and `%enginekill` on a session in which another kernel's cell runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]

SLOW = "select count(*) from range(0, 1200, 1, 1) where length(reflect('java.lang.Thread', 'sleep', 500L)) is null"


def cores_used(client: Client) -> int:
    return sum(use.used for queue in client.quota() for use in queue.use if use.resource == "cpu")


@pytest.mark.feature("M07", "M15")
def test_the_end_of_a_session_ends_its_job_and_its_cells_and_frees_its_cores(
    new_kernel: Callable[..., Kernel], control: ControlPlane
) -> None:
    client = control.client()
    worker, other = new_kernel("worker.ipynb"), new_kernel("other.ipynb")
    for kernel in (worker, other):
        assert kernel.run("%load_ext tuttilab.magics.linkis_magic").status == "ok"
    assert worker.run("%%sparksql\nCREATE OR REPLACE TEMP VIEW made AS SELECT 1 AS a", timeout=300).status == "ok"
    (session,) = client.spark_sessions()
    listed = other.run("%listengine")
    assert session.job_id in listed.text, listed.error
    assert cores_used(client) >= 1
    message = worker.send(f"%%sparksql -o n\n{SLOW}")
    worker.gather(message, timeout=240, until=lambda ran: "of 1 task" in ran.text or "running" in ran.text)
    began = time.monotonic()
    killed = other.run(f"%enginekill -i {session.job_id[:8]}")
    assert killed.text.startswith("Success: session default is stopped."), killed.error
    failed = worker.gather(message, timeout=240)
    assert failed.status == "error"
    assert failed.error.startswith("The Spark session default"), failed.error
    assert len(failed.error.encode()) < 1024
    assert time.monotonic() - began < 120
    assert client.wait(session.job_id, timeout_s=150).phase == "Cancelled"
    eventually(lambda: cores_used(client) == 0)
    assert other.run("%listengine").text == "No Spark session; any cell of Spark starts one."
