"""What an administrator says of a Kubernetes cluster, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuttilab.scheduler.client import read_mount, read_sidecar
from tuttilab.scheduler.client.manifests import parse_manifests
from tuttilab.scheduler.clusters.kubernetes.settings import Binding, KubernetesSettings
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.core.sidecars import chosen
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Toleration
from tuttilab.scheduler.domain.requests import JobRequest

LEAST = {
    "name": "k",
    "kind": "kubernetes",
    "kubeconfig": "k.conf",
    "namespace": "ml",
    "sidecar_image": "registry.example/sidecar:1",
    "report_url": "http://10.0.0.5:8790/",
}


def parsed(cluster: dict[str, Any], **more: Any) -> Config:
    return parse_config({"clusters": [cluster], **more}, Path("/state"), "t.yaml")


def test_the_least_that_has_to_be_said() -> None:
    (cluster,) = parsed(LEAST).clusters

    assert (cluster.name, cluster.kind, cluster.nodes) == ("k", "kubernetes", None)
    assert cluster.kubernetes == KubernetesSettings(
        kubeconfig="/state/k.conf",
        namespace="ml",
        sidecar_image="registry.example/sidecar:1",
        report_url="http://10.0.0.5:8790",
    )


def test_all_that_can_be_said() -> None:
    own = {
        "context": "prod",
        "namespaces": {"research": "ml-research"},
        "image": "registry.example/python@sha256:00",
        "spark_image": "registry.example/spark:1",
        "tolerations": ["dedicated=ml:NoSchedule", "spot"],
        "node_labels": {"pool": "ml"},
        "uid": 2000,
        "isolate_gangs": True,
        "binding": "direct",
        "container_patience_s": 90,
        "pythons": {"registry.example/old:1": "3.9"},
    }

    config = parsed({**LEAST, **own}, listen={"pods": "10.0.0.5:8790"})

    settings = config.clusters[0].kubernetes
    assert settings is not None
    assert settings.tolerations == (Toleration("dedicated", "ml", "NoSchedule"), Toleration("spot"))
    assert (settings.namespace_of("research"), settings.namespace_of("others")) == ("ml-research", "ml")
    assert settings.all_namespaces == ("ml", "ml-research")
    assert settings.isolates_gangs
    assert settings.pythons == {"registry.example/old:1": "3.9"}
    assert settings.container_patience_s == 90.0
    assert (settings.image, settings.spark_image) == ("registry.example/python@sha256:00", "registry.example/spark:1")
    assert settings.binding is Binding.DIRECT
    assert (config.listen.pods_address, config.host_names) == (("10.0.0.5", 8790), ("127.0.0.1", "10.0.0.5"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kubeconfig": None}, "clusters[0].kubeconfig: expected a kubeconfig, or in_cluster: true for a control plane in a pod"),
        ({"in_cluster": True}, "clusters[0].kubeconfig: expected a kubeconfig, or in_cluster: true"),
        ({"kubeconfig": None, "in_cluster": True, "context": "c"}, "clusters[0].context: it names a part of a kubeconfig;"),
        ({"namespace": None}, "clusters[0].namespace: None is not a namespace;"),
        ({"namespace": "ML"}, "clusters[0].namespace: 'ML' is not a namespace;"),
        ({"namespaces": {"a": "x.y"}}, "clusters[0].namespaces.a: 'x.y' is not a namespace;"),
        ({"pythons": {"i:1": "3.12.1"}}, "clusters[0].pythons.i:1: '3.12.1' is no version of Python; expected major and minor,"),
        ({"pythons": {"a b": "3.12"}}, "clusters[0].pythons: 'a b' is not an image;"),
        ({"container_patience_s": 0.5}, "clusters[0].container_patience_s: 0.5 cannot be used; expected 1 to 86400 seconds."),
        ({"sidecar_image": None}, "clusters[0].sidecar_image: '' is not an image;"),
        ({"image": "a b"}, "clusters[0].image: 'a b' is not an image;"),
        ({"report_url": None}, "clusters[0].report_url: None is no URL at which pods reach the control plane;"),
        ({"report_url": "ftp://x"}, "clusters[0].report_url: 'ftp://x' is no URL"),
        ({"tolerations": ["a=b:Sometimes"]}, "clusters[0].tolerations[0]: 'a=b:Sometimes' is no taint;"),
        ({"uid": 0}, "clusters[0].uid: 0 cannot be used; expected 1 to 2147483647: pods do not run as root."),
        ({"binding": "podgroup"}, "clusters[0].binding: 'podgroup' is not known; expected one of auto, direct, scheduler."),
        ({"nodes": [{"name": "a", "cpus": 1, "memory": "1Gi"}]}, "clusters[0].nodes: a kubernetes cluster has nodes of its own;"),
        ({"kubeconfg": "x"}, "unknown key clusters[0].kubeconfg; did you mean 'kubeconfig'?"),
    ],
)
def test_refusal_names_the_key_and_the_remedy(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as refusal:
        parsed({key: value for key, value in {**LEAST, **changes}.items() if value is not None})

    assert str(refusal.value).startswith(f"t.yaml: {sentence}")


@pytest.mark.parametrize("key", ["kubeconfig", "namespace", "image", "report_url", "logs", "uid"])
def test_keys_of_kubernetes_go_with_its_kind_only(key: str) -> None:
    with pytest.raises(BadInput, match=rf"clusters\[0\].{key}: it goes with kind kubernetes"):
        parsed({"name": "here", "kind": "local", key: 5 if key == "uid" else "x"})


def test_replicas_on_postgres_need_one_place_for_logs() -> None:
    store = {"url": "postgresql+psycopg://u@h/d"}
    with pytest.raises(BadInput, match=r"clusters\[0\].logs: several control planes on Postgres keep the logs"):
        parsed(LEAST, store=store)

    several = parsed({**LEAST, "logs": "/shared/logs"}, store=store)
    alone = parsed(LEAST, store={**store, "alone": True})

    folders = [config.clusters[0].kubernetes.logs for config in (several, alone) if config.clusters[0].kubernetes is not None]
    assert folders == ["/shared/logs", None]


@pytest.mark.parametrize("pods", ["10.0.0.5", ":80", "10.0.0.5:0", "10.0.0.5:http"])
def test_an_address_for_pods_that_is_none(pods: str) -> None:
    with pytest.raises(BadInput, match=r"listen.pods: .* is no address and port"):
        parsed(LEAST, listen={"pods": pods})


def test_what_the_guide_says_of_volumes_and_side_cars_of_jobs_is_read() -> None:
    guide = (Path(__file__).parents[3] / "docs/guides/kubernetes.md").read_text(encoding="utf-8")
    chapters = guide.partition("## 6. Volumes of jobs")[2].partition("## What a job finds")[0]
    manifest, registry, ports = re.findall(r"^```yaml\n(.*?)^```$", chapters, re.MULTILINE | re.DOTALL)
    words = re.findall(r"--mount (\S+:/\S*)", chapters)

    (job,) = parse_manifests(manifest, "guide", JobRequest)
    (proxy,) = parsed(LEAST, **yaml.safe_load(registry)).sidecars

    assert parsed(LEAST, **yaml.safe_load(ports)).driver_ports == range(30100, 30300)
    assert [mount.path for mount in job.mounts] == ["/me", "/data"]
    assert [read_mount(word).path for word in words] == ["/me", "/data"]
    asked = read_sidecar(re.findall(r"--sidecar (\S+)`", chapters)[0])
    assert chosen([asked], [proxy])[0].params == {"zone": "eu-1", "level": "1"}
