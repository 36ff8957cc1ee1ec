"""What of a job's words reaches a terminal: text and colours, nothing that a terminal obeys."""

import re
from pathlib import Path

import pytest

from tuttilab.scheduler import cli
from tuttilab.scheduler.cli.follow import cut_to_width
from tuttilab.scheduler.domain.terminal import clean, plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\ttext é 漢字 👍🏽", "plain\ttext é 漢字 👍🏽"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b[38;5;8mgrey\x1b[m", "\x1b[38;5;8mgrey\x1b[m"),
        ("\x1b[38;2;8;8;8mdark\x1b[0m", "\x1b[38;2;8;8;8mdark\x1b[0m"),
        ("\x1b[31mnever reset", "\x1b[31mnever reset\x1b[0m"),
        ("\x1b[1;8mhidden\x1b[28m", "hidden\x1b[28m\x1b[0m"),
        ("a\x1b]52;c;cm0gLXJmIH4=\x07b", "ab"),
        ("a\x1b]52;c;cm0gLXJmIH4=\x1b\\b", "ab"),
        ("a\x9d52;c;cm0gLXJmIH4=\x9cb", "ab"),
        ("a\x1b]8;;http://evil.example\x1b\\bank\x1b]8;;\x1b\\b", "abankb"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]0;never ended", "a"),
        ("a\x1b[2J\x1b[H\x1b[3Jb", "ab"),
        ("a\x1b[?1049h\x1b[6n\x1b[21t\x9b5nb", "ab"),
        ("a\x1bP+q544e\x1b\\b\x1b_G\x1b\\c\x1bcd\x1b(0e", "abcde"),
        ("a\x1b[31", "a^[[31"),
        ("a\x1b", "a^["),
        ("a\x08\x08\x7f\x07\x00b\x85c", "a^H^H^?^G^@b<U+0085>c"),
        ("safe\r\x0bbad", "safe^M^Kbad"),
        ("line\r\nnext\r", "line\nnext"),
        ("a\u202egpj.exe\u2066b", "a<U+202E>gpj.exe<U+2066>b"),
        ("\x1b]52;c;x\x1b[31m\x07", "\x1b[31m^G\x1b[0m"),
    ],
)
def test_only_colours_pass(written: str, shown: str) -> None:
    assert clean(written) == shown
    assert clean(shown) == shown


@pytest.mark.parametrize("control", [*range(32), *range(127, 160)])
def test_no_control_character_passes_alone(control: int) -> None:
    if chr(control) not in "\t\n":
        assert not set(clean(f"a{chr(control)}")) & {chr(code) for code in (*range(32), *range(127, 160))}


def test_a_long_line_takes_no_long_time() -> None:
    assert clean("\x1b[" * 4096 + "\x1b]" * 4096).count("^[") <= 8192


def test_a_cell_of_a_table_has_no_colours() -> None:
    assert plain("\x1b[31mred\x1b[0m \x1b]0;x\x07\u202eback") == "red  back"


def test_a_line_that_is_being_written_is_cleaned_and_cut() -> None:
    assert cut_to_width(clean("\x1b]0;title\x0750%\x1b[2K done"), 6) == "50% do"


def test_every_command_prints_through_what_cleans() -> None:
    folder = Path(cli.__file__).parent
    said = {path.name for path in folder.glob("*.py") if re.search(r"click\.(s?echo|secho)\(|\bprint\(", path.read_text())}

    assert said == {"console.py", "completing.py"}
