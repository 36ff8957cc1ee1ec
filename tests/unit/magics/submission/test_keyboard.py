"""What in a cell waits at a keyboard, and what only looks like it."""

import textwrap
from types import FunctionType

import pytest

from tuttilab.magics.submission.capture import capture
from tuttilab.magics.submission.keyboard import Waiting, in_cell, sentences


def found(source: str, *known: str) -> list[tuple[str, int]]:
    return [(one.what, one.line) for one in in_cell(textwrap.dedent(source), "<cell>", known)]


@pytest.mark.parametrize(
    ("source", "waits"),
    [
        ("x = 1\nbreakpoint()", [("breakpoint", 2)]),
        ("name = input('who? ')", [("input", 1)]),
        ("numbers = list(map(int, [input(), '2']))", [("input", 1)]),
        ("import pdb; pdb.set_trace()", [("pdb.set_trace", 1)]),
        ("import ipdb\nipdb.set_trace(context=5)", [("ipdb.set_trace", 2)]),
        ("from IPython.core.debugger import set_trace\nset_trace()", [("set_trace", 2)]),
        ("import getpass\ngetpass.getpass()\ngetpass.getuser()", [("getpass", 2)]),
        ("from getpass import getpass\ngetpass('word')", [("getpass", 2)]),
        ("def f():\n    import pdb\n    pdb.set_trace()\nif 1:\n    pdb.pm()", [("pdb.pm", 5), ("pdb.set_trace", 3)]),
        ("class A:\n    def f(self):\n        return [input() for _ in range(2)]", [("input", 3)]),
        ("async def f():\n    breakpoint()\nawait f()", [("breakpoint", 2)]),
    ],
)  # fmt: skip
def test_what_waits_is_found_with_its_line(source: str, waits: list[tuple[str, int]]) -> None:
    assert found(source) == waits


@pytest.mark.parametrize(
    "source",
    [
        "input = [1, 2]\nprint(input)",
        "def f(input):\n    return input + 1",
        "def breakpoint(): pass\nbreakpoint()",
        "model.input(3)\nmodel.breakpoint()\nremote_pdb.set_trace()",
        "# breakpoint()\ntext = 'input()'",
        "import pdb\npdb.run",
        "global input\ninput = 3\ndef f():\n    return input",
    ],
)
def test_what_has_the_name_only_is_left_alone(source: str) -> None:
    assert found(source) == []


def test_a_variable_of_the_notebook_is_no_question() -> None:
    assert found("input + 1", "input") == []
    assert found("from getpass import getpass\ngetpass()", "getpass") == [("getpass", 2)]


def test_functions_that_travel_are_looked_at_too() -> None:
    notebook: dict[str, FunctionType] = {}
    text = "def inner(x):\n    breakpoint()\n    return x\ndef outer(x):\n    return inner(x)\n"
    exec(compile(text, "<In[3]>", "exec"), notebook)  # noqa: S102

    assert capture({"outer": notebook["outer"]}).waiting == (Waiting("breakpoint", 2, "<In[3]>"),)


def test_a_sentence_says_where_and_what_to_do() -> None:
    stop, other, question = Waiting("breakpoint", 2), Waiting("pdb.set_trace", 5, "<In[3]>"), Waiting("input", 7)

    assert sentences([stop, other, question, stop], {}) == [
        "a job has no keyboard and fails where it comes to breakpoint() in line 2, pdb.set_trace() in line 5 of <In[3]>: run the "
        "cell here, without its %%submit line, to step through it, or pass over it with --env PYTHONBREAKPOINT=0.",
        "a job has no keyboard and fails where it comes to input() in line 7: assign the answer to a variable in a cell before, or "
        "give it with --env.",
    ]
    assert sentences([Waiting("input", line) for line in range(1, 6)], {})[0].startswith(
        "a job has no keyboard and fails where it comes to input() in line 1, input() in line 2, input() in line 3 and 2 more:"
    )


def test_breakpoints_that_the_environment_passes_over_are_not_named() -> None:
    assert sentences([Waiting("breakpoint", 2)], {"PYTHONBREAKPOINT": "0"}) == []
    assert len(sentences([Waiting("breakpoint", 2), Waiting("set_trace", 3)], {"PYTHONBREAKPOINT": "0"})) == 1
    assert sentences([], {}) == []
