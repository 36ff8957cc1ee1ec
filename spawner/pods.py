"""Pure functions from an admitted server to parts of its pod manifest. They replace whatever was set before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuttilab.scheduler.domain.model import DOMAIN, SERVER_OF_LABEL
from tuttilab.scheduler.domain.requests import AccountRequest, ProfileRequest
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources, parse_count, parse_cpu, parse_duration, parse_memory
from tuttilab.spawner.volumes import Manifest, volumes_of

NO_GPU: Final = {"NVIDIA_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": ""}
"""Without it a GPU image sees all GPUs of the node."""
ALWAYS_SET: Final = (CPU, MEMORY, GPU)
"""Resource keys that are always set, even to zero, so that no earlier value remains."""


JOB_LABEL: Final = f"{DOMAIN}/job"
POD_SECURITY: Final[Manifest] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
SERVER_SECURITY: Final[Manifest] = {
    "runAsNonRoot": True,
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
"""Of Pod Security Standards "restricted"; no setting of the hub goes below it."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts of a pod that profile and admission decide; the site configures the rest."""

    resources: Manifest
    env: dict[str, str]
    unset: frozenset[str]
    """Variables that only the device plugin may set."""
    volumes: tuple[Manifest, ...]
    mounts: tuple[Manifest, ...]
    labels: dict[str, str]
    node_selector: dict[str, str]
    image: str | None
    security: Manifest
    """Of the server's container; it replaces what is set there."""
    has_driver_ports: bool = False


def pieces_of(
    profile: ProfileRequest,
    *,
    owner: str,
    job_id: str,
    node: str,
    installation: str,
    image: str | None,
    run_as: AccountRequest | None,
    cephfs_claim: str,
    node_label: str,
    has_driver_ports: bool = False,
) -> Pieces:
    amounts = amounts_of(profile)
    quantities = {key: quantity(key, amounts[key]) for key in sorted({*ALWAYS_SET, *(key for key, _ in amounts)})}
    volumes = volumes_of(profile, owner, cephfs_claim)
    has_gpu = amounts[GPU] > 0
    return Pieces(
        # Requests equal limits: the charged amount is reserved and is the most that may be used.
        resources={"requests": dict(quantities), "limits": dict(quantities)},
        env={**profile.env, **volumes.env, **({} if has_gpu else NO_GPU)},
        unset=frozenset(NO_GPU) if has_gpu else frozenset(),
        volumes=volumes.volumes,
        mounts=volumes.mounts,
        labels={f"{DOMAIN}/kind": "notebook", JOB_LABEL: job_id, f"{DOMAIN}/profile": profile.name}
        | ({SERVER_OF_LABEL: installation} if installation else {}),
        node_selector={node_label: node},
        image=image,
        security={**SERVER_SECURITY, **({} if run_as is None else {"runAsUser": run_as.uid, "runAsGroup": run_as.gid})},
        has_driver_ports=has_driver_ports,
    )


def amounts_of(profile: ProfileRequest) -> Resources:
    own = {CPU: parse_cpu(profile.cpus), MEMORY: parse_memory(profile.memory), GPU: parse_count(profile.gpus, "gpus")}
    return Resources.of(own) + Resources.parse(profile.resources)


def quantity(key: str, amount: int) -> str:
    """An exact Kubernetes quantity, unlike the rounded texts for people."""
    return f"{amount}m" if key == CPU else str(amount)


def merged_env(existing: Iterable[Any], pieces: Pieces) -> list[Any]:
    """The container's variables (KubeSpawner's classes or mappings), with those of the pieces instead of equal names."""

    def name_of(variable: Any) -> str:
        return str(variable["name"] if isinstance(variable, Mapping) else variable.name)

    own = {**pieces.env}
    kept = [variable for variable in existing if name_of(variable) not in own and name_of(variable) not in pieces.unset]
    return kept + [{"name": name, "value": value} for name, value in own.items()]


def idle_arguments(profile: ProfileRequest) -> list[str]:
    """Arguments by which an idle server ends itself: first kernels without a running cell, then the server without kernels."""
    if profile.idle is None:
        return []
    after = round(parse_duration(profile.idle.stop_after))
    return [
        f"--MappingKernelManager.cull_idle_timeout={after}",
        "--MappingKernelManager.cull_connected=True",
        f"--ServerApp.shutdown_no_activity_timeout={after}",
    ]
