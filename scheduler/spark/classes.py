"""Spark's classes, loaded and checked once and then shared: Java's application class-data sharing (JEP 350).

Half of the time in which a session starts, Java loads and verifies Spark's classes. `make_archive` runs one session of a few
typical cells and lets Java write what it loaded into a file below the environment, `share/tuttilab/spark-classes`; every later
start maps that file. Java compares the file with its own version and with each jar, and goes without where they differ.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of_package
from pathlib import Path
from typing import Final

from tuttilab.scheduler.domain.errors import EnvironmentProblem, TuttiError
from tuttilab.scheduler.spark.java import Java, find_java

LIMIT_S: Final = 300.0
"""For the run that loads the classes, and again for the writing."""
KEPT: Final = 3
"""Archives, of 200 MB each: of other Javas, or of the Spark before."""
_CELLS: Final = """\
import sys
import pandas as pd
from pyspark.sql.connect.session import SparkSession

spark = SparkSession.builder.remote(sys.stdin.readline().strip()).create()
numbers = range(1000)
table = pd.DataFrame({"key": [n % 7 for n in numbers], "day": pd.Timestamp("2026-01-01"), "amount": [n / 3 for n in numbers]})
frame = spark.createDataFrame(table)
frame.createOrReplaceTempView("trades")
query = "SELECT key, day, sum(amount) AS amount, count(*) AS n FROM trades WHERE amount > :least GROUP BY key, day"
sums = spark.sql(query, {"least": 3})
sums.orderBy("key").toPandas()
frame.selectExpr("key", "rank() OVER (PARTITION BY key ORDER BY amount) AS place").filter("place < 3").collect()
both = frame.alias("a").join(sums.alias("b"), "key")
both.selectExpr("key", "cast(b.amount AS decimal(20, 2)) AS amount", "n").toPandas()
frame.write.mode("overwrite").parquet(sys.argv[1])
spark.read.parquet(sys.argv[1]).groupBy("key").count().toArrow()
spark.sql("SHOW TABLES").collect()
spark.stop()
"""


def folder() -> Path:
    return Path(sys.prefix) / "share" / "tuttilab" / "spark-classes"


def archive_of(java: Java) -> Path:
    """Where the archive for this Java and this Spark is, or would be."""
    try:
        release = (java.home / "release").read_text(encoding="utf-8")
    except OSError:
        release = ""
    facts = (release, str((java.home / "lib").resolve()), version_of_package("pyspark"), sys.prefix)
    return folder() / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.jsa"


def options(java: Java) -> list[str]:
    """Of a Java process with Spark's classes alone; none while there is no archive."""
    archive = archive_of(java)
    if not archive.is_file():
        return []
    # An archive that does not fit is no fault: Java starts without it, and the session's log is not the place to say so.
    quiet = ["-Xlog:cds*=off", *(["-Xlog:aot*=off"] if java.version >= 24 else [])]
    return [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", *quiet]


def make_archive(
    environ: Mapping[str, str], *, again: bool = False, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, bool]:
    """The archive for the Java that sessions get with `environ`, and whether it was made now. Raises EnvironmentProblem.

    Takes some 40 s of CPU time. One process makes it at a time; others wait for that one.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = (folder() / "lock").open("w")
    except OSError as error:
        raise EnvironmentProblem(
            f"The archive of Spark's classes cannot be kept in {folder()}: {error.strerror}. Run this as who owns that folder."
        ) from error
    with lock, tempfile.TemporaryDirectory(prefix="tuttilab-spark-") as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory = Path(scratch)
        java = find_java(environ, directory)
        archive = archive_of(java)
        if archive.is_file() and not again:
            return archive, False
        say(f"loading Spark's classes with Java {java.version} ({java.home}): up to a minute")
        archive.unlink(missing_ok=True)
        fresh = archive.with_name(f".{archive.name}.{os.getpid()}")
        try:
            _run_and_write(java, directory, environ, fresh)
            fresh.replace(archive)
        finally:
            fresh.unlink(missing_ok=True)
        for old in sorted(folder().glob("*.jsa"), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
            old.unlink(missing_ok=True)
    return archive, True


def _run_and_write(java: Java, directory: Path, environ: Mapping[str, str], to: Path) -> None:
    """Run a session of some cells in `directory`, whose Java writes the classes that it loaded when it ends."""
    # Both are slow to import, and `options` is asked in every pod.
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]

    from tuttilab.scheduler.spark.conf import SparkSpec, server_conf
    from tuttilab.scheduler.spark.gateway import ConnectServer

    token = secrets.token_urlsafe(24)
    conf = server_conf(SparkSpec(cores=1, memory_bytes=2**30), token, directory)
    log = directory / "log"
    # In the environment and not among the arguments: it is read by the launcher of any Java from 9 on.
    beside = {
        **environ,
        "JDK_JAVA_OPTIONS": f"-XX:ArchiveClassesAtExit={to} -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xlog:cds*=off",
    }
    with log.open("w") as output:
        server = ConnectServer.start(java, conf, 2**29, directory, beside, output=output)
        try:
            cells = subprocess.run(
                [sys.executable, "-c", _CELLS, str(directory / "table")],
                input=f"sc://localhost:{server.port}/;token={token}\n",
                cwd=directory, env=dict(environ), stdout=output, stderr=output, text=True, timeout=LIMIT_S,
            )  # fmt: skip
            try:
                server.gateway.jvm.java.lang.System.exit(0)
            except Py4JError:
                pass  # it answers no more
            server.java.wait(LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise TuttiError(f"Spark did not come to an end within {LIMIT_S:g} s while its classes were loaded.") from error
        finally:
            server.stop(1.0)
    if cells.returncode != 0 or not to.exists():
        said = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise EnvironmentProblem(f"Java {java.version} ({java.home}) wrote no archive of Spark's classes: {' '.join(said)[:300]}")
