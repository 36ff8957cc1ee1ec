"""Resources of this machine as one node, and the mapping from configured to real GPUs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuttilab.scheduler.domain.model import Node
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources

ROOT = Path("/")
SMI_S = 10.0


@dataclass(frozen=True, slots=True)
class Gpu:
    uuid: str
    model: str
    """As a node label: ``nvidia-h100-80gb-hbm3``."""


def machine_node(cluster: str, root: Path = ROOT) -> Node:
    """This machine as a node named after its host: processors, memory (less where cgroups limit them), GPUs."""
    gpus = real_gpus(root)
    name = re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.") or "localhost"
    return Node(
        name=name,
        cluster=cluster,
        allocatable=Resources.of({CPU: _milli_cores(root), MEMORY: _memory(root), GPU: len(gpus)}),
        labels={"gpu-model": gpus[0].model} if gpus else {},
    )


def real_gpus(root: Path = ROOT) -> tuple[Gpu, ...]:
    """GPUs by `nvidia-smi`, else from the driver's files in /proc; none without a driver."""
    return _by_tool() or _by_driver(root)


def devices(nodes: Sequence[Node], gpus: Sequence[Gpu]) -> dict[str, tuple[str, ...]]:
    """For each node, the CUDA_VISIBLE_DEVICES names of its GPUs 0 to n-1: UUIDs of real GPUs, assigned node by node, then numbers.

    A node may have more GPUs than the machine: the number then names no device and only counts.
    """
    named: dict[str, tuple[str, ...]] = {}
    taken = 0
    for node in nodes:
        count = node.allocatable[GPU]
        real = [gpu.uuid for gpu in gpus[taken : taken + count]]
        taken += len(real)
        named[node.name] = (*real, *(str(index) for index in range(len(real), count)))
    return named


def parse_listing(text: str) -> tuple[Gpu, ...]:
    """Of lines such as ``GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5c1…)``; MIG devices are left out."""
    found = re.findall(r"^GPU \d+: (.+) \(UUID: (GPU-[0-9A-Za-z-]+)\)\s*$", text, re.MULTILINE)
    return tuple(Gpu(uuid, _label(model)) for model, uuid in found)


def _label(model: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:63]


def _by_tool() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=SMI_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_listing(listing.stdout)


def _by_driver(root: Path) -> tuple[Gpu, ...]:
    gpus = []
    for information in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        fields = dict(re.findall(r"^([^:\n]+):\s*(.+?)\s*$", information.read_text(errors="replace"), re.MULTILINE))
        if "GPU UUID" in fields:
            gpus.append(Gpu(fields["GPU UUID"], _label(fields.get("Model", "gpu"))))
    return tuple(gpus)


def _milli_cores(root: Path) -> int:
    cores = (os.cpu_count() or 1) * 1000
    for folder in _cgroups(root):
        quota = _words(folder / "cpu.max")
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
            cores = min(cores, max(1, int(quota[0]) * 1000 // int(quota[1])))
    return cores


def _memory(root: Path) -> int:
    total = re.search(r"^MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
    memory = int(total[1]) * 1024 if total else 0
    for folder in _cgroups(root):
        for limit in (folder / "memory.max", folder / "memory.limit_in_bytes"):
            words = _words(limit)
            if words and words[0].isdigit():
                memory = min(memory, int(words[0]))
    return memory


def _cgroups(root: Path) -> list[Path]:
    """Folders whose limits apply to this process: its cgroup and all ancestors (v2; the memory and cpu trees of v1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and not {"memory", "cpu"} & set(controllers.split(",")):
            continue
        base = root / "sys/fs/cgroup" / (controllers.split(",")[0] if controllers else "")
        own = base / path.lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return folders


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
