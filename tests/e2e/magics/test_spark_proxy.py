"""`%%spark` and `%%sparksql` through the Spark proxy of a control plane on this machine, in real kernels."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import psutil
import pytest
from pyspark.sql.connect.proto import base_pb2 as messages
from pyspark.sql.connect.proto import base_pb2_grpc as services

from tests.e2e.magics.conftest import ControlPlane, Kernel
from tests.user_machine import eventually
from tuttilab.scheduler.runtime import discovery
from tuttilab.scheduler.service.launch_plans import Secrets

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(900)]

ENDPOINT = "get_ipython().magics_manager.registry['SparkMagics'].sessions._open['default'].endpoint"
SLOW = (
    "import time\nfrom pyspark.sql.functions import udf\n"
    "@udf('long')\ndef slowly(n):\n    time.sleep(2)\n    return n + 1\n"
    "spark.range(0, 8, numPartitions=2).select(slowly('id').alias('n'))"
)


def proxy_of(control: ControlPlane) -> psutil.Process:
    runtime = discovery.read_runtime(control.state_dir)
    assert runtime is not None

    def found() -> list[psutil.Process]:
        children = psutil.Process(runtime.pid).children()
        return [one for one in children if one.is_running() and "spark-proxy" in one.cmdline()]

    process: psutil.Process = eventually(found)[0]
    return process


def runs(ran: object) -> bool:
    text = str(getattr(ran, "text", ""))
    return "of 2 tasks" in text or "running" in text


@pytest.mark.feature("M01")
def test_query_error_and_stop_go_through_the_proxy_and_the_secret_goes_nowhere_else(
    new_kernel: Callable[..., Kernel], control: ControlPlane
) -> None:
    mine = new_kernel("proxied.ipynb")
    ran = mine.run("%%sparksql df\nSELECT 41 + 1 AS a")
    assert (ran.status, mine.value("int(df.a[0])")) == ("ok", "42"), ran.error
    view = control.client().spark_endpoint("default")
    proxy = proxy_of(control)
    assert (view.token, mine.value(f"{ENDPOINT}.port")) == ("", str(view.port))
    assert view.port in {address.laddr.port for address in proxy.net_connections() if address.status == psutil.CONN_LISTEN}

    failed = mine.run("%%sparksql\nSELECT *\nFROM no_such_table")
    assert "[TABLE_OR_VIEW_NOT_FOUND], line 3, column 6" in failed.error, failed.error
    slow = mine.send("%%sparksql\nSELECT count(*) c FROM range(100000000000) WHERE id % 7 = rand()")
    mine.gather(slow, until=runs)
    mine.stop_button()
    stopped = mine.gather(slow)
    assert "Stopped: the cell's Spark operations were ended; the session stays usable." in stopped.error, stopped.error
    assert mine.run("%%sparksql\nSELECT 1").status == "ok"

    secret = Secrets.of(None, control.state_dir).spark_token(view.job_id, 1).encode()
    kept = [
        path for path in control.state_dir.rglob("*") if path.is_file() and path.name != "spark-token" and not path.is_symlink()
    ]
    assert len(kept) > 5
    assert [path for path in kept if secret in path.read_bytes()] == []
    assert [one.name() for one in psutil.Process().children(recursive=True) if secret in everything_said(one.pid)] == []
    runtime = discovery.read_runtime(control.state_dir)
    assert runtime is not None
    ours = [runtime.pid, proxy.pid, *(child.pid for child in psutil.Process(runtime.pid).children(recursive=True))]
    assert [pid for pid in ours if secret in everything_said(pid)] == []
    assert secret.decode() not in "".join([ran.text, failed.error, failed.text, stopped.error, mine.run(f"vars({ENDPOINT})").text])
    assert 'tuttilab_spark_proxy_calls_total{method="ExecutePlan",status="OK"}' in eventually(lambda: counted(control))


def everything_said(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def counted(control: ControlPlane) -> str:
    """What the control plane's metrics say of its proxy, once it has told them."""
    import httpx

    runtime = discovery.read_runtime(control.state_dir)
    assert runtime is not None
    answer = httpx.get(f"{runtime.url}/metrics", headers={"Authorization": f"Bearer {runtime.token}"}, trust_env=False)
    return answer.text if "spark_proxy_calls_total" in answer.text else ""


