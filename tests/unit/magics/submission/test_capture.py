"""What travels with a cell, how large it is, and what cannot travel."""

import itertools
import linecache
import math
import sqlite3
import threading
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.magics.submission.pickles import unpickled
from tuttilab.magics.shared.display import show_bytes
from tuttilab.magics.submission.capture import LIMIT_BYTES, capture, choose_names, show_sizes
from tuttilab.scheduler.domain.errors import BadInput, TooLarge


def test_a_cell_takes_what_it_uses_and_the_notebook_defines() -> None:
    namespace = {"df": 1, "unused": 2, "exit": []}
    assert choose_names("df + len(other) + len(exit)", namespace, hidden={"exit": namespace["exit"]}) == ("df",)


@pytest.mark.parametrize(
    ("cell", "name"),
    [("_ + 1", "_"), ("sum(Out.values())", "Out"), ("len(In)", "In"), ("_12.mean()", "_12"), ("print(_ih)", "_ih")],
)
def test_a_cell_that_uses_the_history_of_the_notebook_is_told_so_before_it_is_sent(cell: str, name: str) -> None:
    namespace = {one: [1] for one in ("_", "Out", "In", "_12", "_ih")}

    with pytest.raises(BadInput, match=rf"^{name} is the notebook's own history.* or send it as it is with --in \+{name}\.$"):
        choose_names(cell, namespace, namespace)
    assert choose_names(cell, namespace, namespace, only=(f"+{name}",)) == (name,)


def test_a_name_of_the_history_that_the_cell_or_the_user_binds_is_an_ordinary_one() -> None:
    namespace = {"_": "of the shell", "xs": 1}

    assert choose_names("for _ in xs: pass", namespace, namespace | {"xs": 2}) == ("xs",)
    assert choose_names("_('text')", {"_": 1}, hidden={"_": 2}) == ("_",)


def test_a_hidden_name_that_the_user_bound_anew_travels() -> None:
    assert choose_names("exit", {"exit": 1}, hidden={"exit": object()}) == ("exit",)


def test_in_replaces_what_the_cell_uses() -> None:
    assert choose_names("a", {"a": 1, "b": 2, "c": 3}, {}, only=("b", "a", "b")) == ("b", "a")


def test_in_names_the_nearest_for_an_unknown_one() -> None:
    with pytest.raises(BadInput) as caught:
        choose_names("1", {"model": 1}, {}, only=("modle",))
    assert str(caught.value) == "--in names modle, which this notebook does not define; did you mean model?"


def test_objects_that_are_shared_stay_shared() -> None:
    shared = [1, 2]
    back = unpickled(capture({"a": shared, "b": {"inner": shared}}).pickled)
    assert back["a"] is back["b"]["inner"]


def test_modules_travel_as_a_name_and_have_no_size() -> None:
    captured = capture({"math": math, "x": b"abc"})
    assert captured.modules == ("math",)
    assert {"x"} == set(captured.sizes)
    assert unpickled(captured.pickled)["math"] is math


def test_a_function_of_the_notebook_travels_with_the_globals_it_uses() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("rate = 3\nunused = 5\ndef inner(x):\n    return x * rate\ndef outer(x):\n    return inner(x) + 1", notebook)  # noqa: S102
    back = unpickled(capture({"outer": notebook["outer"]}).pickled)["outer"]
    assert back(2) == 7
    assert "unused" not in back.__globals__


Cell = Callable[..., dict[str, Any]]


@pytest.fixture
def cell() -> Cell:
    """Runs a cell as IPython does: its text is in linecache only, under a name of its own. Gives the notebook's variables."""
    numbers, notebook = itertools.count(1), {"__name__": "__main__"}

    def run(source: str) -> dict[str, Any]:
        name = f"/tmp/ipykernel_1/{next(numbers)}.py"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), notebook)  # noqa: S102
        return notebook

    return run


def frames_of(call: Callable[[], object]) -> list[tuple[str, int, str]]:
    """File, line and function of each frame that is not of this file."""
    try:
        call()
    except ZeroDivisionError as error:
        trace = traceback.extract_tb(error.__traceback__)
        return [(frame.filename, frame.lineno or 0, frame.name) for frame in trace if frame.filename != __file__]
    raise AssertionError("it did not fail")


ONE = "/tmp/ipykernel_1/1.py"


@pytest.mark.feature("B15")
@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f():\n    return 1 / 0", [(2, "    return 1 / 0")]),
        ("f = lambda: 1 / 0", [(1, "f = lambda: 1 / 0")]),
        ("def f():\n    def g():\n        return 1 / 0\n    return g()", [(4, "    return g()"), (3, "        return 1 / 0")]),
        ("def make(zero):\n    def f():\n        return 1 / zero\n    return f\nf = make(0)", [(3, "        return 1 / zero")]),
        ("class A:\n    def go(self):\n        return 1 / 0\nf = A().go", [(3, "        return 1 / 0")]),
        (
            "class A:\n    @property\n    def p(self): return 1 / 0\n    @classmethod\n    def f(cls): return cls().p\nf = A.f",
            [(5, "    def f(cls): return cls().p"), (3, "    def p(self): return 1 / 0")],
        ),
        (
            "import functools\ndef again(g):\n    @functools.wraps(g)\n    def both():\n        return g(), g()\n"
            "    return both\n@again\ndef f():\n    return 1 / 0",
            [(5, "        return g(), g()"), (9, "    return 1 / 0")],
        ),
        ("def f():\n    return list(\n        n / 0 for n in [1])", [(2, "    return list("), (3, "        n / 0 for n in [1])")]),
        ("def f():\n    return (\n        1\n        / 0\n    )", [(3, "        1")]),
    ],
    ids=["function", "lambda", "nested", "closure", "method", "property of a class", "decorated", "generator", "several lines"],
)
def test_code_keeps_its_cell_and_its_lines(cell: Cell, source: str, lines: list[tuple[int, str]]) -> None:
    captured = capture({"f": cell(source)["f"]})
    raised = frames_of(unpickled(captured.pickled)["f"])
    assert [file for file, _, _ in raised] == [ONE] * len(lines)
    assert [(line, captured.sources[ONE][line]) for _, line, _ in raised] == lines


