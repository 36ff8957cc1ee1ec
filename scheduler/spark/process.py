"""A Java process with Spark's classes: its command line, its environment, and what it logs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.spark import classes
from tuttilab.scheduler.spark.java import Java

EXECUTORS_JAVA_HOME = "TUTTILAB_EXECUTORS_JAVA_HOME"
"""In the environment for a worker: the Java home of the executors that it starts."""
# As Spark's launcher does for a driver (org.apache.spark.launcher.JavaModuleOptions), without the module that small Java
# runtimes lack.
_OPENED = (
    *(f"java.base/java.{name}" for name in ("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util")),
    *(f"java.base/java.util.{name}" for name in ("concurrent", "concurrent.atomic")),
    *(f"java.base/sun.{name}" for name in ("nio.ch", "nio.cs", "security.action", "util.calendar")),
    "java.base/jdk.internal.ref",
    "java.security.jgss/sun.security.krb5",
)
_LOG4J = """\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n%ex{8}
# Its executors register one by one, and until then each application asks for more than there is.
logger.master.name = org.apache.spark.deploy.master.Master
logger.master.level = error
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.address.name = org.apache.spark.util.Utils
logger.address.level = error
"""
_SHOWN_IN_CELLS = """\
# The notebook shows failed queries to the user who wrote them.
logger.queries.name = org.apache.spark.sql.connect.utils.ErrorUtils
logger.queries.level = off
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
"""


def spark_home() -> Path:
    """The folder of the installed pyspark, found without the import, which would cost a second and 60 MB."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem("pyspark is not installed: run `pip install tuttilab[spark]`.")
    return Path(spec.origin).parent


def java_command(java: Java, heap_bytes: int, directory: Path, *, is_batch: bool = False) -> list[str]:
    """All but the main class. `directory` is the pod's own; folders and the settings of the log are made in it."""
    for name in ("spark-local", "warehouse", "tmp"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    return [
        str(java.executable),
        f"-Xmx{heap_bytes}",
        *classes.options(java),
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dio.netty.allocator.type=pooled",
        f"-Djava.io.tmpdir={directory / 'tmp'}",
        f"-Dderby.system.home={directory / 'derby'}",
        f"-Dlog4j2.configurationFile=file:{write_log4j(directory, is_batch)}",
        "--enable-native-access=ALL-UNNAMED",
        # From Java 24 on, Netty and with it Arrow do not work without these.
        *(("--sun-misc-unsafe-memory-access=allow", "-Dio.netty.noUnsafe=false") if java.version >= 24 else ()),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        "-cp",
        f"{spark_home() / 'jars'}/*",
    ]


def java_environment(java: Java, directory: Path, environ: Mapping[str, str], host: str) -> dict[str, str]:
    """Spark's ports are bound at `host`."""
    home = spark_home()
    env = dict(environ) | {
        "JAVA_HOME": environ.get(EXECUTORS_JAVA_HOME, str(java.home)),
        "SPARK_SCALA_VERSION": scala_version(home),  # else its launcher looks for it in folders that only Spark's source has
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": host,
        "SPARK_LOCAL_DIRS": str(directory / "spark-local"),
        "PYSPARK_PYTHON": environ.get("PYSPARK_PYTHON", sys.executable),
        "PYSPARK_DRIVER_PYTHON": environ.get("PYSPARK_PYTHON", sys.executable),
    }
    of_clients = ("SPARK_REMOTE", "SPARK_CONNECT_MODE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_CONNECT_AUTHENTICATE_TOKEN")
    for name in (EXECUTORS_JAVA_HOME, *of_clients):
        env.pop(name, None)
    return env


def write_log4j(directory: Path, is_batch: bool) -> Path:
    """What Spark's processes in this pod write to its log. Failed tasks of a session are shown by its cells."""
    log4j = directory / "log4j2.properties"
    log4j.write_text(_LOG4J if is_batch else _LOG4J + _SHOWN_IN_CELLS)
    return log4j


def scala_version(home: Path) -> str:
    """Of the installed Spark, as its launcher wants it."""
    (core,) = (home / "jars").glob("spark-core_*.jar")
    return core.name.removeprefix("spark-core_").partition("-")[0]
