"""A warning that callers cause is written now and then, with the number of those left out."""

import logging

import pytest

from tuttilab.scheduler.runtime.seldom import SeldomLog


def test_a_warning_is_written_once_in_a_while_and_tells_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    times = [0.0]
    seldom = SeldomLog(logging.getLogger("test"), 60.0, lambda: times[0])
    for at in (0.0, 1.0, 59.0, 60.0, 61.0):
        times[0] = at
        seldom.warning(f"at {at:g}")

    assert [record.getMessage() for record in caplog.records] == ["at 0", "at 60 (2 more like this before)"]
