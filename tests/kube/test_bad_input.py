"""What a cluster refuses, what is wrong with how it is reached, and who else is there: one sentence each, and nothing is lost.

The nodes are rows (KWOK).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.kube.access import ensure, product_rules
from tests.kube.api import ApiError
from tests.kube.cluster import Cluster
from tests.kube.pods import pod
from tests.kube.test_unkind_api import LABELS, Namespace, Site
from tests.kube.webhook import refusing_webhook
from tests.user_machine import UserMachine, eventually, made_machine

pytestmark = [pytest.mark.tier("control-plane"), pytest.mark.timeout(700)]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def kubeconfig(control_plane_cluster: Cluster) -> Path:
    return control_plane_cluster.service_account_kubeconfig(product_rules(), name="product")


@pytest.fixture
def node(control_plane_cluster: Cluster) -> Iterator[str]:
    names = control_plane_cluster.add_fake_nodes(1, prefix="bad", labels=LABELS)
    yield names[0]
    control_plane_cluster.remove_fake_nodes(names)


@pytest.fixture
def namespace(control_plane_cluster: Cluster) -> Iterator[Namespace]:
    name = control_plane_cluster.new_namespace("bad")
    yield Namespace(control_plane_cluster, name)
    control_plane_cluster.drop_namespace(name)


@pytest.fixture
def site(kubeconfig: Path, namespace: Namespace, node: str, tmp_path: Path) -> Iterator[Site]:
    assert node
    with made_machine(tmp_path) as machine:
        yield Site(machine, kubeconfig, namespace)


def quota(namespace: str) -> tuple[str, dict[str, Any]]:
    """Smaller than what the queues, which have no max, would let through."""
    body = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.cpu": "50m"}}}
    return f"/api/v1/namespaces/{namespace}/resourcequotas", body


def limit_range(namespace: str) -> tuple[str, dict[str, Any]]:
    body = {"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"cpu": "50m"}}]}}
    return f"/api/v1/namespaces/{namespace}/limitranges", body


def webhook(namespace: str, client: Mapping[str, str] = {"url": "https://127.0.0.1:9/check"}) -> tuple[str, dict[str, Any]]:
    """Where nothing else is given nobody answers: it would listen at the discard port."""
    hook = {
        "name": "site.example.org",
        "clientConfig": dict(client),
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    }
    return f"{ADMISSION}/validatingwebhookconfigurations", {"metadata": {"name": f"{namespace}-hook"}, "webhooks": [hook]}


@contextmanager
def in_force(cluster: Cluster, namespace: str, path: str, body: dict[str, Any], *, word: str) -> Iterator[None]:
    """Until the API server refuses a pod with that word, which it does a moment after the object was written."""
    cluster.api.post(path, body)
    probe = pod("probe", ["true"], image="none", limits={"cpu": "100m"})

    def is_refused() -> bool:
        try:
            cluster.api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", probe)
        except ApiError as error:
            return word in error.message
        return False

    try:
        eventually(is_refused, 150)
        yield
    finally:
        cluster.api.delete(f"{path}/{body['metadata']['name']}")


@pytest.mark.parametrize(
    ("obstacle", "word", "sentence"),
    [
        (quota, "exceeded quota", "a ResourceQuota of the namespace is smaller than our queues believe; make it larger"),
        (limit_range, "maximum cpu usage", "a LimitRange of the namespace does not allow pods of that size"),
        (webhook, "failed calling webhook", "an admission webhook of the cluster does not answer"),
    ],
)
def test_a_job_that_the_cluster_refuses_waits_with_the_reason_and_starts_once_it_is_let(
    control_plane_cluster: Cluster, site: Site, namespace: Namespace, obstacle: Any, word: str, sentence: str
) -> None:
    with in_force(control_plane_cluster, namespace.name, *obstacle(namespace.name), word=word):
        job = site.submit()
        site.until_it_waits_for(job, sentence)
        assert namespace.pods() == []

    eventually(lambda: site.runs(job), 90)
    assert site.machine.run("cancel", job).code == 0
    site.until_it_ended(job, "Cancelled")


def test_a_job_that_a_webhook_refuses_fails_with_what_the_webhook_says(
    control_plane_cluster: Cluster, site: Site, namespace: Namespace
) -> None:
    with refusing_webhook(control_plane_cluster.control_plane, "pods need the label team") as client:
        path, body = webhook(namespace.name, client)
        with in_force(control_plane_cluster, namespace.name, path, body, word="the label team"):
            job = site.submit()
            site.until_it_ended(job, "Failed")

    reason = site.job(job)["reason"]
    assert "an admission webhook of the cluster refuses the pod: " in reason
    assert 'webhook "site.example.org" denied the request: pods need the label team' in reason
    assert namespace.pods() == []


def test_a_job_that_a_policy_of_the_cluster_does_not_allow_fails_with_what_the_policy_says(
    control_plane_cluster: Cluster, site: Site, namespace: Namespace
) -> None:
    name = f"{namespace.name}-policy"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        },
        "validations": [{"expression": "false", "message": "pods need the label team"}],
    }
    binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
    ensure(control_plane_cluster.api, f"{ADMISSION}/validatingadmissionpolicybindings", binding)
    path = f"{ADMISSION}/validatingadmissionpolicies"
    with in_force(control_plane_cluster, namespace.name, path, {"metadata": {"name": name}, "spec": spec}, word="the label team"):
        job = site.submit()
        site.until_it_ended(job, "Failed")
    control_plane_cluster.api.delete(f"{ADMISSION}/validatingadmissionpolicybindings/{name}")

    reason = site.job(job)["reason"]
    assert "a ValidatingAdmissionPolicy of the cluster refuses the pod" in reason
    assert "pods need the label team" in reason
    assert namespace.pods() == []


def test_a_claim_that_is_not_there_is_named_where_the_job_waits(site: Site, namespace: Namespace) -> None:
    file = site.machine.home / "tuttilab.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    config["storages"] = [{"claim": "not-there", "groups": {"default": "rw"}}]
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert site.machine.run("scheduler", "reload").out == "storage claim not-there is new\n"
    asked = ("--cpus", "0.1", "--memory", "64Mi", "--mount", "not-there:/data", "--json", "--", "true")
    job = str(site.machine.run("submit", *asked).json["id"])

    # Another node is tried at once: what is told is in the job's attempts and in its log.
    eventually(lambda: site.job(job)["attempts"][0]["phase"] == "Lost", 120)

    assert "Unschedulable" in site.machine.run("job", job).out
    assert 'persistentvolumeclaim "not-there" not found' in site.machine.run("logs", job, "--attempt", "1").out
    assert site.machine.run("cancel", job).code == 0
    site.until_it_ended(job, "Cancelled")


def bad_kubeconfigs(good: Path, folder: Path) -> dict[str, tuple[Path, str | None, str]]:
    """By what is wrong: the file, the context, and what is to be said."""
    body = json.loads(good.read_text(encoding="utf-8"))

    def written(name: str, change: dict[str, Any] | str) -> Path:
        path = folder / f"{name}.kubeconfig"
        path.write_text(change if isinstance(change, str) else json.dumps(body | change), encoding="utf-8")
        return path

    def cluster(**given: str) -> dict[str, Any]:
        return {"clusters": [{**body["clusters"][0], "cluster": {**body["clusters"][0]["cluster"], **given}}]}

    token = {"users": [{"name": body["users"][0]["name"], "user": {"token": "expired"}}]}
    return {
        "missing": (folder / "nothing.kubeconfig", None, "cannot be used ("),
        "nonsense": (written("nonsense", "clusters: ["), None, "cannot be used ("),
        "context": (written("context", {}), "production", "cannot be used ("),
        "closed": (written("closed", cluster(server="https://127.0.0.1:9")), None, "its API server does not answer ("),
        "nobody": (written("nobody", token), None, "the API server does not accept our credentials"),
    }


def test_a_kubeconfig_that_is_wrong_is_told_where_the_job_waits(kubeconfig: Path, namespace: Namespace, tmp_path: Path) -> None:
    """Of several clusters, each with another mistake."""
    wrong = bad_kubeconfigs(kubeconfig, tmp_path)
    with made_machine(tmp_path) as machine:
        common = {"kind": "kubernetes", "namespace": namespace.name, "sidecar_image": "none", "image": "none"}
        clusters = [
            {"name": name, "kubeconfig": str(path), "report_url": "http://127.0.0.1:9", **common}
            | ({"context": context} if context else {})
            for name, (path, context, _) in wrong.items()
        ]
        file = machine.home / "tuttilab.yaml"
        file.write_text(yaml.safe_dump({"clusters": clusters}), encoding="utf-8")
        said = machine.run("up", "--config", str(file))
        assert said.code == 0, said

        for name, (path, _, sentence) in wrong.items():
            job = submitted(machine, name)
            told = told_of(machine, job)
            assert sentence in told, (name, told)
            assert path.name in told or "cannot be used" not in sentence
            assert machine.run("cancel", job).code == 0


def submitted(machine: UserMachine, cluster: str) -> str:
    """Once the control plane has asked it for the first time."""

    def submit() -> str:
        said = machine.run("submit", "--cluster", cluster, "--json", "--", "true")
        return str(said.json["id"]) if said.code == 0 else ""

    return str(eventually(submit, 90))


def told_of(machine: UserMachine, job: str) -> str:
    def told() -> str:
        said = machine.why_it_waits(job)
        return said if "does not answer" in said else ""

    return str(eventually(told, 90))


def test_two_control_planes_on_one_cluster_leave_each_others_jobs_alone(
    kubeconfig: Path, namespace: Namespace, node: str, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with made_machine(tmp_path / "one") as first, made_machine(tmp_path / "two") as second:
        one, two = Site(first, kubeconfig, namespace), Site(second, kubeconfig, namespace)
        jobs = {one: one.submit(), two: two.submit()}
        for each, job in jobs.items():
            eventually(partial(each.runs, job), 150)

        eventually(lambda: "of others" in first.run("nodes").out, 90)
        assert one.machine.run("cancel", jobs[one]).code == 0
        one.until_it_ended(jobs[one], "Cancelled")
        # For longer than a look at the whole cluster, which would find what nobody asked for.
        time.sleep(8)

        assert two.runs(jobs[two])
        assert [pod["metadata"]["labels"]["tuttilab.io/job"] for pod in namespace.pods()] == [jobs[two]]
        assert two.machine.run("cancel", jobs[two]).code == 0
        two.until_it_ended(jobs[two], "Cancelled")


def test_a_cluster_that_is_given_up_is_let_go_without_a_control_plane(
    control_plane_cluster: Cluster, site: Site, namespace: Namespace
) -> None:
    job = site.submit()
    eventually(lambda: site.runs(job), 150)
    machine = site.machine
    assert "runs and takes its finalizers off" in machine.run("cluster", "release", "k").err
    plane = psutil.Process(machine.runtime().pid)
    plane.kill()
    plane.wait(150)
    running = machine.run("cluster", "release", "k")
    assert running.code == 3
    assert f"1 pod on cluster k has not ended (of job {job[:8]})" in running.err
    control_plane_cluster.api.delete(f"/api/v1/namespaces/{namespace.name}")
    eventually(lambda: any("deletionTimestamp" in pod["metadata"] for pod in namespace.pods()), 150)
    namespace.end_those_that_are_told_to()
    time.sleep(3)
    assert control_plane_cluster.api.exists(f"/api/v1/namespaces/{namespace.name}"), "the finalizer keeps it"

    said = machine.run("cluster", "release", "k")

    assert said.code == 0, said
    assert f"of attempt 1 of job {job[:8]}: ended" in said.out
    assert said.out.endswith("1 pod released.\n")
    eventually(lambda: not control_plane_cluster.api.exists(f"/api/v1/namespaces/{namespace.name}"), 150)
    assert machine.run("cluster", "release", "k").out == "No pod on cluster k has our finalizer.\n"
    assert machine.run("up", "--config", str(machine.home / "tuttilab.yaml")).code == 0
    try:
        eventually(lambda: site.job(job)["attempts"][0]["phase"] == "Lost", 100)
    except AssertionError:
        raise AssertionError(f"{site.job(job)}\n{(machine.state / 'control.log').read_text()[-3000:]}") from None
    assert machine.run("cancel", job).code == 0
    site.until_it_ended(job, "Cancelled")
