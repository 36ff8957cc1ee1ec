"""A cycle that decided nothing about a state that is still the same is not run again before something happens."""

from tests import builders as b
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.service.turn import RESULT_AGES_S, Turn


def cycle(state: State, at: float, meanwhile: bool = False) -> Turn:
    """One that ends at ``at``; ``meanwhile`` somebody submits."""
    turn = Turn(state, at)
    snapshot, version = state.snapshot(), state.version
    if meanwhile:
        b.submit(state, cpus=8, at=at)
    turn.apply_decision(schedule(snapshot, at), version)
    return turn


def full() -> State:
    """One job that runs and one that waits for its room."""
    state = b.state([b.cluster(b.node("a", cpus=8))], [b.queue()])
    first = b.submit(state, cpus=8)
    b.submit(state, cpus=8)
    b.run_cycle(state)
    b.start_all(state, first.id)
    return state


def test_what_changed_nothing_is_settled_until_something_happens_or_it_has_aged() -> None:
    state = full()
    turn = cycle(state, 1.0)

    assert turn.entries == []
    assert state.is_up_to_date(1.0)
    assert state.is_up_to_date(1.0 + RESULT_AGES_S - 0.1)
    assert not state.is_up_to_date(1.0 + RESULT_AGES_S)
    b.submit(state, cpus=8, at=2.0)
    assert not state.is_up_to_date(2.0)


def test_what_admitted_somebody_is_followed_by_another_cycle() -> None:
    state = b.state([b.cluster(b.node("a", cpus=8))], [b.queue()])
    b.submit(state, cpus=8)
    b.submit(state, cpus=8)

    turn = cycle(state, 1.0)

    assert len(turn.entries) == 1
    assert not state.is_up_to_date(1.0)


def test_what_happened_while_it_was_decided_is_not_overlooked() -> None:
    state = full()

    cycle(state, 1.0, meanwhile=True)

    assert not state.is_up_to_date(1.0)


def test_an_admission_says_why_the_gang_waited() -> None:
    state = full()
    cycle(state, 1.0)
    ((waiting, wait),) = state.waits.items()
    runs = next(job for job in state.jobs if job != waiting)
    b.end_all(state, runs, 0, at=2.0)

    turn = cycle(state, 2.0)

    attempt = state.live_attempt(waiting)
    assert attempt is not None
    assert (attempt.waited_for, len(turn.entries)) == (wait.sentence, 1)
    assert state.attempts[runs, 1].waited_for == ""
