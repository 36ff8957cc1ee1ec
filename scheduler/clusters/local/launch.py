"""Creates the pods of an attempt: reserves GPUs and ports, writes the plans, starts the sidecars, each exactly once.

Crash safety: reservations and plans are on disk before the process that uses them starts. A sidecar holds the lock of its pod from
before it runs until it ends, and records its identity before user code starts. So after a crash each pod is known to be started or
not.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.kept import folders
from tuttilab.scheduler.clusters.local import cgroups, known, owners
from tuttilab.scheduler.clusters.local import pods as local_pods
from tuttilab.scheduler.clusters.local.env import HOST, PodDirs, pod_env, ports_needed
from tuttilab.scheduler.clusters.local.owners import Login, Owners
from tuttilab.scheduler.clusters.local.pods import LocalPod
from tuttilab.scheduler.domain.errors import BadInput, Bug, ClusterUnreachable, LaunchRefused
from tuttilab.scheduler.domain.model import JobKind
from tuttilab.scheduler.domain.resources import GPU, MEMORY
from tuttilab.scheduler.domain.titles import pod_title
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.sidecar import accounts, records

SIDECAR: Final = str(Path(records.__file__).with_name("__main__.py"))
PORTS: Final = range(20_000, 32_000)
"""Below the range from which the kernel takes ports for outgoing connections, so that one found free stays free."""
_LOG_OF_SIDECAR: Final = "sidecar.log"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that all sidecars of a cluster get. Times in seconds."""

    python: str
    base_env: Mapping[str, str]
    devices: Mapping[str, tuple[str, ...]]
    """CUDA device names of the GPUs, by node."""
    heartbeat_s: float
    lease_s: float
    log_bytes: int
    output_bytes: int
    unpacked_bytes: int
    cgroups: Path | None = None
    """Where pods get cgroups of their own; None where the machine lets us make none."""
    owners: Owners | None = None
    """Where pods run as the users who own their jobs; None: as the user of this process."""


