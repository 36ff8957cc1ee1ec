"""What a job sees of where it was submitted from: environment variables, and the folder it runs in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.user_machine import UserMachine


def lines(machine: UserMachine, *arguments: str, cwd: Path | None = None, **environ: str) -> list[str]:
    said = machine.run("submit", "--wait", *arguments, cwd=cwd, timeout_s=150, **environ)
    assert said.code == 0, said
    return said.out.splitlines()[1:]


@pytest.mark.feature("B29")
def test_a_job_runs_the_python_of_the_activated_environment_and_sees_its_variables(running: UserMachine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    python = other / "bin" / "python"
    # An environment as `python -m venv` makes it, without the seconds that pip takes.
    python.symlink_to(Path(sys.executable).resolve())
    (other / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text("print('imported')")
    script = "import mine, os, sys, time; print(sys.prefix); print(time.tzname[0]); print(os.environ['MY_SETTING'])"

    printed = lines(
        running, "--", "python", "-c", script,
        PATH=f"{other / 'bin'}:{running.environ['PATH']}", VIRTUAL_ENV=str(other),
        PYTHONPATH=str(tmp_path / "lib"), TZ="Asia/Shanghai", MY_SETTING="set here",
    )  # fmt: skip

    assert printed == ["imported", str(other), "CST", "set here"]


@pytest.mark.feature("B29")
def test_nothing_of_the_control_planes_own_environment_is_mixed_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.user_machine import made_machine

    with made_machine(tmp_path_factory.mktemp("mixed")) as machine:
        assert machine.run("up", CONDA_PREFIX="/of/the/starter", TZ="Asia/Tokyo", LD_LIBRARY_PATH="/of/the/starter").code == 0
        command = ("--", "sh", "-c", "echo ${CONDA_PREFIX-none} ${TZ-none} ${LD_LIBRARY_PATH-none} ${HOME-none}")
        plain = {name: value for name, value in machine.environ.items() if name not in ("CONDA_PREFIX", "TZ", "LD_LIBRARY_PATH")}
        machine.environ = plain

        mine = lines(machine, *command)
        bare = lines(machine, "--no-env", *command)

        assert mine == [f"none none none {machine.home}"]
        assert bare == [f"/of/the/starter Asia/Tokyo /of/the/starter {machine.home}"]


@pytest.mark.feature("B29")
def test_a_secret_stays_here_is_named_by_the_dry_run_and_given_by_env(running: UserMachine) -> None:
    show = ("--", "sh", "-c", "echo ${MY_TOKEN-none} ${TUTTILAB_URL-none}")

    dry = running.run("submit", "--dry-run", *show, MY_TOKEN="hunter2", MY_SETTING="1")
    printed = lines(running, *show, MY_TOKEN="hunter2")
    given = lines(running, "--env", "MY_TOKEN=hunter2", *show)

    assert printed == ["none none"]
    assert given == ["hunter2 none"]
    told = dry.out.splitlines()[-1]
    assert "variables of the submitter's go along: " in told
    assert "MY_SETTING" in told
    assert told.endswith("left out as they look like secrets: MY_TOKEN (--env gives one)")
    assert "hunter2" not in dry.out


@pytest.mark.feature("B29")
def test_a_huge_environment_is_refused_before_anything_is_submitted(running: UserMachine) -> None:
    before = running.job_ids()

    said = running.run("submit", "--", "true", BIG="x" * 100_000)

    assert (said.code, said.out, said.err.count("\n")) == (3, "", 1)
    assert "and at most 64 KiB go with a job; the largest are BIG (98 KiB)" in said.err
    assert running.job_ids() == before


@pytest.mark.feature("B29")
def test_the_nodes_of_a_run_see_the_environment_it_was_started_from(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text(
        "kind: Dag\nname: flow\nvariables: {day: {default: monday}}\nnodes:\n"
        "- {name: a, job: {command: [sh, -c, 'echo $${MY_SETTING} $MY_SETTING ${day} $${day-unset} $$(pwd)']}}\n"
    )

    said = running.run("dag", "run", str(tmp_path / "flow.yaml"), "--wait", "--json", MY_SETTING="set here")

    assert said.code == 0, said
    log = running.run("logs", said.json["nodes"][0]["job_id"]).out
    assert log == f"set here set here monday unset {tmp_path}\n"


def test_an_unknown_variable_of_a_graph_says_how_the_shells_are_written(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text("kind: Dag\nname: f\nnodes: [{name: a, job: {command: [sh, -c, 'echo ${HOME}']}}]\n")

    said = running.run("dag", "run", str(tmp_path / "flow.yaml"))

    assert said.code == 2
    assert "there is no variable 'HOME'" in said.err
    assert "For a variable of the shell write $${HOME}." in said.err


def test_a_manifest_a_graph_and_a_command_run_in_the_folder_of_what_names_them(running: UserMachine, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (running.home / "data").mkdir(exist_ok=True)
    for name, line in (("plain", ""), ("dot", "workdir: ."), ("sub", "workdir: sub"), ("home", "workdir: ~/data")):
        (project / f"{name}.yaml").write_text(f"kind: Job\nname: {name}\ncommand: [pwd]\n{line}\n")
    (project / "private.yaml").write_text("kind: Job\ncommand: [sh, -c, 'ls | wc -l']\nworkdir: ''\n")
    (project / "flow.yaml").write_text(
        "kind: Dag\nname: flow\nnodes:\n- {name: a, job: {command: [pwd]}}\n- {name: b, job: {command: [pwd], workdir: sub}}\n"
    )

    found = {
        name: lines(running, str(project / f"{name}.yaml"), cwd=tmp_path) for name in ("plain", "dot", "sub", "home", "private")
    }
    run = running.run("dag", "run", str(project / "flow.yaml"), "--wait", "--json", cwd=tmp_path).json

    assert found == {
        "plain": [str(project)],
        "dot": [str(project)],
        "sub": [str(project / "sub")],
        "home": [str(running.home / "data")],
        "private": ["0"],
    }
    assert [running.run("logs", node["job_id"]).out for node in run["nodes"]] == [f"{project}\n", f"{project / 'sub'}\n"]
    assert lines(running, "--", "pwd", cwd=project) == [str(project)]


@pytest.mark.parametrize(("code", "words"), [(255, "exited with code 255"), (200, "exited with code 200")])
def test_a_code_that_stands_for_no_signal_is_told_as_a_code(running: UserMachine, code: int, words: str) -> None:
    said = running.run("submit", "--wait", "--", "sh", "-c", f"exit {code}")

    assert said.code == code
    assert words in said.err.splitlines()[-1]
    assert "signal" not in said.err
    assert "SIG" not in said.err
