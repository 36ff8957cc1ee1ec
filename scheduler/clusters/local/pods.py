"""Pod directories: reads the state of pods, records the end of pods whose sidecar is gone, and kills what remains of them.

``<state>/pods/<job>/<attempt>/<pod>/`` holds plan.json, lock, sidecar.json, ready.json, started.json, endpoints.json, end.json and
stop.json (`sidecar/records.py`), the log, and the pod's directories. A pod is alive as long as its lock is held.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.clusters.kept.folders import ATTEMPT, NAME, ROOT
from tuttilab.scheduler.clusters.local import cgroups, leftovers
from tuttilab.scheduler.domain.model import PodPhase
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar import protocol, records

log = logging.getLogger(__name__)

FORGOTTEN: Final = ".forgotten"
REFUSED: Final = ".refused"
STOPPED: Final = ".stopped"
FORCE_S: Final = 5.0
KEEPER_S: Final = 1.0
"""For the keeper to kill what a killed sidecar left."""
EXIT_S: Final = 0.2
"""From the release of a lock to the end of the process that held it, at most."""
LONGEST_REASON: Final = 500
TIME_STEP_NS: Final = 50_000_000
NEVER_STARTED: Final = {"exit_code": 143, "reason": "NeverStarted", "started_at": None}


@dataclass(frozen=True, slots=True)
class _End:
    exit_code: int | None
    reason: str
    outputs: Mapping[str, str] = field(default_factory=dict)


_LOST: Final = _End(None, "Lost")
_GONE: Final = _End(137, "FolderGone")
_UNTRACED: Final = _End(137, "Untraced")


@dataclass(slots=True, eq=False)
class LocalPod:
    """One pod with a directory. ``pid`` and ``start_time`` are of its first process (`records.SIDECAR`), once known;
    ``is_child``: this process must reap it."""

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
    """Pid and start time of its sidecar, once recorded."""
    is_child: bool = False
    is_of_this_boot: bool = False
    """Whether we know that it was started since the machine, and the container that we are in, began."""
    is_master: bool = False
    cgroup: Path | None = None
    """All that it started is in it."""
    is_forgotten: bool = False
    """It is being erased: a missing folder says nothing."""
    state: PodState | None = None
    read_at: tuple[int, int] = field(default=(0, 0))
    """Folder's mtime and whether the lock was held, when ``state`` was read."""

    @property
    def has_ended(self) -> bool:
        return self.state is not None and self.state.phase is PodPhase.ENDED

    @property
    def uid(self) -> str:
        return records.uid({"boot_id": records.boot_id(), "pid": self.pid, "start_time": self.start_time})


def found_pods(state_dir: Path, job_id: str = "*", attempt_number: int | str = "*") -> Iterator[LocalPod]:
    """Pods of all attempts, or of one, that are not forgotten and were started or marked as never to start."""
    for attempt_file in sorted((state_dir / ROOT).glob(f"{job_id}/{attempt_number}/{ATTEMPT}")):
        attempt = attempt_file.parent
        record = records.read(str(attempt_file))
        if record is None or (attempt / FORGOTTEN).exists() or not attempt.name.isdigit():
            continue
        # A job that wrote this file anew is found by what `known` keeps.
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            pods = [
                LocalPod(
                    job_id=attempt.parent.name,
                    attempt=int(attempt.name),
                    name=name,
                    folder=attempt / name,
                    node=str(reserved["node"]),
                    epoch=record.get("epoch"),
                    gpus=tuple(int(index) for index in reserved["gpus"]),
                    ports=tuple(int(port) for port in record["ports"]),
                )
                for name, reserved in record["pods"].items()
                if NAME.fullmatch(name)
            ]
            yield from (pod for pod in pods if was_started(pod.folder) or (pod.folder / records.END).exists())


def epoch_of(attempt: Path) -> int | None:
    """Epoch of the plan of the attempt in this folder; None without a plan, or with one of an older version."""
    epoch: int | None = (records.read(str(attempt / ATTEMPT)) or records.read(str(attempt / REFUSED)) or {}).get("epoch")
    return epoch


