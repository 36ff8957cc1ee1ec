"""The cells of LinkisMagic on a real session: what `-o -p -q -v -u` do, and what fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.spark.notebook import Notebook
from tuttilab.magics.linkis.config import VARIABLE
from tuttilab.magics.linkis_magic import load_ipython_extension, unload_ipython_extension

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]


@pytest.fixture
def linkis(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "linkismagic.json"))
    ran = notebook.run("%load_ext tuttilab.magics.linkis_magic")
    assert ran.success, ran.error
    if "tuttilab.magics.linkis_magic" in ran.stdout:  # loaded by a test before
        load_ipython_extension(notebook.shell)
    yield notebook
    unload_ipython_extension(notebook.shell)
    notebook.shell.extension_manager.loaded.discard("tuttilab.magics.linkis_magic")


@pytest.mark.feature("M01", "M02", "M04")
def test_sql_gives_result0_and_is_quiet_unless_q_is_false(linkis: Notebook) -> None:
    ran = linkis.run("%%sparksql -o found\nSELECT 1 AS a, date'2026-11-01' AS day; SELECT 'x;y' AS b -- one; two")
    assert ran.success, ran.error
    assert ran.text == ""
    assert list(linkis["found"]) == ["result0", "result1"]
    assert linkis["found"]["result0"].to_dict("records") == [{"a": 1, "day": pd.Timestamp("2026-11-01").date()}]
    assert linkis["found"]["result1"].b[0] == "x;y"
    # As LinkisMagic's notebooks go on with it.
    assert linkis.run("import pandas as pd\nframe = pd.DataFrame(found['result0'])").success
    assert int(linkis["frame"].a[0]) == 1
    shown = linkis.run("%%sparksql -qfalse\nSELECT 41 + 1 AS answer")
    assert "42" in shown.text
    unseen = linkis.run("%%sparksql\nSELECT 41 + 1 AS answer")
    assert unseen.text == "The result is neither shown nor fetched: `-q false` shows it, `-o VAR` binds it, `-p PATH` saves it."
    assert linkis.run("%%sparksql\nCREATE OR REPLACE TEMP VIEW made AS SELECT 7 AS n").text == ""
    lines = linkis.run("%%sql -o both -q false\nSELECT n FROM made\n\nSELECT n + 1 AS n FROM made")
    assert lines.success, lines.error
    assert [int(frame.n[0]) for frame in linkis["both"].values()] == [7, 8]
    one = linkis.run("%%sql -o one\nSELECT n\nFROM made\nWHERE n > 1")
    assert one.success, one.error
    assert list(linkis["one"]) == ["result0"]
    preview = linkis.run("%%sparksql -q false\nSELECT id FROM range(5000)")
    assert "first 1,000 rows × 1 column, there are more" in "".join(preview.html) + preview.text


@pytest.mark.feature("M01", "M04", "M05")
def test_pyspark_has_names_of_its_own_and_v_and_u_move_values(linkis: Notebook) -> None:
    linkis["frame"] = pd.DataFrame({"a": [1, 2]})
    linkis["settings"] = {"factor": 3, "names": ["x", "y"]}
    linkis["matrix"] = np.arange(6.0).reshape(2, 3)
    ran = linkis.run("%%pyspark -u settings -v doubled\ndoubled = {k: v * 2 for k, v in settings.items()}\nframe = spark.range(4)")
    assert ran.success, ran.error
    assert linkis["doubled"] == {"factor": 6, "names": ["x", "y", "x", "y"]}
    # One name in two places: a pandas frame in the notebook, a Spark DataFrame in the session.
    assert list(linkis["frame"].a) == [1, 2]
    assert linkis.run("%%pyspark -v frame\nframe = frame.selectExpr('id * 10 AS tens')").success
    assert list(linkis["frame"].tens) == [0, 10, 20, 30]
    assert linkis.run("%%pyspark -u matrix -v total\nimport numpy as np\ntotal = matrix.sum(axis=0)").success
    assert linkis["total"].tolist() == [3.0, 5.0, 7.0]
    assert linkis.run("%%pyspark -u frame -v both\nboth = spark.createDataFrame(frame).count()").success
    assert linkis["both"] == 4
    ran = linkis.run("%%pyspark -o out\nprint('three', 3)\nshow(spark.range(2))\nspark.range(3)")
    assert ran.success, ran.error
    assert linkis["out"]["result0"] == "three 3"
    assert [len(linkis["out"][f"result{n}"]) for n in (1, 2)] == [2, 3]
    assert ran.stdout == ""
    assert linkis.run("%%pyspark -q false\nprint('seen')").stdout == "seen\n"
    assert linkis.run("%%pyspark\nhiveContext.registerDataFrameAsTable(spark.range(9), 'nine')").success
    assert linkis.run("%%sparksql -o nine\nSELECT count(*) AS n FROM nine").success
    assert int(linkis["nine"]["result0"].n[0]) == 9
    # Functions of the session's names run in Spark's Python.
    ran = linkis.run(
        "%%pyspark -v sums\nfrom pyspark.sql.functions import udf\nfactor = 5\n@udf('long')\ndef times(n):\n    return n * factor\n"
        "sums = spark.range(3).select(times('id').alias('n'))"
    )
    assert ran.success, ran.error
    assert list(linkis["sums"].n) == [0, 5, 10]


@pytest.mark.feature("M01")
def test_spark_is_scala_and_shares_views(linkis: Notebook) -> None:
    ran = linkis.run(
        '%%spark -o out\nprintln("hello")\nval rows = spark.range(3).toDF("n")\nrows.createOrReplaceTempView("three")\nrows'
    )
    assert ran.success, ran.error
    assert linkis["out"]["result0"] == "hello"
    assert list(linkis["out"]["result1"].n) == [0, 1, 2]
    assert linkis.run("%%pyspark -v n\nn = spark.table('three').count()").success
    assert linkis["n"] == 3
    assert "three" not in linkis.run("%spark list").text
    failed = linkis.run('%%spark\nval x: Int = "no"')
    assert failed.error.splitlines()[0] == "Scala: error in line 2"


@pytest.mark.feature("M03")
def test_p_saves_below_the_workspace_and_replaces(linkis: Notebook) -> None:
    for rows in (4, 2):
        ran = linkis.run(f"%%sparksql -p /results/daily\nSELECT id FROM range({rows})")
        assert ran.success, ran.error
    assert pd.read_csv(linkis.workspace / "results" / "daily.csv").id.tolist() == [0, 1]
    assert linkis.run("%%pyspark -p frame.parquet\nspark.range(3)").success
    assert len(pd.read_parquet(linkis.workspace / "frame.parquet")) == 3
    assert linkis.run('%%spark -p scala.json\nspark.range(1).toDF("n")').success
    assert (linkis.workspace / "scala.json").read_text() == '{"n": 0}\n'
    refused = linkis.run("%%sparksql -p ../../outside\nSELECT 1")
    assert refused.error.startswith("UsageError: %%sparksql: -p ../../outside leads out of the workspace")


@pytest.mark.feature("M15", "M08")
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%pyspark\n1 / 0", "ZeroDivisionError: division by zero"),
        ("%%pyspark -v nothing\nx = 1", "UsageError: %%pyspark -v: the cell's session has no name nothing; "),
        (
            "%%pyspark -u missing\n1",
            "UsageError: %%pyspark: -u missing names no variable of the notebook; ",
        ),
        ("%%pyspark\nsc.parallelize([1])", "UsageError: sc.parallelize has no counterpart in Python: "),
        ("%%pyspark -q maybe\n1", "UsageError: %%pyspark: --quiet takes true or false, got 'maybe'."),
        ("%%pyspark -p a.csv\n1", "UsageError: %%pyspark: -p saves a Spark DataFrame"),
        ("%%pyspark\n ", "UsageError: %%pyspark: the cell is empty"),
        ("%%sql\nSELECT nope FROM range(3)", "UNRESOLVED_COLUMN"),
        ("%%sparksql\nSELEC 1", "PARSE_SYNTAX_ERROR"),
        ("%%spark\nfoo(1)", "not found: value foo"),
    ],
)
def test_a_failed_cell_raises_one_short_error(linkis: Notebook, cell: str, says: str) -> None:
    ran = linkis.run(cell)
    assert not ran.success
    assert says in ran.error
    assert len(ran.error.encode()) < 1024


def test_the_configuration_gives_the_session_its_size_and_the_workspace(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jupyter").mkdir()
    settings = {
        "spark.driver.memory": "2g",
        "spark.driver.cores": 1,
        "spark.sql.ansi.enabled": "false",
        "spark.executor.memory": "4g",
    }
    written = {
        "base_url": "http://linkis",
        "Token-Code": "SECRET",
        "jupyter_dir": str(tmp_path / "jupyter"),
        "session_configs": settings,
    }
    (tmp_path / "linkismagic.json").write_text(json.dumps(written))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "linkismagic.json"))
    monkeypatch.delenv("TUTTILAB_WORKSPACE")
    notebook.magics.sessions.current = "sized"
    ran = notebook.run("from tuttilab.magics.linkis_magic import load_ipython_extension as load\nload(get_ipython())")
    try:
        assert ran.success, ran.error
        assert ran.text.splitlines()[1:] == [
            "linkismagic.json: base_url, Token-Code not used: jobs and sessions run here, with your own token.",
            "linkismagic.json: session_configs spark.executor.memory have no counterpart in a session here.",
        ]
        ran = notebook.run("%%sparksql -p kept -o ansi\nSET spark.sql.ansi.enabled")
        assert ran.success, ran.error
        assert notebook["ansi"]["result0"].value[0] == "false"
        assert (tmp_path / "jupyter" / "kept.csv").exists()
        asked = notebook.provider.requests["sized"]
        assert (asked.cores, asked.memory) == (1, "2Gi")
    finally:
        unload_ipython_extension(notebook.shell)
        notebook.run("%spark stop sized")
        monkeypatch.delenv("TUTTILAB_WORKSPACE", raising=False)
    for text in ("[1]", "{", '{"session_configs": 3}'):
        (tmp_path / "linkismagic.json").write_text(text)
        ran = notebook.run("load(get_ipython())")
        assert ran.error.startswith(f"UsageError: {tmp_path / 'linkismagic.json'}"), ran.error
        assert len(ran.error) < 600
