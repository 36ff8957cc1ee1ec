"""`%jobs`, `%job`, `%quota` and `%attach` for jobs in every state, and completion in a real kernel."""

import re

import pytest

from tests.desk import eventually
from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel
from tuttilab.scheduler.client import Client

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
    "unpicklable": ("", "import threading\nthreading.Lock()"),
}
SAYS = {
    "raised": "ZeroDivisionError: division by zero",
    "exited": "SystemExit: 7",
    "segfault": "was killed by SIGSEGV",
    "oom": "ran out of memory (it asked for 128Mi a pod); give it more with --memory",
    "timeout": "passed its time limit of 1 s and was stopped; give it more with --timeout.",
    "cancelled": "was cancelled; `%job",
    "unpicklable": "the value of its last expression (a _thread.lock) cannot be sent back",
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
        kernel.run(f"{name}.wait(60)", timeout=70)
    return client


@pytest.mark.feature("M15", "M08")
@pytest.mark.parametrize("name", CELLS)
def test_attach_to_an_ended_job_ends_with_its_value_or_one_clear_error(kernel: Kernel, ended: Client, name: str) -> None:
    ran = kernel.run(f"%attach {name}", timeout=10)
    assert ran.seconds < 5
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
        ran = kernel.run(f"%job {name} {command}", timeout=10)
        assert ran.status == "ok", ran.error
        assert len(ran.displays) == 1
        assert ran.seconds < 3


@pytest.mark.feature("M15")
def test_the_handle_tells_why(kernel: Kernel, ended: Client) -> None:
    assert kernel.value("succeeded.reason") == "''"
    for name in ("segfault", "oom", "timeout", "cancelled"):
        assert SAYS[name] in kernel.value(f"{name}.reason")


def test_retry_runs_it_again(kernel: Kernel, ended: Client) -> None:
    assert kernel.run("again = get_ipython().run_line_magic('job', 'succeeded retry')").status == "ok"
    assert kernel.value("again.result(timeout=30), again.id != succeeded.id") == "(1, True)"


def test_jobs_lists_live_ones_and_with_a_all(kernel: Kernel, ended: Client) -> None:
    assert kernel.run("%jobs").text == "No live jobs; `%jobs -a` lists those that ended."
    listed = kernel.run("%jobs -a").text
    for name in CELLS:
        assert re.search(rf"^\w{{8}}  {name}\b", listed, re.MULTILINE)


@pytest.mark.feature("B02")
def test_a_waiting_job_says_why_and_where_it_stands(kernel: Kernel, control: ControlPlane) -> None:
    cpus = control.client().nodes()[0].allocatable["cpu"]
    kernel.run(f"%%submit holder --detach --cpus {cpus} {SMALL}\nimport time\ntime.sleep(60)")
    kernel.run(f"%%submit waiter --detach --cpus {cpus} {SMALL}\n1")
    # The reason comes with the first decision after the submit, a moment later.
    eventually(lambda: re.search(r"waiter .*Queued .*place 1", kernel.run("%jobs").text), 10.0)
    explained = kernel.run("%job waiter explain").text
    assert "held by: " + kernel.value("holder.id")[1:9] in explained, explained
    assert "place 1" in kernel.value("waiter.reason")
    shown = kernel.run("from IPython.display import display; display(waiter)").displays[0]
    assert "Queued" in shown["text/html"]
    assert kernel.run("%job waiter cancel").text.endswith("`%job " + kernel.value("waiter.id")[1:9] + " retry` runs it again.")
    assert kernel.run("%job holder cancel").status == "ok"


@pytest.mark.feature("B14")
def test_another_cloudpickle_is_refused_with_both_versions_named(kernel: Kernel) -> None:
    kernel.run("import cloudpickle; real = cloudpickle.__version__; cloudpickle.__version__ = '2.0.0'")
    ran = kernel.run(f"%%submit {SMALL}\n1")
    version = kernel.value("setattr(cloudpickle, '__version__', real) or real")
    assert "The notebook runs cloudpickle 2.0.0 and the job's image cloudpickle " + version.strip("'") in ran.error
    assert len(ran.error.splitlines()) == 1


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
        ("%jobs --state Qeued", "did you mean Queued?"),
    ],
)
def test_a_wrong_line_is_one_sentence(kernel: Kernel, line: str, sentence: str) -> None:
    ran = kernel.run(line)
    assert sentence.lower() in ran.error.lower()
    assert len(ran.error.splitlines()) == 1


def completions(kernel: Kernel, code: str) -> list[str]:
    content = kernel.client.complete(code, reply=True, timeout=20)["content"]
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
