"""A gang that comes and goes has as many workers as its first member asks for, between its minimum and its count."""

import pytest

from tests.builders import cluster, node, start_all, state
from tests.unit.core.test_growth import cycle, elastic, live, names, told
from tuttilab.scheduler.api.event_text import sentence
from tuttilab.scheduler.clusters import rank_env
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.rows import resizing
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.instructions import Instruction, LaunchGang, StopPods
from tuttilab.scheduler.domain.model import Job
from tuttilab.sidecar import wish

pytestmark = pytest.mark.feature("C01")


def running(count: int = 4, least: int = 1, cpus: int = 4) -> tuple[State, Job]:
    """A gang that started with all its workers."""
    one = state([cluster(node("n", cpus=cpus))])
    gang = elastic(one, count, least)
    cycle(one, 1.0)
    start_all(one, gang.id, at=2.0)
    assert len(live(one, gang).members) == min(count, cpus)
    return one, gang


def asks(of: State, one: Job, text: str, at: float = 3.0) -> list[Instruction]:
    first = live(of, one).of_rank(0)
    assert first is not None
    return told(of, ev.PodOffers(one.id, 1, first.name, {**first.endpoints, wish.WORKERS: text}), at)


def test_the_offer_has_one_name() -> None:
    assert resizing.WORKERS == wish.WORKERS
    assert rank_env.WORKERS_FILE == wish.VARIABLE
    assert resizing.LONGEST_WISH == wish.LONGEST


def test_what_it_does_not_need_is_given_back_at_once_last_ranks_first() -> None:
    one, gang = running()
    stopped = asks(one, gang, "2")

    assert stopped == [StopPods(gang.id, 1, (f"{gang.id}-1-worker-2", f"{gang.id}-1-worker-3"), gang.work.grace_s)]
    assert {pod.given_back_why for pod in live(one, gang).members if pod.is_given_back} == {"the job asked for 2 workers"}
    assert asks(one, gang, "2", 4.0) == []
    assert cycle(one, 5.0).instructions == [], "and it does not get them again"


def test_more_that_it_asks_for_come_where_there_is_room() -> None:
    one, gang = running()
    asks(one, gang, "1")
    for rank in (1, 2, 3):
        told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-{rank}", None, "Stopped", {}), 4.0)
    assert names(one, gang) == ["-1-worker-0"]
    assert cycle(one, 5.0).instructions == []

    asks(one, gang, "3", 6.0)
    assert cycle(one, 7.0).instructions == [LaunchGang(gang.id, 1)]
    assert names(one, gang) == ["-1-worker-0", "-1-worker-1-g1", "-1-worker-2-g1"]


@pytest.mark.parametrize(("text", "members"), [("0", 2), ("1", 2), ("2", 2), ("3", 3), ("4", 4), ("99", 4), ("999999999", 4)])
def test_never_fewer_than_its_minimum_nor_more_than_its_count(text: str, members: int) -> None:
    one, gang = running(least=2)
    asks(one, gang, text)
    assert sum(not pod.is_given_back for pod in live(one, gang).members) == members


@pytest.mark.parametrize("text", ["", "-1", "2.0", "two", "1e1", "٣", "9999999999", " 2"])
def test_what_is_no_number_asks_for_nothing_and_the_history_says_so(text: str) -> None:
    one, gang = running()
    assert asks(one, gang, text) == []
    assert sentence(ev.PodOffers(gang.id, 1, f"{gang.id}-1-worker-0", {wish.WORKERS: text})).endswith(
        f" asks for {text} workers, which is no whole number: it may have all"
    )


def test_the_history_says_what_it_asks_for_and_what_it_offers() -> None:
    said = sentence(ev.PodOffers("j" * 32, 1, f"{'j' * 32}-1-worker-0", {"connect": "h:1", wish.WORKERS: "6"}))
    assert said.endswith(" offers connect and asks for 6 workers")


def test_only_the_first_member_is_heard() -> None:
    one, gang = running()
    other = live(one, gang).of_rank(1)
    assert other is not None
    assert told(one, ev.PodOffers(gang.id, 1, other.name, {wish.WORKERS: "1"}), 3.0) == []


def test_what_is_asked_before_all_run_holds_from_then_on() -> None:
    one = state([cluster(node("n", cpus=3))])
    gang = elastic(one)
    cycle(one, 1.0)
    first, *others = live(one, gang).pods
    for pod in live(one, gang).pods:
        told(one, ev.PodSeen(gang.id, 1, pod.name, f"uid-{pod.name}"), 1.5)
    told(one, ev.PodStarted(gang.id, 1, first.name), 2.0)
    members = [pod for pod in live(one, gang).members if pod.rank == 0]
    told(one, ev.PodOffers(gang.id, 1, members[0].name, {wish.WORKERS: "2"}), 2.1)
    found = [told(one, ev.PodStarted(gang.id, 1, pod.name), 2.2) for pod in others]
    assert found[-1] == [StopPods(gang.id, 1, (f"{gang.id}-1-worker-2",), gang.work.grace_s)]


def test_a_growth_that_was_decided_before_adds_nothing_that_is_not_asked_for() -> None:
    one, gang = running(cpus=4)
    asks(one, gang, "1")
    for rank in (1, 2, 3):
        told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-{rank}", None, "Stopped", {}), 4.0)
    asks(one, gang, "4", 5.0)
    decision = schedule(one.snapshot(), 6.0)
    asks(one, gang, "2", 6.5)
    (growth,) = decision.grown
    assert len(growth.placements) == 3
    assert told(one, growth, 7.0) == [LaunchGang(gang.id, 1)]
    assert names(one, gang) == ["-1-worker-0", "-1-worker-1-g1"]


def test_what_it_asked_for_ends_with_the_attempt() -> None:
    one, gang = running()
    asks(one, gang, "1")
    assert resizing.asked_of(live(one, gang)) == 1
    told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-0", None, "Lost", {}), 5.0)
    for rank in (1, 2, 3):
        told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-{rank}", None, "Stopped", {}), 5.0)
    told(one, ev.PodEnded(gang.id, 1, f"{gang.id}-1-master", 0, "Completed", {}), 5.0)
    cycle(one, 100.0)
    again = live(one, gang)
    assert (again.number, len(again.members), resizing.asked_of(again)) == (2, 4, None)
