"""`tuttilab up`, `down`, `status`: one control plane, found, replaced when dead, and gone when told to end."""

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

from tests.desk import CONFIG, Desk, eventually
from tuttilab.scheduler import __version__, discovery


def test_up_starts_one_and_a_second_up_finds_it(desk: Desk) -> None:
    first = desk.run("up")
    runtime = desk.runtime()
    second = desk.run("up")

    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("The control plane is ready after ")
    assert first.out.endswith(f"s: {runtime.url}, pid {runtime.pid}, with the built-in configuration.\n")
    assert (second.code, second.out) == (
        0,
        f"The control plane runs already: {runtime.url}, pid {runtime.pid}, with the built-in configuration.\n",
    )


def test_status_as_json_names_what_a_program_needs(desk: Desk) -> None:
    desk.run("up")
    runtime = desk.runtime()

    status = desk.run("status", "--json")

    wanted = ("url", "token_file", "pid", "version", "state_dir", "clusters")
    assert {key: status.json[key] for key in wanted} == {
        "url": runtime.url,
        "token_file": str(desk.state / "token"),
        "pid": runtime.pid,
        "version": __version__,
        "state_dir": str(desk.state),
        "clusters": ["here"],
    }
    assert Path(status.json["token_file"]).read_text() == runtime.token


def test_token_is_in_private_files_and_nowhere_else(desk: Desk) -> None:
    said = [desk.run("up"), desk.run("status"), desk.run("status", "--json"), desk.run("up"), desk.run("doctor")]
    runtime = desk.runtime()
    process = psutil.Process(runtime.pid)

    assert stat.S_IMODE(desk.state.stat().st_mode) == 0o700
    for name in ("runtime.json", "token", "control.log", "last.json", "control.json"):
        assert stat.S_IMODE((desk.state / name).stat().st_mode) == 0o600, name
    seen = [text for one in said for text in (one.out, one.err)] + process.cmdline() + list(process.environ().values())
    seen += [(desk.state / name).read_text() for name in ("control.log", "control.json", "last.json")]
    assert [text for text in seen if runtime.token in text] == []


def test_down_leaves_no_process_and_says_when_there_is_nothing(desk: Desk) -> None:
    desk.run("up")
    pid = desk.runtime().pid

    first = desk.run("down")
    left = desk.processes()
    second = desk.run("down")

    assert (first.code, first.out) == (0, f"The control plane (pid {pid}) has ended.\n")
    assert left == []
    assert not (desk.state / "runtime.json").exists()
    assert not (desk.state / "token").exists()
    assert (second.code, second.out) == (0, f"No control plane runs in {desk.state}.\n")


def test_status_without_a_control_plane_is_exit_4(desk: Desk) -> None:
    said = desk.run("status")

    assert (said.code, said.out) == (4, f"No control plane runs in {desk.state}; `tuttilab up` starts one.\n")
    assert desk.run("status", "--json").json["running"] is False
    assert not desk.state.exists()


def test_two_first_uses_at_once_start_one(desk: Desk) -> None:
    both = [desk.start("up"), desk.start("up"), desk.start("jobs", "--json")]
    said = [process.communicate(timeout=60) for process in both]

    assert [process.returncode for process in both] == [0, 0, 0], said
    serving = [process for process in desk.processes() if "tuttilab.scheduler.serve" in process.cmdline()]
    assert [process.pid for process in serving] == [desk.runtime().pid]
    assert (desk.state / "control.log").read_text().count(" ready: ") == 1


def test_killed_control_plane_is_recognised_said_once_and_replaced(desk: Desk) -> None:
    desk.run("up")
    dead = desk.runtime().pid
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: discovery.find(desk.state).runtime is None)

    status = desk.run("status")
    up = desk.run("up")

    sentence = f"The control plane with pid {dead} ended without saying so; {desk.state}/runtime.json does not count any more.\n"
    assert (status.code, status.out) == (4, sentence)
    assert (up.code, up.err) == (0, sentence)
    assert desk.runtime().pid != dead


