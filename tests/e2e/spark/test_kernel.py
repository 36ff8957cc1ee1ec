"""What only a real kernel shows: Stop, progress messages, and a kernel that is killed under a running operation."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from tests.e2e.spark.notebook import Notebook
from tests.user_machine import eventually

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]

SLOW = "select count(*) c from range(100000000000) where id % 7 = rand()"


@dataclass
class Kernel:
    """A kernel with the magics, connected to the session of these tests."""

    manager: KernelManager
    client: BlockingKernelClient

    def send(self, code: str) -> str:
        return str(self.client.execute(code))

    def wait_for_begin(self, message_id: str) -> None:
        """Until the kernel has taken the cell: an interrupt before that would be nobody's."""
        while True:
            message = self.client.get_iopub_msg(timeout=180)
            if message["parent_header"].get("msg_id") == message_id and message["msg_type"] == "execute_input":
                return

    def outputs(self, message_id: str) -> list[tuple[str, dict[str, Any]]]:  # Any: Jupyter's messages
        found: list[tuple[str, dict[str, Any]]] = []
        while True:
            message = self.client.get_iopub_msg(timeout=180)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return found
            if kind in ("stream", "display_data", "update_display_data", "execute_result", "error"):
                found.append((kind, content))

    def kill(self) -> None:
        """As the system does that runs out of memory. The manager's own way interrupts the running cell first."""
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)
        self.manager.shutdown_kernel(now=True)

    def run(self, code: str) -> list[tuple[str, dict[str, Any]]]:
        return self.outputs(self.send(code))


def start_kernel(notebook: Notebook) -> Kernel:
    manager, client = start_new_kernel(kernel_name="python3")
    kernel = Kernel(manager, client)
    setup = (
        f"import os, sys\nos.environ['TUTTILAB_STATE_DIR'] = {str(notebook.workspace.parent / 'state')!r}\n"
        f"os.environ['TUTTILAB_WORKSPACE'] = {str(notebook.workspace)!r}\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})\n"
        "from pathlib import Path\nfrom tests.e2e.spark.session_provider import FolderProvider\n"
        "from tuttilab.magics.spark.magic import register\n"
        f"magics = register(get_ipython(), FolderProvider(Path({str(notebook.provider.root)!r})))"
    )
    assert kernel.run(setup) == []
    return kernel


@pytest.fixture
def kernel(notebook: Notebook) -> Iterator[Kernel]:
    kernel = start_kernel(notebook)
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


@pytest.mark.feature("M09")
def test_stop_ends_the_operation_and_the_session_stays_usable(kernel: Kernel, notebook: Notebook) -> None:
    assert kernel.run("%%sparksql --quiet\ncreate or replace temp view kept as select 1 x") == []
    message_id = kernel.send(f"%%sparksql\n{SLOW}")
    eventually(lambda: has_tasks(notebook, "default"), 120)
    kernel.manager.interrupt_kernel()
    kind, content = kernel.outputs(message_id)[-1]
    assert kind == "error"
    assert content["traceback"] == ["Stopped: the cell's Spark operations were ended; the session stays usable."]
    assert kernel.run("%%sparksql df --quiet\nselect x from kept") == []
    states = "from tuttilab.magics.spark.connect import operations\nprint({state for _, state in operations(spark)})"
    # Spark notes that a query has ended some time after its last row was read.
    eventually(lambda: "running" not in kernel.run(states)[-1][1]["text"])


def outputs_of_a_stopped_query(kernel: Kernel, after_s: float) -> list[tuple[str, dict[str, Any]]]:
    for times in range(20):
        message_id = kernel.send(f"%%sparksql\n{SLOW}")
        kernel.wait_for_begin(message_id)
        time.sleep(after_s + 0.01 * times)
        kernel.manager.interrupt_kernel()
        if outputs := kernel.outputs(message_id):
            return outputs
        # The interrupt met the kernel between the announcement of the cell and its first line: nothing of it ran.
    raise AssertionError("no Stop met the cell itself")


@pytest.mark.feature("M09")
@pytest.mark.timeout(700)
def test_the_cores_are_free_within_seconds_whenever_stop_is_pressed(kernel: Kernel, notebook: Notebook) -> None:
    # A session that has just started needs seconds for its first query: Stop comes before it arrives, while it is planned, and
    # while it runs.
    for place, after_s in enumerate((0.0, 1.0, 4.0)):
        name = f"cold{place}"
        assert kernel.run(f"%spark start {name} --cores 2 --ui")[-1][0] != "error"
        try:
            kind = outputs_of_a_stopped_query(kernel, after_s)[-1][0]
            stopped = time.monotonic()
            assert kind == "error"
            busy_at = stopped
            while time.monotonic() - busy_at < 4:
                if running_tasks(notebook, name):
                    busy_at = time.monotonic()
                assert busy_at - stopped < 60, f"tasks run on after a Stop {after_s:g} s after the start"
                time.sleep(0.1)
        finally:
            kernel.run(f"%spark stop {name}")


def has_tasks(notebook: Notebook, name: str) -> bool:
    """Whether tasks run. A session whose cores are all busy may take long to say so, and is asked again."""
    try:
        return running_tasks(notebook, name) > 0
    except OSError:
        return False


