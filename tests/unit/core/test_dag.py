"""Graphs of jobs: what is refused, what may start, and how a run moves with the ends of its jobs."""

import itertools
from typing import Any

import pytest

from tests.builders import ANN, cluster, end_all, node, queue, run_cycle, start_all, state
from tuttilab.scheduler.core.dag import check_graph, to_retry
from tuttilab.scheduler.core.kinds import Site
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import NodePhase, Run, RunPhase
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, PodRequest, VariableRequest
from tuttilab.scheduler.usecases.artifacts import ReadableArtifacts
from tuttilab.scheduler.usecases.dag_build import build_run, retry_jobs, substitute_variables, variable_values

_ids = (f"id{number}" for number in itertools.count())


def a_node(name: str, *after: str, **given: Any) -> NodeRequest:
    job = JobRequest(command=("true",), pods=(PodRequest(gpus=given.pop("gpus", 0)),))
    return NodeRequest(name=name, after=after, job=job, **given)


def started(one: State, *nodes: NodeRequest) -> Run:
    site = Site(one.queues, one.clusters)
    run = build_run(
        DagRequest(name="d", nodes=nodes), {}, ANN, site, run_id=next(_ids), new_id=lambda: next(_ids), order=1, now=0.0,
        artifacts=ReadableArtifacts(frozenset()),
    )  # fmt: skip
    one.handle(ev.RunSubmitted(run), 0.0)
    return one.runs[run.id]


@pytest.fixture
def one() -> State:
    return state([cluster(node("a", cpus=8))])


def phases(one: State, run: Run) -> dict[str, str]:
    return {n.name: str(n.phase) for n in one.runs[run.id].nodes}


def finish(one: State, run: Run, name: str, code: int, at: float = 1.0) -> None:
    job = next(n.job for n in one.runs[run.id].nodes if n.name == name)
    run_cycle(one, at)
    start_all(one, job.id, at)
    end_all(one, job.id, code, at)


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        ({"a": ["c"], "b": ["a"], "c": ["b"]}, r"they form a cycle \(a -> b -> c -> a\)"),
        ({"a": ["a"]}, "node 'a': it comes after itself"),
        ({"b": ["aa"]}, "node 'b': it comes after 'aa', which is not there; did you mean 'a'"),
        ({"b": ["zebra"]}, "the nodes are a, b, c"),
    ],
)
def test_D01_a_graph_that_cannot_run_is_refused_with_the_nodes_names(after: dict[str, list[str]], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        check_graph(["a", "b", "c"], after)


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="'a' stands there 2 times"):
        check_graph(["a", "a"], {})


def test_D01_every_parent_stands_before_its_children() -> None:
    assert check_graph(["d", "b", "c", "a"], {"d": ["b", "c"], "b": ["a"], "c": ["a"]}) == ["a", "b", "c", "d"]


def test_D01_a_node_starts_in_the_turn_in_which_its_last_parent_ended(one: State) -> None:
    run = started(one, a_node("a"), a_node("b"), a_node("c", "a", "b"))
    assert phases(one, run) == {"a": "Submitted", "b": "Submitted", "c": "Pending"}
    finish(one, run, "a", 0)
    assert phases(one, run)["c"] == "Pending"
    finish(one, run, "b", 0)
    assert phases(one, run) == {"a": "Succeeded", "b": "Succeeded", "c": "Submitted"}
    finish(one, run, "c", 0, at=7.0)
    assert (one.runs[run.id].phase, one.runs[run.id].ended_at) == (RunPhase.SUCCEEDED, 7.0)
    one.check_invariants()


@pytest.mark.feature("D11")
def test_what_is_below_a_failed_node_is_skipped_with_the_reason_and_the_rest_goes_on(one: State) -> None:
    run = started(one, a_node("a"), a_node("b", "a"), a_node("c", "b"), a_node("side"), a_node("report", "c", when="all_done"))
    finish(one, run, "a", 1)
    assert phases(one, run) == {"a": "Failed", "b": "Skipped", "c": "Skipped", "side": "Submitted", "report": "Submitted"}
    assert next(n.reason for n in one.runs[run.id].nodes if n.name == "b") == "a did not succeed"
    finish(one, run, "side", 0)
    finish(one, run, "report", 0)
    assert one.runs[run.id].phase is RunPhase.FAILED