@pytest.mark.parametrize("change", ["start_time", "boot_id", "text"])
def test_runtime_of_another_process_boot_or_format_does_not_count(desk: Desk, change: str) -> None:
    """The pid is that of a process which lives (this one), as after a reboot or when a pid is given again."""
    desk.run("up")
    real = desk.runtime()
    desk.run("down")
    from tuttilab.scheduler.processes import this_process

    me = this_process()
    alive = replace(real, pid=me.pid, start_time=me.start_time, boot_id=me.boot_id)
    stale = {"start_time": replace(alive, start_time=1), "boot_id": replace(alive, boot_id="another"), "text": alive}[change]
    discovery.write_runtime(stale)
    if change == "text":
        discovery.write_private(desk.state / "runtime.json", json.dumps(asdict(alive))[:-20])

    up = desk.run("up")

    assert up.code == 0
    assert len(up.err.splitlines()) == 1
    assert desk.runtime().pid != me.pid


def test_second_up_with_another_configuration_is_refused(desk: Desk) -> None:
    one, other = desk.home / "one.yaml", desk.home / "other.yaml"
    one.write_text(CONFIG)
    other.write_text(CONFIG + "limits: {barrier_s: 5}\n")
    first = desk.run("up", "--config", "one.yaml")
    pid = desk.runtime().pid

    same = desk.run("up", "--config", str(one))
    another = desk.run("up", "--config", str(other))
    one.write_text(CONFIG + "# changed\n")
    changed = desk.run("up", "--config", str(one))

    assert (first.code, same.code) == (0, 0)
    assert (another.code, another.err) == (
        3,
        f"tuttilab: The control plane that runs (pid {pid}) has {one}, not {other}; "
        f"run `tuttilab down`, then `tuttilab up --config {other}`.\n",
    )
    assert changed.code == 3
    assert f"has an earlier content of {one}" in changed.err


def test_configuration_is_kept_after_a_crash_and_forgotten_after_down(desk: Desk) -> None:
    config = desk.home / "t.yaml"
    config.write_text(CONFIG)
    desk.run("up", "--config", str(config))
    os.kill(desk.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(desk.state).runtime is None)

    after_crash = desk.run("up")
    kept = desk.runtime().config
    desk.run("down")
    desk.run("up")

    assert (after_crash.code, kept) == (0, str(config))
    assert f"Starting with {config}, as the last time; `tuttilab down` forgets it.\n" in after_crash.err
    assert desk.runtime().config == ""


def test_taken_port_is_one_sentence(desk: Desk) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        said = desk.run("up", TUTTILAB_LISTEN_PORT=str(port))

    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"tuttilab: Port {port} of 127.0.0.1 is taken by another program; end what listens there, "
        "or set listen.port to another one (0: any that is free).\n"
    )
    assert desk.processes() == []


def test_other_machines_are_not_listened_to(desk: Desk) -> None:
    said = desk.run("up", TUTTILAB_LISTEN_HOST="0.0.0.0")

    assert (said.code, said.err) == (
        2,
        "tuttilab: the built-in configuration: listen.host: '0.0.0.0' can be reached from other machines, "
        "and auth.kind local is one token for one user; expected 127.0.0.1.\n",
    )


def test_control_plane_of_another_version_is_named_and_can_be_ended(desk: Desk) -> None:
    desk.run("up")
    runtime = desk.runtime()
    discovery.write_runtime(replace(runtime, version="0.0.9"))

    jobs = desk.run("jobs")
    down = desk.run("down")

    assert (jobs.code, jobs.err) == (
        2,
        f"tuttilab: A control plane of tuttilab 0.0.9 runs (pid {runtime.pid}), and this is {__version__}; "
        "run `tuttilab down`, then `tuttilab up`.\n",
    )
    assert down.code == 0
    assert desk.processes() == []


@pytest.mark.parametrize("command", [("up",), ("scheduler", "serve")])
def test_unreadable_database_is_refused_and_left_alone(desk: Desk, command: tuple[str, ...]) -> None:
    desk.state.mkdir(mode=0o700)
    database = desk.state / "state.db"
    database.write_bytes(b"not a database" * 100)

    said = desk.run(*command)

    assert (said.code, said.out) == (2, "")
    assert f"tuttilab: {database} is not a SQLite database; expected the database of tuttilab." in said.err
    assert database.read_bytes() == b"not a database" * 100
    assert desk.processes() == []


