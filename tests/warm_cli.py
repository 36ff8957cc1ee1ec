"""`tuttilab` commands of a test from a process that has imported the command line already: each is a fork of it.

A command starts for half a second, most of it imports, and the suite runs thousands. A fork begins where those are done, with the
environment, folder and streams that it is given. A command whose environment changes how Python starts gets a Python of its own.
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
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Final, NoReturn, TextIO

ROOT: Final = Path(__file__).resolve().parent.parent
MODULE: Final = "tuttilab.scheduler.cli"
IMPORTED: Final = (MODULE, "tuttilab.scheduler.client", "tuttilab.scheduler.config", "rich.console", "rich.table", "rich.progress")
OF_PYTHON: Final = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC")
"""Beginnings of variables that a Python reads when it starts."""
STARTS_S: Final = 60.0
_NUMBER = struct.Struct("!q")
_server: tuple[int, subprocess.Popen[bytes], str] | None = None


def fits(environ: Mapping[str, str]) -> bool:
    """Whether a Python with this environment starts as this process's would."""
    return _of_python(environ) == _of_python(os.environ)


def run(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of the command, its output captured; standard input is this process's own. Raises TimeoutExpired."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(_address())
        body = json.dumps([list(arguments), str(cwd), dict(environ)]).encode("ascii")
        try:
            socket.send_fds(connection, [_NUMBER.pack(len(body))], [0, out.fileno(), err.fileno()])
            connection.sendall(body)
            process = _received(connection)
            try:
                code = _received(connection)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                raise
        except TimeoutError:
            raise subprocess.TimeoutExpired([MODULE, *arguments], timeout_s, _text(out), _text(err)) from None
        return subprocess.CompletedProcess([MODULE, *arguments], code, _text(out), _text(err))


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
    if _server is None or _server[0] != os.getpid() or _server[1].poll() is not None:
        name = f"tuttilab-tests-{os.getpid()}-{random.SystemRandom().getrandbits(64):x}"
        command = [sys.executable, "-m", "tests.warm_cli", name]
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
        head, streams, _, _ = socket.recv_fds(connection, _NUMBER.size, 3)
        left, body = _NUMBER.unpack(head)[0], bytearray()
        while len(body) < left:
            body += connection.recv(left - len(body))
        arguments, cwd, environ = json.loads(body)
        process = os.fork()
        if process == 0:
            connection.close()
            _become(arguments, cwd, environ, streams)
        connection.sendall(_NUMBER.pack(process))
        _, status = os.waitpid(process, 0)
        with suppress(OSError):
            connection.sendall(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
    finally:
        os._exit(0)


def _become(arguments: list[str], cwd: str, environ: dict[str, str], streams: list[int]) -> NoReturn:
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
        main = importlib.import_module(MODULE)
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


def _reopened(number: int) -> TextIO:
    """As Python opens it at its start."""
    was = (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number]
    assert was is not None
    raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115  as long as the process
    return TextIOWrapper(raw, encoding=was.encoding, errors=was.errors, line_buffering=number == 2)


if __name__ == "__main__":
    _serve(sys.argv[1])
