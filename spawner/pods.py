"""From an admitted server to the pieces of its pod. Pure: what was there before never shows through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuttilab.scheduler.model import DOMAIN
from tuttilab.scheduler.requests import ProfileRequest
from tuttilab.scheduler.resources import CPU, GPU, MEMORY, Resources, parse_count, parse_cpu, parse_duration, parse_memory
from tuttilab.spawner.volumes import Manifest, volumes_of

NO_GPU: Final = {"NVIDIA_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": ""}
"""Without it an image for GPUs sees all of a node's."""
OWNED: Final = (CPU, MEMORY, GPU)
"""Resource keys that every server has, be it with a zero, so that none is left over from elsewhere."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the profile and the ledger decide of a pod; the rest is the site's."""

    resources: Manifest
    env: dict[str, str]
    unset: frozenset[str]
    """Variables that the device plugin sets and nobody else may."""
    volumes: tuple[Manifest, ...]
    mounts: tuple[Manifest, ...]
    labels: dict[str, str]
    node_selector: dict[str, str]
    image: str | None


def pieces_of(
    profile: ProfileRequest, *, owner: str, job_id: str, node: str, image: str | None, cephfs_claim: str, node_label: str
) -> Pieces:
    amounts = amounts_of(profile)
    quantities = {key: quantity(key, amounts[key]) for key in sorted({*OWNED, *(key for key, _ in amounts)})}
    volumes = volumes_of(profile, owner, cephfs_claim)
    has_gpu = amounts[GPU] > 0
    return Pieces(
        # Both the same: what is charged is what is kept free and what may be used.
        resources={"requests": dict(quantities), "limits": dict(quantities)},
        env={**profile.env, **volumes.env, **({} if has_gpu else NO_GPU)},
        unset=frozenset(NO_GPU) if has_gpu else frozenset(),
        volumes=volumes.volumes,
        mounts=volumes.mounts,
        labels={f"{DOMAIN}/kind": "notebook", f"{DOMAIN}/job": job_id, f"{DOMAIN}/profile": profile.name},
        node_selector={node_label: node},
        image=image,
    )


def amounts_of(profile: ProfileRequest) -> Resources:
    own = {CPU: parse_cpu(profile.cpus), MEMORY: parse_memory(profile.memory), GPU: parse_count(profile.gpus, "gpus")}
    return Resources.of(own) + Resources.parse(profile.resources)


def quantity(key: str, amount: int) -> str:
    """Exact, unlike what people read."""
    return f"{amount}m" if key == CPU else str(amount)


def merged_env(there: Iterable[Any], pieces: Pieces) -> list[Any]:
    """The container's variables (of KubeSpawner's classes, or plain) with ours in their place."""

    def name_of(variable: Any) -> str:
        return str(variable["name"] if isinstance(variable, Mapping) else variable.name)

    ours = {**pieces.env}
    kept = [variable for variable in there if name_of(variable) not in ours and name_of(variable) not in pieces.unset]
    return kept + [{"name": name, "value": value} for name, value in ours.items()]


def idle_arguments(profile: ProfileRequest) -> list[str]:
    """A server with nothing going on ends itself: first kernels without a running cell, then the server without kernels."""
    if profile.idle is None:
        return []
    after = round(parse_duration(profile.idle.stop_after))
    return [
        f"--MappingKernelManager.cull_idle_timeout={after}",
        "--MappingKernelManager.cull_connected=True",
        f"--ServerApp.shutdown_no_activity_timeout={after}",
    ]
