"""Jobs and runs by name, by the beginning of an id and as `last`; the list that fits; the end of a log; Tab."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.user_machine import UserMachine, eventually

pytestmark = pytest.mark.timeout(700)


def submit(machine: UserMachine, *arguments: str) -> str:
    said = machine.run("submit", *arguments)
    assert said.code == 0, said
    return said.out.splitlines()[0]


def on_a_terminal(machine: UserMachine, *arguments: str, width: int = 80, until: str = "", then: bytes = b"") -> str:
    """What a command writes to a terminal of that width; with ``until``, ``then`` is typed when that is on it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        # No `preexec_fn`: a fork that runs Python among this process's threads was seen to stand still for ever.
        ["setsid", "--ctty", sys.executable, "-m", "tuttilab.scheduler.cli", *arguments],
        cwd=machine.home,
        # pytest-xdist says how wide its own terminal would be.
        env={**{key: value for key, value in machine.environ.items() if key not in ("COLUMNS", "LINES")}, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = ""
    try:
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:
                break
            if not block:
                break
            text += block.decode(errors="replace")
            if until and re.search(until, text):
                os.write(master, then)
                until = ""
    finally:
        os.close(master)
        if process.poll() is None:
            try:
                process.wait(150)
            except subprocess.TimeoutExpired:
                process.kill()
    return text


def test_a_job_is_meant_by_its_name_by_last_and_by_the_beginning_of_its_id(running: UserMachine) -> None:
    job = submit(running, "--name", "only-one", "--wait", "--", "echo", "hello")

    assert running.run("logs", "only-one").out == "hello\n"
    assert running.run("job", "last", "--json").json["id"] == job
    assert running.run("job", job[:4], "--json").json["id"] == job
    again = running.run("retry", "last").out.strip()
    eventually(lambda: running.run("job", again, "--json").json["is_ended"])
    assert running.run("delete", again).out == f"{again[:8]} only-one: deleted\n"


@pytest.mark.parametrize("name", ["data/prep", "a b?c#d%e", "[0]", "größe-训练"])
def test_a_job_is_meant_by_any_name_it_may_have(running: UserMachine, name: str) -> None:
    job = submit(running, "--name", name, "--", "true")

    assert running.run("job", name, "--json").json["id"] == job


@pytest.mark.parametrize("text", ["", ".", "..", "../jobs", "nobody"])
def test_a_name_that_no_job_has_is_one_sentence(running: UserMachine, text: str) -> None:
    said = running.run("job", text)

    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert repr(text) in said.err


def test_an_ambiguous_name_lists_the_jobs_with_their_times_and_the_live_one_is_meant(running: UserMachine) -> None:
    first = submit(running, "--name", "often", "--wait", "--", "true")
    second = submit(running, "--name", "often", "--wait", "--", "true")

    said = running.run("logs", "often")
    live = submit(running, "--name", "often", "--", "sleep", "600")
    meant = running.run("cancel", "often")

    assert said.code == 2
    assert said.err.startswith("tuttilab: 'often' stands for 2 jobs: ")
    for job in (first, second):
        assert re.search(rf"{job[:8]} often \(Succeeded, \d+m?\d*s ago\)", said.err)
    assert said.err.rstrip().endswith("; give the id of one.")
    assert meant.out.startswith(f"{live[:8]} often: ")


def test_a_successor_may_name_its_predecessor(running: UserMachine) -> None:
    first = submit(running, "--name", "predecessor", "--", "sleep", "1")

    second = submit(running, "--after", "last", "--wait", "--", "true")

    assert running.run("job", second, "--json").json["after"] == [first]


def test_a_run_is_meant_by_last_and_by_its_dags_name(running: UserMachine) -> None:
    (running.home / "named.yaml").write_text("kind: Dag\nname: named\nnodes: [{name: a, job: {command: ['true']}}]\n")
    run = running.run("dag", "run", "named.yaml", "--wait", "--json").json["id"]

    assert running.run("dag", "show", "last", "--json").json["id"] == run
    assert running.run("dag", "show", "named", "--json").json["id"] == run
    assert running.run("dag", "show", run[:5], "--json").json["id"] == run


@pytest.mark.feature("M06")
def test_the_end_of_a_log_is_shown_of_each_rank_and_followed_from_there(running: UserMachine) -> None:
    job = submit(running, "--workers", "2", "--wait", "--", "seq", "1", "25000")

    both = running.run("logs", job, "--tail", "2").out.splitlines()
    one = running.run("logs", job, "--tail", "3", "--rank", "1").out.splitlines()
    followed = running.run("logs", job, "-f", "-n", "1", "--rank", "0").out.splitlines()
    refused = running.run("logs", job, "--tail", "2", "--from", "3")

    assert sorted(both) == ["[0] 24999", "[0] 25000", "[1] 24999", "[1] 25000"]
    assert one == ["24998", "24999", "25000"]
    assert followed == ["25000"]
    assert (refused.code, "give one of them" in refused.err) == (2, True)


@pytest.mark.parametrize("width", [80, 50])
def test_the_list_has_one_line_a_job_and_fits_the_terminal(running: UserMachine, width: int) -> None:
    name = "a-long-name-for-a-job-of-mine"
    holder = submit(running, "--name", "holder", "--gpus", "2", "--", "sleep", "600")
    waiting = submit(running, "--name", name, "--gpus", "1", "--", "true")
    eventually(lambda: running.run("explain", waiting, "--json").json)

    lines = on_a_terminal(running, "jobs", width=width).splitlines()

    assert all(len(line) <= width for line in lines), lines
    mine = [line for line in lines if line.startswith((holder[:8], waiting[:8]))]
    assert len(mine) == 2
    assert all(re.search(r" \d\d:\d\d( |$)", line) for line in mine)
    assert "a-long-name" in mine[0]
    running.run("cancel", waiting, holder)


def test_watch_shows_a_job_that_comes_and_ends_with_ctrl_c(running: UserMachine) -> None:
    job = submit(running, "--name", "watched", "--", "sleep", "600")

    text = on_a_terminal(running, "jobs", "--watch", until="watched .*(Running|Starting)", then=b"\x03")

    assert "(Ctrl-C ends)" in text
    assert "Traceback" not in text
    running.run("cancel", job)
    piped = running.run("jobs", "--watch")
    assert (piped.code, "--watch redraws a terminal" in piped.err) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(running: UserMachine, shell: str) -> None:
    said = running.run("completion", shell)

    assert (said.code, said.err) == (0, "")
    assert "_TUTTILAB_COMPLETE" in said.out


def completed(machine: UserMachine, line: str) -> list[str]:
    """What bash is offered for the line."""
    words = line.split(" ")
    said = machine.run(_TUTTILAB_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert said.err == ""
    return said.out.split()


def test_tab_offers_jobs_queues_commands_and_files(running: UserMachine) -> None:
    job = submit(running, "--name", "to-complete", "--wait", "--", "true")

    assert "plain,completion" in completed(running, "tuttilab comp")
    assert "plain,to-complete" in completed(running, "tuttilab logs to-")
    assert f"plain,{job[:8]}" in completed(running, f"tuttilab job {job[:3]}")
    assert "plain,last" in completed(running, "tuttilab cancel la")
    assert "plain,research" in completed(running, "tuttilab submit --queue re")
    assert completed(running, "tuttilab submit na") == ["file,na"]


def test_tab_starts_nothing_and_says_nothing(machine: UserMachine) -> None:
    assert completed(machine, "tuttilab logs x") == []
    assert machine.processes() == []


def test_up_after_down_says_which_configuration_it_takes(machine: UserMachine) -> None:
    config = machine.home / "site.yaml"
    config.write_text("clusters: [{name: here, kind: local, nodes: [{name: a, cpus: 1, memory: 1Gi}]}]\n")
    assert machine.run("up", "--config", str(config)).code == 0
    assert machine.run("down").code == 0

    said = machine.run("up")

    assert "with the built-in configuration." in said.out
    assert (
        f"The control plane before had {config}; `tuttilab down` and `tuttilab up --config {config}` take that again." in said.err
    )
    assert machine.run("down").code == 0


@pytest.mark.feature("J17")
def test_an_exported_job_is_submitted_again_and_exported_the_same(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("x")
    options = (
        "--name",
        "größe",
        "--cpus",
        "500m",
        "--workers",
        "2",
        "--in",
        "data.txt",
        "--out",
        "model=m.bin",
        "--timeout",
        "10m",
    )
    command = ("--env", "DAY=2026-11-22", "--", "sh", "-c", 'echo "$DAY"\nprintf model > $RESULT_DIR/m.bin')
    said = running.run("submit", *options, *command, cwd=tmp_path)
    job = said.out.strip()
    eventually(lambda: running.run("job", job, "--json").json["phase"] == "Succeeded")

    text = running.run("job", job, "--export").out
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "again.yaml").write_text(text)
    again = running.run("submit", "again.yaml", "--wait", cwd=tmp_path / "elsewhere")

    assert again.code == 0, again
    assert sorted(again.out.splitlines()[1:]) == ["[0] 2026-11-22", "[1] 2026-11-22"]
    assert running.run("job", again.out.splitlines()[0], "--export").out == text


@pytest.mark.feature("J17")
def test_the_outputs_of_a_gang_are_downloaded_below_their_ranks(running: UserMachine, tmp_path: Path) -> None:
    script = "mkdir $RESULT_DIR/sub; echo $TUTTILAB_RANK > $RESULT_DIR/sub/m.bin"
    job = submit(running, "--workers", "2", "--out", "model=sub/m.bin", "--wait", "--", "sh", "-c", script)

    said = running.run("job", job, "--download", "out", cwd=tmp_path)
    shown = running.run("job", job).out

    assert sorted(said.out.splitlines()) == ["out/rank-0/sub/m.bin", "out/rank-1/sub/m.bin"]
    assert (tmp_path / "out/rank-1/sub/m.bin").read_text() == "1\n"
    assert f"outputs    model; `tuttilab job {job[:8]} --download FOLDER` fetches them" in shown
    nothing = running.run("job", submit(running, "--wait", "--", "true"), "--download", "none", cwd=tmp_path)
    assert (nothing.code, "left no outputs" in nothing.err) == (0, True)
