"""The first container of a pod: makes its folders, fetches code and inputs, and leaves a program that the next container runs.

That next container has the user's image and runs `NOTHING`, which ends at once: so the image is pulled, and shown to start, before
the pod waits at the barrier. The program is made here, byte by byte, because an image need not have any.
"""

from __future__ import annotations

import os
import platform
import signal
import struct
from typing import Any

from tuttilab.sidecar import context
from tuttilab.sidecar.container.start import leave_message

NOTHING = "nothing"
"""Name of that program in the pod's own folder."""
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
    write_program(f"{plan['dirs']['pod']}/{NOTHING}", platform.machine())
    try:
        context.prepare(plan)
    except context.PreparationFailed as error:
        leave_message(plan, {"reason": error.reason, "message": str(error)})
        return 1
    return 0


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
