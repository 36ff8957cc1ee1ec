"""The job magics of LinkisMagic in a real kernel: every one on jobs in every state ends; long logs; sessions and their end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel
from tests.user_machine import eventually
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

pytestmark = [pytest.mark.tier("local"), pytest.mark.timeout(1200)]

ENDS = {"good": "print('out')", "raises": "1 / 0", "exits": "raise SystemExit(7)", "killed": "import time\ntime.sleep(600)"}
PHASES = {"good": "Succeeded", "raises": "Failed", "exits": "Failed", "killed": "Cancelled"}
_MAGICS = ("status", "progress", "log", "kill")


@pytest.fixture(scope="module")
def linkis(kernel: Kernel) -> Kernel:
    ran = kernel.run("%load_ext tuttilab.magics.linkis_magic")
    assert ran.status == "ok", ran.error
    assert "`%%spark` is Scala now" in ran.text
    return kernel


@pytest.fixture(scope="module")
def ended(linkis: Kernel, control: ControlPlane) -> Client:
    client = control.client()
    for name, cell in ENDS.items():
        ran = linkis.run(f"%%submit {name} --detach --cpus 10m {SMALL}\n{cell}")
        assert ran.status == "ok", ran.error
    assert linkis.run("%kill -i killed").status == "ok"
    for name in ENDS:
        linkis.run(f"{name}.wait(200)", timeout=240)
    return client


@pytest.mark.feature("M06", "M15")
@pytest.mark.parametrize("name", ENDS)
def test_each_magic_on_each_end_ends_and_says_what_it_found(linkis: Kernel, ended: Client, name: str) -> None:
    job = next(view.id for view in ended.jobs(all=True).jobs if view.name == name)
    for spelled in (name, job, job[:8]):
        ran = linkis.run(f"%status -i {spelled}")
        assert ran.status == "ok", ran.error
        assert ran.text.startswith(PHASES[name])
        assert linkis.run(f"%progress -i {spelled}").text.startswith(f"1  {PHASES[name]}")
        ran = linkis.run(f"%kill --id {spelled}")
        assert (ran.status, ran.text.startswith("There is nothing to kill: ")) == ("ok", True)
        assert linkis.run(f"%log -i {spelled}").status == "ok"
    assert "out" in linkis.run("%log -i good").text


@pytest.mark.feature("M06")
def test_jobs_are_listed_and_the_last_one_needs_no_id(linkis: Kernel, ended: Client) -> None:
    listed = linkis.run("%listjob").text
    assert all(name in listed for name in ENDS)
    assert linkis.run("%listjob -o history").status == "ok"
    assert linkis.value("{job['name']: job['status'] for job in history['tasks']}['raises']") == "'Failed'"
    assert linkis.run(f"%%submit newest --cpus 10m {SMALL}\n1").status == "ok"
    assert linkis.run("%status").text == "Succeeded"
    assert linkis.run("%status -i last").text == "Succeeded"


@pytest.mark.feature("M15")
def test_each_magic_on_each_live_state_ends(linkis: Kernel, control: ControlPlane, tmp_path: Path) -> None:
    client, gate = control.client(), tmp_path / "gate"
    deaf = (
        "import pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.1)"
    )
    pods = (PodRequest(cpus="10m", memory="256Mi"),)
    stopping = client.submit(JobRequest(name="stopping", command=(sys.executable, "-c", deaf), pods=pods, grace="10m"))
    running = client.submit(JobRequest(name="running", command=(sys.executable, "-c", deaf), pods=pods, grace="10m"))
    eventually(lambda: "begun" in client.logs(stopping.id).lines and "begun" in client.logs(running.id).lines)
    rest = client.nodes()[0].allocatable["cpu"]
    waiting = client.submit(JobRequest(name="waiting", command=("true",), pods=(PodRequest(cpus=rest, memory="256Mi"),)))
    try:
        client.cancel(stopping.id)
        for job, phase, share in ((waiting, "Waiting", "0"), (running, "Running", "0"), (stopping, "Stopping", "0")):
            eventually(lambda: linkis.run(f"%status -i {job.id}").text.startswith(phase))  # noqa: B023  called at once
            assert linkis.run(f"%progress -i {job.id}").text.startswith(f"{share}  {phase}")
            assert linkis.run(f"%log -i {job.id}").status == "ok"
        for job in (waiting, running, stopping):
            ran = linkis.run(f"%kill -i {job.id}")
            assert (ran.status, ran.text.startswith("Succeed: ")) == ("ok", True), ran.text + ran.error
    finally:
        gate.touch()
        for job in (waiting, running, stopping):
            client.cancel(job.id)
            client.wait(job.id, timeout_s=240)


@pytest.mark.feature("M06")
def test_a_log_of_twelve_thousand_lines_is_read_to_its_end(linkis: Kernel) -> None:
    ran = linkis.run(f"%%submit talks --detach --cpus 0.5 {SMALL}\nfor n in range(12000):\n    print('line', n)")
    assert ran.status == "ok", ran.error
    linkis.run("talks.wait(240)", timeout=300)
    ran = linkis.run("%log -i talks")
    assert ran.status == "ok", ran.error
    assert "line 11999" in ran.text
    assert ran.text.splitlines()[0] == (
        "… lines 11,000 to 11,999 of 12,000, counted from 0; `--start N --lines N` shows others, `-o VAR` binds all"
    )
    ran = linkis.run("%log -i talks --start 10500 --lines 2")
    assert ran.text.splitlines()[1:] == ["line 10500", "line 10501"]
    assert linkis.run("%log -i talks -o lines").text == "lines has 12,000 lines"
    assert linkis.value("lines[0], lines[-1], len(lines)") == "('line 0', 'line 11999', 12000)"


@pytest.mark.feature("M06", "M07", "M15")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        *((f"%{magic} -i 00000000", "00000000") for magic in _MAGICS),
        ("%log -i good --lines few", "UsageError: %log: --lines takes a whole number, got 'few'."),
        ("%enginekill -i nowhere", "UsageError: %enginekill: nowhere is no Spark session of yours; you have: none."),
        ("%enginekill", "UsageError: %enginekill: which session? `%enginekill -i NAME`; `%listengine` lists them."),
        ("%status --what", "UsageError: %status: unknown option --what"),
    ],
)
def test_what_is_not_there_is_one_sentence(linkis: Kernel, ended: Client, line: str, says: str) -> None:
    ran = linkis.run(line)
    assert ran.status == "error"
    assert says in ran.error
    assert len(ran.error.encode()) < 1024


def test_flashcookies_connects_anew(linkis: Kernel) -> None:
    assert linkis.run("%flashcookies").text.startswith("There are no cookies to renew: ")
    assert linkis.run("%listjob").status == "ok"