_OF_THE_MACHINE: Final = {
    errno.EROFS: "is read-only; make its file system writable",
    errno.ENOSPC: "is on a full file system; make room",
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """Reservations of an attempt's pods, as recorded in the attempt's file. ``gpus``: device indexes by pod."""

    ports: tuple[int, ...]
    gpus: Mapping[str, tuple[int, ...]]


def launch(plan: LaunchPlan, state_dir: Path, settings: Settings, live_pods: Sequence[LocalPod], started: list[LocalPod]) -> None:
    """Start the pods of the attempt that were not started yet; append each to ``started``. Blocks for some ms per pod.

    Raises LaunchRefused when the gang cannot start (after ending and erasing the pods that had started), or when not all joining
    pods can (those that started remain); ClusterUnreachable while the file system is read-only or full; Bug for another digest.
    """
    attempt = folders.attempt_folder(state_dir, plan.job_id, plan.attempt)
    _check(plan, settings)
    was = local_pods.epoch_of(attempt)
    if was is not None and was > plan.epoch:
        raise LaunchRefused(f"{plan.title} was launched in epoch {was}, later than {plan.epoch}.")
    refused = records.read(str(attempt / local_pods.REFUSED))
    if refused is not None:
        # The caller of the refused launch may have been killed before it recorded the refusal.
        raise LaunchRefused(refused["why"])
    login = _login_of(plan, settings)
    try:
        reserved = _reserve(plan, attempt, settings, live_pods, login)
        if (attempt / local_pods.FORGOTTEN).exists():
            raise LaunchRefused(f"{plan.title} was over and its pods let go of; it is not made again.")
        for pod in plan.pods:
            point("grow.pod" if pod.joins else "launch.pod")
            if known.is_noted(state_dir, plan.job_id, plan.attempt, pod.name):
                continue  # whatever has become of its folder
            local = _ensure_started(plan, pod, attempt, reserved, settings, login)
            if local is not None:
                started.append(local)
                known.note(state_dir, local)
    except OSError as error:
        if plan.is_growth:
            raise LaunchRefused(f"no pod can join {plan.title} now: {error}.") from error
        if error.errno in _OF_THE_MACHINE:
            # And not of the job: it is tried again until somebody has mended it, and the job loses no launch.
            raise ClusterUnreachable(f"{plan.title} cannot start yet: {state_dir} {_OF_THE_MACHINE[error.errno]}.") from error
        why = f"{plan.title} cannot start on this machine: {error}."
        # With those of an earlier call, or the cluster would take their missing folders for the work of the job.
        before = [pod for pod in live_pods if (pod.job_id, pod.attempt) == (plan.job_id, plan.attempt)]
        _undo(plan, state_dir, attempt, [*before, *started], why)
        raise LaunchRefused(why) from error


def _undo(plan: LaunchPlan, state_dir: Path, attempt: Path, started: Sequence[LocalPod], why: str) -> None:
    """Remove a gang that cannot start completely; only the refusal remains, so that none of its pods is ever created again.

    No user code ran, because a member was missing.
    """
    earlier = known.all_pods(state_dir, plan.job_id, plan.attempt)
    for pod in {pod.name: pod for pod in [*earlier, *started]}.values():
        pod.is_forgotten = True
        local_pods.end_by_force(pod)
        shutil.rmtree(pod.folder, ignore_errors=True)
    known.drop(state_dir, plan.job_id, plan.attempt)
    with contextlib.suppress(OSError):  # the disk that refused the launch may refuse this too
        records.write(str(attempt / local_pods.REFUSED), {"why": why, "epoch": plan.epoch})
        (attempt / folders.ATTEMPT).unlink(missing_ok=True)
        return
    shutil.rmtree(attempt, ignore_errors=True)


def _check(plan: LaunchPlan, settings: Settings) -> None:
    for pod in plan.pods:
        if not folders.NAME.fullmatch(pod.name):
            raise BadInput(f"pod name {pod.name!r}: expected letters, digits, dots and dashes.")
        if pod.node not in settings.devices and not pod.was_made:
            known = ", ".join(sorted(settings.devices))
            raise LaunchRefused(f"node {pod.node!r} is not part of this cluster; it has {known}.", node=pod.node)
    if plan.work.image is not None and plan.kind == JobKind.BATCH:
        raise LaunchRefused(
            f"image {plan.work.image!r} cannot be run here: pods of this cluster are processes of the machine.", permanent=True
        )
    for name in plan.secrets:
        if not folders.NAME.fullmatch(name):
            raise BadInput(f"secret {name!r}: expected letters, digits, dots and dashes.")


def _reserve(plan: LaunchPlan, attempt: Path, settings: Settings, live_pods: Iterable[LocalPod], login: Login | None) -> Reserved:
    file = attempt / folders.ATTEMPT
    record = records.read(str(file))
    pods = [pod for pod in live_pods if not pod.has_ended]
    if record is not None:
        _check_digests(plan, record)
        joining = [pod for pod in plan.pods if pod.joins and not pod.was_made and pod.name not in record["pods"]]
        if joining and not (attempt / local_pods.STOPPED).exists():
            more = _free_gpus(joining, settings, pods)
            record = {**record, "pods": {**record["pods"], **_pod_records(joining, more)}}
            point("grow.reserve")
            records.write(str(file), record)
        gpus = {name: tuple(reserved["gpus"]) for name, reserved in record["pods"].items()}
        return Reserved(tuple(record["ports"]), gpus)
    reserved = Reserved(_free_ports(plan, pods), _free_gpus(plan.pods, settings, pods))
    if settings.owners is not None and login is not None:
        settings.owners.make_attempt(attempt, login)
    attempt.mkdir(mode=0o700, parents=True, exist_ok=True)
    body = {"digest": plan.digest, "epoch": plan.epoch, "ports": reserved.ports, "pods": _pod_records(plan.pods, reserved.gpus)}
    point("launch.reserve")
    records.write(str(file), body)
    for folder in (attempt.parent, attempt.parent.parent):
        records.sync_folder(str(folder))
    return reserved


def _pod_records(pods: Iterable[PodPlan], gpus: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    return {pod.name: {"node": pod.node, "gpus": gpus[pod.name], "digest": pod.digest} for pod in pods}


def _check_digests(plan: LaunchPlan, record: Mapping[str, Any]) -> None:
    """Raises Bug when the attempt or a pod of the same name was launched with another digest."""
    known: dict[str, Any] = record["pods"]
    for what, digest, was in (
        (plan.title, plan.digest, record["digest"]),
        *((f"pod {pod.name}", pod.digest, known[pod.name].get("digest", pod.digest)) for pod in plan.pods if pod.name in known),
    ):
        if was != digest:
            raise Bug(f"{what} was launched with another digest ({was}).")


def _free_gpus(pods: Sequence[PodPlan], settings: Settings, live_pods: Sequence[LocalPod]) -> dict[str, tuple[int, ...]]:
    """For each pod, the lowest GPU indexes of its node that no live pod has."""
    free = {
        node: [i for i in range(len(names)) if not any(i in pod.gpus for pod in live_pods if pod.node == node)]
        for node, names in settings.devices.items()
    }
    given: dict[str, tuple[int, ...]] = {}
    for pod in pods:
        count, room = pod.resources[GPU], free[pod.node]
        if count > len(room):
            raise LaunchRefused(
                f"{pod_title(pod.name)} needs {count} GPUs of node {pod.node}, which has {len(room)} free.", node=pod.node
            )
        given[pod.name], free[pod.node] = tuple(room[:count]), room[count:]
    return given


def _free_ports(plan: LaunchPlan, live_pods: Sequence[LocalPod]) -> tuple[int, ...]:
    """As many ports as the framework needs. The search starts at a hash of the attempt, to avoid collisions of launches."""
    taken = {port for pod in live_pods for port in pod.ports}
    first = int(hashlib.sha256(f"{plan.job_id} {plan.attempt}".encode()).hexdigest()[:8], 16)
    found: list[int] = []
    for step in range(len(PORTS)):
        if len(found) == ports_needed(plan):
            return tuple(found)
        port = PORTS[(first + step) % len(PORTS)]
        if port not in taken and _is_free(port):
            found.append(port)
    raise LaunchRefused(f"no free port between {PORTS.start} and {PORTS.stop} for {plan.title}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _ensure_started(
    plan: LaunchPlan, pod: PodPlan, attempt: Path, reserved: Reserved, settings: Settings, login: Login | None
) -> LocalPod | None:
    """Start the pod unless it was started before."""
    dirs = PodDirs.of(attempt, pod.name)
    if pod.was_made or pod.name not in reserved.gpus or (dirs.pod / records.SIDECAR).exists() or (dirs.pod / records.END).exists():
        return None
    if settings.owners is not None and login is not None:
        settings.owners.make_pod(dirs, login)
    else:
        for folder in (dirs.pod, dirs.work, dirs.result, dirs.code, dirs.secrets, dirs.offers, dirs.model, dirs.data):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = records.take_lock(str(dirs.pod / records.LOCK))
    if lock is None:
        return None
    listening: socket.socket | None = None
    try:
        if (dirs.pod / records.SIDECAR).exists() or (dirs.pod / records.END).exists():
            return None
        if settings.owners is not None:
            settings.owners.give_to_sidecar(lock)
        with accounts.acting_as(None if login is None else login.account):
            _write_secrets(plan, dirs.secrets)
        if pod.is_master:
            # The master inherits its listening socket, opened before any member starts: no other process can take the port.
            listening = socket.create_server((HOST, 0), backlog=512)
        gpus = reserved.gpus[pod.name]
        names = [settings.devices[pod.node][index] for index in gpus]
        env = pod_env(plan, pod, settings.base_env, dirs, names, reserved.ports, {} if login is None else login.environ)
        # A master runs no user code.
        place = None if pod.is_master else settings.cgroups
        cgroup = None if place is None else cgroups.path_of(place, plan.job_id, plan.attempt, pod.name)
        body = _sidecar_plan(plan, pod, attempt, dirs, env, settings, listening, cgroup)
        if settings.owners is not None and login is not None:
            body |= _accounts(plan, pod, settings.owners, login)
        records.write(str(dirs.pod / records.PLAN), body)
        records.sync_folder(str(attempt))
        point("launch.spawn")
        pid = _spawn(settings.python, dirs.pod, lock, listening)
    finally:
        os.close(lock)
        if listening is not None:
            listening.close()
    return LocalPod(
        job_id=plan.job_id,
        attempt=plan.attempt,
        name=pod.name,
        folder=dirs.pod,
        node=pod.node,
        epoch=plan.epoch,
        gpus=gpus,
        ports=reserved.ports,
        pid=pid,
        start_time=records.start_time(pid),
        is_child=True,
        is_of_this_boot=True,
        is_master=pod.is_master,
        cgroup=cgroup,
    )


def _write_secrets(plan: LaunchPlan, folder: Path) -> None:
    for name, content in plan.secrets.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)


def _sidecar_plan(
    plan: LaunchPlan,
    pod: PodPlan,
    attempt: Path,
    dirs: PodDirs,
    env: Mapping[str, str],
    settings: Settings,
    listening: socket.socket | None,
    cgroup: Path | None,
) -> dict[str, object]:
    """The plan in the format of the sidecar; plain values only."""
    master = next((other for other in plan.pods if other.is_master), None)
    members = [other for other in plan.pods if not other.is_master]
    return {
        "digest": plan.digest,
        "job_id": plan.job_id,
        "attempt": plan.attempt,
        "epoch": plan.epoch,
        "pod": pod.name,
        "rank": pod.rank,
        "role": pod.role,
        "node": pod.node,
        "command": list(plan.work.command),
        "env": dict(env),
        "workdir": plan.work.workdir,
        "code": plan.work.code,
        "inputs": [asdict(needed) for needed in plan.work.inputs],
        "outputs": [asdict(output) for output in plan.work.outputs],
        "artifacts_url": plan.artifacts_url,
        "grace_s": plan.work.grace_s,
        "memory": pod.resources[MEMORY],
        "dirs": dirs.show(),
        "token": pod.token,
        "gang_key": plan.gang_key if listening else None,
        "report_url": plan.report_url,
        "report_url_file": plan.report_url_file,
        "heartbeat_s": settings.heartbeat_s,
        "lease_s": settings.lease_s,
        "log_bytes": settings.log_bytes,
        "cgroup": None if cgroup is None else str(cgroup),
        "output_bytes": settings.output_bytes,
        "unpacked_bytes": settings.unpacked_bytes,
        "listens_at": None if listening is None else f"{HOST}:{listening.getsockname()[1]}",
        "members": [{"pod": m.name, "rank": m.rank} for m in members] if listening else [],
        "master": None if master is None or pod.is_master else _master_address(attempt / master.name),
    }


def _login_of(plan: LaunchPlan, settings: Settings) -> Login | None:
    """None: pods run as this process does. Raises LaunchRefused where they cannot run as they have to."""
    proxy = plan.proxy_user()
    if settings.owners is None:
        if proxy is not None:
            raise LaunchRefused(
                f"{plan.title} asks to run as {proxy.name!r}, and this cluster runs all jobs as one user; name another cluster.",
                permanent=True,
            )
        return None
    return settings.owners.login_of(plan.owner) if proxy is None else settings.owners.login_as(proxy)


def _accounts(plan: LaunchPlan, pod: PodPlan, own: Owners, login: Login) -> dict[str, object]:
    """What differs in the sidecar's plan: it cannot read the state folder, and it acts on the owner's files as the owner."""
    groups = () if pod.is_master else login.account.groups
    return {
        "sidecar_account": owners.show(own.sidecar._replace(groups=groups)),
        "owner_account": owners.show(login.account),
        "artifacts_url": plan.report_url,
        "report_url_file": None,
    }


def _master_address(folder: Path) -> dict[str, str]:
    """Address and lock from the plan that the master was started with, possibly by an earlier control plane."""
    plan = records.read(str(folder / records.PLAN))
    if plan is None:
        raise FileNotFoundError(f"{folder / records.PLAN}: the master's plan is not there")
    return {"address": plan["listens_at"], "lock": str(folder / records.LOCK)}


def _spawn(python: str, folder: Path, lock: int, listening: socket.socket | None) -> int:
    """Start a sidecar in its own session, with SIGTERM blocked until it can handle it."""
    arguments = [python, "-I", "-S", SIDECAR, str(folder / records.PLAN), "--lock-fd", str(lock)]
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(folder / _LOG_OF_SIDECAR), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, lock, lock),  # onto itself, which clears close-on-exec
    ]
    if listening is not None:
        arguments += ["--listen-fd", str(listening.fileno())]
        actions.append((os.POSIX_SPAWN_DUP2, listening.fileno(), listening.fileno()))
    return os.posix_spawn(
        python,
        arguments,
        {"PATH": "/usr/local/bin:/usr/bin:/bin"},
        file_actions=actions,
        setsid=True,
        setsigmask=[signal.SIGTERM],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
    )
