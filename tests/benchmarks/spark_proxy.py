"""What the Spark proxy costs: each figure beside plain PySpark connected to the same session directly, in the same run."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from jupyter_client.blocking.client import BlockingKernelClient

from tests.benchmarks.figures import Figure, shown
from tests.benchmarks.notebooks import kernel, run
from tests.benchmarks.planes import control_plane
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.requests import SparkRequest
from tuttilab.scheduler.runtime import discovery

ROWS = 1_000_000
STREAMS = 8
TWO_WAYS = """
import json, os, statistics, threading, time
os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
import pandas, pyarrow
from pyspark.sql.connect.session import SparkSession
ways = [SparkSession.Builder().remote(address).create() for address in json.loads({addresses!r})]
def timed(act):
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
def both(act, rounds, unused):
    times = [[], []]
    for number in range(rounds):
        for way in (0, 1) if number % 2 else (1, 0):
            times[way].append(timed(lambda: act(ways[way])))
    return [each[unused:] for each in times]
"""
CALLS = """
print(json.dumps(both(lambda spark: spark.sql("SELECT 1 AS one").collect(), 60, 5)))
"""
PANDAS = """
query = "SELECT id, id * 2 AS a, cast(id AS double) AS b, cast(id % 97 AS int) AS c, cast(id AS float) AS d FROM range({rows})"
print(json.dumps(both(lambda spark: spark.sql(query).toPandas(), 9, 2)))
"""
PARALLEL = """
from pyspark.sql.connect.proto import base_pb2 as messages
def fetch(spark):
    # As bytes: what is measured is the way, not how fast one Python process makes tables of eight streams at once.
    client = spark.client
    request = client._execute_plan_request_with_metadata()
    request.plan.CopyFrom(spark.sql(query)._plan.to_proto(client))
    return sum(answer.ByteSize() for answer in client._stub.ExecutePlan(request, metadata=client._builder.metadata()))
def together(spark):
    threads = [threading.Thread(target=fetch, args=(spark,)) for _ in range({streams})]
    [each.start() for each in threads]
    [each.join() for each in threads]
query = "SELECT id, id * 2 AS a, cast(id AS double) AS b, cast(id % 97 AS int) AS c, cast(id AS float) AS d FROM range({rows})"
size = fetch(ways[0])
print(json.dumps([size, both(together, 6, 1)]))
"""
OPENED = """
import time
began = time.perf_counter()
import os
os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
from pyspark.sql.connect.session import SparkSession
spark = SparkSession.Builder().remote({address!r}).create()
spark.sql("SELECT 1 AS one").toPandas()
print(time.perf_counter() - began)
"""
MAGIC_OPENED = """
import time
began = time.perf_counter()
get_ipython().run_cell_magic("sparksql", "--quiet", "SELECT 1 AS one")
print(time.perf_counter() - began)
"""
SLOW = "SELECT count(*) c FROM range(100000000000) WHERE id % 7 = rand()"


def figures() -> Iterator[Figure]:
    with control_plane() as (client, environ):
        proxied, direct = _addresses(client, environ)
        addresses = json.dumps([direct, proxied])
        with kernel(environ) as one:
            run(one, TWO_WAYS.replace("{addresses!r}", repr(addresses)))
            plain, through = json.loads(run(one, CALLS).splitlines()[-1])
            more = statistics.median(through) - statistics.median(plain)
            yield Figure("Spark proxy: more for a call", more, 0.02, _medians(through, plain))
            plain, through = json.loads(run(one, PANDAS.replace("{rows}", str(ROWS))).splitlines()[-1])
            share = statistics.median(through) / statistics.median(plain)
            yield Figure("Spark proxy: 1e6 x 5 to pandas", share, 1.15, _medians(through, plain), unit="x direct")
            code = PARALLEL.replace("{streams}", str(STREAMS)).replace("{rows}", str(ROWS // 2))
            size, (plain, through) = json.loads(run(one, code).splitlines()[-1])
            rates = [STREAMS * size / 2**20 / statistics.median(times) for times in (through, plain)]
            note = f"{rates[0]:.0f} MiB/s against {rates[1]:.0f} MiB/s, medians of {len(plain)}"
            yield Figure(f"Spark proxy: {STREAMS} streams", rates[0] / rates[1], 0.8, note, unit="x direct", is_least=True)
        through, plain = [], []
        for _ in range(3):
            with kernel(environ) as later:
                through.append(float(run(later, MAGIC_OPENED)))
            with kernel(environ) as later:
                plain.append(float(run(later, OPENED.replace("{address!r}", repr(direct)))))
        note = f"worst of {len(through)}, answer of `SELECT 1` included; plain PySpark, direct: {shown(max(plain))}"
        yield Figure("Spark proxy: second kernel attached", max(through), 1.0, note)
        with kernel(environ) as cell, kernel(environ) as other:
            run(cell, MAGIC_OPENED)
            run(other, OPENED.replace("{address!r}", repr(direct)))
            stops = [_stopped(cell, f"%%sparksql --quiet\n{SLOW}") for _ in range(5)]
            plain = [_stopped(other, f"spark.sql({SLOW!r}).collect()") for _ in range(5)]
        note = f"worst of {len(stops)}; plain PySpark, direct: {shown(max(plain))}"
        yield Figure("Spark proxy: Stop to prompt", max(stops), 0.5, note)
        client.spark_stop("default")


def _medians(through: list[float], plain: list[float]) -> str:
    return f"medians of {len(plain)}: {shown(statistics.median(through))} against {shown(statistics.median(plain))}"


def _addresses(client: Client, environ: dict[str, str]) -> tuple[str, str]:
    """Of the proxy and of the session itself, as PySpark takes them. The latter as the proxy asks for it."""
    job_id = client.spark_start(SparkRequest(cpus=1, memory="2Gi")).job_id
    while not client.spark_sessions()[0].is_ready:
        assert not client.job(job_id).is_ended
        time.sleep(0.1)
    view = client.spark_endpoint("default")
    runtime = discovery.read_runtime(discovery.state_dir(environ))
    assert runtime is not None
    of_proxy = (Path(runtime.state_dir) / "spark-proxy-token").read_text()
    asked = {"token": runtime.token, "session": "default"}
    headers = {"Authorization": f"Bearer {of_proxy}"}
    route = httpx.post(f"{runtime.url}/api/v1/spark/routes", json=asked, headers=headers, trust_env=False).json()
    return (
        f"sc://localhost:{view.port}/;token={runtime.token};tuttilab-session=default;user_id=bench",
        f"sc://localhost:{route['port']}/;token={route['token']};user_id=bench",
    )


def _stopped(client: BlockingKernelClient, code: str) -> float:
    """Seconds from Stop to the next prompt."""
    pid = int(run(client, "import os; print(os.getpid())"))
    message = client.execute(code, stop_on_error=False)  # else the kernel drops what comes next
    time.sleep(3)  # it runs
    began = time.perf_counter()
    os.kill(pid, signal.SIGINT)
    while True:
        reply = client.get_shell_msg(timeout=60)
        if reply["parent_header"].get("msg_id") == message:
            return time.perf_counter() - began
