"""`tuttilab up`, `down`, `status`, `scheduler serve`: life of one control plane, its files, crashes, backups and verification."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from tests.user_machine import CONFIG, UserMachine, eventually
from tuttilab.scheduler import __version__
from tuttilab.scheduler.runtime import discovery


def test_up_starts_one_and_a_second_up_finds_it(machine: UserMachine) -> None:
    first = machine.run("up")
    runtime = machine.runtime()
    second = machine.run("up")

    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("The control plane is ready after ")
    assert first.out.endswith(f"s: {runtime.url}, pid {runtime.pid}, with the built-in configuration.\n")
    assert (second.code, second.out) == (
        0,
        f"The control plane runs already: {runtime.url}, pid {runtime.pid}, with the built-in configuration.\n",
    )


def test_status_as_json(machine: UserMachine) -> None:
    machine.run("up")
    runtime = machine.runtime()

    status = machine.run("status", "--json")

    wanted = ("url", "token_file", "pid", "version", "state_dir", "clusters")
    assert {key: status.json[key] for key in wanted} == {
        "url": runtime.url,
        "token_file": str(machine.state / "token"),
        "pid": runtime.pid,
        "version": __version__,
        "state_dir": str(machine.state),
        "clusters": ["here"],
    }
    assert Path(status.json["token_file"]).read_text() == runtime.token


def test_token_is_in_private_files_and_nowhere_else(machine: UserMachine) -> None:
    said = [machine.run("up"), machine.run("status"), machine.run("status", "--json"), machine.run("up"), machine.run("doctor")]
    runtime = machine.runtime()
    process = psutil.Process(runtime.pid)

    assert stat.S_IMODE(machine.state.stat().st_mode) == 0o700
    for name in ("runtime.json", "token", "control.log", "last.json", "control.json"):
        assert stat.S_IMODE((machine.state / name).stat().st_mode) == 0o600, name
    seen = [text for one in said for text in (one.out, one.err)] + process.cmdline() + list(process.environ().values())
    seen += [(machine.state / name).read_text() for name in ("control.log", "control.json", "last.json")]
    assert [text for text in seen if runtime.token in text] == []


def test_down_leaves_no_process_and_a_second_down_does_nothing(machine: UserMachine) -> None:
    machine.run("up")
    pid = machine.runtime().pid

    first = machine.run("down")
    left = machine.processes()
    second = machine.run("down")

    assert (first.code, first.out) == (0, f"The control plane (pid {pid}) has ended.\n")
    assert left == []
    assert not (machine.state / "runtime.json").exists()
    assert not (machine.state / "token").exists()
    assert (second.code, second.out) == (0, f"No control plane runs in {machine.state}.\n")


def test_status_without_a_control_plane_is_exit_4(machine: UserMachine) -> None:
    said = machine.run("status")

    assert (said.code, said.out) == (4, f"No control plane runs in {machine.state}; `tuttilab up` starts one.\n")
    assert machine.run("status", "--json").json["running"] is False
    assert not machine.state.exists()


def test_concurrent_first_uses_start_one_control_plane(machine: UserMachine) -> None:
    both = [machine.start("up"), machine.start("up"), machine.start("jobs", "--json")]
    said = [process.communicate(timeout=150) for process in both]

    assert [process.returncode for process in both] == [0, 0, 0], said
    serving = machine.processes("tuttilab.scheduler.server.serve")
    assert [process.pid for process in serving] == [machine.runtime().pid]
    assert (machine.state / "control.log").read_text().count(" ready: ") == 1


def test_killed_control_plane_is_detected_reported_once_and_replaced(machine: UserMachine) -> None:
    machine.run("up")
    dead = machine.runtime().pid
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: discovery.find(machine.state).runtime is None)

    status = machine.run("status")
    up = machine.run("up")

    sentence = f"The control plane with pid {dead} ended without saying so; {machine.state}/runtime.json does not count any more.\n"
    assert (status.code, status.out) == (4, sentence)
    assert (up.code, up.err) == (0, sentence)
    assert machine.runtime().pid != dead


@pytest.mark.parametrize("change", ["start_time", "boot_id", "text"])
def test_runtime_file_of_another_process_boot_or_format_is_ignored(machine: UserMachine, change: str) -> None:
    """The pid is that of a live process (this one), as after a reboot or when the kernel reuses a pid."""
    machine.run("up")
    real = machine.runtime()
    machine.run("down")
    from tuttilab.scheduler.runtime.processes import this_process

    me = this_process()
    alive = replace(real, pid=me.pid, start_time=me.start_time, boot_id=me.boot_id)
    stale = {"start_time": replace(alive, start_time=1), "boot_id": replace(alive, boot_id="another"), "text": alive}[change]
    discovery.write_runtime(stale)
    if change == "text":
        discovery.write_private(machine.state / "runtime.json", json.dumps(asdict(alive))[:-20])

    up = machine.run("up")

    assert up.code == 0
    assert len(up.sentences) == 1
    assert machine.runtime().pid != me.pid


def test_second_up_with_another_configuration_is_refused(machine: UserMachine) -> None:
    one, other = machine.home / "one.yaml", machine.home / "other.yaml"
    one.write_text(CONFIG)
    other.write_text(CONFIG + "limits: {barrier_s: 5}\n")
    first = machine.run("up", "--config", "one.yaml")
    pid = machine.runtime().pid

    same = machine.run("up", "--config", str(one))
    another = machine.run("up", "--config", str(other))
    one.write_text(CONFIG + "# changed\n")
    changed = machine.run("up", "--config", str(one))

    assert (first.code, same.code) == (0, 0)
    assert (another.code, another.err) == (
        3,
        f"tuttilab: The control plane that runs (pid {pid}) has {one}, not {other}; "
        f"run `tuttilab down`, then `tuttilab up --config {other}`.\n",
    )
    assert changed.code == 3
    assert f"has an earlier content of {one}" in changed.err


def test_configuration_is_kept_after_a_crash_and_forgotten_after_down(machine: UserMachine) -> None:
    config = machine.home / "t.yaml"
    config.write_text(CONFIG)
    machine.run("up", "--config", str(config))
    os.kill(machine.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(machine.state).runtime is None)

    after_crash = machine.run("up")
    kept = machine.runtime().config
    machine.run("down")
    machine.run("up")

    assert (after_crash.code, kept) == (0, str(config))
    assert f"Starting with {config}, as the last time; `tuttilab down` forgets it.\n" in after_crash.err
    assert machine.runtime().config == ""


def test_taken_port_is_reported_in_one_sentence(machine: UserMachine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        said = machine.run("up", TUTTILAB_LISTEN_PORT=str(port))

    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"tuttilab: Port {port} of 127.0.0.1 is taken by another program; end what listens there, "
        "or set listen.port to another one (0: any that is free).\n"
    )
    assert machine.processes() == []


def test_it_listens_on_loopback_only(machine: UserMachine) -> None:
    said = machine.run("up", TUTTILAB_LISTEN_HOST="0.0.0.0")

    assert (said.code, said.err) == (
        2,
        "tuttilab: the built-in configuration: listen.host: '0.0.0.0' can be reached from other machines, "
        "and auth.kind local is one token for one user; expected 127.0.0.1.\n",
    )


def test_control_plane_of_another_version_is_named_and_can_be_ended(machine: UserMachine) -> None:
    machine.run("up")
    runtime = machine.runtime()
    discovery.write_runtime(replace(runtime, version="0.0.9"))

    jobs = machine.run("jobs")
    down = machine.run("down")

    assert (jobs.code, jobs.err) == (
        2,
        f"tuttilab: A control plane of tuttilab 0.0.9 runs (pid {runtime.pid}), and this is {__version__}; "
        "run `tuttilab down`, then `tuttilab up`.\n",
    )
    assert down.code == 0
    assert machine.processes() == []


@pytest.mark.parametrize("command", [("up",), ("scheduler", "serve")])
def test_unreadable_database_is_refused_and_left_alone(machine: UserMachine, command: tuple[str, ...]) -> None:
    machine.state.mkdir(mode=0o700)
    database = machine.state / "state.db"
    database.write_bytes(b"not a database" * 100)

    said = machine.run(*command)

    assert (said.code, said.out) == (2, "")
    assert f"tuttilab: {database} is not a SQLite database; expected the database of tuttilab." in said.err
    assert database.read_bytes() == b"not a database" * 100
    assert machine.processes() == []


def test_database_of_a_newer_version_is_refused(machine: UserMachine) -> None:
    machine.run("up")
    machine.run("down")
    with sqlite3.connect(machine.state / "state.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        versions = next(name for name in tables if "version" in name)
        column = connection.execute(f"SELECT * FROM {versions}").description[0][0]
        connection.execute(f"UPDATE {versions} SET {column} = 9999")

    said = machine.run("up")

    assert said.code == 2
    assert "and this version of tuttilab knows up to" in said.err


def test_crash_at_start_prints_the_end_of_the_log(machine: UserMachine) -> None:
    broken = machine.home / "lib"
    broken.mkdir()
    (broken / "uvicorn.py").write_text("raise RuntimeError('this uvicorn is broken')\n")

    said = machine.run("up", PYTHONPATH=str(broken))

    assert (said.code, said.out) == (4, "")
    assert "tuttilab: The control plane ended while it started (exit code 1)." in said.err
    assert "RuntimeError: this uvicorn is broken" in said.err
    assert machine.processes() == []


def test_idle_control_plane_ends_by_itself(machine: UserMachine) -> None:
    machine.run("up", TUTTILAB_LIMITS_IDLE_STOP_S="1")

    eventually(lambda: not machine.processes())

    assert not (machine.state / "runtime.json").exists()
    assert "no job and no request for 1 s" in (machine.state / "control.log").read_text()
    assert machine.run("status").out == f"No control plane runs in {machine.state}; `tuttilab up` starts one.\n"


def test_control_plane_with_a_live_job_does_not_end_by_itself(machine: UserMachine) -> None:
    machine.environ["TUTTILAB_LIMITS_IDLE_STOP_S"] = "1"

    done = machine.run("submit", "--wait", "--", "sh", "-c", "sleep 3; echo done")

    assert (done.code, done.out.splitlines()[1:]) == (0, ["done"])
    eventually(lambda: not machine.processes())


def test_foreground_service_ends_with_0_on_sigterm(machine: UserMachine) -> None:
    process = machine.start("scheduler", "serve")
    eventually(lambda: discovery.find(machine.state).runtime)

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=150) == 0
    assert not (machine.state / "runtime.json").exists()


def test_second_service_on_the_same_folder_is_refused(machine: UserMachine) -> None:
    machine.run("up")
    runtime = machine.runtime()

    said = machine.run("scheduler", "serve")

    assert (said.code, said.err) == (
        2,
        f"tuttilab: A control plane already runs in {machine.state} (pid {runtime.pid}, {runtime.url}); "
        "`tuttilab down` ends it, and TUTTILAB_STATE_DIR names another folder.\n",
    )


def test_jobs_outlive_the_control_plane_and_are_adopted_by_the_next(machine: UserMachine) -> None:
    machine.run("up")
    talk = "echo one; while [ ! -e go ]; do sleep 0.1; done; echo two; exit 3"
    job = machine.run("submit", "--", "sh", "-c", talk).out.strip()
    eventually(lambda: "one" in machine.run("logs", job).out)
    os.kill(machine.runtime().pid, signal.SIGTERM)
    eventually(lambda: discovery.find(machine.state).runtime is None)
    survivors = machine.processes()
    (machine.home / "go").touch()

    followed = machine.run("logs", job, "-f")
    shown = machine.run("job", job, "--json").json

    assert survivors != []
    assert followed.out.splitlines() == ["one", "two"]
    assert (shown["phase"], shown["exit_code"], len(shown["attempts"])) == ("Failed", 3, 1)


def test_down_waits_for_jobs_and_an_interrupt_leaves_everything_as_it_is(machine: UserMachine) -> None:
    machine.run("up")
    pid = machine.runtime().pid
    job = machine.run("submit", "--name", "long", "--", "sleep", "600").out.strip()

    waiting = machine.start("down")
    assert waiting.stderr is not None
    first_line = waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    code = waiting.wait(timeout=150)

    assert first_line.startswith(f"Waiting for 1 job: {job[:8]} long (")
    assert first_line.endswith("). Ctrl-C leaves everything as it is; --now stops them.\n")
    assert (code, machine.runtime().pid) == (130, pid)
    assert machine.run("submit", "--wait", "--", "true").code == 0
    now = machine.run("down", "--now")
    assert (now.code, machine.processes()) == (0, [])


def test_down_ends_after_the_last_job(machine: UserMachine) -> None:
    machine.run("up")
    machine.run("submit", "--", "sleep", "2")

    said = machine.run("down")

    assert (said.code, machine.processes()) == (0, [])


def test_down_now_also_stops_jobs_that_a_killed_control_plane_left(machine: UserMachine) -> None:
    machine.run("up")
    machine.run("submit", "--", "sleep", "300")
    eventually(lambda: machine.processes("sleep"))
    os.kill(machine.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(machine.state).runtime is None)

    said = machine.run("down", "--now")

    assert said.code == 0, said
    assert "it is started once more to stop them" in said.err
    assert machine.processes() == []


@pytest.mark.feature("O08")
def test_a_backup_of_the_running_service_can_be_restored(machine: UserMachine) -> None:
    machine.run("up")
    machine.run("submit", "--wait", "--", "true")
    file = machine.home / "backup"
    made = machine.run("scheduler", "backup", str(file))
    twice = machine.run("scheduler", "backup", str(file))
    later = machine.run("submit", "--wait", "--", "true")
    busy = machine.run("scheduler", "restore", str(file))
    machine.run("down")
    careful = machine.run("scheduler", "restore", str(file))
    forced = machine.run("scheduler", "restore", str(file), "--force")

    assert made.code == 0, made
    assert made.out.startswith(f"{file}: 1 jobs, up to change ")
    assert (twice.code, "is there already; name another file" in twice.err) == (3, True)
    assert later.code == 0
    assert (busy.code, "uses the database; run `tuttilab down` first" in busy.err) == (3, True)
    assert (careful.code, "already; with --force it is moved to state.db.old first" in careful.err) == (3, True)
    assert forced.code == 0, forced
    assert machine.run("scheduler", "verify").out.endswith("the rows of 1 jobs are what the journal says.\n")
    assert machine.run("up").code == 0
    assert len(machine.run("jobs", "--all", "--json").json) == 1


def test_B13_verify_repeats_every_decision_of_the_journal(machine: UserMachine) -> None:
    machine.run("up")
    for _ in range(3):
        machine.run("submit", "--wait", "--workers", "2", "--cpus", "0.1", "--memory", "64Mi", "--", "true")
    machine.run("down")
    machine.run("up")
    machine.run("submit", "--wait", "--cpus", "0.1", "--memory", "64Mi", "--", "true")
    meanwhile = machine.run("scheduler", "verify", "--decisions")
    machine.run("down")
    with sqlite3.connect(machine.state / "state.db") as connection:
        rows = connection.execute("SELECT seq, body FROM journal WHERE kind = 'ClusterObserved'").fetchall()
        for seq, body in rows:
            observed = json.loads(body)
            (node,) = observed["cluster"]["nodes"]
            # The same room in all, so that the jobs of the journal stay as they are.
            amounts = node["allocatable"]["amounts"]
            half = {"amounts": [[key, amount // 2] for key, amount in amounts]}
            rest = {"amounts": [[key, amount - amount // 2] for key, amount in amounts]}
            observed["cluster"]["nodes"] = [{**node, "name": "0-as-good", "allocatable": half}, {**node, "allocatable": rest}]
            connection.execute("UPDATE journal SET body = ? WHERE seq = ?", (json.dumps(observed), seq))

    other = machine.run("scheduler", "verify", "--decisions")

    assert meanwhile.code == 0, meanwhile
    assert meanwhile.out.splitlines()[-1] == "4 decisions are those that the scheduler takes there again."
    assert (other.code, other.out.count("(0-as-good)")) == (1, 4), other
    assert "4 of 4 decisions are not what this version decides" in other.err


def test_verify_replays_the_journal_and_finds_the_rows(machine: UserMachine) -> None:
    machine.run("up")
    machine.run("submit", "--wait", "--", "true")
    failed = machine.run("submit", "--", "false").out.strip()
    eventually(lambda: machine.run("job", failed, "--json").json["is_ended"])
    machine.run("delete", failed)
    meanwhile = machine.run("scheduler", "verify")
    machine.run("down")

    said = machine.run("scheduler", "verify")
    with sqlite3.connect(machine.state / "state.db") as connection:
        connection.execute("UPDATE jobs SET body = replace(body, '\"exit_code\":0', '\"exit_code\":7')")
    broken = machine.run("scheduler", "verify")

    assert meanwhile.code == 0, meanwhile
    assert said.code == 0, said
    assert said.out.endswith(" events replayed: the rows of 1 jobs are what the journal says.\n")
    assert broken.code == 1
    assert "(exit_code differ)" in broken.out
