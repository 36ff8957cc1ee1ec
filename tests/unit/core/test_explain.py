"""What a waiting gang is told: which clusters, holders and limits it waits for, and never a start that cannot be."""

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.builders import cluster, end_all, job, node, queue, request, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.kinds import Site, build
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.model import Gang, Job, Wait, Why
from tuttilab.scheduler.domain.requests import PodRequest, Who
from tuttilab.scheduler.domain.resources import GPU

BOB = Who("bob", ("other",))
SITE = (cluster(node("e"), name="east"), cluster(node("w"), name="west"))


def told(of: State, one: Job, at: float) -> Wait:
    run_cycle(of, at=at)
    return of.waits[one.id]


def test_S14_a_gang_is_told_of_the_cluster_that_does_not_answer_and_of_no_other() -> None:
    one = state(SITE, [queue("a", clusters=("west",))])
    one.handle(ev.ClusterLost("west"), 1.0)
    wait = told(one, submit(one, at=1.0), 2.0)
    assert (wait.why, wait.sentence) == (Why.CLUSTER_DOWN, "cluster west does not answer; the job starts when it is back")
    assert wait.estimated_start is None
    one.handle(ev.ClusterLost("east"), 3.0)
    one.handle(ev.QueuesConfigured((queue("a"),)), 3.0)
    assert told(one, submit(one, at=3.0), 4.0).sentence.startswith("clusters east, west do not answer")


def test_S14_a_gang_whose_queue_moved_from_its_cluster_is_told_that_they_exclude_each_other() -> None:
    one = state(SITE, [queue("a")])
    waiting = submit(one, cluster="east")
    one.handle(ev.QueuesConfigured((queue("a", clusters=("west",)),)), 1.0)
    wait = told(one, waiting, 2.0)
    assert (wait.why, wait.estimated_start) == (Why.NEVER_FITS, None)
    assert wait.sentence == "cannot start on any cluster: queue a uses only west and the job asks for cluster east"


def test_a_gang_whose_cluster_was_never_seen_waits_for_it() -> None:
    one = state([cluster(node("e"), name="east")], [queue("a", clusters=("west",))])
    wait = told(one, submit(one), 1.0)
    assert (wait.why, wait.sentence) == (Why.CLUSTER_DOWN, "cluster west is not there; the job starts when it is")


def test_a_job_on_a_cluster_that_its_queue_does_not_use_is_refused() -> None:
    one = state(SITE, [queue("root", clusters=("west",)), queue("a", parent="root"), queue("b", parent="root", clusters=("east",))])
    with pytest.raises(BadInput, match=r"^cluster: 'east' is asked for, but queue 'root' uses only west; expected"):
        submit(one, queue="a", cluster="east")
    with pytest.raises(BadInput, match=r"^cluster: queue 'b' uses only east and queue 'root' uses only west; expected"):
        submit(one, queue="b")


def test_a_gang_on_two_clusters_is_told_that_it_runs_on_one() -> None:
    one = state(SITE)
    whole = job(Site(one.queues, one.clusters), pods=(PodRequest(role="a"), PodRequest(role="b")))
    first, second = whole.gang.pod_sets
    parted = replace(whole, gang=Gang((replace(first, cluster="east"), replace(second, cluster="west"))))
    one.handle(ev.JobSubmitted(parted), 0.0)
    wait = told(one, parted, 1.0)
    assert (wait.why, wait.sentence) == (Why.NEVER_FITS, "asks for clusters east and west, but all of a job runs on one cluster")


def test_sizes_are_checked_against_the_clusters_of_the_queue() -> None:
    one = state(
        [cluster(node("e", cpus=64), name="east"), cluster(node("w", cpus=4), name="west")],
        [queue("a", clusters=("west",)), queue("b")],
    )
    with pytest.raises(NeverFits, match="node w comes closest, short of 28 CPU when empty"):
        submit(one, queue="a", cpus=32)
    assert build(request(cpus=32, queue="b"), BOB, Site(one.queues, one.clusters), job_id="x", order=1, now=0.0).queue == "b"


