"""Under which uid and gid things happen, where a cluster runs each pod as the user who owns its job (docs/adr/0028).

The sidecar is started as root. Before it does anything it becomes an account of its own, which keeps three rights: to start the
main command as the owner, to act on files as the owner, and to signal the owner's processes. These can neither signal nor read it.
Whatever it reads or writes where the owner can put something, it does as the owner, so that a link or a special file there leads to
nothing that the owner could not reach alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
UMASK = 0o077
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
for _call in (_libc.setfsuid, _libc.setfsgid):
    _call.argtypes, _call.restype = [ctypes.c_uint32], ctypes.c_uint32


class Account(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Supplementary ones."""


def read(body: Mapping[str, Any] | None) -> Account | None:
    """From a plan; None where everything runs as the user of the control plane."""
    return None if body is None else Account(int(body["uid"]), int(body["gid"]), tuple(map(int, body["groups"])))


def become_sidecar(own: Account, *, is_starter: bool) -> None:
    """From root to the sidecar's account, for good. ``is_starter``: it starts a main command, so it keeps the rights for that."""
    _check(own)
    os.umask(UMASK)
    os.setgroups(own.groups)
    os.setresgid(own.gid, own.gid, own.gid)
    _prctl(PR_SET_KEEPCAPS, 1)
    os.setresuid(own.uid, own.uid, own.uid)
    _prctl(PR_SET_KEEPCAPS, 0)
    keep_rights(*((CAP_KILL, CAP_SETGID, CAP_SETUID) if is_starter else ()))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def become_owner(owner: Account) -> None:
    """In a new process, before it executes anything of the owner: for good, with all that it will start."""
    _check(owner)
    os.setgroups(owner.groups)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)
    keep_rights()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def keep_rights(*capabilities: int) -> None:
    """Gives up all capabilities but these."""
    bits = sum(1 << number for number in capabilities)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Twice effective, permitted, inheritable: the lower 32 capabilities, then the others.
    sets = (ctypes.c_uint32 * 6)(bits, bits, 0, 0, 0, 0)
    if _libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@contextlib.contextmanager
def acting_as(account: Account | None) -> Iterator[None]:
    """What this thread does with files in the block is permitted as to that account, and makes files of it. None: nothing changes.

    The kernel has this for file servers (setfsuid(2)); other threads and the process itself keep who they are, and nobody gets a
    right to signal this process by it.
    """
    if account is None:
        yield
        return
    _check(account)
    gid, uid = _libc.setfsgid(account.gid), _libc.setfsuid(account.uid)
    try:
        # These calls tell no error: asked with what no account has, they tell the present one.
        if (_libc.setfsuid(-1), _libc.setfsgid(-1)) != (account.uid, account.gid):
            raise PermissionError(f"uid {account.uid} cannot be taken on for files")
        yield
    finally:
        _libc.setfsuid(uid)
        _libc.setfsgid(gid)


def _check(account: Account) -> None:
    if account.uid <= 0 or account.gid <= 0:
        raise PermissionError(f"uid {account.uid}, gid {account.gid}: no pod runs as root")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")
