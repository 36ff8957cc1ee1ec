"""Following a log: every line once, in order, with its rank, over attempts; and the exit code of `--wait`."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tuttilab.scheduler.cli.follow import Stream, exit_code_of, status_line
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.wire import AttemptView, JobView, LogView, PodView, WaitView

JOB = JobView(
    id="0123456789abcdef",
    name="train",
    owner="ann",
    group="g",
    queue="q",
    kind="batch",
    phase="Running",
    reason="",
    created_at=0.0,
)


class Written:
    """A source of logs: the lines of each rank of each attempt, in pages of two lines."""

    def __init__(self, lines: Mapping[tuple[int, int], list[str]]) -> None:
        self.lines = dict(lines)
        self.ended: set[tuple[int, int]] = set()
        self.times: dict[tuple[int, int], list[tuple[int, float]]] = {}

    def job(self, job_id: str) -> JobView:
        return JOB

    def logs(self, job_id: str, *, rank: int = 0, start: int = 0, limit: int = 0, attempt: int | None = None) -> LogView:
        assert attempt is not None
        written = self.lines.get((attempt, rank))
        if written is None:
            raise NotFound("There is no log yet.")
        page = tuple(written[start : start + 2])
        is_end = (attempt, rank) in self.ended and start + len(page) >= len(written)
        known = [entry for entry in self.times.get((attempt, rank), []) if entry[0] < start + len(page)]
        times = tuple(known[max(0, len([entry for entry in known if entry[0] <= start]) - 1) :])
        return LogView(pod="p", rank=rank, start=start, lines=page, next=start + len(page), is_end=is_end, times=times)


def attempt(number: int, *ranks: int) -> AttemptView:
    pods = tuple(PodView(name=f"p{rank}", rank=rank, role="worker", node="n", phase="Running") for rank in ranks)
    return AttemptView(number=number, phase="Running", cluster="here", admitted_at=0.0, pods=pods)


def test_one_rank_has_no_prefix_and_each_line_comes_once() -> None:
    said: list[str] = []
    source = Written({(1, 0): ["a", "b", "c"]})
    stream = Stream(source, JOB.id, said.append)

    first = stream.read(attempt(1, 0))
    source.lines[1, 0].append("d")
    second = stream.read(attempt(1, 0))

    assert (first, second, said) == (3, 1, ["a", "b", "c", "d"])


def test_several_ranks_have_prefixes_and_the_master_is_left_out() -> None:
    said: list[str] = []
    source = Written({(1, -1): ["barrier"], (1, 0): ["a"], (1, 10): ["b"]})

    Stream(source, JOB.id, said.append).read(attempt(1, -1, 0, 10))

    assert said == ["[ 0] a", "[10] b"]


def test_a_gang_is_read_in_the_order_of_time_where_that_is_known() -> None:
    said: list[str] = []
    source = Written({(1, 0): ["a", "b", "c", "d", "e"], (1, 1): ["p", "q", "r"], (1, 2): ["unknown"]})
    source.times = {(1, 0): [(0, 10.0), (3, 30.0)], (1, 1): [(0, 5.0), (1, 20.0), (2, 30.0)]}

    Stream(source, JOB.id, said.append).read(attempt(1, 0, 1, 2))

    assert said == ["[2] unknown", "[1] p", "[0] a", "[0] b", "[0] c", "[1] q", "[0] d", "[0] e", "[1] r"]


def test_chosen_rank_alone_has_no_prefix() -> None:
    said: list[str] = []

    Stream(Written({(1, 0): ["a"], (1, 1): ["b"]}), JOB.id, said.append, rank=1).read(attempt(1, 0, 1))

    assert said == ["b"]


def test_reading_begins_at_the_line_that_was_asked_for() -> None:
    said: list[str] = []

    Stream(Written({(1, 0): ["a", "b", "c"]}), JOB.id, said.append, start=2).read(attempt(1, 0))

    assert said == ["c"]


def test_new_attempt_is_read_from_its_beginning() -> None:
    said: list[str] = []
    stream = Stream(Written({(1, 0): ["a", "b"], (2, 0): ["c"]}), JOB.id, said.append)

    stream.read(attempt(1, 0))
    stream.read(attempt(2, 0))

    assert said == ["a", "b", "c"]


def test_log_is_complete_when_every_rank_has_ended() -> None:
    source = Written({(1, 0): ["a"], (1, 1): []})
    stream = Stream(source, JOB.id, lambda line: None)
    source.ended.add((1, 0))
    stream.read(attempt(1, 0, 1))
    before = stream.is_complete(attempt(1, 0, 1))
    source.ended.add((1, 1))
    stream.read(attempt(1, 0, 1))

    assert (before, stream.is_complete(attempt(1, 0, 1))) == (False, True)


def test_pod_without_a_log_yet_is_no_error() -> None:
    assert Stream(Written({}), JOB.id, lambda line: None).read(attempt(1, 0)) == 0


@pytest.mark.parametrize(
    ("phase", "exit_code", "expected"),
    [
        ("Succeeded", 0, 0),
        ("Failed", 3, 3),
        ("Failed", 137, 137),
        ("Failed", None, 1),
        ("Failed", 0, 1),
        ("Cancelled", None, 1),
    ],
)
def test_exit_code_is_the_jobs_or_1(phase: str, exit_code: int | None, expected: int) -> None:
    assert exit_code_of(replace(JOB, phase=phase, exit_code=exit_code)) == expected


def test_status_line_of_a_waiting_job_has_its_cause() -> None:
    wait = WaitView(why="quota", sentence="queue q uses 4 of 4 GPU", place=2)

    assert status_line(replace(JOB, phase="Queued", wait=wait), 0.0) == "01234567 train: Waiting (queue q uses 4 of 4 GPU)"
    assert status_line(replace(JOB, phase="Failed", is_ended=True, exit_code=3, reason="Error"), 0.0, "2s") == (
        "01234567 train: Failed (ran 2s; Error; exit code 3)"
    )


def test_a_rank_replaced_by_another_pod_is_read_from_its_beginning() -> None:
    said: list[str] = []
    source = Written({(1, 0): ["a"], (1, 1): ["b", "c"]})
    source.ended.add((1, 1))
    stream = Stream(source, JOB.id, said.append)
    stream.read(attempt(1, 0, 1))
    stream.read(attempt(1, 0))
    source.lines[1, 1], source.ended = ["d"], set()
    first, second = attempt(1, 0, 1).pods
    stream.read(replace(attempt(1), pods=(first, replace(second, name="p1-g1"))))

    assert said == ["[0] a", "[1] b", "[1] c", "[1] d"]
