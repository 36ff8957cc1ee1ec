"""Stop, a kernel that dies, a control plane that restarts: the job is never lost, and `%attach` gets it back."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel, Ran
from tuttilab.scheduler.domain.wire import JobView

pytestmark = pytest.mark.tier("local")
SLOW = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n"


CANCELLED_S = 5.0
"""From Stop to the end of the cell, as the feature list says."""
TRIES = 3


def is_running(ran: Ran) -> bool:
    return "begun" in ran.text


def quickest(stopped: Callable[[str], float], name: str) -> Iterator[float]:
    """Seconds of each try, up to one that is quick enough: other work on the machine may take the time of one."""
    for number in range(TRIES):
        seconds = stopped(f"{name}{number}")
        yield seconds
        if seconds < CANCELLED_S:
            return


def only_job(control: ControlPlane, name: str) -> JobView:
    (view,) = [view for view in control.client().jobs(all=True).jobs if view.name == name]
    return view


def until_ended(control: ControlPlane, name: str) -> str:
    return control.client().wait(only_job(control, name).id, timeout_s=150).phase


def test_the_first_stop_detaches_and_the_job_goes_on(kernel: Kernel, control: ControlPlane) -> None:
    message = kernel.send(f"%%submit detached {SMALL}\n{SLOW}")
    kernel.gather(message, until=is_running)
    kernel.stop_button()
    kernel.gather(message, until=lambda ran: "detached:" in ran.text)
    ran = kernel.gather(message)
    view = only_job(control, "detached")
    short = view.id[:8]
    assert ran.ename == "Stopped"
    assert ran.error == f"detached: job {short} 'detached' goes on; `%attach {short}` shows it, `%job {short} cancel` ends it"
    assert view.phase == "Running"
    control.client().cancel(view.id)


@pytest.mark.feature("M09")
def test_a_second_stop_cancels(kernel: Kernel, control: ControlPlane) -> None:
    def stopped(name: str) -> float:
        message = kernel.send(f"%%submit {name} {SMALL}\n{SLOW}")
        kernel.gather(message, until=is_running)
        kernel.stop_button()
        kernel.gather(message, until=lambda ran: "detached:" in ran.text)
        kernel.stop_button()
        ran = kernel.gather(message)
        assert ran.error == f"job {only_job(control, name).id[:8]} '{name}' was cancelled."
        assert until_ended(control, name) == "Cancelled"
        return ran.seconds

    assert min(quickest(stopped, "twice")) < CANCELLED_S


@pytest.mark.feature("M09")
def test_the_first_stop_cancels_where_that_was_asked_for(kernel: Kernel, control: ControlPlane) -> None:
    def stopped(name: str) -> float:
        message = kernel.send(f"%%submit {name} --on-interrupt cancel {SMALL}\n{SLOW}")
        kernel.gather(message, until=is_running)
        kernel.stop_button()
        ran = kernel.gather(message)
        assert ran.error == f"job {only_job(control, name).id[:8]} '{name}' was cancelled."
        assert kernel.value(f"{name}.status") == "'Cancelled'"
        return ran.seconds

    assert min(quickest(stopped, "once")) < CANCELLED_S
    assert kernel.value("1 + 1") == "2"


def test_B04_a_killed_kernel_loses_nothing(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    first = new_kernel("b04.ipynb")
    first.run("base = 40")
    message = first.send(
        f"%%submit answer --out extra {SMALL}\nimport time\nprint('begun', flush=True)\ntime.sleep(3)\nextra = 'kept'\nbase + 2"
    )
    first.gather(message, until=is_running)
    first.kill()
    second = new_kernel("b04.ipynb")
    ran = second.run("%attach")
    assert ran.value == "42", ran.error
    assert second.value("answer.status, extra") == "('Succeeded', 'kept')"
    assert "every job of this notebook was collected" in second.run("%attach").text
    assert second.value(f"%attach {only_job(control, 'answer').id[:6]}") == "42"


def test_attach_without_id_lists_several_and_binds_their_variables(new_kernel: Callable[..., Kernel]) -> None:
    first = new_kernel("several.ipynb")
    for name in ("one", "two"):
        first.run(f"%%submit {name} --detach --cpus 100m {SMALL}\n'{name}'")
    second = new_kernel("several.ipynb")
    text = second.run("%attach").text
    assert "one is the handle of job" in text
    assert "two is the handle of job" in text
    assert second.value("one.result(timeout=150), two.result(timeout=150)") == "('one', 'two')"
    assert "Nothing to come back to" in new_kernel("other.ipynb").run("%attach").text


def test_a_wait_outlives_the_control_plane(kernel: Kernel, control: ControlPlane) -> None:
    message = kernel.send(f"%%submit {SMALL} --name outlived\nimport time\nprint('begun', flush=True)\ntime.sleep(6)\n'there'")
    kernel.gather(message, until=is_running)
    before = control.start().pid
    control.kill()
    ran = kernel.gather(message)
    assert (ran.status, ran.value) == ("ok", "'there'"), ran.error
    # Nobody else started it again: whoever waits finds it, and starts the local one if need be.
    assert control.start().pid != before


@pytest.mark.feature("M15")
def test_a_job_whose_processes_vanish_is_tried_again_and_the_wait_goes_on(kernel: Kernel, control: ControlPlane) -> None:
    message = kernel.send(
        f"%%submit vanished {SMALL}\nimport os, time\nprint('begun', flush=True)\n"
        "if os.environ['TUTTILAB_ATTEMPT'] == '1':\n    time.sleep(600)\nos.environ['TUTTILAB_ATTEMPT']"
    )
    kernel.gather(message, until=is_running)
    job = only_job(control, "vanished").id
    sidecars = [
        process for process in psutil.process_iter(["cmdline"]) if any(job in word for word in process.info["cmdline"] or [])
    ]
    assert sidecars
    for process in sidecars:
        with suppress(psutil.NoSuchProcess):  # it goes with the one before
            process.kill()
    ran = kernel.gather(message)
    assert (ran.status, ran.value) == ("ok", "'2'"), ran.error
    assert "was lost" in ran.text
