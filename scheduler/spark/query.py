"""Runs one SQL statement as a job: `python -m tuttilab.scheduler.spark.query --save FILE`, the statement in TUTTILAB_SPARK_SQL.

Spark runs inside the job's pod, sized by the pod's resources, and saves the result as one Parquet, CSV or JSON file. The file
appears whole or not at all: Spark writes to another folder, then the file is copied and renamed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.spark.conf import heap_bytes
from tuttilab.scheduler.spark.java import find_java

FORMATS: Final[Mapping[str, Mapping[str, str]]] = {".parquet": {}, ".csv": {"header": "true"}, ".json": {}}


def main() -> int:
    options = argparse.ArgumentParser(description="Run one SQL statement on Spark and save its result as one file.")
    options.add_argument("--save", required=True, type=Path)
    options.add_argument("--memory-bytes", type=int, default=2 * 2**30, help="what the pod may use; the heap is a part of it")
    given = options.parse_args()
    target: Path = given.save
    try:
        rows = save(os.environ.get("TUTTILAB_SPARK_SQL", ""), target, given.memory_bytes, os.environ)
    except TuttiError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except PySparkException as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.stderr.write("\n".join(["The statement failed:", *lines[:8], ""]))
        return 1
    sys.stdout.write(f"saved {rows} rows to {target}\n")
    return 0


def save(statement: str, target: Path, memory_bytes: int, environ: Mapping[str, str]) -> int:
    """Save the statement's result; returns the number of rows. Raises BadInput for an empty statement or an unknown suffix."""
    if not statement.strip():
        raise BadInput("spark_sql: the statement is empty; expected one SQL statement.")
    if target.suffix not in FORMATS:
        raise BadInput(f"save: {str(target)!r} ends in {target.suffix!r}; expected one of {', '.join(FORMATS)}.")
    scratch = Path.cwd() / f".{target.name}.{environ.get('TUTTILAB_JOB_ID', os.getpid())}"
    os.environ["JAVA_HOME"] = str(find_java(environ, Path(environ.get("DATA_DIR", "."))).home)
    cores = environ.get("OMP_NUM_THREADS", "1")
    builder = SparkSession.builder.master(f"local[{cores}]").appName("query")
    spark = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.driver.memory", f"{heap_bytes(memory_bytes) // 2**20}m")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .getOrCreate()
    )
    try:
        answer = spark.sql(statement)
        parts = scratch / "parts"
        answer.coalesce(1).write.options(**FORMATS[target.suffix]).format(target.suffix[1:]).save(str(parts))
        (part,) = parts.glob(f"part-*{target.suffix}")
        rows = spark.read.options(**FORMATS[target.suffix]).format(target.suffix[1:]).schema(answer.schema).load(str(parts)).count()
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(part, temporary)
        temporary.replace(target)
        return rows
    finally:
        spark.stop()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
