"""The end of a pod that comes while its job is being launched waits for the launch, which was planned without it."""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

import pytest

from tuttilab.scheduler.clusters.base import LaunchPlan, PodState
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain.errors import ClusterUnreachable, StaleEpoch, Unavailable
from tuttilab.scheduler.domain.instructions import LaunchGang
from tuttilab.scheduler.domain.model import PodPhase, Work
from tuttilab.scheduler.service import performer as performing
from tuttilab.scheduler.service.performer import Performer
from tuttilab.scheduler.service.turn import Turn

T = TypeVar("T")
ENDED = PodState("j", 1, "j-1-worker-0", "uid-1", PodPhase.ENDED, 0, "Completed")


class SlowCluster(FakeCluster):
    """Answers a launch when it is told to, the first time with an error."""

    def __init__(self) -> None:
        super().__init__("here", ())
        self.begun = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.launches = 0

    async def launch(self, plan: LaunchPlan) -> None:
        self.launches += 1
        self.begun.set()
        await self.may_answer.wait()
        if self.launches == 1:
            raise ClusterUnreachable("the call took too long.")


class Loop:
    def __init__(self) -> None:
        self.taken: list[PodState] = []

    async def ask(self, run: Callable[[Turn], T], /) -> T:
        return run(Turn(State(), 1000.0))

    def plan(self, turn: Turn, job_id: str, attempt: int, /) -> tuple[str, LaunchPlan] | None:
        return "here", LaunchPlan(job_id, attempt, "ana", "batch", 1, Work(("true",)), (), "key", "")

    def apply_pod_states(self, turn: Turn, pods: Collection[PodState], /) -> None:
        self.taken.extend(pods)

    def check_launch(self, plan: LaunchPlan, /) -> None:
        pass

    async def mark_cleaned_up(self, job_id: str, /) -> None:
        raise AssertionError("nothing was dropped")

    def step_down(self, stale: StaleEpoch, /) -> None:
        raise AssertionError("nobody else leads")


async def test_an_end_waits_for_the_launch_and_is_told_once_it_has_answered() -> None:
    loop, cluster = Loop(), SlowCluster()
    performer = Performer(loop, {"here": cluster})
    assert not performer.defer_end(ENDED)

    performer.perform(LaunchGang("j", 1))
    await cluster.begun.wait()
    assert performer.defer_end(ENDED)
    assert performer.defer_end(ENDED)
    assert loop.taken == []

    # The first answer is an error, and the launch is tried again: the end is told when one has answered well.
    cluster.may_answer.set()
    async with asyncio.timeout(5):
        while not loop.taken:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (cluster.launches, loop.taken) == (2, [ENDED])
    assert not performer.defer_end(ENDED)
    await performer.stop()


async def test_the_end_of_another_job_does_not_wait() -> None:
    loop, cluster = Loop(), SlowCluster()
    performer = Performer(loop, {"here": cluster})
    performer.perform(LaunchGang("other", 1))
    await cluster.begun.wait()

    assert not performer.defer_end(ENDED)
    await performer.stop()


async def test_who_cancels_hears_when_a_launch_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performing, "LAUNCH_TIMEOUT_S", 0.05)
    loop, cluster = Loop(), SlowCluster()
    performer = Performer(loop, {"here": cluster})
    await performer.wait_for_launch("j")
    performer.perform(LaunchGang("j", 1))
    await cluster.begun.wait()

    with pytest.raises(Unavailable, match=r"Job j will be stopped, but its cluster has not answered its launch for 0\.05 s"):
        await performer.wait_for_launch("j")
    await performer.wait_for_launch("other")
    await performer.stop()


async def test_what_waits_for_its_next_try_is_tried_at_once_when_a_cluster_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performing, "FIRST_PAUSE_S", 600.0)
    loop, cluster = Loop(), SlowCluster()
    performer = Performer(loop, {"here": cluster})
    cluster.may_answer.set()
    performer.perform(LaunchGang("j", 1))
    async with asyncio.timeout(5):
        while not performer._pausing:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert cluster.launches == 1

    performer.retry_now()

    async with asyncio.timeout(5):
        while cluster.launches < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await performer.stop()
    assert not performer._pausing
