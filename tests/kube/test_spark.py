"""Spark on Kubernetes: sessions and applications with executors, each one gang of real containers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.magics.conftest import Kernel
from tests.e2e.spark.programs import ENDLESS, WHERE, write_application
from tests.kube import spark_image
from tests.kube.job_site import RESTRICTED, Site, made_site
from tests.kube.real import RealCluster
from tests.user_machine import CommandResult, eventually, kill
from tuttilab.scheduler.service.launch_plans import Secrets

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(1200)]
SIZE = ("--executors", "2", "--executor-memory", "512m", "--driver-memory", "640m", "--cpus", "0.9")
"""A node of two cores has room for an executor and the driver or the master."""
START_S = 600.0
SOON_S = 60.0
"""Seconds, on a machine that is busy with other tests; a quarter of it was measured on one that was."""
MANIFEST = """
kind: spark-batch
name: pairs
spark:
  main: main.py
  args: ["7", spark.executor.instances, spark.executor.memory, spark.driver.memory, spark.network.crypto.enabled]
  py_files: [helpers.py]
  archives: [note.zip#data]
  executors: 2
  executor_memory: 512m
  driver_cores: 0.9
  driver_memory: 640m
"""


@pytest.fixture(scope="module")
def site(product_cluster: RealCluster, product_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for image in spark_image.made(tmp_path_factory.mktemp("spark-image")):
        product_cluster.load_image(image)
        image.unlink()
    with (
        product_cluster.namespace(labels=RESTRICTED) as namespace,
        made_site(product_cluster, product_kubeconfig, namespace, tmp_path_factory.mktemp("spark-site")) as site,
    ):
        site.settings |= {"spark_image": spark_image.SPARK, "isolate_gangs": True}
        site.config["limits"]["barrier_s"] = 240
        site.config["queues"] = [{"name": "root", "max": {"cpu": 4}}]
        site.up()
        yield site


@pytest.fixture
def kernel(site: Site, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel({**site.machine.environ, "IPYTHONDIR": str(tmp_path / "ipython")}, "spark.ipynb", cwd=site.machine.home)
    yield made
    made.close()
    site.tidy()


def ok(kernel: Kernel, cell: str) -> str:
    ran = kernel.run(cell, START_S)
    assert ran.status == "ok", ran.error
    return "\n".join(filter(None, (ran.text, ran.stdout, ran.value)))


def started(site: Site, name: str, *options: str) -> str:
    """The job of a session that is ready."""
    said = site.machine.run("spark", "start", name, *SIZE, *options, timeout_s=START_S)
    assert said.code == 0, f"{said}\n{told(site)}"
    return job_of(site, name)


def job_of(site: Site, name: str) -> str:
    return next(view.job_id for view in site.machine.client().spark_sessions() if view.name == name)


def told(site: Site) -> str:
    """The ends of the logs of all pods, for a failure."""
    found = []
    for job_id in site.machine.job_ids():
        for rank in range(3):
            try:
                lines = site.machine.client().logs(job_id, rank=rank, limit=1000).lines
            except Exception as error:  # for a person to read
                lines = (str(error),)
            found.append("\n".join((f"--- {job_id[:8]} rank {rank}", *lines[-30:])))
    return "\n".join((*found, site.log()))


def pods_by_rank(site: Site, job_id: str) -> dict[str, Any]:
    live = [pod for pod in site.members_of(job_id) if pod["status"]["phase"] == "Running"]
    return {pod["metadata"]["labels"]["tuttilab.io/rank"]: pod for pod in live}


def log_of(site: Site, job_id: str, rank: int = 0) -> str:
    return "\n".join(site.machine.client().logs(job_id, rank=rank, limit=1000).lines)


def begin_endless(kernel: Kernel, name: str) -> str:
    message = kernel.send(f"%%sparksql --session {name}\n{ENDLESS}")
    kernel.gather(message, START_S, until=lambda ran: "task" in ran.text)
    return message


@pytest.mark.feature("N23")
def test_a_session_is_one_gang_of_containers_and_another_waits_for_its_room(site: Site, kernel: Kernel) -> None:
    client = site.machine.client()
    refused = site.machine.run("spark", "start", "wide", "--executors", "8", "--executor-memory", "512m")
    assert refused.code != 0
    assert "asks for 9190m CPU, but queue 'root' may never use more than 4 CPU" in refused.err, refused
    assert client.spark_sessions() == []

    job_id = started(site, "first", "--keep", "--ui", "--conf", "spark.sql.shuffle.partitions=7")
    job = client.job(job_id)
    assert [(pods.role, pods.count) for pods in job.pods] == [("driver", 1), ("executor", 2)]
    ok(kernel, "%spark use first")
    ok(kernel, "%%spark --quiet\n" + WHERE)
    assert kernel.value("ranks") == "['1', '2']"
    asked = {
        "spark.executor.instances": "2",
        "spark.executor.cores": "1",
        "spark.executor.memory": "512m",
        "spark.driver.memory": "640m",
        "spark.sql.shuffle.partitions": "7",
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
    }
    assert kernel.value(f"{{key: spark.sql(f'SET {{key}}').collect()[0].value for key in {list(asked)!r}}} == {asked!r}") == "True"
    no_secret_is_told(site, job_id)
    the_pages_ask_for_a_token(site)
    (policy,) = site.policies()
    assert {"ports": [{"protocol": "TCP", "port": 15002}, {"protocol": "TCP", "port": 4040}]} in policy["spec"]["ingress"]

    said = site.machine.run("spark", "start", "second", *SIZE, "--idle", "4s", "--no-wait")
    assert said.code == 0, said
    second = job_of(site, "second")
    why = eventually(lambda: site.machine.why_it_waits(second))
    assert "held by your Spark session 'first'" in why, why
    assert site.members_of(second) == []
    ok(kernel, "%spark stop first")
    ok(kernel, "%spark use second")
    ok(kernel, "%%spark --quiet\n" + WHERE)
    assert kernel.value("ranks") == "['1', '2']"
    assert client.wait(second, timeout_s=240).phase == "Succeeded"
    assert "idle for 4 s: stopped" in log_of(site, second)
    site.until_nothing_is_left()


def no_secret_is_told(site: Site, job_id: str) -> None:
    """In no command line, environment, log or body of a pod; the session's token is in the driver's container alone."""
    secrets = Secrets.in_folder(site.machine.state)
    hidden = (secrets.spark_secret(job_id, 1), secrets.spark_token(job_id, 1))
    pods = pods_by_rank(site, job_id)
    assert sorted(pods) == ["0", "1", "2"]
    for rank, pod in pods.items():
        processes = site.processes(pod, "java")
        assert processes, rank
        for process in processes:
            said = [*process.cmdline(), *process.environ().values()]
            assert not any(secret in text for text in said for secret in hidden), process.cmdline()
        folder = Path(f"/proc/{processes[0].pid}/root/run/tuttilab-secrets/own")
        assert sorted(path.name for path in folder.iterdir()) == ["spark-secret", *(["spark-token"] if rank == "0" else [])]
        assert {path.stat().st_mode & 0o177 for path in folder.iterdir()} == {0}
        assert not any(secret in str(pod) or secret in log_of(site, job_id, int(rank)) for secret in hidden)


def the_pages_ask_for_a_token(site: Site) -> None:
    view = site.machine.client().spark_endpoint("first")
    assert view.ui is not None
    assert view.ui.endswith(":4040")
    assert not view.here
    url = f"http://{view.ui}/jobs/"

    def answer(token: str) -> httpx.Response | None:
        """None while a first page takes longer than its server waits."""
        try:
            return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=60)
        except httpx.TransportError:
            return None

    assert eventually(lambda: answer("another"), 120).status_code == 403
    shown = eventually(lambda: answer(view.ui_token), 120)
    assert (shown.status_code, "Spark Jobs" in shown.text) == (200, True)


def test_a_lost_executor_ends_the_cell_and_a_killed_driver_leaves_no_pod(
    site: Site, kernel: Kernel, tell: Callable[[str], None]
) -> None:
    job_id = started(site, "frail")
    ok(kernel, "%spark use frail")
    ok(kernel, "%%sparksql\nCREATE TEMPORARY VIEW mine AS SELECT 1 AS a")
    message = begin_endless(kernel, "frail")
    lost = pods_by_rank(site, job_id)["1"]["metadata"]
    began = time.monotonic()
    site.cluster.api.delete(f"/api/v1/namespaces/{site.namespace}/pods/{lost['name']}", gracePeriodSeconds="0")
    ran = kernel.gather(message, START_S)
    after_loss = time.monotonic() - began
    assert ran.status == "error"
    assert "The Spark session frail" in ran.error, ran.error
    assert "mine" in ran.error, ran.error
    assert after_loss < SOON_S, after_loss

    again = ok(kernel, "%%spark --quiet\n" + WHERE)
    assert "Spark session frail was started again" in again, again
    assert kernel.value("ranks") == "['1', '2']"
    message = begin_endless(kernel, "frail")
    driver = next(one for one in site.processes(pods_by_rank(site, job_id)["0"], "PythonGatewayServer") if one.name() == "java")
    began = time.monotonic()
    kill(driver.pid)
    ran = kernel.gather(message, START_S)
    after_kill = time.monotonic() - began
    assert ran.status == "error"
    assert "The Spark session frail ended" in ran.error, ran.error
    assert after_kill < SOON_S, after_kill
    eventually(lambda: site.members_of(job_id) == [], 60)
    tell(f"a cell failed {after_loss:.1f} s after a lost executor and {after_kill:.1f} s after a killed driver")


@pytest.mark.feature("J08")
def test_an_application_runs_on_two_executors_with_its_files_and_keeps_the_exit_code(site: Site, tmp_path: Path) -> None:
    write_application(tmp_path)
    (tmp_path / "pairs.yaml").write_text(MANIFEST)
    said = site.machine.run("submit", "pairs.yaml", "--wait", cwd=tmp_path, timeout_s=START_S)
    job = site.machine.client().job(waited(said, 7))
    assert [(pods.role, pods.count) for pods in job.pods] == [("driver", 1), ("executor", 2)]
    driver = log_of(site, job.id)
    assert "seen: ['1 noted 2 ', '2 noted 2 ']" in driver, driver
    assert "read: ['2', '512m', '640m', 'true']" in driver, driver
    for rank in (1, 2):
        log = log_of(site, job.id, rank)
        assert "worker of 1 cores and 512 MiB" in log, log
        assert "task " in log, log
    missing = site.machine.run("submit", "--spark", "driver-memory=640m", "--", "absent.py", cwd=tmp_path)
    assert "spark.main: there is no file 'absent.py' in " in missing.err, missing
    site.until_nothing_is_left()


def waited(said: CommandResult, code: int) -> str:
    """The job's id."""
    assert said.code == code, said
    return said.out.splitlines()[0]


@pytest.mark.feature("J08")
def test_a_cell_is_an_application_and_a_session_may_be_one_pod(site: Site, kernel: Kernel) -> None:
    ran = kernel.run(
        f"%%submit --image {spark_image.SPARK} --spark driver-memory=640m\n"
        "from pyspark.sql import SparkSession\n"
        "session = SparkSession.builder.getOrCreate()\n"
        "session.range(0, 1000, 1, 4).groupBy().sum('id').collect()[0][0]",
        START_S,
    )
    assert ran.status == "ok", ran.error
    assert "499500" in (ran.value or "") + ran.text, ran
    ok(kernel, f"%spark start alone --image {spark_image.SPARK} --cores 1 --memory 1Gi")
    assert kernel.run("df = %sparksql SELECT sum(id) AS total FROM range(0, 1000)", START_S).status == "ok"
    assert kernel.value("int(df.total[0])") == "499500"
