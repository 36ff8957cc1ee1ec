"""Kernels that are killed and Spark sessions that are lost: what the next cell finds, and how long it takes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil

from tests.benchmarks.figures import Figure
from tests.benchmarks.notebooks import kernel, run
from tests.benchmarks.planes import control_plane
from tuttilab.scheduler.client import Client

KERNELS = 20
LOSSES = 2
SLOW = "SELECT count(*) c FROM range(0, 100000000000, 1, 8) WHERE id % 7 = rand()"
VIEW = "get_ipython().run_cell_magic('sparksql', '--quiet', 'CREATE OR REPLACE TEMPORARY VIEW kept AS SELECT {n} AS n')"
# What the kernel before left: its view is there, and its query, which runs on, is ended.
FOUND = """
import time
began = time.perf_counter()
get_ipython().run_cell_magic("sparksql", "found --quiet", "SELECT n FROM kept")
print(time.perf_counter() - began, int(found.n[0]), len(spark.interruptAll()))
"""
ONE_TASK = SLOW.replace("1, 8)", "1, 1)")
"""Leaves a core of a session of two to the next kernel."""
SIZE = "--executors 1 --executor-memory 512m --driver-memory 640m --keep"


def figures() -> Iterator[Figure]:
    with control_plane() as (client, environ):
        yield from _taken_over({**environ, "JPY_SESSION_NAME": "bench.ipynb"})
        client.spark_stop("default")
        for what in ("executor", "driver"):
            times = [_lost(client, environ, what, number) for number in range(LOSSES)]
            note = f"worst of {len(times)}, from the kill on; the aim is of an idle machine"
            yield Figure(f"Spark: {what} killed, its cell ended", max(times), 10.0, note)


def _taken_over(environ: dict[str, str]) -> Iterator[Figure]:
    """Each kernel is killed while its query runs, when the next one is up already."""
    times, found = [], 0
    with ExitStack() as stack:
        one = stack.enter_context(kernel(environ))
        run(one, "%spark start --cores 2")
        for number in range(KERNELS):
            run(one, VIEW.format(n=number))
            pid = int(run(one, "import os; print(os.getpid())"))
            one.execute(f"%%sparksql --quiet\n{ONE_TASK}")
            time.sleep(2)  # it runs
            after = stack.enter_context(kernel(environ))
            os.kill(pid, signal.SIGKILL)
            psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
            seconds, value, ended = run(after, FOUND).split()[-3:]
            times.append(float(seconds))
            found += (int(value), int(ended)) == (number, 1)
            one = after
    note = "a query ran in each: the next kernel had its views and could end the query"
    yield Figure("Spark: killed kernels taken over", found, KERNELS, note, unit="kernels", is_least=True)
    yield Figure("Spark: a killed kernel's view in the next", max(times), 1.0, f"worst of {len(times)}, Spark's import included")


def _lost(client: Client, environ: dict[str, str], what: str, number: int) -> float:
    name = f"{what}-{number}"
    with kernel(environ) as one:
        run(one, f"%spark start {name} {SIZE}")
        view = next(view for view in client.spark_sessions() if view.name == name)
        message = one.execute(f"%%sparksql --quiet\n{SLOW}")
        time.sleep(5)  # its tasks run
        began = time.perf_counter()
        os.kill(_pid_of(view.job_id, what), signal.SIGKILL)
        while one.get_shell_msg(timeout=120)["parent_header"].get("msg_id") != message:
            pass
        took = time.perf_counter() - began
        client.cancel(view.job_id)
        client.wait(view.job_id, timeout_s=120)
    return took


def _pid_of(job_id: str, what: str) -> int:
    """The driver's Java, or the process that watches the first executor's pod."""
    rank = "0" if what == "driver" else "1"
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if process.name() == "java" and (environ.get("TUTTILAB_JOB_ID"), environ.get("TUTTILAB_RANK")) == (job_id, rank):
                if what == "driver":
                    return process.pid
                above = process.parents()  # the pod's program, what watches it
                if "PythonGatewayServer" in " ".join(process.cmdline()) and len(above) > 1:
                    return above[1].pid
        except psutil.Error:
            continue
    raise RuntimeError(f"The {what} of job {job_id} has no process.")
