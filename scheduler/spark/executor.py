"""The main process of an executor's pod: a Spark worker that takes one executor and joins the master in the driver's pod.

It has no end of its own: the gang ends it. It ends with code 1 when its Java does.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]

from tuttilab.scheduler.core.kinds.spark_size import MIB, SparkSize
from tuttilab.scheduler.spark import standalone
from tuttilab.scheduler.spark.conf import Master
from tuttilab.scheduler.spark.gateway import REGISTER_S, ServerFailed, start_java
from tuttilab.scheduler.spark.java import find_java
from tuttilab.scheduler.spark.pod import STOP_GRACE_S, log, own_address, stop_java
from tuttilab.scheduler.spark.process import EXECUTORS_JAVA_HOME, write_log4j

_POLL_S = 0.5


def run(environ: Mapping[str, str], size: SparkSize, master: Master, directory: Path, *, is_batch: bool = False) -> NoReturn:
    """Run in `directory`, the pod's own, until the gang ends. Raises ServerFailed when Java ends by itself."""
    java = find_java(environ, directory)
    for note in java.notes:
        log(note)
    home = standalone.java_home_of_executors(java.executable, directory, master, write_log4j(directory, is_batch))
    host = own_address(environ)
    beside = {**environ, EXECUTORS_JAVA_HOME: str(home)}
    process, gateway = start_java(java, standalone.WORKER_HEAP, directory, beside, host, is_batch=is_batch)
    try:
        _wait_until_it_listens(master)
        standalone.start_worker(gateway, master, host, size, directory)
        log(f"worker of {size.executor_cores} cores and {size.executor_heap // MIB} MiB, Java {java.version} from {java.source}")
        code = process.wait()
    except Py4JJavaError as error:
        raise ServerFailed(f"The Spark worker did not start: {str(error.java_exception).splitlines()[0]}") from error
    except Py4JError as error:
        raise ServerFailed("The Spark worker did not start: Java ended while it came up; see the lines above.") from error
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stop_java(process, STOP_GRACE_S)
    raise ServerFailed(f"The Spark worker ended by itself (exit code {code}); the lines above say more.")


def _wait_until_it_listens(master: Master) -> None:
    """A worker whose first try comes too early waits ten seconds for the next."""
    until = time.monotonic() + REGISTER_S
    while True:
        try:
            with socket.create_connection((master.host, master.port), timeout=5.0):
                return
        except OSError as error:
            if time.monotonic() > until:
                raise ServerFailed(f"The driver's master {master.url} does not answer: {error}.") from error
            time.sleep(_POLL_S)
