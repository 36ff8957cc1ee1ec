"""`tutti-local`: servers as processes on the hub's machine, for a hub without Kubernetes.

With `run_as_owner` each runs as the account of its user. Otherwise all run as the hub's own user and can read each other's files:
for tests, and for users who trust one another.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import socket
from pathlib import Path
from typing import Any, Final

from jupyterhub.spawner import SimpleLocalProcessSpawner, SpawnException
from traitlets import Bool, Dict, Integer, Unicode, default

from tuttilab.scheduler.domain.accounts import Entry, refusal_of
from tuttilab.scheduler.domain.errors import Forbidden
from tuttilab.scheduler.domain.resources import GPU
from tuttilab.scheduler.domain.volumes import folder_of
from tuttilab.spawner import options
from tuttilab.spawner.driver_ports import DRIVER_HOST_VARIABLE
from tuttilab.spawner.mixin import NotebookJobMixin
from tuttilab.spawner.notebook_jobs import refusal
from tuttilab.spawner.pods import NO_GPU, amounts_of

PR_SET_NO_NEW_PRIVS: Final = 38
UMASK: Final = 0o077

_libc = ctypes.CDLL(None, use_errno=True)


class TuttiLocalSpawner(NotebookJobMixin, SimpleLocalProcessSpawner):  # type: ignore[misc]  # JupyterHub has no types
    homes = Unicode("homes", config=True, help="The folder below which every user has a home, made on the first start.")
    run_as_owner = Bool(config=True, help="Run each server as its user's account, in its home; needs a hub that root runs.")
    accounts = Dict(Unicode(), key_trait=Unicode(), config=True, help="Accounts of users that have another name than their own.")
    least_uid = Integer(1000, min=1, config=True, help="Accounts below are of the system, whatever their name.")

    @default("home_dir")
    def _default_home_dir(self) -> str:
        return self._account().pw_dir if self.run_as_owner else str(Path(self.homes).absolute() / folder_of(self.user.name))

    def _account(self) -> pwd.struct_passwd:
        """Raises a refusal that the user is shown, which is no failure of the hub."""
        name = self.accounts.get(self.user.name, self.user.name)
        entry = None
        with contextlib.suppress(KeyError, ValueError):
            entry = pwd.getpwnam(name)
        ids = None if entry is None else Entry(entry.pw_uid, entry.pw_gid)
        why = refusal_of(self.user.name, name, ids, self.least_uid, "servers")
        if not why and os.geteuid() != 0:
            why = "the hub is not run by root, so it cannot start servers as their users; ask the site's admin."
        if why:
            raise refusal(Forbidden(why))
        assert entry is not None
        return entry

    async def start(self) -> Any:
        if options.checked(self.user_options).get("run_as"):
            what = "run_as: servers on the hub's machine run as the hub's user or as their own users; leave it out."
            raise SpawnException(what, reason="options", status_code=400)
        if self.run_as_owner:
            self._account()  # before room is asked for
        return await super().start()

    def make_preexec_fn(self, name: str) -> Any:
        """What can fail or wait is done here, so that only system calls run between fork and exec."""
        if self.run_as_owner:
            return _becoming(self._account())
        home = self.home_dir
        os.makedirs(home, 0o700, exist_ok=True)
        return lambda: os.chdir(home)

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        if not self.run_as_owner:
            plain: dict[str, str] = super().user_env(env)
            return plain
        entry = self._account()
        own = {"USER": entry.pw_name, "LOGNAME": entry.pw_name, "HOME": entry.pw_dir, "SHELL": entry.pw_shell or "/bin/sh"}
        return {**env, **own}

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        if self._admitted is None:
            return env
        profile = self._admitted.profile
        host = {DRIVER_HOST_VARIABLE: socket.getfqdn()} if self._admitted.driver_ports else {}
        return {**env, **profile.env, **host, **({} if amounts_of(profile)[GPU] else NO_GPU)}


def _becoming(entry: pwd.struct_passwd) -> Any:
    groups = [group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group != 0]

    def become() -> None:
        os.setgroups(groups)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
        os.umask(UMASK)
        try:
            os.chdir(entry.pw_dir)
        except OSError:
            os.chdir("/")

    return become
