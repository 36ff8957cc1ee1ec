"""Environment variables of a pod's main command on this machine: a pure function of plan, directories and reservations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.rank_env import framework_env, rank_env, workers_file
from tuttilab.scheduler.domain.model import Framework
from tuttilab.scheduler.domain.resources import CPU

HOST: Final = "127.0.0.1"
KEPT: Final = re.compile(
    r"PATH|HOME|LANG|LC_[A-Z]+|TZ|USER|LOGNAME|SHELL|TMPDIR|VIRTUAL_ENV|JAVA_HOME|LD_LIBRARY_PATH|CONDA_PREFIX"
)
"""What a pod inherits from the service's environment: paths of programs and the locale, nothing that may be a secret."""
ALWAYS_KEPT: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG")
"""What it inherits of that beside the submitter's environment: nothing that belongs to the service's own interpreter or zone."""
OF_THE_SERVICE: Final = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "VIRTUAL_ENV"})
"""What it does not inherit where it runs as its owner."""
POD_MARK: Final = "TUTTILAB_POD_DIR"
"""Marks the processes of a pod, so that they are found when their sidecar was killed."""


@dataclass(frozen=True, slots=True)
class PodDirs:
    """MODEL_DIR and DATA_DIR are shared by the members of an attempt, the others are the pod's own."""

    pod: Path
    work: Path
    result: Path
    code: Path
    secrets: Path
    offers: Path
    """Where the job says at which addresses it can be reached."""
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
            offers=own / "offers",
            model=shared / "model",
            data=shared / "data",
        )

    def show(self) -> dict[str, str]:
        return {name: str(getattr(self, name)) for name in self.__slots__}


def base_env(environ: Mapping[str, str], python: str) -> dict[str, str]:
    """Variables that every pod inherits. PATH gets the folder of ``python`` first, unless it is already there."""
    env = {name: value for name, value in environ.items() if KEPT.fullmatch(name)}
    folder = str(Path(python).parent)
    path = env.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    env["PATH"] = path if folder in path.split(":") else f"{folder}:{path}"
    return env


def ports_needed(plan: LaunchPlan) -> int:
    members = sum(not pod.is_master for pod in plan.pods)
    return {Framework.NONE: 0, Framework.TENSORFLOW: members}.get(plan.work.framework, 1)


def pod_env(
    plan: LaunchPlan,
    pod: PodPlan,
    base: Mapping[str, str],
    dirs: PodDirs,
    gpus: Sequence[str],
    ports: Sequence[int],
    login: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Variables in rising precedence: the submitter's or else base, the job's, the plan's for the rank, those of the cluster.

    ``login``: those of the owner's account, where the pod runs as that.
    """
    if plan.work.inherited:
        base = {**{name: base[name] for name in ALWAYS_KEPT if name in base}, **plan.work.inherited}
    members = [other for other in plan.pods if not other.is_master]
    visible = ",".join(gpus)
    env = {
        "PYTHONUNBUFFERED": "1",  # otherwise output is buffered in blocks of 8 KiB
        "OMP_NUM_THREADS": str(max(1, -(-pod.resources[CPU] // 1000))),
        **base,
        **login,
        **plan.work.env,
        **pod.env,
        **rank_env(plan, pod, members),
        "TUTTILAB_CODE_DIR": str(dirs.code),
        "TUTTILAB_SECRETS_DIR": str(dirs.secrets),
        "TUTTILAB_ENDPOINTS": str(dirs.offers / "endpoints.json"),
        **workers_file(plan, pod, str(dirs.offers / "workers")),
        POD_MARK: str(dirs.pod),
        "MODEL_DIR": str(dirs.model),
        "DATA_DIR": str(dirs.data),
        "RESULT_DIR": str(dirs.result),
        "CUDA_VISIBLE_DEVICES": visible,
        "NVIDIA_VISIBLE_DEVICES": visible,
    }
    return env | framework_env(plan.work.framework, pod, members, [HOST] * len(members), ports)
