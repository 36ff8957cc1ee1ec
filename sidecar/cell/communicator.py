"""For a cell that trains with xgboost: rank 0 runs the tracker, every rank is part of the group while the cell runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

TRACKER_S = 300


@contextmanager
def joined(framework: str | None) -> Iterator[None]:
    """Other frameworks need the environment only."""
    if framework != "xgboost":
        yield
        return
    from xgboost import collective
    from xgboost.tracker import RabitTracker

    address, port = os.environ["DMLC_TRACKER_URI"], int(os.environ["DMLC_TRACKER_PORT"])
    rank, count = int(os.environ["DMLC_TASK_ID"]), int(os.environ["DMLC_NUM_WORKER"])
    tracker = None
    if rank == 0:
        tracker = RabitTracker(n_workers=count, host_ip=address, port=port, sortby="task")
        tracker.start()
    else:
        await_tracker(address, port)
    # Task ids are compared as text.
    context = collective.CommunicatorContext(
        dmlc_communicator="rabit",
        dmlc_tracker_uri=address,
        dmlc_tracker_port=port,
        dmlc_task_id=f"{rank:08d}",
        dmlc_retry=10,
        dmlc_timeout=TRACKER_S,
    )
    context.__enter__()
    yield
    # Only after success: to say good-bye is collective, and would wait for ever for members that go on.
    context.__exit__(None, None, None)
    if tracker is not None:
        tracker.wait_for(timeout=TRACKER_S)


def await_tracker(address: str, port: int) -> None:
    """Until rank 0 listens, as far as one can see without disturbing it: xgboost's own retries warn loudly and wait ever longer."""
    until = time.monotonic() + TRACKER_S
    while not is_listening(address, port) and time.monotonic() < until:
        time.sleep(0.1)


def is_listening(address: str, port: int) -> bool:
    if address.startswith("127.") and os.path.exists("/proc/net/tcp"):
        with open("/proc/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file]
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True