@pytest.mark.parametrize("limit", [{}, {"max": {GPU: 1}}], ids=["room", "quota"])
def test_S14_only_those_that_hold_what_is_short_are_named(limit: dict[str, dict[str, int]]) -> None:
    one = state([cluster(node("a", cpus=64, gpus=1))], [queue("main", **limit)])
    submit(one, cpus=1)
    holder = submit(one, gpus=1, who=BOB)
    run_cycle(one)
    wait = told(one, submit(one, gpus=1, at=1.0), 1.0)
    assert f"; held by job 'job' ({holder.id[:8]}) of bob" in wait.sentence
    assert set(wait.blockers) <= {holder.id}


@pytest.mark.parametrize("own", [1, 19, 20, 25])
def test_two_holders_of_the_group_are_named_however_many_own_ones_there_are(own: int) -> None:
    one = state([cluster(node("a", cpus=256, gpus=own + 3))], [queue("main")])
    ann, ben = Who("ann", ("main",)), Who("ben", ("main",))
    for who in [ann] * own + [ben] * 3:
        submit(one, gpus=1, who=who)
    run_cycle(one)
    wait = told(one, submit(one, gpus=1, who=ann, at=1.0), 1.0)
    assert wait.sentence.count(" of ben") == 2
    assert "1 more job of main" in wait.sentence
    assert len(wait.held_by) == min(own + 3, 20) + (own + 3 > 20)


@pytest.mark.parametrize("limit", [{"max": {GPU: 1}}, {"max_jobs": 1}, {"max_pods": 1}], ids=["gpu", "jobs", "pods"])
@pytest.mark.parametrize("is_alike", [True, False])
def test_B02_gangs_that_wait_for_a_limit_are_told_one_start_after_the_other(
    limit: dict[str, dict[str, int]], is_alike: bool
) -> None:
    one = state([cluster(node("a", cpus=64, gpus=8))], [queue("main", **limit)])
    jobs = [submit(one, gpus=1, cpus=1 if is_alike else number + 1, timeout="1000s") for number in range(6)]
    run_cycle(one)
    starts = [one.waits[each.id].estimated_start or 0.0 for each in jobs[1:]]
    assert starts[0] == pytest.approx(1000.0)
    # What is expected of runs of at most 1,000 s, one after the other.
    assert all(200.0 <= later - earlier <= 1100.0 for earlier, later in pairwise(starts))
    assert 2000.0 < starts[-1] < 5100.0


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"max": {GPU: 2}}, "queue main uses 0 of 2 GPU; this needs 2 GPU more than is left"),
        ({"max_jobs": 0}, "queue main runs 0 jobs, its limit"),
        ({"max_pods": 0}, "queue main runs 0 of 0 pods; this needs 1"),
    ],
    ids=["max", "jobs", "pods"],
)
def test_S14_a_gang_above_what_its_queue_may_ever_use_is_told_no_start(limit: dict[str, dict[str, int]], why: str) -> None:
    one = state([cluster(node("a", cpus=64, gpus=8))])
    waiting = submit(one, gpus=4, sidecar=False)
    one.handle(ev.QueuesConfigured((queue("main", **limit),)), 1.0)
    for at in (2.0, 10_000.0):
        wait = told(one, waiting, at)
        assert (wait.why, wait.estimated_start, wait.sentence) == (
            Why.QUOTA,
            None,
            f"{why}, and it asks for more than it may ever use",
        )


def test_S14_an_elastic_gang_that_fits_its_limit_when_small_is_not_told_never() -> None:
    one = state([cluster(node("a", cpus=64))], [queue("main", max={"cpu": 2})])
    runs = submit(one, cpus=2, timeout="1000s")
    run_cycle(one)
    start_all(one, runs.id)
    pods = (PodRequest(role="worker", count=2, min_count=1, cpus=1),)
    wait = told(one, submit(one, pods=pods, at=1.0, sidecar=False), 1.0)
    assert (wait.why, wait.estimated_start is None) == (Why.QUOTA, False)
    end_all(one, runs.id, 0, 5.0)
    assert len(run_cycle(one, at=5.0)[0].admitted) == 1
