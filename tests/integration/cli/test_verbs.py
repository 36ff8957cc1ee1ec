"""Whatever the REST API can do for a person, a command does; each is run against a real control plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.api.test_routes import RULES, USER, V
from tests.user_machine import UserMachine, eventually

pytestmark = pytest.mark.timeout(700)

COMMANDS = {
    ("POST", "/jobs"): "submit --name verb --memory 128Mi --out kept=kept -- sh -c 'echo hello; echo x > $RESULT_DIR/kept'",
    ("POST", "/jobs:batch"): "submit two.yaml",
    ("POST", "/jobs:dryrun"): "submit --dry-run -- true",
    ("GET", "/jobs"): "jobs --all",
    ("GET", "/jobs/{job_id}"): "job verb",
    ("GET", "/jobs/{job_id}/logs"): "logs verb",
    ("GET", "/jobs/{job_id}/explain"): "explain verb",
    ("GET", "/jobs/{job_id}/definition"): "job verb --export",
    ("GET", "/jobs/{job_id}/result"): "job verb --download out",
    ("POST", "/jobs/{job_id}/cancel"): "cancel two",
    ("DELETE", "/jobs/{job_id}"): "delete verb",
    ("POST", "/jobs/{job_id}/retry"): "retry one",
    ("GET", "/queues"): "queues",
    ("GET", "/quota"): "quota",
    ("GET", "/clusters"): "clusters",
    ("GET", "/nodes"): "nodes",
    ("GET", "/spark/sessions"): "spark list",
    ("POST", "/dags"): "dag apply flow.yaml",
    ("GET", "/dags"): "dag list",
    ("GET", "/dags/{name}/definition"): "dag export flow",
    ("POST", "/runs"): "dag run flow --wait",
    ("GET", "/runs"): "dag runs",
    ("GET", "/dags/{name}/runs"): "dag runs --json",
    ("GET", "/runs/{run_id}"): "dag show last",
    ("POST", "/runs/{run_id}/cancel"): "dag cancel last",
    ("POST", "/profiles"): "profile apply profile.yaml",
    ("GET", "/profiles"): "profile list",
    ("GET", "/profiles/{name}"): "profile show small",
    ("DELETE", "/profiles/{name}"): "profile delete small",
    ("POST", "/reload"): "scheduler reload",
    ("GET", "/policy"): "scheduler policy",
    ("POST", "/policy"): "scheduler tune --reset",
    ("GET", "/me"): "status",
    ("GET", "/audit"): "audit",
}
"""A command for each route that a person asks for. Routes with no line here are in `OTHERWISE`."""
OTHERWISE = {
    "the transport of commands that are there": {
        ("PUT", "/artifacts/{artifact_id}"),
        ("GET", "/artifacts/{artifact_id}"),
        ("GET", "/artifacts/{artifact_id}/upload"),
        ("GET", "/changes"),
    },
    "for programs": {("GET", "/metrics"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json")},
    "the panel's, of what `job` and `logs` say": {
        ("GET", "/jobs/{job_id}/events"),
        ("GET", "/jobs/{job_id}/details"),
        ("GET", "/jobs/{job_id}/usage"),
        ("GET", "/jobs/{job_id}/shown"),
        ("GET", "/jobs/{job_id}/displays"),
    },
    "the hub's": {("POST", "/notebooks"), ("POST", "/notebooks/{job_id}/renew"), ("POST", "/notebooks/{job_id}/active")},
    "shown elsewhere, as they need Java, a failed run, or the end": {
        ("POST", "/spark/sessions"),
        ("GET", "/spark/sessions/{name}/endpoint"),
        ("DELETE", "/spark/sessions/{name}"),
        ("POST", "/runs/{run_id}/retry"),
        ("POST", "/shutdown"),
    },
}


@pytest.mark.feature("J14")
def test_every_verb_of_the_interface_has_a_command(running: UserMachine, tmp_path: Path) -> None:
    import shlex

    wanted = {(method, path.removeprefix(V)) for (method, path), rule in RULES.items() if rule == USER}
    assert wanted == COMMANDS.keys() | set().union(*OTHERWISE.values())
    job = "kind: Job\ncommand: [{0}]\nname: {1}\npods: [{{memory: 128Mi}}]\n"
    (tmp_path / "two.yaml").write_text(job.format("'true'", "one") + "---\n" + job.format("sleep, '600'", "two"))
    (tmp_path / "flow.yaml").write_text("kind: Dag\nname: flow\nnodes: [{name: a, job: {command: ['true']}}]\n")
    (tmp_path / "profile.yaml").write_text("kind: Profile\nname: small\ncpus: 1\nmemory: 1Gi\n")

    for route, line in COMMANDS.items():
        said = running.run(*shlex.split(line), cwd=tmp_path)
        assert said.code == 0, (route, line, said)
        if line.startswith("submit --name verb"):
            eventually(lambda: running.run("job", "verb", "--json").json["phase"] == "Succeeded")
        if line == "cancel two":
            eventually(lambda: running.run("job", "one", "--json").json["is_ended"])

    assert (tmp_path / "out" / "kept").read_text() == "x\n"


def test_a_graph_is_exported_and_imported_the_same(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(
        "kind: Dag\nname: graph\nvariables: {day: {default: monday}, n: {type: integer, default: 3}}\nqueue: research\nnodes:\n"
        "- {name: a, job: {command: [echo, '${day}'], pods: [{cpus: 2}], env: {MODE: fast, API_KEY: abc}}}\n"
        "- {name: b, after: [a], when: all_done, spark_sql: select 1, save: x.parquet}\n"
    )
    assert running.run("dag", "apply", "graph.yaml", cwd=tmp_path).code == 0

    text = running.run("dag", "export", "graph").out
    (tmp_path / "again.yaml").write_text(text)
    imported = running.run("dag", "import", "again.yaml", cwd=tmp_path)

    assert "abc" not in text
    assert text.startswith("# Left out of env, as they may be secret: API_KEY\nkind: Dag\nname: graph\n")
    assert imported.out == "graph: version 2, 2 nodes\n"
    second = running.run("dag", "export", "graph").out
    assert second == text.partition("\n")[2]
    (tmp_path / "again.yaml").write_text(second)
    assert running.run("dag", "import", "again.yaml", cwd=tmp_path).out == "graph: version 2, 2 nodes\n"
