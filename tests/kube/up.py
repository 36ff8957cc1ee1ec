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
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.kube import nodes, product_images, real, site
from tests.kube.processes import tail
from tests.kube.real import HOLDER, PYTHONPATH, ROOT, ClusterInUse, running_real_cluster
from tests.kube.tools import build, debian
from tools import hub_proxy

MODULE = "tests.kube.up"
READY = "ready.json"
PRINTED = ("kubeconfig", "hub", "control plane", "state folder", "configuration")
STARTED_LIMIT_S = 300.0
ENDED_LIMIT_S = 120.0


def next_steps(said: Mapping[str, str]) -> str:
    command = Path(sys.executable).with_name("tuttilab")
    return f"""
{login(said)}
In its notebooks, once `%load_ext tuttilab.magics` has run, a cell with %%submit total --workers 2 runs in two more containers.

A gang of two in containers, from here:
  export TUTTILAB_STATE_DIR={said["state folder"]}
  {command} submit --workers 2 --wait -- python3 -c 'import os, socket; print(os.environ["TUTTILAB_RANK"], socket.gethostname())'
From a notebook of this machine: the same variable, and %%submit --workers 2. `make demo CLUSTER=kube` is a whole one.
Images there: localhost/busybox:1, localhost/python:1 and {product_images.NOTEBOOK}; nvidia.com/gpu: 4 on each node

{looking(said)}"""


def login(said: Mapping[str, str]) -> str:
    return f"""\
A notebook in a pod: open {said["hub"]} on this machine, log in as ann (group research) or bob (group quant),
password {said["password"]}, and choose a size. What a server has in its folder is gone when it is stopped."""


def looking(said: Mapping[str, str]) -> str:
    return f"""\
To look at it:  {build.program()} kubectl --kubeconfig {said["kubeconfig"]} get nodes,pods -A
To end it:      make kube-down"""


def up(wait_s: float) -> int:
    try:
        said = running_or_started(wait_s)
    except (RuntimeError, TimeoutError) as problem:
        return refuse(str(problem))
    for word in PRINTED:
        print(f"{word + ':':<15} {said[word]}")
    print(next_steps(said))
    return 0


def running_or_started(wait_s: float) -> dict[str, str]:
    """Its places. Raises RuntimeError or TimeoutError with the reason, and the remedy."""
    if problem := cannot():
        raise RuntimeError(problem)
    said = running()
    if said is None:
        print("Starting etcd, the API server, two nodes, a control plane of tuttilab and a hub (about a minute)", flush=True)
        said = start(wait_s)
    return said


def cannot() -> str | None:
    """Why no cluster with containers can run here, with the remedy."""
    if os.geteuid() != 0:
        return "Nodes that run containers need root: run it as root, in a container or a virtual machine of your own."
    try:
        build.build()
        hub_proxy.command()
    except (build.CannotBuild, RuntimeError) as problem:
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
        with running_real_cluster(wait_s=wait_s) as cluster, site.running_site(cluster) as places:
            ready = ROOT / f"{READY}.new"
            ready.write_text(json.dumps({"kubeconfig": str(cluster.kubeconfig)} | places), encoding="utf-8")
            ready.rename(ROOT / READY)
            ended.wait()
    except ClusterInUse as problem:
        return refuse(str(problem))
    return 0


def load_image(image: Path) -> None:
    """Onto the nodes of the cluster that runs."""
    for socket in ROOT.glob("n*/c.sock"):
        nodes.load_image(socket, image)


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
        if process is not None:
            print("Nothing of the cluster is left; another one has begun, which is left alone.")
            return 0
        return refuse(f"{problem}; it was not made by `make kube-up` and is left alone")
    print("Nothing of the cluster is left." if not real.leftovers() else f"Left: {', '.join(real.leftovers())}")
    return 1 if real.leftovers() else 0


def refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "up"
    sys.exit({"up": up, "down": down, "serve": serve}[what](float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
