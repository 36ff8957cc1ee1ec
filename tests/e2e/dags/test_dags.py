"""Graphs of jobs as a person runs them: from a manifest, with real processes, through failures, cancels and a killed service."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.user_machine import UserMachine, eventually, kill

ROOT = Path(__file__).resolve().parents[3]


def manifest(machine: UserMachine, name: str, nodes: str, head: str = "") -> Path:
    path = machine.home / f"{name}.yaml"
    path.write_text(f"kind: Dag\nname: {name}\n{head}nodes:\n{dedent(nodes)}")
    return path


def sh(name: str, script: str, after: str = "", more: str = "") -> str:
    return f'- {{name: {name}, after: [{after}], {more} job: {{pods: [{{memory: 256Mi}}], command: [sh, -c, "{script}"]}}}}\n'


@pytest.mark.feature("D01")
def test_nodes_run_in_the_order_of_their_edges(running: UserMachine) -> None:
    nodes = sh("a", "echo a >> order; sleep 0.2") + sh("b", "echo b >> order", "a") + sh("c", "cat order", "b")
    said = running.run("dag", "run", str(manifest(running, "chain", nodes)), "--wait", "--json")
    assert said.code == 0, said
    view = said.json
    assert (view["phase"], [node["phase"] for node in view["nodes"]]) == ("Succeeded", ["Succeeded"] * 3)
    assert running.run("logs", view["nodes"][2]["job_id"]).out == "a\nb\n"


@pytest.mark.feature("D01")
@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (sh("a", "true", "c") + sh("b", "true", "a") + sh("c", "true", "b"), "they form a cycle (a -> b -> c -> a)"),
        (sh("a", "true", "a"), "node 'a': it comes after itself"),
        (sh("train", "true") + sh("b", "true", "trian"), "which is not there; did you mean 'train'?"),
        ("- {name: a, jb: {}}\n", "unknown key nodes[0].jb; did you mean 'job'?"),
        (
            "- {name: a, job: {command: [x], pods: [{gpus: 9}]}}\n",
            "node 'a': a: asks for 9 GPU, but queue 'research' may never use more",
        ),
        ("- {name: a}\n", "node 'a': expected exactly one of the keys job, spark_sql and notebook"),
    ],
)
def test_a_graph_that_cannot_run_is_refused_in_one_sentence_and_leaves_nothing(
    running: UserMachine, nodes: str, sentence: str
) -> None:
    before = running.job_ids()
    said = running.run("dag", "run", str(manifest(running, "bad", nodes)))
    assert said.code in (2, 3)
    assert sentence in said.err
    assert len(said.sentences) == 1
    assert running.job_ids() == before


@pytest.mark.feature("D10")
def test_a_retry_runs_only_what_failed_and_what_is_below_it(running: UserMachine) -> None:
    flag = running.home / "mended"
    nodes = sh("good", "echo once >> good.runs") + sh("bad", f"test -e {flag}", "good") + sh("below", "true", "bad")
    nodes += sh("always", "true", "bad", "when: all_done,")
    said = running.run("dag", "run", str(manifest(running, "mend", nodes)), "--wait", "--json")
    assert said.code == 1
    phases = {node["name"]: node["phase"] for node in said.json["nodes"]}
    assert phases == {"good": "Succeeded", "bad": "Failed", "below": "Skipped", "always": "Succeeded"}
    flag.touch()
    assert running.run("dag", "retry", said.json["id"][:8]).code == 0
    done = eventually(lambda: (view := running.run("dag", "show", said.json["id"], "--json").json)["is_ended"] and view)
    assert [node["phase"] for node in done["nodes"]] == ["Succeeded"] * 4
    assert (running.home / "good.runs").read_text() == "once\n"
    assert "nothing to retry" in running.run("dag", "retry", said.json["id"]).err


def test_a_cancel_ends_what_runs_and_what_waits(running: UserMachine) -> None:
    nodes = sh("slow", "sleep 1000") + sh("next", "true", "slow")
    run_id = running.run("dag", "run", str(manifest(running, "slow", nodes))).out.strip()
    eventually(lambda: running.run("dag", "show", run_id, "--json").json["nodes"][0]["phase"] == "Running")
    assert running.run("dag", "cancel", run_id).code == 0
    done = eventually(lambda: (view := running.run("dag", "show", run_id, "--json").json)["is_ended"] and view)
    assert (done["phase"], [node["phase"] for node in done["nodes"]]) == ("Cancelled", ["Cancelled", "Cancelled"])


@pytest.mark.feature("D08")
def test_variables_fill_the_nodes_and_a_missing_one_is_named(running: UserMachine) -> None:
    head = "variables: {word: {type: string}, n: {type: integer, default: 2}}\n"
    nodes = '- {name: say, job: {pods: [{memory: 256Mi}], command: [echo, "${word} ${n}"]}}\n'
    path = manifest(running, "vars", nodes, head)
    assert "'word' has no default" in running.run("dag", "run", str(path)).err
    said = running.run("dag", "run", str(path), "-v", "word=hello", "--wait", "--json")
    assert running.run("logs", said.json["nodes"][0]["job_id"]).out == "hello 2\n"


def test_a_dag_is_kept_by_name_and_a_change_is_a_new_version(running: UserMachine) -> None:
    path = manifest(running, "kept", sh("a", "true"))
    assert running.run("dag", "apply", str(path)).out == "kept: version 1, 1 node\n"
    assert running.run("dag", "apply", str(path)).out == "kept: version 1, 1 node\n"
    manifest(running, "kept", sh("a", "true") + sh("b", "true", "a"))
    assert running.run("dag", "apply", str(path)).out == "kept: version 2, 2 nodes\n"
    assert len(running.run("dag", "run", "kept", "--wait", "--json").json["nodes"]) == 2


@pytest.mark.feature("S17")
def test_a_run_goes_on_after_the_control_plane_was_killed(running: UserMachine) -> None:
    nodes = sh("a", "echo x >> a.runs; sleep 1") + sh("b", "echo x >> b.runs", "a") + sh("c", "echo x >> c.runs", "b")
    run_id = running.run("dag", "run", str(manifest(running, "killed", nodes))).out.strip()
    eventually(lambda: (running.home / "a.runs").exists())
    kill(running.runtime().pid)
    done = eventually(lambda: (view := running.run("dag", "show", run_id, "--json").json)["is_ended"] and view)
    assert done["phase"] == "Succeeded"
    assert [(running.home / f"{name}.runs").read_text() for name in "abc"] == ["x\n"] * 3


@pytest.mark.tier("spark")
@pytest.mark.feature("D03")
def test_the_example_runs_sql_then_a_gang_then_a_report(running: UserMachine) -> None:
    said = running.run("dag", "run", str(ROOT / "examples" / "nightly.yaml"), "-v", "rows=100", "--wait", "--json", timeout_s=150)
    assert said.code == 0, said
    slopes = [float(word) for word in running.run("logs", said.json["nodes"][2]["job_id"]).out.split()]
    assert slopes == [pytest.approx(2.0), pytest.approx(2.0)]
