"""Spark sessions as jobs of the service: the provider behind `%%spark`, and a kernel that dies during a Spark cell."""

import re
from collections.abc import Callable

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(300)]


@pytest.mark.feature("M11", "B04")
def test_a_session_is_a_job_that_outlives_the_kernel(new_kernel: Callable[..., Kernel], control: ControlPlane) -> None:
    first = new_kernel("spark.ipynb")
    ran = first.run("%%sparksql df\nSELECT 41 + 1 AS a", timeout=120)
    assert ran.status == "ok", ran.error
    assert "Spark session default: its server is starting" in ran.text
    assert first.value("int(df.a[0])") == "42"
    assert re.search(r"\* +default +ready", first.run("%spark list").text)
    assert "spark-default" in first.run("%jobs").text
    slow = (
        "import time\nfrom pyspark.sql.functions import udf\n"
        "@udf('long')\ndef slowly(n):\n    time.sleep(0.5)\n    return n + 1\n"
        "spark.range(0, 16, numPartitions=2).select(slowly('id').alias('n'))"
    )
    message = first.send(f"%%spark kept\n{slow}")
    first.gather(message, timeout=60, until=lambda said: "of 2 tasks" in said.text or "running" in said.text)
    first.kill()
    second = new_kernel("spark.ipynb")
    ran = second.run("%attach", timeout=60)
    assert "A Spark cell of a kernel that died: import time" in ran.text
    assert second.value("int(kept.n.sum())") == "136", ran.text
    # The session is the same one: a second cell starts no server.
    assert second.run("%%sparksql\nSELECT 1", timeout=60).seconds < 10
    assert second.run("%spark stop").status == "ok"
    (view,) = control.client().jobs(all=True, kind="spark").jobs
    assert control.client().wait(view.id, timeout_s=60).phase == "Cancelled"


def test_without_spark_the_magic_says_how_to_install_it(kernel: Kernel) -> None:
    ran = kernel.run(
        "import tuttilab.magics.extension as extension\nextension.has_spark = lambda: False\n"
        "extension.load(get_ipython())\nget_ipython().run_cell_magic('spark', '', '1')"
    )
    sentence = "Spark is not installed in this kernel; `%pip install 'tuttilab[spark]'`, then restart the kernel."
    assert ran.error == f"UsageError: {sentence}"
