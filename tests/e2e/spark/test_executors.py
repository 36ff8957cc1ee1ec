"""Sessions with executors: one gang of real processes, its size and secrets, its queue, and how it ends."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.magics.conftest import Kernel
from tests.e2e.spark.programs import ENDLESS, WHERE
from tests.user_machine import UserMachine, eventually, kill
from tuttilab.scheduler.domain.wire import SparkSessionView
from tuttilab.scheduler.service.launch_plans import Secrets

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]
CONFIG = """
clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 4, memory: 16Gi}, {name: b, cpus: 4, memory: 16Gi}]}]
queues:
  - {name: root, max: {cpu: 4}}
  - {name: research, parent: root}
  - {name: other, parent: root, max: {cpu: 2}}
defaults: {queue: research}
"""
SIZE = "--executors 2 --executor-memory 512m --driver-memory 640m"
START_S = 400.0
SOON_S = 60.0
"""From what the control plane saw to the end of the cell, on a machine that is busy with other tests."""


@pytest.fixture(scope="module")
def kernel(machine: UserMachine) -> Iterator[Kernel]:
    made = a_kernel(machine, "gang.ipynb")
    yield made
    made.close()
    for view in machine.client().spark_sessions():
        end_session(machine, view.job_id)


def a_kernel(machine: UserMachine, notebook: str) -> Kernel:
    return Kernel({**machine.environ, "IPYTHONDIR": str(machine.home / "ipython")}, notebook)


def end_session(machine: UserMachine, job_id: str) -> None:
    machine.client().cancel(job_id)
    machine.client().wait(job_id, timeout_s=150)


def a_session(machine: UserMachine, kernel: Kernel) -> SparkSessionView:
    """One with two executors that runs: that of a test before, which starts in a minute of CPU time, or a new one."""
    running = [view for view in machine.client().spark_sessions() if view.is_ready and view.executors == 2]
    if not running:
        ok(kernel, f"%spark start another {SIZE} --keep")
    view = next(view for view in machine.client().spark_sessions() if view.is_ready)
    ok(kernel, f"%spark use {view.name}")
    ok(kernel, "%%sparksql --quiet\nSELECT 1")
    return view


def sent_slow(kernel: Kernel) -> str:
    """A query that would run for hours, once its tasks do."""
    message = kernel.send(f"%%sparksql\n{ENDLESS}")
    kernel.gather(message, 150, until=lambda said: "task" in said.text)
    return message


def all_magics_end(kernel: Kernel, view: SparkSessionView, phase: str) -> None:
    """Each magic about a session that has ended so, and about its job, says what it found or raises one short sentence."""
    gone = f"There is no Spark session {view.name}; `%spark list` shows yours, `%spark start {view.name}` starts it."
    for line, says in (
        (f"%job {view.job_id}", phase),
        (f"%job {view.job_id} logs", "ready in"),
        (f"%job {view.job_id} explain", ""),
        (f"%job {view.job_id} cancel", ""),
        ("%jobs -a", f"spark-{view.name}"),
        ("%spark list", ""),
        (f"%spark ui {view.name}", f"There is no session {view.name}"),
        (f"%spark logs {view.name}", gone),
        (f"%spark stop {view.name}", f"There was no Spark session {view.name} to stop; "),
    ):
        ran = kernel.run(line, 120)
        said = ran.error if ran.status == "error" else "\n".join(filter(None, (ran.text, ran.stdout, ran.value)))
        assert says in said, (line, said)
        assert len(ran.error.encode()) < 1024, (line, ran.error)
    assert ran.status == "ok", ran.error


def all_magics_answer(kernel: Kernel, view: SparkSessionView) -> None:
    """Each magic about a session that was lost, while all of it starts again, says how it is or raises one short sentence."""
    for line, says in (
        (f"%job {view.job_id}", "lost"),
        (f"%job {view.job_id} logs", ""),
        (f"%job {view.job_id} explain", ""),
        ("%jobs", f"spark-{view.name}"),
        ("%spark list", view.name),
        (f"%spark ui {view.name}", view.name),
        (f"%spark logs {view.name}", ""),
    ):
        ran = kernel.run(line, 120)
        said = ran.error if ran.status == "error" else "\n".join(filter(None, (ran.text, ran.stdout, ran.value)))
        assert says in said, (line, said)
        assert said, line
        assert len(ran.error.encode()) < 1024, (line, ran.error)


def s_behind(machine: UserMachine, job_id: str, since: float) -> float:
    """Seconds by which now is later than the first end of a pod that the control plane saw since then."""
    now = time.time()
    seen = [event.at for event in machine.client().events(job_id) if event.kind == "PodEnded" and event.at >= since]
    return now - min(seen)


def ok(kernel: Kernel, code: str, timeout: float = START_S) -> str:
    ran = kernel.run(code, timeout)
    assert ran.status == "ok", ran.error
    return "\n".join(filter(None, (ran.text, ran.stdout, ran.value)))


def pods_of(machine: UserMachine, job_id: str) -> dict[int, list[psutil.Process]]:
    """The processes of the job's pods, by rank, with Java among them."""
    found: dict[int, list[psutil.Process]] = {}
    for process in machine.processes():
        try:
            environ = process.environ()
        except psutil.Error:
            continue
        if environ.get("TUTTILAB_JOB_ID") == job_id:
            found.setdefault(int(environ["TUTTILAB_RANK"]), []).append(process)
    return found


