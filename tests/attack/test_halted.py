"""A control plane that is halted, as by SIGSTOP or a machine without memory: who asks it is told, and nothing happens twice."""

from __future__ import annotations

import os
import select
import signal
import time

from tests.user_machine import UserMachine
from tuttilab.scheduler.cli.local import ANSWER_S
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.client.transport import SILENCE_S

LATE_S = 60.0
"""How much longer all may take on a busy machine."""


def test_commands_say_that_a_halted_control_plane_does_not_answer_and_a_submit_happens_once(attacked: UserMachine) -> None:
    runtime = attacked.runtime()
    with Client(runtime.url, runtime.token) as client:
        before = {job.id for job in client.jobs(all=True, limit=1000).jobs}
    os.kill(runtime.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        submit = attacked.start("submit", "--memory", "64Mi", "--", "true")
        status = attacked.run("status")
        assert time.monotonic() - began < ANSWER_S + LATE_S
        assert submit.stderr is not None
        assert select.select([submit.stderr], [], [], SILENCE_S + LATE_S)[0]
        told = submit.stderr.readline()
    finally:
        os.kill(runtime.pid, signal.SIGCONT)
    out, err = submit.communicate(timeout=150)

    assert status.code == 4
    assert f"health    {runtime.url} did not answer within {ANSWER_S:g} s: it may be overloaded or halted" in status.out
    assert told == (
        f"The control plane at {runtime.url} has not answered for {SILENCE_S:g} s: it may be overloaded or halted. "
        "It is waited for 26 s more at most; Ctrl-C ends the wait.\n"
    )
    assert (submit.returncode, err) == (0, "")
    with Client(runtime.url, runtime.token) as client:
        assert {job.id for job in client.jobs(all=True, limit=1000).jobs} - before == {out.strip()}
