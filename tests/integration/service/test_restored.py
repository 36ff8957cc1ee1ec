"""A backup is restored while the cluster has pods that it knows nothing of: accepted jobs run, and never beside what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.builders import ADMIN, node, request
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.clusters.local.cluster import LocalCluster
from tuttilab.scheduler.config.load import default_config
from tuttilab.scheduler.config.model import ClusterConfig
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Job, JobPhase, Node, PodPhase
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store import backup as copying
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.usecases.jobs import Jobs
from tuttilab.sidecar import records

BOTH = (node("A", cpus=2), node("B", cpus=2))

pytestmark = pytest.mark.feature("O08")


class HeldCluster(LocalCluster):
    """Launches when it is told to, as one that answers late."""

    def __init__(self, folder: Path, nodes: Sequence[Node]) -> None:
        super().__init__("here", tuple(nodes), folder, dict(os.environ), sys.executable)
        self.may_launch = asyncio.Event()
        self.may_launch.set()

    async def launch(self, plan: LaunchPlan) -> None:
        await self.may_launch.wait()
        await super().launch(plan)


class Site:
    """One state folder, its backup, and the lives of the service over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.backup_file = folder / "backup"
        self.service: Service
        self.cluster: HeldCluster

    async def up(self, nodes: Sequence[Node] = BOTH) -> None:
        config = default_config(self.folder)
        limits = replace(config.limits, back_off_s=0.5, lost_after_s=1.0, barrier_s=60.0)
        config = replace(config, clusters=(ClusterConfig("here", "local", tuple(nodes)),), limits=limits)
        self.cluster = HeldCluster(self.folder, nodes)
        self.service = Service(config, SqlStore(config.store.url), {"here": self.cluster}, state_dir=self.folder)
        await self.service.start()

    async def backup(self) -> None:
        await asyncio.to_thread(copying.backup, self.service.config.store.url, self.backup_file)

    async def restore(self) -> None:
        await self.service.stop()
        await asyncio.to_thread(copying.restore, self.backup_file, self.service.config.store.url, force=True)

    async def submit(self, then: str) -> Job:
        """Notes each run in `runs`: the attempt and the process."""
        script = f"echo $TUTTILAB_ATTEMPT $$ >> {self.runs}; {then}"
        return await Jobs(self.service).submit(request(command=("sh", "-c", script), cpus=2, grace="1s"), ADMIN)

    def ran(self) -> list[tuple[int, int]]:
        lines = self.runs.read_text().splitlines() if self.runs.exists() else []
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    async def until(self, holds: Callable[[], bool], limit_s: float = 150.0) -> None:
        async with asyncio.timeout(limit_s):
            while not holds():
                await self.service.wait_change(self.service.last_seq, 0.1)

    async def ended(self, job: Job) -> Job:
        await self.until(lambda: self.service.state.jobs[job.id].phase.is_terminal)
        return self.service.state.jobs[job.id]

    async def down(self) -> None:
        for job in [*self.service.state.queued(), *(job for job, _ in self.service.state.live())]:
            await Jobs(self.service).cancel(job.id, ADMIN)
        await self.until(self.service.is_idle)
        await self.service.stop()
        assert not [pid for _, pid in self.ran() if lives(pid)]

    def live(self, job: Job) -> Attempt | None:
        return self.service.state.live_attempt(job.id)

    def is_running(self, job: Job, number: int) -> bool:
        live = self.live(job)
        return live is not None and (live.number, live.phase) == (number, AttemptPhase.RUNNING)

    def kill_sidecar(self, job: Job, number: int) -> None:
        identity = records.read(str(self.folder / "pods" / job.id / str(number) / f"{job.id}-{number}-worker-0" / records.SIDECAR))
        assert identity is not None
        os.kill(identity["sidecar"][0], signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("nodes", [BOTH[:1], BOTH[1:]], ids=["A", "B"])
async def test_an_attempt_since_the_backup_makes_way_for_the_one_that_gets_its_number(site: Site, nodes: tuple[Node, ...]) -> None:
    await site.up()
    job = await site.submit(f"[ -e {site.folder}/finish ] || sleep 600")
    await site.until(lambda: len(site.ran()) == 1 and site.is_running(job, 1))
    await site.backup()
    site.kill_sidecar(job, 1)
    await site.until(lambda: len(site.ran()) == 2 and site.is_running(job, 2))
    await site.restore()
    (site.folder / "finish").touch()

    await site.up(nodes)
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED

    assert [number for number, _ in site.ran()] == [1, 2, 2]
    await site.down()


async def test_the_first_attempt_of_a_job_that_waited_at_the_backup_does_not_take_the_end_of_the_old_one(site: Site) -> None:
    await site.up()
    blockers = [await site.submit("sleep 600") for _ in BOTH]
    await site.until(lambda: len(site.ran()) == 2)
    job = await site.submit(f"[ -e {site.folder}/finish ] || sleep 600")
    await site.backup()
    for blocker in blockers:
        await Jobs(site.service).cancel(blocker.id, ADMIN)
    await site.until(lambda: len(site.ran()) == 3 and site.is_running(job, 1))
    old = site.ran()[-1][1]  # its pods bear the names of those that the first attempt after the restore gets
    await site.restore()
    (site.folder / "finish").touch()

    await site.up()
    await site.until(lambda: not lives(old))
    for blocker in blockers:
        await Jobs(site.service).cancel(blocker.id, ADMIN)
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED

    attempts = (await Jobs(site.service).find(job.id, ADMIN))[1]
    assert [(attempt.number, attempt.phase) for attempt in attempts] == [(1, AttemptPhase.SUCCEEDED)]
    assert (await Jobs(site.service).logs(job.id, ADMIN, None, 0, 0, 10))[1].lines == ()
    await site.down()


async def test_an_attempt_that_was_being_launched_at_the_backup_and_is_over_since_gives_way_to_the_next(site: Site) -> None:
    await site.up()
    site.cluster.may_launch.clear()
    job = await site.submit("true")
    await site.until(lambda: site.live(job) is not None)
    await site.backup()
    site.cluster.may_launch.set()
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED
    await site.until(lambda: bool(list(site.folder.glob("pods/*/1/.forgotten"))))
    await site.restore()

    await site.up()
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED

    assert [number for number, _ in site.ran()] == [1, 2]
    await site.down()


async def test_pods_that_the_backup_knows_go_on_as_they_are(site: Site) -> None:
    await site.up()
    job = await site.submit(f"while [ ! -e {site.folder}/finish ]; do sleep 0.1; done")
    await site.until(lambda: len(site.ran()) == 1 and site.is_running(job, 1))
    await site.backup()
    await site.restore()

    await site.up()
    live = site.live(job)
    assert live is not None
    assert [pod.phase for pod in live.pods] == [PodPhase.RUNNING]
    (site.folder / "finish").touch()
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED

    assert [number for number, _ in site.ran()] == [1]
    await site.down()


async def test_pods_of_a_job_that_the_backup_does_not_know_are_ended(site: Site) -> None:
    await site.up()
    await site.backup()
    job = await site.submit("sleep 600")
    await site.until(lambda: len(site.ran()) == 1 and site.is_running(job, 1))
    await site.restore()

    await site.up()
    await site.until(lambda: not lives(site.ran()[0][1]))

    assert site.service.state.jobs == {}
    await site.down()


async def test_a_second_restore_of_the_same_backup_tells_its_attempts_from_those_of_the_first(site: Site) -> None:
    await site.up()
    job = await site.submit(f"[ -e {site.folder}/finish ] || sleep 600")
    await site.until(lambda: len(site.ran()) == 1 and site.is_running(job, 1))
    await site.backup()
    site.kill_sidecar(job, 1)
    await site.until(lambda: len(site.ran()) == 2 and site.is_running(job, 2))
    await site.restore()
    await site.up(BOTH[:1])
    await site.until(lambda: len(site.ran()) == 3 and site.is_running(job, 2))
    await site.restore()
    (site.folder / "finish").touch()
    await site.up(BOTH[1:])
    assert (await site.ended(job)).phase is JobPhase.SUCCEEDED

    assert [number for number, _ in site.ran()] == [1, 2, 2, 2]
    await site.down()
