"""Nothing of a test cluster outlives it: neither one that was stopped, nor, once another starts, one that was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kube import images, real
from tests.kube.pods import pod
from tests.kube.processes import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.usefixtures("no_cluster"), pytest.mark.timeout(600)]
TREE = Path(__file__).resolve().parent.parent.parent
# A cluster with a pod, in a process of its own that says when it is there and then waits.
HOLD = """
import sys
from tests.kube.real import running_real_cluster
from tests.kube.pods import pod
from tests.kube import images

with running_real_cluster(node_count=1, gpus=1) as cluster:
    cluster.api.post("/api/v1/namespaces/default/pods", pod("stays", ["sleep", "1000"], image=images.BUSYBOX))
    cluster.wait_for_phase("default", "stays", "Running")
    print("there", flush=True)
    sys.stdin.read()
"""


def machine() -> dict[str, object]:
    """What a cluster could leave on the machine, beside what is named after it."""
    folders = ("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/containerd")
    return {
        "folders": [folder for folder in folders if os.path.exists(folder)],
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "rules": subprocess.run(["iptables-save"], capture_output=True, text=True, check=True, timeout=30).stdout.count("\n-A"),
        "routes": subprocess.run(["ip", "route"], capture_output=True, text=True, check=True, timeout=30).stdout,
        "links": sorted(os.listdir("/sys/class/net")),
    }


def processes() -> list[str]:
    """Command lines of processes with something of a cluster in them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(real.ROOT) in line or "containerd-shim" in line:
                found.append(line)
    return found


@contextlib.contextmanager
def held_cluster() -> Iterator[subprocess.Popen[str]]:
    """A process that has a real cluster with a running pod, and its standard input open."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=TREE, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "there\n"
            yield process
        finally:
            process.kill()


def test_a_cluster_that_was_stopped_leaves_nothing() -> None:
    before = machine()
    with held_cluster() as process:
        assert real.leftovers() != []
        assert processes() != []
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before


def test_after_a_kill_all_processes_are_gone_and_the_next_cluster_starts() -> None:
    before = machine()
    with held_cluster() as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        eventually("the processes of the cluster are gone", lambda: processes() == [])
        assert real.leftovers() != []  # nobody was there to clean up
    with real.running_real_cluster(node_count=1, gpus=1) as cluster:
        cluster.api.post("/api/v1/namespaces/default/pods", pod("next", ["true"], image=images.BUSYBOX))
        cluster.wait_for_phase("default", "next", "Succeeded")
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before


def test_who_comes_second_is_told_who_has_the_cluster() -> None:
    with held_cluster() as process:
        with pytest.raises(real.ClusterInUse, match=f"process {process.pid} .*make kube-down"), real.alone(0.0):
            pass


def test_make_kube_up_prints_where_the_cluster_is_and_kube_down_leaves_nothing() -> None:
    before = machine()

    def make(target: str) -> str:
        command = [sys.executable, "-m", "tests.kube.up", target, "300"]
        done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=540)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    try:
        said = make("up")
        [kubeconfig] = [line.split()[1] for line in said.splitlines() if line.startswith("kubeconfig:")]
        assert json.loads(Path(kubeconfig).read_text())["clusters"][0]["cluster"]["server"].startswith("https://")
        [url] = [line.split()[-1] for line in said.splitlines() if line.startswith("control plane:")]
        assert url.startswith("http://127.0.0.1:")
        again = make("up")
        assert kubeconfig in again
        # As written: what a person pastes.
        pasted = "\n".join(line for line in said.splitlines() if line.startswith("  "))
        done = subprocess.run(["sh", "-ec", pasted], cwd="/", capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done
        ranks = [line.split() for line in done.stdout.splitlines() if line.startswith("[")]
        assert [words[1] for words in sorted(ranks)] == ["0", "1"]
    finally:
        assert "Nothing of the cluster is left." in make("down")
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before
