"""The main process of a session without Java: idle timeout and token checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark.pod import read_secret
from tuttilab.scheduler.spark.server import IdleClock


@pytest.mark.feature("M11")
def test_session_expires_after_the_idle_time() -> None:
    clock = IdleClock(now=0)
    assert [clock.idle_s(False, "a", now) for now in (0, 30, 59, 60)] == [0, 30, 59, 60]


@pytest.mark.feature("M11")
def test_a_running_operation_keeps_the_session() -> None:
    clock = IdleClock(now=0)
    assert [clock.idle_s(True, "a", now) for now in (0, 100, 1000)] == [0, 0, 0]
    assert [clock.idle_s(False, "a", now) for now in (1059, 1060)] == [59, 60]


@pytest.mark.feature("M11")
def test_a_short_operation_between_two_checks_counts() -> None:
    clock = IdleClock(now=0)
    assert clock.idle_s(False, "a", 0) == 0
    assert [clock.idle_s(False, "b", now) for now in (59, 118, 119)] == [0, 59, 60]


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        read_secret(path, "token")
    path.chmod(0o600)
    assert read_secret(path, "token") == "0123456789abcdef"


@pytest.mark.parametrize(("content", "message"), [("", "shorter than 16"), ("short", "shorter than 16"), (None, "cannot be read")])
def test_an_invalid_token_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.touch(0o600)
        path.write_text(content)
    with pytest.raises(BadInput, match=message):
        read_secret(path, "token")
