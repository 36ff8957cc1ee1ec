"""The queue tree, who may use what, and use against max along the path."""

import pytest

from tests.builders import ANN, cluster, node, queue, run_cycle, state, submit
from tuttilab.scheduler.core.ordering.queues import check_tree, choose_queue, order_queues
from tuttilab.scheduler.core.quota import Ledger
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden
from tuttilab.scheduler.domain.model import Queue, Why
from tuttilab.scheduler.domain.requests import Who
from tuttilab.scheduler.domain.resources import GPU, Resources


def test_a_loop_of_queues_is_refused_and_drawn() -> None:
    with pytest.raises(BadInput, match=r"form a loop \(a -> b -> a\)"):
        check_tree([queue("a", parent="b"), queue("b", parent="a")])


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        ([queue("a", weight=0)], "weight 0 is not positive"),
        ([queue("a", parent="z")], "its parent 'z' is not there"),
        ([queue("a", guaranteed={GPU: 3}, max={GPU: 2})], "guaranteed 3 GPU is above its max 2 GPU"),
        ([queue("a", max={GPU: 2}), queue("b", parent="a", guaranteed={GPU: 3})], "more than its max 2 GPU"),
        ([queue("a", max={GPU: 2}), queue("b", parent="a"), queue("c", parent="b", guaranteed={GPU: 3})], "'a': its children are"),
        ([queue("a", guaranteed={GPU: 2}), queue("b", parent="a", guaranteed={GPU: 3})], "3 GPU, more than its own 2 GPU"),
        ([queue("a"), queue("a")], "'a' stands there twice"),
    ],
)
def test_an_unsound_tree_is_refused_with_the_queues_name(tree: list[Queue], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        check_tree(tree)


def test_a_queue_of_another_group_is_refused() -> None:
    tree = check_tree([queue("mine", groups=("research",)), queue("theirs", groups=("quant",))])
    assert choose_queue(tree, None, None, ANN).name == "mine"
    with pytest.raises(Forbidden, match="'theirs' is for the groups quant; expected one of mine"):
        choose_queue(tree, "theirs", None, ANN)
    with pytest.raises(Forbidden, match="ask your admin"):
        choose_queue(tree, "mine", None, Who("eve"))


@pytest.mark.feature("S07")
def test_the_queue_below_its_guarantee_goes_first_then_priority_then_share_over_weight() -> None:
    tree = check_tree([queue("a", weight=4), queue("b"), queue("c", priority=5), queue("d", guaranteed={GPU: 2})])
    use = {name: Resources.of({GPU: gpus}) for name, gpus in {"a": 2, "b": 1, "c": 4, "d": 1}.items()}
    assert order_queues(tree, ["a", "b", "c", "d"], use, Resources.of({GPU: 8})) == ["d", "c", "a", "b"]


def test_above_max_is_refused_at_once_because_waiting_cannot_help() -> None:
    one = state([cluster(node("a", gpus=8))], [queue("root", max={GPU: 4}), queue("main", parent="root")])
    with pytest.raises(AboveMax) as caught:
        submit(one, workers=5, gpus=1, name="big")
    assert str(caught.value) == (
        "big: asks for 5 GPU, but queue 'root' may never use more than 4 GPU; ask for less or use another queue."
    )


def test_a_max_of_zero_is_none_at_all_and_one_that_is_absent_is_no_limit() -> None:
    one = state([cluster(node("a", gpus=8))], [queue("root", max={GPU: 0}), queue("main", parent="root")])
    with pytest.raises(AboveMax, match=r"asks for 1 GPU, but queue 'root' may use no GPU"):
        submit(one, gpus=1)
    without = submit(one, gpus=0, cpus=8)
    assert [admitted.job_id for admitted in run_cycle(one)[0].admitted] == [without.id]
    with pytest.raises(BadInput, match="guaranteed 1 GPU is above its max 0 GPU"):
        check_tree([queue("a", guaranteed={GPU: 1}, max={GPU: 0})])


def test_a_max_that_falls_to_zero_keeps_what_waits_waiting() -> None:
    one = state([cluster(node("a", gpus=8))], [queue("main", max={GPU: 4})])
    waiting = submit(one, gpus=2)
    one.handle(ev.QueuesConfigured((queue("main", max={GPU: 0}),)), 1.0)
    assert run_cycle(one, at=2.0)[0].admitted == ()
    wait = one.waits[waiting.id]
    assert (wait.why, wait.short, wait.sentence) == (
        Why.QUOTA,
        Resources.of({GPU: 2}),
        "queue main uses 0 of 0 GPU; this needs 2 GPU more than is left, and it asks for more than it may ever use",
    )


def test_the_max_of_a_parent_holds_over_all_its_children() -> None:
    tree = [queue("root", max={GPU: 4}), queue("a", parent="root"), queue("b", parent="root")]
    one = state([cluster(node("n", gpus=8, cpus=64))], tree)
    first = submit(one, gpus=3, queue="a")
    second = submit(one, gpus=2, queue="b")
    decision, _ = run_cycle(one)
    assert [admitted.job_id for admitted in decision.admitted] == [first.id]
    wait = one.waits[second.id]
    assert (wait.why, wait.queue, wait.short) == (Why.QUOTA, "root", Resources.of({GPU: 1}))
    assert wait.sentence == f"queue root uses 3 of 4 GPU; this needs 1 GPU more than is left; held by your job 'job' ({first.id})"
    assert one.use("root") == first.gang.resources


def test_limits_on_jobs_and_pods_of_a_queue_hold() -> None:
    one = state([cluster(node("n", cpus=64))], [queue("main", max_jobs=1, max_pods=3)])
    submit(one)
    second = submit(one)
    run_cycle(one)
    assert one.waits[second.id].sentence.startswith("queue main runs 1 jobs, its limit")
    with pytest.raises(AboveMax, match="asks for 6 pods, but queue 'main' may never run more than 3"):
        submit(one, workers=5)


@pytest.mark.feature("S08")
@pytest.mark.parametrize(
    ("weights", "times"), [((1, 1), 7), ((1, 2, 3), 5), ((7, 3), 4), ((5, 1, 1, 1), 6), ((2, 3, 5, 7, 11), 2), ((1, 99), 1)]
)
def test_I26_shares_are_exact(weights: tuple[int, ...], times: int) -> None:
    """Of a site that the weights divide evenly each queue holds its weight in GPUs, to the last one, whoever asked first."""
    queues = [queue(f"q{index}", weight=weight) for index, weight in enumerate(weights)]
    one = state([cluster(node("n", cpus=1000, gpus=sum(weights) * times))], queues)
    for each in reversed(queues):
        for _ in range(sum(weights) * times):
            submit(one, queue=each.name, gpus=1, cpus="100m", memory="1Mi", sidecar=False)
    run_cycle(one)
    assert [one.use(each.name)[GPU] for each in queues] == [weight * times for weight in weights]


def test_I26_use_is_exact_after_any_number_of_starts_and_ends() -> None:
    """Amounts are whole numbers of the smallest unit: a tenth of a CPU, added and taken away, leaves nothing behind."""
    ledger = Ledger.of({"main": queue(max={"cpu": 8})}, ())
    tenth, third = Resources.parse({"cpu": "100m", "memory": "1Mi"}), Resources.parse({"cpu": "333m", "memory": "12345Ki"})
    for _ in range(1000):
        ledger.add("main", tenth, 1)
        ledger.add("main", third, 3)
    assert ledger.use["main"] == Resources.parse({"cpu": "433", "memory": 1000 * (2**20 + 12345 * 2**10)})
    for _ in range(1000):
        ledger.remove("main", third, 3)
        ledger.remove("main", tenth, 1)
    assert (ledger.use["main"], ledger.pods["main"], ledger.jobs["main"]) == (Resources(), 0, 0)