def test_database_of_a_newer_version_is_refused(desk: Desk) -> None:
    desk.run("up")
    desk.run("down")
    with sqlite3.connect(desk.state / "state.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        versions = next(name for name in tables if "version" in name)
        column = connection.execute(f"SELECT * FROM {versions}").description[0][0]
        connection.execute(f"UPDATE {versions} SET {column} = 9999")

    said = desk.run("up")

    assert said.code == 2
    assert "and this version of tuttilab knows up to" in said.err


def test_crash_at_start_shows_the_end_of_the_log(desk: Desk) -> None:
    broken = desk.home / "lib"
    broken.mkdir()
    (broken / "uvicorn.py").write_text("raise RuntimeError('this uvicorn is broken')\n")

    said = desk.run("up", PYTHONPATH=str(broken))

    assert (said.code, said.out) == (4, "")
    assert "tuttilab: The control plane ended while it started (exit code 1)." in said.err
    assert "RuntimeError: this uvicorn is broken" in said.err
    assert desk.processes() == []


def test_idle_control_plane_ends_by_itself(desk: Desk) -> None:
    desk.run("up", TUTTILAB_LIMITS_IDLE_STOP_S="1")

    eventually(lambda: not desk.processes())

    assert not (desk.state / "runtime.json").exists()
    assert "no job and no request for 1 s" in (desk.state / "control.log").read_text()
    assert desk.run("status").out == f"No control plane runs in {desk.state}; `tuttilab up` starts one.\n"


def test_control_plane_with_a_live_job_does_not_end_by_itself(desk: Desk) -> None:
    desk.environ["TUTTILAB_LIMITS_IDLE_STOP_S"] = "1"

    done = desk.run("submit", "--wait", "--", "sh", "-c", "sleep 3; echo done")

    assert (done.code, done.out.splitlines()[1:]) == (0, ["done"])
    eventually(lambda: not desk.processes())


def test_foreground_service_ends_with_0_on_sigterm(desk: Desk) -> None:
    process = desk.start("scheduler", "serve")
    eventually(lambda: discovery.find(desk.state).runtime)

    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=10) == 0
    assert not (desk.state / "runtime.json").exists()


def test_second_service_on_the_same_folder_is_refused(desk: Desk) -> None:
    desk.run("up")
    runtime = desk.runtime()

    said = desk.run("scheduler", "serve")

    assert (said.code, said.err) == (
        2,
        f"tuttilab: A control plane already runs in {desk.state} (pid {runtime.pid}, {runtime.url}); "
        "`tuttilab down` ends it, and TUTTILAB_STATE_DIR names another folder.\n",
    )


def test_jobs_outlive_the_control_plane_and_are_adopted(desk: Desk) -> None:
    desk.run("up")
    job = desk.run("submit", "--", "sh", "-c", "echo one; sleep 4; echo two; exit 3").out.strip()
    eventually(lambda: "one" in desk.run("logs", job).out)
    os.kill(desk.runtime().pid, signal.SIGTERM)
    eventually(lambda: discovery.find(desk.state).runtime is None)
    survivors = desk.processes()

    followed = desk.run("logs", job, "-f")
    shown = desk.run("job", job, "--json").json

    assert survivors != []
    assert followed.out.splitlines() == ["one", "two"]
    assert (shown["phase"], shown["exit_code"], len(shown["attempts"])) == ("Failed", 3, 1)


def test_down_waits_for_jobs_and_an_interrupt_leaves_everything_as_it_is(desk: Desk) -> None:
    desk.run("up")
    pid = desk.runtime().pid
    job = desk.run("submit", "--name", "long", "--", "sleep", "60").out.strip()

    waiting = desk.start("down")
    assert waiting.stderr is not None
    first_line = waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    code = waiting.wait(timeout=10)

    assert first_line.startswith(f"Waiting for 1 job: {job[:8]} long (")
    assert first_line.endswith("). Ctrl-C leaves everything as it is; --now stops them.\n")
    assert (code, desk.runtime().pid) == (130, pid)
    assert desk.run("submit", "--wait", "--", "true").code == 0
    now = desk.run("down", "--now")
    assert (now.code, desk.processes()) == (0, [])


def test_down_ends_after_the_last_job(desk: Desk) -> None:
    desk.run("up")
    desk.run("submit", "--", "sleep", "2")

    said = desk.run("down")

    assert (said.code, desk.processes()) == (0, [])


