"""Starts a Spark Connect server in a Java process, and queries its activity.

The Java process is started without Spark's launcher script and runs Spark's own gateway for Python (py4j), so settings reach it
over an authenticated loopback connection: the session's token appears neither on a command line nor in a file nor in an
environment. Java ends when this process ends, for whatever reason, because its standard input closes then. The gateway also lists
the running operations of all sessions, which the Connect protocol shows only session by session, and ends what is left of
those that were stopped.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from py4j.java_gateway import GatewayParameters, JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]

from tuttilab.scheduler.domain.errors import EnvironmentProblem
from tuttilab.scheduler.spark.java import Java
from tuttilab.scheduler.spark.pod import stop_java
from tuttilab.scheduler.spark.process import java_command, java_environment


def is_told(record: logging.LogRecord) -> bool:
    """Whether a record of the root logger is for a session's log: py4j writes a traceback there for what it also raises.

    It does so for every object that Java still holds when Java ends, and every session ends that way.
    """
    return Path(record.pathname).parent.name != "py4j"


logging.getLogger("py4j").setLevel(logging.CRITICAL)
logging.getLogger().addFilter(is_told)

REGISTER_S = 300.0
"""Within this time all executors have to be there: by then every pod of the gang has started."""
_SERVICE = "org.apache.spark.sql.connect.service.SparkConnectService"
# The tag that Spark gives to the jobs of an operation (its ExecuteJobTag).
_OPERATION_TAG = re.compile(
    r"SparkConnect_OperationTag_User_(?P<user>.*)_Session_(?P<session>[^_]+)_Operation_(?P<operation>[^_\s]+)"
)


def versions() -> dict[str, str]:
    """Settings by which a kernel sees with which Python functions run here, and which Spark (magics/spark/sessions.py)."""
    major, minor = sys.version_info[:2]
    return {"spark.tuttilab.python": f"{major}.{minor}", "spark.tuttilab.spark": importlib.metadata.version("pyspark")}


class ServerFailed(EnvironmentProblem):
    """Spark did not start, or ended by itself."""


def wait_for(count: Callable[[], int], wanted: int, what: str, java: subprocess.Popen[bytes]) -> None:
    """Wait until so many are there. Raises ServerFailed after `REGISTER_S`, and when Java ends."""
    until = time.monotonic() + REGISTER_S
    while (there := count()) < wanted:
        if java.poll() is not None:
            raise ServerFailed("Spark ended by itself while its executors came up; see the lines above.")
        if time.monotonic() > until:
            raise ServerFailed(
                f"only {there} of {wanted} {what} registered within {REGISTER_S:g} s; the logs of the executors' ranks say why."
            )
        time.sleep(0.1)


class ConnectServer:
    """A running server; make it with `start`. `port` and `ui_port` (None without the web UI) are on `host`."""

    def __init__(
        self,
        java: subprocess.Popen[bytes],
        gateway: JavaGateway,
        context: Any,  # Any: a Java object
        port: int,
        ui_port: int | None,
        host: str = "127.0.0.1",
    ) -> None:
        self.java = java
        self.port = port
        self.ui_port = ui_port
        self.host = host
        self.gateway = gateway
        self._context = context
        self._java_ends: int | None = None
        """A descriptor that is ready when Java has ended."""
        self._ended_well: set[str] = set()
        """Operations whose jobs go on and may: to ask again would count as a use of their session."""

    @classmethod
    def start(
        cls,
        java: Java,
        conf: Mapping[str, str],
        heap_bytes: int,
        directory: Path,
        environ: Mapping[str, str],
        executors: int = 0,
        prepare: Callable[[JavaGateway], object] = lambda _gateway: None,
        output: IO[str] | None = None,
    ) -> ConnectServer:
        """Start Java and the server in `directory`, once all `executors` are registered. `prepare` is called before Spark starts.

        ``output``: where Java writes; None: where this process does.
        Raises ServerFailed with the first sentence of Spark's error.
        """
        host = conf["spark.connect.grpc.binding.address"]
        process, gateway = start_java(java, heap_bytes, directory, environ, host=host, output=output)
        try:
            jvm = gateway.jvm
            prepare(gateway)
            settings = jvm.org.apache.spark.SparkConf(False)
            for key, value in {**conf, **versions()}.items():
                settings.set(key, value)
            session = jvm.org.apache.spark.sql.classic.SparkSession.builder().config(settings).getOrCreate()
            context = session.sparkContext()
            # One of those that hold blocks is the driver itself.
            wait_for(lambda: int(context.getExecutorMemoryStatus().size()) - 1, executors, "executors", process)
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
        except BaseException:
            process.kill()
            raise
        return cls(process, gateway, context, port, ui_port, host)

    def activity(self) -> tuple[bool, str]:
        """Whether an operation runs or its result waits to be fetched, and a text that changes with every request.

        The text holds the time of the last operation and of each session's last access. An open connection and keep-alive pings do
        not change it.
        """
        executions = getattr(self.gateway.jvm, _SERVICE).listActiveExecutions()
        module = getattr(getattr(self.gateway.jvm, _SERVICE + "$"), "MODULE$")
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
        jvm = self.gateway.jvm
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

    def wait(self, seconds: float) -> int | None:
        """Java's exit code as soon as it has ended; None when it lives after so long."""
        if (code := self.java.poll()) is not None:
            return code
        if self._java_ends is None:
            self._java_ends = os.pidfd_open(self.java.pid)
        select.select([self._java_ends], [], [], seconds)
        return self.java.poll()

    def stop(self, grace_s: float) -> int | None:
        """Terminate Java, which removes its temporary files; kill it after `grace_s`. Returns its exit code."""
        return stop_java(self.java, grace_s)


def start_java(
    java: Java,
    heap_bytes: int,
    directory: Path,
    environ: Mapping[str, str],
    host: str = "127.0.0.1",
    *,
    is_batch: bool = False,
    output: IO[str] | None = None,
) -> tuple[subprocess.Popen[bytes], JavaGateway]:
    """Start Java with Spark's classes and its gateway; ports of Spark are bound at `host`. Raises ServerFailed."""
    handshake_dir = Path(tempfile.mkdtemp(prefix="gateway-", dir=directory))
    handshake = handshake_dir / "info"
    command = [*java_command(java, heap_bytes, directory, is_batch=is_batch), "org.apache.spark.api.python.PythonGatewayServer"]
    env = java_environment(java, directory, environ, host) | {"_PYSPARK_DRIVER_CONN_INFO_PATH": str(handshake)}
    process = subprocess.Popen(command, cwd=directory, env=env, stdin=subprocess.PIPE, stdout=output, stderr=output)
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
