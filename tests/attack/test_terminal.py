"""Jobs that print what a terminal obeys, and names that are not read as they are written."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.user_machine import UserMachine
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest

POD = (PodRequest(cpus="100m", memory="64Mi"),)
SCREEN = (
    r"printf '\033]52;c;cm0gLXJmIH4K\007\033]0;title\007\033]8;;http://evil.example\033\\bank\033]8;;\033\\\033[2J\033[3J\033[6n"
    r"\033[31mred\033[0m \342\200\256gpj\n'"
)


@pytest.fixture
def client(attacked: UserMachine) -> Iterator[Client]:
    runtime = attacked.runtime()
    with closing(Client(runtime.url, runtime.token)) as client:
        yield client


def on_terminal(machine: UserMachine, *arguments: str, program: str = "tuttilab.scheduler.cli") -> bytes:
    """What the command writes to a terminal that both its outputs are."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", program, *arguments]
    process = subprocess.Popen(command, env={**machine.environ, "TERM": "xterm"}, stdin=its, stdout=its, stderr=its)
    os.close(its)
    written = b""
    try:
        while block := os.read(ours, 4096):
            written += block
    except OSError:
        pass  # the command has ended, and with it the terminal
    finally:
        os.close(ours)
        process.wait(150)
    return written


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_a_log_on_a_terminal_has_colours_and_no_orders(attacked: UserMachine, client: Client, options: tuple[str, ...]) -> None:
    job = client.wait(client.submit(JobRequest(name="loud", pods=POD, command=("sh", "-c", SCREEN))).id, timeout_s=150)

    assert on_terminal(attacked, "logs", job.id, *options).replace(b"\r\n", b"\n") == b"bank\x1b[31mred\x1b[0m <U+202E>gpj\n"
    # A program that reads the log gets it as it is, without colours as ever.
    assert "evil.example" in attacked.run("logs", job.id).out


def test_the_reason_that_a_pod_wrote_itself_orders_nothing(attacked: UserMachine, client: Client) -> None:
    forged = r"""printf '{"exit_code": 3, "reason": "\\u001b]0;title\\u0007\\u001b[2Jcalm"}' >../end.json; kill -9 $PPID; sleep 9"""
    job = client.wait(client.submit(JobRequest(name="forger", pods=POD, command=("sh", "-c", forged))).id, timeout_s=150)

    shown = on_terminal(attacked, "job", job.id)
    assert b"calm" in shown
    assert b"\x1b]" not in shown
    assert b"\x1b[2J" not in shown


IPYTHON = ("--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=NoColor", "--TerminalInteractiveShell.term_title=False")
CELLS = """
from tuttilab.magics.jobs.handle import JobHandle
shell = get_ipython()
print("SHELL", type(shell).__name__)
shell.run_line_magic("load_ext", "tuttilab.magics")
shell.run_cell("%job {job} logs")
shell.run_cell("JobHandle('{job}').logs()")
shell.run_cell("%job {job}")
screen = {screen!r}
shell.run_cell("%%submit --memory 256Mi\\nimport os\\nos.write(1, screen)\\nraise ValueError(screen.decode())")
shell.run_cell("%tb")
print("END")
"""


@pytest.mark.timeout(700)
def test_magics_in_ipython_on_a_terminal_show_colours_and_no_orders(attacked: UserMachine, client: Client) -> None:
    job = client.wait(client.submit(JobRequest(name="loud", pods=POD, command=("sh", "-c", SCREEN))).id, timeout_s=150)
    screen = subprocess.run(["sh", "-c", SCREEN], capture_output=True, check=True).stdout
    cells = attacked.home / "cells.py"
    cells.write_text(CELLS.format(job=job.id, screen=screen))

    shown = on_terminal(attacked, *IPYTHON, str(cells), program="IPython").replace(b"\r\n", b"\n")

    assert b"SHELL TerminalInteractiveShell" in shown
    assert b"END" in shown, shown
    # The log twice, once in the frame of a failed cell, in its message and its whole trace.
    assert shown.count(b"bank\x1b[31mred\x1b[0m <U+202E>gpj") >= 4, shown
    for order in (b"\x1b]", b"\x1b[2J", b"\x1b[3J", b"\x1b[6n", b"evil.example", b"\x07", "\u202e".encode()):
        assert order not in shown, (order, shown)


@pytest.mark.parametrize("name", ["gpj\u202eexe.train", "tra\u200bin", "train\u2066", "\ufefftrain", "tr\u00adain"])
def test_a_name_that_is_not_read_as_written_is_refused(client: Client, name: str) -> None:
    for given in ({"name": name}, {"labels": {"note": name}}):
        with pytest.raises(BadInput, match=r"holds U\+[0-9A-F]{4} [A-Z -]+, which is not seen or changes how other"):
            client.submit(JobRequest(pods=POD, command=("true",), **given))
