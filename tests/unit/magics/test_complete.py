"""What Tab offers on the lines of our magics."""

import pytest

from tuttilab.magics.complete import Completer, Remembered, tables
from tuttilab.scheduler.errors import Unavailable


class Answers(Remembered):
    def queues(self) -> list[str]:
        return ["default", "research"]

    def jobs(self) -> list[str]:
        return ["3f2a9c12"]


@pytest.fixture
def completer() -> Completer:
    return Completer({**tables(), "%spark": {"start": []}}, {"df": 1, "model": 2, "_hidden": 3}, Answers())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%submit --gp", ["--gpus", "--gpu-type"]),
        ("%%submit m --framework to", ["torch"]),
        ("%%submit --framework=ten", ["--framework=tensorflow"]),
        ("%%submit --queue re", ["research"]),
        ("%%submit --queue ", ["default", "research"]),
        ("%%submit --in ", ["df", "model"]),
        ("%%submit --in df,mo", ["df,model"]),
        ("%%submit --after 3f", ["3f2a9c12"]),
        ("%%submit --name x", []),
        ("%job ", ["3f2a9c12", "--rank", "--tail"]),
        ("%job 3f2a9c12 ca", ["cancel"]),
        ("%attach 3", ["3f2a9c12"]),
        ("%quota de", ["default"]),
        ("%spark st", []),
        ("    %job 3", ["3f2a9c12"]),
    ],
)
def test_candidates(completer: Completer, line: str, offered: list[str]) -> None:
    assert completer.candidates(line) == offered


@pytest.mark.parametrize("line", ["x = 1", "", "%%submit", "%time --q", "y = %job"])
def test_other_lines_are_left_to_others(completer: Completer, line: str) -> None:
    assert completer.candidates(line) is None


def test_a_switch_takes_no_value(completer: Completer) -> None:
    assert completer.candidates("%%submit --dry-run --queue") == ["--queue"]
    assert "--detach" in (completer.candidates("%%submit --dry-run ") or [])


def test_an_answer_is_kept_for_five_seconds() -> None:
    now = [0.0]
    asked: list[float] = []

    def ask() -> list[str]:
        asked.append(now[0])
        return ["a"]

    remembered = Remembered(lambda: now[0])
    for at in (0.0, 4.9, 5.1):
        now[0] = at
        assert remembered.get("queues", ask) == ["a"]
    assert asked == [0.0, 5.1]


def test_a_service_that_is_away_offers_nothing() -> None:
    def ask() -> list[str]:
        raise Unavailable("away")

    assert Remembered(lambda: 0.0).get("queues", ask) == []
