"""The fake on a clock that the test moves, and the faults it can be given. Its promises: `tests/contract/test_clusters.py`."""

import contextlib

import pytest

from tests.contract.clusters import NODES, plan
from tuttilab.scheduler.clusters.base import Observation
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.domain.errors import ClusterUnreachable, LaunchRefused


class Clock:
    def __init__(self, cluster_of: type[FakeCluster]) -> None:
        self.now = 100.0
        self.cluster = cluster_of("here", NODES, clock=lambda: self.now)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.cluster.tick()


@pytest.fixture
def clock() -> Clock:
    return Clock(FakeCluster)


async def shown(cluster: FakeCluster) -> dict[str, tuple[str, int | None]]:
    async with contextlib.aclosing(cluster.observe()) as stream:
        first: Observation = await anext(stream)
    return {pod.name: (str(pod.phase), pod.exit_code) for pod in first.pods}


async def test_pod_takes_the_time_it_was_told(clock: Clock) -> None:
    await clock.cluster.launch(plan("j", "sleep", "10", "exit", "3", work={"env": {"FAKE_READY_S": "5"}}))
    seen = []
    for seconds in (0, 4.9, 0.1, 9.9, 0.1):
        clock.pass_by(seconds)
        seen.append((await shown(clock.cluster))["j-1-0"])

    assert seen == [("Pending", None), ("Pending", None), ("Running", None), ("Running", None), ("Ended", 3)]


async def test_one_long_step_of_the_clock_is_all_short_ones(clock: Clock) -> None:
    await clock.cluster.launch(plan("j", "sleep", "1", "print", "a", "sleep", "1", "print", "b", members=2))
    clock.pass_by(100)

    assert await shown(clock.cluster) == {"j-1-master": ("Ended", 0), "j-1-0": ("Ended", 0), "j-1-1": ("Ended", 0)}
    assert (await clock.cluster.logs("j", 1, "j-1-1", 0, 9)).lines == ("a", "b")


async def test_program_that_is_no_step_ends_well(clock: Clock) -> None:
    await clock.cluster.launch(plan("j", "python", "train.py"))

    assert await shown(clock.cluster) == {"j-1-0": ("Ended", 0)}


async def test_offered_endpoints(clock: Clock) -> None:
    await clock.cluster.launch(plan("j", "offer", "connect", "h:1", "sleep", "5"))
    async with contextlib.aclosing(clock.cluster.observe()) as stream:
        (pod,) = (await anext(stream)).pods

    assert (str(pod.phase), pod.endpoints) == ("Running", {"connect": "h:1"})


async def test_lost_pod(clock: Clock) -> None:
    await clock.cluster.launch(plan("j", "sleep", "5", members=2))
    clock.cluster.lose("j-1-1")

    assert await shown(clock.cluster) == {"j-1-master": ("Running", None), "j-1-0": ("Running", None), "j-1-1": ("Ended", None)}


async def test_refusing_node(clock: Clock) -> None:
    clock.cluster.refusals["a"] = "no room today"

    with pytest.raises(LaunchRefused, match="no room today") as refused:
        await clock.cluster.launch(plan("j", "true"))

    assert (refused.value.node, await shown(clock.cluster)) == ("a", {})


async def test_unreachable_cluster_answers_nothing(clock: Clock) -> None:
    clock.cluster.is_unreachable = True

    with pytest.raises(ClusterUnreachable):
        await clock.cluster.launch(plan("j", "true"))
    with pytest.raises(ClusterUnreachable):
        await anext(clock.cluster.observe())
