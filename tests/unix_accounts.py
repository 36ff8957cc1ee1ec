"""Real accounts of a test machine: two people, a group of one of them, and that of sidecars. Made by root, removed at the end."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuttilab.scheduler.clusters.local.owners import OwnersSettings

LOCKED_S = 60.0
"""For other test processes that change the accounts of the machine."""
_ASK = "import sys, ctypes, http.client, json; sys.exit(sys.version_info < (3, 11))"


@functools.cache
def open_python() -> str | None:
    """An interpreter that every user of the machine can run."""
    for found in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            asked = subprocess.run([found, "-I", "-S", "-c", _ASK], user=65534, group=65534, extra_groups=[], capture_output=True)
        except OSError:
            continue
        if asked.returncode == 0:
            return found
    return None


def can_make() -> bool:
    return os.geteuid() == 0 and shutil.which("useradd") is not None and open_python() is not None


@dataclass(frozen=True)
class Accounts:
    sidecar: str
    ann: str
    bob: str
    team: str
    """A group that ann is in, beside her own."""
    homes: Path

    def settings(self, folder: Path, **changes: object) -> OwnersSettings:
        """Jobs of ann and bob run as these accounts."""
        given = {"accounts": {"ann": self.ann, "bob": self.bob}, "sidecar_user": self.sidecar, "python": open_python(), **changes}
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
    made = Accounts(f"{mark}-pods", f"{mark}-ann", f"{mark}-bob", f"{mark}-team", homes)
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
            _change("userdel", "--force", name, check=False)
        _change("groupdel", made.team, check=False)
        shutil.rmtree(homes, ignore_errors=True)


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
