"""Gangs in containers that lose a process or the kernel that waits for them; and what is left of many of them: nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doses import dose
from tests.e2e.magics.conftest import Kernel
from tests.kube import images, product_images
from tests.kube.job_site import Site
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]

MIB_OF_LOG = dose("LOG_MIB", 20, 100)
STAYS_S = 45
"""So long a job with a large log stays, that what it printed is seen while it runs, also on a busy machine."""
RUNS = dose("KUBE_RUNS", 5, 50)
# A signal to stop does not stop it: its end is its kill.
STAMPS = """
import os, signal, time
signal.signal(15, lambda *_: None)
with open(os.environ["HOME"] + "/stamps", "w", buffering=1) as file:
    while True:
        file.write(f"{time.time()}\\n")
        time.sleep(0.05)
"""
MEMBERS = "sidecar/container/__main__.py"


def members(site: Site, attempt: int = 1) -> list[Any]:
    """The pods with user code, by rank."""
    pods = [pod for pod in site.pods() if pod["metadata"]["labels"]["tuttilab.io/attempt"] == str(attempt)]
    found = [pod for pod in pods if pod["metadata"]["labels"]["tuttilab.io/role"] != "master"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["labels"]["tuttilab.io/rank"]))


def master(site: Site) -> Any:
    (found,) = (pod for pod in site.pods() if pod["metadata"]["labels"]["tuttilab.io/role"] == "master")
    return found


def stamps(site: Site, pod: Any) -> list[float]:
    """What the pod wrote on its node, read on the node's own disk: its network is of no concern. Empty before and after the pod."""
    if "nodeName" not in pod["spec"]:
        return []
    node = site.cluster.root / pod["spec"]["nodeName"].replace("node", "n")
    volume = node / "lib/kubelet/pods" / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/own/work/stamps"
    try:
        return [float(line) for line in volume.read_text().rpartition("\n")[0].split()]
    except FileNotFoundError:
        return []


def test_members_that_are_cut_off_stop_themselves_before_the_next_attempt_runs(site: Site, tell: Callable[[str], None]) -> None:
    job = site.started("--workers", "2", "--retries", "1", "--grace", "3s", "--", "python3", "-c", STAMPS)
    site.until_running(job)
    old = members(site)
    (node,) = {pod["spec"]["nodeName"] for pod in old}
    eventually(lambda: all(stamps(site, pod) for pod in old))
    last = {pod["metadata"]["name"]: 0.0 for pod in old}

    def is_replaced() -> bool:
        for pod in old:
            last[pod["metadata"]["name"]] = max([last[pod["metadata"]["name"]], *stamps(site, pod)])
        new = members(site, 2)
        return len(new) == 2 and all(stamps(site, pod) for pod in new)

    with site.cluster.network_cut(node):
        cut_at = time.time()
        eventually(is_replaced, 240)
        new = members(site, 2)
        first = [stamps(site, pod)[0] for pod in new]
        time.sleep(1)
        is_replaced()
    told = {name: round(at - cut_at, 1) for name, at in last.items()}
    assert node not in {pod["spec"]["nodeName"] for pod in new}
    assert max(last.values()) < min(first), (told, round(min(first) - cut_at, 1))
    assert min(last.values()) > cut_at
    ran_on, pause = max(last.values()) - cut_at, min(first) - max(last.values())
    tell(f"a gang that was cut off ran for {ran_on:.0f} s more, the next attempt {pause:.0f} s later")
    assert site.machine.run("cancel", job).code == 0
    site.until(job, "Cancelled")
    site.until_nothing_is_left()


