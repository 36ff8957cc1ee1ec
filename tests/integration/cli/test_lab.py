"""`tuttilab lab`: a real JupyterLab whose kernels have the magics loaded, without changes to the user's IPython configuration."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.ports import free_port
from tests.user_machine import UserMachine, eventually

TOKEN = "of-the-test"


def new_kernel(port: int) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/kernels", data=b'{"name": "python3"}', headers={"Authorization": f"token {TOKEN}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=150) as answer:
            return json.load(answer)
    except urllib.error.URLError:
        return None


def is_ready(client: BlockingKernelClient) -> bool:
    try:
        client.wait_for_ready(timeout=150)
    except RuntimeError:
        # A kernel that is still starting looks like a dead one.
        return False
    return True


@pytest.mark.feature("B03")
def test_kernel_of_the_lab_knows_the_magics_without_load_ext(machine: UserMachine) -> None:
    port = free_port()
    runtime_dir = machine.home / "runtime"
    machine.environ["JUPYTER_RUNTIME_DIR"] = str(runtime_dir)
    lab = machine.start("lab", "--no-browser", "--port", str(port), "--", f"--IdentityProvider.token={TOKEN}")
    kernel = eventually(lambda: new_kernel(port))
    client = BlockingKernelClient(connection_file=str(runtime_dir / f"kernel-{kernel['id']}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        eventually(lambda: is_ready(client))
        reply = client.execute(
            "", user_expressions={"known": "get_ipython().find_cell_magic('submit') is not None"}, reply=True, timeout=30
        )
    finally:
        client.stop_channels()

    assert reply["content"]["user_expressions"]["known"]["data"]["text/plain"] == "True"
    assert machine.run("status", "--json").json["running"] is True
    startup = machine.home / ".ipython" / "profile_default" / "startup"
    assert sorted(path.name for path in startup.iterdir()) == ["README"]
    assert not list(machine.home.rglob("ipython_*config*"))
    assert not list((machine.home / ".local").rglob("kernel.json"))
    lab.terminate()
    lab.wait(timeout=150)


def test_taken_port_is_reported_in_one_sentence(machine: UserMachine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        said = machine.run("lab", "--no-browser", "--port", str(port))

    assert (said.code, said.err) == (
        2,
        f"tuttilab: Port {port} is taken by another program; give another --port, or none and Jupyter chooses.\n",
    )


def test_kernel_of_another_environment_is_left_as_it_is(machine: UserMachine, tmp_path: Path) -> None:
    from tuttilab.scheduler.cli.lab import write_kernel_spec

    other = tmp_path / "jupyter" / "kernels" / "python3"
    other.mkdir(parents=True)
    argv = ["/opt/other/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (other / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Other", "language": "python"}))
    said: list[str] = []
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(tmp_path / "jupyter")
    try:
        is_written = write_kernel_spec(tmp_path / "ours", said.append)
    finally:
        if before is None:
            del os.environ["JUPYTER_PATH"]
        else:
            os.environ["JUPYTER_PATH"] = before

    assert (is_written, list((tmp_path / "ours").rglob("kernel.json"))) == (False, [])
    assert said == [
        "The kernel python3 runs /opt/other/bin/python, which is another environment; "
        "run `%load_ext tuttilab.magics` in its notebooks."
    ]
