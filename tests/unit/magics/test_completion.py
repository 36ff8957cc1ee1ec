"""What Tab offers on the lines of our magics."""

from pathlib import Path

import pandas
import pytest

from tuttilab.magics.completion import CachedAnswers, Completer, bindings, tables
from tuttilab.scheduler.domain.errors import Unavailable


class Answers(CachedAnswers):
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

    cached = CachedAnswers(lambda: now[0])
    for at in (0.0, 4.9, 5.1):
        now[0] = at
        assert cached.get("queues", ask) == ["a"]
    assert asked == [0.0, 5.1]


def test_a_service_that_is_away_offers_nothing() -> None:
    def ask() -> list[str]:
        raise Unavailable("away")

    assert CachedAnswers(lambda: 0.0).get("queues", ask) == []


def test_notebooks_and_graphs_of_the_folder_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("report.ipynb", "other.ipynb", "flow.yaml"):
        (tmp_path / name).touch()
    completer = Completer(tables(), {})
    assert completer.candidates("%submit re") == ["report.ipynb"]
    assert completer.candidates("%submit report.ipynb --par") == ["--parameter"]
    assert completer.candidates("%dag run fl") == ["flow.yaml"]
    assert completer.candidates("%dag retry la") == ["last"]


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("%%sparksql\nSELECT * FROM :", ["trades"]),
        ("%%sparksql x\nSELECT 1\nFROM a JOIN  :tra", ["trades"]),
        ("%%sparksql\nSELECT * FROM a WHERE d > :tr", ["trades", "travels"]),
        ("df = 1\n:tr", None),
        ("%%sparksql\nSELECT a::tr", None),
        ("%%sparksql\nSELECT variant:tr", None),
        ("%%spark --lang sql\nSELECT :grö", ["größe"]),
        ("%%spark\nx[:tr", None),
    ],
)
def test_a_variable_is_offered_behind_its_colon_and_a_frame_where_a_table_stands(text: str, offered: list[str] | None) -> None:
    namespace = {"trades": pandas.DataFrame(), "travels": 2, "größe": 3, "_hidden": pandas.DataFrame()}
    assert bindings(text, namespace) == offered
