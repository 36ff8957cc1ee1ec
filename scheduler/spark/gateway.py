"""Starts a Spark Connect server in a Java process, and queries its activity.

The Java process is started without Spark's launcher script and runs Spark's own gateway for Python (py4j), so settings reach it
over an authenticated loopback connection: the session's token appears neither on a command line nor in a file nor in an
environment. Java ends when this process ends, for whatever reason, because its standard input closes then. The gateway also lists
the running operations of all sessions, which the Connect protocol shows only session by session, and ends what is left of
those that were stopped.
"""

from __future__ import annotations

import logging
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from py4j.java_gateway import GatewayParameters, JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.spark.java import Java

# py4j logs a traceback for every object that Java still holds when Java ends, and every session ends that way.
logging.getLogger("py4j").setLevel(logging.CRITICAL)

_SERVICE = "org.apache.spark.sql.connect.service.SparkConnectService"
# The tag that Spark gives to the jobs of an operation (its ExecuteJobTag).
_OPERATION_TAG = re.compile(
    r"SparkConnect_OperationTag_User_(?P<user>.*)_Session_(?P<session>[^_]+)_Operation_(?P<operation>[^_\s]+)"
)
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
# The notebook shows failed queries to the user who wrote them.
logger.queries.name = org.apache.spark.sql.connect.utils.ErrorUtils
logger.queries.level = off
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.address.name = org.apache.spark.util.Utils
logger.address.level = error
"""


class ServerFailed(EnvironmentProblem):
    """Spark did not start, or ended by itself."""


class ConnectServer:
    """A running server; make it with `start`. `port` and `ui_port` (None without the web UI) are on 127.0.0.1."""

    def __init__(
        self,
        java: subprocess.Popen[bytes],
        gateway: JavaGateway,
        context: Any,  # Any: a Java object
        port: int,
        ui_port: int | None,
    ) -> None:
        self.java = java
        self.port = port
        self.ui_port = ui_port
        self._gateway = gateway
        self._context = context
        self._ended_well: set[str] = set()
        """Operations whose jobs go on and may: to ask again would count as a use of their session."""

    @classmethod
    def start(
        cls, java: Java, conf: Mapping[str, str], heap_bytes: int, directory: Path, environ: Mapping[str, str]
    ) -> ConnectServer:
        """Start Java and the server in `directory`. Raises ServerFailed with the first sentence of Spark's error."""
        process, gateway = _start_java(java, heap_bytes, directory, environ)
        try:
            jvm = gateway.jvm
            settings = jvm.org.apache.spark.SparkConf(False)
            for key, value in conf.items():
                settings.set(key, value)
            session = jvm.org.apache.spark.sql.classic.SparkSession.builder().config(settings).getOrCreate()
            context = session.sparkContext()
            service = getattr(jvm, _SERVICE)
            service.start(context)
            port = int(getattr(getattr(jvm, _SERVICE + "$"), "MODULE$").localPort())
            url = context.uiWebUrl()
            ui_port = int(str(url.get()).rsplit(":", 1)[1]) if url.isDefined() else None
        except Py4JJavaError as error:
            process.kill()
            raise ServerFailed(f"Spark did not start: {_first_sentence(str(error.java_exception))}") from error
        except Py4JError as error:
            process.kill()
            raise ServerFailed("Spark did not start: Java ended while it came up; see the lines above.") from error
        return cls(process, gateway, context, port, ui_port)

    def activity(self) -> tuple[bool, str]:
        """Whether an operation runs or its result waits to be fetched, and a text that changes with every request.

        The text holds the time of the last operation and of each session's last access. An open connection and keep-alive pings do
        not change it.
        """
        executions = getattr(self._gateway.jvm, _SERVICE).listActiveExecutions()
        module = getattr(getattr(self._gateway.jvm, _SERVICE + "$"), "MODULE$")
        sessions = str(module.sessionManager().listActiveSessions().mkString())
        if executions.isRight():
            return True, sessions
        return False, f"{executions.toString()} {sessions}"

    def end_leftovers(self) -> int:
        """Cancel running jobs of operations that were stopped or failed; returns how many.

        Spark cancels an operation's jobs once, when it is interrupted. A stage that its planner submits from another thread after
        that runs to its end with nobody left who waits for it. Jobs of operations that live, or that ended well, stay: a
        streaming query runs with the tag of the operation that started it.
        """
        ended = 0
        for job_id in list(self._context.statusTracker().getActiveJobIds()):
            tags = str(self._context.statusStore().job(job_id).jobTags().mkString("\n"))
            found = _OPERATION_TAG.search(tags)
            if found is not None and self._was_stopped(**found.groupdict()):
                self._context.cancelJob(job_id, "the operation that it belongs to was stopped")
                ended += 1
        return ended

    def _was_stopped(self, user: str, session: str, operation: str) -> bool:
        jvm = self._gateway.jvm
        module = getattr(getattr(jvm, _SERVICE + "$"), "MODULE$")
        service = jvm.org.apache.spark.sql.connect.service
        if (
            operation in self._ended_well
            or module.executionManager().getExecuteHolder(service.ExecuteKey(user, session, operation)).isDefined()
        ):
            return False
        holder = module.sessionManager().getIsolatedSessionIfPresent(service.SessionKey(user, session))
        if holder.isEmpty():
            return True  # with a session all its operations and streams end
        info = holder.get().getInactiveOperationInfo(operation)
        if info.isEmpty():
            return False  # just now on its way out
        if "Succeeded" in str(info.get().terminationReason().toString()):
            self._ended_well.add(operation)
            return False
        return True

    def stop(self, grace_s: float) -> int | None:
        """Terminate Java, which removes its temporary files; kill it after `grace_s`. Returns its exit code."""
        if self.java.poll() is None:
            self.java.terminate()
        try:
            return self.java.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.java.kill()
            return self.java.wait(10)


