"""Pod directories: what they say about their pods, the end of pods whose sidecar is gone, and that nothing of them stays alive.

``<state>/pods/<job>/<attempt>/<pod>/`` holds plan.json, lock, sidecar.json, ready.json, started.json, endpoints.json, end.json and
stop.json (`sidecar/records.py`), the log, and the pod's directories. A pod lives as long as its lock is held. Files of the attempt
begin with a dot, which no pod's name does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters import local_leftovers as leftovers
from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import PodPhase
from tuttilab.sidecar import records

ATTEMPT: Final = ".attempt.json"
FORGOTTEN: Final = ".forgotten"
REFUSED: Final = ".refused"
STOPPED: Final = ".stopped"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,251}")
FORCE_S: Final = 5.0
KEEPER_S: Final = 1.0
"""For the keeper to end what a killed sidecar left."""
TIME_STEP_NS: Final = 50_000_000
NEVER_STARTED: Final = {"exit_code": 143, "reason": "NeverStarted", "started_at": None}


@dataclass(slots=True, eq=False)
class LocalPod:
    """One pod that has a directory. ``pid`` and ``start_time`` are of its first process (`records.SIDECAR`), once known;
    ``is_child``: ours to reap."""

    job_id: str
    attempt: int
    name: str
    folder: Path
    node: str
    epoch: int | None = None
    gpus: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    pid: int | None = None
    start_time: int | None = None
    sidecar: tuple[int, int] | None = None
    """Pid and start time of its sidecar, once it has said who it is."""
    is_child: bool = False
    state: PodState | None = None
    read_at: tuple[int, int] = field(default=(0, 0))
    """Folder's mtime and whether the lock was held, when ``state`` was read."""

    @property
    def has_ended(self) -> bool:
        return self.state is not None and self.state.phase is PodPhase.ENDED

    @property
    def uid(self) -> str:
        return records.uid({"boot_id": records.boot_id(), "pid": self.pid, "start_time": self.start_time})


def attempt_folder(state_dir: Path, job_id: str, attempt: int) -> Path:
    """Raises BadInput for an id that is no plain name."""
    if not NAME.fullmatch(job_id):
        raise BadInput(f"job id {job_id!r}: expected letters, digits, dots and dashes.")
    return state_dir / "pods" / job_id / str(attempt)


def pod_folder(state_dir: Path, job_id: str, attempt: int, pod: str) -> Path:
    if not NAME.fullmatch(pod):
        raise BadInput(f"pod name {pod!r}: expected letters, digits, dots and dashes.")
    return attempt_folder(state_dir, job_id, attempt) / pod


def found_pods(state_dir: Path, job_id: str = "*", attempt_number: int | str = "*") -> Iterator[LocalPod]:
    """Every pod, of all attempts or one, that is not forgotten and that was started, or told never to start."""
    for attempt_file in sorted((state_dir / "pods").glob(f"{job_id}/{attempt_number}/{ATTEMPT}")):
        attempt = attempt_file.parent
        record = records.read(str(attempt_file))
        if record is None or (attempt / FORGOTTEN).exists() or not attempt.name.isdigit():
            continue
        for name, reserved in record["pods"].items():
            folder = attempt / name
            if was_started(folder) or (folder / records.END).exists():
                yield LocalPod(
                    job_id=attempt.parent.name,
                    attempt=int(attempt.name),
                    name=name,
                    folder=folder,
                    node=reserved["node"],
                    epoch=record.get("epoch"),
                    gpus=tuple(reserved["gpus"]),
                    ports=tuple(record["ports"]),
                )


def epoch_of(attempt: Path) -> int | None:
    """Of the plan that the attempt in this folder was launched from; None without one, or with one of an older version."""
    epoch: int | None = (records.read(str(attempt / ATTEMPT)) or records.read(str(attempt / REFUSED)) or {}).get("epoch")
    return epoch


