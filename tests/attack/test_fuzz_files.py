"""Almost valid records of pods, files of a state folder and configurations: told in one sentence, and read by nobody for ever."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from tests.attack.mutations import changed, changed_bytes, rounds
from tests.contract.clusters import NODES, plan, watching
from tests.doses import attack_dose
from tests.user_machine import CONFIG, UserMachine, made_machine
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.clusters.kept import epoch
from tuttilab.scheduler.clusters.local.cluster import LocalCluster
from tuttilab.scheduler.config.load import load_config
from tuttilab.scheduler.domain.errors import TuttiError
from tuttilab.scheduler.domain.model import Output

RECORDS = attack_dose("RECORDS", suite=40, attack=3000)
STATES = attack_dose("STATES", suite=3, attack=80)
CONFIGS = attack_dose("CONFIGS", suite=200, attack=20_000)


def local(folder: Path) -> LocalCluster:
    return LocalCluster("here", NODES, folder, os.environ, sys.executable)


async def ended_pod(folder: Path) -> LaunchPlan:
    """A pod with every record that one can have."""
    script = 'echo hello; echo x > "$RESULT_DIR/x"; sleep 1; echo bye'
    launch = plan(
        "job",
        "sh",
        "-c",
        script,
        work={"outputs": (Output("x", "x"),)},
        artifacts_url=(folder.parent / "store").as_uri(),
    )
    cluster = local(folder)
    try:
        async with watching(cluster) as seen:
            await cluster.launch(launch)
            await seen.ended(launch.pods[0].name)
    finally:
        await cluster.close()
    return launch


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + RECORDS)
async def test_almost_valid_records_of_a_pod_are_read_or_count_as_missing(tmp_path: Path, tell: Callable[[str], None]) -> None:
    good = tmp_path / "good"
    launch = await ended_pod(good)
    pod = launch.pods[0].name
    # The epoch beside the pods is the cluster's own: a greater one there is another leader, and is obeyed.
    no_records = ("lock", epoch.FILE)
    files = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file() and path.name not in no_records)
    folder = tmp_path / "pods"
    for number, chance in enumerate(rounds(1, RECORDS)):
        shutil.copytree(good, folder)
        for name in chance.sample(files, chance.choice((1, 1, 2, len(files)))):
            (folder / name).write_bytes(changed_bytes((folder / name).read_bytes(), chance))
        cluster = local(folder)
        try:
            async with aclosing(cluster.observe()) as stream:
                observed = await anext(stream)
            assert all(state.job_id == "job" for state in observed.pods), f"round {number}"
            with suppress(TuttiError):
                await cluster.logs("job", 1, pod, chance.choice((0, 1, 10**9)), 100)
            with suppress(TuttiError):
                await cluster.usage("job", 1, pod)
        except BaseException as error:
            error.add_note(f"round {number}")
            raise
        finally:
            await cluster.close()
        shutil.rmtree(folder)
    tell(f"{RECORDS} pods with almost valid records, {len(files)} files")


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[UserMachine]:
    """A control plane that has run a job and was stopped."""
    with made_machine(tmp_path) as machine:
        (machine.home / "tuttilab.yaml").write_text(CONFIG)
        assert machine.run("up", "--config", str(machine.home / "tuttilab.yaml")).code == 0
        assert machine.run("submit", "--cpus", "0.1", "--memory", "64Mi", "--wait", "--", "true").code == 0
        assert machine.run("down").code == 0
        yield machine


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + 90 * STATES)
def test_an_almost_valid_state_folder_is_told_or_used_and_never_hangs(stopped: UserMachine, tell: Callable[[str], None]) -> None:
    good = stopped.home.parent / "good"
    shutil.copytree(stopped.state, good, symlinks=True)
    files = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file() and path.suffix != ".log")
    told = 0
    for number, chance in enumerate(rounds(2, STATES)):
        shutil.rmtree(stopped.state)
        shutil.copytree(good, stopped.state, symlinks=True)
        for name in chance.sample(files, min(len(files), chance.choice((1, 1, 3)))):
            path = stopped.state / name
            path.write_bytes(changed_bytes(path.read_bytes(), chance))
        for command in (["status"], ["up"], ["jobs", "--all"], ["down"]):
            said = stopped.run(*command, timeout_s=60)
            assert said.code in (0, 1, 2, 3, 4), f"round {number}, {command}: {said}"
            assert "bug" not in said.err.lower(), f"round {number}, {command}: {said}"
            assert "Traceback" not in said.err, f"round {number}, {command}: {said}"
            told += said.code != 0
    tell(f"{STATES} almost valid state folders, {told} commands that told what is wrong")


VALID: dict[str, object] = {
    "clusters": [{"name": "here", "kind": "local", "nodes": [{"name": "a", "cpus": 4, "memory": "8Gi", "labels": {"x": "y"}}]}],
    "queues": [{"name": "root", "max": {"cpu": 8}}, {"name": "a", "parent": "root", "weight": 2, "guaranteed": {"cpu": 1}}],
    "defaults": {"queue": "a"},
    "limits": {"heartbeat_s": 5, "keep_jobs": "90d", "bundle_bytes": "200Mi"},
}


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + CONFIGS // 20)
def test_an_almost_valid_configuration_is_taken_or_its_fault_is_told(tmp_path: Path, tell: Callable[[str], None]) -> None:
    refused = 0
    file = tmp_path / "tuttilab.yaml"
    for number, chance in enumerate(rounds(3, CONFIGS)):
        given: object = VALID
        for _ in range(chance.choice((0, 1, 1, 2, 4)) if number else 0):
            given = changed(given, chance)
        content = json.dumps(given).encode()  # which is YAML too
        file.write_bytes(changed_bytes(content, chance) if number and chance.random() < 0.2 else content)
        try:
            load_config(file, tmp_path, {})
        except TuttiError:
            refused += 1
        except BaseException as error:
            error.add_note(f"round {number}: {file.read_bytes()!r:.1000}")
            raise
        assert number or not refused
    assert 0 < refused < CONFIGS
    tell(f"{CONFIGS} almost valid configurations, {refused} refused")
