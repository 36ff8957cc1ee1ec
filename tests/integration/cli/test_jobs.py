"""`tuttilab submit`, `jobs`, `logs`, `cancel` and other commands about jobs, against a real control plane."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, eventually


def submit(machine: UserMachine, *arguments: str) -> str:
    said = machine.run("submit", *arguments)
    assert said.code == 0, said
    return said.out.strip()


def ended(machine: UserMachine, job: str) -> dict[str, object]:
    def view() -> dict[str, object] | None:
        shown: dict[str, object] = machine.run("job", job, "--json").json
        return shown if shown["is_ended"] else None

    found: dict[str, object] = eventually(view)
    return found


@pytest.mark.feature("J14")
def test_submit_prints_the_id_and_the_job_runs_in_the_current_directory(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("found")

    said = running.run("submit", "--name", "reads", "--wait", "--", "cat", "here.txt", cwd=tmp_path)

    job, *log = said.out.splitlines()
    assert (said.code, log) == (0, ["found"])
    shown = running.run("job", job[:6], "--json").json
    assert (shown["id"], shown["name"], shown["phase"], shown["exit_code"]) == (job, "reads", "Succeeded", 0)


@pytest.mark.feature("J14")
def test_wait_exits_with_the_jobs_exit_code_and_prints_the_reason(running: UserMachine) -> None:
    said = running.run("submit", "--name", "fails", "--wait", "--", "sh", "-c", "echo before; exit 7")

    assert (said.code, said.out.splitlines()[1:]) == (7, ["before"])
    assert "fails: Failed" in said.err.splitlines()[-1]
    assert "code 7" in said.err.splitlines()[-1]


def test_interrupted_wait_is_130_and_the_job_goes_on(running: UserMachine) -> None:
    process = running.start("submit", "--wait", "--", "sh", "-c", "echo started; sleep 600")
    assert process.stdout is not None
    job = process.stdout.readline().strip()
    assert process.stdout.readline() == "started\n"

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=150)

    assert process.returncode == 130
    assert f"Job {job[:8]} goes on; `tuttilab logs {job[:8]} -f` follows it" in err
    assert running.run("job", job, "--json").json["is_ended"] is False
    assert running.run("cancel", job).code == 0
    assert ended(running, job)["phase"] == "Cancelled"


@pytest.mark.feature("J14", "J10")
def test_log_of_a_gang_names_the_ranks_and_one_rank_can_be_chosen(running: UserMachine) -> None:
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


def test_the_log_of_a_gang_is_in_the_order_of_time_also_after_its_end(running: UserMachine) -> None:
    # They take turns: each speaks a second after the log has what the other said before.
    talk = """
    said() { while ! grep -qsx "turn $2" "$TURNS"/*-worker-$1/log; do sleep 0.05; done; }
    TURNS=${RESULT_DIR%/*/*}
    for turn in 1 2 3; do
        if [ $TUTTILAB_RANK = 1 ]; then said 0 $turn; elif [ $turn != 1 ]; then said 1 $((turn - 1)); fi
        sleep 1
        echo turn $turn
    done"""
    job = running.run("submit", "--workers", "2", "--cpus", "100m", "--wait", "--", "sh", "-c", talk).out.splitlines()[0]

    said = running.run("logs", job)

    assert said.out.splitlines() == [f"[{rank}] turn {turn}" for turn in (1, 2, 3) for rank in (0, 1)]


@pytest.mark.feature("J14", "J10")
def test_log_can_be_read_from_a_line_on(running: UserMachine) -> None:
    job = running.run("submit", "--wait", "--", "seq", "1", "3000").out.splitlines()[0]

    assert running.run("logs", job, "--from", "2998").out.splitlines() == ["2999", "3000"]
    assert len(running.run("logs", job, "-f").out.splitlines()) == 3000


@pytest.mark.feature("J14")
def test_jobs_lists_live_ones_and_with_all_the_ended_ones(running: UserMachine) -> None:
    live = submit(running, "--name", "live-one", "--", "sleep", "600")
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


@pytest.mark.feature("J14")
def test_cancel_retry_and_delete(running: UserMachine) -> None:
    job = submit(running, "--name", "once", "--", "sleep", "600")
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


@pytest.mark.feature("J14")
def test_explain_says_why_a_job_waits_and_what_it_is_when_it_does_not(running: UserMachine) -> None:
    holder = submit(running, "--name", "holder", "--gpus", "2", "--", "sleep", "600")
    waiting = submit(running, "--name", "waiting", "--gpus", "1", "--", "true")
    eventually(lambda: running.run("explain", waiting, "--json").json)

    wait = running.run("explain", waiting, "--json").json
    text = running.run("explain", waiting).out
    holds = running.run("explain", holder)

    assert wait["sentence"] in text
    assert wait["why"] in ("quota", "no-room")
    assert f"your job 'holder' ({holder[:8]})" in text
    assert holder not in text
    assert "does not wait: it is" in holds.out
    # First the one that waits: with the room of the other it would start, and be done.
    running.run("cancel", waiting, holder)
    ended(running, waiting)
    assert "does not wait: it is cancelled" in running.run("explain", waiting).out


@pytest.mark.feature("J14")
def test_dry_run_submits_nothing(running: UserMachine) -> None:
    before = running.job_ids()

    starts = running.run("submit", "--dry-run", "--", "true")
    refused = running.run("submit", "--dry-run", "--gpus", "9", "--", "true")
    as_json = running.run("submit", "--dry-run", "--json", "--", "true")

    assert (starts.code, starts.out.startswith("starts: ")) == (0, True)
    assert (refused.code, refused.out.startswith("refused: ")) == (3, True)
    assert as_json.json["verdict"] == "starts"
    assert running.job_ids() == before


def test_more_than_the_queues_max_is_refused_with_exit_3(running: UserMachine) -> None:
    said = running.run("submit", "--gpus", "9", "--", "true")

    assert (said.code, said.out, len(said.err.splitlines())) == (3, "", 1)


@pytest.mark.feature("J14", "J01")
def test_manifest_is_submitted_and_awaited(running: UserMachine) -> None:
    manifest = running.home / "jobs.yaml"
    manifest.write_text(
        "kind: Job\nname: one\ncommand: [sh, -c, 'echo $GREETING']\nenv: {GREETING: hello}\n"
        "---\nkind: Job\nname: two\npods: [{role: worker, count: 1, cpus: 500m}]\ncommand: [sh, -c, exit 5]\n"
    )

    said = running.run("submit", "jobs.yaml", "--wait")

    assert (said.code, said.out.splitlines()[2:]) == (5, ["hello"])


def test_unknown_key_of_a_manifest_is_refused_and_nothing_is_submitted(running: UserMachine) -> None:
    manifest = running.home / "bad.yaml"
    manifest.write_text("kind: Job\nname: good\ncommand: [x]\n---\nkind: Job\npods: [{gpuss: 1}]\ncommand: [x]\n")
    before = running.job_ids()

    said = running.run("submit", "bad.yaml")

    assert (said.code, said.err) == (
        2,
        "tuttilab: bad.yaml, document 2: unknown key pods[0].gpuss; did you mean 'gpus'?\n",
    )
    assert running.job_ids() == before


@pytest.mark.feature("J14")
def test_site_is_shown_with_bars_and_as_json(running: UserMachine) -> None:
    job = submit(running, "--gpus", "1", "--", "sleep", "600")
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


def test_invalid_id_is_exit_2(running: UserMachine) -> None:
    for command in (("job", "zzzzzzzz"), ("logs", "zzzzzzzz"), ("cancel", "zzzzzzzz"), ("explain", "zzzzzzzz")):
        said = running.run(*command)
        assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1), command


def test_wrong_token_is_exit_3_and_an_unreachable_service_exit_4(running: UserMachine) -> None:
    url = running.runtime().url

    wrong = running.run("jobs", TUTTILAB_URL=url, TUTTILAB_TOKEN="wrong")
    away = running.run("jobs", TUTTILAB_URL="http://127.0.0.1:9", TUTTILAB_TOKEN="wrong")

    assert (wrong.code, wrong.out, len(wrong.err.splitlines())) == (3, "", 1)
    assert (away.code, away.out, len(away.err.splitlines())) == (4, "", 1)
    assert "127.0.0.1:9" in away.err


def test_configuration_is_checked_without_starting_anything(running: UserMachine) -> None:
    good = running.run("scheduler", "check", "--config", "tuttilab.yaml")
    (running.home / "bad.yaml").write_text("clusters: [{name: a, kind: local, nodez: []}]\n")
    bad = running.run("scheduler", "check", "--config", "bad.yaml")

    assert (good.code, good.out.splitlines()[0]) == (0, "tuttilab.yaml is sound.")
    assert (bad.code, bad.err) == (2, "tuttilab: bad.yaml: unknown key clusters[0].nodez; did you mean 'nodes'?\n")


def test_closed_output_pipe_is_no_error(running: UserMachine) -> None:
    job = running.run("submit", "--wait", "--", "seq", "1", "20000").out.splitlines()[0]
    process = running.start("logs", job)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.stdout.close()

    assert process.wait(timeout=150) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_json_of_one_job_is_one_object(running: UserMachine) -> None:
    said = running.run("submit", "--json", "--", "true")

    assert json.loads(said.out)["command"] == ["true"]


# Goes on once somebody has seen it begin.
BAR = """
import os, sys, time
until = time.monotonic() + 60
for i in range(41):
    print(f"\\r{i:2d} of 40", end="", flush=True)
    time.sleep(0.1)
    while not os.path.exists(sys.argv[1]) and time.monotonic() < until:
        time.sleep(0.05)
