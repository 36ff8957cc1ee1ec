"""Figures taken inside a real kernel: a second kernel's Spark session, and what `%%sparksql` adds to the plain call."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

SESSION = """
import time
began = time.perf_counter()
get_ipython().run_cell_magic("sparksql", "--quiet", "SELECT 1 AS one")
opened = time.perf_counter() - began
"""
OVERHEAD = """
import json, time
from IPython.utils.capture import capture_output
def timed(run):
    began = time.perf_counter()
    with capture_output():
        run()
    return time.perf_counter() - began
plain, magic = [], []
for _ in range(40):
    plain.append(timed(lambda: spark.sql("SELECT 1 AS one").toPandas()))
    magic.append(timed(lambda: get_ipython().run_cell_magic("sparksql", "answer --as pandas --quiet", "SELECT 1 AS one")))
print(json.dumps([plain[5:], magic[5:]]))
"""


@contextmanager
def kernel(environ: dict[str, str]) -> Iterator[BlockingKernelClient]:
    sockets = tempfile.mkdtemp(prefix="tuttilab-")
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
    manager.start_kernel(env=environ)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        run(client, "%load_ext tuttilab.magics")
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        shutil.rmtree(sockets, ignore_errors=True)


def run(client: BlockingKernelClient, code: str) -> str:
    """What the code printed. Raises when it fails."""
    text: list[str] = []

    def take(message: dict[str, dict[str, str]]) -> None:
        if message["header"]["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            text.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=300, output_hook=take)
    if reply["content"]["status"] != "ok":
        raise RuntimeError("\n".join(reply["content"]["traceback"]))
    return "".join(text)


def second_kernel_session_s(environ: dict[str, str]) -> tuple[float, float, str]:
    """Seconds from the first Spark cell of a new kernel to its answer, with the session already there."""
    with kernel(environ) as first:
        run(first, SESSION)
        cold = float(run(first, "print(opened)"))
    times = []
    for _ in range(3):
        with kernel(environ) as later:
            run(later, SESSION)
            times.append(float(run(later, "print(opened)")))
    return max(times), 1.0, f"worst of 3 kernels, answer of `SELECT 1` included; the first kernel took {cold:.1f} s"


def sparksql_overhead_s(environ: dict[str, str]) -> tuple[float, float, str]:
    """Median seconds that `%%sparksql VAR --as pandas` takes more than `spark.sql(…).toPandas()`, alternating in one kernel."""
    with kernel(environ) as client:
        run(client, SESSION)
        plain, magic = json.loads(run(client, OVERHEAD).splitlines()[-1])
    difference = statistics.median(magic) - statistics.median(plain)
    return (
        difference,
        0.02,
        f"medians of {len(plain)}: {statistics.median(magic) * 1000:.1f} ms against {statistics.median(plain) * 1000:.1f} ms",
    )