def was_started(folder: Path) -> bool:
    """Whether its sidecar has recorded its identity or is starting."""
    return (folder / records.SIDECAR).exists() or records.is_locked(str(folder / records.LOCK))


def refresh(pod: LocalPod) -> bool:
    """Read the pod's state from its directory; return whether it changed. Records the end of a lost pod."""
    if pod.has_ended or pod.is_forgotten:
        return False
    if not _has_folder(pod):
        pod.state = _end_without_folder(pod)
        return True
    try:
        # The lock first: its holder wrote all records before releasing it.
        is_alive = records.is_locked(str(pod.folder / records.LOCK))
        stamp = (pod.folder.stat().st_mtime_ns, int(is_alive))
    except OSError:
        return False  # being erased
    if stamp == pod.read_at:
        return False
    before = pod.state
    # The mtime has a granularity of some milliseconds: a change in the same step as this read must not be missed.
    pod.read_at = stamp if time.time_ns() - stamp[0] > TIME_STEP_NS else (0, 0)
    if pod.sidecar is None:
        _learn_identity(pod)
    try:
        pod.state = _state(pod, is_alive)
    except FileNotFoundError:
        if pod.folder.exists():
            raise
        return False  # erased since the lock was checked
    return pod.state != before


def _has_folder(pod: LocalPod) -> bool:
    """Whether the pod's folder is there, itself and not what the job put in its place."""
    try:
        return stat.S_ISDIR(os.lstat(pod.folder).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # a disk that fails says nothing


def _learn_identity(pod: LocalPod) -> None:
    """From what the sidecar wrote. What the launch knows of the first process stands."""
    identity = records.read(str(pod.folder / records.SIDECAR))
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if identity is not None and identity["boot_id"] == records.boot_id():
            if pod.pid is None:
                pod.pid, pod.start_time = int(identity["pid"]), int(identity["start_time"])
            pid, start_time = identity.get("sidecar", (pod.pid, pod.start_time))
            pod.sidecar = (int(pid), int(start_time))


def _uid(pod: LocalPod) -> str:
    if pod.pid is not None:
        return pod.uid
    identity = records.read(str(pod.folder / records.SIDECAR))
    try:
        return "" if identity is None else records.uid(identity)
    except KeyError:
        return ""


def _state(pod: LocalPod, is_alive: bool) -> PodState | None:
    folder = pod.folder
    end = _end_of(records.read(str(folder / records.END)))
    if end is None and not is_alive:
        end = _record_lost(pod)
    if pod.pid is None and end is None:
        return pod.state  # it is starting and has not recorded its identity yet
    endpoints = _names(records.read(str(folder / records.ENDPOINTS)))
    if end is not None:
        phase = PodPhase.ENDED
    elif (folder / records.STARTED).exists():
        phase = PodPhase.RUNNING
    elif (folder / records.READY).exists():
        phase = PodPhase.READY
    else:
        phase = PodPhase.PENDING
    return _shown(pod, phase, end or _End(None, ""), endpoints)


def _shown(pod: LocalPod, phase: PodPhase, end: _End, endpoints: Mapping[str, str] | None = None) -> PodState:
    return PodState(
        job_id=pod.job_id,
        attempt=pod.attempt,
        name=pod.name,
        uid=_uid(pod),
        phase=phase,
        exit_code=end.exit_code,
        reason=end.reason,
        endpoints=endpoints or {},
        outputs=end.outputs,
        epoch=pod.epoch,
    )


def _end_of(record: Mapping[str, Any] | None) -> _End | None:
    """What the terminal record says. The job may have written it: values of another type are none."""
    if record is None:
        return None
    code, reason = record.get("exit_code"), record.get("reason")
    if (code is not None and type(code) is not int) or not isinstance(reason, str):
        return None
    return _End(code, reason[:LONGEST_REASON], _names(record.get("outputs")))


def _names(body: object) -> dict[str, str]:
    try:
        return protocol.read_names({} if body is None else body)
    except ValueError:
        return {}


def _record_lost(pod: LocalPod) -> _End:
    """No lock is held and there is no terminal record: kill what remains, then record the pod as lost.

    Sidecar and keeper were killed, or they run and the job took their files away.
    """
    is_tampered = _runs(pod)
    is_ended = _kill_all(pod)
    end = _GONE if is_tampered else _LOST if is_ended or (pod.folder / records.SWEPT).exists() else _UNTRACED
    point("lost.before")
    try:
        records.write(str(pod.folder / records.END), {**asdict(end), "started_at": None, "ended_at": time.time()})
    except FileNotFoundError:
        raise  # it is being erased, which says nothing of its end
    except OSError as error:
        # Found out again after a restart: nothing of it runs, and nothing says how it ended.
        log.warning("the end of pod %s could not be noted: %s", pod.name, error)
    return end


def _runs(pod: LocalPod) -> bool:
    """Whether sidecar or keeper still run. An exiting process releases its lock a moment before it is gone."""
    deadline = time.monotonic() + EXIT_S
    while any(leftovers.is_running(*identity) for identity in _identities(pod)):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.01)
    return False


