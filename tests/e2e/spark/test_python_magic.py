"""%%spark on a real session: one namespace, results, and errors that look local."""

from __future__ import annotations

import pytest

from tests.e2e.spark.notebook import Notebook

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]


@pytest.mark.feature("M01")
def test_a_cell_runs_in_the_notebooks_namespace(notebook: Notebook) -> None:
    notebook["factor"] = 3
    ran = notebook.run("%%spark df\nbase = spark.range(4)\nbase.select((base.id * factor).alias('x'))")
    assert ran.success, ran.error
    assert notebook["df"].x.tolist() == [0, 3, 6, 9]
    assert notebook["base"].count() == 4
    assert notebook.run("%%spark\n1 + 1").result.result == 2
    assert notebook.run("%%spark\nspark.range(3);").text == ""


def test_a_frame_stays_remote_when_asked(notebook: Notebook) -> None:
    ran = notebook.run("%%spark remote --as spark --limit 2\nspark.range(5)")
    assert ran.text.splitlines()[-1] == "(first 2 rows × 1 column, there are more)"
    assert notebook["remote"].count() == 5


def test_sql_as_the_language_of_the_body(notebook: Notebook) -> None:
    assert notebook.run("%%spark df --lang sql\nselect 5 x").success
    assert notebook["df"].x.tolist() == [5]


def test_a_variable_without_a_last_expression_is_refused_before_anything_runs(notebook: Notebook) -> None:
    ran = notebook.run("%%spark df\ntouched = True")
    assert "the last line is no expression" in ran.error
    assert "touched" not in notebook.shell.user_ns


@pytest.mark.feature("B15")
def test_an_error_in_a_python_worker_shows_the_cells_own_lines(notebook: Notebook) -> None:
    cell = (
        "%%spark\nfrom pyspark.sql.functions import udf\n\n@udf('double')\ndef inverse(x):\n    y = x - 1\n"
        "    return 1 / y\n\nspark.range(3).select(inverse('id')).collect()"
    )
    error = notebook.run(cell).error
    assert error.splitlines() == [
        "ZeroDivisionError: division by zero (in a Python function that Spark ran)",
        "   7 | return 1 / y   # in inverse",
        "%tb shows everything.",
    ]


@pytest.mark.feature("B15")
def test_an_error_in_a_function_of_another_cell_shows_that_cells_line(notebook: Notebook) -> None:
    assert notebook.run("from pyspark.sql.functions import udf\n@udf('string')\ndef first(s):\n    return s.no_such()").success
    error = notebook.run("%%spark\nspark.sql(\"select 'a' s\").select(first('s'))").error
    assert error.splitlines()[0] == "AttributeError: 'str' object has no attribute 'no_such' (in a Python function that Spark ran)"
    assert error.splitlines()[1] == "   4 | return s.no_such()   # in first"


@pytest.mark.feature("B15")
@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%%spark\nx = {}\nx['k']", ["   3 | x['k']", "KeyError: 'k'", "%tb shows everything."]),
        (
            "%%spark\ndef f():\n    raise ValueError('no')\nf()",
            ["   4 | f()", "   3 | raise ValueError('no')   # in f", "ValueError: no", "%tb shows everything."],
        ),
        (
            "%%spark\nspark.range(3).select('nope').collect()",
            ["AnalysisException [UNRESOLVED_COLUMN.WITH_SUGGESTION]", "   2 | spark.range(3).select('nope').collect()"],
        ),
        ("%%spark\nx = (1,\n  2 3)", ["SyntaxError, line 3, column 3", "   3 |   2 3)"]),
    ],
)
def test_an_error_of_the_cell_itself_is_short(notebook: Notebook, cell: str, expected: list[str]) -> None:
    ran = notebook.run(cell)
    assert not ran.success
    assert ran.error.splitlines()[: len(expected)] == expected
    assert len(ran.error.encode()) < 1024


@pytest.mark.feature("B15")
def test_a_huge_message_is_cut_to_a_kilobyte(notebook: Notebook) -> None:
    ran = notebook.run("%%spark\nraise RuntimeError('ä' * 10_000)")
    assert len(ran.error.encode()) < 1024
    assert len(str(ran.result.error_in_exec.__cause__)) == 10_000