@pytest.mark.feature("M01")
def test_a_cell_gets_its_result_although_the_proxy_is_killed(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    mine = new_kernel("killed-proxy.ipynb")
    assert mine.run("%%sparksql\nCREATE OR REPLACE TEMPORARY VIEW daily AS SELECT 7 AS a").status == "ok"
    port = control.client().spark_endpoint("default").port
    message = mine.send(f"%%spark kept\n{SLOW}")
    mine.gather(message, until=runs)
    before = proxy_of(control)
    before.send_signal(signal.SIGKILL)
    ran = mine.gather(message)
    assert ran.status == "ok", ran.error
    assert mine.value("int(kept.n.sum())") == "36"
    after = proxy_of(control)
    assert (after.pid != before.pid, control.client().spark_endpoint("default").port) == (True, port)
    # It is the same session: its views are there.
    assert mine.run("%%sparksql again\nSELECT a FROM daily").status == "ok"
    assert mine.value("int(again.a[0])") == "7"


@pytest.mark.feature("M01", "B04")
def test_a_cell_gets_its_result_although_the_control_plane_is_killed_and_comes_back(
    new_kernel: Callable[..., Kernel], control: ControlPlane
) -> None:
    mine = new_kernel("killed-plane.ipynb")
    assert mine.run("%%sparksql\nSELECT 1").status == "ok"
    message = mine.send(f"%%spark kept\n{SLOW}")
    mine.gather(message, until=runs)
    proxy = proxy_of(control)
    control.kill()
    proxy.wait(60)  # it has lost who started it
    control.start()
    ran = mine.gather(message)
    assert ran.status == "ok", ran.error
    assert mine.value("int(kept.n.sum())") == "36"


@pytest.mark.feature("M01")
def test_a_stranger_is_refused_in_a_sentence(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    mine = new_kernel("stranger.ipynb")
    assert mine.run("%%sparksql\nSELECT 1").status == "ok"
    view = control.client().spark_endpoint("default")
    channel = grpc.insecure_channel(f"{view.host}:{view.port}")
    stub = services.SparkConnectServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
    ask = messages.ConfigRequest(session_id="00112233-4455-6677-8899-aabbccddeeff")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Config(ask, metadata=[("authorization", "Bearer guessed")])
    sentence = "This is not the token of this control plane; `tuttilab status` names the file that holds it."
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, sentence)
    # The magic shows the same sentence, and nothing of Spark's.
    assert mine.run(f"object.__setattr__({ENDPOINT}, 'own_token', lambda: 'guessed')").status == "ok"
    assert mine.run("%%sparksql\nSELECT 1").error.strip().splitlines()[-1] == sentence
    assert mine.run(f"object.__setattr__({ENDPOINT}, 'own_token', lambda: '{token_of(control)}')").status == "ok"
    assert mine.run("%%sparksql\nSELECT 1").status == "ok"


def token_of(control: ControlPlane) -> str:
    runtime = discovery.read_runtime(control.state_dir)
    assert runtime is not None
    return runtime.token


@pytest.mark.feature("M01")
def test_a_session_that_was_stopped_elsewhere_is_started_again_and_says_so(
    new_kernel: Callable[..., Kernel], control: ControlPlane
) -> None:
    mine, other = new_kernel("stopped-a.ipynb"), new_kernel("stopped-b.ipynb")
    assert mine.run("%%sparksql\nCREATE OR REPLACE TEMPORARY VIEW mine AS SELECT 7 AS a").status == "ok"
    job_id = control.client().spark_endpoint("default").job_id
    assert other.run("%spark stop").status == "ok"
    control.client().wait(job_id, timeout_s=150)
    ran = mine.run("%%sparksql df\nSELECT 1 AS a")
    assert ran.status == "ok", ran.error
    assert "it was started again. Its temporary view mine is gone." in ran.text
    # In the middle of a cell: the reason, and what to do.
    job_id = control.client().spark_endpoint("default").job_id
    message = mine.send(f"%%spark kept\n{SLOW}")
    mine.gather(message, until=runs)
    began = time.monotonic()
    assert other.run("%spark stop").status == "ok"
    ended = mine.gather(message)
    assert "Run the cell again to start a new one." in ended.error, ended.error
    assert time.monotonic() - began < 60
    control.client().wait(job_id, timeout_s=150)


def test_the_proxy_ends_with_its_control_plane(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    mine = new_kernel("ends.ipynb")
    assert mine.run("%%sparksql\nSELECT 1").status == "ok"
    proxy = proxy_of(control)
    runtime = discovery.read_runtime(control.state_dir)
    assert runtime is not None
    os.kill(runtime.pid, signal.SIGTERM)
    proxy.wait(60)
    # The session has gone on, and is reached again.
    assert mine.run("%%sparksql df\nSELECT 5 AS a").status == "ok"
    assert mine.value("int(df.a[0])") == "5"
    assert mine.run("%spark stop").status == "ok"
