"""The bodies beside the pods: the gang's headless Service and NetworkPolicy, the Secret with the plan of each pod's side-car."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes import names
from tuttilab.scheduler.clusters.kubernetes.env import (
    DIRS,
    ENDPOINTS_FILE,
    SECRETS_DIR,
    WORKERS_FILE,
    has_address,
    has_endpoints,
    hosts_to_know,
    members_of,
    secrets_of,
)
from tuttilab.scheduler.clusters.kubernetes.pods import OWN_DIR, PASSWD, PORT, Body
from tuttilab.scheduler.clusters.kubernetes.settings import KubernetesSettings
from tuttilab.scheduler.clusters.rank_env import may_ask_for_workers
from tuttilab.scheduler.core.kinds.spark import PORTS_ON_A_NETWORK
from tuttilab.scheduler.domain.model import JobKind


def service_body(plan: LaunchPlan, installation: str, owner: Body) -> Body:
    """Without an address, and with names for pods that are not ready: members find each other at the barrier."""
    labels = names.attempt_labels(plan, installation)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(plan),
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _members(labels),
        },
    }


def policy_body(plan: LaunchPlan, installation: str, owner: Body) -> Body:
    """Only members connect to members; where they connect to stays free. A kubelet's probes pass always.

    The ports of a Spark session, which ask for its token, are open to whoever the cluster's network lets come: kernels and proxies
    are not always pods.
    """
    labels = names.attempt_labels(plan, installation)
    members = {"matchLabels": _members(labels)}
    ingress: list[Body] = [{"from": [{"podSelector": members}]}]
    if plan.kind == JobKind.SPARK:
        ingress.append({"ports": [{"protocol": "TCP", "port": port} for port in PORTS_ON_A_NETWORK]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.service_name(plan), "labels": labels, "ownerReferences": [owner]},
        "spec": {"podSelector": members, "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _members(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: labels[key] for key in (names.INSTALLATION, names.JOB, names.ATTEMPT, names.EPOCH)}


def secret_body(
    plan: LaunchPlan, pods: tuple[PodPlan, ...], settings: KubernetesSettings, installation: str, owner: Body, limits: Body
) -> Body:
    """One key a pod, of which the pod mounts its own. ``limits``: of side-cars, by their names in `config.model`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names.secret_name(plan, pods),
            "labels": names.attempt_labels(plan, installation),
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "stringData": {names.pod_name(pod.name): json.dumps(sidecar_plan(plan, pod, settings) | limits) for pod in pods},
    }


def sidecar_plan(plan: LaunchPlan, pod: PodPlan, settings: KubernetesSettings) -> dict[str, Any]:
    """What the programs of `sidecar/container` read. Only the master's has the gang's key."""
    master = next((other for other in plan.pods if other.is_master), None)
    is_member = master is not None and not pod.is_master
    members = [{"pod": other.name, "rank": other.rank} for other in members_of(plan)] if pod.is_master else []
    return {
        "job_id": plan.job_id,
        "attempt": plan.attempt,
        "epoch": plan.epoch,
        "pod": pod.name,
        "rank": pod.rank,
        "env": dict(plan.work.env),
        "code": plan.work.code,
        "inputs": [asdict(needed) for needed in plan.work.inputs],
        "outputs": [asdict(output) for output in plan.work.outputs],
        "artifacts_url": settings.report_url,
        "report_url": settings.report_url,
        "grace_s": plan.work.grace_s,
        "dirs": {**DIRS, "pod": OWN_DIR},
        "token": pod.token,
        "gang_key": plan.gang_key if pod.is_master else None,
        "members": members,
        "master": {"address": f"{names.host_name(plan, master)}:{PORT}"} if master and is_member else None,
        "hosts": [] if pod.is_master else hosts_to_know(plan),
        "port": PORT,
        **({"workers_file": WORKERS_FILE} if may_ask_for_workers(plan, pod) else {}),
        **({"endpoints_file": ENDPOINTS_FILE} if has_endpoints(plan, pod) else {}),
        **({"passwd_file": f"{OWN_DIR}/{PASSWD}"} if has_address(plan, pod) else {}),
        **({"secrets_dir": SECRETS_DIR, "secrets": dict(secrets)} if (secrets := secrets_of(plan, pod)) else {}),
        "message_file": "/dev/termination-log",
    }


def owner_reference(pod: Body) -> Body:
    """To the pod as the API server has it: what has this reference goes when that pod goes."""
    metadata = pod["metadata"]
    return {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