def test_down_now_also_stops_jobs_that_a_killed_control_plane_left(desk: Desk) -> None:
    desk.run("up")
    desk.run("submit", "--", "sleep", "300")
    eventually(lambda: any("sleep" in process.name() for process in desk.processes()))
    os.kill(desk.runtime().pid, signal.SIGKILL)
    eventually(lambda: discovery.find(desk.state).runtime is None)

    said = desk.run("down", "--now")

    assert said.code == 0, said
    assert "it is started once more to stop them" in said.err
    assert desk.processes() == []


@pytest.mark.feature("O08")
def test_a_backup_beside_the_running_service_is_put_back(desk: Desk) -> None:
    desk.run("up")
    desk.run("submit", "--wait", "--", "true")
    file = desk.home / "backup"
    made = desk.run("scheduler", "backup", str(file))
    twice = desk.run("scheduler", "backup", str(file))
    later = desk.run("submit", "--wait", "--", "true")
    busy = desk.run("scheduler", "restore", str(file))
    desk.run("down")
    careful = desk.run("scheduler", "restore", str(file))
    forced = desk.run("scheduler", "restore", str(file), "--force")

    assert made.code == 0, made
    assert made.out.startswith(f"{file}: 1 jobs, up to change ")
    assert (twice.code, "is there already; name another file" in twice.err) == (3, True)
    assert later.code == 0
    assert (busy.code, "uses the database; run `tuttilab down` first" in busy.err) == (3, True)
    assert (careful.code, "already; with --force it is moved to state.db.old first" in careful.err) == (3, True)
    assert forced.code == 0, forced
    assert desk.run("scheduler", "verify").out.endswith("the rows of 1 jobs are what the journal says.\n")
    assert desk.run("up").code == 0
    assert len(desk.run("jobs", "--all", "--json").json) == 1


def test_B13_verify_asks_for_every_decision_of_the_journal_again(desk: Desk) -> None:
    desk.run("up")
    for _ in range(3):
        desk.run("submit", "--wait", "--workers", "2", "--cpus", "0.1", "--memory", "64Mi", "--", "true")
    desk.run("down")
    desk.run("up")
    desk.run("submit", "--wait", "--cpus", "0.1", "--memory", "64Mi", "--", "true")
    meanwhile = desk.run("scheduler", "verify", "--decisions")
    desk.run("down")
    with sqlite3.connect(desk.state / "state.db") as connection:
        rows = connection.execute("SELECT seq, body FROM journal WHERE kind = 'ClusterObserved'").fetchall()
        for seq, body in rows:
            observed = json.loads(body)
            (node,) = observed["cluster"]["nodes"]
            # With as much room in all, so that what the journal says of the jobs stays as it is.
            amounts = node["allocatable"]["amounts"]
            half = {"amounts": [[key, amount // 2] for key, amount in amounts]}
            rest = {"amounts": [[key, amount - amount // 2] for key, amount in amounts]}
            observed["cluster"]["nodes"] = [{**node, "name": "0-as-good", "allocatable": half}, {**node, "allocatable": rest}]
            connection.execute("UPDATE journal SET body = ? WHERE seq = ?", (json.dumps(observed), seq))

    other = desk.run("scheduler", "verify", "--decisions")

    assert meanwhile.code == 0, meanwhile
    assert meanwhile.out.splitlines()[-1] == "4 decisions are those that the scheduler takes there again."
    assert (other.code, other.out.count("(0-as-good)")) == (1, 4), other
    assert "4 of 4 decisions are not what this version decides" in other.err


def test_verify_replays_the_journal_and_finds_the_rows(desk: Desk) -> None:
    desk.run("up")
    desk.run("submit", "--wait", "--", "true")
    failed = desk.run("submit", "--", "false").out.strip()
    eventually(lambda: desk.run("job", failed, "--json").json["is_ended"])
    desk.run("delete", failed)
    meanwhile = desk.run("scheduler", "verify")
    desk.run("down")

    said = desk.run("scheduler", "verify")
    with sqlite3.connect(desk.state / "state.db") as connection:
        connection.execute("UPDATE jobs SET body = replace(body, '\"exit_code\":0', '\"exit_code\":7')")
    broken = desk.run("scheduler", "verify")

    assert meanwhile.code == 0, meanwhile
    assert said.code == 0, said
    assert said.out.endswith(" events replayed: the rows of 1 jobs are what the journal says.\n")
    assert broken.code == 1
    assert "(exit_code differ)" in broken.out
