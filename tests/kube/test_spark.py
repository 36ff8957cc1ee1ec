"""Spark on Kubernetes: sessions and applications with executors as one gang of real containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import Kernel
from tests.kube import spark_image
from tests.kube.job_site import RESTRICTED, Site, made_site
from tests.kube.real import RealCluster

pytestmark = [pytest.mark.tier("real-pods"), pytest.mark.timeout(1200)]
SIZE = "--executors 2 --executor-memory 512m --driver-memory 640m"
WHERE = """
import os
from pyspark.sql.functions import udf
@udf("string")
def where(n):
    import time
    time.sleep(0.2)
    return os.environ["TUTTILAB_RANK"] + os.environ.get("_SPARK_AUTH_SECRET", "")
tasks = spark.range(0, 40, 1, 8).select(where("id").alias("w")).distinct().toPandas()
"""


@pytest.fixture(scope="module")
def site(product_cluster: RealCluster, product_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("spark-image")
    for image in spark_image.made(place):
        product_cluster.load_image(image)
        image.unlink()
    with (
        product_cluster.namespace(labels=RESTRICTED) as namespace,
        made_site(product_cluster, product_kubeconfig, namespace, tmp_path_factory.mktemp("site")) as site,
    ):
        site.settings["spark_image"] = spark_image.SPARK
        site.up()
        yield site


@pytest.fixture
def kernel(site: Site, tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel({**site.machine.environ, "IPYTHONDIR": str(tmp_path / "ipython")}, "spark.ipynb", cwd=site.machine.home)
    yield made
    made.close()


def ok(kernel: Kernel, cell: str) -> str:
    ran = kernel.run(cell, 400)
    assert ran.status == "ok", ran.error
    return ran.text + ran.stdout


def test_thin(site: Site, kernel: Kernel) -> None:
    ok(kernel, f"%spark start wide {SIZE} --ui")
    ok(kernel, "%%spark --session wide --quiet\n" + WHERE)
    assert kernel.value("sorted(tasks.w)") == "['1', '2']"
