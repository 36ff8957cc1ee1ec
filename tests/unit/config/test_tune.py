"""`policy` and `tune` of tuttilab.yaml, and the times of cron."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tuttilab.scheduler.config.cron import Cron
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Config, TuneConfig
from tuttilab.scheduler.core.rows.tuning import tuning_of
from tuttilab.scheduler.domain.errors import BadInput

BERLIN = ZoneInfo("Europe/Berlin")


def parsed(**data: object) -> Config:
    return parse_config(data, Path("/state"), "test")


def test_the_file_fixes_parameters_and_bounds_the_others() -> None:
    found = parsed(
        policy={"overtaking": 0.2},
        tune={
            "every": "0 3 * * *",
            "days": 14,
            "limit": "10m",
            "least_jobs": 100,
            "bounds": {"order": ["small-first", "submission"]},
        },
    )
    tuning = tuning_of(found.queues)
    assert tuning is not None
    assert tuning.fixed == (("overtaking", 0.2),)
    assert {queue.overtaking for queue in found.queues} == {0.2}
    cron = found.tune.every
    assert cron is not None
    assert cron.text == "0 3 * * *"
    assert found.tune == TuneConfig(cron, 14, 600.0, 100, {"order": ("small-first", "submission")})
    assert tuning_of(parsed().queues) is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"policy": {"preempts": False}}, "policy: there is no parameter 'preempts' of the decision rule; expected one of"),
        ({"policy": {"overtaking": -1}}, r"policy.overtaking: -1 is not a value of overtaking"),
        ({"tune": {"every": "0 3 * * *"}}, "tune.bounds: a nightly run may change nothing without bounds"),
        ({"tune": {"bounds": {"overtaking": [0.3, 0.1]}}}, "tune.bounds.overtaking: it is no range"),
        ({"tune": {"bounds": {"overtaking": [0.3]}}}, "tune.bounds.overtaking: it is no range"),
        ({"tune": {"bounds": {"order": []}}}, "tune.bounds.order: an empty list allows nothing"),
        ({"tune": {"bounds": {"order": ["fifo"]}}}, r"tune.bounds.order\[0\]: fifo is not a value of order"),
        ({"policy": {"overtaking": 1}, "tune": {"bounds": {"overtaking": [0, 1]}}}, "policy.overtaking fixes it"),
        ({"tune": {"days": 0}}, "tune.days: 0 is out of range"),
        ({"tune": {"limit": "13h"}}, "tune.limit: 13h is too long"),
        ({"tune": {"zone": "Mars/Base", "every": "0 3 * * *", "bounds": {"overtaking": [0, 1]}}}, "tune.zone: 'Mars/Base' is no"),
        ({"tune": {"every": "0 3 * *", "bounds": {"overtaking": [0, 1]}}}, "has 4 fields; expected five"),
        ({"tune": {"every": "0 25 * * *", "bounds": {"overtaking": [0, 1]}}}, "tune.every, hour: '25' is out of range"),
        ({"tune": {"every": "x 3 * * *", "bounds": {"overtaking": [0, 1]}}}, "tune.every, minute: 'x' is no number"),
        ({"tune": {"every": "0 3 31 2 *", "bounds": {"overtaking": [0, 1]}}}, "never comes"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named_with_what_is_expected(data: dict[str, object], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        parsed(**data)


def at(zone: ZoneInfo, *parts: int) -> float:
    return datetime(*parts, tzinfo=zone).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("0 3 * * *", (2026, 11, 30, 2, 59), (2026, 11, 30, 3, 0)),
        ("0 3 * * *", (2026, 11, 30, 3, 0), (2026, 12, 1, 3, 0)),
        ("*/20 1-2 * * *", (2026, 11, 30, 1, 50), (2026, 11, 30, 2, 0)),
        ("0 3 29 2 *", (2026, 1, 1, 0, 0), (2028, 2, 29, 3, 0)),
        ("0 3 * * 7", (2026, 11, 30, 4, 0), (2026, 12, 6, 3, 0)),
        ("0 3 1 * 3", (2026, 11, 30, 4, 0), (2026, 12, 1, 3, 0)),
        ("5,10 3 * 12 1-5", (2026, 11, 30, 4, 0), (2026, 12, 1, 3, 5)),
    ],
)
def test_the_next_time_is_found(text: str, begin: tuple[int, ...], end: tuple[int, ...]) -> None:
    assert Cron.parse(text, "Europe/Berlin", "tune").next_after(at(BERLIN, *begin)) == at(BERLIN, *end)


def test_an_hour_that_the_clocks_skip_is_skipped_and_one_they_repeat_comes_once() -> None:
    cron = Cron.parse("30 2 * * *", "Europe/Berlin", "tune")
    spring = cron.next_after(at(BERLIN, 2026, 3, 28, 12, 0))
    assert datetime.fromtimestamp(spring, UTC) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    autumn = cron.next_after(at(BERLIN, 2026, 10, 24, 12, 0))
    assert datetime.fromtimestamp(autumn, UTC) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert datetime.fromtimestamp(cron.next_after(autumn), UTC) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
