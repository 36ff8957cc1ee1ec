"""Pods of Spark: their image and address, which secrets each has, and who may connect to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clusters import plan
from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes import objects
from tuttilab.scheduler.clusters.kubernetes.pods import image_of, pod_body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.core.kinds.spark_size import DRIVER, EXECUTOR
from tuttilab.scheduler.core.placement.work_places import SPARK_APPLICATION, why_not_bare
from tuttilab.scheduler.domain.model import Framework, JobKind
from tuttilab.scheduler.domain.resources import Resources

SETTINGS = KubernetesSettings(
    namespace="ml",
    sidecar_image="registry.example/sidecar:1",
    report_url="http://10.0.0.5:8790",
    image="registry.example/default:1",
    spark_image="registry.example/spark:1",
    isolates_gangs=True,
)
SECRETS = {"spark-token": "0123456789abcdef-token", "spark-secret": "0123456789abcdef-secret"}
SNAPSHOTS = Path(__file__).parent / "bodies"


def session(members: int = 3, **work: Any) -> LaunchPlan:
    asked = {"env": {"TUTTILAB_SPARK_SPEC": "{}"}, "grace_s": 10.0, **work}
    framework = Framework.SPARK if members > 1 else Framework.NONE
    made = plan(
        "job",
        *("/home/ann/.venv/bin/python", "-m", "tuttilab.scheduler.spark.server"),
        members=members,
        resources=Resources.parse({"cpu": 1, "memory": "1152Mi"}),
        work={"framework": framework, **asked},
        secrets=SECRETS if members > 1 else {"spark-token": SECRETS["spark-token"]},
    )
    roles = {0: DRIVER, -1: "master"}
    pods = tuple(replace(pod, role=roles.get(pod.rank, EXECUTOR)) for pod in made.pods)
    return replace(made, kind=JobKind.SPARK, pods=pods)


SESSION = session()
MASTER, FIRST, SECOND = SESSION.pods[:3]
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "job-1-master", "uid": "u-1"}


def main_of(body: dict[str, Any]) -> dict[str, Any]:
    (found,) = body["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("spark_driver", pod_body(SESSION, FIRST, SETTINGS, "i1", OWNER)),
        ("spark_executor", pod_body(SESSION, SECOND, SETTINGS, "i1", OWNER)),
        ("spark_driver_plan", objects.sidecar_plan(SESSION, FIRST, SETTINGS)),
        ("spark_executor_plan", objects.sidecar_plan(SESSION, SECOND, SETTINGS)),
        ("spark_policy", objects.policy_body(SESSION, "i1", OWNER)),
    ],
)
def test_the_body_is_the_one_that_was_reviewed(name: str, body: dict[str, Any]) -> None:
    assert body == json.loads((SNAPSHOTS / f"{name}.json").read_text(encoding="utf-8"))


def test_secrets_are_in_the_plans_of_our_containers_alone_and_a_session_s_token_in_its_driver_s() -> None:
    plans = {pod.name: objects.sidecar_plan(SESSION, pod, SETTINGS) for pod in SESSION.pods}
    assert {name: sorted(own.get("secrets", {})) for name, own in plans.items()} == {
        MASTER.name: [],
        FIRST.name: ["spark-secret", "spark-token"],
        SECOND.name: ["spark-secret"],
        SESSION.pods[3].name: ["spark-secret"],
    }
    for pod in SESSION.pods:
        text = json.dumps(pod_body(SESSION, pod, SETTINGS, "i1", OWNER))
        assert not any(secret in text for secret in SECRETS.values())
    driver = pod_body(SESSION, FIRST, SETTINGS, "i1", OWNER)["spec"]
    holders = [one["name"] for one in (*driver["initContainers"], *driver["containers"]) if "secrets" in str(one["volumeMounts"])]
    assert holders == ["prepare", "main"]
    assert {"name": "secrets", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} in driver["volumes"]


@pytest.mark.parametrize(
    ("job", "settings", "image", "command"),
    [
        (SESSION, SETTINGS, "registry.example/spark:1", "python3"),
        (session(image="own:2"), SETTINGS, "own:2", "/home/ann/.venv/bin/python"),
        (SESSION, replace(SETTINGS, spark_image=None), None, "python3"),
        (plan("job", "x"), SETTINGS, "registry.example/default:1", "x"),
        (plan("job", "/a/python", work={"env": {SPARK_APPLICATION: "{}"}}), SETTINGS, "registry.example/spark:1", "python3"),
    ],
)
def test_the_clusters_image_for_spark_has_a_python_of_its_own(
    job: LaunchPlan, settings: KubernetesSettings, image: str | None, command: str
) -> None:
    assert image_of(job, settings) == image
    first = next(pod for pod in job.pods if not pod.is_master)
    assert main_of(pod_body(job, first, settings, "i1", None))["command"][0] == command


def test_a_session_of_one_pod_listens_at_its_own_address_and_an_application_says_nowhere_that_it_does() -> None:
    def variables(job: LaunchPlan, pod: PodPlan) -> set[str]:
        return {each["name"] for each in main_of(pod_body(job, pod, SETTINGS, "i1", None))["env"]}

    alone = session(1)
    assert {"TUTTILAB_POD_IP", "TUTTILAB_ENDPOINTS", "TUTTILAB_SECRETS_DIR"} <= variables(alone, alone.pods[0])
    assert "TUTTILAB_ENDPOINTS" not in variables(SESSION, SECOND)
    application = plan("job", "python3", work={"env": {SPARK_APPLICATION: "{}"}})
    assert variables(application, application.pods[0]) & {"TUTTILAB_POD_IP", "TUTTILAB_ENDPOINTS", "TUTTILAB_SECRETS_DIR"} == {
        "TUTTILAB_POD_IP"
    }


def test_an_application_is_no_bare_pod() -> None:
    job = plan("job", "python3", work={"env": {SPARK_APPLICATION: "{}"}, "sidecar": False})
    why = why_not_bare(job.work)
    assert why is not None
    assert "the programs of a Spark application" in why