def erase(attempt: Path) -> None:
    """First out of the way as a whole: half of it would pass for pods that were started."""
    gone = attempt.with_name(f".{attempt.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        attempt.rename(gone)
    point("erase.renamed")
    shutil.rmtree(gone, ignore_errors=True)


def was_started(folder: Path) -> bool:
    """Its sidecar has said who it is, or is about to."""
    return (folder / records.SIDECAR).exists() or records.is_locked(str(folder / records.LOCK))


def refresh(pod: LocalPod) -> bool:
    """Reads the pod's state from its directory; whether it is another one than before. Settles the end of a lost pod."""
    if pod.has_ended:
        return False
    try:
        # The lock first: whoever let go of it has written before what there is to read.
        is_alive = records.is_locked(str(pod.folder / records.LOCK))
        stamp = (pod.folder.stat().st_mtime_ns, int(is_alive))
    except OSError:
        return False  # being erased
    if stamp == pod.read_at:
        return False
    before = pod.state
    # A folder's time steps by some milliseconds: what comes in the same step as this look must not be missed.
    pod.read_at = stamp if time.time_ns() - stamp[0] > TIME_STEP_NS else (0, 0)
    if pod.sidecar is None:
        _learn_identity(pod)
    try:
        pod.state = _state(pod, is_alive)
    except FileNotFoundError:
        if pod.folder.exists():
            raise
        return False  # erased since the look at its lock
    return pod.state != before


def _learn_identity(pod: LocalPod) -> None:
    identity = records.read(str(pod.folder / records.SIDECAR))
    if identity is not None and identity["boot_id"] == records.boot_id():
        pod.pid, pod.start_time = identity["pid"], identity["start_time"]
        pid, start_time = identity.get("sidecar", (pod.pid, pod.start_time))
        pod.sidecar = (pid, start_time)


def _uid(pod: LocalPod) -> str:
    identity = records.read(str(pod.folder / records.SIDECAR))
    if identity is not None:
        return records.uid(identity)
    return pod.uid if pod.pid is not None else ""


def _state(pod: LocalPod, is_alive: bool) -> PodState | None:
    folder = pod.folder
    end = records.read(str(folder / records.END))
    if end is None and not is_alive:
        end = _settle_lost(pod)
    if pod.pid is None and end is None:
        return pod.state  # it starts: who it is comes in a moment
    endpoints = records.read(str(folder / records.ENDPOINTS)) or {}
    if end is not None:
        phase = PodPhase.ENDED
    elif (folder / records.STARTED).exists():
        phase = PodPhase.RUNNING
    elif (folder / records.READY).exists():
        phase = PodPhase.READY
    else:
        phase = PodPhase.PENDING
    return PodState(
        job_id=pod.job_id,
        attempt=pod.attempt,
        name=pod.name,
        uid=_uid(pod),
        phase=phase,
        exit_code=None if end is None else end["exit_code"],
        reason="" if end is None else end["reason"],
        endpoints=endpoints,
        outputs={} if end is None else end.get("outputs", {}),
        epoch=pod.epoch,
    )


def _settle_lost(pod: LocalPod) -> dict[str, object]:
    """Sidecar and keeper are gone without a terminal record: what they left is ended, then the loss is written down for good."""
    leftovers.sweep(pod.folder)
    end: dict[str, object] = {"exit_code": None, "reason": "Lost", "started_at": None, "ended_at": time.time()}
    point("lost.before")
    records.write(str(pod.folder / records.END), end)
    return end


def record_never_started(folder: Path) -> bool:
    """Settles that the pod is not started any more; False when it was started before."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = records.take_lock(str(folder / records.LOCK))
    if lock is None:
        return False
    try:
        if (folder / records.SIDECAR).exists() or (folder / records.END).exists():
            return False
        records.write(str(folder / records.END), {**NEVER_STARTED, "ended_at": time.time()})
        return True
    finally:
        os.close(lock)


def open_pod(pod: LocalPod) -> int | None:
    """A pidfd of the pod's process that ends last, the keeper, or the sidecar without it; None when both are gone."""
    for identity in ((pod.pid, pod.start_time), pod.sidecar or (None, None)):
        descriptor = leftovers.open_process(*identity)
        if descriptor is not None:
            return descriptor
    return None


def reap(pod: LocalPod, options: int = os.WNOHANG) -> None:
    """The first process of a pod that we started is our child; after a restart of the service it is init's."""
    if pod.is_child and pod.pid is not None:
        try:
            os.waitpid(pod.pid, options)
        except ChildProcessError:
            pass  # reaped before


def end_by_force(pod: LocalPod) -> None:
    """Whatever of the pod is alive, sidecar first; returns when nothing is."""
    begun = time.monotonic()
    while is_alive := records.is_locked(str(pod.folder / records.LOCK)):
        waited = time.monotonic() - begun
        if waited > FORCE_S:
            break
        signal_sidecar(pod, signal.SIGKILL)
        if waited > KEEPER_S:
            leftovers.send((pod.pid, pod.start_time), signal.SIGKILL)
        time.sleep(0.01)
    leftovers.sweep(pod.folder)
    reap(pod, options=os.WNOHANG if is_alive else 0)


def signal_sidecar(pod: LocalPod, number: signal.Signals) -> None:
    """The keeper passes on SIGTERM to a sidecar that has not said yet who it is; to be killed it has to have."""
    if pod.sidecar is None:
        _learn_identity(pod)
    if pod.sidecar is not None:
        leftovers.send(pod.sidecar, number)
    elif number == signal.SIGTERM:
        leftovers.send((pod.pid, pod.start_time), number)
