"""The main process of a Spark session's pod: `python -m tuttilab.scheduler.spark.server`.

It reads its size from TUTTILAB_SPARK_SPEC (JSON) and its token from the file spark-token below TUTTILAB_SECRETS_DIR, starts a Spark
Connect server at the pod's own address (on loopback where pods share their machine's), and writes where it listens to the file that
TUTTILAB_ENDPOINTS names. It ends on a signal, when Java ends, or when the session was idle for long enough. The current directory
is the pod's own.

With executors it is the first pod of a gang and holds their Spark master too; the others run the same command, which is an executor
there. The address is written when all of them are registered.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from tuttilab.scheduler.core.kinds.spark import GIVES_WAY_AFTER_S, IDLE_SINCE, SPEC, TOKEN_SECRET
from tuttilab.scheduler.core.kinds.spark_size import EXECUTOR, SECRET
from tuttilab.scheduler.spark import executor, pod, standalone
from tuttilab.scheduler.spark.conf import SparkSpec, heap_bytes, parse_spec, server_conf
from tuttilab.scheduler.spark.gateway import ConnectServer, ServerFailed
from tuttilab.scheduler.spark.java import find_java
from tuttilab.scheduler.spark.pod import log, read_secret, required


class IdleClock:
    """For how long a session has been idle; `now` is the time of any monotonic clock."""

    def __init__(self, now: float) -> None:
        self._used_at = now
        self._last_mark: str | None = None

    def idle_s(self, busy: bool, mark: str, now: float) -> float:
        """`mark` is a text that changes with each use; see ConnectServer.activity."""
        if busy or mark != self._last_mark:
            self._used_at = now
            self._last_mark = mark
        return now - self._used_at


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run one session's server, or in an executor's pod its executor; see `pod.main`."""
    os.umask(0o077)
    return pod.main(lambda: _run(environ))


def _run(environ: Mapping[str, str]) -> int:
    started = time.monotonic()
    spec = parse_spec(required(environ, SPEC))
    folder = Path(required(environ, "TUTTILAB_SECRETS_DIR"))
    master = None
    if spec.size.executors:
        master = standalone.master_of(environ, read_secret(folder / SECRET, "secret"))
        if environ.get("TUTTILAB_ROLE") == EXECUTOR:
            executor.run(environ, spec.size, master, Path.cwd())
    token = read_secret(folder / TOKEN_SECRET, "token")
    endpoints = Path(required(environ, "TUTTILAB_ENDPOINTS"))
    directory = Path.cwd()
    java = find_java(environ, directory)
    for note in java.notes:
        log(note)
    heap = heap_bytes(spec.memory_bytes)
    conf = server_conf(spec, token, directory, master, pod.own_address(environ))
    server: ConnectServer | None = None
    published: _Endpoints | None = None

    def prepare(gateway: JavaGateway) -> None:
        if master is not None:
            standalone.start_master(gateway, master)

    try:
        server = ConnectServer.start(java, conf, heap, directory, environ, spec.size.executors, prepare)
        published = _Endpoints(endpoints, server)
        published.write()
        beside = f" and {spec.size.executors} executors of {spec.size.executor_cores} cores" if master is not None else ""
        took = time.monotonic() - started
        log(
            f"ready in {took:.1f} s: {spec.cores} cores{beside}, {heap // 1024**2} MiB heap, Java {java.version} from {java.source}"
        )
        log(_wait(server, spec, published, time.monotonic))
    finally:
        pod.ignore_signals()
        if server is not None:
            if published is not None:
                published.remove()
            server.stop(pod.STOP_GRACE_S)
    return 0


def _wait(server: ConnectServer, spec: SparkSpec, published: _Endpoints, now: Callable[[], float]) -> str:
    """Return when the session has been idle for long enough; raise ServerFailed when Java ends by itself.

    Meanwhile it publishes since when it is idle, unless it is kept: then it may give way to other work of its owner.
    """
    clock = IdleClock(now())
    pause_s = 1.0 if spec.idle_s is None else min(1.0, spec.idle_s / 4)
    next_check = now()
    code = server.wait(0.0)
    while True:
        if code is not None:
            cause = "it ran out of memory" if code == 3 else f"exit code {code}"
            raise ServerFailed(f"Spark ended by itself ({cause}); the lines above say more.")
        _end_leftovers(server)
        if now() >= next_check:
            # A check costs Java a millisecond. While others may take the session's room, its use is seen within a second.
            next_check = now() + (pause_s if published.idle_since is not None else min(5.0, 4 * pause_s))
            try:
                busy, mark = server.activity()
            except Py4JError:
                code = server.wait(pause_s)  # Java is ending
                continue
            idle_s = clock.idle_s(busy, mark, now())
            if spec.idle_s is not None and idle_s >= spec.idle_s:
                return f"idle for {spec.idle_s:g} s: stopped"
            if not spec.keep:
                published.tell_idle(idle_s)
        code = server.wait(pause_s)


def _end_leftovers(server: ConnectServer) -> None:
    try:
        ended = server.end_leftovers()
    except Py4JError:
        return  # Java is ending, or the job has ended while it was looked at: the next look is in a second.
    if ended:
        log(f"ended {ended} job{'s' if ended > 1 else ''} of operations that were stopped")


class _Endpoints:
    """The file with the session's addresses, and since when it is idle once it is."""

    def __init__(self, path: Path, server: ConnectServer) -> None:
        self._path = path
        self._addresses = {"connect": f"{server.host}:{server.port}"}
        if server.ui_port is not None:
            self._addresses["ui"] = f"{server.host}:{server.ui_port}"
        self.idle_since: int | None = None

    def tell_idle(self, idle_s: float) -> None:
        """Publish that nothing was run for this long, or that something was."""
        is_idle = idle_s >= GIVES_WAY_AFTER_S
        if is_idle == (self.idle_since is not None):
            return
        self.idle_since = round(time.time() - idle_s) if is_idle else None
        self.write()

    def write(self) -> None:
        """Atomically, readable by its owner only."""
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.write_text(self._text())
        fresh.chmod(0o600)
        fresh.replace(self._path)

    def remove(self) -> None:
        """So that no client connects to a port that another program may use; a successor's file stays."""
        with contextlib.suppress(OSError):
            if self._path.read_text() == self._text():
                self._path.unlink()

    def _text(self) -> str:
        idle = {} if self.idle_since is None else {IDLE_SINCE: str(self.idle_since)}
        return json.dumps(self._addresses | idle)


if __name__ == "__main__":
    sys.exit(main())
