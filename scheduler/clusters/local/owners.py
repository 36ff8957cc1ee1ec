"""Pods that run as the users who own their jobs: which account that is, and whose the folders of a pod are (docs/adr/0028).

Needs a control plane that root runs. The cluster has a folder of its own which everybody can pass through and nobody else can write
to; the state folder stays closed. In it a pod's folder, with plan, lock, records and log, belongs to the sidecar's account, and the
folders in it that the job writes to belong to the owner::

    FOLDER/pods/JOB/ATTEMPT/POD    0710   sidecar : owner's group
        log, plan.json, …          0600   sidecar, root
        work, result, code, …      0700   owner
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tuttilab.scheduler.clusters.local.env import PodDirs
from tuttilab.scheduler.domain.accounts import Entry, ProxyUser, refusal_of, refusal_of_proxy
from tuttilab.scheduler.domain.errors import EnvironmentProblem, LaunchRefused
from tuttilab.sidecar import accounts, records
from tuttilab.sidecar.accounts import Account

PASSED: Final = 0o711
POD: Final = 0o710
OWN: Final = 0o700
PROGRAMS: Final = tuple(str(Path(records.__file__).with_name(name)) for name in ("__main__.py", "worker.py"))
"""What a sidecar and its children read when they no longer are root."""
TAKEN: Final = "taken-by"
CHECK_S: Final = 20.0
_TRY: Final = """
import os, sys
if sys.version_info < (3, 11, 4):
    sys.exit("it is older than Python 3.11.4")
for name in sys.argv[1:]:
    open(name).close()
if not os.path.exists("/proc/1/stat"):
    sys.exit("/proc hides what others run, so that no memory could be measured: mount it without hidepid")
"""


@dataclass(frozen=True, slots=True)
class OwnersSettings:
    folder: Path
    """Below which the clusters have their folders."""
    sidecar_user: str = "tuttilab"
    """Account of sidecars, which nobody else uses."""
    accounts: Mapping[str, str] = field(default_factory=dict)
    """Accounts of owners that have another name than their own."""
    least_uid: int = 1000
    """Accounts below are of the system, whatever their name."""
    python: str | None = None
    """Interpreter of pods, which every user can run. None: that of the control plane."""


@dataclass(frozen=True, slots=True)
class Login:
    """An owner's account on this machine."""

    account: Account
    name: str
    home: str
    shell: str

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}


