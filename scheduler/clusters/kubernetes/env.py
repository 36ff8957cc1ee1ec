"""Environment variables and secrets of the user's container: a pure function of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kubernetes.names import host_name, once_a_plan
from tuttilab.scheduler.clusters.rank_env import framework_env, rank_env, workers_file
from tuttilab.scheduler.core.kinds.spark import TOKEN_SECRET
from tuttilab.scheduler.core.placement.work_places import runs_spark
from tuttilab.scheduler.domain.model import Framework, JobKind
from tuttilab.scheduler.domain.resources import CPU, GPU

ROOT: Final = "/tuttilab"
"""Where the pod's own volume is mounted, in our containers and in the user's."""
DIRS: Final = {name: f"{ROOT}/{name}" for name in ("work", "result", "code", "model", "data")}
_FOLDERS: Final = {
    "TUTTILAB_CODE_DIR": DIRS["code"],
    "MODEL_DIR": DIRS["model"],
    "DATA_DIR": DIRS["data"],
    "RESULT_DIR": DIRS["result"],
}
WORKERS_FILE: Final = f"{DIRS['result']}/.workers"
"""In a folder that the user's container can write, whoever it runs as."""
ENDPOINTS_FILE: Final = f"{DIRS['result']}/.endpoints"
"""The same, for the ports at which a Spark session listens."""
SECRETS_VOLUME: Final = "/run/tuttilab-secrets"
"""In memory, in the first container and in the user's."""
SECRETS_DIR: Final = f"{SECRETS_VOLUME}/own"
"""Made by the first container, so that nobody else may look into it."""
POD_IP: Final = "TUTTILAB_POD_IP"
"""Variable: the pod's own address, at which Spark listens."""
FRAMEWORK_PORT: Final = 29500
"""Each pod has an address of its own, so one port serves every framework."""


def pod_env(plan: LaunchPlan, pod: PodPlan) -> dict[str, str]:
    """In rising precedence: defaults, the job's, the plan's for the rank, those of the pod. All in the pod's spec, none later."""
    members = members_of(plan)
    env = {
        "PYTHONUNBUFFERED": "1",
        "HOME": DIRS["work"],  # a user without an entry in the image's passwd would have "/", where nothing can be written
        "OMP_NUM_THREADS": str(max(1, -(-pod.resources[CPU] // 1000))),
        **plan.work.env,
        **pod.env,
        **rank_env(plan, pod, members),
        **(_FOLDERS | workers_file(plan, pod, WORKERS_FILE) if plan.work.sidecar else {}),
        **({"TUTTILAB_SECRETS_DIR": SECRETS_DIR} if secrets_of(plan, pod) else {}),
        **({"TUTTILAB_ENDPOINTS": ENDPOINTS_FILE} if has_endpoints(plan, pod) else {}),
    }
    if not pod.resources[GPU]:
        # Else an image that says "all" would see every GPU of the node (NVIDIA container toolkit, "void" is none).
        env |= {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}
    if plan.work.framework is Framework.NONE:
        return env
    return env | framework_env(plan.work.framework, pod, members, _hosts(plan), [FRAMEWORK_PORT] * max(1, len(members)))


def secrets_of(plan: LaunchPlan, pod: PodPlan) -> Mapping[str, str]:
    """Files for the user's container, by name. The token of a session opens its driver, and so only the driver has it."""
    if pod.is_master:
        return {}
    return {name: text for name, text in plan.secrets.items() if pod.rank == 0 or name != TOKEN_SECRET}


def has_endpoints(plan: LaunchPlan, pod: PodPlan) -> bool:
    """Whether the pod is the driver of a session, which says where it listens."""
    return plan.kind == JobKind.SPARK and pod.rank == 0


def has_address(plan: LaunchPlan, pod: PodPlan) -> bool:
    """Whether the pod listens for others of its gang, or for kernels, and so has to know its own address."""
    return runs_spark(plan.kind, plan.work) and not pod.is_master


@once_a_plan
def members_of(plan: LaunchPlan) -> tuple[PodPlan, ...]:
    """All but the master."""
    return tuple(pod for pod in plan.pods if not pod.is_master)


@once_a_plan
def _hosts(plan: LaunchPlan) -> tuple[str, ...]:
    return tuple(host_name(plan, member) for member in members_of(plan))


def hosts_to_know(plan: LaunchPlan) -> list[str]:
    """The names that a member needs before user code starts: of rank 0, whom frameworks ask first."""
    if plan.work.framework is Framework.NONE:
        return []
    first = min(members_of(plan), key=lambda pod: pod.rank)
    return [host_name(plan, first)]
