"""What the change feed sends to pages: small notices, nothing twice, and whether the control plane answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tuttilab.jupyter_ext.events import MOST_KEYS, ChangeFeed, Notice, notice_of
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.errors import NotFound, TuttiError, Unavailable
from tuttilab.scheduler.domain.wire import ChangesView, EventView


def change(kind: str, key: str, seq: int = 1) -> EventView:
    return EventView(seq=seq, at=0.0, kind=kind, key=key)


def test_notice_names_each_job_once_and_runs_apart() -> None:
    changes = [change("JobSubmitted", "a"), change("GangAdmitted", "b"), change("PodStarted", "a"), change("RunSubmitted", "r")]

    assert notice_of(3, 7, changes) == Notice(status="up", since=3, seq=7, jobs=("a", "b"), runs=("r",))


def test_time_out_of_a_job_is_no_run() -> None:
    assert notice_of(0, 1, [change("RunTimedOut", "a")]).jobs == ("a",)


def test_queues_clusters_and_dags_only_set_the_site_flag() -> None:
    changes = [change("QueuesConfigured", ""), change("ClusterLost", "here"), change("DagApplied", "nightly")]

    assert notice_of(0, 3, changes) == Notice(status="up", since=0, seq=3, site=True)


def test_many_changes_are_one_call_to_fetch_everything() -> None:
    notice = notice_of(0, 999, [change("JobSubmitted", str(index)) for index in range(MOST_KEYS + 1)])

    assert (notice.resync, notice.jobs, notice.seq) == (True, (), 999)


class Script:
    """A control plane that answers as written, then never again. ``done`` is set when all was asked."""

    def __init__(self, *answers: ChangesView | TuttiError) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.done = asyncio.Event()

    async def send(self, method: str, path: str, params: dict[str, str], *, may_repeat: bool = False, wait_s: float = 0.0) -> bytes:
        assert (method, path) == ("GET", "/changes")
        self.asked.append(params)
        if not self.answers:
            self.done.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, TuttiError):
            raise answer
        return wire.to_json(answer)


def view(seq: int, *jobs: str) -> ChangesView:
    return ChangesView(seq=seq, changes=tuple(change("PodStarted", job, seq) for job in jobs))


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> Callable[..., asyncio.Future[list[Notice]]]:
    """All notices that a script of answers leads to."""

    async def run(*answers: ChangesView | TuttiError) -> list[Notice]:
        script = Script(*answers)
        notices: list[Notice] = []
        feed = ChangeFeed(script, notices.append)

        async def no_pause(seconds: float) -> None:
            return

        monkeypatch.setattr(feed, "_pause", no_pause)
        feed.ensure_running()
        feed.ensure_running()
        await asyncio.wait_for(script.done.wait(), 10)
        await feed.stop()
        return notices

    return lambda *answers: asyncio.ensure_future(run(*answers))


async def test_feed_begins_with_everything_and_goes_on_with_what_changed(
    notices: Callable[..., asyncio.Future[list[Notice]]],
) -> None:
    assert await notices(view(5), view(6, "a"), view(6), view(9, "b")) == [
        Notice(status="up", seq=5, resync=True),
        Notice(status="up", since=5, seq=6, jobs=("a",)),
        Notice(status="up", since=6, seq=9, jobs=("b",)),
    ]


async def test_feed_says_once_that_the_control_plane_is_down_and_then_that_it_is_back(
    notices: Callable[..., asyncio.Future[list[Notice]]],
) -> None:
    away = Unavailable("Nobody answers.")

    assert await notices(view(5), away, Unavailable("Nobody answers."), view(7)) == [
        Notice(status="up", seq=5, resync=True),
        Notice(status="down", detail="Nobody answers."),
        Notice(status="up", seq=7, resync=True),
    ]


async def test_feed_restarts_when_the_journal_dropped_its_position(notices: Callable[..., asyncio.Future[list[Notice]]]) -> None:
    assert await notices(view(5), NotFound("not kept any more"), view(900)) == [
        Notice(status="up", seq=5, resync=True),
        Notice(status="up", seq=900, resync=True),
    ]


async def test_pages_are_told_of_a_halted_control_plane_before_a_poll_ends_and_when_it_goes_on() -> None:
    script = Script(view(5))
    notices: list[Notice] = []
    feed = ChangeFeed(script, notices.append)
    feed.ensure_running()
    await asyncio.wait_for(script.done.wait(), 10)
    script.answers, script.done = [view(6)], asyncio.Event()

    feed.hear_nothing("It has not answered for 4 s.")
    feed.hear_nothing("It has not answered for 4 s.")
    await asyncio.wait_for(script.done.wait(), 10)
    await feed.stop()

    assert notices == [
        Notice(status="up", seq=5, resync=True),
        Notice(status="down", detail="It has not answered for 4 s."),
        Notice(status="up", seq=6, resync=True),
    ]
    assert script.asked[2:] == [{}, {"since": "6", "wait": "25"}]
