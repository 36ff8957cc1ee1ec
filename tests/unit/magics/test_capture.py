"""What travels with a cell, how large it is, and what cannot travel."""

import math
import sqlite3
import threading
from typing import Any

import cloudpickle
import numpy as np
import pytest

from tuttilab.magics.capture import LIMIT_BYTES, capture, choose_names, show_bytes, show_sizes
from tuttilab.scheduler.errors import BadInput, TooLarge

pytestmark = pytest.mark.feature("M12")


def test_a_cell_takes_what_it_uses_and_the_notebook_defines() -> None:
    namespace = {"df": 1, "unused": 2, "In": []}
    assert choose_names("df + len(other) + len(In)", namespace, hidden={"In": namespace["In"]}) == ("df",)


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
    back = cloudpickle.loads(capture({"a": shared, "b": {"inner": shared}}).pickled)
    assert back["a"] is back["b"]["inner"]


def test_modules_travel_as_a_name_and_have_no_size() -> None:
    captured = capture({"math": math, "x": b"abc"})
    assert captured.modules == ("math",)
    assert {"x"} == set(captured.sizes)
    assert cloudpickle.loads(captured.pickled)["math"] is math


def test_a_function_of_the_notebook_travels_with_the_globals_it_uses() -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("rate = 3\nunused = 5\ndef inner(x):\n    return x * rate\ndef outer(x):\n    return inner(x) + 1", notebook)  # noqa: S102
    back = cloudpickle.loads(capture({"outer": notebook["outer"]}).pickled)["outer"]
    assert back(2) == 7
    assert "unused" not in back.__globals__


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
