"""What tests run on executors, on one machine and in containers: a query of each executor, one without end, an application."""

from __future__ import annotations

import zipfile
from pathlib import Path

ENDLESS = "SELECT count(*) FROM range(0, 100000000000, 1, 8) WHERE id % 7 = rand()"
WHERE = """
import os
from pyspark.sql.functions import udf
@udf("string")
def where(n):
    import time
    time.sleep(0.2)
    return os.environ["TUTTILAB_RANK"] + os.environ.get("_SPARK_AUTH_SECRET", "")
ranks = sorted(row.w for row in spark.range(0, 40, 1, 8).select(where("id").alias("w")).distinct().collect())
"""
"""A cell after which `ranks` has the ranks that ran tasks, each with the secret that it saw."""
HELPERS = "def twice(number):\n    return 2 * number\n"
MAIN = """
import os, sys
from pyspark.sql import SparkSession
from pyspark.sql.functions import udf

spark = SparkSession.builder.getOrCreate()

@udf("string")
def where(number):
    from helpers import twice
    import time
    time.sleep(0.2)
    print("task", number, flush=True)
    return f"{os.environ['TUTTILAB_RANK']} {open('data/note.txt').read()} {twice(1)} {os.environ.get('_SPARK_AUTH_SECRET', '')}"

rows = spark.range(0, 24, 1, 8).select(where("id").alias("w")).distinct().collect()
print("seen:", sorted(row.w for row in rows))
conf = spark.sparkContext.getConf()
print("read:", [conf.get(key) for key in sys.argv[2:]])
spark.stop()
sys.exit(int(sys.argv[1]))
"""
"""Its arguments: the exit code, and the settings that it prints."""


def write_application(folder: Path) -> None:
    """main.py with what it reads: helpers.py, and note.txt of the archive note.zip."""
    (folder / "main.py").write_text(MAIN)
    (folder / "helpers.py").write_text(HELPERS)
    with zipfile.ZipFile(folder / "note.zip", "w") as archive:
        archive.writestr("note.txt", "noted")
