"""Jobs of a user, from the command line and from a notebook, in containers of a real Kubernetes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.kube import images, product_images
from tests.kube.job_site import OLD_PYTHON, SLEEPER, Site
from tests.kube.pods import pod as pod_of
from tests.kube.real import RealCluster
from tests.user_machine import eventually
from tuttilab.scheduler.clusters.kubernetes.states import amount

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(700)]


def test_a_gang_of_two_goes_to_containers_and_its_logs_and_exit_codes_come_back(site: Site) -> None:
    code = "import os, socket; rank = int(os.environ['TUTTILAB_RANK']); print('rank', rank, socket.gethostname())"

    good = site.submit("--workers", "2", "--wait", "--", "python3", "-c", code)
    bad = site.started("--workers", "2", "--", "python3", "-c", f"{code}; exit(rank * 3)")

    assert good.code == 0, (good, site.log())
    assert "rank 0" in good.out + good.err
    failed = site.until(bad, "Failed")
    codes = {pod["rank"]: pod["exit_code"] for pod in failed["attempts"][-1]["pods"]}
    assert (codes[1], failed["exit_code"]) == (3, 3)
    assert "rank 1" in site.logs(bad)
    site.until_nothing_is_left()


def test_members_of_a_gang_meet_by_name_once_all_are_there(site: Site) -> None:
    code = """
import os, socket, time
rank, host = int(os.environ["RANK"]), os.environ["MASTER_ADDR"]
if rank == 0:
    with socket.create_server(("", 29500)) as server:
        for _ in range(1):
            server.accept()[0].sendall(b"welcome")
else:
    until = time.time() + 60
    while True:
        try:
            print(socket.create_connection((host, 29500), 2).recv(99).decode())
            break
        except OSError:
            assert time.time() < until
            time.sleep(0.1)
"""
    job = site.started("--workers", "2", "--framework", "torch", "--", "python3", "-c", code)

    site.until(job, "Succeeded")

    assert "welcome" in site.logs(job)


@pytest.mark.feature("C01")
def test_workers_that_a_gang_asks_for_come_as_its_masters_own_and_those_that_it_does_not_need_go(site: Site) -> None:
    code = """
import os, time
path = os.environ.get("TUTTILAB_WORKERS_FILE")
for number in "1", "3":
    if path:
        with open(path, "w") as file:
            file.write(number)
    time.sleep(15 if number == "1" else 600)
