"""Results at the edges: dates before every time zone, no rows, no columns, ten million rows, colons that are no variables."""

from __future__ import annotations

import datetime

import pandas as pd
import pyarrow as pa
import pytest

from tests.e2e.spark.notebook import Notebook

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]


def test_dates_before_1900_stay_as_they_are(notebook: Notebook) -> None:
    ran = notebook.run(
        "%%sparksql old\nSELECT date'0001-01-01' AS first, date'1582-10-04' AS julian, date'1883-11-17' AS day,\n"
        "  timestamp_ntz'1890-01-01 00:00:01' AS second, timestamp_ntz'0001-01-01 00:00:00' AS begin"
    )
    assert ran.success, ran.error
    (row,) = notebook["old"].to_dict("records")
    days = [datetime.date(1, 1, 1), datetime.date(1582, 10, 4), datetime.date(1883, 11, 17)]
    assert [row["first"], row["julian"], row["day"]] == days
    assert row["second"] == pd.Timestamp("1890-01-01 00:00:01")
    assert str(row["begin"])[:10] == "0001-01-01"
    assert "1582-10-04" in ran.text
    # And back: what the notebook binds is what Spark reads.
    notebook["day"] = days[1]
    assert notebook.run("%%sparksql back\nSELECT :day AS day, year(:day) AS year").success
    assert notebook["back"].iloc[0].tolist() == [days[1], 1582]


def test_no_rows_and_no_columns_are_results_too(notebook: Notebook) -> None:
    ran = notebook.run("%%sparksql empty\nSELECT 1 AS a, 'x' AS s WHERE false")
    assert ran.success, ran.error
    assert (list(notebook["empty"].columns), len(notebook["empty"]), str(notebook["empty"].dtypes["a"])) == (["a", "s"], 0, "int32")
    assert ran.text.splitlines()[-1] == "(0 rows × 2 columns)"
    ran = notebook.run("%%spark bare\nspark.range(3).select()")
    assert ran.success, ran.error
    assert notebook["bare"] is None  # as of a command: Spark gives those as frames without columns


def test_ten_million_rows_come_whole_and_few_are_shown(notebook: Notebook) -> None:
    ran = notebook.run("%%sparksql many --as arrow --limit 3\nSELECT id FROM range(10000000)")
    assert ran.success, ran.error
    table = notebook["many"]
    assert isinstance(table, pa.Table)
    assert (table.num_rows, sum(batch.column(0)[-1].as_py() for batch in table.to_batches()[-1:])) == (10_000_000, 9_999_999)
    assert ran.text.splitlines()[-1] == "(first 3 of 10,000,000 rows × 1 column)"


@pytest.mark.feature("M01")
def test_colons_of_casts_paths_and_strings_are_no_variables(notebook: Notebook) -> None:
    notebook["n"] = 2
    ran = notebook.run(
        "%%sparksql out\nSELECT '7'::int AS i, get_json_object('{\"a:n\": {\"c\": 8}}', '$.a:n.c') AS j, ':n' AS s,\n"
        "  named_struct('k:n', array(map(':n', :n))) AS nested, 1.25::decimal(10,3) AS d /* :n */"
    )
    assert ran.success, ran.error
    (row,) = notebook["out"].to_dict("records")
    assert (row["i"], row["j"], row["s"], str(row["d"])) == (7, "8", ":n", "1.250")
    assert "2" in str(row["nested"])
