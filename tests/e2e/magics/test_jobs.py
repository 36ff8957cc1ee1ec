"""`%jobs`, `%job`, `%quota` and `%attach` for jobs in every state, and completion in a real kernel."""

import ast
import re
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = pytest.mark.tier("local")

CELLS = {
    "succeeded": ("", "1"),
    "raised": ("", "1 / 0"),
    "exited": ("", "raise SystemExit(7)"),
    "segfault": ("", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"),
    "oom": (
        "--memory 128Mi",
        "import time\nx = bytearray(400 * 2**20)\nfor i in range(0, len(x), 4096):\n    x[i] = 1\ntime.sleep(30)",
    ),
    "timeout": ("--timeout 1s", "import time\ntime.sleep(30)"),
    "cancelled": ("", "import time\ntime.sleep(30)"),
    "unpicklable": ("--out lock", "import threading\nlock = threading.Lock()"),
}
SAYS = {
    "raised": "ZeroDivisionError: division by zero",
    "exited": "SystemExit: 7",
    "segfault": "was killed by SIGSEGV",
    "oom": "ran out of memory (it asked for 128Mi a pod); give it more with --memory",
    "timeout": "passed its time limit of 1 s and was stopped; give it more with --timeout.",
    "cancelled": "was cancelled; `%job",
    "unpicklable": "variable lock (a _thread.lock) cannot be sent back",
}


@pytest.fixture(scope="module")
def ended(kernel: Kernel, control: ControlPlane) -> Client:
    """One job of each end, all submitted at once."""
    client = control.client()
    for name, (options, cell) in CELLS.items():
        memory = "" if "--memory" in options else SMALL
        ran = kernel.run(f"%%submit {name} --detach --cpus 10m {memory} {options}\n{cell}")
        assert ran.status == "ok", ran.error
    kernel.run("cancelled.cancel()")
    for name in CELLS:
        kernel.run(f"{name}.wait(150)", timeout=70)
    return client


@pytest.mark.feature("M15", "M08", "B26")
@pytest.mark.parametrize("name", CELLS)
def test_attach_to_an_ended_job_ends_with_its_value_or_one_clear_error(kernel: Kernel, ended: Client, name: str) -> None:
    ran = kernel.run(f"%attach {name}")
    if name == "succeeded":
        assert ran.value == "1"
    else:
        assert ran.ename == "RemoteError"
        assert SAYS[name] in ran.error
        assert len(ran.error.encode()) < 1024


@pytest.mark.feature("M15")
@pytest.mark.parametrize("command", ["", "logs", "cancel", "explain", "yaml"])
def test_every_command_on_every_end_ends(kernel: Kernel, ended: Client, command: str) -> None:
    for name in CELLS:
        ran = kernel.run(f"%job {name} {command}")
        assert ran.status == "ok", ran.error
        assert len(ran.displays) == 1


@pytest.mark.feature("M15")
def test_a_retry_of_every_end_ends(kernel: Kernel, ended: Client) -> None:
    for name in CELLS:
        ran = kernel.run(f"again = get_ipython().run_line_magic('job', '{name} retry')")
        assert ran.status == "ok", ran.error
        assert kernel.run("again.cancel()").status == "ok"


LIVE = ("", "logs", "explain", "yaml", "download", "retry")


@pytest.mark.feature("M15")
@pytest.mark.timeout(700)
def test_every_magic_on_every_live_state_ends(kernel: Kernel, control: ControlPlane, tmp_path: Path) -> None:
    client, gate = control.client(), tmp_path / "gate"
    deaf = (
        "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.1)"
    )
    # With a grace that is longer than all that is tried while it lasts.
    pods = (PodRequest(cpus="10m", memory="256Mi"),)
    stopping = client.submit(JobRequest(name="stopping", command=(sys.executable, "-c", deaf), pods=pods, grace="10m"))
    kernel.run(f"%%submit running --detach --cpus 10m {SMALL}\n{deaf}")
    # Each of them: one that is told to stop before it turns a deaf ear ends at once.
    eventually(lambda: "begun" in client.logs(stopping.id).lines and kernel.value("'begun' in running.logs()") == "True")
    rest = client.nodes()[0].allocatable["cpu"]
    kernel.run(f"%%submit waiting --detach --cpus {rest} {SMALL}\n1")
    try:
        for name, phase in {"waiting": "Waiting", "running": "Running", "stopping": "Stopping"}.items():
            if name == "stopping":
                client.cancel(stopping.id)
            eventually(lambda: phase in kernel.run(f"%job {name}").text)  # noqa: B023  called at once
            for command in LIVE:
                ran = kernel.run(f"%job {name} {command}")
                assert ran.status == "ok" or len(ran.error.splitlines()) == 1, ran.error
            message = kernel.send(f"%attach {name}")
            kernel.gather(message, until=lambda ran: phase in ran.text)  # noqa: B023
            kernel.stop_button()
            assert kernel.gather(message).ename == "Stopped"
        for magic in ("%jobs", "%jobs -a", "%jobs --state waiting", "%jobs --state stopping", "%quota", "%dag list", "%dag runs"):
            ran = kernel.run(magic)
            assert ran.status == "ok", ran.error
    finally:
        views = [client.cancel(client.job(name).id) for name in ("waiting", "running", "stopping")]
        gate.touch()
        for view in views:
            client.wait(view.id, timeout_s=150)


@pytest.mark.feature("B30")
def test_the_log_says_in_words_why_the_pod_was_told_to_stop(kernel: Kernel, ended: Client) -> None:
    assert "tuttilab: told to stop (its time limit has passed), within 30 s." in kernel.run("print(timeout.logs())").stdout
    said = kernel.run("print(cancelled.logs())").stdout
    assert "tuttilab: told to stop (it was cancelled)" in said or said == "\n"  # cancelled before it had a pod


def test_the_handle_tells_why(kernel: Kernel, ended: Client) -> None:
    assert kernel.value("succeeded.reason") == "''"
    for name in ("segfault", "oom", "timeout", "cancelled"):
        assert SAYS[name] in kernel.value(f"{name}.reason")


def test_retry_runs_it_again(kernel: Kernel, ended: Client) -> None:
    assert kernel.run("again = get_ipython().run_line_magic('job', 'succeeded retry')").status == "ok"
    assert kernel.value("again.result(timeout=150), again.id != succeeded.id") == "(1, True)"


def test_jobs_lists_live_ones_and_with_a_all(kernel: Kernel, ended: Client) -> None:
    # Those that tests before this one have cancelled may still be stopping.
    eventually(lambda: kernel.run("%jobs").text == "No live jobs; `%jobs -a` lists those that ended.")
    listed = kernel.run("%jobs -a").text
    for name in CELLS:
        assert re.search(rf"^\w{{8}}  {name}\b", listed, re.MULTILINE)


@pytest.mark.feature("B02")
def test_a_waiting_job_says_why_and_where_it_stands(kernel: Kernel, control: ControlPlane) -> None:
    cpus = control.client().nodes()[0].allocatable["cpu"]
    kernel.run(f"%%submit holder --detach --cpus {cpus} {SMALL}\nimport time\ntime.sleep(600)")
    kernel.run(f"%%submit waiter --detach --cpus {cpus} {SMALL}\n1")
    # The reason comes with the first decision after the submit, a moment later.
    eventually(lambda: re.search(r"waiter .*Waiting .*place 1", kernel.run("%jobs").text))
    explained = kernel.run("%job waiter explain").text
    assert f"({kernel.value('holder.id')[1:9]})" in explained.partition("held by: ")[2], explained
    assert "place 1" in kernel.value("waiter.reason")
    shown = kernel.run("from IPython.display import display; display(waiter)").displays[0]
    assert "Waiting" in shown["text/html"]
    assert kernel.run("%job waiter cancel").text.endswith("`%job " + kernel.value("waiter.id")[1:9] + " retry` runs it again.")
    assert kernel.run("%job holder cancel").status == "ok"


@pytest.mark.feature("B14")
def test_another_cloudpickle_is_refused_before_the_submit_with_both_versions_named(
    kernel: Kernel, control: ControlPlane, tmp_path: Path
) -> None:
    before = {view.id for view in control.client().jobs(all=True).jobs}
    (tmp_path / "cloudpickle").mkdir()
    (tmp_path / "cloudpickle" / "__init__.py").write_text("__version__ = '1.6.0'")
    version = kernel.value("__import__('cloudpickle').__version__").strip("'")
    ran = kernel.run(f"%%submit {SMALL} --env PYTHONPATH={tmp_path}\n1")
    assert f"The notebook runs cloudpickle {version} and the job cloudpickle 1.6.0 (" in ran.error
    assert "install it there" in ran.error
    assert len(ran.error.splitlines()) == 1
    dry = kernel.run(f"%%submit --dry-run {SMALL} --env PYTHONPATH={tmp_path}\n1")
    assert dry.error == ran.error
    # What the kernel itself has is another one than the interpreter now has: %pip has replaced it.
    kernel.run("import cloudpickle; real = cloudpickle.__version__; cloudpickle.__version__ = '2.0.0'")
    assert f"The notebook runs cloudpickle 2.0.0 and the job cloudpickle {version} (" in kernel.run(f"%%submit {SMALL}\n1").error
    kernel.run("cloudpickle.__version__ = real")
    assert {view.id for view in control.client().jobs(all=True).jobs} == before


@pytest.mark.feature("B14")
def test_a_python_of_another_minor_version_is_refused_before_the_submit(
    kernel: Kernel, control: ControlPlane, tmp_path: Path
) -> None:
    before = {view.id for view in control.client().jobs(all=True).jobs}
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 6, 9, 'final', 0)\n")
    other = tmp_path / "python3.6"
    other.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    ran = kernel.run(f"%%submit {SMALL} --python {other}\n1")
    assert f"The notebook runs Python {here} and the job Python 3.6.9 (" in ran.error
    assert ran.error.endswith("--python names another interpreter.")
    assert len(ran.error.splitlines()) == 1
    called = kernel.run(f"from tuttilab.magics import submit\nsubmit(lambda: 1, python={str(other)!r})()")
    assert called.error.splitlines()[-1].endswith(ran.error.partition(": ")[2])
    assert (
        "--python takes an interpreter or the folder of an environment on this machine"
        in kernel.run(f"%%submit --python {tmp_path}/nowhere\n1").error
    )
    assert "--image i has its own; give one." in kernel.run(f"%%submit --image i --python {sys.executable}\n1").error
    assert {view.id for view in control.client().jobs(all=True).jobs} == before


