"""What a variable becomes in SQL and a column in the notebook: nothing changes silently, and what cannot go is named."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.e2e.spark.notebook import Notebook
from tuttilab.magics.spark.data import values

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]

FAR = datetime.datetime(9999, 12, 31)  # noqa: DTZ001  without a zone, which is the point
NAIVE = datetime.datetime(2026, 3, 29, 2, 30)  # noqa: DTZ001  as above; an hour that Berlin skipped


@pytest.fixture
def another_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel's zone is not the server's."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_table_that_is_a_frame_of_the_notebook_is_offered_and_can_be_selected_from(notebook: Notebook) -> None:
    notebook["trades"] = pd.DataFrame({"day": ["mon", "tue"], "amount": [1, 2]})
    ran = notebook.run("%%sparksql\nSELECT day\n  FROM trades")
    lines = ran.error.splitlines()
    assert lines[0] == "AnalysisException [TABLE_OR_VIEW_NOT_FOUND], line 3, column 8"
    assert lines[1:4] == [
        "   3 |   FROM trades",
        "              ^^^^^^",
        "trades is a DataFrame of the notebook: write FROM :trades.",
    ]
    ran = notebook.run("%%sparksql out\nSELECT sum(amount) AS a FROM :trades t JOIN :trades u USING (day, amount)")
    assert ran.success, ran.error
    assert notebook["out"].a.tolist() == [3]
    assert "DataFrame of the notebook" not in notebook.run("%%sparksql\nSELECT * FROM nowhere").error


@pytest.mark.feature("M01")
def test_a_list_is_the_values_of_in(notebook: Notebook) -> None:
    notebook["ids"], notebook["some"], notebook["none"] = [1, 2.0, 2**40, None], pd.Series([3.0, np.nan]), []
    notebook["names"], notebook["t"] = {"a"}, pd.DataFrame({"n": [1, 2, 3], "s": ["a", "b", "c"]})
    expected = {
        "n IN (:ids)": [1, 2],
        "n in ( :some )": [3],
        "n IN (:none)": [],
        "n NOT IN (:none)": [1, 2, 3],
        "s IN (:names) AND n IN (:ids)": [1],
        "array_contains(:ids, n)": [1, 2],
    }
    for condition, rows in expected.items():
        ran = notebook.run(f"%%sparksql out --quiet\nSELECT n FROM :t WHERE {condition} ORDER BY n")
        assert ran.success, (condition, ran.error)
        assert notebook["out"].n.tolist() == rows, condition
    notebook["mixed"] = [1, "a"]
    assert ":mixed mixes int and str, and SQL gives a list one type" in notebook.run("%%sparksql\nSELECT 1 IN (:mixed)").error
    ran = notebook.run("%%sparksql\nSELECT 1 IN (:ids),\n  nope FROM :t")
    assert ran.error.splitlines()[:3] == [
        "AnalysisException [UNRESOLVED_COLUMN.WITH_SUGGESTION], line 3, column 3", "   3 |   nope FROM :t", "         ^^^^"
    ]  # fmt: skip


def test_a_name_is_read_whole_in_any_script(notebook: Notebook) -> None:
    notebook["größe"], notebook["表"] = 7, pd.DataFrame({"n": [1]})
    ran = notebook.run("%%sparksql out\nSELECT :größe + n AS a, :größe AS b, n IN (:größe) AS c FROM :表")
    assert ran.success, ran.error
    assert notebook["out"].iloc[0].tolist() == [8, 7, False]


@pytest.mark.parametrize(
    ("column", "kind", "back"),
    [
        (pd.Series([], dtype="int64"), "bigint", []),
        (pd.Series([], dtype=object), "string", []),
        (np.array([1, 2**63 - 1], "uint64"), "bigint", [1, 2**63 - 1]),
        (np.array([2**63 + 1], "uint64"), "decimal(20,0)", [decimal.Decimal(2**63 + 1)]),
        (np.array([1.5], "float16"), "float", [1.5]),
        (pd.array([2**53 + 1, None], "Int64"), "bigint", [2**53 + 1, pd.NA]),
        ([datetime.date(9999, 12, 31)], "date", [datetime.date(9999, 12, 31)]),
        (pd.Series([FAR], dtype=object), "timestamp_ntz", [pd.Timestamp(FAR)]),
        ([[], []], "array<string>", [[], []]),
        ([None, None], "string", [None, None]),
        (pd.Categorical(["x", None]), "string", ["x", None]),
        ([decimal.Decimal("1.50"), None], "decimal(3,2)", [decimal.Decimal("1.50"), None]),
        ([{"x": 1, "y": [1, 2]}], "struct<x:bigint,y:array<bigint>>", [{"x": 1, "y": [1, 2]}]),
        ([pd.Timedelta("1d")], "interval day to second", [pd.Timedelta("1d")]),
        (pd.array(["x", None], "string"), "string", ["x", None]),
        ([float("nan"), 1.0], "double", [None, 1.0]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_column_keeps_its_values_on_the_way_there_and_back(
    notebook: Notebook, column: Any, kind: str, back: list[object]
) -> None:
    notebook["df"] = pd.DataFrame({"c": column})
    ran = notebook.run("%%sparksql out\nSELECT c FROM :df")
    assert ran.success, ran.error
    assert notebook.run(
        "%%spark t --quiet\nspark.sql('SELECT c FROM {df}', df=spark.createDataFrame([(1,)], 'c int')).count()"
    ).success
    found = [list(item) if isinstance(item, np.ndarray) else item for item in notebook["out"].c.tolist()]
    found = [{k: list(v) if isinstance(v, np.ndarray) else v for k, v in i.items()} if isinstance(i, dict) else i for i in found]
    assert [None if item != item and item is not pd.NA else item for item in found if item is not pd.NA] == [
        item for item in back if item is not pd.NA
    ]
    ran = notebook.run("%%sparksql types --as spark --quiet\nSELECT c FROM :df")
    assert notebook["types"].schema["c"].dataType.simpleString() == kind


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame(), ":df has no columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), ":df has column A more than once, and SQL tells no capitals apart"),
        (pd.DataFrame({"a": pd.period_range("2026", periods=1, freq="M")}), "a of :df holds periods, which SQL has not; send"),
        (pd.DataFrame({"a": [1, "x"]}), "a of :df holds int and str, for which SQL has no common type; send df['a']"),
        (pd.DataFrame({"a": [{}]}), "column a of :df holds dicts without a key"),
        (pd.DataFrame({"a": [1j]}), "column a of :df is of type complex128"),
        (pd.DataFrame({"a": [datetime.time(1)]}), "column a of :df holds times of day, which Spark has not"),
        (pd.DataFrame({"a": [NAIVE, NAIVE.replace(tzinfo=datetime.UTC)]}, dtype=object), "a of :df mixes times with and without"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_column_without_a_form_is_named_with_the_way_out(notebook: Notebook, frame: pd.DataFrame, said: str) -> None:
    notebook["df"] = frame
    ran = notebook.run("%%sparksql\nSELECT * FROM :df")
    assert said in ran.error
    assert len(ran.error) < 300


@pytest.mark.usefixtures("another_zone")
def test_times_without_a_zone_do_not_move(notebook: Notebook) -> None:
    aware = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=9)))
    notebook["t"], notebook["w"] = NAIVE, aware
    notebook["df"] = pd.DataFrame({"n": pd.to_datetime([NAIVE]), "a": pd.to_datetime([aware])})
    notebook["p"] = pl.DataFrame({"n": [NAIVE]})
    ran = notebook.run(
        "%%sparksql out --as arrow\nSELECT CAST(d.n AS STRING) AS text, d.n, d.n = :t AS same, d.a, d.a = :w AS same_instant, "
        ":t AS lit FROM :df d JOIN :p p ON d.n = p.n"
    )
    assert ran.success, ran.error
    (row,) = notebook["out"].to_pylist()
    assert row == {"text": "2026-03-29 02:30:00", "n": NAIVE, "same": True, "a": aware, "same_instant": True, "lit": NAIVE}
    assert notebook.run("%%sparksql back\nSELECT n FROM :df").success
    assert notebook["back"].n.tolist() == [pd.Timestamp(NAIVE)]


def test_columns_of_a_result_are_not_turned_into_other_numbers(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%sparksql out\nSELECT CAST(NULL AS BIGINT) AS n, 1 AS a, 2 AS a, INTERVAL '1-2' YEAR TO MONTH AS m, array() AS e, "
        "timestamp'9999-12-31 00:00:00' AS far UNION ALL SELECT 9007199254740993, 1, 2, NULL, NULL, NULL"
    )
    assert ran.success, ran.error
    out = notebook["out"]
    assert [str(kind) for kind in out.dtypes] == ["Int64", "int32", "int32", "object", "object", "datetime64[us]"]
    assert out.n[1] == 9007199254740993
    assert out.m[0] == "INTERVAL '1-2' YEAR TO MONTH"
    assert out.far[0] == pd.Timestamp(FAR)


@pytest.mark.feature("M05")
def test_an_array_of_numbers_goes_there_and_comes_back(notebook: Notebook) -> None:
    notebook["a"] = np.arange(6, dtype="float64").reshape(2, 3)
    ran = notebook.run("%%sparksql out\nSELECT :a AS a, transform(:a, row -> aggregate(row, 0D, (s, x) -> s + x)) AS sums")
    assert ran.success, ran.error
    assert np.array_equal(np.array([list(row) for row in notebook["out"].a[0]]), notebook["a"])
    assert list(notebook["out"].sums[0]) == [3.0, 12.0]


class Spiteful:
    """Shows whether somebody pickles it."""

    pickled = False

    def __reduce__(self) -> Any:
        Spiteful.pickled = True
        return str, ()


@pytest.mark.feature("M05")
def test_nothing_is_pickled_and_what_is_too_large_says_so(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook["o"], notebook["df"] = Spiteful(), pd.DataFrame({"a": [Spiteful()]})
    assert ":o is a Spiteful, which has no form in SQL" in notebook.run("%%sparksql\nSELECT :o").error
    assert "column a of :df holds Spiteful, for which SQL has no common type" in notebook.run("%%sparksql\nSELECT * FROM :df").error
    assert not Spiteful.pickled
    monkeypatch.setattr(values, "MOST_BYTES", 1000)
    notebook["big"] = pa.table({"n": list(range(1000))})
    error = notebook.run("%%sparksql\nSELECT * FROM :big").error
    assert error == (
        "UsageError: :big has 8.0 kB, and 1.0 kB may travel with a statement; "
        "write it with big.to_parquet('big.parquet') once and read it as parquet.`big.parquet`."
    )
    notebook["text"] = "x" * (values.MOST_LITERAL_BYTES + 1)
    assert ":text has 17 MB, too much for a literal" in notebook.run("%%sparksql\nSELECT :text").error


@pytest.mark.feature("M03")
def test_saved_json_is_json(notebook: Notebook) -> None:
    query = (
        "SELECT double('NaN') AS n, double('-Infinity') AS i, map('k', double('NaN'), 'l', 1.5D) AS m, map(1, 'x') AS o, "
        "named_struct('f', date'9999-12-31') AS s, array(1.5D, NULL) AS a, INTERVAL '1 02:00:00' DAY TO SECOND AS d, "
        "INTERVAL '1-2' YEAR TO MONTH AS y, CAST('1.10' AS DECIMAL(5,2)) AS e, X'00FF' AS b"
    )
    ran = notebook.run(f"%%sparksql --save out.json --quiet\n{query}")
    assert ran.success, ran.error

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    (line,) = (notebook.workspace / "out.json").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "n": None, "i": "-Infinity", "m": {"k": None, "l": 1.5}, "o": {"1": "x"}, "s": {"f": "9999-12-31"}, "a": [1.5, None],
        "d": "INTERVAL '1 02:00:00' DAY TO SECOND", "y": "INTERVAL '1-2' YEAR TO MONTH", "e": "1.10", "b": "00ff",
    }  # fmt: skip


@pytest.fixture
def folder(notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebook's folder, with a file and a module beside the notebook."""
    beside = tmp_path / "my notebooks"
    beside.mkdir()
    (beside / "trades.csv").write_text("day,amount\nmon,1\ntue,2\n")
    (beside / "beside_me.py").write_text("def twice(n):\n    return 2 * n\n")
    monkeypatch.chdir(beside)
    monkeypatch.syspath_prepend(str(beside))
    return beside


