"""`%submit NOTEBOOK.ipynb`, and jobs that are named in words: `last`, names, beginnings of ids."""

from pathlib import Path

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel
from tests.notebooks import outputs_of, write_notebook

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(700)]


@pytest.fixture
def folder(kernel: Kernel, tmp_path: Path) -> Path:
    assert kernel.run(f"%cd -q {tmp_path}").status == "ok"
    return tmp_path


@pytest.mark.feature("B23")
def test_a_notebook_is_run_from_a_notebook_and_its_executed_copy_is_beside_it(kernel: Kernel, folder: Path) -> None:
    write_notebook(folder / "report.ipynb", "print('on', day)", "times * 2")
    ran = kernel.run("%submit report.ipynb done -p day=2026-11-22 -p times=4", timeout=120)
    assert ran.status == "ok", ran.error
    (copy,) = folder.glob("report-*.ipynb")
    assert f"The executed notebook is {copy.name}, in this folder." in ran.text
    assert any(f'<a href="{copy.name}">' in data.get("text/html", "") for data in ran.displays)
    assert outputs_of(copy)[-2:] == ["on 2026-11-22", "8"]
    assert kernel.value("done.status") == "'Succeeded'"
    assert kernel.run("%attach done").status == "ok"


@pytest.mark.feature("B23")
def test_a_failed_cell_of_a_notebook_is_raised_with_its_number_and_line(kernel: Kernel, folder: Path) -> None:
    write_notebook(folder / "report.ipynb", "print('before')", "x = 1\nraise ValueError('no such day')", parameters=None)
    ran = kernel.run("%submit report.ipynb", timeout=120)
    assert (ran.status, ran.ename) == ("error", "RemoteError")
    assert "ValueError: no such day" in ran.error
    assert "report.ipynb, cell 2 of 2, line 2" in ran.error
    assert "-->   2 raise ValueError('no such day')" in ran.error
    (copy,) = folder.glob("report-*.ipynb")
    assert outputs_of(copy)[0] == "before"


def test_a_notebook_can_be_detached_from_and_come_back_to(kernel: Kernel, folder: Path) -> None:
    write_notebook(folder / "report.ipynb", "times * 3")
    sent = kernel.run("%submit report.ipynb --detach -p times=5 --name nightly-report")
    assert "submitted; `%attach " in sent.text
    ran = kernel.run("%attach nightly-report", timeout=120)
    assert ran.status == "ok", ran.error
    (copy,) = folder.glob("report-*.ipynb")
    assert outputs_of(copy)[-1] == "15"


@pytest.mark.feature("M06")
def test_a_job_is_found_by_name_by_last_and_by_the_beginning_of_its_id(kernel: Kernel, control: ControlPlane) -> None:
    kernel.run("%%submit --name alone --memory 128Mi --detach\n1")
    assert "alone" in kernel.run("%job alone").text
    assert "alone" in kernel.run("%job last").text
    view = control.client().job("alone")
    assert "alone" in kernel.run(f"%job {view.id[:5]}").text
    assert kernel.run("%attach last").value == "1"
    for _ in range(2):
        kernel.run("%%submit --name twin --memory 128Mi\n2")
    ran = kernel.run("%job twin")
    assert ran.error.startswith("NotFound: 'twin' stands for 2 jobs: ")
    assert ran.error.count("twin (Succeeded, ") == 2
    assert ran.error.endswith(" ago); give the id of one.")


def test_outputs_are_fetched_into_a_folder(kernel: Kernel, folder: Path) -> None:
    kernel.run("%%submit kept --memory 128Mi\n[1, 2]")
    ran = kernel.run("%job kept download out")
    assert ran.text == "out/result.pkl"
    assert (folder / "out" / "result.pkl").is_file()
    assert "was not expected after logs" in kernel.run("%job kept logs out").error


@pytest.mark.feature("J17")
def test_the_manifest_of_a_cells_job_submits_the_same_job_again(kernel: Kernel, control: ControlPlane, folder: Path) -> None:
    kernel.run("factor = 3\n%env ODD=1")
    kernel.run("%%submit made --memory 128Mi --env MARK=here\nimport os\nfactor * 2, os.environ['MARK']")
    shown = kernel.run("%job made yaml").text
    (folder / "made.yaml").write_text(shown)
    from tuttilab.scheduler.client import manifests
    from tuttilab.scheduler.domain.requests import JobRequest

    client = control.client()
    again = client.wait(client.submit(manifests.read(folder / "made.yaml", JobRequest)[0]).id, timeout_s=150)
    assert again.phase == "Succeeded", again
    assert client.manifest(again.id) == shown
    assert kernel.value(f"get_ipython().run_line_magic('attach', '{again.id[:10]}')") == "(6, 'here')"


def test_graphs_and_runs_are_listed_and_the_last_run_is_retried(kernel: Kernel, folder: Path) -> None:
    (folder / "flow.yaml").write_text(
        "kind: Dag\nname: flow\nnodes:\n- {name: here, job: {pods: [{memory: 128Mi}], command: [sh, -c, 'test -e now && pwd']}}\n"
    )
    assert "flow" in kernel.run("%dag flow.yaml").text
    assert "flow" in kernel.run("%dag list").text
    ran = kernel.run("%dag run flow", timeout=150)
    assert "Run " in ran.error
    assert "flow" in kernel.run("%dag runs").text
    (folder / "now").touch()
    assert kernel.run("%dag retry last", timeout=150).status == "ok"
    assert "Succeeded" in kernel.run("%dag status last").text


@pytest.mark.feature("B29")
def test_a_job_sees_the_environment_of_the_notebook(kernel: Kernel, folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "mine.py").write_text("value = 7\n")
    kernel.run(f"import os\nos.environ['PYTHONPATH'] = {str(folder / 'lib')!r}\nos.environ['TZ'] = 'Asia/Shanghai'")
    kernel.run("os.environ['MY_SETTING'] = 'set here'\nos.environ['MY_TOKEN'] = 'hunter2'")
    cell = "import os, time, mine\nmine.value, time.tzname[0], os.environ['MY_SETTING'], 'MY_TOKEN' in os.environ"
    ran = kernel.run(f"%%submit seen --memory 128Mi\n{cell}")
    assert ran.status == "ok", ran.error
    assert kernel.value("seen.result()") == "(7, 'CST', 'set here', False)"
    dry = kernel.run("%%submit --dry-run\n1").text
    assert "variables of the submitter's go along" in dry
    assert "left out as they look like secrets: MY_TOKEN" in dry
    kernel.run("for name in ('PYTHONPATH', 'TZ', 'MY_SETTING', 'MY_TOKEN'): del os.environ[name]")
