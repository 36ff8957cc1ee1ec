"""A Spark Connect server in a Java process of our own, and the few questions we ask it.

The Java process is started without Spark's launcher script and runs Spark's own gateway for Python, so settings reach it
over an authenticated loopback connection: the secret token appears neither on a command line nor in a file nor in the
environment of a process. The gateway ends Java when our end of its standard input closes, whatever the cause of our
death. The gateway also answers which operations are running, which the Connect protocol tells only session by session.
"""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from py4j.java_gateway import GatewayParameters, JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]

from tuttilab.scheduler.errors import EnvironmentProblem
from tuttilab.scheduler.spark.java import Java

# It logs a traceback for every object that Java still holds when Java ends, which here is how each session ends.
logging.getLogger("py4j").setLevel(logging.CRITICAL)

_SERVICE = "org.apache.spark.sql.connect.service.SparkConnectService"
# As Spark's launcher does for a driver (org.apache.spark.launcher.JavaModuleOptions), less the module that small Java
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
# Failed queries are the notebook's business: it shows them to the person who wrote them.
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
    """Spark did not start, or stopped by itself."""


class ConnectServer:
    """One running server. Use `start`; `port` is where it listens on 127.0.0.1, `ui_port` its pages if they are on."""

    def __init__(self, java: subprocess.Popen[bytes], gateway: JavaGateway, port: int, ui_port: int | None) -> None:
        self.java = java
        self.port = port
        self.ui_port = ui_port
        self._gateway = gateway

    @classmethod
    def start(
        cls, java: Java, conf: Mapping[str, str], heap_bytes: int, directory: Path, environ: Mapping[str, str]
    ) -> ConnectServer:
        """Start Java and the server in `directory`; raises ServerFailed with Spark's own first sentence."""
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
        return cls(process, gateway, port, ui_port)

    def activity(self) -> tuple[bool, str]:
        """Whether an operation is running or waits to be fetched, and a text that changes with every request.

        The text is made of the time of the last operation and of each session's last access. An open connection alone
        changes nothing, and neither do keep-alive pings.
        """
        executions = getattr(self._gateway.jvm, _SERVICE).listActiveExecutions()
        module = getattr(getattr(self._gateway.jvm, _SERVICE + "$"), "MODULE$")
        sessions = str(module.sessionManager().listActiveSessions().mkString())
        if executions.isRight():
            return True, sessions
        return False, f"{executions.toString()} {sessions}"

    def stop(self, grace_s: float) -> int | None:
        """End Java and clean its temporary files; killed after `grace_s`. Returns its exit code."""
        if self.java.poll() is None:
            self.java.terminate()
        try:
            return self.java.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.java.kill()
            return self.java.wait(10)


def spark_home() -> Path:
    """The folder of the installed pyspark, found without importing it: that would cost a second and 60 MB."""
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
        # From Java 24 on, Netty and with it Arrow refuse to work without.
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
    """Port and secret as PythonGatewayServer writes them; the file appears by a rename, so it is whole."""
    data = path.read_bytes()
    port, length = struct.unpack(">ii", data[:8])
    return port, data[8 : 8 + length].decode()


def _first_sentence(message: str) -> str:
    """The first line of a Java exception without its class name."""
    line = message.splitlines()[0] if message else "no reason given"
    head, colon, rest = line.partition(": ")
    return rest if colon and "." in head and " " not in head else line
