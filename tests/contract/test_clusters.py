"""What every cluster promises, asked of each of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.clusters import Place, all_lines, first_lines, growth, lines_from, watching, with_command
from tests.unix_accounts import Accounts, open_folder
from tuttilab.scheduler.clusters.base import Cluster
from tuttilab.scheduler.domain.errors import Bug, LaunchRefused, NotFound, StaleEpoch
from tuttilab.scheduler.domain.resources import Resources


@pytest.fixture(params=["fake", "local", pytest.param("owners", marks=pytest.mark.tier("users"))])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """``owners``: a local one whose pods run as the users who own their jobs."""
    with contextlib.ExitStack() as stack:
        if request.param == "owners":
            accounts: Accounts = request.getfixturevalue("accounts")
            place = Place("local", tmp_path, owners=accounts.settings(stack.enter_context(open_folder())))
        else:
            place = Place(request.param, tmp_path)
        yield place
        await place.close()


@pytest.fixture
def cluster(place: Place) -> Cluster:
    return place.open()


async def test_first_observation_is_complete_and_shows_the_nodes(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        assert seen.first is not None
        assert (seen.first.is_complete, seen.first.pods) == (True, ())
        assert place.shows_its_nodes(seen.first.nodes)


@pytest.mark.parametrize(
    ("steps", "exit_code", "reason"),
    [(("exit", "0"), 0, "Completed"), (("exit", "3"), 3, "Error"), (("print", "a"), 0, "Completed")],
)
async def test_end_shows_exit_code_and_reason(
    place: Place, cluster: Cluster, steps: tuple[str, ...], exit_code: int, reason: str
) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command(*steps)))

        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (exit_code, reason)


async def test_launch_again_with_the_same_digest_makes_nothing(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "started", "sleep", place.while_others_start), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        first = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        await cluster.launch(launch)
        await cluster.launch(replace(launch, gang_key="another", pods=tuple(replace(pod, token="another") for pod in launch.pods)))
        last = await seen.ended("job-1-0", "job-1-1", "job-1-master")
        await cluster.launch(launch)
        lines = await all_lines(cluster, launch)

    assert [pod.uid for pod in last] == [pod.uid for pod in first]
    assert len({pod.uid for pod in last}) == 3
    assert lines == ["started"]


async def test_launch_with_another_digest_is_a_bug(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("sleep", "0.2"))
    await cluster.launch(launch)

    with pytest.raises(Bug, match="another digest"):
        await cluster.launch(with_command(launch, "true"))


async def test_launch_on_an_unknown_node_is_refused_and_leaves_nothing(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("exit", "0"), members=2)
    pods = (*launch.pods[:2], replace(launch.pods[2], node="elsewhere"))

    with pytest.raises(LaunchRefused) as refused:
        await cluster.launch(replace(launch, pods=pods))

    assert (refused.value.node, refused.value.permanent) == ("elsewhere", False)
    async with watching(cluster) as seen:
        assert seen.pods == {}


async def test_gang_runs_when_all_are_ready_and_its_master_ends_last(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command("sleep", "0.3"), members=3))
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-2", "job-1-master")

    assert [(pod.exit_code, pod.reason) for pod in ended] == [(0, "Completed")] * 4


async def test_failing_member_is_shown_and_others_go_on_until_stopped(place: Place, cluster: Cluster) -> None:
    launch = place.failing(place.plan("job", *place.command("sleep", "300"), members=2), rank=1, exit_code=7)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        (failed,) = await seen.ended("job-1-1")
        assert (failed.exit_code, failed.reason) == (7, "Error")
        await seen.phase("Running", "job-1-0", "job-1-master")
        await cluster.stop("job", 1, 2.0)
        stopped = await seen.ended("job-1-0", "job-1-master")

    assert [(pod.exit_code, pod.reason) for pod in stopped] == [(143, "Stopped"), (0, "Completed")]


async def test_stop_of_a_running_pod(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command("sleep", "300")))
        await seen.phase("Running", "job-1-0")
        await cluster.stop("job", 1, 5.0)
        await cluster.stop("job", 1, 5.0)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (143, "Stopped")


async def test_stop_of_a_stubborn_pod_is_by_force_after_the_grace(place: Place, cluster: Cluster) -> None:
    loop = asyncio.get_running_loop()
    launch = place.plan("job", *place.command("stubborn", "print", "on", "sleep", "300"))
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0")
        await first_lines(cluster, launch)
        before = loop.time()
        await cluster.stop("job", 1, 0.6)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (137, "Stopped")
    assert loop.time() - before > 0.5


@pytest.mark.feature("J11")
async def test_stop_right_after_launch_ends_every_pod(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command("sleep", "300"), members=3))
        await cluster.stop("job", 1, 5.0)
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-2", "job-1-master")

    assert {pod.reason for pod in ended[:3]} <= {"NeverStarted", "Stopped"}
    assert [pod.exit_code for pod in ended] == [143, 143, 143, 0]


@pytest.mark.feature("J11")
async def test_stop_of_the_ended_and_the_unknown_changes_nothing(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command("exit", "3")))
        (before,) = await seen.ended("job-1-0")
        await cluster.stop("job", 1, 1.0)
        await cluster.stop("nobody", 1, 1.0)
        await asyncio.sleep(0.1)

        assert seen.pods == {"job-1-0": before}


async def test_logs_from_any_line_while_running_and_after_the_end(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "a", "print", "b", "sleep", place.while_others_start, "print", "c"))
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0")
        running = await first_lines(cluster, launch, 2)
        assert (running.start, running.lines, running.is_end) == (0, ("a", "b"), False)
        await seen.ended("job-1-0")
        middle = await lines_from(cluster, launch, 1, 1)
        assert (middle.start, middle.lines, middle.is_end) == (1, ("b",), False)
        last = await lines_from(cluster, launch, 1, 10)
        assert (last.start, last.lines, last.is_end) == (1, ("b", "c"), True)
        beyond = await lines_from(cluster, launch, 3, 10)
        assert (beyond.start, beyond.lines, beyond.is_end) == (3, (), True)


async def test_logs_of_an_unknown_pod_are_not_found(place: Place, cluster: Cluster) -> None:
    await cluster.launch(place.plan("job", *place.command("exit", "0")))

    with pytest.raises(NotFound, match="nobody"):
        await cluster.logs("job", 1, "nobody", 0, 10)
    with pytest.raises(NotFound, match="nobody"):
        await cluster.usage("job", 1, "nobody")


async def test_forgotten_attempt_is_not_listed_and_keeps_its_logs_until_erased(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "kept"))
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended("job-1-0")
    await cluster.forget("job", 1)
    with pytest.raises(LaunchRefused, match="over") as refused:
        await cluster.launch(launch)
    assert not refused.value.permanent
    async with watching(cluster) as seen:
        assert seen.pods == {}
    assert await all_lines(cluster, launch) == ["kept"]

    await cluster.forget("job", 1, erase=True)
    await cluster.forget("job", 1, erase=True)

    with pytest.raises(NotFound):
        await lines_from(cluster, launch, 0, 1)
    if place.kind == "local":
        assert list((place.folder / "pods").iterdir()) == []


@pytest.mark.parametrize("was", ["Running", "Ended", "forgotten", "refused"])
async def test_an_attempt_of_an_earlier_epoch_is_ended_and_erased_before_its_number_is_launched_again(
    place: Place, cluster: Cluster, was: str
) -> None:
    before = place.plan(
        "job", *place.command("print", "before", *(["exit", "0"] if was == "Ended" else ["sleep", "300"])), members=2
    )
    after = replace(with_command(before, *place.command("print", "after", "sleep", "0.5", "exit", "6")), epoch=1_790_000_000)
    moved = replace(after, pods=tuple(replace(pod, node=place.node("b")) for pod in after.pods))
    async with watching(cluster) as seen:
        if was == "refused":
            with pytest.raises(LaunchRefused):
                await cluster.launch(replace(before, pods=(*before.pods[:2], replace(before.pods[2], node="elsewhere"))))
        else:
            await cluster.launch(before)
            old = await seen.phase("Ended" if was == "Ended" else "Running", "job-1-0", "job-1-1")
            assert await first_lines(cluster, before)
            assert {pod.epoch for pod in old} == {1}
        if was == "forgotten":
            await cluster.forget("job", 1)
    cluster = place.open()
    async with watching(cluster) as seen:
        await cluster.launch(moved)
        await seen.until(lambda pods: [pods[name].exit_code for name in ("job-1-0", "job-1-1") if name in pods] == [6, 6])
        assert await all_lines(cluster, moved) == ["after"]

    assert {pod.epoch for pod in seen.pods.values()} == {1_790_000_000}
    with pytest.raises(LaunchRefused, match="later than 1") as refused:
        await cluster.launch(before)
    assert not refused.value.permanent


async def test_ended_pods_are_listed_until_forgotten(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("job", *place.command("exit", "4")))
        (ended,) = await seen.ended("job-1-0")
    async with watching(place.open()) as seen:
        assert seen.first is not None
        assert seen.first.pods == (ended,)


async def test_another_observer_after_a_restart_adopts_the_same_pods(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "once", "sleep", place.while_others_start, "exit", "5"), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        before = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        await first_lines(cluster, launch)  # kept by now, and not written by both

    again = place.open()
    async with watching(again) as seen:
        assert [seen.pods[pod.name] for pod in before] == before
        await again.launch(launch)
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-master")
        lines = await all_lines(again, launch)

    assert [(pod.uid, pod.exit_code) for pod in ended] == [(before[0].uid, 5), (before[1].uid, 5), (before[2].uid, 0)]
    assert lines == ["once"]


async def test_pods_of_many_attempts_are_kept_apart(place: Place, cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(place.plan("one", *place.command("exit", "1"), attempt=1))
        await cluster.launch(place.plan("one", *place.command("exit", "2"), attempt=2))
        await cluster.launch(place.plan("two", *place.command("exit", "3"), resources=Resources.parse({"cpu": "0.5"})))
        ended = await seen.ended("one-1-0", "one-2-0", "two-1-0")
        await cluster.forget("one", 1, erase=True)

    assert [(pod.job_id, pod.attempt, pod.exit_code) for pod in ended] == [("one", 1, 1), ("one", 2, 2), ("two", 1, 3)]
    async with watching(cluster) as seen:
        assert sorted(seen.pods) == ["one-2-0", "two-1-0"]


async def test_pods_join_a_gang_that_runs_and_pass_its_barrier(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "on", "sleep", place.while_others_start), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        first = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        more = growth(launch, 2, 3)
        await cluster.launch(more)
        await cluster.launch(more)
        joined = await seen.phase("Running", "job-1-2-g1", "job-1-3-g1")
        assert [seen.pods[pod.name] for pod in first] == first, "who ran goes on"
        last = await seen.ended("job-1-0", "job-1-1", "job-1-2-g1", "job-1-3-g1", "job-1-master")
        assert await all_lines(cluster, more, rank=3) == ["on"]

    assert [pod.uid for pod in last[2:4]] == [pod.uid for pod in joined]
    assert {pod.uid for pod in joined}.isdisjoint({pod.uid for pod in first})
    assert [(pod.exit_code, pod.reason) for pod in last] == [(0, "Completed")] * 5


async def test_some_pods_are_stopped_and_the_others_go_on(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("sleep", "300"), members=3)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        before = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-2", "job-1-master")
        await cluster.stop("job", 1, 5.0, ["job-1-2"])
        (gone,) = await seen.ended("job-1-2")
        await cluster.stop("job", 1, 5.0, ["job-1-2"])
        await cluster.launch(growth(launch, 2))
        await seen.phase("Running", "job-1-2-g1")
        assert [seen.pods[pod.name] for pod in before if pod.name != "job-1-2"] == [p for p in before if p.name != "job-1-2"]
        await cluster.stop("job", 1, 5.0)
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-2-g1", "job-1-master")

    assert (gone.exit_code, gone.reason) == (143, "Stopped")
    assert [(pod.exit_code, pod.reason) for pod in ended] == [(143, "Stopped")] * 3 + [(0, "Completed")]


async def test_a_pod_that_was_stopped_before_it_was_made_is_not_made(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("sleep", "300"), members=2)
    more = growth(launch, 2, 3)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0", "job-1-1")
        await cluster.stop("job", 1, 5.0, ["job-1-2-g1"])
        await cluster.launch(more)
        await seen.phase("Running", "job-1-3-g1")
        assert "job-1-2-g1" not in seen.pods or seen.pods["job-1-2-g1"].reason == "NeverStarted"
        await cluster.stop("job", 1, 5.0)
        await seen.ended("job-1-0", "job-1-1", "job-1-3-g1", "job-1-master")
        shown = dict(seen.pods)
        await cluster.launch(growth(launch, 4, times=2))
        await asyncio.sleep(0.3)
        assert seen.pods == shown, "nor one of an attempt that was stopped"


async def test_pods_that_cannot_join_leave_the_gang_alone(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("sleep", "300"), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        before = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        with pytest.raises(LaunchRefused) as refused:
            await cluster.launch(growth(launch, 2, node="elsewhere"))
        assert (refused.value.node, refused.value.permanent) == ("elsewhere", False)
        await cluster.stop("job", 1, 5.0, ["job-1-2-g1"])
        assert [seen.pods[pod.name] for pod in before] == before
        await cluster.launch(growth(launch, 2, times=2))
        await seen.phase("Running", "job-1-2-g2")


async def test_a_pod_that_joins_with_another_digest_is_a_bug(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("sleep", "300"), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0", "job-1-1")
        await cluster.launch(growth(launch, 2))

    with pytest.raises(Bug, match="another digest"):
        await cluster.launch(growth(launch, 2, node=place.node("b")))


async def test_what_joined_is_adopted_after_a_restart_and_what_was_missing_is_made(place: Place, cluster: Cluster) -> None:
    launch = place.plan("job", *place.command("print", "once", "sleep", "300"), members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        await cluster.launch(growth(launch, 2))
        before = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-2-g1")
        await first_lines(cluster, growth(launch, 2), rank=2)  # kept by now, and not written by both

    again = place.open()
    async with watching(again) as seen:
        assert [seen.pods[pod.name] for pod in before] == before
        await again.launch(growth(launch, 2, 3))
        await seen.phase("Running", "job-1-3-g1")
        assert [seen.pods[pod.name] for pod in before] == before
        await again.stop("job", 1, 5.0, ["job-1-2-g1", "job-1-3-g1"])
        await seen.ended("job-1-2-g1", "job-1-3-g1")
        assert (await all_lines(again, growth(launch, 2), rank=2)).count("once") == 1
        assert seen.pods["job-1-0"] == before[0]


@pytest.mark.parametrize("call", ["launch", "launch anew", "grow", "stop", "stop one", "forget", "erase", "observe"])
async def test_a_leader_that_was_followed_by_another_changes_nothing(place: Place, cluster: Cluster, call: str) -> None:
    running = place.plan("job", *place.command("print", "on", "sleep", "300"), members=2)
    await cluster.lead(1)
    async with watching(cluster) as seen:
        await cluster.launch(running)
        before = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
    newer = place.open()
    await newer.lead(2)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "launch": lambda: cluster.launch(place.plan("other", *place.command("sleep", "300"))),
        # As after a restore: it would end and erase what is there.
        "launch anew": lambda: cluster.launch(replace(running, epoch=2)),
        "grow": lambda: cluster.launch(growth(running, 2)),
        "stop": lambda: cluster.stop("job", 1, 0.0),
        "stop one": lambda: cluster.stop("job", 1, 0.0, ["job-1-1"]),
        "forget": lambda: cluster.forget("job", 1),
        "erase": lambda: cluster.forget("job", 1, erase=True),
        # A look settles the ends of pods that are lost.
        "observe": lambda: anext(cluster.observe()),
    }

    with pytest.raises(StaleEpoch, match="epoch 1 was given, and 2 leads"):
        await calls[call]()

    async with watching(newer) as seen:
        after = await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        assert set(seen.pods) == {pod.name for pod in before}
        assert [pod.uid for pod in after] == [pod.uid for pod in before]
        await newer.launch(growth(running, 2))
        await seen.phase("Running", "job-1-2-g1")
        await newer.stop("job", 1, 0.0)
        await seen.ended(*(pod.name for pod in running.pods))
    with pytest.raises(StaleEpoch):
        await place.open().lead(1)
