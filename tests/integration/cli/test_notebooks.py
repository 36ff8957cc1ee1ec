"""`tuttilab submit NOTEBOOK.ipynb`: a notebook as a job, its log, its parameters and its executed copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.notebooks import outputs_of, write_notebook
from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.client.notebooks import save_executed, submit_notebook
from tuttilab.scheduler.domain.requests import JobRequest

pytestmark = pytest.mark.timeout(700)


def executed(folder: Path) -> Path:
    (found,) = folder.glob("report-*.ipynb")
    return found


@pytest.mark.feature("B23")
def test_a_notebook_runs_with_its_parameters_and_its_executed_copy_lies_beside_it(running: UserMachine, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    write_notebook(
        tmp_path / "report.ipynb", "print('on', day)", "from helper import twice\ntwice(times)", "open('data.txt').read()"
    )
    (tmp_path / "data.txt").write_text("beside")

    said = running.run("submit", "report.ipynb", "-p", "day=2026-11-22", "-p", "times=21", "--wait", cwd=tmp_path, timeout_s=120)

    assert said.code == 0, said
    job, *log = said.out.splitlines()
    assert [line for line in log if line.startswith("cell ")] == [f"cell {i} of 5" for i in range(1, 6)]
    assert "on 2026-11-22" in log
    assert log[-1] == "report.ipynb: 5 cells done."
    copy = executed(tmp_path)
    assert outputs_of(copy) == ["", "", "on 2026-11-22", "42", "'beside'"]
    assert f"The executed notebook is {copy.name}; `jupyter lab {copy.name}` opens it." in said.err
    assert running.run("job", job, "--json").json["name"] == "report"


@pytest.mark.feature("B23")
def test_a_failed_cell_fails_the_job_with_its_number_and_error_and_what_ran_is_kept(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "report.ipynb", "print('before')", "x = 1\nraise ValueError('no such day')", "print('never')")

    said = running.run("submit", "report.ipynb", "--wait", cwd=tmp_path, timeout_s=120)

    assert said.code == 1
    assert said.out.splitlines()[-1] == "report.ipynb, cell 3 of 4 failed: ValueError: no such day"
    kept = outputs_of(executed(tmp_path))
    assert [text for text in kept if text] == ["before", "no such day"]


@pytest.mark.feature("B23")
def test_a_notebook_that_is_cancelled_leaves_what_it_ran(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "report.ipynb", "print('before')", "import time\ntime.sleep(100)")
    job = running.run("submit", str(tmp_path / "report.ipynb")).out.strip()
    eventually(lambda: "cell 3 of 3" in running.run("logs", job).out)

    running.run("cancel", job)
    eventually(lambda: running.run("job", job, "--json").json["is_ended"])
    fetched = running.run("job", job, "--download", str(tmp_path / "fetched"))

    assert fetched.out.splitlines() == [str(tmp_path / "fetched" / "report.ipynb")]
    assert outputs_of(tmp_path / "fetched" / "report.ipynb")[1] == "before"
    again = running.run("job", job, "--download", str(tmp_path / "fetched"))
    assert (again.code, "is there already" in again.err) == (2, True)


def test_a_kernel_that_dies_is_said_with_its_cell(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "report.ipynb", "import os\nos._exit(3)", parameters=None)

    said = running.run("submit", "report.ipynb", "--wait", cwd=tmp_path, timeout_s=120)

    assert said.code == 1
    last = "report.ipynb: the kernel ended in cell 1 of 1; it may have run out of memory: give it more with --memory."
    assert said.out.splitlines()[-1] == last


def test_a_kernel_that_is_not_installed_gives_way_to_this_python(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "report.ipynb", "1 + 1", kernel="somebody-elses")

    said = running.run("submit", "report.ipynb", "--wait", cwd=tmp_path, timeout_s=120)

    assert said.code == 0, said
    assert "report.ipynb: there is no kernel 'somebody-elses' here; it runs in that of" in said.out
    assert outputs_of(executed(tmp_path))[-1] == "2"


def test_what_cannot_run_is_said_before_anything_is_submitted(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "good.ipynb", "1")
    (tmp_path / "text.ipynb").write_text("no notebook")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    write_notebook(tmp_path / "empty.ipynb", parameters=None)
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "deep.ipynb").write_text("[" * 100_000)
    before = running.job_ids()

    for arguments, words in (
        (("good.ipynb", "-p", "dya=1"), "good.ipynb has no parameter 'dya'; did you mean 'day'?"),
        (("good.ipynb", "-p", "day"), "expected NAME=VALUE with a variable's name"),
        (("good.ipynb", "--workers", "2"), "A notebook runs in one pod"),
        (("good.ipynb", "extra"), "'extra' stands after the notebook; expected its parameters as `-p NAME=VALUE`."),
        (("text.ipynb",), "it is not a notebook"),
        (("old.ipynb",), "it is not a notebook of format 4; open and save it in JupyterLab, which converts it."),
        (("empty.ipynb",), "no cell of it has code"),
        (("pipe.ipynb",), "it is no regular file; expected a notebook (.ipynb)."),
        (("deep.ipynb",), "it is not a notebook"),
        (("missing.ipynb",), "the notebook cannot be read (No such file or directory)"),
        (("-p", "day=1", "--", "true"), "--parameter: only a notebook takes it"),
    ):
        said = running.run("submit", *arguments, cwd=tmp_path)
        assert (said.code, words in said.err, said.err.count("\n")) == (2, True, 1), said

    dry = running.run("submit", "good.ipynb", "-p", "day=1", "--dry-run", cwd=tmp_path)
    assert (dry.code, dry.out.startswith("starts: ")) == (0, True)
    assert running.job_ids() == before


@pytest.mark.feature("D03")
def test_a_node_of_a_graph_is_a_notebook_whose_parameters_may_be_variables(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(
        tmp_path / "report.ipynb", "print(day, times, type(times).__name__, flag)", parameters="day = ''\ntimes = 0\nflag = None"
    )
    (tmp_path / "flow.yaml").write_text(
        "kind: Dag\nname: reports\nvariables: {day: {default: monday}, n: {type: integer, default: 3}}\nnodes:\n"
        "- {name: before, job: {command: [sh, -c, 'touch made']}}\n"
        "- {name: report, notebook: report.ipynb, after: [before], memory: 512Mi,\n"
        "   parameters: {day: 'of ${day} \"quoted\"', times: '${n}', flag: true}}\n"
    )

    said = running.run("dag", "run", str(tmp_path / "flow.yaml"), "-v", "n=4", "--wait", "--json", timeout_s=120)

    assert said.code == 0, said
    job = said.json["nodes"][1]["job_id"]
    assert 'of monday "quoted" 4 int True' in running.run("logs", job).out.splitlines()
    assert running.run("job", job, "--download", str(tmp_path / "out")).out == f"{tmp_path / 'out' / 'report.ipynb'}\n"


def test_a_notebook_node_that_cannot_run_is_named_and_nothing_is_submitted(running: UserMachine, tmp_path: Path) -> None:
    write_notebook(tmp_path / "report.ipynb", "1")
    for node, words in (
        ("{name: a, notebook: missing.ipynb}", "node 'a': "),
        (
            "{name: a, notebook: report.ipynb, parameters: {dya: 1}}",
            "node 'a': report.ipynb has no parameter 'dya'; did you mean 'day'?",
        ),
        ("{name: a, notebook: report.ipynb, job: {command: [x]}}", "expected exactly one of the keys job, spark_sql and notebook"),
        ("{name: a, notebook: train.py}", "is no notebook; expected the path of an .ipynb file"),
    ):
        (tmp_path / "flow.yaml").write_text(f"kind: Dag\nname: bad\nnodes: [{node}]\n")
        said = running.run("dag", "run", str(tmp_path / "flow.yaml"))
        assert (said.code, words in said.err, said.err.count("\n")) == (2, True, 1), said


def test_a_program_submits_a_notebook_with_its_own_environment(
    running: UserMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SETTING", "set here")
    write_notebook(tmp_path / "report.ipynb", "import os\nos.environ['MY_SETTING'], day")
    runtime = running.runtime()
    client = Client(runtime.url, runtime.token)
    try:
        job = submit_notebook(client, tmp_path / "report.ipynb", {"day": "friday"}, JobRequest())
        ended = client.wait(job.id, timeout_s=100)
        saved = save_executed(client, ended, tmp_path)
    finally:
        client.close()

    assert ended.phase == "Succeeded"
    assert saved == tmp_path / f"report-{job.id[:8]}.ipynb"
    assert outputs_of(saved)[-1] == "('set here', 'friday')"