def test_a_relative_path_is_beside_the_notebook_in_every_cell(notebook: Notebook, folder: Path) -> None:
    ran = notebook.run("%%spark\nrows = spark.read.csv('trades.csv', header=True)\nrows.write.parquet('out')\nrows.count()")
    assert ran.success, ran.error
    assert ran.result.result == 2
    assert list((folder / "out").glob("part-*.parquet"))
    ran = notebook.run("%%sparksql out\nSELECT count(*) AS n FROM parquet.`out`")
    assert ran.success, ran.error
    assert notebook["out"].n.tolist() == [2]
    view = "CREATE OR REPLACE TEMPORARY VIEW t USING csv OPTIONS (path 'trades.csv', header 'true')"
    ran = notebook.run(f"%%sparksql out\n{view};\nSELECT max(amount) AS n FROM t WHERE day <> 'path'")
    assert ran.success, ran.error
    assert notebook["out"].n.tolist() == ["2"]
    ran = notebook.run("%%spark\n\nx = 1\nspark.read.csv('nowhere.csv').count()")
    assert f"{folder}/nowhere.csv" in ran.error
    assert "   4 | spark.read.csv('nowhere.csv').count()" in ran.error.splitlines()
    ran = notebook.run("%%sparksql\nSELECT 1;\nSELECT *\n  FROM csv.`nowhere.csv`")
    assert f"{folder}/nowhere.csv" in ran.error


