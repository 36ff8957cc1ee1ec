"""What the Scala REPL says of a failed cell, as the notebook shows it: short, and with the lines of the cell."""

from __future__ import annotations

from tuttilab.magics.spark.errors import LIMIT_BYTES
from tuttilab.magics.spark.scala.repl import _short


def test_a_compiler_error_has_its_line_and_place() -> None:
    said = "       foo(a)\n       ^\nOn line 2: error: not found: value foo\n"
    assert _short(said, "", "val a = 1\nfoo(a)", 2).splitlines() == [
        "Scala: error in line 3",
        "   3 | foo(a)",
        "       ^",
        "not found: value foo",
    ]


def test_of_several_errors_the_first_is_shown() -> None:
    said = (
        "       a\n       ^\nOn line 1: error: not found: value a\n         b\n         ^\nOn line 2: error: not found: value b\n"
    )
    text = _short(said, "", "a\n  b", 2)
    assert "value a" in text
    assert "value b" not in text


def test_an_exception_has_the_lines_of_the_cell_that_it_passed_and_no_stack() -> None:
    stack = "\n  at $anonfun$res13$1(<console>:2)\n  at scala.List.map(List.scala:236)\n  ... 9 elided\n"
    said = f"java.lang.ArithmeticException: / by zero{stack}"
    text = _short(said, "before\n", "val zero = 0\nList(1).map(_ / zero)", 2)
    assert text.splitlines() == ["   3 | List(1).map(_ / zero)", "printed before: before", "ArithmeticException: / by zero"]


def test_whatever_was_said_is_cut() -> None:
    for said in ("", "x" * 100_000, "org.x.Y: " + "é" * 100_000, "       error: " + "z" * 100_000, "\n  at \n"):
        text = _short(said, "p" * 100_000, "c" * 100_000, 2)
        assert text
        assert len(text.encode()) <= LIMIT_BYTES + 20, said[:20]
