"""What is read back after a restart comes in another order than it came about in: that decides nothing (I12, I25)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tests.builders import cluster, end_all, job, node, queue, run_cycle, start_all, state, submit
from tuttilab.scheduler.core.cycle import Decision, schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Cluster, Job, Overtaking, Prediction
from tuttilab.scheduler.domain.requests import PodRequest

FORTH, BACK = 1, -1


def read_back(one: State, way: int, clusters: Sequence[Cluster] = ()) -> State:
    """The state after a restart, from rows that come one way or the other; ``clusters``: in the order in which they are seen."""
    jobs, attempts = list(one.jobs.values())[::way], list(one.attempts.values())[::way]
    again = State.load(jobs, attempts, one.queues.values(), one.epoch, accounts=one.accounts.rows.values())
    for seen in clusters or one.clusters.values():
        again.put_cluster(seen)
    return again


def decided(one: State, way: int, at: float, clusters: Sequence[Cluster] = ()) -> Decision:
    return schedule(read_back(one, way, clusters).snapshot(), at)


def elastic(to: State, count: int) -> Job:
    one = submit(to, pods=(PodRequest(role="worker", count=count, min_count=1),))
    run_cycle(to)
    start_all(to, one.id)
    return one


def test_the_first_submitted_of_equal_elastic_gangs_gives_workers_back_and_gets_them() -> None:
    one = state([cluster(node("n", cpus=8))])
    first, second = elastic(one, 4), elastic(one, 4)
    short = submit(one, cpus=2)

    for way in (FORTH, BACK):
        assert [(each.job_id, len(each.pods)) for each in decided(one, way, 1.0).shrunk] == [(first.id, 2)]

    one.handle(ev.JobCancelRequested(short.id, "ann"), 1.0)
    for gang in (first, second):
        one.handle(ev.GangShrunk(gang.id, 1, tuple(f"{gang.id}-1-worker-{rank}" for rank in (2, 3)), "for a test"), 2.0)
        for rank in (2, 3):
            one.handle(ev.PodEnded(gang.id, 1, f"{gang.id}-1-worker-{rank}", 143), 3.0)
    beside = submit(one, cpus=2)
    run_cycle(one, 3.0)
    assert one.live_attempt(beside.id) is not None
    for way in (FORTH, BACK):
        assert [(each.job_id, len(each.placements)) for each in decided(one, way, 4.0).grown] == [(first.id, 2)]


def test_of_two_clusters_where_as_much_would_be_lost_the_first_by_name_is_cleared() -> None:
    clusters = [cluster(node("n", cpus=4), name=name) for name in ("east", "west")]
    one = state(clusters, [queue(guaranteed={"cpu": 4}), queue("other")])
    for name in ("east", "west"):
        submit(one, queue="other", cpus=4, cluster=name)
    run_cycle(one)
    claims = submit(one, cpus=4, at=1.0)
    stopped = [decided(one, way, 1.0, clusters[::seen]).preempted for way in (FORTH, BACK) for seen in (FORTH, BACK)]

    assert [[(each.job_id, each.by) for each in one_way] for one_way in stopped] == [
        [(one.snapshot().running[0].job_id, claims.id)] for _ in range(4)
    ]


def test_queues_whose_gangs_claim_a_share_at_the_same_time_are_served_in_order_of_submission() -> None:
    """Also when the first of them was queued again meanwhile, and so comes last in memory."""
    trees = [queue("a", guaranteed={"cpu": 2}), queue("b", guaranteed={"cpu": 2}), queue("other")]
    one = state([cluster(node("n", cpus=2))], trees)
    lends = submit(one, queue="other", cpus=2)
    run_cycle(one)
    start_all(one, lends.id)
    first = submit(one, queue="b", cpus=2, at=1.0)
    submit(one, queue="a", cpus=2, at=1.0)

    for way in (FORTH, BACK):
        assert [(each.job_id, each.by) for each in decided(one, way, 2.0).preempted] == [(lends.id, first.id)]


def waits_with_followers(amounts: Iterable[float]) -> tuple[State, Job, Job]:
    """One that waits, one that others come after, and those: each was overtaken by so much."""
    one = state([cluster(node("n", cpus=1))])
    waits, leads = submit(one), submit(one)
    for amount in amounts:
        follows = submit(one, after=(leads.id,))
        one.accounts.rows[follows.id] = Overtaking(follows.id, 0.0, (("here", amount),))
    return one, waits, leads


def test_jobs_that_end_with_the_one_they_come_after_end_in_order_of_submission() -> None:
    """What stood at them moves to the one before, and adds up to the last digit as it did."""
    one, waits, leads = waits_with_followers((0.1, 0.2, 0.3))
    for way in (FORTH, BACK):
        again = read_back(one, way)
        again.handle(ev.JobCancelRequested(leads.id, "ann"), 5.0)
        assert again.accounts.rows == {waits.id: Overtaking(waits.id, 0.0, (("here", 0.1 + 0.2 + 0.3),))}


def test_what_a_gang_used_counts_although_its_cluster_was_not_seen_since_a_restart() -> None:
    one = state([cluster(node("n", cpus=4))])
    first = submit(one, cpus=4)
    run_cycle(one)
    start_all(one, first.id)
    waits, passes = submit(one, cpus=4, at=1.0), submit(one, cpus=1, at=2.0)
    end_all(one, first.id, 0, at=10.0)
    one.put_job(replace(one.jobs[waits.id], not_before=20.0))
    run_cycle(one, 10.0)
    assert one.live_attempt(passes.id) is not None
    again = State.load(one.jobs.values(), one.attempts.values(), one.queues.values(), 2, accounts=one.accounts.rows.values())
    for each in (one, again):
        end_all(each, passes.id, 0, at=50.0)

    assert one.accounts.rows[waits.id].later == (("here", 10.0),)
    assert again.accounts.rows == one.accounts.rows


def test_one_that_waits_again_after_a_restart_does_not_count_what_ran_before() -> None:
    """Its wait begins anew, also where nobody was submitted since the restart."""
    one = state([cluster(node("n", cpus=4))])
    first, second = submit(one, cpus=2, retries=1), submit(one, cpus=2)
    run_cycle(one)
    for gang in (first, second):
        start_all(one, gang.id)
    again = read_back(one, FORTH)
    for each in (one, again):
        end_all(each, first.id, 1, at=100.0)

    assert one.accounts.rows[first.id].base == (("here", 50.0),)
    assert again.accounts.rows == one.accounts.rows


def test_a_gang_that_runs_is_expected_to_end_when_it_was_before_a_restart() -> None:
    """Whatever other runs took meanwhile."""
    one = state([cluster(node("n", cpus=4))])
    long, short = submit(one, cpus=2, name="same"), submit(one, cpus=2, name="same")
    run_cycle(one)
    for gang in (long, short):
        start_all(one, gang.id)
    end_all(one, short.id, 0, at=7.0)
    again = State.load(one.jobs.values(), one.attempts.values(), one.queues.values(), 2, history=one.history.rows.values())
    expected = [runner.prediction for runner in one.snapshot().running]

    assert expected == [Prediction(1200.0, 6.0, "no run is known yet")]
    assert [runner.prediction for runner in again.snapshot().running] == expected
    assert again.history.predict(job(name="same")) != expected[0]
