"""%%sparksql on a real session: binding, several statements, forms of the result, previews, saving, errors."""

from __future__ import annotations

import datetime
import decimal
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.e2e.spark.notebook import Notebook

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]

TYPES = (
    "select cast(1 as int) i, 2L l, 1.5D d, cast(3.25 as decimal(10,2)) m, 'x' s, true b, date'2026-01-02' t, "
    "timestamp'2026-01-02 03:04:05' ts, array(1,2) a, map('k',1) k, named_struct('f',1) r, binary('z') z, cast(null as int) n"
)


@pytest.mark.feature("M01", "M02")
def test_strings_comments_and_semicolons_do_not_confuse(notebook: Notebook) -> None:
    notebook["n"] = 2
    body = "select ';:n' a, \"it's\" b, :n c -- :no; not this\n; /* ; :nor */ select `x` from (select 5 x)"
    ran = notebook.run(f"%%sparksql out\n{body}")
    assert ran.success, ran.error
    first, second = notebook["out"]
    assert first.iloc[0].tolist() == [";:n", "it's", 2]
    assert second.x.tolist() == [5]
    assert [line for line in ran.text.splitlines() if line.startswith("statement")] == ["statement 1 of 2", "statement 2 of 2"]


@pytest.mark.feature("M02")
def test_each_form_of_a_result_keeps_the_types(notebook: Notebook) -> None:
    for form in ("pandas", "arrow", "polars", "spark"):
        assert notebook.run(f"%%sparksql {form}_out --as {form} --quiet\n{TYPES}").success
    frame = notebook["pandas_out"]
    assert isinstance(frame, pd.DataFrame)
    kinds = [str(kind) for kind in frame.dtypes[["i", "l", "d", "b", "ts"]]]
    assert kinds == ["int32", "int64", "float64", "bool", "datetime64[ns]"]
    assert frame.m[0] == decimal.Decimal("3.25")
    assert (frame.s[0], frame.z[0], list(frame.a[0])) == ("x", b"z", [1, 2])
    table = notebook["arrow_out"]
    assert isinstance(table, pa.Table)
    assert table.schema.field("m").type == pa.decimal128(10, 2)
    assert table.schema.field("ts").type == pa.timestamp("us", "UTC")
    assert isinstance(notebook["polars_out"], pl.DataFrame)
    assert notebook["polars_out"]["t"].to_list() == [datetime.date(2026, 1, 2)]
    assert notebook["spark_out"].schema.simpleString().startswith("struct<i:int,l:bigint,d:double,m:decimal(10,2)")


@pytest.mark.feature("M02")
def test_results_come_as_a_dict_when_that_is_asked_for(notebook: Notebook) -> None:
    assert notebook.run(
        "%%sparksql out --as-dict --quiet\nselect 1 x; create or replace temp view v as select 2 y; select * from v"
    ).success
    assert {name: frame.iloc[0].to_dict() for name, frame in notebook["out"].items()} == {"result0": {"x": 1}, "result1": {"y": 2}}
    assert notebook.run("%%sparksql out --as-dict --as arrow --quiet\nselect 3 z").success
    assert {name: table.to_pylist() for name, table in notebook["out"].items()} == {"result0": [{"z": 3}]}
    assert notebook.run("%%sparksql out --as-dict\ncreate or replace temp view w as select 1").success
    assert notebook["out"] == {}
    assert notebook.run("value = %sparksql --as-dict select 4 q").success
    assert notebook["value"]["result0"].q.tolist() == [4]