def spark_home() -> Path:
    """The folder of the installed pyspark, found without the import, which would cost a second and 60 MB."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem("pyspark is not installed: run `pip install tuttilab[spark]`.")
    return Path(spec.origin).parent


def _start_java(
    java: Java, heap_bytes: int, directory: Path, environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], JavaGateway]:
    home = spark_home()
    for name in ("spark-local", "warehouse", "tmp"):
        (directory / name).mkdir(mode=0o700, exist_ok=True)
    log4j = directory / "log4j2.properties"
    log4j.write_text(_LOG4J)
    handshake_dir = Path(tempfile.mkdtemp(prefix="gateway-", dir=directory))
    handshake = handshake_dir / "info"
    command = [
        str(java.executable),
        f"-Xmx{heap_bytes}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-Dio.netty.tryReflectionSetAccessible=true",
        "-Dio.netty.allocator.type=pooled",
        f"-Djava.io.tmpdir={directory / 'tmp'}",
        f"-Dderby.system.home={directory / 'derby'}",
        f"-Dlog4j2.configurationFile=file:{log4j}",
        "--enable-native-access=ALL-UNNAMED",
        # From Java 24 on, Netty and with it Arrow do not work without these.
        *(("--sun-misc-unsafe-memory-access=allow", "-Dio.netty.noUnsafe=false") if java.version >= 24 else ()),
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
        "-cp",
        f"{home / 'jars'}/*",
        "org.apache.spark.api.python.PythonGatewayServer",
    ]
    env = dict(environ) | {
        "JAVA_HOME": str(java.home),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(directory / "spark-local"),
        "PYSPARK_PYTHON": environ.get("PYSPARK_PYTHON", sys.executable),
        "PYSPARK_DRIVER_PYTHON": environ.get("PYSPARK_PYTHON", sys.executable),
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(handshake),
    }
    for name in ("SPARK_REMOTE", "SPARK_CONNECT_MODE", "SPARK_CONNECT_AUTHENTICATE_TOKEN"):
        env.pop(name, None)
    process = subprocess.Popen(command, cwd=directory, env=env, stdin=subprocess.PIPE)
    while not handshake.exists():
        if process.poll() is not None:
            raise ServerFailed(f"Java ({java.home}) ended with code {process.returncode} before Spark came up.")
        time.sleep(0.02)
    port, secret = _read_handshake(handshake)
    handshake.unlink()
    handshake_dir.rmdir()
    return process, JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=secret))


def _read_handshake(path: Path) -> tuple[int, str]:
    """Port and secret as PythonGatewayServer writes them, which renames the file when it is complete."""
    data = path.read_bytes()
    port, length = struct.unpack(">ii", data[:8])
    return port, data[8 : 8 + length].decode()


def _first_sentence(message: str) -> str:
    """The first line of a Java exception without its class name."""
    line = message.splitlines()[0] if message else "no reason given"
    head, colon, rest = line.partition(": ")
    return rest if colon and "." in head and " " not in head else line