@pytest.mark.parametrize("whose", ["master", "worker", "sidecar"])
def test_a_process_of_a_pod_that_is_killed(site: Site, whose: str) -> None:
    """Of the master: the gang is made anew. Of user code: the job has failed. Of a side-car: it comes back."""
    code = "import os, time; print('begun', flush=True); time.sleep(float(os.environ['REST_S']))"
    rest = "12" if whose == "sidecar" else "600"
    retries = ["--retries", "1"] if whose == "master" else []
    job = site.started("--workers", "2", "--grace", "2s", "-e", f"REST_S={rest}", *retries, "--", "python3", "-c", code)
    site.until_running(job)
    eventually(lambda: site.logs(job).count("begun") == 2)
    pod = master(site) if whose == "master" else members(site)[1]
    (process,) = site.processes(pod, "time.sleep" if whose == "worker" else MEMBERS)

    process.send_signal(signal.SIGKILL)

    if whose == "sidecar":
        ended = site.until(job, "Succeeded")
        assert len(ended["attempts"]) == 1
    elif whose == "worker":
        ended = site.until(job, "Failed")
        assert {pod["rank"]: pod["exit_code"] for pod in ended["attempts"][0]["pods"]}[1] == 137
        assert ended["exit_code"] == 137
    else:
        eventually(lambda: [each["phase"] for each in site.job(job)["attempts"]] == ["Lost", "Running"], 90)
        assert site.machine.run("cancel", job).code == 0
        site.until(job, "Cancelled")
    site.until_nothing_is_left()


def test_a_large_log_is_shown_while_it_is_printed_and_whole_at_the_end(site: Site, tell: Callable[[str], None]) -> None:
    lines = MIB_OF_LOG * 2**20 // 128
    code = f"for n in range({lines}): print(f'{{n:09d}}', 'x' * 117)"
    began = time.monotonic()
    job = site.started("--", "python3", "-c", f"print('first', flush=True)\n{code}\nimport time; time.sleep({STAYS_S})")
    site.until_running(job)

    def shown() -> str:
        return site.machine.run("logs", job, "--tail", "1", timeout_s=120).out

    eventually(lambda: shown().strip(), 90)
    assert site.job(job)["phase"] == "Running"
    site.until(job, "Succeeded", limit_s=240)
    took = time.monotonic() - began

    said = site.machine.run("logs", job, timeout_s=240)

    assert said.code == 0
    found = said.out.splitlines()
    odd = [(number, line[:200]) for number, line in enumerate(found) if line.count(" ") != 1 or len(line) != 127]
    assert odd == [(0, "first")], (len(found), odd[:5])
    numbers = [line.split()[0] for line in found[1:]]
    assert numbers == [f"{n:09d}" for n in range(lines)]
    tell(f"{MIB_OF_LOG} MiB of log, {lines} lines: whole {took - STAYS_S:.0f} s after the submit, without its last {STAYS_S} s")


@pytest.mark.timeout(600 + 40 * RUNS)
def test_many_runs_leave_nothing(own_site: Site, tell: Callable[[str], None]) -> None:
    """Good, bad and cancelled ones, with a policy each; after every run the namespace is as it was before the first."""
    own_site.settings["isolate_gangs"] = True
    own_site.up()
    ways = (("Succeeded", ["true"]), ("Failed", ["false"]), ("Cancelled", ["sleep", "600"]))
    for number in range(RUNS):
        phase, command = ways[number % len(ways)]
        job = own_site.started("--workers", "2", "--grace", "1s", "--", *command, image=images.BUSYBOX)
        if phase == "Cancelled":
            own_site.until_running(job)
            assert own_site.machine.run("cancel", job).code == 0
        own_site.until(job, phase)
        own_site.until_nothing_is_left()
    tell(f"{RUNS} gangs in containers, none left an object behind")


@pytest.mark.feature("B04")
def test_B04_a_killed_kernel_gets_the_result_of_its_gang_from_containers(site: Site, tmp_path: Path) -> None:
    environ = {**site.machine.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    first = Kernel(environ, "b04.ipynb", cwd=site.machine.home)
    second = None
    try:
        assert first.run("base = 40").status == "ok"
        cell = f"%%submit answer --image {product_images.NOTEBOOK} --workers 2 --cpus 0.2 --memory 128Mi\n"
        sent = first.send(cell + "import time\nprint('begun', flush=True)\ntime.sleep(8)\nanswer = base + 2")
        first.gather(sent, until=lambda ran: "begun" in ran.text + ran.stdout, timeout=90)
        first.kill()
        second = Kernel(environ, "b04.ipynb", cwd=site.machine.home)
        ran = second.run("%attach", timeout=90)
        assert ran.status == "ok", ran.error
        assert second.value("answer") == "42"
    finally:
        for kernel in (first, second):
            if kernel is not None:
                kernel.close()
    site.until_nothing_is_left()
