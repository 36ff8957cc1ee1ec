"""Where SQL statements end and which colons are markers: everything that Spark's lexer treats as opaque stays opaque."""

from __future__ import annotations

import pytest

from tuttilab.magics.shared.parse import UsageError
from tuttilab.magics.spark.sql import bind, line_and_column, split_statements, view_key


def texts(body: str) -> list[str]:
    return [statement.text for statement in split_statements(body)]


def markers(body: str) -> list[str]:
    return [marker.name for statement in split_statements(body) for marker in statement.markers]


@pytest.mark.feature("M01")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("select 1", ["select 1"]),
        ("select 1;", ["select 1"]),
        ("select 1; select 2", ["select 1", "select 2"]),
        (";;\n ; select 1 ;;", ["select 1"]),
        ("select ';' ; select \";\"", ["select ';'", 'select ";"']),
        ("select 'it''s;' ; select 2", ["select 'it''s;'", "select 2"]),
        (r"select 'it\'s;' ; select 2", [r"select 'it\'s;'", "select 2"]),
        (r"select r'\' ; select 2", [r"select r'\'", "select 2"]),
        ("select `a;``b` ; select 2", ["select `a;``b`", "select 2"]),
        ("select 1 -- one; two\n; select 2", ["select 1 -- one; two", "select 2"]),
        ("select 1 -- one \\\n still; comment\n; select 2", ["select 1 -- one \\\n still; comment", "select 2"]),
        ("select 1 /* a; /* b; */ c; */ ; select 2", ["select 1 /* a; /* b; */ c; */", "select 2"]),
        ("-- nothing here;\n/* nor here; */", []),
        ("", []),
        ("select 1; -- the end", ["select 1"]),
        (
            "create function f() returns int return $$ a; b $$; select 2",
            ["create function f() returns int return $$ a; b $$", "select 2"],
        ),
        ("BEGIN declare x int; set x = 1; END", ["BEGIN declare x int; set x = 1; END"]),
        ("select 'open; quote", ["select 'open; quote"]),
    ],
)
def test_statements_end_at_semicolons_that_are_not_inside_something(body: str, expected: list[str]) -> None:
    assert texts(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("select :a, :b_2 from t where x=:c", ["a", "b_2", "c"]),
        ("select ':a', \":b\", `:c`, r':d'", []),
        ("select 1 -- :a\n, :b /* :c */", ["b"]),
        ("select x::int, '1'::date, :a::int", ["a"]),
        ("select payload:price, payload:a.b, (x):y, z[0]:w, 's':v, `q`:u", []),
        ("select (:a), [:b], -:c, :d+:e", ["a", "b", "c", "d", "e"]),
        ("select :1, : a, a : b", []),
        (":a", ["a"]),
        ("select :a; select :b", ["a", "b"]),
    ],
)
def test_only_a_colon_that_stands_free_before_a_name_is_a_marker(body: str, expected: list[str]) -> None:
    assert markers(body) == expected


def test_offsets_lead_back_to_the_cell() -> None:
    body = "select 1;\n\n  select :a,\n :b"
    first, second = split_statements(body)
    assert (first.offset, second.offset) == (0, 13)
    assert body[second.offset :] == second.text
    assert [second.text[marker.start : marker.end] for marker in second.markers] == [":a", ":b"]


def test_values_go_beside_the_text_and_frames_become_views() -> None:
    frame = object()
    variables = {"a": "x'; drop table t", "df": frame, "args": frame}
    (statement,) = split_statements("select :a, '{}' from :df join :args join :df")
    bound = bind(statement, variables, {"df": frame, "args": frame})
    assert bound.text == "select :a, '{{}}' from {tuttilab_df} join {tuttilab_args} join {tuttilab_df}"
    assert bound.values == {"a": "x'; drop table t"}
    assert bound.views == {view_key("df"): frame, view_key("args"): frame}


def test_text_without_frames_is_left_alone() -> None:
    (statement,) = split_statements("select '{x}', :a")
    assert bind(statement, {"a": 1}, {}).text == "select '{x}', :a"


def test_unknown_marker_names_the_nearest_variable() -> None:
    (statement,) = split_statements("select :pric")
    with pytest.raises(UsageError, match=r"^:pric asks for a notebook variable pric, and there is none; did you mean :price\?$"):
        bind(statement, {"price": 1, "_i": 2}, {})


def test_positions_are_counted_in_the_text_as_written() -> None:
    (statement,) = split_statements("select nope from :df where wrong")
    bound = bind(statement, {"df": object()}, {"df": object()})
    parsed_by_spark = bound.text.format(**{view_key("df"): "_pyspark_connect_temp_view_" + "0" * 32})
    assert bound.position_in_statement(parsed_by_spark.index("nope")) == statement.text.index("nope")
    assert bound.position_in_statement(parsed_by_spark.index("wrong")) == statement.text.index("wrong")


@pytest.mark.parametrize(("index", "place"), [(0, (1, 1)), (2, (1, 3)), (3, (2, 1)), (5, (2, 3))])
def test_line_and_column_begin_at_one(index: int, place: tuple[int, int]) -> None:
    assert line_and_column("ab\ncde", index) == place
