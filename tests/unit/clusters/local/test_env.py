"""The environment of a pod, from its plan."""

import json
from pathlib import Path

import pytest

from tests.contract.clusters import plan
from tuttilab.scheduler.clusters.base import PodPlan
from tuttilab.scheduler.clusters.local.env import PodDirs, base_env, pod_env, ports_needed
from tuttilab.scheduler.domain.model import Framework
from tuttilab.scheduler.domain.resources import Resources

DIRS = PodDirs.of(Path("/s/pods/j/1"), "p0")


def test_service_passes_on_where_programs_are_and_no_secrets() -> None:
    environ = {
        "PATH": "/usr/bin",
        "HOME": "/home/ann",
        "LC_ALL": "C",
        "LANG": "de_DE.UTF-8",
        "TUTTILAB_TOKEN": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PYTHONPATH": "/x",
        "JAVA_HOME": "/java",
    }

    assert base_env(environ, "/venv/bin/python") == {
        "PATH": "/venv/bin:/usr/bin",
        "HOME": "/home/ann",
        "LC_ALL": "C",
        "LANG": "de_DE.UTF-8",
        "JAVA_HOME": "/java",
    }


def test_path_that_has_our_interpreter_stays() -> None:
    assert base_env({"PATH": "/usr/bin:/venv/bin"}, "/venv/bin/python")["PATH"] == "/usr/bin:/venv/bin"


@pytest.mark.parametrize(("cpus", "threads"), [("1", "1"), ("2.5", "3"), ("4", "4"), ("100m", "1")])
def test_threads_are_the_cores_rounded_up(cpus: str, threads: str) -> None:
    made = plan("j", "true", resources=Resources.parse({"cpu": cpus}))

    assert pod_env(made, made.pods[0], {}, DIRS, (), ())["OMP_NUM_THREADS"] == threads


def test_job_then_rank_then_ours_have_the_last_word() -> None:
    made = plan("j", "true", work={"env": {"A": "job", "B": "job", "TUTTILAB_RANK": "9", "OMP_NUM_THREADS": "7"}})
    pod = PodPlan("p0", "worker", 0, "a", Resources(), env={"B": "rank"})

    env = pod_env(made, pod, {"A": "base", "C": "base"}, DIRS, (), ())

    names = ("A", "B", "C", "TUTTILAB_RANK", "OMP_NUM_THREADS")
    assert [env[name] for name in names] == ["job", "rank", "base", "0", "7"]


def test_gpus_are_visible_by_name() -> None:
    made = plan("j", "true")

    env = pod_env(made, made.pods[0], {}, DIRS, ("GPU-a", "GPU-b"), ())

    assert (env["CUDA_VISIBLE_DEVICES"], env["NVIDIA_VISIBLE_DEVICES"]) == ("GPU-a,GPU-b", "GPU-a,GPU-b")


@pytest.mark.parametrize(
    ("framework", "count"),
    [(Framework.NONE, 0), (Framework.TORCH, 1), (Framework.XGBOOST, 1), (Framework.TENSORFLOW, 3)],
)
def test_ports(framework: Framework, count: int) -> None:
    assert ports_needed(plan("j", "true", members=3, work={"framework": framework})) == count


@pytest.mark.feature("J03")
def test_torch() -> None:
    made = plan("j", "true", members=2, work={"framework": Framework.TORCH})

    env = pod_env(made, made.pods[2], {}, DIRS, (), (21000,))

    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    assert [env[name] for name in names] == ["127.0.0.1", "21000", "1", "2", "0"]


def test_xgboost() -> None:
    made = plan("j", "true", members=2, work={"framework": Framework.XGBOOST})

    env = pod_env(made, made.pods[1], {}, DIRS, (), (21000,))

    assert {name: value for name, value in env.items() if name.startswith("DMLC_")} == {
        "DMLC_TRACKER_URI": "127.0.0.1",
        "DMLC_TRACKER_PORT": "21000",
        "DMLC_NUM_WORKER": "2",
        "DMLC_TASK_ID": "0",
        "DMLC_ROLE": "worker",
    }


@pytest.mark.feature("J02")
def test_tensorflow_knows_each_role_and_index() -> None:
    roles = ("chief", "worker", "main", "ps")
    pods = tuple(PodPlan(f"p{rank}", role, rank, "a", Resources()) for rank, role in enumerate(roles))
    made = plan("j", "true", work={"framework": Framework.TENSORFLOW})
    made = type(made)(**{name: getattr(made, name) for name in made.__slots__} | {"pods": pods})

    configs = [json.loads(pod_env(made, pod, {}, DIRS, (), (1, 2, 3, 4))["TF_CONFIG"]) for pod in pods]

    assert configs[0]["cluster"] == {"chief": ["127.0.0.1:1"], "worker": ["127.0.0.1:2", "127.0.0.1:3"], "ps": ["127.0.0.1:4"]}
    assert [config["task"] for config in configs] == [
        {"type": "chief", "index": 0},
        {"type": "worker", "index": 0},
        {"type": "worker", "index": 1},
        {"type": "ps", "index": 0},
    ]