@pytest.mark.feature("B15")
def test_functions_of_two_cells_keep_apart(cell: Cell) -> None:
    cell("def low(n):\n    return 1 / n")
    captured = capture({"high": cell("def high(n):\n    return low(n)")["high"]})
    high = unpickled(captured.pickled)["high"]
    assert frames_of(lambda: high(0)) == [("/tmp/ipykernel_1/2.py", 2, "high"), (ONE, 2, "low")]
    assert {name: lines[2] for name, lines in captured.sources.items()} == {
        ONE: "    return 1 / n",
        "/tmp/ipykernel_1/2.py": "    return low(n)",
    }


@pytest.mark.feature("M13")
def test_other_lines_of_a_functions_cell_stay_in_the_notebook(cell: Cell) -> None:
    captured = capture(
        {"f": cell("token = 'secret'\n\ndef f(x):\n    return max(\n        x,\n        1,\n    )\nprint(token)")["f"]}
    )
    assert captured.sources == {ONE: {3: "def f(x):", 4: "    return max(", 5: "        x,", 6: "        1,", 7: "    )"}}


@pytest.mark.feature("B15")
def test_cells_are_called_by_their_prompt_and_two_of_one_number_are_told_apart(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(
        compile=SimpleNamespace(format_code_name=lambda name: ("Cell", "In[5]") if "ipykernel" in name else None)
    )
    monkeypatch.setattr("tuttilab.magics.submission.capture.get_ipython", lambda: shell)
    cell("def low(n):\n    return 1 / n")
    captured = capture({"high": cell("def high(n):\n    return low(n)")["high"], "low": cell("")["low"]})
    high = unpickled(captured.pickled)["high"]
    assert frames_of(lambda: high(0)) == [("<In[5]>", 2, "high"), ("<In[5], 2>", 2, "low")]


def test_code_without_a_text_keeps_its_name_and_sends_no_lines() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("def f():\n    return 1 / 0", notebook)  # noqa: S102
    captured = capture({"f": notebook["f"]})
    assert captured.sources == {}
    assert frames_of(unpickled(captured.pickled)["f"]) == [("<string>", 2, "f")]


def test_sizes_are_shown_largest_first() -> None:
    assert show_sizes({"model": 340_000, "df": 1_200_000, "k": 5}) == "df 1.2 MB, model 340 kB, k 5 B"
    assert str(capture({"x": [1]})) == "sends: x 17 B"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_400, "999 kB"), (999_600, "1.0 MB"), (2_340_000_000, "2.3 GB")],
)
def test_bytes(size: int, text: str) -> None:
    assert text == show_bytes(size)


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        (sqlite3.connect(":memory:"), "Connection", "cannot pickle 'sqlite3.Connection' object"),
        (threading.Lock(), "lock", "cannot pickle '_thread.lock' object"),
        ((n for n in [1]), "generator", "cannot pickle 'generator' object"),
    ],
)
def test_what_cannot_travel_is_named_with_the_reason_and_a_way_out(value: object, kind: str, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        capture({"fine": 1, "thing": value})
    expected = f"thing ({kind}) cannot travel to a job: {why}; make it inside the cell instead, or name what to send with --in."
    assert expected == str(caught.value)


def test_more_than_the_limit_is_refused_with_names_and_sizes() -> None:
    with pytest.raises(TooLarge) as caught:
        capture({"big": np.zeros(300 * 2**20 // 8), "small": 1})
    sentence = str(caught.value)
    assert sentence.startswith("This cell would send 315 MB (big 315 MB, small 5 B), and at most 200 MiB may travel with a job;")
    assert "\n" not in sentence


def test_counting_stops_well_past_the_limit() -> None:
    class Endless:
        def __reduce__(self) -> Any:
            return (list, (), None, iter(bytes(2**20) for _ in range(10**9)))

    with pytest.raises(TooLarge, match="This cell would send more than 419 MB"):
        capture({"endless": Endless()})


def test_just_below_the_limit_is_sent() -> None:
    captured = capture({"x": np.zeros(LIMIT_BYTES - 1000, dtype=np.uint8)})
    assert LIMIT_BYTES - 1000 < captured.total <= LIMIT_BYTES


def test_objects_of_a_spark_session_are_refused_with_what_to_do() -> None:
    made = {}
    for kind in ("SparkSession", "DataFrame", "Column"):
        made[kind] = type(kind, (), {"__module__": "pyspark.sql.connect.session"})()
    with pytest.raises(BadInput) as refused:
        capture({"spark": made["SparkSession"]})
    assert str(refused.value) == (
        "spark is a Spark session, which lives in this notebook and is of no use in a job; save the rows with "
        "%%sparksql --save PATH and read the file in the cell, "
        "or start a session inside the cell (SparkSession.builder.getOrCreate())."
    )
    with pytest.raises(BadInput, match=r"^trades is a Spark DataFrame, .* send the rows with local = trades\.toPandas\(\)"):
        capture({"trades": made["DataFrame"]})
    with pytest.raises(BadInput, match=r"^parts \(list\) uses a Spark column, which lives in this notebook"):
        capture({"parts": [1, made["Column"]]})

    def count() -> object:
        return session

    session = made["SparkSession"]
    with pytest.raises(BadInput, match=r"^count \(function\) uses a Spark session"):
        capture({"count": count})