print()
print("after")
"""


def seen_on_a_terminal(machine: UserMachine, *arguments: str, at: Callable[[bytes], None] = lambda block: None) -> str:
    """Everything that the command writes to a terminal of 80 columns; each part is given to ``at`` as it comes."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tuttilab.scheduler.cli", *arguments],
        cwd=machine.home,
        env=machine.environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    with open(ours, "rb", buffering=0) as terminal:
        try:
            while block := terminal.read(4096):
                text += block
                at(block)
        except OSError:
            pass  # the other end is closed
    assert process.wait(150) == 0, text
    return text.decode()


@pytest.mark.feature("B21")
@pytest.mark.parametrize("how", ["logs", "submit"])
def test_a_progress_bar_is_live_on_a_terminal_and_its_last_state_is_in_the_log(
    running: UserMachine, tmp_path: Path, how: str
) -> None:
    go = tmp_path / "go"
    command = ["--name", "bar", "--", sys.executable, "-c", BAR, str(go)]

    def look(block: bytes) -> None:
        if b" 0 of 40" in block:
            go.touch()

    if how == "logs":
        text = seen_on_a_terminal(running, "logs", submit(running, *command), "-f", at=look)
    else:
        text = seen_on_a_terminal(running, "submit", "--wait", *command, at=look)
    states = re.findall(r"(\d+) of 40", text)
    assert len(set(states)) > 2, text
    assert states == sorted(states, key=int)
    # Each state replaces the one before it, and the finished line stands above what was printed after it.
    assert all(text[: match.start()].endswith(("\x1b[2K", "\n")) for match in list(re.finditer(r" ?\d+ of 40", text))[1:]), text
    assert re.search(r"40 of 40\r\n(?:\x1b\[\w+|[^\n])*after\r\n", text)


@pytest.mark.feature("B21")
def test_most_states_of_a_bar_are_on_the_terminal_within_a_second(running: UserMachine) -> None:
    clock = "import time\nfor _ in range(100):\n    print(f'\\r{time.time():.2f}', end='', flush=True)\n    time.sleep(0.1)"
    ages: dict[bytes, float] = {}

    def look(block: bytes) -> None:
        for state in re.findall(rb"\d{10}\.\d\d", block):
            ages.setdefault(state, time.time() - float(state))

    seen_on_a_terminal(running, "logs", submit(running, "--name", "clock", "--", sys.executable, "-c", clock), "-f", at=look)

    assert len(ages) > 5
    assert statistics.median(ages.values()) < 1.0


@pytest.mark.feature("B21")
def test_of_a_progress_bar_the_log_has_one_line(running: UserMachine) -> None:
    said = running.run("submit", "--wait", "--", sys.executable, "-c", BAR, "/")
    job, *log = said.out.splitlines()
    assert log == ["40 of 40", "after"]
    assert running.run("logs", job).out.splitlines() == log
