"""When a server reports a running cell: at once, periodically while it runs, and never without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tuttilab.jupyter_ext.cells import POLL_S, REPORT_S, RETRY_S, CellWatch
from tuttilab.scheduler.core.rules import SERVICE_RULES
from tuttilab.scheduler.domain.errors import NotFound, TuttiError, Unavailable

SLEEP = asyncio.sleep
Watched = Callable[..., Awaitable[list[float]]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Seconds at which a report was sent, when kernels are as ``states`` says at each second and reports fail as told."""

    async def run(states: Callable[[float], tuple[str, ...]], seconds: float, *failures: TuttiError | KeyError) -> list[float]:
        loop = asyncio.get_running_loop()
        passed, sent = 0.0, list[float]()
        over = asyncio.Event()
        errors = list(failures)

        async def sleep(pause: float) -> None:
            nonlocal passed
            passed += pause
            if passed > seconds:
                over.set()
                await asyncio.Event().wait()
            await SLEEP(0)

        async def report() -> None:
            sent.append(passed)
            if errors:
                raise errors.pop(0)

        monkeypatch.setattr(loop, "time", lambda: passed)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        watch = CellWatch(lambda: states(passed), report)
        watch.start()
        await over.wait()
        await watch.stop()
        return sent

    return run


async def test_running_cell_is_reported_at_once_and_periodically(watched: Watched) -> None:
    def states(at: float) -> tuple[str, ...]:
        return ("idle", "busy") if 5 <= at < 45 else ("idle", "starting")

    assert await watched(states, 120) == [5.0, 5.0 + REPORT_S, 5.0 + 2 * REPORT_S]


async def test_nothing_is_reported_without_a_running_cell(watched: Watched) -> None:
    assert await watched(lambda at: ("idle", "starting", "restarting", "dead", ""), 100) == []
    assert await watched(lambda at: (), 100) == []


async def test_a_report_that_fails_is_sent_again_soon(watched: Watched) -> None:
    failures = (Unavailable("away"), NotFound("not there"), KeyError("a mistake"))

    assert await watched(lambda at: ("busy",), 35, *failures) == [0.0, RETRY_S, 2 * RETRY_S, 3 * RETRY_S, 3 * RETRY_S + REPORT_S]


def test_three_lost_reports_do_not_make_a_cell_idle() -> None:
    assert SERVICE_RULES.idle_notebook_s > 3 * REPORT_S + POLL_S