def test_a_function_that_spark_runs_finds_the_modules_beside_the_notebook(notebook: Notebook, folder: Path) -> None:
    ran = notebook.run(
        "%%spark out\nimport beside_me\nfrom pyspark.sql.functions import udf\n"
        "@udf('long')\ndef four(n):\n    import beside_me as again\n    return beside_me.twice(again.twice(n))\n"
        "spark.range(3).select(four('id').alias('n'))"
    )
    assert ran.success, ran.error
    assert notebook["out"].n.tolist() == [0, 4, 8]


def test_a_cell_that_awaits_says_where_that_goes(notebook: Notebook) -> None:
    ran = notebook.run("%%spark\nimport asyncio\nawait asyncio.sleep(0)")
    assert ran.error.splitlines()[0] == "SyntaxError, line 3, column 1"
    assert "%%spark does not await; move these lines into a cell without the magic, where `spark` is bound too." in ran.error
    assert len(ran.error.splitlines()) <= 6


def test_objects_of_the_session_are_refused_when_a_job_would_take_them(notebook: Notebook) -> None:
    from tuttilab.magics.submission.capture import capture
    from tuttilab.scheduler.domain.errors import BadInput

    assert notebook.run("%%spark\nfrom pyspark.sql.functions import col\nrows = spark.range(3)\ntwice = col('id') * 2\n1").success
    for name, what in {"spark": "a Spark session", "rows": "a Spark DataFrame", "twice": "a Spark column"}.items():
        with pytest.raises(BadInput, match=f"^{name} is {what}, which lives in this notebook"):
            capture({name: notebook[name]})