def no_process_is_left(machine: UserMachine, job_id: str, within_s: float) -> None:
    eventually(lambda: not pods_of(machine, job_id), within_s)


@pytest.mark.feature("N23")
def test_driver_and_executors_are_one_gang_of_the_size_that_was_asked(machine: UserMachine, kernel: Kernel) -> None:
    ok(kernel, f"%spark start duo {SIZE} --conf spark.sql.shuffle.partitions=7 --conf spark.task.maxFailures=2")
    (view,) = machine.client().spark_sessions()
    job = machine.client().job(view.job_id)
    assert [(pods.role, pods.count, pods.cpus) for pods in job.pods] == [("driver", 1, "1"), ("executor", 2, "1")]
    assert job.charge["cpu"] == "3"
    assert (view.executors, view.executor_cores, view.executor_memory) == (2, 1, "512m")

    ok(kernel, "%%spark --quiet\n" + WHERE)
    assert kernel.value("ranks") == "['1', '2']"
    asked = {
        "spark.executor.instances": "2",
        "spark.executor.cores": "1",
        "spark.executor.memory": "512m",
        "spark.driver.memory": "640m",
        "spark.driver.cores": "1",
        "spark.sql.shuffle.partitions": "7",
        "spark.task.maxFailures": "2",
        "spark.authenticate": "true",
    }
    read = kernel.value(f"{{key: spark.sql(f'SET {{key}}').collect()[0].value for key in {list(asked)!r}}} == {asked!r}")
    assert read == "True"
    assert re.search(r"\* +duo +ready +1 +\S+ +2 x 1 cores, 512m", ok(kernel, "%spark list"))

    secrets = Secrets.in_folder(machine.state)
    hidden = (secrets.spark_secret(job.id, 1), secrets.spark_token(job.id, 1))
    pods = pods_of(machine, job.id)
    assert sorted(pods) == [0, 1, 2]
    for process in [one for processes in pods.values() for one in processes]:
        told = [*process.cmdline(), *process.environ().values()]
        assert not any(secret in text for text in told for secret in hidden), process.name()
        addresses = {one.laddr.ip for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
        assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1"}
    for rank in range(3):
        log = "\n".join(machine.client().logs(job.id, rank=rank, limit=1000).lines)
        assert not any(secret in log for secret in hidden)
        assert ("ready in" if rank == 0 else "worker of 1 cores and 512 MiB") in log
    holding = [
        path
        for path in machine.state.rglob("*")
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in hidden)
    ]
    assert {path.name for path in holding} == {"spark-secret", "spark-token", "executor-arguments"}
    assert {path.stat().st_mode & 0o077 for path in holding} == {0}

    other = kernel.run("%spark start duo --executors 3")
    assert "Session duo runs already, with another number of executors; add --restart to replace it" in other.error
    same = ok(kernel, f"%spark start duo {SIZE}")
    assert "Session duo runs already and is in use." in same
    assert "is stopped" in ok(kernel, "%spark stop duo")
    no_process_is_left(machine, job.id, 60)
    machine.client().wait(job.id, timeout_s=150)
    all_magics_end(kernel, view, "Cancelled")


