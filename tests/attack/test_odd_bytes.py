"""Words, folders and streams of a command that are not what a program expects: each is told in a sentence that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.user_machine import UserMachine

ODD = os.fsdecode(b"x\xff")
SMALL = ("--cpus", "0.1", "--memory", "64Mi")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("submit", *SMALL, "--name", ODD, "--", "true"), "name: "),
        (("submit", *SMALL, "--", "echo", ODD), "command[1]: "),
        (("submit", *SMALL, "-e", f"A={ODD}", "--", "true"), "env.A: "),
        (("job", ODD), ""),
        (("logs", ODD), ""),
        (("cancel", ODD), ""),
        (("explain", ODD), ""),
        (("retry", ODD), ""),
        (("delete", ODD), ""),
        (("dag", "show", ODD), ""),
        (("dag", "run", ODD), "name: "),
        (("jobs", "--state", ODD), ""),
        (("spark", "stop", ODD), ""),
    ],
)
def test_words_that_are_no_text_are_told(attacked: UserMachine, words: tuple[str, ...], field: str) -> None:
    said = attacked.run(*words)
    assert (said.code, said.out, said.err.lower()) == (
        2,
        "",
        f"tuttilab: {field}'x\\udcff' is not UTF-8 text, and only that can be sent; rename it, or leave it out.\n".lower(),
    )


def test_a_folder_whose_name_is_no_text_is_told(attacked: UserMachine, tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    said = attacked.run("submit", *SMALL, "--", "true", cwd=folder)
    assert said.code == 2
    assert said.err.startswith(f"tuttilab: workdir: {str(folder)!a} is not UTF-8 text"), said.err


def test_a_folder_that_was_removed_under_a_command_is_told(attacked: UserMachine, tmp_path: Path) -> None:
    said = shell(attacked, 'rmdir ../gone && "$@"', "submit", *SMALL, "--", "true", cwd=made(tmp_path / "gone"))
    assert said.returncode == 2
    assert b"The current folder cannot be used (No such file or directory)" in said.stderr, said.stderr
    assert b"doctor" not in said.stderr


def test_output_that_cannot_be_written_is_told_and_no_matter_of_the_state_folder(attacked: UserMachine) -> None:
    for words in (("submit", *SMALL, "--", "true"), ("jobs", "--all"), ("quota", "--json"), ("--help",)):
        said = shell(attacked, '"$@" > /dev/full', *words)
        assert said.returncode == 2, words
        assert b"The output cannot be written (No space left on device)" in said.stderr, (words, said.stderr)
        assert b"doctor" not in said.stderr, words


@pytest.mark.parametrize(("name", "closed"), [("out", ">&-"), ("err", "2>&-"), ("in", "<&-"), ("all", "<&- >&- 2>&-")])
def test_closed_streams_change_nothing_but_what_is_seen(attacked: UserMachine, name: str, closed: str) -> None:
    said = shell(attacked, f'"$@" {closed}', "submit", *SMALL, "--name", name, "--wait", "--", "sh", "-c", "echo worked; exit 3")
    assert said.returncode == 3, said
    assert b"bug" not in said.stdout + said.stderr
    assert attacked.run("logs", name).out == "worked\n"


def test_a_name_that_the_terminal_cannot_show_is_shown_as_it_can(attacked: UserMachine) -> None:
    assert attacked.run("submit", *SMALL, "--name", "作业", "--wait", "--", "true").code == 0
    said = attacked.run("jobs", "--all", "--limit", "1", PYTHONIOENCODING="latin-1")
    assert (said.code, r"\u4f5c\u4e1a" in said.out) == (0, True), said


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("0", "pods[0].memory: '0' is no memory at all; expected at least 1Mi, such as 512Mi or 8Gi."),
        ("5", "--memory: '5' is 5 bytes; expected a unit, as in 512Mi or 8Gi."),
        ("1023Ki", "pods[0].memory: '1023Ki' is 1047552 bytes; expected at least 1Mi, such as 512Mi or 8Gi."),
    ],
)
def test_a_job_without_memory_would_have_no_limit_and_cost_nothing(attacked: UserMachine, given: str, sentence: str) -> None:
    said = attacked.run("submit", "--memory", given, "--", "true")
    assert (said.code, said.err) == (2, f"tuttilab: {sentence}\n")
    assert attacked.run("submit", "--memory", "1Mi", "--dry-run", "--", "true").code == 0


@pytest.mark.timeout(700)
@pytest.mark.parametrize("command", [("submit",), ("dag", "run"), ("profile", "apply"), ("scheduler", "check", "--config")])
def test_nested_aliases_end_no_memory_and_no_patience(attacked: UserMachine, command: tuple[str, ...]) -> None:
    lines = ["kind: Job", "a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
    ]
    (attacked.home / "bomb.yaml").write_text("\n".join(lines))
    said = attacked.run(*command, "bomb.yaml", timeout_s=40)
    assert said.code == 2
    assert "bomb.yaml, line 7: aliases repeat this until there are more than 4194304 characters of it" in said.err, said.err


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def shell(machine: UserMachine, script: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command with the words, which the script calls ``"$@"``."""
    command = [sys.executable, "-m", "tuttilab.scheduler.cli", *words]
    return subprocess.run(
        ["sh", "-c", script, "sh", *command], cwd=cwd or machine.home, env=machine.environ, capture_output=True, timeout=60
    )