def test_D11_a_failure_that_is_ignored_holds_nothing_up(one: State) -> None:
    run = started(one, a_node("a", ignore_fail=True), a_node("b", "a"))
    finish(one, run, "a", 1)
    finish(one, run, "b", 0)
    assert (phases(one, run)["a"], one.runs[run.id].phase) == ("Failed", RunPhase.SUCCEEDED)


def test_a_cancel_reaches_every_descendant(one: State) -> None:
    run = started(one, a_node("a"), a_node("b", "a"), a_node("c", "b"))
    run_cycle(one)
    (stop,) = one.handle(ev.RunCancelRequested(run.id, "ann"), 1.0)
    job = run.nodes[0].job
    assert stop.job_id == job.id
    assert phases(one, run) == {"a": "Submitted", "b": "Cancelled", "c": "Cancelled"}
    end_all(one, job.id, 143, reason="Stopped")
    assert (phases(one, run)["a"], one.runs[run.id].phase) == ("Cancelled", RunPhase.CANCELLED)


def test_D10_a_retry_runs_what_failed_and_what_is_below_it_only(one: State) -> None:
    run = started(one, a_node("a"), a_node("b", "a"), a_node("c", "b"), a_node("d", "a"))
    for name, code in (("a", 0), ("b", 1), ("d", 0)):
        finish(one, run, name, code)
    failed = one.runs[run.id]
    assert (failed.phase, to_retry(failed)) == (RunPhase.FAILED, {"b", "c"})
    done = {n.name: n.job.id for n in failed.nodes}
    one.handle(ev.RunRetried(run.id, retry_jobs(failed, lambda: next(_ids), 50, 9.0)), 9.0)
    assert phases(one, run) == {"a": "Succeeded", "b": "Submitted", "c": "Pending", "d": "Succeeded"}
    again = {n.name: n.job for n in one.runs[run.id].nodes}
    assert (again["a"].id, again["b"].retry_of) == (done["a"], done["b"])
    finish(one, run, "b", 0, at=10.0)
    finish(one, run, "c", 0, at=11.0)
    assert one.runs[run.id].phase is RunPhase.SUCCEEDED


def test_a_run_loaded_from_its_row_goes_on(one: State) -> None:
    run = started(one, a_node("a"), a_node("b", "a"))
    rows = one.take_changes()
    again = State.load(rows.jobs, rows.attempts, one.queues.values(), 1, rows.runs, rows.dags)
    again.clusters = one.clusters
    finish(again, run, "a", 0)
    assert phases(again, run) == {"a": "Succeeded", "b": "Submitted"}


def test_a_node_that_asks_for_too_much_refuses_the_run_and_names_the_node() -> None:
    site = Site({"main": queue()}, {})
    asked = DagRequest(name="d", nodes=(NodeRequest(name="x", job=JobRequest(command=("true",), pods=())),))
    with pytest.raises(BadInput, match="node 'x': pods: an empty list"):
        build_run(asked, {}, ANN, site, run_id="r", new_id=lambda: "j", order=1, now=0.0, artifacts=ReadableArtifacts(frozenset()))


def test_D08_variables_are_typed_have_defaults_and_fill_any_text() -> None:
    asked = DagRequest(name="d", variables={"day": VariableRequest(default="mon"), "n": VariableRequest(type="integer")})
    values = variable_values(asked, {"n": "3"})
    assert values == {"day": "mon", "n": 3}
    assert substitute_variables({"a": ["x-${day}", "${n}"]}, values, "node") == {"a": ["x-mon", 3]}
    with pytest.raises(BadInput, match=r"variables: 'n' has no default; give it a value, such as `-v n=…`"):
        variable_values(asked, {})
    with pytest.raises(BadInput, match=r"variables\.n: 'three' is not an integer"):
        variable_values(asked, {"n": "three"})
    with pytest.raises(BadInput, match="there is no 'dya'; did you mean 'day'"):
        variable_values(asked, {"dya": "x", "n": 1})
    with pytest.raises(BadInput, match=r"node\.a: there is no variable 'dai'; did you mean 'day'"):
        substitute_variables({"a": "${dai}"}, values, "node")


def test_all_node_phases_but_two_are_final() -> None:
    assert [phase for phase in NodePhase if not phase.is_terminal] == [NodePhase.PENDING, NodePhase.SUBMITTED]
