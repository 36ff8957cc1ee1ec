"""Spark applications as jobs: a driver and its executors, by manifest, by a command and by a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.e2e.spark.programs import write_application
from tests.user_machine import CommandResult, UserMachine
from tuttilab.scheduler.spark.process import scala_version, spark_home

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]
CONFIG = """
clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 4, memory: 16Gi}]}]
queues: [{name: root, max: {cpu: 4}}]
"""
MANIFEST = """
kind: spark-batch
name: pairs
spark:
  main: main.py
  args: ["7", spark.executor.instances, spark.executor.memory, spark.driver.memory, spark.sql.shuffle.partitions]
  py_files: [helpers.py]
  archives: [note.zip#data]
  executors: 2
  executor_memory: 512m
  driver_memory: 640m
  conf: {spark.sql.shuffle.partitions: 5}
"""


@pytest.fixture
def folder(machine: UserMachine, tmp_path: Path) -> Path:
    write_application(tmp_path)
    return tmp_path


def log_of(machine: UserMachine, job_id: str, rank: int = 0) -> str:
    return "\n".join(machine.client().logs(job_id, rank=rank, limit=1000).lines)


def waited(said: CommandResult, code: int) -> str:
    """The job's id."""
    assert said.code == code, said
    return said.out.splitlines()[0]


@pytest.mark.feature("J08", "S01")
def test_a_manifest_runs_on_two_executors_with_its_files_and_keeps_the_exit_code(machine: UserMachine, folder: Path) -> None:
    (folder / "pairs.yaml").write_text(MANIFEST)
    said = machine.run("submit", "pairs.yaml", "--wait", cwd=folder, timeout_s=500)
    job = machine.client().job(waited(said, 7))
    assert [(pods.role, pods.count) for pods in job.pods] == [("driver", 1), ("executor", 2)]
    assert (job.kind, job.exit_code) == ("distributed", 7)
    driver = log_of(machine, job.id)
    assert "seen: ['1 noted 2 ', '2 noted 2 ']" in driver, driver
    assert "read: ['2', '512m', '640m', '5']" in driver, driver
    for rank in (1, 2):
        log = log_of(machine, job.id, rank)
        assert "worker of 1 cores and 512 MiB" in log, log
        assert "task " in log, log
    again = machine.client().definition(job.id)
    assert (again.kind, again.spark is not None and again.spark.executors, again.pods[0].role) == ("spark-batch", 2, "worker")
    written = machine.run("job", job.id, "--export")
    assert written.code == 0, written
    assert written.out.startswith("kind: spark-batch\n"), written.out


@pytest.mark.feature("J08")
def test_a_class_of_a_jar_runs_and_a_command_is_one_too(machine: UserMachine, folder: Path) -> None:
    home = spark_home()
    (jar,) = (home / "jars").glob(f"spark-hive-thriftserver_{scala_version(home)}-*.jar")
    size = "executors=1,executor-memory=512m,driver-memory=700m"
    shell = "class=org.apache.spark.sql.hive.thriftserver.SparkSQLCLIDriver"
    query = "SELECT 'sum', sum(id), count(*) FROM range(0, 1000, 1, 4)"
    said = machine.run(
        "submit", "--spark", size, "--spark", shell, "--wait", "--", str(jar), "-e", query, cwd=folder, timeout_s=500
    )
    assert "sum\t499500\t1000" in said.out, said
    waited(said, 0)


@pytest.mark.feature("J08")
@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (MANIFEST.replace("name: pairs", "name: pairs\nqueue: nowhere"), "nowhere"),
        (MANIFEST.replace("executors: 2", "executors: 9"), "10"),
        (
            MANIFEST.replace("main.py", "main.sh"),
            "spark.main: 'main.sh' is neither a Python file nor a jar",
        ),
        (MANIFEST.replace("main.py", "main.jar"), "spark.main_class: a jar has one"),
        (
            MANIFEST.replace("py_files: [helpers.py]", "py_files: [helpers.txt]"),
            "spark.py_files[0]: 'helpers.txt' is not",
        ),
        (MANIFEST.replace("partitions: 5", "partitions: five"), "spark.sql.shuffle.partitions takes a whole number, got 'five'"),
        (MANIFEST.replace("spark.sql.shuffle.partitions: 5", "spark.jars: a.jar"), "The Spark setting spark.jars cannot be chosen"),
        (MANIFEST.replace("executors: 2", "executor: 2"), "spark.executor"),
        (MANIFEST + "command: [echo]\n", "command: a job of kind spark-batch has none"),
        ("kind: spark-batch\nname: none\n", "spark: it is missing"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_submitted(machine: UserMachine, folder: Path, manifest: str, sentence: str) -> None:
    (folder / "pairs.yaml").write_text(manifest)
    said = machine.run("submit", "pairs.yaml", cwd=folder)
    assert said.code != 0
    assert sentence in said.err, said


@pytest.mark.feature("J08")
def test_a_file_that_is_missing_ends_the_application_with_its_name(machine: UserMachine, folder: Path) -> None:
    said = machine.run("submit", "--spark", "driver-memory=640m", "--wait", "--", "absent.py", cwd=folder, timeout_s=400)
    assert said.code == 2, said
    assert f"There is no file absent.py in {folder}." in said.out, said


@pytest.mark.feature("J08")
def test_a_cell_is_an_application_too(machine: UserMachine, folder: Path) -> None:
    kernel = Kernel({**machine.environ, "IPYTHONDIR": str(machine.home / "ipython")}, "cell.ipynb", folder)
    try:
        # Spark's client leaves it in a notebook that has a session.
        assert kernel.run("import os; os.environ['SPARK_CONNECT_MODE_ENABLED'] = '1'").status == "ok"
        ran = kernel.run(
            "%%submit --spark executors=2,executor-memory=512m,driver-memory=640m --spark conf=spark.sql.shuffle.partitions=3\n"
            "from pyspark.sql import SparkSession\n"
            "session = SparkSession.builder.getOrCreate()\n"
            "total = session.range(0, 1000, 1, 4).groupBy().sum('id').collect()[0][0]\n"
            "{'total': total, 'instances': session.conf.get('spark.executor.instances')}",
            500,
        )
        assert ran.status == "ok", ran.error
        assert "{'total': 499500, 'instances': '2'}" in (ran.value or "") + ran.text, ran
        plain = "from pyspark.sql import SparkSession\nSparkSession.builder.master('local[1]').getOrCreate().range(5).count()"
        ran = kernel.run(f"%%submit --memory 1Gi\n{plain}", 300)
        assert (ran.status, ran.value) == ("ok", "5"), ran
        refused = kernel.run("%%submit --spark executors=2 --workers 3\n1")
        assert "--workers: a Spark application has its size in --spark" in refused.error
    finally:
        kernel.close()
