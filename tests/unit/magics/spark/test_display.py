"""Previews: capped, escaped, and readable as plain text."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tuttilab.magics.spark.display import EXACT_BYTES, HTML_BYTES, MIME, Preview, preview_of


def page(preview: Preview) -> str:
    return str(preview._repr_mimebundle_()["text/html"])


def test_text_is_escaped_in_html_and_kept_in_the_plain_twin() -> None:
    preview = Preview(pa.table({"<b>": ["<script>alert(1)</script>"]}))
    assert "<script>" not in page(preview)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page(preview)
    assert "&lt;b&gt;" in page(preview)
    assert repr(preview).splitlines() == [
        "<b>",
        "-------------------------",
        "<script>alert(1)</script>",
        "(1 row × 1 column)",
    ]


@pytest.mark.feature("M04")
def test_a_preview_has_at_most_limit_rows_and_says_that_there_are_more() -> None:
    preview = preview_of(pa.table({"n": range(11)}), 10)
    assert page(preview).count("<tr>") == 1 + 10
    assert repr(preview).splitlines()[-1] == "(first 10 rows × 1 column, there are more)"


def test_a_whole_result_gives_its_number_of_rows() -> None:
    assert repr(preview_of(pa.table({"n": range(30)}), 1000, is_whole=True)).splitlines()[-1] == (
        "(first 20 of 30 rows × 1 column)"
    )


def test_numbers_align_right_and_missing_values_are_named() -> None:
    text = repr(Preview(pa.table({"n": [1, None], "s": ["a", None]})))
    assert text.splitlines()[2:4] == ["   1  a", "NULL  NULL"]


@pytest.mark.feature("M04")
def test_wide_text_does_not_fill_the_notebook() -> None:
    preview = Preview(pa.table({"s": ["x" * 10_000] * 50_000}))
    assert len(str(preview._repr_mimebundle_()["text/html"])) < HTML_BYTES + EXACT_BYTES + 5000
    assert max(map(len, repr(preview).splitlines())) <= 160


def test_columns_of_one_name_are_all_shown() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert repr(Preview(table)).splitlines()[2] == "1  2"


def test_lab_is_told_which_columns_are_numbers_and_whether_all_rows_are_there() -> None:
    table = pa.table({"n": [1, 2, 3], "s": ["a", "b", None], "x": [0.5, 1.5, 2.5]})

    previews = [
        preview_of(table, 3, is_whole=True),
        preview_of(table, 2, is_whole=True),
        preview_of(table, 2),
        preview_of(table, 3),
    ]
    assert [preview._repr_mimebundle_()[MIME] for preview in previews] == [
        {"version": 1, "columns": ["number", "text", "number"], "is_whole": is_whole, "cut": 0}
        for is_whole in (True, False, False, True)
    ]


def test_what_a_cell_shortens_is_whole_in_its_title() -> None:
    shown = page(Preview(pa.table({"x": [0.1 + 0.2, 0.5], "s": ["a\nb", "plain"], "t": ["x" * 200, None]})))

    assert 'title="0.30000000000000004">0.3<' in shown
    assert "<td>0.5<" in shown
    assert 'title="a\nb"' in shown
    assert f'title="{"x" * 200}"' in shown
    assert shown.count('class="tuttilab-null"') == 1


def test_values_that_are_nowhere_whole_are_counted() -> None:
    def cut(*values: str) -> object:
        facts = Preview(pa.table({"s": list(values)}))._repr_mimebundle_()[MIME]
        assert isinstance(facts, dict)
        return facts["cut"]

    assert [cut("x" * 1999), cut("x" * 2001), cut(*["x" * 1000] * 1000)] == [0, 1, 1000 - EXACT_BYTES // 1009 - 1]