_SAVER = """
import re, resource, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from tests.e2e.spark.session_provider import FolderProvider
from tuttilab.magics.spark.magic import register

shell = InteractiveShell.instance()
magics = register(shell, FolderProvider(Path(sys.argv[1])))
query = "SELECT id, repeat(uuid(), 8) AS text FROM range(0, {}, 1, 4)"
for ending in ("csv", "parquet"):
    shell.run_cell_magic("sparksql", f"--quiet --save warm.{ending}", query.format(1000))
used = int(re.search(r"VmData:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 150 * 2**20,) * 2)
for ending in ("csv", "parquet"):
    shell.run_cell_magic("sparksql", f"--save big.{ending}", query.format(1_000_000))
magics.sessions.close()
"""


@pytest.mark.feature("M03")
@pytest.mark.timeout(700)
def test_a_result_larger_than_the_kernels_memory_is_saved(notebook: Notebook) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SAVER, str(notebook.provider.root)],
        env=os.environ | {"TUTTILAB_WORKSPACE": str(notebook.workspace)}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("saved 1,000,000 rows") == 2
    # 150 MiB were left to a kernel that saved nearly 300.
    assert (notebook.workspace / "big.csv").stat().st_size > 280_000_000
    assert pyarrow.parquet.ParquetFile(notebook.workspace / "big.parquet").metadata.num_rows == 1_000_000
    for name in ("big.csv", "big.parquet"):
        (notebook.workspace / name).unlink()
