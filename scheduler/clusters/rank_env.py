"""Environment variables that tell a pod who it is in its gang, for us and for its framework: the same on every cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.domain.model import Framework

WORKERS_FILE: Final = "TUTTILAB_WORKERS_FILE"
"""As in `sidecar.wish`."""
SPARK_MASTER: Final = "TUTTILAB_SPARK_MASTER"
"""Where the driver's pod, the first of the gang, listens for the executors."""
TF_ROLES: Final = ("chief", "worker", "ps", "evaluator")


def rank_env(plan: LaunchPlan, pod: PodPlan, members: Sequence[PodPlan]) -> dict[str, str]:
    """``members``: the pods of the plan without the master."""
    return {
        "TUTTILAB_JOB_ID": plan.job_id,
        "TUTTILAB_ATTEMPT": str(plan.attempt),
        "TUTTILAB_RANK": str(pod.rank),
        "TUTTILAB_WORLD_SIZE": str(len(members)),
        "TUTTILAB_MIN_WORLD_SIZE": str(len(members) if plan.min_members is None else plan.min_members),
        "TUTTILAB_MAX_WORLD_SIZE": str(len(members) if plan.max_members is None else plan.max_members),
        "TUTTILAB_ROLE": pod.role,
    }


def may_ask_for_workers(plan: LaunchPlan, pod: PodPlan) -> bool:
    """Whether it is the first member of a gang that comes and goes: it may say how many workers the job can use."""
    return plan.work.framework is Framework.NONE and plan.min_members != plan.max_members and pod.rank == 0


def workers_file(plan: LaunchPlan, pod: PodPlan, path: str) -> dict[str, str]:
    """The variable of the file in which it says so."""
    return {WORKERS_FILE: path} if may_ask_for_workers(plan, pod) else {}


def framework_env(
    framework: Framework, pod: PodPlan, members: Sequence[PodPlan], hosts: Sequence[str], ports: Sequence[int]
) -> dict[str, str]:
    """``hosts``: of the members, in their order. ``ports``: one for the gang, or for TensorFlow one a member."""
    if framework is Framework.TORCH:
        return {
            "MASTER_ADDR": hosts[0],
            "MASTER_PORT": str(ports[0]),
            "RANK": str(pod.rank),
            "WORLD_SIZE": str(len(members)),
            "LOCAL_RANK": "0",  # a pod is a host of its own: its GPUs count from 0
        }
    if framework is Framework.XGBOOST:
        return {
            "DMLC_TRACKER_URI": hosts[0],
            "DMLC_TRACKER_PORT": str(ports[0]),
            "DMLC_NUM_WORKER": str(len(members)),
            "DMLC_TASK_ID": str(pod.rank),
            "DMLC_ROLE": "worker",
        }
    if framework is Framework.SPARK:
        return {SPARK_MASTER: f"{hosts[0]}:{ports[0]}"}
    if framework is Framework.TENSORFLOW:
        return {"TF_CONFIG": json.dumps(_tf_config(pod, members, hosts, ports))}
    return {}


def _tf_config(pod: PodPlan, members: Sequence[PodPlan], hosts: Sequence[str], ports: Sequence[int]) -> dict[str, object]:
    """TensorFlow knows four roles; a pod with another role is a worker."""
    cluster: dict[str, list[str]] = {}
    task: dict[str, object] = {}
    for member, host, port in zip(members, hosts, ports, strict=True):
        role = member.role if member.role in TF_ROLES else "worker"
        addresses = cluster.setdefault(role, [])
        if member.name == pod.name:
            task = {"type": role, "index": len(addresses)}
        addresses.append(f"{host}:{port}")
    return {"cluster": cluster, "task": task}
