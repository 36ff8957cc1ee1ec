"""The main process of a Spark session's pod: `python -m tuttilab.scheduler.spark.server`.

It reads its size from TUTTILAB_SPARK_SPEC (JSON) and its secret from the file spark-token below TUTTILAB_SECRETS_DIR,
starts a Spark Connect server on loopback, says where it listens in the file that TUTTILAB_ENDPOINTS names, and stays
until it is told to stop, Java ends, or nobody has used the session for a while. The current directory is the pod's own.
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

from tuttilab.scheduler.core.kinds.spark import TOKEN_SECRET
from tuttilab.scheduler.errors import BadInput, TuttiError
from tuttilab.scheduler.spark.conf import SparkSpec, heap_bytes, parse_spec, server_conf
from tuttilab.scheduler.spark.gateway import ConnectServer, ServerFailed
from tuttilab.scheduler.spark.java import find_java

STOP_GRACE_S = 8.0


class IdleClock:
    """Decides when a session has been idle long enough; `now` is any clock that only goes forward."""

    def __init__(self, idle_s: float, now: float) -> None:
        self.idle_s = idle_s
        self._last = now
        self._seen: str | None = None

    def is_over(self, busy: bool, mark: str, now: float) -> bool:
        """`mark` is a text that changes with each use; see ConnectServer.activity."""
        if busy or mark != self._seen:
            self._last = now
            self._seen = mark
        return now - self._last >= self.idle_s


class _Stop(Exception):
    """SIGTERM or SIGINT arrived."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run one session; 0 after a stop or an idle end, 1 when Spark failed, 2 for a wrong specification."""
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    server: ConnectServer | None = None
    started = time.monotonic()
    try:
        os.umask(0o077)
        spec = parse_spec(_required(environ, "TUTTILAB_SPARK_SPEC"))
        token = _read_token(Path(_required(environ, "TUTTILAB_SECRETS_DIR")) / TOKEN_SECRET)
        endpoints = Path(_required(environ, "TUTTILAB_ENDPOINTS"))
        directory = Path.cwd()
        java = find_java(environ, directory)
        for note in java.notes:
            _say(note)
        conf = server_conf(spec, token, directory)
        server = ConnectServer.start(java, conf, heap_bytes(spec.memory_bytes), directory, environ)
        _write_endpoints(endpoints, server)
        _say(
            f"ready in {time.monotonic() - started:.1f} s: {spec.cores} cores, "
            f"{heap_bytes(spec.memory_bytes) // 1024**2} MiB heap, Java {java.version} from {java.source}"
        )
        reason = _wait(server, spec, time.monotonic)
        _say(reason)
    except _Stop:
        _say("stopped")
    except BadInput as error:
        _say(str(error))
        return 2
    except TuttiError as error:
        _say(str(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if server is not None:
            _remove_endpoints(endpoints, server)
            server.stop(STOP_GRACE_S)
    return 0


def _wait(server: ConnectServer, spec: SparkSpec, now: Callable[[], float]) -> str:
    """Return when the session has been idle for long enough; raise ServerFailed when Java ends by itself."""
    clock = IdleClock(spec.idle_s, now()) if spec.idle_s is not None else None
    pause_s = 1.0 if spec.idle_s is None else min(1.0, spec.idle_s / 4)
    next_look = now()
    while True:
        code = server.java.poll()
        if code is not None:
            cause = "it ran out of memory" if code == 3 else f"exit code {code}"
            raise ServerFailed(f"Spark ended by itself ({cause}); the lines above say more.")
        if clock is not None and now() >= next_look:
            # Asking costs Java a millisecond; every 5 s is plenty for idle times of minutes.
            next_look = now() + min(5.0, clock.idle_s / 4)
            try:
                busy, mark = server.activity()
            except Py4JError:
                continue  # Java is ending; poll() says why on the next turn
            if clock.is_over(busy, mark, now()):
                return f"idle for {clock.idle_s:g} s: stopped"
        time.sleep(pause_s)


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


def _write_endpoints(path: Path, server: ConnectServer) -> None:
    """Whole or not at all, readable by its owner only (the umask says so)."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(_endpoints(server))
    fresh.chmod(0o600)
    fresh.replace(path)


def _remove_endpoints(path: Path, server: ConnectServer) -> None:
    """So that nobody connects to a port that is another's by then; a successor's file stays."""
    with contextlib.suppress(OSError):
        if path.read_text() == _endpoints(server):
            path.unlink()


def _endpoints(server: ConnectServer) -> str:
    body = {"connect": f"127.0.0.1:{server.port}"}
    if server.ui_port is not None:
        body["ui"] = f"127.0.0.1:{server.ui_port}"
    return json.dumps(body)


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
