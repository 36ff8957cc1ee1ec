"""What a notebook gets of a log: in HTML and in plain text, which `jupyter console` writes to a terminal, colours and no orders."""

from __future__ import annotations

from tuttilab.magics.jobs.handle import Log
from tuttilab.magics.shared.display import Shown

LOUD = "a\x1b]52;c;cm0=\x07b\x1b]8;;http://evil.example\x1b\\c\x1b]8;;\x1b\\\x1b[2J\x1b[31mred"


def test_what_a_notebook_gets_of_a_log_orders_nothing() -> None:
    for shown in (Log(LOUD), Shown(LOUD)):
        bundle = shown._repr_mimebundle_()

        assert (bundle["text/plain"], repr(shown)) == ("abc\x1b[31mred\x1b[0m", "abc\x1b[31mred\x1b[0m")
        assert bundle["text/html"] == '<pre>abc<span style="color:#e75c58">red</span></pre>'
    assert str(Log(LOUD)) == LOUD, "a program that works with the text gets it as it was printed"
