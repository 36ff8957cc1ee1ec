"""Waiting for the end, and what the first and the second Stop do. No clock: sleeping is a list of what happens meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.magics.builders import a_pod, an_ended_job
from tuttilab.magics.jobs import watch
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.shared.display import Area, Shown
from tuttilab.scheduler.domain.errors import NotFound, Unavailable
from tuttilab.scheduler.domain.wire import LogView


class Job:
    """Polls say what they are told to; an exception is raised."""

    words = "job 3f2a9c12"
    way_back = "`%attach 3f2a9c12` shows it"

    def __init__(self, *polls: bool | BaseException) -> None:
        self.polls = list(polls)
        self.notes: list[str] = []
        self.cancels = 0
        self.cancelling: Callable[[], None] = lambda: None

    def poll(self) -> bool:
        said = self.polls.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    def shown(self, note: str) -> Shown:
        return Shown(note)

    def cancel(self) -> None:
        self.cancels += 1
        self.cancelling()


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def area(shown: list[str]) -> Area:
    seconds: Iterator[float] = iter(float(n) for n in range(1000))
    return Area(lambda each: shown.append(each.text), lambda: next(seconds))


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What happens in each sleep, in order; when the list is used up nothing does."""
    events: list[BaseException | None] = []

    def sleep(_seconds: float) -> None:
        event = events.pop(0) if events else None
        if event is not None:
            raise event

    monkeypatch.setattr("time.sleep", sleep)
    return events


def test_it_returns_at_the_end(area: Area, sleeps: list[BaseException | None]) -> None:
    job = Job(False, False, True)
    watch.follow(job, area)
    assert job.polls == []


def test_a_control_plane_that_is_away_is_said_and_waited_for(
    area: Area, shown: list[str], sleeps: list[BaseException | None]
) -> None:
    watch.follow(Job(False, Unavailable("away"), Unavailable("away"), False, True), area)
    assert "the control plane does not answer; the job is not touched by that, and this wait goes on" in shown
    assert shown[-1] == ""


def test_a_job_that_somebody_deleted_ends_the_wait(area: Area, sleeps: list[BaseException | None]) -> None:
    with pytest.raises(NotFound):
        watch.follow(Job(False, NotFound("There is no job 3f2a9c12.")), area)


def test_the_first_stop_detaches(area: Area, shown: list[str], sleeps: list[BaseException | None]) -> None:
    sleeps[:] = [KeyboardInterrupt()]
    job = Job(False, False)
    with pytest.raises(watch.Stopped, match=r"^detached: job 3f2a9c12 goes on; `%attach 3f2a9c12` shows it$"):
        watch.follow(job, area)
    assert job.cancels == 0
    assert shown[-2].endswith("Stop again within 5 s cancels it.")


def test_a_second_stop_cancels(area: Area, sleeps: list[BaseException | None]) -> None:
    sleeps[:] = [KeyboardInterrupt(), KeyboardInterrupt()]
    job = Job(False, False, True)
    with pytest.raises(watch.Stopped, match=r"^job 3f2a9c12 was cancelled\.$"):
        watch.follow(job, area)
    assert job.cancels == 1


def test_a_second_stop_that_comes_while_the_first_is_drawn_cancels(sleeps: list[BaseException | None]) -> None:
    def draw(shown: Shown) -> None:
        if "Stop again" in shown.text:
            raise KeyboardInterrupt

    sleeps[:] = [KeyboardInterrupt()]
    job = Job(False, False, True)
    with pytest.raises(watch.Stopped, match=r"^job 3f2a9c12 was cancelled\.$"):
        watch.follow(job, Area(draw, lambda: 0.0))
    assert job.cancels == 1


def test_a_third_stop_ends_the_wait_for_the_cancelled_job(area: Area, sleeps: list[BaseException | None]) -> None:
    sleeps[:] = [KeyboardInterrupt(), KeyboardInterrupt(), KeyboardInterrupt()]
    job = Job(False, False, True)
    with pytest.raises(watch.Stopped, match=r"^job 3f2a9c12 is being cancelled\.$"):
        watch.follow(job, area)
    assert job.cancels == 1


def test_a_stop_that_ends_the_request_to_cancel_says_so(area: Area, sleeps: list[BaseException | None]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    sleeps[:] = [KeyboardInterrupt(), KeyboardInterrupt()]
    job = Job(False)
    job.cancelling = stop
    with pytest.raises(watch.Stopped, match=r"^job 3f2a9c12 was perhaps not cancelled: .*`%attach 3f2a9c12` shows it$"):
        watch.follow(job, area)


def test_a_stop_in_the_middle_of_a_request_detaches_too(area: Area, sleeps: list[BaseException | None]) -> None:
    with pytest.raises(watch.Stopped, match=r"^detached: "):
        watch.follow(Job(KeyboardInterrupt()), area)


def test_on_interrupt_cancel_needs_one_stop(area: Area, sleeps: list[BaseException | None]) -> None:
    job = Job(KeyboardInterrupt(), True)
    with pytest.raises(watch.Stopped, match="was cancelled"):
        watch.follow(job, area, on_interrupt="cancel")
    assert job.cancels == 1


def test_a_stop_of_a_stopped_cell_fails_the_cell() -> None:
    assert issubclass(watch.Stopped, KeyboardInterrupt)
    assert watch.Stopped("detached: …")._render_traceback_() == ["detached: …"]


@pytest.mark.parametrize(
    ("whole", "sentence"),
    [
        ((True, True), ""),
        ((False, True), "the log of rank 0 is not here to its end yet"),
        ((False, False), "the log of ranks 0, 1 is not here to its end yet"),
        ((False,), "the log is not here to its end yet"),
    ],
)
def test_an_end_whose_log_has_not_all_come_says_so(monkeypatch: pytest.MonkeyPatch, whole: tuple[bool, ...], sentence: str) -> None:
    def logs(job: str, *, rank: int, start: int, limit: int) -> LogView:
        return LogView(pod=f"p{rank}", rank=rank, start=0, lines=(f"line of {rank}",), next=1, is_end=whole[rank])

    view = an_ended_job(a_pod(phase="Ended", exit_code=0), phase="Succeeded", exit_code=0)
    pods = tuple(replace(view.attempts[-1].pods[0], name=f"p{rank}", rank=rank) for rank in range(len(whole)))
    view = replace(view, attempts=(replace(view.attempts[-1], pods=pods),))
    monkeypatch.setattr(watch, "client", lambda: SimpleNamespace(logs=logs))
    monkeypatch.setattr(watch, "user", lambda: "ada")
    handle: Any = SimpleNamespace(seen=view, view=lambda: view, id=view.id)
    clock = [100.0]
    job = watch.OneJob(cast(JobHandle, handle), now=lambda: clock[0])

    assert job.poll() is all(whole)
    # A cluster that still copies it gets a few seconds.
    clock[0] += watch.LATE_LOG_S - 1
    assert job.poll() is all(whole)
    clock[0] += 1
    assert job.poll()

    text = job.shown("").text
    assert "line of 0" in text
    assert (sentence in text) if sentence else ("to its end" not in text)
