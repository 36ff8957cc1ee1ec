"""Sidecars, masters and control planes that are killed or away: nothing starts twice, nothing is left, nothing is lost."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.contract.clusters import Place, all_lines, first_lines, plan, watching
from tests.integration.local.conftest import DEADLINE_S, LEASE_S, left_of
from tests.integration.local.control_plane import ControlPlane
from tests.strangers import KILLER
from tests.unix_accounts import Accounts, open_folder
from tuttilab.scheduler.clusters.base import Cluster, PodState
from tuttilab.scheduler.clusters.local import cgroups
from tuttilab.scheduler.clusters.local import cluster as local
from tuttilab.scheduler.clusters.local import launch as local_launch
from tuttilab.sidecar import keeper, records


@pytest.fixture(params=["service", pytest.param("owners", marks=pytest.mark.tier("users"))])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """As whom the pods run: the user of the service, or the owners of their jobs."""
    with contextlib.ExitStack() as stack:
        owners = None
        if request.param == "owners":
            accounts: Accounts = request.getfixturevalue("accounts")
            owners = accounts.settings(stack.enter_context(open_folder()))
        place = Place("local", tmp_path, owners=owners, lease_s=LEASE_S, heartbeat_s=0.5)
        yield place
        await place.close()
        assert left_of(place.folder) == []


# What is meant to outlive its pod: a daemon of a session of its own, whose parent is gone.
DAEMON = "(setsid sh -c 'sleep 300 & sleep 300' &) ; "


# The same of one who says by nothing whose it is: no environment, a session of its own, no parent, and none of our files open.
STRANGER = (
    "env -i setsid sh -c 'sh -c \"echo \\$\\$ >stranger.new; mv stranger.new stranger; exec sleep 300\" &' <&- >/dev/null 2>&1 ; "
)


def keeper_of(pod: PodState) -> psutil.Process:
    return psutil.Process(int(pod.uid.split("-")[1]))


def pid_of(pod: PodState) -> int:
    """Of its sidecar; the master of a gang has no keeper."""
    first = keeper_of(pod)
    return first.children()[0].pid if first.cmdline()[0] == keeper.TITLE else first.pid


def stranger_of(place: Place, pod: PodState) -> psutil.Process:
    return psutil.Process(int((place.folder / "pods" / pod.job_id / "1" / pod.name / "work" / "stranger").read_text()))


@pytest.mark.parametrize("ending", ["exit 0", "exit 3", "sleep 300"])
async def test_nothing_of_a_pod_outlives_it(place: Place, cluster: Cluster, ending: str) -> None:
    launch = plan("job", "sh", "-c", f"{DAEMON} echo up; {ending}")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        if ending == "sleep 300":
            await first_lines(cluster, launch)
            await cluster.stop("job", 1, 5.0)
        await seen.ended("job-1-0")

        assert left_of(place.folder) == []


async def test_killed_sidecar_takes_its_pod_along_and_counts_as_lost(place: Place, cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", f"{DAEMON} echo up; sleep 300")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await first_lines(cluster, launch)
        (pod,) = await seen.phase("Running", "job-1-0")
        os.kill(pid_of(pod), signal.SIGKILL)
        (lost,) = await seen.ended("job-1-0")
        assert (lost.exit_code, lost.reason, lost.uid) == (None, "Lost", pod.uid)
        # What was left is ended before the loss is told.
        assert [p.cmdline() for p in psutil.process_iter() if _has(p, f"TUTTILAB_POD_DIR={place.folder}")] == []
        await cluster.launch(launch)
    async with watching(place.open()) as seen:
        assert seen.pods["job-1-0"] == lost
        assert await all_lines(cluster, launch) == ["up"]


@pytest.mark.parametrize("stranger", [STRANGER, STRANGER.replace("setsid ", "")])
async def test_who_cleared_his_environment_dies_with_the_sidecar_before_the_loss_is_told(
    place: Place, cluster: Cluster, stranger: str
) -> None:
    launch = plan("job", "sh", "-c", f"{stranger} while [ ! -e stranger ]; do sleep 0.05; done; echo up; sleep 300")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await first_lines(cluster, launch)
        (pod,) = await seen.phase("Running", "job-1-0")
        left = stranger_of(place, pod)
        assert (left.is_running(), "TUTTILAB_POD_DIR" in left.environ()) == (True, False)
        os.kill(pid_of(pod), signal.SIGKILL)
        (lost,) = await seen.ended("job-1-0")
        assert (lost.reason, _lives(left)) == ("Lost", False)


async def test_who_cleared_his_environment_dies_with_the_sidecar_while_nobody_watches(place: Place, cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", f"{STRANGER} while [ ! -e stranger ]; do sleep 0.05; done; echo up; sleep 300")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await first_lines(cluster, launch)
        (pod,) = await seen.phase("Running", "job-1-0")
    left = stranger_of(place, pod)
    os.kill(pid_of(pod), signal.SIGKILL)

    psutil.wait_procs([left], timeout=150)
    assert not left.is_running()


async def test_sidecar_and_keeper_killed_at_once_take_along_whom_the_sidecar_had_seen(place: Place, cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", f"{STRANGER} while [ ! -e stranger ]; do sleep 0.05; done; echo up; sleep 300")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await first_lines(cluster, launch)
        (pod,) = await seen.phase("Running", "job-1-0")
        left = stranger_of(place, pod)
        await asyncio.to_thread(_wait_until_listed, place, pod, left.pid)
        sidecar = pid_of(pod)
        keeper_of(pod).kill()
        os.kill(sidecar, signal.SIGKILL)
        (lost,) = await seen.ended("job-1-0")
        assert (lost.reason, _lives(left)) == ("Lost", False)


@pytest.mark.parametrize("place", ["service"], indirect=True)  # another user's job cannot kill them (test_owners.py)
@pytest.mark.parametrize("has_cgroups", [True, False])
async def test_who_kills_sidecar_and_keeper_unseen_is_ended_by_the_cgroup_or_the_pod_is_untraced(
    monkeypatch: pytest.MonkeyPatch, place: Place, has_cgroups: bool
) -> None:
    if not has_cgroups:
        monkeypatch.setattr(cgroups, "place_for", lambda state_dir: None)
    cluster = place.open()
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", sys.executable, "-c", KILLER))
        (lost,) = await seen.ended("job-1-0")
    stranger = stranger_of(place, lost)

    try:
        if has_cgroups:
            assert (lost.exit_code, lost.reason) == (None, "Lost")
            assert not _lives(stranger)
        else:
            assert (lost.exit_code, lost.reason) == (137, "Untraced")
    finally:
        if _lives(stranger):
            stranger.kill()


async def test_without_cgroups_a_pod_whose_keeper_swept_is_lost(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setattr(cgroups, "place_for", lambda state_dir: None)
    cluster = place.open()
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
        os.kill(pid_of(pod), signal.SIGKILL)
        (lost,) = await seen.ended("job-1-0")

    assert (lost.exit_code, lost.reason) == (None, "Lost")


async def test_cgroups_go_with_their_pods(place: Place, cluster: Cluster) -> None:
    place_of_groups = cgroups.place_for(place.folder)
    assert place_of_groups is not None
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sh", "-c", "grep ^0:: /proc/self/cgroup; sleep 300"))
        (line,) = (await first_lines(cluster, plan("job", ""))).lines
        assert line.endswith(f"/{place_of_groups.name}/job.1.job-1-0")
        await cluster.stop("job", 1, 5.0)
        await seen.ended("job-1-0")
        await cluster.forget("job", 1)
        assert not (place_of_groups / "job.1.job-1-0").exists()
        await place.close()
        assert not place_of_groups.exists()


def _lives(process: psutil.Process) -> bool:
    """Not as one that has ended and that init will reap in a moment."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.is_running()
    except psutil.NoSuchProcess:
        return False


