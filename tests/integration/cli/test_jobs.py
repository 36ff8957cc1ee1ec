"""What a person does with jobs on the command line, against a real control plane."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.desk import Desk, eventually

pytestmark = pytest.mark.feature("J14")


def submit(desk: Desk, *arguments: str) -> str:
    said = desk.run("submit", *arguments)
    assert said.code == 0, said
    return said.out.strip()


def ended(desk: Desk, job: str) -> dict[str, object]:
    def view() -> dict[str, object] | None:
        shown: dict[str, object] = desk.run("job", job, "--json").json
        return shown if shown["is_ended"] else None

    found: dict[str, object] = eventually(view)
    return found


def test_submit_prints_the_id_and_the_job_runs_in_the_current_directory(running: Desk, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("found")

    said = running.run("submit", "--name", "reads", "--wait", "--", "cat", "here.txt", cwd=tmp_path)

    job, *log = said.out.splitlines()
    assert (said.code, log) == (0, ["found"])
    shown = running.run("job", job[:6], "--json").json
    assert (shown["id"], shown["name"], shown["phase"], shown["exit_code"]) == (job, "reads", "Succeeded", 0)


def test_wait_exits_with_the_jobs_exit_code_and_says_why_on_stderr(running: Desk) -> None:
    said = running.run("submit", "--name", "fails", "--wait", "--", "sh", "-c", "echo before; exit 7")

    assert (said.code, said.out.splitlines()[1:]) == (7, ["before"])
    assert "fails: Failed" in said.err.splitlines()[-1]
    assert "code 7" in said.err.splitlines()[-1]


def test_interrupted_wait_is_130_and_the_job_goes_on(running: Desk) -> None:
    process = running.start("submit", "--wait", "--", "sh", "-c", "echo started; sleep 30")
    assert process.stdout is not None
    job = process.stdout.readline().strip()
    assert process.stdout.readline() == "started\n"

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert f"Job {job[:8]} goes on; `tuttilab logs {job[:8]} -f` follows it" in err
    assert running.run("job", job, "--json").json["is_ended"] is False
    assert running.run("cancel", job).code == 0
    assert ended(running, job)["phase"] == "Cancelled"


def test_gangs_log_names_the_ranks_and_one_rank_can_be_chosen(running: Desk) -> None:
    said = running.run("submit", "--workers", "2", "--wait", "--", "sh", "-c", "echo I am $TUTTILAB_RANK of $TUTTILAB_WORLD_SIZE")
    job = said.out.splitlines()[0]

    both = running.run("logs", job)
    one = running.run("logs", job, "--rank", "1")
    none = running.run("logs", job, "--rank", "5")

    assert sorted(said.out.splitlines()[1:]) == ["[0] I am 0 of 2", "[1] I am 1 of 2"]
    assert sorted(both.out.splitlines()) == ["[0] I am 0 of 2", "[1] I am 1 of 2"]
    assert one.out == "I am 1 of 2\n"
    assert none.code == 2
    assert "has no rank 5" in none.err


def test_log_can_be_read_from_a_line_on(running: Desk) -> None:
    job = running.run("submit", "--wait", "--", "seq", "1", "3000").out.splitlines()[0]

    assert running.run("logs", job, "--from", "2998").out.splitlines() == ["2999", "3000"]
    assert len(running.run("logs", job, "-f").out.splitlines()) == 3000


def test_jobs_lists_live_ones_and_with_all_the_ended_ones(running: Desk) -> None:
    live = submit(running, "--name", "live-one", "--", "sleep", "30")
    done = running.run("submit", "--name", "done-one", "--wait", "--", "true").out.splitlines()[0]

    listed = [job["name"] for job in running.run("jobs", "--json").json]
    all_of_them = {job["id"]: job for job in running.run("jobs", "--all", "--json").json}
    table = running.run("jobs", "--all").out
    succeeded = {job["phase"] for job in running.run("jobs", "--state", "succeeded", "--json").json}

    assert "live-one" in listed
    assert "done-one" not in listed
    assert {live, done} <= all_of_them.keys()
    names = ("id", "name", "owner", "group", "queue", "kind", "phase", "reason", "created_at", "started_at", "ended_at")
    wanted = {*names, "exit_code", "attempts"}
    assert wanted <= all_of_them[done].keys()
    assert any(line.startswith(done[:8]) and "done-one" in line and "Succeeded" in line for line in table.splitlines())
    assert succeeded == {"Succeeded"}
    running.run("cancel", live)


def test_cancel_retry_and_delete(running: Desk) -> None:
    job = submit(running, "--name", "once", "--", "sleep", "60")
    too_early = running.run("delete", job)
    cancelled = running.run("cancel", job[:8])
    ended(running, job)

    again = running.run("retry", job).out.strip()
    running.run("cancel", again)
    ended(running, again)
    deleted = running.run("delete", again)
    gone = running.run("job", again)

    assert too_early.code == 3
    assert cancelled.code == 0
    assert again != job
    assert deleted.code == 0
    assert (gone.code, gone.out) == (2, "")
    assert gone.err.startswith("tuttilab: There is no job ")


def test_explain_says_why_a_job_waits_and_what_it_is_when_it_does_not(running: Desk) -> None:
    holder = submit(running, "--name", "holder", "--gpus", "2", "--", "sleep", "60")
    waiting = submit(running, "--name", "waiting", "--gpus", "1", "--", "true")
    eventually(lambda: running.run("explain", waiting, "--json").json)

    wait = running.run("explain", waiting, "--json").json
    text = running.run("explain", waiting).out
    holds = running.run("explain", holder)

    assert wait["sentence"] in text
    assert wait["why"] in ("quota", "no-room")
    assert "does not wait: it is" in holds.out
    running.run("cancel", holder, waiting)
    ended(running, waiting)
    assert "does not wait: it is Cancelled" in running.run("explain", waiting).out


def test_dry_run_submits_nothing(running: Desk) -> None:
    before = running.run("jobs", "--all", "--json").json

    starts = running.run("submit", "--dry-run", "--", "true")
    refused = running.run("submit", "--dry-run", "--gpus", "9", "--", "true")
    as_json = running.run("submit", "--dry-run", "--json", "--", "true")

    assert (starts.code, starts.out.startswith("starts: ")) == (0, True)
    assert (refused.code, refused.out.startswith("refused: ")) == (3, True)
    assert as_json.json["verdict"] == "starts"
    assert running.run("jobs", "--all", "--json").json == before


def test_more_than_the_queues_max_is_refused_with_exit_3(running: Desk) -> None:
    said = running.run("submit", "--gpus", "9", "--", "true")

    assert (said.code, said.out, len(said.err.splitlines())) == (3, "", 1)


def test_manifest_is_submitted_and_awaited(running: Desk) -> None:
    manifest = running.home / "jobs.yaml"
    manifest.write_text(
        "kind: Job\nname: one\ncommand: [sh, -c, 'echo $GREETING']\nenv: {GREETING: hello}\n"
        "---\nkind: Job\nname: two\npods: [{role: worker, count: 1, cpus: 500m}]\ncommand: [sh, -c, exit 5]\n"
    )

    said = running.run("submit", "jobs.yaml", "--wait")

    assert (said.code, said.out.splitlines()[2:]) == (5, ["hello"])


def test_unknown_key_of_a_manifest_is_refused_and_nothing_is_submitted(running: Desk) -> None:
    manifest = running.home / "bad.yaml"
    manifest.write_text("kind: Job\nname: good\ncommand: [x]\n---\nkind: Job\npods: [{gpuss: 1}]\ncommand: [x]\n")
    before = running.run("jobs", "--all", "--json").json

    said = running.run("submit", "bad.yaml")

    assert (said.code, said.err) == (
        2,
        "tuttilab: bad.yaml, document 2: unknown key pods[0].gpuss; did you mean 'gpus'?\n",
    )
    assert running.run("jobs", "--all", "--json").json == before


def test_site_is_shown_with_bars_and_as_json(running: Desk) -> None:
    job = submit(running, "--gpus", "1", "--", "sleep", "60")
    eventually(lambda: running.run("job", job, "--json").json["phase"] == "Running")

    quota = running.run("quota").out
    queues = {view["name"]: view for view in running.run("queues", "--json").json}
    clusters = running.run("clusters", "--json").json
    nodes = {view["name"]: view for view in running.run("nodes", "--json").json}

    line = next(line for line in quota.splitlines() if "GPU" in line)
    assert "█" * 10 in line.replace("|", "")
    assert queues["research"]["parent"] == "root"
    assert [view["name"] for view in clusters] == ["here"]
    assert {name: view["allocatable"]["cpu"] for name, view in nodes.items()} == {"a": "4", "b": "4"}
    assert nodes["a"]["used"]["nvidia.com/gpu"] == "1"
    for command in ("queues", "clusters", "nodes"):
        said = running.run(command)
        assert (said.code, said.err) == (0, ""), command
    running.run("cancel", job)


def test_id_that_is_none_is_exit_2(running: Desk) -> None:
    for command in (("job", "zzzzzzzz"), ("logs", "zzzzzzzz"), ("cancel", "zzzzzzzz"), ("explain", "zzzzzzzz")):
        said = running.run(*command)
        assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1), command


def test_wrong_token_is_exit_3_and_an_unreachable_service_exit_4(running: Desk) -> None:
    url = running.runtime().url

    wrong = running.run("jobs", TUTTILAB_URL=url, TUTTILAB_TOKEN="wrong")
    away = running.run("jobs", TUTTILAB_URL="http://127.0.0.1:9", TUTTILAB_TOKEN="wrong")

    assert (wrong.code, wrong.out, len(wrong.err.splitlines())) == (3, "", 1)
    assert (away.code, away.out, len(away.err.splitlines())) == (4, "", 1)
    assert "127.0.0.1:9" in away.err


def test_configuration_is_checked_without_starting_anything(running: Desk) -> None:
    good = running.run("scheduler", "check", "--config", "tuttilab.yaml")
    (running.home / "bad.yaml").write_text("clusters: [{name: a, kind: local, nodez: []}]\n")
    bad = running.run("scheduler", "check", "--config", "bad.yaml")

    assert (good.code, good.out.splitlines()[0]) == (0, "tuttilab.yaml is sound.")
    assert (bad.code, bad.err) == (2, "tuttilab: bad.yaml: unknown key clusters[0].nodez; did you mean 'nodes'?\n")


def test_output_may_be_cut_off_by_its_reader(running: Desk) -> None:
    job = running.run("submit", "--wait", "--", "seq", "1", "20000").out.splitlines()[0]
    process = running.start("logs", job)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.stdout.close()

    assert process.wait(timeout=20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_json_of_one_job_is_one_object(running: Desk) -> None:
    said = running.run("submit", "--json", "--", "true")

    assert json.loads(said.out)["command"] == ["true"]
