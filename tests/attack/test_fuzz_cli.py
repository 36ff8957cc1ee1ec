"""Almost valid words after `tuttilab`: each command ends, with a sentence and a code, and orders nothing of the terminal."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import click
import pytest

from tests.attack.mutations import TEXTS, rounds
from tests.doses import attack_dose
from tests.user_machine import UserMachine
from tuttilab.scheduler.cli import root

ROUNDS = attack_dose("CLI", suite=60, attack=5000)
LEFT_OUT = {"up", "down", "lab", "scheduler", "doctor", "spark", "simulate"}
"""They start or end processes."""
ENDLESS = {"--follow", "-f", "--wait", "--watch", "--debug", "--help", "-h"}
VALID = ("last", "honest", "root", "research", "1", "100m", "64Mi", "5s", "--", "true", "a=b", "Running", "tuttilab.yaml")


def commands_of(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[click.Parameter]]]:
    """Words that name each command, and what may stand after them."""
    for name, command in sorted(group.commands.items()):
        words = (*before, name)
        if words[0] in LEFT_OUT:
            continue
        if isinstance(command, click.Group):
            yield from commands_of(command, words)
        else:
            yield words, [each for each in command.params if not ENDLESS & set(each.opts)]


def words_of(chance: random.Random, parameters: list[click.Parameter]) -> list[str]:
    """As a process may get them, without NUL; mostly as many as the command takes."""
    words: list[str] = []
    for parameter in parameters:
        value = chance.choice(VALID if chance.random() < 0.6 else TEXTS).replace("\0", "")
        if isinstance(parameter, click.Option):
            if chance.random() < 0.15:
                words += [parameter.opts[0]] if parameter.is_flag else [parameter.opts[0], value]
        elif parameter.required or chance.random() < 0.5:
            words.append(value)
    if chance.random() < 0.1:
        words.append(chance.choice(TEXTS).replace("\0", ""))
    return words


@pytest.fixture
def here(attacked: UserMachine, monkeypatch: pytest.MonkeyPatch) -> UserMachine:
    for name in ("HOME", "TUTTILAB_STATE_DIR"):
        monkeypatch.setenv(name, attacked.environ[name])
    monkeypatch.chdir(attacked.home)
    assert attacked.run("submit", "--name", "honest", "--cpus", "0.1", "--memory", "64Mi", "--wait", "--", "true").code == 0
    return attacked


@pytest.mark.feature("B27")
@pytest.mark.timeout(600 + 2 * ROUNDS)
def test_no_words_are_a_bug_of_ours(here: UserMachine, capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]) -> None:
    commands = list(commands_of(root.cli))
    codes: Counter[int] = Counter()
    for number, chance in enumerate(rounds(4, ROUNDS)):
        words, parameters = commands[number % len(commands)]
        given = [*words, *words_of(chance, parameters)]
        code = root.run(given)
        said = capsys.readouterr()
        codes[code] += 1
        assert code in (0, 1, 2, 3), f"round {number}: {given} gave {code}: {said.err}"
        assert "bug" not in said.err, f"round {number}: {given}: {said.err}"
        assert "Traceback" not in said.err, f"round {number}: {given}: {said.err}"
        if number % 50 == 49:
            here.run("cancel", "--all")
    assert codes[0] > 0
    assert codes[2] > 0
    tell(f"{ROUNDS} command lines of {len(commands)} commands, exit codes {dict(sorted(codes.items()))}")