def _wait_until_listed(place: Place, pod: PodState, pid: int) -> None:
    file = place.folder / "pods" / pod.job_id / "1" / pod.name / records.PROCESSES
    until = time.monotonic() + DEADLINE_S
    while pid not in [listed for listed, _ in (records.read(str(file)) or {}).get("processes", [])]:
        assert time.monotonic() < until
        time.sleep(0.02)


async def test_a_pod_whose_keeper_is_killed_goes_on_to_its_own_end(cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", "echo up; while [ ! -e go ]; do sleep 0.05; done; exit 7")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        (pod,) = await seen.phase("Running", "job-1-0")
        work = psutil.Process(pid_of(pod)).children()[0].cwd()
        keeper_of(pod).kill()
        await asyncio.sleep(1.5)
        assert seen.pods["job-1-0"].phase == "Running"
        Path(work, "go").touch()
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.uid) == (7, pod.uid)


async def test_a_pod_whose_keeper_is_killed_can_be_stopped(cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
        keeper_of(pod).kill()
        await cluster.stop("job", 1, 5.0)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (143, "Stopped")


async def test_whoever_knows_the_keeper_only_stops_the_pod_by_it(cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
        keeper_of(pod).terminate()
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (143, "Stopped")


async def test_a_hung_keeper_is_ended_by_force(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(local, "FORCE_S", 0.3)
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
        os.kill(pid_of(pod), signal.SIGSTOP)
        os.kill(keeper_of(pod).pid, signal.SIGSTOP)
        await cluster.stop("job", 1, 0.2)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (None, "Lost")


async def test_main_command_dies_with_its_sidecar_while_nobody_watches(cluster: Cluster) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
    (main,) = psutil.Process(pid_of(pod)).children()
    os.kill(pid_of(pod), signal.SIGKILL)

    psutil.wait_procs([main], timeout=150)
    assert not main.is_running()


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return any(f"{name}={value}".startswith(mark) for name, value in process.environ().items())
    except psutil.Error:
        return False


@pytest.mark.feature("C01")
async def test_members_stop_themselves_when_their_master_is_killed(cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", "echo up; sleep 300", members=3)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        master, *_ = await seen.phase("Running", "job-1-master", "job-1-0", "job-1-1", "job-1-2")
        os.kill(pid_of(master), signal.SIGKILL)
        members = await seen.ended("job-1-0", "job-1-1", "job-1-2")

        assert [(pod.exit_code, pod.reason) for pod in members] == [(143, "LeaseLost")] * 3
        assert seen.pods["job-1-master"].reason == "Lost"
        lines = await all_lines(cluster, launch)
    assert lines[:2] == ["up", "tuttilab: stops itself: the gang's master is gone, within 30 s."]


async def test_members_stop_themselves_when_their_master_says_nothing(cluster: Cluster) -> None:
    launch = plan("job", "sh", "-c", "echo up; sleep 300", members=2)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        master, *_ = await seen.phase("Running", "job-1-master", "job-1-0", "job-1-1")
        os.kill(pid_of(master), signal.SIGSTOP)
        members = await seen.ended("job-1-0", "job-1-1")
        os.kill(pid_of(master), signal.SIGCONT)
        await seen.ended("job-1-master")
        lines = await all_lines(cluster, launch)

    assert [pod.reason for pod in members] == ["LeaseLost", "LeaseLost"]
    assert lines[:2] == ["up", "tuttilab: stops itself: no word from the gang's master for 5 s, within 30 s."]


async def test_master_tells_of_a_lost_member_and_the_others_go_on(cluster: Cluster, control_plane: ControlPlane) -> None:
    launch = plan("job", "sleep", "300", members=2, report_url=control_plane.url)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        lost, _ = await seen.phase("Running", "job-1-1", "job-1-0")
        os.kill(pid_of(lost), signal.SIGKILL)
        await seen.ended("job-1-1")
        await asyncio.to_thread(control_plane.wait_for_phase, "job-1-1", "Ended")

        assert control_plane.last("job-1-1")["reason"] == "Lost"
        assert control_plane.last("job-1-1")["exit_code"] is None
        assert seen.pods["job-1-0"].phase == "Running"


async def test_hung_sidecar_is_ended_by_force(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    monkeypatch.setattr(local, "FORCE_S", 0.3)
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sleep", "300"))
        (pod,) = await seen.phase("Running", "job-1-0")
        os.kill(pid_of(pod), signal.SIGSTOP)
        await cluster.stop("job", 1, 0.2)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (None, "Lost")


async def test_single_pod_lives_without_a_control_plane_and_reports_when_it_is_back(
    place: Place, cluster: Cluster, control_plane: ControlPlane
) -> None:
    url = control_plane.url
    control_plane.stop()
    waits = "while [ ! -e go ]; do sleep 0.05; done; exit 6"
    launch = plan("job", "sh", "-c", waits, report_url=url, report_url_file=str(control_plane.file))
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0")
        await asyncio.sleep(0.5)
        # At another port, which pods of other users are not told.
        control_plane.start(int(url.rpartition(":")[2]) if place.has_owners else 0)
        await asyncio.to_thread(control_plane.wait_for_phase, "job-1-0", "Running")
        (place.folder / "pods" / "job" / "1" / "job-1-0" / "work" / "go").touch()
        await asyncio.to_thread(control_plane.wait_for_phase, "job-1-0", "Ended")
        (ended,) = await seen.ended("job-1-0")

    # Those before too, if its sidecar was so slow that no report had failed yet.
    assert control_plane.phases("job-1-0")[-2:] == ["Running", "Ended"]
    last = control_plane.last("job-1-0")
    assert (last["exit_code"], last["reason"], last["uid"]) == (ended.exit_code, ended.reason, ended.uid)
    assert (last["exit_code"], control_plane.tokens) == (6, {f"Bearer {launch.pods[0].token}"})


async def test_reports_that_nobody_wants_harm_nothing(cluster: Cluster, control_plane: ControlPlane) -> None:
    control_plane.status = 404
    async with watching(cluster) as seen:
        await cluster.launch(plan("job", "sh", "-c", "sleep 1.5; exit 6", report_url=control_plane.url))
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (6, "Error")
    assert control_plane.phases("job-1-0") == ["Pending", "Ended"]


async def test_control_plane_stops_a_pod_by_its_answer(cluster: Cluster, control_plane: ControlPlane) -> None:
    async with watching(cluster) as seen:
        await cluster.launch(plan("one", "sleep", "300", report_url=control_plane.url))
        await cluster.launch(plan("gang", "sleep", "300", members=2, report_url=control_plane.url))
        await seen.phase("Running", "one-1-0", "gang-1-0", "gang-1-1")
        control_plane.answer = {"stop": {"grace_s": 3, "why": "Cancelled"}}
        ended = await seen.ended("one-1-0", "gang-1-0", "gang-1-1", "gang-1-master")

    assert [pod.reason for pod in ended] == ["Stopped", "Stopped", "Stopped", "Completed"]


class Crash(BaseException):
    """The service is gone between two of its steps."""


@pytest.mark.parametrize("survivors", [0, 1, 2])
async def test_launch_goes_on_where_a_crash_left_it(
    monkeypatch: pytest.MonkeyPatch, place: Place, cluster: Cluster, survivors: int
) -> None:
    launch = plan("job", "sh", "-c", "echo up; sleep 0.2", members=2)
    spawn, calls = local_launch._spawn, iter(range(100))

    def crash_before(*arguments: object) -> int:
        if next(calls) == survivors:
            raise Crash
        return spawn(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(local_launch, "_spawn", crash_before)
    with pytest.raises(Crash):
        await cluster.launch(launch)
    monkeypatch.undo()

    again = place.open()
    async with watching(again) as seen:
        assert len(seen.pods) <= survivors  # one that is just starting may not have said who it is yet
        await again.launch(launch)
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-master")
        assert [(pod.exit_code, pod.reason) for pod in ended] == [(0, "Completed")] * 3
        assert [await all_lines(again, launch, rank) for rank in (0, 1)] == [["up"], ["up"]]
        assert len({state.uid for state in seen.history}) == 3


async def test_after_a_stop_a_half_made_attempt_is_not_completed(
    monkeypatch: pytest.MonkeyPatch, place: Place, cluster: Cluster
) -> None:
    launch = plan("job", "sh", "-c", "echo up", members=2)
    spawn = local_launch._spawn

    def crash_at_the_last(python: str, folder: Path, *rest: object) -> int:
        if folder.name == "job-1-1":
            raise Crash
        return spawn(python, folder, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(local_launch, "_spawn", crash_at_the_last)
    with pytest.raises(Crash):
        await cluster.launch(launch)
    monkeypatch.undo()

    again = place.open()
    async with watching(again) as seen:
        await again.stop("job", 1, 1.0)
        await again.launch(launch)
        ended = await seen.ended("job-1-0", "job-1-1", "job-1-master")

    assert [pod.reason for pod in ended] == ["NeverStarted", "NeverStarted", "Completed"]
