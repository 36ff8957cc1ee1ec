"""Previews: capped, escaped, and readable as plain text."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tuttilab.magics.spark_display import HTML_BYTES, Preview, preview_of


@pytest.mark.feature("M04")
def test_text_is_escaped_in_html_and_kept_in_the_plain_twin() -> None:
    bundle = Preview(pa.table({"<b>": ["<script>alert(1)</script>"]}))._repr_mimebundle_()
    assert "<script>" not in bundle["text/html"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in bundle["text/html"]
    assert "&lt;b&gt;" in bundle["text/html"]
    assert bundle["text/plain"].splitlines() == [
        "<b>",
        "-------------------------",
        "<script>alert(1)</script>",
        "(1 row × 1 column)",
    ]


@pytest.mark.feature("M04")
def test_a_preview_has_at_most_limit_rows_and_says_that_there_are_more() -> None:
    preview = preview_of(pa.table({"n": range(11)}), 10)
    assert preview._repr_mimebundle_()["text/html"].count("<tr>") == 1 + 10
    assert repr(preview).splitlines()[-1] == "(first 10 rows × 1 column, there are more)"


def test_a_whole_result_gives_its_number_of_rows() -> None:
    assert repr(preview_of(pa.table({"n": range(30)}), 1000, is_whole=True)).splitlines()[-1] == (
        "(first 20 of 30 rows × 1 column)"
    )


def test_numbers_align_right_and_missing_values_are_named() -> None:
    text = repr(Preview(pa.table({"n": [1, None], "s": ["a", None]})))
    assert text.splitlines()[2:4] == ["   1  a", "NULL  NULL"]


def test_wide_text_does_not_fill_the_notebook() -> None:
    preview = Preview(pa.table({"s": ["x" * 10_000] * 50_000}))
    assert len(preview._repr_mimebundle_()["text/html"]) < HTML_BYTES + 1000
    assert max(map(len, repr(preview).splitlines())) <= 160


def test_columns_of_one_name_are_all_shown() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert repr(Preview(table)).splitlines()[2] == "1  2"