class Owners:
    """Raises EnvironmentProblem where pods cannot run as their owners here."""

    def __init__(self, settings: OwnersSettings, cluster: str, state: Path) -> None:
        """``state``: the folder of the control plane."""
        self._settings = settings
        self._cluster = cluster
        self._state = state
        if os.geteuid() != 0:
            raise EnvironmentProblem(
                f"Cluster {cluster} has run_as: owner, and this process runs as uid {os.geteuid()}; only root can start processes "
                "of other users: run the control plane as root, or leave run_as out."
            )
        self.sidecar = self._sidecar_account()

    def _sidecar_account(self) -> Account:
        name = self._settings.sidecar_user
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise EnvironmentProblem(
                f"Cluster {self._cluster} has run_as: owner, and there is no account {name} for the sidecars; "
                f"make it: `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}`."
            ) from None
        if entry.pw_uid == 0 or entry.pw_gid == 0:
            raise EnvironmentProblem(
                f"Cluster {self._cluster}: sidecar_user {name} is root; name an account that nothing else uses."
            )
        return Account(entry.pw_uid, entry.pw_gid)

    def login_of(self, owner: str) -> Login:
        """Raises LaunchRefused for an owner that has no account here, or one that jobs may not run as."""
        name = self._settings.accounts.get(owner, owner)
        return self._login(name, lambda entry, least: refusal_of(owner, name, entry, least, "jobs"))

    def login_as(self, proxy: ProxyUser) -> Login:
        """Raises LaunchRefused as `login_of`: for a proxy user too there is no root, and no account of the machine's services."""
        return self._login(proxy.account, lambda entry, least: refusal_of_proxy(proxy, entry, least))

    def _login(self, name: str, refusal_for: Callable[[Entry | None, int], str]) -> Login:
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise LaunchRefused(refusal_for(None, self._settings.least_uid), permanent=True) from None
        # That of the sidecars is a service's, whatever its number.
        least = max(self._settings.least_uid, entry.pw_uid + 1 if entry.pw_uid == self.sidecar.uid else 0)
        if refusal := refusal_for(Entry(entry.pw_uid, entry.pw_gid), least):
            raise LaunchRefused(refusal, permanent=True)
        groups = tuple(group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group not in (0, entry.pw_gid))
        return Login(Account(entry.pw_uid, entry.pw_gid, groups), entry.pw_name, entry.pw_dir, entry.pw_shell or "/bin/sh")

    def prepare(self, folder: Path, pods: Path, closed: Path, python: str) -> str:
        """Make the cluster's own folders, and try out that everybody can start a pod; returns the interpreter for them.

        ``closed``: the one that only this process opens.
        """
        self._check_way(folder)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / TAKEN).exists():
            raise EnvironmentProblem(
                f"Cluster {self._cluster}: {folder} has files of something else; name another `folder`, in which it makes its own."
            )
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for own, mode in (*((one, PASSED) for one in reversed(missing)), (folder, PASSED), (pods, PASSED), (closed, OWN)):
            own.mkdir(mode=mode, exist_ok=True)
            if own == folder:
                self._take(folder / TAKEN)
            os.chmod(own, mode)
        # Supplementary groups of root would count beside the owner's where this process acts as one.
        os.setgroups([])
        found = self._settings.python or python
        self._try_out([found, "-I", "-S", "-c", _TRY, *PROGRAMS])
        return found

    def _check_way(self, folder: Path) -> None:
        """Nobody but root may be able to put another folder in its place, and everybody can reach it."""
        for place in (folder, *folder.parents):
            if not place.exists():
                continue
            owner, about = os.lstat(place).st_uid, os.stat(place)
            is_others = owner != 0 or about.st_uid != 0 or (about.st_mode & 0o022 and not about.st_mode & stat.S_ISVTX)
            if is_others or not about.st_mode & 0o001:
                mode = stat.S_IMODE(about.st_mode)
                raise EnvironmentProblem(
                    f"Cluster {self._cluster}: {place} has mode {mode:o} and belongs to uid {owner}, and pods in {folder} run as "
                    "their owners; it and every folder above it must be root's, closed to writers and open to pass through "
                    "(755 or 711): name another `folder`."
                )

    def _take(self, file: Path) -> None:
        """Two control planes must not adopt one another's pods."""
        state = str(self._state.absolute())
        try:
            other = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            file.write_text(state, encoding="utf-8")
            os.chmod(file, 0o600)
            return
        if other != state:
            raise EnvironmentProblem(
                f"Cluster {self._cluster}: {file.parent} has the pods of the control plane in {other}; name another `folder`, "
                f"or remove {file} when that one is gone for good."
            )

    def _try_out(self, command: list[str]) -> None:
        own = self.sidecar
        try:
            done = subprocess.run(
                command,
                user=own.uid,
                group=own.gid,
                extra_groups=[],
                cwd="/",
                env={},
                capture_output=True,
                timeout=CHECK_S,
                text=True,
            )
            said = (done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}") if done.returncode else ""
        except (OSError, subprocess.SubprocessError) as error:
            said = str(error)
        if said:
            raise EnvironmentProblem(
                f"Cluster {self._cluster}: users cannot run {command[0]} with {command[-1]} ({said}), and pods run as them; "
                "install Python and tuttilab where everybody can read them, or name an interpreter under `python` of the cluster."
            )

    def make_attempt(self, attempt: Path, login: Login) -> None:
        for folder in (attempt.parent, attempt):
            self._make_watched(folder, login)

    def make_pod(self, dirs: PodDirs, login: Login) -> None:
        """Whatever the owner can write to is made as the owner: other jobs of theirs may be at work in the shared folders."""
        self._make_watched(dirs.pod, login)
        for folder in (dirs.work, dirs.result, dirs.code, dirs.secrets, dirs.offers, dirs.model.parent):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=OWN)
            # Its parent is not the owner's, so that it is what was made here.
            os.chown(folder, login.account.uid, login.account.gid, follow_symlinks=False)
        with accounts.acting_as(login.account):
            for folder in (dirs.model, dirs.data):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=OWN)

    def _make_watched(self, folder: Path, login: Login) -> None:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=OWN)
        os.chown(folder, self.sidecar.uid, login.account.gid, follow_symlinks=False)
        os.chmod(folder, POD)

    def give_to_sidecar(self, descriptor: int) -> None:
        os.fchown(descriptor, self.sidecar.uid, self.sidecar.gid)


@contextlib.contextmanager
def acting_as_owner_of(folder: Path, owners: Owners | None) -> Iterator[None]:
    """What is read in the block is what the owner of ``folder`` may read. Raises OSError where it is not there."""
    if owners is None:
        yield
        return
    about = os.stat(folder, follow_symlinks=False)
    with accounts.acting_as(Account(about.st_uid, about.st_gid)):
        yield


def show(account: Account) -> dict[str, object]:
    """As the plan of a sidecar has it."""
    return {"uid": account.uid, "gid": account.gid, "groups": list(account.groups)}
