"""Two control planes on the pods of one folder: what an old one has on its way has no effect after the newer one came."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract.clusters import NODES, Place, plan, watching
from tuttilab.scheduler.clusters.kept import epoch, folders
from tuttilab.scheduler.clusters.local import cluster as local
from tuttilab.scheduler.clusters.local import fence, launch, leftovers, pods
from tuttilab.scheduler.clusters.local.cluster import LocalCluster
from tuttilab.scheduler.domain.errors import ClusterUnreachable, LaunchRefused, StaleEpoch
from tuttilab.sidecar import records


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place("local", tmp_path)
    yield place
    await place.close()


async def test_a_stop_is_forced_by_the_newer_leader_and_not_by_the_one_before(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "FORCE_S", 0.2)
    old, newer = place.open(), place.open()
    await old.lead(1)
    async with watching(old) as seen:
        await old.launch(plan("job", "sleep", "300"))
        await seen.phase("Running", "job-1-0")
    sidecar = records.read(str(tmp_path / "pods" / "job" / "1" / "job-1-0" / records.SIDECAR))
    assert sidecar is not None
    held = psutil.Process(sidecar["sidecar"][0])
    held.send_signal(signal.SIGSTOP)
    await old.stop("job", 1, 0.0)
    await newer.lead(2)

    await asyncio.sleep(1.0)
    assert held.status() == psutil.STATUS_STOPPED
    async with watching(newer) as seen:
        await newer.stop("job", 1, 0.0)
        (ended,) = await seen.ended("job-1-0")
    assert (ended.exit_code, ended.reason) == (None, "Lost")


async def test_what_a_call_in_its_midst_starts_is_seen_by_the_next_leader(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked for the pods when the call of the one before had started half of them."""
    monkeypatch.setattr(fence, "WAIT_S", 0.2)
    old, newer, call = place.open(), place.open(), fence.Fence(tmp_path)
    await old.lead(1)
    call.raise_to(1)
    with call.held():
        with pytest.raises(ClusterUnreachable, match="another control plane is in the midst of a call"):
            await newer.lead(2)
        with pytest.raises(ClusterUnreachable):
            await anext(newer.observe())
        await old.launch(plan("job", "true"))

    async with watching(newer) as seen:
        (ended,) = await seen.ended("job-1-0")
    assert (ended.exit_code, ended.reason) == (0, "Completed")


async def test_one_that_is_in_the_midst_of_a_call_is_waited_for(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "WAIT_S", 0.2)
    old, newer = fence.Fence(tmp_path), place.open()
    old.raise_to(1)
    inside, may_end = threading.Event(), threading.Event()

    def call() -> None:
        with old.held():
            inside.set()
            may_end.wait(150)

    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(150)
    with pytest.raises(ClusterUnreachable, match="another control plane is in the midst of a call"):
        await newer.lead(2)
    with pytest.raises(ClusterUnreachable):
        await newer.launch(plan("job", "true"))
    assert epoch.recorded(tmp_path) == 1
    may_end.set()
    thread.join()

    async with watching(newer) as seen:
        await newer.launch(plan("job", "true"))
        await seen.ended("job-1-0")
    with pytest.raises(StaleEpoch), old.held():
        pass


async def test_a_pod_that_is_erased_while_it_is_looked_at_breaks_no_look(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = place.open()
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        await seen.phase("Running", "job-1-0")
    (pod,) = pods.found_pods(tmp_path, "job", 1)
    pods.end_by_force(pod)
    # Between the look at its lock and the record of its loss.
    monkeypatch.setattr(leftovers, "kill_leftovers", lambda folder, known: folders.erase(folder.parent))

    assert not pods.refresh(pod)
    assert pod.state is None


async def test_a_folder_that_cannot_be_written_is_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cluster = LocalCluster("here", NODES, tmp_path / "file" / "here", os.environ, sys.executable)

    with pytest.raises(ClusterUnreachable, match="Not a directory"):
        await cluster.lead(1)


async def test_a_refused_launch_takes_back_what_an_earlier_call_started(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, spawn, calls = (
        place.open(),
        launch._spawn,
        iter([None, RuntimeError("broken off"), OSError("no more processes"), None]),
    )

    def failing(*given: Any) -> int:
        if (error := next(calls)) is not None:
            raise error
        return spawn(*given)

    monkeypatch.setattr(launch, "_spawn", failing)
    async with watching(cluster) as seen:
        gang = plan("job", "sleep", "300", members=2)
        with pytest.raises(RuntimeError):
            await cluster.launch(gang)
        with pytest.raises(LaunchRefused, match="no more processes"):
            await cluster.launch(gang)
        await cluster.launch(plan("other", "true"))
        await seen.phase("Ended", "other-1-0")

    assert [state.reason for state in seen.history if state.job_id == "job" and state.phase == "Ended"] == []
    assert not folders.pod_folder(tmp_path, "job", 1, "job-1-master").exists()
