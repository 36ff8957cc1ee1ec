"""`tuttilab` commands and control planes of a test from a process that has imported them already: each is a fork of it.

A command starts for half a second and a control plane for two, most of it imports, and the suite runs thousands. A fork begins
where those are done, with the environment, folder and streams that it is given. What has an environment that changes how Python
starts gets a Python of its own, and so does what is started as the README says.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Final, NoReturn, TextIO

from setproctitle import setproctitle

ROOT: Final = Path(__file__).resolve().parent.parent
MODULE: Final = "tuttilab.scheduler.cli"
SERVE: Final = "tuttilab.scheduler.server.serve"
"""Module of the control plane's process."""
IMPORTED: Final = (
    MODULE,
    "tuttilab.scheduler.client",
    "rich.console",
    "rich.table",
    "rich.progress",
    SERVE,
    "tuttilab.scheduler.config.load",
    "tuttilab.scheduler.config.resources",
    "tuttilab.scheduler.server.embedded",
    "tuttilab.scheduler.server.replicated",
    "tuttilab.scheduler.clusters.local.cluster",
    "tuttilab.scheduler.api.connections",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
)
OF_PYTHON: Final = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC")
"""Beginnings of variables that a Python reads when it starts."""
STARTS_S: Final = 240.0
POINTS: Final = "tuttilab.scheduler.runtime.crash_points"
_NUMBER = struct.Struct("!q")
_server: tuple[int, subprocess.Popen[bytes] | None, str] | None = None
"""The process that uses it, the server where that process started it, and its address."""
_point: Callable[[str], None] = lambda name: None  # noqa: E731  replaced in each fork


def fits(environ: Mapping[str, str]) -> bool:
    """Whether a Python with this environment starts as this process's would."""
    return _of_python(environ) == _of_python(os.environ)


def run(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of the command, its output captured; standard input is this process's own. Raises TimeoutExpired."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = Process(MODULE, arguments, cwd, environ, (0, out.fileno(), err.fileno()))
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise subprocess.TimeoutExpired(process.args, timeout_s, _text(out), _text(err)) from None
        return subprocess.CompletedProcess(process.args, code, _text(out), _text(err))


def serve(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], output: IO[bytes]) -> AnyProcess:
    """A control plane: `python -m tuttilab.scheduler.server.serve` with these arguments."""
    if fits(environ):
        return Process(SERVE, arguments, cwd, environ, (0, output.fileno(), output.fileno()))
    command = [sys.executable, "-m", SERVE, *arguments]
    return subprocess.Popen(command, cwd=cwd, env=environ, stdout=output, stderr=output)


class Process:
    """A fork that runs ``module``; used as a `subprocess.Popen`, though another process is its parent."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        cwd: Path,
        environ: Mapping[str, str],
        streams: tuple[int, ...],
        *,
        passed: Sequence[str] = (),
        has_session: bool = False,
    ) -> None:
        """``streams``: descriptors of the three, and of those whose number each variable in ``passed`` names."""
        self.args = [module, *arguments]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(STARTS_S)
        self._connection.connect(_address())
        body = json.dumps([module, list(arguments), str(cwd), dict(environ), list(passed), has_session]).encode("ascii")
        socket.send_fds(self._connection, [_NUMBER.pack(len(body))], streams)
        self._connection.sendall(body)
        self.pid = _received(self._connection)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        with self._lock:
            if self.returncode is None:
                self.returncode = _received(self._connection)
                self._connection.shutdown(socket.SHUT_RDWR)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


AnyProcess = Process | subprocess.Popen[bytes]


def _of_python(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(OF_PYTHON)}


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8").replace("\r\n", "\n")


def _received(connection: socket.socket) -> int:
    data = b""
    while len(data) < _NUMBER.size:
        more = connection.recv(_NUMBER.size - len(data))
        if not more:
            raise ConnectionError("the process of the commands has gone")
        data += more
    return int(_NUMBER.unpack(data)[0])


def _address() -> str:
    """Of this process's server, which is started at the first command."""
    global _server
    if _server is not None and _server[1] is None:
        return _server[2]  # this is a fork of it
    if _server is None or _server[0] != os.getpid() or _server[1] is None or _server[1].poll() is not None:
        name = f"tuttilab-tests-{os.getpid()}-{random.SystemRandom().getrandbits(64):x}"
        command = [sys.executable, "-m", "tests.warm", name]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], STARTS_S)[0] or process.stdout.readline() != b"ready\n":
            process.kill()
            raise RuntimeError(f"{command} did not start")
        atexit.register(process.kill)
        _server = (os.getpid(), process, "\0" + name)
    return _server[2]


