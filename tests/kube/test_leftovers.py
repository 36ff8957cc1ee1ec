"""Nothing of a test cluster outlives it: neither one that was stopped, nor, once another starts, one that was killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.hub.site import Browser
from tests.kube import images, real
from tests.kube import up as up_module
from tests.kube.pods import pod
from tests.kube.processes import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.usefixtures("no_cluster"), pytest.mark.timeout(700)]
TREE = Path(__file__).resolve().parent.parent.parent
GUIDE = TREE / "docs" / "guides" / "kubernetes.md"
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


def commands_of(guide: Path, chapter: str) -> list[str]:
    """The lines of its first block of shell."""
    text = guide.read_text(encoding="utf-8").partition(chapter)[2]
    return text.partition("```sh\n")[2].partition("```")[0].splitlines()


def mounts() -> list[str]:
    """Without those of other tests, which come and go meanwhile in temporary folders."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(place for place in places if place.startswith(str(real.ROOT)) or not place.startswith(tempfile.gettempdir()))


def machine() -> dict[str, object]:
    """What a cluster could leave on the machine, beside what is named after it."""
    folders = ("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/containerd")
    return {
        "folders": [folder for folder in folders if os.path.exists(folder)],
        "mounts": mounts(),
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


def test_who_comes_second_is_told_who_has_the_cluster_and_one_that_was_stopped_leaves_nothing() -> None:
    before = machine()
    with held_cluster() as process:
        assert real.leftovers() != []
        assert processes() != []
        with pytest.raises(real.ClusterInUse, match=f"process {process.pid} .*make kube-down"), real.alone(0.0):
            pass
        process.communicate(timeout=150)
    assert process.returncode == 0
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before


def test_after_a_kill_all_processes_are_gone_and_the_next_cluster_starts() -> None:
    before = machine()
    with held_cluster() as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(150)
        eventually("the processes of the cluster are gone", lambda: processes() == [])
        assert real.leftovers() != []  # nobody was there to clean up
    with real.running_real_cluster(node_count=1, gpus=1) as cluster:
        cluster.api.post("/api/v1/namespaces/default/pods", pod("next", ["true"], image=images.BUSYBOX))
        cluster.wait_for_phase("default", "next", "Succeeded")
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before


def test_the_guides_first_ten_minutes_are_as_written_and_kube_down_leaves_nothing() -> None:
    """`make kube-up`, what it prints to do, `make demo CLUSTER=kube`, `make kube-down`."""
    before = machine()
    up, demo, down = (line.split("#")[0].strip() for line in commands_of(GUIDE, "## Try it on this machine"))
    try:
        said = shell(up)
        printed = dict(re.findall(r"^([a-z ]+): +(\S+)$", said, re.MULTILINE))
        assert json.loads(Path(printed["kubeconfig"]).read_text())["clusters"][0]["cluster"]["server"].startswith("https://")
        assert httpx.get(f"{printed['control plane']}/readyz", trust_env=False, timeout=150).is_success
        lab_answers(printed["hub"], *re.findall(r"log in as (\w+) .*\npassword (\w+),", said)[0])
        assert printed["kubeconfig"] in shell(up)
        # What a person pastes.
        ran = shell("\n".join(line for line in said.splitlines() if line.startswith("  ")), cwd="/")
        ranks = [line.split() for line in ran.splitlines() if line.startswith("[")]
        assert [words[1] for words in sorted(ranks)] == ["0", "1"]

        shown = shell(demo)

        assert len(set(re.findall(r"worker ([01]) of 2 in container \S+: 22[78] rows", shown))) == 2
        assert re.search(r"accuracy on the 114 tumours held out: 9\d\.\d%", shown)
        assert "Done in " in shown
        jobs = [line.strip() for line in shown.splitlines() if line.startswith("Its jobs: ")]
        assert "train" in shell(jobs[0].partition(": ")[2])
        # The hub and the control plane end with whoever holds the cluster, however that ends.
        holder = up_module.holder()
        assert holder is not None
        holder.kill()
        eventually("what it held is gone", lambda: processes() == [])
    finally:
        assert "Nothing of the cluster is left." in shell(down)
    assert real.leftovers() == []
    assert processes() == []
    assert machine() == before


def shell(text: str, cwd: str | Path = TREE) -> str:
    done = subprocess.run(["sh", "-ec", text], cwd=cwd, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done
    return done.stdout


def lab_answers(url: str, name: str, password: str) -> None:
    """For whoever does what is printed."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60, follow_redirects=True) as http:
        user = Browser(http, name, password)
        assert user.login().is_success
        profiles = re.findall(r'name="profile" value="([^"]+)"', http.get("/hub/spawn").text)
        user.post(f"/hub/spawn/{name}", {"profile": profiles[0]})
        eventually("the server has started or not", lambda: not user.pending(), 120)
        assert user.has_server(), http.get(f"/hub/spawn-pending/{name}").text
        page = http.get(f"/user/{name}/lab")
        assert (page.status_code, "jupyter-config-data" in page.text) == (200, True)
        # Without its settings the page stays empty.
        assert http.get(f"/user/{name}/lab/api/settings").is_success
        user.stop()
