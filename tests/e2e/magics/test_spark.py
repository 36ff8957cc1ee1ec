"""Spark sessions as jobs of the service: the provider behind `%%spark`, and a kernel that dies during a Spark cell."""

import os
import re
import time
from collections.abc import Callable

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]


@pytest.mark.feature("M11", "B04")
def test_a_session_is_a_job_that_outlives_the_kernel(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    before = {job.id for job in control.client().jobs(all=True, kind="spark").jobs}
    first = new_kernel("spark.ipynb")
    ran = first.run("%%sparksql df\nSELECT 41 + 1 AS a", timeout=120)
    assert ran.status == "ok", ran.error
    assert "Spark session default: its server is starting" in ran.text
    assert first.value("int(df.a[0])") == "42"
    assert re.search(r"\* +default +ready", first.run("%spark list").text)
    assert "spark-default" in first.run("%jobs").text
    assert first.run("%%sparksql\nCREATE TEMPORARY VIEW mine AS SELECT 7 AS a").status == "ok"
    slow = (
        "import time\nfrom pyspark.sql.functions import udf\n"
        "@udf('long')\ndef slowly(n):\n    time.sleep(2)\n    return n + 1\n"
        "spark.range(0, 10, numPartitions=2).select(slowly('id').alias('n'))"
    )
    second = new_kernel("spark.ipynb")
    assert second.run("import tuttilab.magics.spark.connect").status == "ok"  # seconds, in which it would be over
    message = first.send(f"%%spark kept\n{slow}")
    first.gather(message, timeout=150, until=lambda said: "of 2 tasks" in said.text or "running" in said.text)
    first.kill()
    # Who stops waiting for the result of another kernel does not end what that one started.
    message = second.send("%attach")
    second.gather(message, timeout=150, until=lambda said: "A Spark cell of a kernel that died" in said.text)
    time.sleep(0.5)
    second.stop_button()
    assert second.gather(message, timeout=150).ename == "KeyboardInterrupt"
    ran = second.run("%attach", timeout=150)
    assert "A Spark cell of a kernel that died: import time" in ran.text
    assert "The whole result" in ran.text, ran.text + ran.error
    assert second.value("int(kept.n.sum())") == "55"
    # It is the session of the killed kernel, with its views; a kernel that ends by itself leaves nothing to take over.
    ran = second.run("%%sparksql again\nSELECT a FROM mine", timeout=150)
    assert ran.status == "ok", ran.error
    assert "Spark session default is as the kernel before, which was killed, left it; its temporary view: mine." in ran.text
    assert second.value("int(again.a[0])") == "7"
    notes = control.state_dir / "spark-sessions"
    assert len(list(notes.iterdir())) == 1
    second.manager.shutdown_kernel(now=False)
    assert list(notes.iterdir()) == []
    control.client().spark_stop("default")
    # The session was the same one all along: no cell has started another server.
    (view,) = [job for job in control.client().jobs(all=True, kind="spark").jobs if job.id not in before]
    assert control.client().wait(view.id, timeout_s=150).phase == "Cancelled"


@pytest.mark.feature("M11")
def test_an_idle_session_gives_way_to_its_owners_job_and_both_cells_say_so(
    new_kernel: Callable[..., Kernel], control: ControlPlane
) -> None:
    mine = new_kernel("gives-way.ipynb")
    ran = mine.run("%%sparksql df\nCREATE TEMPORARY VIEW daily AS SELECT 1 AS a; SELECT a FROM daily", timeout=120)
    assert ran.status == "ok", ran.error
    (session,) = [view for view in control.client().spark_sessions() if view.name == "default"]
    cores = os.cpu_count() or 1
    assert int(session.cpus) == min(2, max(1, cores // 2))
    refused = mine.run("%%submit n --memory 256Mi\nspark.range(3).count()")
    assert refused.error.startswith("BadInput: spark is a Spark session, which lives in this notebook"), refused.error
    waited = mine.run(f"%%submit cores --cpus {cores} --memory 256Mi\nimport os\nos.cpu_count()", timeout=120)
    assert waited.status == "ok", waited.error
    holder = "held by your Spark session 'default', which gives way once idle for 20 s (`%spark stop` frees it now)"
    assert holder in waited.text
    assert control.client().job(session.job_id).phase == "Cancelled"
    history = [event.text for event in control.client().events(session.job_id)]
    assert "attempt 1: was idle and gave way to your job cores, which waited for what it held" in history
    again = mine.run("%%sparksql\nSELECT 2 AS b", timeout=120)
    assert again.status == "ok", again.error
    told = "was idle and gave way to your job cores, which waited for what it held; it was started again."
    assert f"Spark session default {told} Its temporary view daily is gone." in again.text
    assert mine.run("%spark stop").status == "ok"


def test_without_spark_the_magic_says_how_to_install_it(kernel: Kernel) -> None:
    ran = kernel.run(
        "import tuttilab.magics.extension as extension\nextension.has_spark = lambda: False\n"
        "extension.load(get_ipython())\nget_ipython().run_cell_magic('spark', '', '1')"
    )
    sentence = "Spark is not installed in this kernel; `%pip install 'tuttilab[spark]'`, then restart the kernel."
    assert ran.error == f"UsageError: {sentence}"