@pytest.mark.feature("N23")
def test_more_than_the_queue_may_have_is_refused_with_both_figures(machine: UserMachine, kernel: Kernel) -> None:
    said = kernel.run("%spark start huge --executors 9 --executor-memory 512m")
    assert re.search(r"\b10\b.*\b4\b", said.error.splitlines()[0]), said.error
    by_queue = machine.run("spark", "start", "huge", "--executors", "2", "--executor-memory", "512m", "--queue", "other")
    assert by_queue.code != 0
    assert re.search(r"other.*\b2\b", by_queue.err), by_queue
    assert "huge" not in {view.name for view in machine.client().spark_sessions()}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--executor-memory 4g", "executor_memory: '4g' is the size of executors, and there are none; say how many"),
        ("--executors 1 --executor-memory 9m", "executor_memory: '9m' is too small for Spark; expected at least 450m"),
        ("--executors 1 --executor-cores 0.5", "executor_cores: '0.5' is no whole number of cores"),
        ("--executors 1000000", "executors: 1000000 is out of range; expected 0 (tasks run in the driver) to 5000"),
        ("--driver-memory 1g --memory 2Gi", "driver_memory: the driver's size is given by memory already"),
        ("--conf spark.executor.memory=4g", "The Spark setting spark.executor.memory is given by --executor-memory"),
    ],
)
def test_a_size_that_is_none_is_refused_before_anything_starts(machine: UserMachine, options: str, sentence: str) -> None:
    said = machine.run("spark", "start", "wrong", *options.split())
    assert said.code != 0
    assert sentence in said.err, said
    assert "wrong" not in {view.name for view in machine.client().spark_sessions()}


@pytest.mark.feature("N23", "M15")
def test_two_sessions_that_each_fit_alone_run_one_after_the_other(machine: UserMachine, kernel: Kernel) -> None:
    client = machine.client()
    ok(kernel, f"%spark start first {SIZE} --keep")
    said = machine.run("spark", "start", "second", *SIZE.split(), "--no-wait")
    assert said.code == 0, said
    second = next(view for view in client.spark_sessions() if view.name == "second")
    why = eventually(lambda: machine.why_it_waits(second.job_id))
    assert "2 CPU more than is left; held by your Spark session 'first'" in why, why
    assert pods_of(machine, second.job_id) == {}
    # What each magic says of it while it waits, and Stop.
    assert re.search(r"second +waiting .*held by your Spark session 'first'", ok(kernel, "%spark list"))
    assert "Session second is not ready yet (waiting)" in ok(kernel, "%spark ui second")
    assert len(kernel.run("%spark logs second", 120).error.encode()) < 1024
    for cell, name in (
        ("%%sparksql --session second\nSELECT 1", "second"),
        ("%%spark --session second\n1", "second"),
        (f"%spark start third {SIZE}", "third"),
    ):
        message = kernel.send(cell)
        kernel.gather(message, 150, until=lambda said: "waiting" in said.text)
        kernel.stop_button()
        sentence = f"Stopped waiting for the Spark session {name}, which still comes up; %spark stop {name} gives it up."
        assert sentence in kernel.gather(message, 150).error
    ok(kernel, "%spark stop third")
    assert {view.name: view.job_id for view in client.spark_sessions()}["second"] == second.job_id
    ok(kernel, "%spark stop first")
    ok(kernel, "%spark use second")
    ok(kernel, "%%spark --quiet\n" + WHERE)
    assert kernel.value("ranks") == "['1', '2']"


def test_an_executor_that_is_lost_ends_the_cell_at_once_and_all_of_it_starts_again(
    machine: UserMachine, kernel: Kernel, tell: Callable[[str], None]
) -> None:
    view = a_session(machine, kernel)
    ok(kernel, "%%sparksql\nCREATE OR REPLACE TEMPORARY VIEW mine AS SELECT 1 AS a")
    before = [process for processes in pods_of(machine, view.job_id).values() for process in processes]
    attempt = machine.client().spark_endpoint(view.name).attempt
    message = sent_slow(kernel)
    worker = next(one for one in pods_of(machine, view.job_id)[1] if "PythonGatewayServer" in " ".join(one.cmdline()))
    sidecar = worker.parent().parent()
    assert sidecar is not None
    since = time.time()
    kill(sidecar.pid)
    ran = kernel.gather(message, 300)
    behind = s_behind(machine, view.job_id, since)
    assert ran.status == "error"
    assert f"The Spark session {view.name} was lost (pod " in ran.error, ran.error
    assert "mine" in ran.error, ran.error
    tell(f"an executor was lost: its cell ended {behind:.1f} s after the control plane knew it")
    assert behind < SOON_S, behind
    all_magics_answer(kernel, view)
    eventually(lambda: not any(process.is_running() and process.status() != "zombie" for process in before), 60)
    again = ok(kernel, "%%spark --quiet\n" + WHERE)
    assert f"Spark session {view.name} was started again" in again, again
    assert machine.client().spark_endpoint(view.name).attempt == attempt + 1
    assert kernel.value("ranks") == "['1', '2']"


