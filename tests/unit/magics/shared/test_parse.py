"""The option lines of magics: what is accepted, and the sentence for what is not."""

from __future__ import annotations

from typing import Any

import pytest

from tuttilab.magics.shared.parse import (
    VAR,
    Option,
    Parsed,
    Positional,
    UsageError,
    duration_s,
    help_table,
    key_value,
    option_table,
    parse_line,
    whole_number,
)

OPTIONS = (
    Option("--as", choices=("pandas", "arrow"), default="pandas", help="form of the result"),
    Option("--limit", "N", whole_number, default=1000, help="rows shown"),
    Option("--timeout", "T", duration_s),
    Option("--env", "K=V", key_value, repeatable=True, short="-e"),
    Option("--quiet", help="show nothing"),
)


def parse(line: str, **more: Any) -> Parsed:
    return parse_line("%%demo", OPTIONS, line, **more)


def test_empty_line_gives_the_defaults() -> None:
    parsed = parse("")
    assert dict(parsed.values) == {"as": "pandas", "limit": 1000, "timeout": None, "env": (), "quiet": False}
    assert parsed.var is None
    assert parsed.given == frozenset()


def test_variable_options_and_switches_are_read_in_any_order() -> None:
    parsed = parse("--quiet df --limit=20 --as arrow --timeout 1h30m -e A=1 --env 'B=two words'")
    assert parsed.var == "df"
    assert parsed["limit"] == 20
    assert parsed["as"] == "arrow"
    assert parsed["timeout"] == 5400.0
    assert parsed["env"] == (("A", "1"), ("B", "two words"))
    assert parsed["quiet"] is True
    assert parsed.given == {"limit", "as", "timeout", "env", "quiet"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--limt 3", "%%demo: unknown option --limt; did you mean --limit?"),
        ("--zzzz", "%%demo: unknown option --zzzz; %%demo --help lists what there is."),
        ("--limit", "%%demo: --limit N needs a value."),
        ("--limit --quiet", "%%demo: --limit N needs a value."),
        ("--limit x", "%%demo: --limit takes a whole number, got 'x'."),
        ("--limit -5", "%%demo: --limit takes a whole number, got '-5'."),
        ("--limit 3 --limit 4", "%%demo: --limit was given twice; give it once."),
        ("--as panda", "%%demo: --as is one of pandas, arrow, got 'panda'; did you mean pandas?"),
        ("--as xyz", "%%demo: --as is one of pandas, arrow, got 'xyz'."),
        ("--quiet=1", "%%demo: --quiet is a switch and takes no value, got '1'."),
        ("--timeout 10", "%%demo: --timeout takes a duration above zero such as 90s, 10m or 1h30m, got '10'."),
        ("--env A", "%%demo: --env takes NAME=VALUE, got 'A'."),
        ("two words", "%%demo: 'words' was not expected; %%demo --help shows the usage."),
        ("my-var", "%%demo: VAR is a variable name, got 'my-var'."),
        ("class", "%%demo: VAR is a variable name, got 'class'."),
        ("--env 'A=1", '%%demo: the quote in "\'A=1" is not closed.'),
    ],
)
def test_a_wrong_line_gets_one_sentence(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert str(caught.value) == message


def test_rest_is_kept_as_written_with_its_quotes() -> None:
    parsed = parse("--limit 5  SELECT 'it''s' -- don't\n FROM t", positionals=(), rest=True)
    assert parsed["limit"] == 5
    assert parsed.rest == "SELECT 'it''s' -- don't\n FROM t"


def test_rest_may_begin_with_an_open_quote() -> None:
    assert parse('"a', positionals=(), rest=True).rest == '"a'


def test_double_dash_ends_the_options() -> None:
    command = (Positional("COMMAND", required=True, many=True),)
    assert parse("--quiet -- ls --limit", positionals=command).positionals == {"COMMAND": ("ls", "--limit")}
    assert parse("--quiet -- --limit x", positionals=(), rest=True).rest == "--limit x"


def test_missing_positional_is_named() -> None:
    with pytest.raises(UsageError, match=r"^%%demo: FILE is missing; %%demo --help shows the usage\.$"):
        parse("", positionals=(Positional("FILE", required=True),))


def test_help_lists_every_option_with_its_default() -> None:
    text = parse("--help").help_text
    assert text == help_table("%%demo", OPTIONS)
    assert text is not None
    lines = text.splitlines()
    assert lines[0] == "%%demo [VAR] [options]"
    assert [line.split()[0] for line in lines[1:]] == [VAR.name, "--as", "--limit", "--timeout", "-e,", "--quiet"]
    assert "rows shown (default 1000)" in text


def test_completion_table_has_names_and_values() -> None:
    assert option_table(OPTIONS)["--as"] == ["pandas", "arrow"]
    assert option_table(OPTIONS)["--quiet"] == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("2d", 172800.0), ("1.5h", 5400.0), ("250ms", 0.25)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "m", "10 m", "-1s", "1h30", "1x"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration above zero"):
        duration_s(text)
