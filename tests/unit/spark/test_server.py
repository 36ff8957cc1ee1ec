"""The session's main process without Java: when idle is over, which tokens are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.spark.server import IdleClock, _read_token


@pytest.mark.feature("M11")
def test_idle_is_over_after_the_time_without_use() -> None:
    clock = IdleClock(60, now=0)
    assert [clock.is_over(False, "a", now) for now in (0, 30, 59, 60)] == [False, False, False, True]


@pytest.mark.feature("M11")
def test_a_running_operation_keeps_the_session() -> None:
    clock = IdleClock(60, now=0)
    assert [clock.is_over(True, "a", now) for now in (0, 100, 1000)] == [False, False, False]
    assert clock.is_over(False, "a", 1059) is False
    assert clock.is_over(False, "a", 1060) is True


@pytest.mark.feature("M11")
def test_a_short_operation_between_two_looks_counts() -> None:
    clock = IdleClock(60, now=0)
    assert clock.is_over(False, "a", 0) is False
    assert clock.is_over(False, "b", 59) is False
    assert clock.is_over(False, "b", 118) is False
    assert clock.is_over(False, "b", 119) is True


@pytest.mark.feature("M13")
def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        _read_token(path)
    path.chmod(0o600)
    assert _read_token(path) == "0123456789abcdef"


@pytest.mark.parametrize(("content", "message"), [("", "shorter than 16"), ("short", "shorter than 16"), (None, "cannot be read")])
def test_no_session_without_a_good_token(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.touch(0o600)
        path.write_text(content)
    with pytest.raises(BadInput, match=message):
        _read_token(path)
