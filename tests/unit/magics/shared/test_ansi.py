"""Colours of a job's output."""

import pytest

from tuttilab.magics.shared.ansi import colour_html, plain


def test_text_without_colours_is_escaped_and_nothing_else() -> None:
    assert colour_html("a < b\n\x07c") == "a &lt; b\nc"


@pytest.mark.parametrize(
    ("codes", "css"),
    [
        ("31", "color:#e75c58"),
        ("1;92", "font-weight:bold;color:#007427"),
        ("44", "background-color:#208ffb"),
        ("38;5;196", "color:#ff0000"),
        ("38;5;240", "color:#585858"),
        ("48;2;1;2;255", "background-color:#0102ff"),
        ("38:2:1:2:3", "color:#010203"),
        ("7", "color:var(--jp-layout-color0, #fff);background-color:var(--jp-content-font-color0, #000)"),
    ],
)
def test_a_colour_is_a_style(codes: str, css: str) -> None:
    shown = colour_html(f"\x1b[{codes}mx\x1b[0my")
    style = shown.partition('style="')[2].partition('"')[0]
    assert sorted(style.split(";")) == sorted(css.split(";"))
    assert shown.endswith(">x</span>y")


@pytest.mark.parametrize("codes", ["38;5", "38;5;999", "38;2;1;2", "999", ""])
def test_a_broken_sequence_is_no_colour(codes: str) -> None:
    assert colour_html(f"\x1b[{codes}mx") == "x"


def test_a_colour_lasts_over_lines_until_it_is_changed() -> None:
    assert colour_html("\x1b[31ma\nb\x1b[39mc") == '<span style="color:#e75c58">a\nb</span>c'


def test_what_moves_the_cursor_or_sets_a_title_is_dropped() -> None:
    assert plain("\x1b[2K\x1b[1Aup\x1b]0;title\x07 \x1b[1mbold\x1b[0m") == "up bold"
    assert plain("10%\r20%\r") == "20%"
