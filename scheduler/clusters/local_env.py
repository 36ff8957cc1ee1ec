"""The environment of a pod's main command on this machine: pure, from the plan, the directories and what was reserved."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.model import Framework
from tuttilab.scheduler.resources import CPU

HOST: Final = "127.0.0.1"
KEPT: Final = re.compile(
    r"PATH|HOME|LANG|LC_[A-Z]+|TZ|USER|LOGNAME|SHELL|TMPDIR|VIRTUAL_ENV|JAVA_HOME|LD_LIBRARY_PATH|CONDA_PREFIX"
)
"""What a pod inherits of the service's environment: where programs are and how people write, nothing that may be a secret."""
POD_MARK: Final = "TUTTILAB_POD_DIR"
"""By this variable the processes of a pod are found when their sidecar was killed."""
TF_ROLES: Final = ("chief", "worker", "ps", "evaluator")


@dataclass(frozen=True, slots=True)
class PodDirs:
    """MODEL_DIR and DATA_DIR are shared by the members of an attempt, the others are the pod's own."""

    pod: Path
    work: Path
    result: Path
    code: Path
    secrets: Path
    model: Path
    data: Path

    @classmethod
    def of(cls, attempt: Path, pod: str) -> PodDirs:
        own, shared = attempt / pod, attempt / ".shared"
        return cls(
            pod=own,
            work=own / "work",
            result=own / "result",
            code=own / "code",
            secrets=own / "secrets",
            model=shared / "model",
            data=shared / "data",
        )

    def show(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in self.__slots__}


def base_env(environ: Mapping[str, str], python: str) -> dict[str, str]:
    """What every pod starts from. ``python`` of a job is the interpreter that we run under, unless PATH already says so."""
    env = {name: value for name, value in environ.items() if KEPT.fullmatch(name)}
    folder = str(Path(python).parent)
    path = env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    env["PATH"] = path if folder in path.split(":") else f"{folder}:{path}"
    return env


def ports_needed(plan: LaunchPlan) -> int:
    members = sum(not pod.is_master for pod in plan.pods)
    return {Framework.NONE: 0, Framework.TENSORFLOW: members}.get(plan.work.framework, 1)


def pod_env(
    plan: LaunchPlan, pod: PodPlan, base: Mapping[str, str], dirs: PodDirs, gpus: Sequence[str], ports: Sequence[int]
) -> dict[str, str]:
    """Base, then what the job says, then what the plan adds for the rank, then what only we know."""
    members = [other for other in plan.pods if not other.is_master]
    visible = ",".join(gpus)
    env = {
        "PYTHONUNBUFFERED": "1",  # else a job's lines are seen 8 KiB late
        "OMP_NUM_THREADS": str(max(1, -(-pod.resources[CPU] // 1000))),
        **base,
        **plan.work.env,
        **pod.env,
        "TUTTILAB_JOB_ID": plan.job_id,
        "TUTTILAB_ATTEMPT": str(plan.attempt),
        "TUTTILAB_RANK": str(pod.rank),
        "TUTTILAB_WORLD_SIZE": str(len(members)),
        "TUTTILAB_MIN_WORLD_SIZE": str(len(members) if plan.least is None else plan.least),
        "TUTTILAB_MAX_WORLD_SIZE": str(len(members) if plan.most is None else plan.most),
        "TUTTILAB_ROLE": pod.role,
        "TUTTILAB_CODE_DIR": str(dirs.code),
        "TUTTILAB_SECRETS_DIR": str(dirs.secrets),
        "TUTTILAB_ENDPOINTS": str(dirs.pod / "offered.json"),
        POD_MARK: str(dirs.pod),
        "MODEL_DIR": str(dirs.model),
        "DATA_DIR": str(dirs.data),
        "RESULT_DIR": str(dirs.result),
        "CUDA_VISIBLE_DEVICES": visible,
        "NVIDIA_VISIBLE_DEVICES": visible,
    }
    return env | _framework_env(plan.work.framework, pod, members, ports)


def _framework_env(framework: Framework, pod: PodPlan, members: Sequence[PodPlan], ports: Sequence[int]) -> dict[str, str]:
    if framework is Framework.TORCH:
        return {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(ports[0]),
            "RANK": str(pod.rank),
            "WORLD_SIZE": str(len(members)),
            "LOCAL_RANK": "0",  # a pod is a host of its own: its GPUs count from 0
        }
    if framework is Framework.XGBOOST:
        return {
            "DMLC_TRACKER_URI": HOST,
            "DMLC_TRACKER_PORT": str(ports[0]),
            "DMLC_NUM_WORKER": str(len(members)),
            "DMLC_TASK_ID": str(pod.rank),
            "DMLC_ROLE": "worker",
        }
    if framework is Framework.TENSORFLOW:
        return {"TF_CONFIG": json.dumps(_tf_config(pod, members, ports))}
    return {}


def _tf_config(pod: PodPlan, members: Sequence[PodPlan], ports: Sequence[int]) -> dict[str, object]:
    """TensorFlow knows four roles; whoever has another is a worker to it."""
    cluster: dict[str, list[str]] = {}
    task: dict[str, object] = {}
    for member, port in zip(members, ports, strict=True):
        role = member.role if member.role in TF_ROLES else "worker"
        addresses = cluster.setdefault(role, [])
        if member.name == pod.name:
            task = {"type": role, "index": len(addresses)}
        addresses.append(f"{HOST}:{port}")
    return {"cluster": cluster, "task": task}
