"""What a machine offers, read from a made-up root."""

import os
import shutil
from pathlib import Path

import pytest

from tuttilab.scheduler.clusters.local.nodes import Gpu, devices, machine_node, parse_listing
from tuttilab.scheduler.domain.model import Node
from tuttilab.scheduler.domain.resources import Resources

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    put(tmp_path, "proc/meminfo", "MemTotal:       33554432 kB\nMemFree: 1 kB\n")
    return tmp_path


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_machine_without_limits_and_gpus(root: Path) -> None:
    node = machine_node("here", root)

    assert (node.cluster, node.labels) == ("here", {})
    assert dict(node.allocatable) == {"cpu": 8000, "memory": 32 * GIB}


def test_cgroup_of_version_2_limits(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/pods/mine\n")
    put(root, "sys/fs/cgroup/pods/memory.max", f"{4 * GIB}\n")
    put(root, "sys/fs/cgroup/pods/mine/memory.max", "max\n")
    put(root, "sys/fs/cgroup/pods/mine/cpu.max", "250000 100000\n")

    assert dict(machine_node("here", root).allocatable) == {"cpu": 2500, "memory": 4 * GIB}


def test_cgroup_of_version_1_limits_memory(root: Path) -> None:
    put(root, "proc/self/cgroup", "5:memory:/mine\n3:devices:/mine\n")
    put(root, "sys/fs/cgroup/memory/mine/memory.limit_in_bytes", f"{2 * GIB}\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")

    assert dict(machine_node("here", root).allocatable) == {"cpu": 8000, "memory": 2 * GIB}


def test_gpus_by_the_drivers_own_words(root: Path) -> None:
    put(
        root,
        "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 59\nGPU UUID: \t GPU-aa\nDevice Minor: \t 0\n",
    )

    node = machine_node("here", root)

    assert (dict(node.allocatable)["nvidia.com/gpu"], node.labels) == (1, {"gpu-model": "nvidia-a100-sxm4-80gb"})


def test_listing_of_the_tool() -> None:
    listing = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5c1e2b7a-0000-1111-2222-333344445555)\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n"
        "GPU 1: Tesla T4 (UUID: GPU-9)\n"
    )

    assert parse_listing(listing) == (
        Gpu("GPU-5c1e2b7a-0000-1111-2222-333344445555", "nvidia-h100-80gb-hbm3"),
        Gpu("GPU-9", "tesla-t4"),
    )
    assert parse_listing("No devices were found\n") == ()


def test_real_gpus_are_given_out_node_by_node_and_then_numbers() -> None:
    nodes = [Node(name, "here", Resources.of({"nvidia.com/gpu": count})) for name, count in [("a", 2), ("b", 2), ("c", 0)]]

    assert devices(nodes, [Gpu("GPU-x", "m"), Gpu("GPU-y", "m"), Gpu("GPU-z", "m")]) == {
        "a": ("GPU-x", "GPU-y"),
        "b": ("GPU-z", "1"),
        "c": (),
    }