def test_a_job_runs_in_the_environment_that_python_names(kernel: Kernel, tmp_path: Path) -> None:
    venv.create(tmp_path / "other", system_site_packages=True, with_pip=False, symlinks=True)
    inner = next((tmp_path / "other" / "lib").iterdir()) / "site-packages"
    (inner / "outer.pth").write_text(sysconfig.get_path("purelib"))
    cell = "import os, shutil, sys\nos.path.dirname(sys.executable), os.path.dirname(shutil.which('python'))"
    ran = kernel.run(f"%%submit {SMALL} --python {tmp_path / 'other'}\n{cell}")
    assert ran.status == "ok", ran.error
    assert ast.literal_eval(ran.value or "") == (str(tmp_path / "other" / "bin"),) * 2


def test_quota_shows_use_with_bars(kernel: Kernel) -> None:
    ran = kernel.run("%quota")
    assert "default" in ran.text
    assert "<progress" in ran.displays[0]["text/html"]
    assert "there is no queue defalt; did you mean default?" in kernel.run("%quota defalt").error


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%job", "UsageError: %job: ID is missing; %job --help shows the usage."),
        ("%job nope1234", "there is no job"),
        ("%attach nope1234", "there is no job"),
        ("%jobs --stat Queued", "UsageError: %jobs: unknown option --stat; did you mean --state?"),
        ("%jobs --state Qeued", "did you mean Waiting?"),
    ],
)
def test_a_wrong_line_is_one_sentence(kernel: Kernel, line: str, sentence: str) -> None:
    ran = kernel.run(line)
    assert sentence.lower() in ran.error.lower()
    assert len(ran.error.splitlines()) == 1


def completions(kernel: Kernel, code: str) -> list[str]:
    content = kernel.client.complete(code, reply=True, timeout=150)["content"]
    return sorted(code[: content["cursor_start"]] + match + code[content["cursor_end"] :] for match in content["matches"])


def test_tab_completes_options_values_queues_and_handles(kernel: Kernel, ended: Client) -> None:
    assert completions(kernel, "%%submit --on-") == ["%%submit --on-interrupt"]
    assert completions(kernel, "%%submit --framework t") == ["%%submit --framework tensorflow", "%%submit --framework torch"]
    assert completions(kernel, "%%submit --framework=xg") == ["%%submit --framework=xgboost"]
    assert completions(kernel, "%%submit --queue def") == ["%%submit --queue default"]
    assert completions(kernel, "%job succ") == ["%job succeeded"]
    assert completions(kernel, "%job succeeded exp") == ["%job succeeded explain"]
    assert "%%submit --after timeout" in completions(kernel, "%%submit --after t")
    assert completions(kernel, "%%spark --la") == ["%%spark --lang"]