def running_tasks(notebook: Notebook, name: str) -> int:
    ui = json.loads((notebook.provider.root / name / "endpoints.json").read_text())["ui"]
    address = f"http://{ui}/api/v1/applications"
    with urllib.request.urlopen(address, timeout=150) as answer:
        application = json.load(answer)[0]["id"]
    with urllib.request.urlopen(f"{address}/{application}/executors", timeout=150) as answer:
        return sum(executor["activeTasks"] for executor in json.load(answer))


@pytest.mark.feature("M09")
def test_stop_ends_operations_of_other_threads_of_the_cell_too(kernel: Kernel, notebook: Notebook) -> None:
    cell = (
        "%%spark\nimport threading, time\nerrors = []\n"
        f"def work():\n    try: spark.sql({SLOW!r}).collect()\n"
        "    except Exception as error: errors.append(str(error)[:80])\n"
        "worker = threading.Thread(target=work); worker.start()\nworker.join()"
    )
    message_id = kernel.send(cell)
    eventually(lambda: has_tasks(notebook, "default"), 120)
    kernel.manager.interrupt_kernel()
    assert kernel.outputs(message_id)[-1][0] == "error"
    wait = "for _ in range(600):\n    if errors: break\n    time.sleep(0.1)\nprint(errors)"
    assert "OPERATION_CANCELED" in kernel.run(wait)[-1][1]["text"]
    again = "late = threading.Thread(target=work)\nlate.start()\n"
    stopped = f"%%spark\n{again}time.sleep(0.01)\nraise KeyboardInterrupt"
    assert kernel.run(stopped)[-1][0] == "error"
    states = (
        "from tuttilab.magics.spark.connect import operations\nlate.join(50)\n"
        "print(late.is_alive(), [state for _, state in operations(spark) if state == 'running'])"
    )
    assert kernel.run(states)[-1][1]["text"] == "False []\n"


@pytest.mark.feature("M10")
def test_progress_is_one_output_area_that_moves_forward_and_stays_readable(kernel: Kernel) -> None:
    began = time.monotonic()
    outputs = kernel.run(
        "%%spark\nfrom pyspark.sql.functions import udf\nimport time\n"
        "@udf('int')\ndef slow(x):\n    time.sleep(0.3)\n    return 1\n"
        "spark.range(0, 20, 1, 20).select(slow('id').alias('x')).repartition(4).select(slow('x')).collect();"
    )
    seconds = time.monotonic() - began
    assert [kind for kind, _ in outputs] == ["display_data"] + ["update_display_data"] * (len(outputs) - 1)
    assert len({content["transient"]["display_id"] for _, content in outputs}) == 1
    assert 3 <= len(outputs) <= 2 * seconds + 2
    percents = [int(content["data"]["text/plain"].split()[1].rstrip("%")) for _, content in outputs[:-1]]
    assert percents == sorted(percents)
    texts = [content["data"]["text/plain"] for _, content in outputs]
    assert any(re.search(r"of \d+ tasks, \d of \d stages, \d+ running, ", text) for text in texts[:-1]), texts
    assert re.fullmatch(r"Spark: done, \d+ tasks, .* s", texts[-1])


def test_a_short_cell_shows_no_progress(kernel: Kernel) -> None:
    kernel.run("%%sparksql\nselect 1")

    def is_alone() -> bool:
        outputs = kernel.run("%%sparksql\nselect 1 as x")
        return [content["data"]["text/plain"].split()[0] for _, content in outputs] == ["x"]

    # On a busy machine a cell that should be short may take long enough to show its progress.
    eventually(is_alone)


@pytest.mark.feature("B04")
def test_the_result_of_a_killed_kernels_operation_is_fetched_by_the_next(notebook: Notebook) -> None:
    first = start_kernel(notebook)
    slow = "select id, length(reflect('java.lang.Thread', 'sleep', 1500L)) z from range(0, 20, 1, 10)"
    first.send(f"%%sparksql found --as arrow\n{slow}")
    eventually(lambda: has_tasks(notebook, "default"), 120)
    first.kill()
    second = start_kernel(notebook)
    try:
        outputs = second.run(
            "from tuttilab.magics.spark.recover import recoverable, reattach\n(entry,) = recoverable()\n"
            "recovered = reattach(entry, magics.sessions.provider, print)\n"
            "print(entry.var, recovered.var, recovered.value['id'].to_pylist() == list(range(20)), recoverable())"
        )
        assert outputs[-1][1].get("text") == "found found True []\n", outputs
    finally:
        second.manager.shutdown_kernel(now=True)


def test_what_cannot_be_taken_up_is_said_and_forgotten(notebook: Notebook) -> None:
    first = start_kernel(notebook)
    message_id = first.send("%%sparksql found\nselect 1")
    first.outputs(message_id)
    first.run("from tuttilab.magics.spark.state import CellNote, state_directory\n"
              "e = magics.sessions.get(None, print, print)\n"
              "n = CellNote(state_directory(), 'gone', 'default', e.endpoint.job_id, e.spark.session_id, 'v', 'pandas', 'x')\n"
              "n.add('00000000-0000-4000-8000-000000000000', True)")  # fmt: skip
    first.kill()

    from tuttilab.magics.spark.recover import CannotReattach, reattach, recoverable

    (entry,) = recoverable()
    with pytest.raises(CannotReattach, match="The operation is no longer known to session default"):
        reattach(entry, notebook.provider, print)
    assert recoverable() == []
