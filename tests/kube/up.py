"""A Kubernetes cluster on this machine for a person: `make kube-up` starts it, `make kube-down` leaves nothing of it.

`python -m tests.kube.up` starts a process of its own that holds the cluster (`up`), or ends it (`down`). What `up` prints is a line
for each thing to connect to, and then how to go on. A second argument says for how many seconds to wait when another cluster is on
this machine; `make` waits for none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from tests.kube import product_images, real, site
from tests.kube.processes import tail
from tests.kube.real import HOLDER, PYTHONPATH, ROOT, ClusterInUse, running_real_cluster
from tests.kube.tools import build, debian

MODULE = "tests.kube.up"
READY = "ready.json"
STARTED_LIMIT_S = 180.0
ENDED_LIMIT_S = 60.0


def next_steps(said: dict[str, str]) -> str:
    program = build.program()
    command = Path(sys.executable).with_name("tuttilab")
    return f"""
A gang of two in containers:
  export TUTTILAB_STATE_DIR={said["state folder"]}
  {command} submit --workers 2 --wait -- python3 -c 'import os, socket; print(os.environ["TUTTILAB_RANK"], socket.gethostname())'
From a notebook: the same variable, and %%submit --workers 2 --image {product_images.NOTEBOOK}

To look at it:  {program} kubectl --kubeconfig {said["kubeconfig"]} get nodes,pods -A
Images there:   localhost/busybox:1, localhost/python:1 and {product_images.NOTEBOOK}; nvidia.com/gpu: 4 on each node
To end it:      make kube-down"""


def up(wait_s: float) -> int:
    problem = cannot()
    if problem:
        return refuse(problem)
    said = running()
    if said is None:
        print("Starting etcd, the API server, two nodes and a control plane of tuttilab (about 20 s)", flush=True)
        try:
            said = start(wait_s)
        except (RuntimeError, TimeoutError) as error:
            return refuse(str(error))
    for word, place in said.items():
        print(f"{word + ':':<15} {place}")
    print(next_steps(said))
    return 0


def cannot() -> str | None:
    """Why no cluster with containers can run here, with the remedy."""
    if os.geteuid() != 0:
        return "Nodes that run containers need root: run it as root, in a container or a virtual machine of your own."
    try:
        build.build()
    except build.CannotBuild as problem:
        return str(problem)
    return None if debian.install() else f"Programs are missing: {', '.join(debian.missing())}. Remedy: {debian.REMEDY}"


def running() -> dict[str, str] | None:
    """The places of the cluster that `up` made and that runs."""
    path = ROOT / READY
    if holder() is None or not path.exists():
        return None
    said: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return said


def holder() -> psutil.Process | None:
    """The process that holds a cluster made by `up`."""
    try:
        process = psutil.Process(json.loads((ROOT / HOLDER).read_text(encoding="utf-8"))["pid"])
        return process if MODULE in " ".join(process.cmdline()) else None
    except (OSError, ValueError, psutil.Error):
        return None


def start(wait_s: float) -> dict[str, str]:
    # Not in the cluster's folder, which the new process makes.
    with tempfile.NamedTemporaryFile(prefix="tuttilab-kube-up-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "serve", str(wait_s)],
            cwd=PYTHONPATH,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        end = time.monotonic() + wait_s + STARTED_LIMIT_S
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(tail(Path(log.name)) or f"it ended with {process.returncode}")
            said = running()
            if said is not None:
                return said
            time.sleep(0.2)
        process.terminate()
        raise TimeoutError(f"The cluster was not ready after {wait_s + STARTED_LIMIT_S:.0f} s:\n{tail(Path(log.name))}")


def serve(wait_s: float) -> int:
    """Holds the cluster until it is told to end."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        with running_real_cluster(wait_s=wait_s) as cluster, site.running_control_plane(cluster) as control_plane:
            ready = ROOT / f"{READY}.new"
            ready.write_text(json.dumps({"kubeconfig": str(cluster.kubeconfig)} | control_plane), encoding="utf-8")
            ready.rename(ROOT / READY)
            ended.wait()
    except ClusterInUse as problem:
        return refuse(str(problem))
    return 0


def down(wait_s: float) -> int:
    if os.geteuid() != 0:
        return refuse("The cluster is root's: end it as root.")
    process = holder()
    if process is not None:
        process.terminate()
        try:
            process.wait(ENDED_LIMIT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(ENDED_LIMIT_S)
    try:
        with real.alone(wait_s):
            real.remove_leftovers()
    except ClusterInUse as problem:
        return refuse(f"{problem}; it was not made by `make kube-up` and is left alone")
    print("Nothing of the cluster is left." if not real.leftovers() else f"Left: {', '.join(real.leftovers())}")
    return 1 if real.leftovers() else 0


def refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "up"
    sys.exit({"up": up, "down": down, "serve": serve}[what](float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
