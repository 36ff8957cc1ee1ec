"""The magics of sparkmagic on a real session: results, samples, what goes to the session, sessions themselves, and what fails."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from tests.e2e.spark.notebook import Notebook
from tuttilab.magics.sparkmagic import load_ipython_extension, unload_ipython_extension

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(1200)]


@pytest.fixture
def sparkmagic(notebook: Notebook) -> Iterator[Notebook]:
    load_ipython_extension(notebook.shell)
    yield notebook
    unload_ipython_extension(notebook.shell)


@pytest.mark.feature("M14", "M02")
def test_rows_come_back_as_pandas_capped_and_sampled(sparkmagic: Notebook) -> None:
    run = sparkmagic.run
    ran = run("%%spark\ndf = spark.range(10000).toDF('n')\ndf.createOrReplaceTempView('numbers')\nprint('made')")
    assert ran.success, ran.error
    assert ran.stdout == "made\n"
    assert "df" not in sparkmagic.shell.user_ns
    ran = run("%%spark -c sql -o rows -n 7\nSELECT n FROM numbers ORDER BY n")
    assert ran.success, ran.error
    assert isinstance(sparkmagic["rows"], pd.DataFrame)
    assert sparkmagic["rows"].n.tolist() == list(range(7))
    assert "7 rows × 1 column" in ran.text
    assert run("%%sql -q -o many\nSELECT n FROM numbers").text == ""
    assert len(sparkmagic["many"]) == 2500
    assert run("%%sql -q -n -1 -o whole\nSELECT n FROM numbers").success
    assert len(sparkmagic["whole"]) == 10000
    assert run("%%sql -q -m sample -r 0.1 -n 5000 -o some\nSELECT n FROM numbers").success
    assert 500 < len(sparkmagic["some"]) < 1500
    # A Spark DataFrame in the session and a pandas frame of the same name in the notebook.
    assert run("%%spark -o df -n 3\ndf = df.selectExpr('n * 2 AS n')").success
    assert sparkmagic["df"].n.tolist() == [0, 2, 4]
    ran = run("%%spark\ndf.where('n < 6').count()")
    assert ran.success, ran.error
    assert ran.text == "3"
    ran = run("%%spark -n 4\nshow(df)\ndf")
    assert ran.success, ran.error
    assert ran.text.count("(4 rows × 1 column)") == 2
    ran = run("%%pretty -m sample -r 0.0\ndf")
    assert "(0 rows × 1 column)" in ran.text, ran.error
    assert run("%%local\nhere = len(df)").success
    assert sparkmagic["here"] == 3
    assert "2 columns" in run("%%pretty\nspark.sql('SELECT 1 AS a, 2 AS b')").text


@pytest.mark.feature("M14", "M05")
def test_variables_are_sent_as_text_and_as_frames(sparkmagic: Notebook) -> None:
    sparkmagic["s"] = "abc ሴ def"
    sparkmagic["test_pd"] = pd.DataFrame({"pred": [0, 1, 1]})
    assert sparkmagic.run("%%send_to_spark -i s -t str -n there").text == "s of the notebook is there in session default."
    ran = sparkmagic.run("%%send_to_spark -i test_pd -t df -n y_test")
    assert ran.success, ran.error
    ran = sparkmagic.run("%%spark\nimport numpy as np\ny = np.array(y_test.select('pred').collect())\nprint(there, y.sum())")
    assert ran.stdout == "abc ሴ def 2\n", ran.error


@pytest.mark.feature("M14", "M11")
def test_sessions_are_configured_listed_and_ended(sparkmagic: Notebook) -> None:
    run = sparkmagic.run
    sparkmagic.magics.sessions.current = "mine"
    try:
        ran = run(
            '%%configure -f\n{"driverMemory": "2G", "driverCores": 1, "conf": {"spark.sql.shuffle.partitions": "3"}, "jars": []}'
        )
        assert ran.success, ran.error
        assert "Session mine is ready after" in ran.text
        assert "No counterpart here: jars." in ran.text
        assert run("%%spark\nprint(spark.conf.get('spark.sql.shuffle.partitions'))").stdout == "3\n"
        request = sparkmagic.provider.requests["mine"]
        assert (request.cores, request.memory) == (1, "2Gi")
        assert run("%%configure\n{}").error == (
            "UsageError: %%configure: session mine runs already; `%%configure -f` starts it anew, without its names and views."
        )
        assert "mine" in run("%%info").text
        assert "ready in" in run("%%logs").text
        assert run("%spark add -s scalar -l scala -u http://livy -a me -p secret").success
        ran = run("%%spark -s scalar\nval n = 20 + 1\nn * 2")
        assert "val res0: Int = 42" in ran.stdout, ran.error
        assert run("%spark delete -s scalar").text == "Session scalar is stopped."
        assert run("%%delete -f -s mine").success
        assert run("%manage_spark").text.startswith("There is no panel of endpoints:")
    finally:
        for name in ("mine", "scalar"):
            sparkmagic.provider.stop(name)
            sparkmagic.magics.sessions.drop(name)


@pytest.mark.feature("M14", "M15", "M08")
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%spark\n1 / 0", "ZeroDivisionError: division by zero"),
        ("%%spark -o nothing\nx = 1", "UsageError: %%spark -o: the cell's session has no name nothing; "),
        ("%%spark -o x\nx = 1", "UsageError: %%spark -o x: it is a int; -o brings back a Spark DataFrame."),
        ("%%spark -c R\n1", "UsageError: %%spark: --context is one of spark, sql, got 'R'."),
        ("%%sql -r 2 -m sample\nSELECT 1", "UsageError: %%sql: --samplefraction takes a number from 0.0 to 1.0, got '2'."),
        ("%%sql\nSELECT nope FROM range(1)", "UNRESOLVED_COLUMN"),
        ("%%configure -f\n{no json", "UsageError: %%configure: the cell is no JSON"),
        (
            '%%configure -f\n{"driverCores": "many"}',
            "UsageError: %%configure: driverCores is a whole number of at least 1, got 'many'.",
        ),
        ("%%cleanup", "UsageError: %%cleanup ends all your Spark sessions; write `%%cleanup -f` if that is meant."),
        ("%%delete -f -s defalt", "UsageError: There is no Spark session defalt of yours; did you mean default?"),
        ("%spark add -s other -l r", "UsageError: %spark add: R has no counterpart here; cells are Python, Scala or SQL."),
        (
            "%%send_to_spark -i missing -t df",
            "UsageError: %%send_to_spark: there is no variable missing; ",
        ),
        ("%%local\n1 / 0", "division by zero"),
    ],
)
def test_a_wrong_line_or_a_failed_cell_is_one_short_error(sparkmagic: Notebook, cell: str, says: str) -> None:
    ran = sparkmagic.run(cell)
    assert not ran.success
    assert says in ran.error
    assert len(ran.error.encode()) < 1024
