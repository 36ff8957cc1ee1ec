"""A cgroup for each pod, where this machine lets us make one: whoever is in it is found, whatever he made of himself.

Pods enter theirs before they fork (`sidecar/start.py`), so that all they ever start is in it. Needs version 2 of cgroups, a kernel
with `cgroup.kill` (5.14), and the right to make groups below our own: as root, in a service with `Delegate=yes`, in most containers
that are privileged. See https://docs.kernel.org/admin-guide/cgroup-v2.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Final

PREFIX: Final = "tuttilab-"
LONGEST_NAME: Final = 200
EMPTY_S: Final = 5.0
"""From the kill until the kernel says that nobody is left; who waits for a broken disk takes longer."""
PAUSE_S: Final = 0.01


def place_for(state_dir: Path) -> Path | None:
    """Where the pods of this state folder get their cgroups; None where the machine does not let us make and enter any."""
    own = _own()
    if own is None:
        return None
    place = own / f"{PREFIX}{hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]}"
    if not _is_usable(place):
        return None
    with contextlib.suppress(OSError):
        for left in place.iterdir():
            if left.is_dir():
                drop(left)  # nobody is in it any more; a pod that is about to enter it makes it again
    return place


def path_of(place: Path, job_id: str, attempt: int, pod: str) -> Path:
    name = f"{job_id}.{attempt}.{pod}"
    return place / (name if len(name) <= LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest())


def kill(group: Path) -> bool:
    """Kill all that are in it, until nobody is; whether that is so."""
    until = time.monotonic() + EMPTY_S
    while True:
        try:
            if _is_empty(group):
                return True
            (group / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return True  # the kernel removes an empty one only
        except OSError:
            return False
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE_S)


def drop(group: Path) -> None:
    """Remove it, with those that a pod made in it; nothing happens while somebody is in it."""
    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)


def close(place: Path) -> None:
    """Remove it when the cgroup of no pod is left."""
    with contextlib.suppress(OSError):
        place.rmdir()


def _own() -> Path | None:
    """The folder of the cgroup of version 2 that this process is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::/")), None)
    for fields in mounts:
        # "36 35 98:0 ROOT MOUNT_POINT options [tags] - TYPE source options", see proc(5).
        if path is not None and fields[fields.index("-") + 1] == "cgroup2" and os.path.commonpath([fields[3], path]) == fields[3]:
            return Path(fields[4]) / os.path.relpath(path, fields[3])
    return None


def _is_usable(place: Path) -> bool:
    """Whether a process can be put into a group of its own there, and be killed with it."""
    probe = place / "probe"
    try:
        probe.mkdir(parents=True, exist_ok=True)
        if not (probe / "cgroup.kill").exists():
            return False
        with subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL) as process:
            try:
                (probe / "cgroup.procs").write_text(str(process.pid))
                return kill(probe)
            finally:
                process.kill()
    except OSError:
        return False
    finally:
        drop(probe)
        close(place)


def _is_empty(group: Path) -> bool:
    return "populated 0" in (group / "cgroup.events").read_text().splitlines()
