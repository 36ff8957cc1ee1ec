"""`%%spark --lang scala`: a REPL in the driver of a real session, beside Python and SQL in the same one."""

from __future__ import annotations

import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.spark.notebook import Notebook, Ran

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]


@pytest.fixture
def scala(notebook: Notebook) -> Callable[..., Ran]:
    return lambda body, options="": notebook.run(f"%%spark {options} --lang scala\n{body}")


@pytest.mark.feature("M01")
def test_cells_share_names_among_them_and_views_with_python_and_sql(notebook: Notebook, scala: Callable[..., Ran]) -> None:
    assert notebook.run("%%spark\nspark.range(5).createOrReplaceTempView('five')").success
    ran = scala('println("seen")\nval factor = 3\ndef times(n: Long): Long = n * factor')
    assert ran.success, ran.error
    assert ran.stdout.splitlines() == ["seen", "val factor: Int = 3", "def times(n: Long): Long"]
    ran = scala('val twice = udf(times _)\nspark.table("five").select(twice($"id") as "n")', "rows")
    assert ran.success, ran.error
    assert list(notebook["rows"].n) == [0, 3, 6, 9, 12]
    # A class of the REPL in a function of RDDs and in a typed Dataset, which Spark runs elsewhere than in the REPL.
    ran = scala(
        "case class Point(x: Int, name: String)\n"
        'val sum = sc.parallelize(1 to 10).map(Point(_, "p")).map(_.x * factor).collect().sum\n'
        'val points = Seq(Point(1, "a"), Point(sum, "b")).toDS\n'
        'points.createOrReplaceTempView("points")\npoints.filter(_.x > 1)',
        "points",
    )
    assert ran.success, ran.error
    assert notebook["points"].to_dict("records") == [{"x": 165, "name": "b"}]
    assert "165" in ran.text  # the preview
    ran = notebook.run("%%sparksql both\nSELECT count(*) n FROM points")
    assert int(notebook["both"].n[0]) == 2, ran.error
    # The views that carried results here are gone.
    ran = notebook.run("%%spark views\n[t.name for t in spark.catalog.listTables() if t.name.startswith('tuttilab_')]")
    assert notebook["views"] == [], ran.error
    assert scala("factor.toLong * 2", "number").success
    assert notebook["number"] == 6


@pytest.mark.feature("M01")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("val a = 1\nfoo(a)", ["Scala: error in line 3", "   3 | foo(a)", "       ^", "not found: value foo"]),
        ("\nval s: String = 3", ["Scala: error in line 3", "   3 | val s: String = 3", "type mismatch"]),
        ("val l = List(1,", ["The cell of Scala ends in the middle of an expression"]),
        ('val b = 2\nthrow new IllegalStateException("no room")', ["IllegalStateException: no room"]),
        ("val zero = 0\nList(1).map(x => x / zero)", ["   3 | List(1).map(x => x / zero)", "ArithmeticException: / by zero"]),
        ('spark.sql("select nope from range(3)")', ["UNRESOLVED_COLUMN", "`nope` cannot be resolved"]),
    ],
)
def test_errors_are_short_and_have_the_place_in_the_cell(scala: Callable[..., Ran], body: str, says: list[str]) -> None:
    ran = scala(body)
    assert not ran.success
    assert all(each in ran.error for each in says), ran.error
    assert len(ran.error.encode()) < 1024
    assert "\tat " not in ran.error


@pytest.mark.feature("M09")
def test_stop_ends_the_jobs_of_a_cell_of_scala_and_the_session_stays(notebook: Notebook, scala: Callable[..., Ran]) -> None:
    assert scala("val before = 41").success
    held = notebook.magics.sessions.get("default", print, print)

    def stop() -> None:
        until = time.monotonic() + 240
        while held.cell is None or not held.cell.progress._tasks:
            assert time.monotonic() < until
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=stop)
    other.start()
    began = time.monotonic()
    ran = scala("sc.parallelize(1 to 100000, 1000).map { n => Thread.sleep(50); n }.count()")
    other.join()
    assert not ran.success
    assert ran.error.startswith("Stopped: the cell's Spark operations were ended"), ran.error
    assert time.monotonic() - began < 240
    ran = scala("before + 1", "after")
    assert ran.success, ran.error
    assert notebook["after"] == 42


def test_a_file_added_to_the_session_starts_the_repl_anew_and_says_so(
    notebook: Notebook, scala: Callable[..., Ran], tmp_path: Path
) -> None:
    assert scala("val kept = 1").success
    with zipfile.ZipFile(tmp_path / "more.jar", "w") as jar:
        jar.writestr("settings/of.properties", "colour=green")
    assert notebook.run(f"%spark add {tmp_path / 'more.jar'}").success
    ran = scala('Thread.currentThread.getContextClassLoader.getResource("settings/of.properties") != null', "found")
    assert ran.success, ran.error
    assert notebook["found"] is True
    assert not scala("kept").success
