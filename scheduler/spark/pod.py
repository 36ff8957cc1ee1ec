"""What the main processes of Spark's pods share: how they are told what to do, what they log, how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput, TuttiError
from tuttilab.scheduler.spark.conf import LOOPBACK

STOP_GRACE_S = 8.0
STOPPED: Final = 128 + signal.SIGTERM
"""No success: on a cluster others than the control plane stop pods too, and what they stop is lost."""


class Stop(Exception):
    """SIGTERM or SIGINT arrived."""


def main(run: Callable[[], int]) -> int:
    """The exit code of ``run``; `STOPPED` after a stop, 1 when Spark failed, 2 for a wrong specification."""
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    try:
        return run()
    except Stop:
        log("stopped")
        return STOPPED
    except BadInput as error:
        log(str(error))
        return 2
    except TuttiError as error:
        log(str(error))
        return 1


def ignore_signals() -> None:
    """From here on the process ends by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def log(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise BadInput(f"{name} is not set: this program is started by the control plane, not by hand.")
    return value


def read_secret(path: Path, what: str) -> str:
    """Raises BadInput for a file that others may read, and for a secret that is short."""
    try:
        mode = path.stat().st_mode
        secret = path.read_text().strip()
    except OSError as error:
        raise BadInput(f"The {what} file {path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise BadInput(f"The {what} file {path} may be read by others (mode {mode & 0o777:o}): make it 0600.")
    if len(secret) < 16:
        raise BadInput(f"The {what} in {path} is shorter than 16 characters: anyone could guess it.")
    return secret


def stop_java(java: subprocess.Popen[bytes], grace_s: float) -> int:
    """Terminate Java, which removes its temporary files; kill it after `grace_s`. Returns its exit code."""
    if java.poll() is None:
        java.terminate()
    try:
        return java.wait(grace_s)
    except subprocess.TimeoutExpired:
        java.kill()
        return java.wait(10)


def own_address(environ: Mapping[str, str]) -> str:
    """The address at which other pods reach this one: its own where it has one, else that of the machine that all share."""
    return environ.get("TUTTILAB_POD_IP") or LOOPBACK


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise Stop
