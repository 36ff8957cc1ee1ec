"""Phases and starts as users read them: one word for a phase in every surface, and a start only as far as it is told."""

import re
import time
from pathlib import Path

import pytest

from tuttilab.scheduler.domain.model import AttemptPhase, JobPhase, NodePhase, PodPhase, RunPhase
from tuttilab.scheduler.domain.words import PHASES, POD_PHASES, start_text, word

ROOT = Path(__file__).resolve().parents[3]
NOON = time.mktime((2026, 11, 29, 12, 0, 0, 0, 0, -1))


def test_every_phase_has_a_word() -> None:
    assert {str(phase) for kind in (JobPhase, AttemptPhase, NodePhase, RunPhase) for phase in kind} == set(PHASES)
    assert {str(phase) for phase in PodPhase} == set(POD_PHASES)
    assert word("Later") == "Later"


def test_the_glossary_has_the_same_words() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text().partition("## Phases that users see")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \|", text, re.MULTILINE)[1:]
    assert {phase: name for name, phases in rows for phase in phases.split(", ")} == dict(PHASES)


@pytest.mark.parametrize(
    ("earliest", "latest", "text"),
    [
        (300, 1200, "starts between 12:05 and 12:20"),
        (-60, 1190, "starts by 12:20"),
        (10, 1200, "starts by 12:20"),
        (5, 40, "starts within a minute"),
        (7200, 86400, "starts between 14:00 and Mon 12:00"),
        (7200, 10 * 86400, "starts by Dec 09 12:00"),
        (-600, -60, ""),
    ],
)
def test_B02_a_start_is_told_as_a_range_of_the_day(earliest: float, latest: float, text: str) -> None:
    assert start_text(NOON + earliest, NOON + latest, NOON) == text


def test_B02_no_start_is_told_without_a_range() -> None:
    assert start_text(None, None, NOON) == ""
    assert start_text(NOON, None, NOON) == ""


def test_a_reader_elsewhere_sees_the_time_zone() -> None:
    zone = time.strftime("%Z", time.localtime(NOON))
    assert start_text(NOON + 300, NOON + 1200, NOON, with_zone=True) == f"starts between 12:05 and 12:20 {zone}"
