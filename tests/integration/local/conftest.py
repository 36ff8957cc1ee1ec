"""A local cluster with real processes, and what is left of them."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.contract.clusters import Place
from tests.integration.local.control_plane import ControlPlane
from tuttilab.scheduler.clusters.base import Cluster

DEADLINE_S = 120.0
LEASE_S = 5.0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place("local", tmp_path, lease_s=LEASE_S, heartbeat_s=0.5)
    yield place
    await place.close()
    assert left_of(tmp_path) == []


@pytest.fixture
def cluster(place: Place) -> Cluster:
    return place.open()


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "control.json")
    plane.start()
    yield plane
    plane.stop()


def left_of(folder: Path) -> list[str]:
    """Command lines of processes that know of ``folder``, after at most `DEADLINE_S` of waiting for none."""
    until = time.monotonic() + DEADLINE_S
    while found := list(filter(None, (line_of(process, str(folder)) for process in psutil.process_iter()))):
        if time.monotonic() > until:
            return found
        time.sleep(0.02)
    return []


def line_of(process: psutil.Process, folder: str) -> str:
    """Its command line if it knows of ``folder``; one that ends meanwhile has none."""
    try:
        line = process.cmdline()
        is_other = process.status() != psutil.STATUS_ZOMBIE and process.pid != psutil.Process().pid
        return (" ".join(line) or "?") if is_other and any(folder in text for text in [*line, *process.environ().values()]) else ""
    except psutil.Error:
        return ""
