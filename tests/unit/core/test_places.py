"""Pods of a large gang are found by their names, whatever comes and goes."""

from dataclasses import replace

from tests.builders import cluster, node, run_cycle, state, submit
from tuttilab.scheduler.core.rows.places import FEW, Places
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import AttemptPhase, Pod, PodPhase

COUNT = 3 * FEW


def test_a_pod_is_found_although_the_others_changed_their_places() -> None:
    one = state([cluster(node("a", cpus=64))])
    job = submit(one, workers=COUNT, sidecar=False)
    run_cycle(one)
    attempt, places = one.live_attempt(job.id), Places()
    assert attempt is not None
    name = attempt.pods[-1].name

    assert places.place(attempt, name) == COUNT - 1
    turned = replace(attempt, pods=tuple(reversed(attempt.pods)))
    assert places.place(turned, name) == 0
    assert places.place(replace(turned, pods=turned.pods[1:]), name) is None
    assert places.place(attempt, "nobody") is None


def test_no_pod_is_passed_over_that_came_to_an_earlier_place() -> None:
    one = state([cluster(node("a", cpus=64))])
    job = submit(one, workers=COUNT, sidecar=False)
    run_cycle(one)
    attempt, places = one.live_attempt(job.id), Places()
    assert attempt is not None
    last = attempt.pods[-1].name

    def is_last(pod: Pod) -> bool:
        return pod.name == last

    assert places.any_of(attempt, "last", is_last) == attempt.pods[-1]
    turned = replace(attempt, pods=tuple(reversed(attempt.pods)))
    assert places.any_of(turned, "last", is_last) == turned.pods[0]
    assert places.any_of(turned, "last", lambda _: False) is None


def test_a_large_gang_runs_and_ends_once_the_last_of_its_pods_does_in_whatever_order() -> None:
    one = state([cluster(node("a", cpus=64))])
    job = submit(one, workers=COUNT, sidecar=False)
    run_cycle(one)
    attempt = one.live_attempt(job.id)
    assert attempt is not None
    names = [pod.name for pod in attempt.pods]
    order = names[1::2] + names[::2]

    for number, name in enumerate(order):
        shown = one.live_attempt(job.id)
        assert shown is not None
        assert shown.phase is AttemptPhase.LAUNCHING, number
        one.handle(ev.PodStarted(job.id, 1, name), 1.0)
    started = one.live_attempt(job.id)
    assert started is not None
    assert (started.phase, {pod.phase for pod in started.pods}) == (AttemptPhase.RUNNING, {PodPhase.RUNNING})
    for name in reversed(order):
        assert one.live_attempt(job.id) is not None
        one.handle(ev.PodEnded(job.id, 1, name, 0, "Completed"), 2.0)
    assert one.attempts[job.id, 1].phase is AttemptPhase.SUCCEEDED
