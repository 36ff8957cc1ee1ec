"""The first container of a pod: makes its folders, fetches code and inputs, and leaves a program that the next container runs.

That next container has the user's image and runs `NOTHING`, which ends at once: so the image is pulled, and shown to start, before
the pod waits at the barrier. The program is made here, byte by byte, because an image need not have any.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import struct
from collections.abc import Mapping
from typing import Any

from tuttilab.sidecar import context
from tuttilab.sidecar.container.start import leave_message

NOTHING = "nothing"
"""Name of that program in the pod's own folder."""
ACCOUNT = "spark"
"""Name of the account that a pod of Spark runs as."""
_BASE = 0x400000
_CODE = {
    # mov edi, 0; mov eax, 60 (exit); syscall
    "x86_64": (62, bytes.fromhex("bf00000000b83c0000000f05")),
    # mov x0, #0; mov x8, #93 (exit); svc #0
    "aarch64": (183, bytes.fromhex("000080d2a80b80d2010000d4")),
}
"""Number of the machine in ELF, and the instructions of exit(0)."""


def run(plan: dict[str, Any]) -> int:
    """0, or 1 with the reason in the container's message."""
    # As the first process of its container it would ignore the signal otherwise.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    for folder in plan["dirs"].values():
        os.makedirs(folder, exist_ok=True)
    if "passwd_file" in plan:
        write_accounts(plan["passwd_file"], os.getuid(), os.getgid(), plan["dirs"]["work"])
    if "secrets" in plan:
        write_secrets(plan["secrets_dir"], plan["secrets"])
    write_program(f"{plan['dirs']['pod']}/{NOTHING}", platform.machine())
    try:
        context.prepare(plan)
    except context.PreparationFailed as error:
        leave_message(plan, {"reason": error.reason, "message": str(error)})
        return 1
    return 0


def write_accounts(path: str, uid: int, gid: int, home: str) -> None:
    """The file /etc/passwd of a container whose image need not know the number that it runs as."""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"root:x:0:0:root:/root:/bin/sh\n{ACCOUNT}:x:{uid}:{gid}:{ACCOUNT}:{home}:/bin/sh\n")


def write_secrets(folder: str, secrets: Mapping[str, str]) -> None:
    """Files that only this account may read; the user's container runs as it."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name, text in secrets.items():
        path = f"{folder}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a container that was started again
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)


def write_program(path: str, machine: str) -> None:
    """A static program of one system call. Raises SystemExit for a machine of another kind."""
    if machine not in _CODE:
        raise SystemExit(f"{machine}: expected a node of {' or '.join(_CODE)}.")
    with open(path, "wb") as file:
        file.write(program(*_CODE[machine]))
    os.chmod(path, 0o555)  # noqa: S103  the user's container may run as anybody


def program(number: int, code: bytes) -> bytes:
    """An executable of ELF with one segment (System V ABI, chapters 4 and 5): a header, its program header, the code."""
    start = 64 + 56
    size = start + len(code)
    header = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header += struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code