def _serve(name: str) -> None:
    """Until standard input ends. A fork of this process reads each request, and one of that is the command."""
    global _server
    _server = (os.getpid(), None, "\0" + name)
    # It looks for its place when it is first used, and finds it only while the environment is that of the start.
    setproctitle(" ".join(sys.orig_argv))
    points: Any = importlib.import_module(POINTS)
    points.point = _reach
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0" + name)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            readable, _, _ = select.select([listening.fileno(), 0], [], [])
            if 0 in readable:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> NoReturn:
    try:
        head, streams, _, _ = socket.recv_fds(connection, _NUMBER.size, 8)
        left, body = _NUMBER.unpack(head)[0], bytearray()
        while len(body) < left:
            body += connection.recv(left - len(body))
        module, arguments, cwd, environ, passed, has_session = json.loads(body)
        process = os.fork()
        if process == 0:
            connection.close()
            for name, stream in zip(passed, streams[3:], strict=True):
                environ[name] = str(stream)
            if has_session:
                os.setsid()
            _become(module, arguments, cwd, environ, streams[:3])
        for stream in streams:
            os.close(stream)
        connection.sendall(_NUMBER.pack(process))
        _, status = os.waitpid(process, 0)
        with suppress(OSError):
            connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
    finally:
        os._exit(0)


def _become(module: str, arguments: list[str], cwd: str, environ: dict[str, str], streams: list[int]) -> NoReturn:
    code: object = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
        random.seed()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = (_reopened(number) for number in range(3))
        sys.path.remove(str(ROOT))
        _at_points(os.environ)
        main = importlib.import_module(module)
        if module == SERVE:
            # What is looked for in a list of processes: the command, and the folder, which is in no argument.
            state = environ.get("TUTTILAB_STATE_DIR", "")
            setproctitle(" ".join([sys.executable, "-m", SERVE, *arguments, f"TUTTILAB_STATE_DIR={state}"]))
            sys.argv = [str(main.__file__), *arguments]
            code = main.main(arguments)
        else:
            _start_control_planes_here(environ)
            sys.argv = [str(Path(str(main.__file__)).with_name("__main__.py")), *arguments]
            main.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream_out in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream_out.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _at_points(environ: Mapping[str, str]) -> None:
    """Of the control plane: see `tuttilab.scheduler.runtime.crash_points`, which reads the environment when it is imported."""
    global _point
    _point = importlib.import_module(POINTS)._point(environ)


def _reach(name: str) -> None:
    _point(name)


def _start_control_planes_here(environ: Mapping[str, str]) -> None:
    """A command that starts a control plane gets a fork of the process that it is itself a fork of."""
    discovery: Any = importlib.import_module("tuttilab.scheduler.runtime.discovery")

    def start(command: list[str], **given: Any) -> AnyProcess:
        expected = [sys.executable, "-P", "-m", SERVE]
        if command[: len(expected)] != expected or not fits(given["env"]):
            return subprocess.Popen(command, **given)
        output, (notify,) = given["stdout"].fileno(), given["pass_fds"]
        with open(os.devnull, "rb") as nothing:
            return Process(
                SERVE,
                command[len(expected) :],
                given["cwd"],
                given["env"],
                (nothing.fileno(), output, output, notify),
                passed=[discovery.NOTIFY_FD],
                has_session=given["start_new_session"],
            )

    discovery.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def _reopened(number: int) -> TextIO:
    """As Python opens it at its start."""
    was = (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number]
    assert was is not None
    raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115  as long as the process
    return TextIOWrapper(raw, encoding=was.encoding, errors=was.errors, line_buffering=number == 2)


if __name__ == "__main__":
    _serve(sys.argv[1])
