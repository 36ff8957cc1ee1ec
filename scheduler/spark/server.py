"""The main process of a Spark session's pod: `python -m tuttilab.scheduler.spark.server`.

It reads its size from TUTTILAB_SPARK_SPEC (JSON) and its token from the file spark-token below TUTTILAB_SECRETS_DIR, starts a Spark
Connect server on loopback, and writes its address to the file that TUTTILAB_ENDPOINTS names. It ends on a signal, when Java ends,
or when the session was idle for long enough. The current directory is the pod's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from py4j.protocol import Py4JError  # type: ignore[import-untyped]

from tuttilab.scheduler.core.kinds.spark import GIVES_WAY_AFTER_S, IDLE_SINCE, TOKEN_SECRET
from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.spark.conf import SparkSpec, heap_bytes, parse_spec, server_conf
from tuttilab.scheduler.spark.gateway import ConnectServer, ServerFailed
from tuttilab.scheduler.spark.java import find_java

STOP_GRACE_S = 8.0


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


class _Stop(Exception):
    """SIGTERM or SIGINT arrived."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run one session; 0 after a stop or an idle end, 1 when Spark failed, 2 for a wrong specification."""
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    server: ConnectServer | None = None
    published: _Endpoints | None = None
    started = time.monotonic()
    try:
        os.umask(0o077)
        spec = parse_spec(_required(environ, "TUTTILAB_SPARK_SPEC"))
        token = _read_token(Path(_required(environ, "TUTTILAB_SECRETS_DIR")) / TOKEN_SECRET)
        endpoints = Path(_required(environ, "TUTTILAB_ENDPOINTS"))
        directory = Path.cwd()
        java = find_java(environ, directory)
        for note in java.notes:
            _log(note)
        conf = server_conf(spec, token, directory)
        server = ConnectServer.start(java, conf, heap_bytes(spec.memory_bytes), directory, environ)
        published = _Endpoints(endpoints, server)
        published.write()
        _log(
            f"ready in {time.monotonic() - started:.1f} s: {spec.cores} cores, "
            f"{heap_bytes(spec.memory_bytes) // 1024**2} MiB heap, Java {java.version} from {java.source}"
        )
        reason = _wait(server, spec, published, time.monotonic)
        _log(reason)
    except _Stop:
        _log("stopped")
    except BadInput as error:
        _log(str(error))
        return 2
    except TuttiError as error:
        _log(str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if server is not None:
            if published is not None:
                published.remove()
            server.stop(STOP_GRACE_S)
    return 0


def _wait(server: ConnectServer, spec: SparkSpec, published: _Endpoints, now: Callable[[], float]) -> str:
    """Return when the session has been idle for long enough; raise ServerFailed when Java ends by itself.

    Meanwhile it publishes since when it is idle, unless it is kept: then it may give way to other work of its owner.
    """
    clock = IdleClock(now())
    pause_s = 1.0 if spec.idle_s is None else min(1.0, spec.idle_s / 4)
    next_check = now()
    while True:
        code = server.java.poll()
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
                continue  # Java is ending; the next poll() finds its exit code.
            idle_s = clock.idle_s(busy, mark, now())
            if spec.idle_s is not None and idle_s >= spec.idle_s:
                return f"idle for {spec.idle_s:g} s: stopped"
            if not spec.keep:
                published.tell_idle(idle_s)
        time.sleep(pause_s)


def _end_leftovers(server: ConnectServer) -> None:
    try:
        ended = server.end_leftovers()
    except Py4JError:
        return  # Java is ending, or the job has ended while it was looked at: the next look is in a second.
    if ended:
        _log(f"ended {ended} job{'s' if ended > 1 else ''} of operations that were stopped")


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise BadInput(f"{name} is not set: this program is started by the control plane, not by hand.")
    return value


def _read_token(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except OSError as error:
        raise BadInput(f"The token file {path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise BadInput(f"The token file {path} may be read by others (mode {mode & 0o777:o}): make it 0600.")
    if len(token) < 16:
        raise BadInput(f"The token in {path} is shorter than 16 characters: anyone could guess it.")
    return token


class _Endpoints:
    """The file with the session's addresses, and since when it is idle once it is."""

    def __init__(self, path: Path, server: ConnectServer) -> None:
        self._path = path
        self._addresses = {"connect": f"127.0.0.1:{server.port}"}
        if server.ui_port is not None:
            self._addresses["ui"] = f"127.0.0.1:{server.ui_port}"
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


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


def _log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
