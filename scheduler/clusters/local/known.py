"""Which processes were started as pods, kept outside the pods' own folders.

A job may delete or replace everything in the folder of its pod, and the folder with it. Its processes must be found and ended
all the same, and the pod must not count as never started. So what identifies a started pod is kept a second time, in a folder that
no environment variable of a pod names. A job of the same user that looks for it can delete it too: this keeps out mistakes and
simple attacks; users are kept apart by pods that run as their owners.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.kept.folders import NAME, ROOT
from tuttilab.scheduler.clusters.local import cgroups
from tuttilab.scheduler.clusters.local.pods import FORGOTTEN, LocalPod, found_pods
from tuttilab.sidecar import records

FOLDER: Final = "started"


def note(state_dir: Path, pod: LocalPod) -> None:
    """Keep the identity of a started pod. Not synced: after a crash of the machine there is no process left to find."""
    file = _folder(state_dir, pod.job_id, pod.attempt) / f"{pod.name}.json"
    body = {
        "boot_id": records.boot_id(),
        "pid_namespace": _pid_namespace(),
        "pid": pod.pid,
        "start_time": pod.start_time,
        "sidecar": list(pod.sidecar) if pod.sidecar else None,
        "node": pod.node,
        "epoch": pod.epoch,
        "gpus": list(pod.gpus),
        "ports": list(pod.ports),
        "is_master": pod.is_master,
        "cgroup": None if pod.cgroup is None else str(pod.cgroup),
    }
    # What is known is not worth a failed launch: the pod's own folder has it too.
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        records.write(str(file), body, is_durable=False)


def is_noted(state_dir: Path, job_id: str, attempt: int, pod: str) -> bool:
    return (_folder(state_dir, job_id, attempt) / f"{pod}.json").exists()


def drop(state_dir: Path, job_id: str, attempt: int) -> None:
    """Of an attempt that is forgotten or could not start."""
    folder = _folder(state_dir, job_id, attempt)
    for pod in _noted_pods(state_dir, job_id, attempt):
        if pod.cgroup is not None:
            cgroups.drop(pod.cgroup)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other attempts are still there
        folder.parent.rmdir()


def all_pods(state_dir: Path, job_id: str = "*", attempt: int | str = "*") -> Iterator[LocalPod]:
    """Pods of all attempts or of one that are not forgotten: those that have a folder, and those that had one."""
    noted = {(pod.job_id, pod.attempt, pod.name): pod for pod in _noted_pods(state_dir, job_id, attempt)}
    for pod in found_pods(state_dir, job_id, attempt):
        if was := noted.pop((pod.job_id, pod.attempt, pod.name), None):
            pod.pid, pod.start_time, pod.sidecar = was.pid, was.start_time, was.sidecar
            pod.is_of_this_boot, pod.is_master, pod.cgroup = was.is_of_this_boot, was.is_master, was.cgroup
        yield pod
    for pod in noted.values():
        if not (pod.folder.parent / FORGOTTEN).exists():
            yield pod


def _noted_pods(state_dir: Path, job_id: str, attempt: int | str) -> Iterator[LocalPod]:
    for file in sorted((state_dir / FOLDER).glob(f"{job_id}/{attempt}/*.json")):
        record = records.read(str(file))
        pod = None if record is None else _pod(file, record)
        if pod is not None:
            yield pod


def _pod(file: Path, record: dict[str, Any]) -> LocalPod | None:
    job_id, number, name = file.parent.parent.name, file.parent.name, file.name.removesuffix(".json")
    if not (number.isdigit() and NAME.fullmatch(name) and NAME.fullmatch(job_id)):
        return None
    folder = file.parents[3] / ROOT / job_id / number / name
    try:
        epoch = record["epoch"]
        pod = LocalPod(
            job_id=job_id,
            attempt=int(number),
            name=name,
            folder=folder,
            node=str(record["node"]),
            epoch=None if epoch is None else int(epoch),
            gpus=tuple(int(index) for index in record["gpus"]),
            ports=tuple(int(port) for port in record["ports"]),
        )
        if record["boot_id"] == records.boot_id():
            pod.pid, pod.start_time = int(record["pid"]), int(record["start_time"])
            if record["sidecar"]:
                pid, start_time = record["sidecar"]
                pod.sidecar = (int(pid), int(start_time))
            pod.is_of_this_boot = record.get("pid_namespace") == _pid_namespace()
        pod.is_master = bool(record.get("is_master"))
        pod.cgroup = Path(record["cgroup"]) if record.get("cgroup") else None
    except (KeyError, TypeError, ValueError):
        return None
    return pod


def _pid_namespace() -> int:
    """Another one in each container: of pods of an earlier one nothing lives, although the machine is the same."""
    return os.stat("/proc/self/ns/pid").st_ino


def _folder(state_dir: Path, job_id: str, attempt: int) -> Path:
    return state_dir / FOLDER / job_id / str(attempt)