@pytest.mark.feature("M15")
def test_a_driver_that_is_killed_leaves_no_executor(machine: UserMachine, kernel: Kernel, tell: Callable[[str], None]) -> None:
    view = a_session(machine, kernel)
    java = next(one for one in pods_of(machine, view.job_id)[0] if one.name() == "java")
    message = sent_slow(kernel)
    since = time.time()
    kill(java.pid)
    ran = kernel.gather(message, 300)
    behind = s_behind(machine, view.job_id, since)
    assert ran.status == "error"
    assert f"The Spark session {view.name} ended (" in ran.error, ran.error
    tell(f"a driver was killed: its cell ended {behind:.1f} s after the control plane knew it")
    assert behind < SOON_S, behind
    no_process_is_left(machine, view.job_id, 60)
    machine.client().wait(view.job_id, timeout_s=150)
    all_magics_end(kernel, view, "Failed")


@pytest.mark.feature("M07", "M15")
def test_enginekill_ends_the_whole_gang_and_the_cell_in_it(machine: UserMachine, kernel: Kernel) -> None:
    """Of a session that LinkisMagic's configuration gave executors."""
    client = machine.client()
    for view in client.spark_sessions():
        end_session(machine, view.job_id)
    file = machine.home / "linkismagic.json"
    sizes = {"spark.executor.instances": 2, "spark.executor.memory": "512m", "spark.executor.cores": 1, "driverMemory": "1200m"}
    file.write_text(json.dumps({"session_configs": sizes}))
    other = a_kernel(machine, "other.ipynb")
    try:
        for each in (kernel, other):
            ok(each, f"import os; os.environ['TUTTILAB_LINKISMAGIC_JSON'] = {str(file)!r}")
            ok(each, "%load_ext tuttilab.magics.linkis_magic")
        ok(kernel, "%spark use default")
        ok(kernel, "%%sparksql -q false\nSELECT 1")
        (view,) = client.spark_sessions()
        assert (view.executors, view.executor_cores, view.executor_memory) == (2, 1, "512m")
        listed = ok(other, "%listengine")
        assert re.search(rf"{view.job_id} +default +ready +1 +\S+ +2 x 1 cores, 512m", listed), listed
        ok(other, "%listengine -o engines")
        assert other.value("[(one['name'], one['executors'], one['executorMemory']) for one in engines]") == (
            "[('default', 2, '512m')]"
        )
        message = kernel.send(f"%%sparksql -q false\n{ENDLESS}")
        kernel.gather(message, 150, until=lambda said: "task" in said.text)
        assert "Success: session default is stopped." in ok(other, f"%enginekill -i {view.job_id[:8]}")
        ran = kernel.gather(message, 300)
        assert ran.status == "error"
        assert "The Spark session default " in ran.error, ran.error
        assert client.wait(view.job_id, timeout_s=150).phase == "Cancelled"
        for line, says in (
            (f"%status -i {view.job_id}", "Cancelled"),
            (f"%progress -i {view.job_id}", "1  Cancelled"),
            (f"%log -i {view.job_id}", "ready in"),
            (f"%kill -i {view.job_id}", "There is nothing to kill: "),
        ):
            assert says in ok(other, line), line
        assert f"{view.job_id} is no Spark session of yours" in other.run(f"%enginekill -i {view.job_id}").error
        no_process_is_left(machine, view.job_id, 60)
        assert [use.used for queue in client.queues() if queue.name == "root" for use in queue.use if use.resource == "cpu"] == [0]
        assert "No Spark session" in ok(other, "%listengine")
    finally:
        ok(kernel, "%unload_ext tuttilab.magics.linkis_magic")
        other.close()


def test_idle_and_time_to_live_end_the_whole_gang(machine: UserMachine, kernel: Kernel) -> None:
    client = machine.client()
    for view in client.spark_sessions():
        end_session(machine, view.job_id)
    ok(kernel, f"%spark start brief {SIZE} --idle 4s")
    (view,) = client.spark_sessions()
    assert client.wait(view.job_id, timeout_s=150).phase == "Succeeded"
    no_process_is_left(machine, view.job_id, 60)
    all_magics_end(kernel, view, "Succeeded")
    said = machine.run("spark", "start", "mayfly", *SIZE.split(), "--ttl", "40s", timeout_s=START_S)
    job_id = next(view.job_id for view in client.spark_sessions() if view.name == "mayfly") if said.code == 0 else ""
    ended = client.wait(job_id or machine.job_ids()[0], timeout_s=300)
    assert ended.reason == "ran past its limit of 40s; raise --ttl or do less", ended.reason
    no_process_is_left(machine, ended.id, 60)