def _identities(pod: LocalPod) -> frozenset[tuple[int, int]]:
    """Pids and start times of keeper and sidecar, as far as they are known."""
    return frozenset((pid, start) for pid, start in ((pod.pid, pod.start_time), pod.sidecar or (None, None)) if pid and start)


def _kill_all(pod: LocalPod) -> bool:
    """Kill all processes of the pod; whether none is left for certain.

    Without a cgroup nobody can say so of a pod whose keeper was killed: what it had started may have left every trace behind.
    """
    is_empty = pod.cgroup is not None and cgroups.kill(pod.cgroup)
    leftovers.kill_leftovers(pod.folder, _identities(pod))
    return is_empty or pod.is_master or not pod.is_of_this_boot


def _end_without_folder(pod: LocalPod) -> PodState:
    """The job removed the folder of its pod, or the machine lost it: kill all its processes, and keep the end in a new folder."""
    end = _GONE if pod.pid is not None else _LOST  # after a restart of the machine nobody knows
    _kill_all(pod)
    reap(pod)
    with contextlib.suppress(OSError):
        if os.path.lexists(pod.folder):
            os.unlink(pod.folder)
        pod.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        records.write(str(pod.folder / records.END), {**asdict(end), "started_at": None, "ended_at": time.time()})
    return _shown(pod, PodPhase.ENDED, end)


def record_never_started(folder: Path) -> bool:
    """Record that the pod will never start; False when it was started before."""
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
    """A pidfd of the pod's process that ends last: the keeper, else the sidecar; None when both have ended."""
    for identity in ((pod.pid, pod.start_time), pod.sidecar or (None, None)):
        descriptor = leftovers.open_process(*identity)
        if descriptor is not None:
            return descriptor
    return None


def reap(pod: LocalPod, options: int = os.WNOHANG) -> None:
    """Reap the first process of the pod if it is a child of this process; after a restart of the service it is init's."""
    if pod.is_child and pod.pid is not None:
        try:
            os.waitpid(pod.pid, options)
        except ChildProcessError:
            pass  # reaped before


def end_by_force(pod: LocalPod) -> None:
    """Kill all processes of the pod, sidecar first; return when none is alive."""
    begun = time.monotonic()
    while is_alive := records.is_locked(str(pod.folder / records.LOCK)):
        waited = time.monotonic() - begun
        if waited > FORCE_S:
            break
        signal_sidecar(pod, signal.SIGKILL)
        if waited > KEEPER_S:
            leftovers.send((pod.pid, pod.start_time), signal.SIGKILL)
        time.sleep(0.01)
    _kill_all(pod)
    reap(pod, options=os.WNOHANG if is_alive else 0)


def signal_sidecar(pod: LocalPod, number: signal.Signals) -> None:
    """Signal the sidecar. While its identity is unknown, SIGTERM goes to the keeper, which forwards it; others are dropped."""
    if pod.sidecar is None:
        _learn_identity(pod)
    if pod.sidecar is not None:
        leftovers.send(pod.sidecar, number)
    elif number == signal.SIGTERM:
        leftovers.send((pod.pid, pod.start_time), number)
