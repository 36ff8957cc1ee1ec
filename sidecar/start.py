"""Starts a worker or a master from the command line: reads the plan, forks the keeper, writes the identity record."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from typing import Any, TextIO, cast

from tuttilab.sidecar import accounts, keeper, records
from tuttilab.sidecar.processes import become_subreaper

ENTER_TRIES = 10


def _option(arguments: list[str], name: str) -> int | None:
    return int(arguments[arguments.index(name) + 1]) if name in arguments else None


def _close_other_descriptors(keep: set[int]) -> None:
    """Closes the descriptors that were inherited from the starter, except those to keep."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor that listed the folder


def _enter(cgroup: str) -> None:
    """Moves this process, and all that it will start, into the pod's own cgroup. Raises OSError: outside it no pod may run."""
    for _ in range(ENTER_TRIES):
        os.makedirs(cgroup, exist_ok=True)
        try:
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write("0")
            return
        except FileNotFoundError:
            pass  # somebody who sweeps empty ones took it
    raise SystemExit(f"{cgroup} cannot be entered: it is removed again and again.")


def main(arguments: list[str]) -> None:
    """Runs the pod and ends the process. Failures are written to ``sidecar.log``."""
    plan_file = os.path.abspath(arguments[0])
    lock = _option(arguments, "--lock-fd")
    listen = _option(arguments, "--listen-fd")
    inherited = {descriptor for descriptor in (lock, listen) if descriptor is not None}
    _close_other_descriptors(inherited)
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)  # the lock says "the sidecar lives": user code must not hold it
    pod_dir = os.path.dirname(plan_file)
    os.chdir(pod_dir)
    plan = records.read(plan_file)
    if plan is None:
        raise SystemExit(f"{plan_file} cannot be read: expected the plan of a pod.")
    if plan.get("cgroup"):
        _enter(plan["cgroup"])
    sys.stderr = cast("TextIO", Tolerant(sys.stderr))
    first = os.getpid()
    is_worker = plan["role"] != "master"  # a master starts no processes
    own = accounts.read(plan.get("sidecar_account"))
    if own is not None:
        accounts.become_sidecar(own, is_starter=is_worker)
    if is_worker:
        keeper.fork_sidecar(pod_dir, is_other_user=own is not None)
    become_subreaper()
    identity = {
        "pid": first,
        "start_time": records.start_time(first),
        "boot_id": records.boot_id(),
        "sidecar": [os.getpid(), records.start_time(os.getpid())],
        "at": time.time(),
    }
    # Synced before any user code: after a power cut this file is the proof that the pod was started once.
    records.write(f"{pod_dir}/{records.SIDECAR}", identity)
    os._exit(_run(plan, pod_dir, records.uid(identity), listen))


class Tolerant:
    """Standard error that goes to a file beside what it tells of: on a full disk what it says is lost, and nothing else."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._file.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()


def _run(plan: dict[str, Any], pod_dir: str, uid: str, listen: int | None) -> int:
    try:
        if plan["role"] == "master":
            from tuttilab.sidecar.master import Master

            if listen is None:
                raise SystemExit("A master needs --listen-fd: the socket on which its members reach it.")
            return Master(plan, pod_dir, uid, listen).run()
        from tuttilab.sidecar.worker import Worker

        # The working directory stays the pod's folder, whatever the job puts at its path.
        return Worker(plan, ".", uid).run()
    except BaseException:  # the last frame of the process: print it, then end without waiting for threads
        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