def test_commands_give_no_result_and_a_line_magic_gives_its_value(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql out\ncreate or replace temp view one as select 1 x; select * from one").success
    assert notebook["out"].x.tolist() == [1]
    ran = notebook.run("value = %sparksql --as arrow select x + 1 as y from one")
    assert ran.success, ran.error
    assert notebook["value"].to_pydict() == {"y": [2]}
    assert ran.text == ""


@pytest.mark.feature("M05")
@pytest.mark.parametrize(
    "value",
    [1, 1.5, True, None, "it's; -- {x} :y", b"ab", decimal.Decimal("1.10"), datetime.date(2026, 1, 2),
     datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), [1, 2], np.int64(3), np.float64(0.5), pd.Timestamp("2026-01-02")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_of_the_notebook_arrive_as_they_are(notebook: Notebook, value: Any) -> None:
    notebook["v"] = value
    ran = notebook.run("out = %sparksql --as arrow select :v as v")
    assert ran.success, ran.error
    (found,) = notebook["out"].column("v").to_pylist()
    expected = value.to_pydatetime() if isinstance(value, pd.Timestamp) else value
    if isinstance(value, pd.Timestamp):
        found = found.replace(tzinfo=None)
    assert found == expected


@pytest.mark.feature("M05")
def test_a_dict_is_a_map_and_what_has_no_form_is_named(notebook: Notebook) -> None:
    notebook["d"] = {"a": 1}
    assert notebook.run("out = %sparksql --as arrow select :d['a'] as v").success
    assert notebook["out"].column("v").to_pylist() == [1]
    notebook["o"] = object()
    assert ":o is a object, which has no form in SQL" in notebook.run("%%sparksql\nselect :o").error


@pytest.mark.feature("M05")
def test_frames_of_every_library_are_bound_as_views(notebook: Notebook) -> None:
    notebook["p"] = pd.DataFrame({"id": [1, 2], "p": ["a", "b"]})
    notebook["t"] = pa.table({"id": [1, 2], "t": [1.5, 2.5]})
    notebook["args"] = pl.DataFrame({"id": [1, 2], "q": [True, False]})
    assert notebook.run("%%spark --quiet\ns = spark.range(3)").success
    joins = "from :s join :p using (id) join :t using (id) join :args using (id) order by id"
    ran = notebook.run(f"%%sparksql out\nselect p, t, q, '{{brace}}' x {joins}")
    assert ran.success, ran.error
    assert notebook["out"].to_numpy().tolist() == [["a", 1.5, True, "{brace}"], ["b", 2.5, False, "{brace}"]]


def test_a_quiet_cell_without_a_variable_runs_all_the_same(notebook: Notebook) -> None:
    """Spark itself runs a query only once its rows are asked for."""
    for number, cell in enumerate(("%%sparksql --quiet\n{}", '%%spark --quiet\nspark.sql("{}")')):
        query = f"select reflect('java.lang.System', 'setProperty', 'tuttilab.quiet', '{number}') as was"
        assert notebook.run(cell.format(query)).outputs == []
        seen = "%%sparksql seen --quiet\nselect reflect('java.lang.System', 'getProperty', 'tuttilab.quiet') as value"
        assert notebook.run(seen).success
        assert list(notebook["seen"].value) == [str(number)]


@pytest.mark.feature("M04")
def test_a_preview_is_capped_and_escaped_and_quiet_shows_nothing(notebook: Notebook) -> None:
    ran = notebook.run("%%sparksql --limit 5\nselect id, '<img src=x onerror=alert(1)>' h from range(100)")
    assert ran.text.endswith("(first 5 rows × 2 columns, there are more)")
    # A query that takes a while has its progress beside the table.
    (table,) = [html for html in ran.html if "<tr>" in html]
    assert table.count("<tr>") == 6
    assert "<img" not in table
    assert notebook.run("%%sparksql df --quiet\nselect 1").outputs == []


@pytest.mark.feature("M03")
def test_saving_writes_one_file_and_shows_its_first_rows(notebook: Notebook) -> None:
    for ending in ("parquet", "csv", "json"):
        query = "select id, timestamp'2026-01-02 03:04:05' ts from range(0, 1000, 1, 7)"
        ran = notebook.run(f"%%sparksql --save out.{ending} --limit 2\n{query}")
        assert ran.success, ran.error
        assert ran.text.startswith("saved 1,000 rows (")
        assert ran.text.endswith("(first 2 of 1,000 rows × 2 columns)")
    table = pyarrow.parquet.read_table(notebook.workspace / "out.parquet")
    assert table.column("id").to_pylist() == list(range(1000))
    assert table.schema.field("ts").type == pa.timestamp("us", "UTC")
    assert len((notebook.workspace / "out.csv").read_text().splitlines()) == 1001
    assert sorted(path.name for path in notebook.workspace.iterdir()) == ["out.csv", "out.json", "out.parquet"]
    assert "exists; add --overwrite" in notebook.run("%%sparksql --save out.csv\nselect 1").error
    assert notebook.run("%%sparksql --save out.csv --overwrite --quiet\nselect 1 x").success
    assert (notebook.workspace / "out.csv").read_text().split() == ['"x"', "1"]
    assert "leads out of the workspace" in notebook.run("%%sparksql --save ../out.csv\nselect 1").error


@pytest.mark.feature("M03")
def test_saving_to_a_folder_is_done_by_spark_and_an_empty_result_is_a_file(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql --save many/\nselect id from range(0, 100, 1, 3)").success
    assert len(list((notebook.workspace / "many").glob("part-*.parquet"))) == 3
    assert "exists; add --overwrite" in notebook.run("%%sparksql --save many/\nselect 1").error
    ran = notebook.run("%%sparksql --save none.parquet\nselect id from range(10) where id < 0")
    assert ran.success, ran.error
    assert pyarrow.parquet.read_table(notebook.workspace / "none.parquet").schema.names == ["id"]


def test_a_view_can_be_made_and_a_plan_explained(notebook: Notebook) -> None:
    assert notebook.run("%%sparksql --view seen --quiet\nselect 3 x").success
    assert notebook.run("%%sparksql df\nselect x from seen").success
    assert notebook["df"].x.tolist() == [3]
    assert "== Physical Plan ==" in notebook.run("%%sparksql --explain\nselect * from seen").stdout


def test_explain_runs_no_command_and_takes_no_name_for_a_result(notebook: Notebook) -> None:
    notebook["rows"], notebook["most"] = pd.DataFrame({"n": [1, 2]}), 1
    for statement in ("create temp view planned as select 1 x", "select n from :rows where n > :most"):
        ran = notebook.run(f"%%sparksql --explain\n{statement}")
        assert ran.success, ran.error
        assert "== Physical Plan ==" in ran.stdout
    assert "planned" in notebook.run("%%sparksql\nselect * from planned").error
    assert "line 2" in notebook.run("%%sparksql --explain\nselect * from nowhere").error
    for asked in ("plan", "--save plan.csv", "--view plan"):
        ran = notebook.run(f"%%sparksql {asked} --explain\nselect 1 x")
        assert ran.error == (
            "UsageError: %%sparksql: --explain runs nothing, so there is no result to bind, save or name; leave one out."
        )


def test_what_a_command_gives_is_neither_saved_nor_named(notebook: Notebook) -> None:
    command = "create or replace temp view made as select 1 x"
    for asked in ("--view named", "--save made.parquet", "--save made.json", "out --save made.csv", "--save made/"):
        ran = notebook.run(f"%%sparksql {asked}\nselect 1 x; {command}")
        assert ran.error == "UsageError: A command has no result, so there is nothing to save or name; end the cell with a query."
    assert list(notebook.workspace.iterdir()) == []
    assert "named" in notebook.run("%%sparksql\nselect * from named").error


def test_a_variant_is_shown_and_saved_as_its_json(notebook: Notebook) -> None:
    query = 'select parse_json(\'{"a":[1,"x"]}\') v, id from range(1) union all select null, 7'
    ran = notebook.run(f"%%sparksql out --as arrow\n{query}")
    assert ran.success, ran.error
    assert notebook["out"].column("v").to_pylist() == ['{"a":[1,"x"]}', None]
    assert '{"a":[1,"x"]}' in ran.text
    assert notebook.run(f"%%sparksql frame --quiet\n{query}").success
    assert notebook["frame"].v[0].toPython() == {"a": [1, "x"]}
    for ending in ("json", "parquet", "csv"):
        ran = notebook.run(f"%%sparksql --save v.{ending}\n{query}")
        assert ran.success, ran.error
    assert [json.loads(line)["v"] for line in (notebook.workspace / "v.json").read_text().splitlines()] == ['{"a":[1,"x"]}', None]
    assert pyarrow.parquet.read_table(notebook.workspace / "v.parquet").column("v").to_pylist() == ['{"a":[1,"x"]}', None]


def test_stop_of_a_session_that_is_not_there_says_so(notebook: Notebook) -> None:
    assert notebook.run("%spark stop nowhere").text.startswith("There was no Spark session nowhere to stop; yours: default")


def test_a_semicolon_hides_a_result_and_one_in_a_comment_does_not(notebook: Notebook) -> None:
    query = "spark.sql(\"select reflect('java.lang.System', 'setProperty', 'tuttilab.semicolon', 'ran') as was\")"
    assert notebook.run(f"%%spark\n{query};  # hidden").outputs == []
    assert notebook.run(
        "%%sparksql seen --quiet\nselect reflect('java.lang.System', 'getProperty', 'tuttilab.semicolon') as value"
    ).success
    assert list(notebook["seen"].value) == ["ran"]
    ran = notebook.run("%%spark\nspark.range(3)  # three rows;")
    assert ran.text.splitlines()[-1] == "(3 rows × 1 column)"


@pytest.mark.feature("M08")
@pytest.mark.parametrize(
    ("cell", "lines"),
    [
        (
            "%%sparksql\nselect 1;\nselect nope,\n  id from range(3)",
            ["AnalysisException [UNRESOLVED_COLUMN.WITH_SUGGESTION], line 3, column 8",
             "   3 | select nope,", "              ^^^^"],
        ),
        (
            "%%sparksql\n  select 1; selec 2",
            ["ParseException [PARSE_SYNTAX_ERROR], line 2, column 13", "   2 |   select 1; selec 2", "                   ^^^^^"],
        ),
        (
            "%%sparksql\nselect * from :people p join nosuch using (id)",
            ["AnalysisException [TABLE_OR_VIEW_NOT_FOUND], line 2, column 30",
             "   2 | select * from :people p join nosuch using (id)", "                                    ^^^^^^"],
        ),
        (
            "%%sparksql\nselect 1/(id-id)\nfrom range(3)",
            ["ArithmeticException [DIVIDE_BY_ZERO], line 2, column 8", "   2 | select 1/(id-id)", "              ^^^^^^^^^"],
        ),
        (
            "%sparksql select nope",
            ["AnalysisException [UNRESOLVED_COLUMN.WITHOUT_SUGGESTION], line 1, column 8",
             "   1 | select nope", "              ^^^^"],
        ),
    ],
)  # fmt: skip
def test_wrong_sql_is_underlined_where_it_is_wrong(notebook: Notebook, cell: str, lines: list[str]) -> None:
    notebook["people"] = pd.DataFrame({"id": [1]})
    ran = notebook.run(cell)
    assert not ran.success
    assert ran.error.splitlines()[:3] == lines
    assert len(ran.error.encode()) < 1024
    assert "Project" not in ran.error
    assert "\tat " not in ran.error
    assert ran.result.error_in_exec.__cause__.getSqlState()


@pytest.mark.feature("M08")
def test_tb_unfolds_the_original(notebook: Notebook) -> None:
    error = notebook.run("%%sparksql\nselect nope").result.error_in_exec
    assert "pyspark" not in "\n".join([str(error)])
    unfolded = "\n".join(error._render_traceback_())
    assert "pyspark.errors.exceptions.connect.AnalysisException" in unfolded


@pytest.mark.feature("M08")
def test_a_result_too_large_for_the_server_fails_the_cell_and_not_the_session(notebook: Notebook) -> None:
    ran = notebook.run("%%sparksql big --quiet\nselect id, repeat(uuid(), 40) a from range(0, 500000, 1, 16)")
    assert not ran.success
    assert "spark.driver.maxResultSize" in ran.error
    assert notebook.run("%%sparksql\nselect 1").success


def test_a_time_limit_ends_the_cell_and_the_session_stays(notebook: Notebook) -> None:
    ran = notebook.run("%%sparksql --timeout 1s\nselect count(*) from range(100000000000) where id % 7 = rand()")
    assert ran.error == "The cell ran longer than --timeout 1 s and was ended."
    ran = notebook.run("%%spark --timeout 1s\nimport time\ntime.sleep(30)")
    assert ran.error == "The cell ran longer than --timeout 1 s and was ended."
    assert notebook.run("%%sparksql\nselect 1").success


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("%%sparksql --limt 3\nselect 1", "UsageError: %%sparksql: unknown option --limt; did you mean --limit?"),
        ("%%sparksql\n-- nothing", "UsageError: %%sparksql: the cell has no SQL; write a statement below the first line."),
        (
            "%%sparksql\nselect :peopl",
            "UsageError: :peopl asks for a notebook variable peopl, and there is none; did you mean :people?",
        ),
        ("%%sparksql --overwrite\nselect 1", "UsageError: %%sparksql: --overwrite belongs to --save PATH, which is missing."),
        (
            "%%spark --lang scala\n ",
            "UsageError: %%spark: the cell is empty; write Scala below the first line.",
        ),
        ("%spark strat", "UsageError: %spark: unknown command strat; did you mean %spark start?"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_one_sentence(notebook: Notebook, cell: str, error: str) -> None:
    notebook["people"] = 1
    assert notebook.run(cell).error == error


@pytest.mark.feature("M11")
def test_a_session_of_another_size_is_replaced_only_when_asked(notebook: Notebook) -> None:
    assert notebook.run("%spark start default").text == "Session default runs already and is in use."
    assert notebook.run("%spark start default --cores 1 --conf spark.sql.ansi.enabled=false").error == (
        "UsageError: Session default runs already, with another number of cores and set of settings; add --restart to "
        "replace it (its temporary views are lost), or start one of another name."
    )


def test_sessions_are_listed_and_their_pages_linked(notebook: Notebook) -> None:
    lines = notebook.run("%spark list").text.splitlines()
    assert lines[0].split() == ["name", "phase", "cores", "memory", "executors", "reason"]
    assert ["*", "default", "running", "2"] in [line.split() for line in lines]
    shown = notebook.run("%spark ui")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ has the pages of session default, for a browser on the machine .*", shown.text)
    assert shown.html == [""]
    assert "ready in" in notebook.run("%spark logs --lines 100").text