"""
    job = site.started("--workers", "3", "--min-workers", "1", "--", "python3", "-c", code)

    def has_grown() -> bool:
        (attempt,) = site.job(job)["attempts"]
        is_there = {pod["rank"] for pod in attempt["pods"] if pod["phase"] == "Running"} >= {0, 1, 2}
        return is_there and {pod["rank"] for pod in attempt["left"]} == {1, 2}

    eventually(has_grown)
    members = site.members_of(job)
    (master,) = (pod for pod in site.pods() if pod["metadata"]["labels"]["tuttilab.io/role"] == "master")
    owners = {pod["metadata"]["labels"]["tuttilab.io/rank"]: pod["metadata"]["ownerReferences"][0]["uid"] for pod in members}
    assert owners == dict.fromkeys(("0", "1", "2"), master["metadata"]["uid"])
    assert site.machine.run("cancel", job).code == 0
    site.until(job, "Cancelled")
    site.until_nothing_is_left()


@pytest.mark.feature("J01", "C03")
def test_a_users_image_needs_nothing_of_ours(site: Site) -> None:
    job = site.started("--", "sh", "-c", "ls /; id -u; echo $TUTTILAB_RANK", image=images.BUSYBOX)

    site.until(job, "Succeeded")

    lines = site.logs(job).split()
    assert lines[-2:] == ["1000", "0"]


@pytest.mark.feature("J16")
def test_a_job_runs_as_a_proxy_user_in_its_containers_and_its_output_comes_back(own_site: Site) -> None:
    own_site.config["proxy_users"] = [{"name": "etl", "groups": ["default"], "uid": 3001, "gid": 3002}]
    own_site.up()
    code = (
        "import os; open(os.environ['RESULT_DIR'] + '/made', 'w').write('x'); print(os.getresuid(), os.getresgid(), os.getgroups())"
    )
    job = own_site.started("--run-as", "etl", "--out", "made=made", "--", "python3", "-c", code)

    ended = own_site.until(job, "Succeeded")

    assert ended["run_as"] == "etl"
    assert "(3001, 3001, 3001) (3002, 3002, 3002) [3002]" in own_site.logs(job)
    assert list(ended["attempts"][-1]["pods"][0]["outputs"]) == ["made"]
    unknown = own_site.submit("--run-as", "root", "--", "true", image=images.BUSYBOX)
    assert (unknown.code, "run_as: 'root' is no proxy user of yours; expected etl" in unknown.err) == (3, True)


@pytest.mark.parametrize(
    ("how", "phase", "reason"),
    [("cancel", "Cancelled", "cancelled by"), ("timeout", "Failed", "ran past its limit of 8s")],
)
def test_a_job_that_is_stopped_gets_its_signal_and_leaves_nothing(site: Site, how: str, phase: str, reason: str) -> None:
    job = site.started("--workers", "2", *(["--timeout", "8s"] if how == "timeout" else []), "--", *SLEEPER)
    # Before that they would not hear the signal.
    eventually(lambda: site.logs(job).count(" on\n") == 2)
    if how == "cancel":
        assert site.machine.run("cancel", job).code == 0

    ended = site.until(job, phase)

    assert reason in ended["reason"]
    members = [pod for pod in ended["attempts"][-1]["pods"] if pod["role"] != "master"]
    assert [(pod["exit_code"], pod["reason"]) for pod in members] == [(143, "Stopped")] * 2
    printed = site.logs(job).splitlines()
    assert sorted(line for line in printed if "tuttilab:" not in line) == ["[0] on", "[1] on"]
    site.until_nothing_is_left()


def test_a_control_plane_that_was_killed_adopts_what_runs_and_starts_nothing_twice(site: Site) -> None:
    code = "import time; print('begun', flush=True)\nfor n in range(50): print('n', n, flush=True); time.sleep(0.6)"
    job = site.started("--workers", "2", "--", "python3", "-c", code)
    site.until_running(job)
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in site.pods()}
    site.kill()
    time.sleep(3)
    site.up()
    site.until_running(job)
    assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in site.pods()} == uids

    ended = site.until(job, "Succeeded", limit_s=150)

    assert len(ended["attempts"]) == 1
    log = site.logs(job)
    assert log.count("begun") == 2
    assert [log.count(f"n {n}\n") for n in range(50)] == [2] * 50


@pytest.mark.feature("S02")
def test_a_job_that_waits_for_its_quota_has_no_pod(own_site: Site) -> None:
    own_site.config["queues"] = [{"name": "root"}, {"name": "default", "parent": "root", "max_jobs": 1}]
    own_site.up()
    first = own_site.started("--", *SLEEPER)
    own_site.until_running(first)
    second = own_site.started("--workers", "2", "--", "true", image=images.BUSYBOX)
    eventually(lambda: own_site.machine.why_it_waits(second))
    assert {pod["metadata"]["labels"]["tuttilab.io/job"] for pod in own_site.pods()} == {first}

    assert own_site.machine.run("cancel", first).code == 0

    own_site.until(second, "Succeeded")


def theirs_on(node: str, cpus: str) -> dict[str, Any]:
    return pod_of("theirs", ["sleep", "1000"], image=images.BUSYBOX, limits={"cpu": cpus}, nodeName=node)


@pytest.mark.feature("C07")
def test_a_gang_that_is_to_be_isolated_has_a_policy_for_its_members_as_long_as_it_lives(own_site: Site) -> None:
    own_site.settings["isolate_gangs"] = True
    own_site.up()
    job = own_site.started("--workers", "2", "--", *SLEEPER)
    own_site.until_running(job)

    (policy,) = own_site.policies()
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    assert [len(own_site.pods()), sum(chosen <= pod["metadata"]["labels"].items() for pod in own_site.pods())] == [3, 3]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": policy["spec"]["podSelector"]}]}]
    assert own_site.machine.run("cancel", job).code == 0
    own_site.until(job, "Cancelled")
    own_site.until_nothing_is_left()


def test_workers_that_join_a_gang_belong_to_its_master_and_go_with_it(own_site: Site) -> None:
    """It grows once there is quota for more of the workers that it would like; then somebody deletes its master."""
    own_site.config["queues"] = [{"name": "root"}, {"name": "default", "parent": "root", "max": {"cpu": "1500m"}}]
    own_site.up()
    other = own_site.started("--cpus", "1", "--", *SLEEPER)
    own_site.until_running(other)
    job = own_site.started("--cpus", "0.2", "--workers", "3", "--min-workers", "1", "--", *SLEEPER)
    own_site.until_running(job)
    assert len(own_site.members_of(job)) == 1
    assert own_site.machine.run("cancel", other).code == 0

    eventually(lambda: [pod["status"]["phase"] for pod in own_site.members_of(job)] == ["Running"] * 3, 90)

    (master,) = (pod["metadata"] for pod in own_site.pods() if pod["metadata"]["labels"]["tuttilab.io/role"] == "master")
    owners = [owner["uid"] for pod in own_site.members_of(job) for owner in pod["metadata"]["ownerReferences"]]
    assert owners == [master["uid"]] * 3
    old = {pod["metadata"]["uid"] for pod in own_site.pods()}
    own_site.cluster.api.delete(f"/api/v1/namespaces/{own_site.namespace}/pods/{master['name']}")

    eventually(lambda: [each["phase"] for each in own_site.job(job)["attempts"]] == ["Lost", "Running"], 150)
    assert not old & {pod["metadata"]["uid"] for pod in own_site.pods()}
    assert own_site.machine.run("cancel", job).code == 0
    own_site.until(job, "Cancelled")
    own_site.until_nothing_is_left()


def test_a_job_goes_to_the_node_on_which_others_leave_it_room(site: Site) -> None:
    """The other node has the CPUs, but not for us; without the right to see that, the job would find no room there."""
    first, second = site.cluster.real_nodes()[:2]
    cpus = amount(site.cluster.api.get(f"/api/v1/nodes/{first}")["status"]["allocatable"]["cpu"])
    theirs = f"{int(cpus * 1000) - 500}m"
    with site.cluster.namespace() as others:
        path = f"/api/v1/namespaces/{others}/pods"
        site.cluster.api.post(path, theirs_on(first, theirs))
        site.cluster.wait_for_phase(others, "theirs", "Running")
        eventually(lambda: f"{theirs} of others" in site.machine.run("nodes").out, 90)
        job = site.started("--cpus", "1", "--", *SLEEPER)
        site.until_running(job)
        assert [each["spec"]["nodeName"] for each in site.pods()] == [second]
        assert site.machine.run("cancel", job).code == 0
        site.until(job, "Cancelled")


def test_a_gang_whose_end_nobody_saw_has_ended_all_the_same(site: Site) -> None:
    job = site.started("--", "python3", "-c", "import time; time.sleep(8); print('by myself'); exit(4)")
    site.until_running(job)
    site.kill()
    eventually(lambda: [pod["status"]["phase"] for pod in site.pods()] == ["Failed"])
    site.up()

    ended = site.until(job, "Failed")

    assert ended["exit_code"] == 4
    assert "by myself" in site.logs(job)


def test_a_job_on_a_node_that_goes_is_started_again_elsewhere(site: Site) -> None:
    job = site.started("--retries", "1", "--grace", "2s", "--", *SLEEPER)
    site.until_running(job)
    (pod,) = site.pods()
    node = pod["spec"]["nodeName"]
    site.cluster.stop_node(node)
    try:

        def is_elsewhere() -> bool:
            attempts = site.job(job)["attempts"]
            return len(attempts) == 2 and attempts[1]["phase"] == "Running"

        eventually(is_elsewhere, 180)
        assert {pod["spec"]["nodeName"] for pod in site.pods() if pod["status"]["phase"] == "Running"} > {node} - {node}
        assert site.job(job)["attempts"][0]["phase"] == "Lost"
        assert site.machine.run("cancel", job).code == 0
        site.until(job, "Cancelled")
    finally:
        site.cluster.start_node(node)


def test_an_image_that_is_not_there_ends_the_job_with_its_name(site: Site) -> None:
    job = site.started("--", "true", image="localhost/nobody-has-this:1")

    ended = site.until(job, "Failed", limit_s=90)

    assert "image" in ended["reason"]
    assert "'localhost/nobody-has-this:1' cannot be pulled" in site.logs(job)


def test_memory_beyond_the_limit_is_told_as_such(site: Site) -> None:
    job = site.started("--", "python3", "-c", "x = bytearray(300 << 20)")

    assert "used more memory than it asked for" in site.until(job, "Failed")["reason"]


def test_a_command_that_is_not_in_the_image_is_told_as_such(site: Site) -> None:
    job = site.started("--", "no-such-program")

    assert "the command does not exist" in site.until(job, "Failed")["reason"]


def test_a_namespace_that_is_not_there_is_named(own_site: Site) -> None:
    own_site.config["clusters"] = [{**own_site.settings, "namespaces": {"default": "not-there"}}]
    own_site.up()
    job = own_site.started("--", "true")

    own_site.until_it_waits_for(job, "there is no namespace 'not-there'")


def test_missing_rights_are_told_with_verb_and_resource(own_site: Site, product_cluster: RealCluster) -> None:
    look = [
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
    ]
    kubeconfig = product_cluster.service_account_kubeconfig(look, name="looks-only")
    own_site.config["clusters"] = [{**own_site.settings, "kubeconfig": str(kubeconfig)}]
    own_site.up()
    job = own_site.started("--", "true")

    own_site.until_it_waits_for(job, "may not create pods")


CELL = f"%%submit total --image {product_images.NOTEBOOK} --workers 2 --cpus 0.2 --memory 128Mi\n"


def test_a_cell_runs_in_containers_and_its_value_is_bound(site: Site, kernel: Kernel) -> None:
    assert kernel.run("values = [1, 2, 3]\ndef double(x): return 2 * x").status == "ok"

    ran = kernel.run(CELL + "print('here', len(values))\ntotal = sum(map(double, values))", timeout=120)

    assert ran.status == "ok", (ran.error, ran.text, site.log())
    assert kernel.value("total") in ("12", "[12, 12]")


@pytest.mark.feature("B14")
def test_an_image_with_another_python_is_refused_before_the_submit_and_one_without_cloudpickle_by_the_job(
    site: Site, kernel: Kernel
) -> None:
    before = site.machine.job_ids()
    old = kernel.run(CELL.replace(product_images.NOTEBOOK, OLD_PYTHON) + "total = 1")
    assert f"and image {OLD_PYTHON} Python 2.7, as clusters[].pythons of the site says" in old.error
    assert (len(old.error.splitlines()), site.machine.job_ids()) == (1, before)

    ran = kernel.run(CELL.replace(product_images.NOTEBOOK, images.PYTHON) + "total = 1", timeout=120)

    assert ran.status == "error"
    assert "cloudpickle" in "".join(ran.traceback)
