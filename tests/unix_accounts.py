"""Real accounts of a test machine: two people, a group of one of them, and that of sidecars. Made by root, removed at the end."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuttilab.scheduler.clusters.local.owners import OwnersSettings


LOCKED_S = 60.0
"""For other test processes that change the accounts of the machine."""
_NOT_COPIED = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "tkinter", "config-*", "__pycache__")


def can_make() -> bool:
    return os.geteuid() == 0 and shutil.which("useradd") is not None


def open_python(folder: Path) -> Path:
    """An interpreter that every user of the machine can run: ours, or a copy of it without packages, made in the folder."""
    try:
        asked = subprocess.run([sys.executable, "-c", "import json"], user=65534, group=65534, extra_groups=[], capture_output=True)
        if asked.returncode == 0:
            return Path(sys.executable)
    except OSError:
        pass  # it is in a home that is closed
    base, version = Path(sys.base_prefix), f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = folder / "bin" / "python3"
    program.parent.mkdir(parents=True, mode=0o755)
    # Where it looks for libpython is written in it.
    was, now = f"{base}/lib\0".encode(), b"$ORIGIN/../lib\0"
    program.write_bytes(Path(sys.executable).resolve().read_bytes().replace(was, now.ljust(len(was), b"\0")))
    program.chmod(0o755)
    shutil.copytree(base / "lib" / version, folder / "lib" / version, ignore=_NOT_COPIED)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy(library, folder / "lib")
    return program


@dataclass(frozen=True)
class Accounts:
    sidecar: str
    ann: str
    bob: str
    team: str
    """A group that ann is in, beside her own."""
    homes: Path
    python: Path
    """Which all of them can run."""

    def settings(self, folder: Path, **changes: object) -> OwnersSettings:
        """Jobs of ann and bob run as these accounts."""
        from tuttilab.scheduler.clusters.local.owners import OwnersSettings  # every run of pytest imports this module

        given = {
            "accounts": {"ann": self.ann, "bob": self.bob},
            "sidecar_user": self.sidecar,
            "python": str(self.python),
            **changes,
        }
        return OwnersSettings(folder, **given)  # type: ignore[arg-type]

    def uid(self, name: str) -> int:
        return pwd.getpwnam(name).pw_uid

    def gid(self, name: str) -> int:
        return pwd.getpwnam(name).pw_gid

    @property
    def team_gid(self) -> int:
        return grp.getgrnam(self.team).gr_gid


@contextmanager
def made_accounts() -> Iterator[Accounts]:
    mark = f"t{os.getpid()}"
    homes = Path(tempfile.mkdtemp(prefix="tuttilab-homes-"))
    homes.chmod(0o711)
    made = Accounts(f"{mark}-pods", f"{mark}-ann", f"{mark}-bob", f"{mark}-team", homes, open_python(homes / "python"))
    try:
        _change("groupadd", made.team)
        _change("useradd", "--system", "--user-group", "--no-create-home", made.sidecar)
        for name in (made.ann, made.bob):
            _change("useradd", "--user-group", "--no-create-home", "--home-dir", str(homes / name), "--shell", "/bin/sh", name)
            (homes / name).mkdir(mode=0o700)
            shutil.chown(homes / name, name, name)
        _change("usermod", "--append", "--groups", made.team, made.ann)
        yield made
    finally:
        for name in (made.ann, made.bob, made.sidecar):
            for pid in processes_of(made.uid(name)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _change("userdel", "--force", name, check=False)
        _change("groupdel", made.team, check=False)
        shutil.rmtree(homes, ignore_errors=True)


def processes_of(uid: int) -> list[int]:
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _is_of(process, uid)]


def _is_of(process: Path, uid: int) -> bool:
    try:
        words = (process / "status").read_text().split()
        return words[words.index("Uid:") + 1] == str(uid) and words[words.index("State:") + 1] != "Z"
    except OSError:
        return False


def _change(*command: str, check: bool = True) -> None:
    until = time.monotonic() + LOCKED_S
    while True:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 or "cannot lock" not in done.stderr or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user can pass through, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="tuttilab-pods-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
