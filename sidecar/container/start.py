"""Runs one of the three programs and writes how it ended where the kubelet reads it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

PROGRAMS = ("prepare", "member", "master")
MESSAGE_BYTES = 4000
"""The kubelet keeps 4096 bytes."""


def main(arguments: list[str]) -> None:
    """Runs the program and ends the process. The exit code of ``prepare`` is 1 when user code must not start."""
    if len(arguments) != 2 or arguments[0] not in PROGRAMS:
        raise SystemExit(f"{' '.join(arguments)[:200]!r}: expected one of {', '.join(PROGRAMS)}, and the file of a plan.")
    program, plan_file = arguments
    try:
        # The kubelet makes it a symbolic link, which `records.read` does not follow.
        with open(plan_file, encoding="utf-8") as file:
            plan = json.load(file)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{plan_file}: {error}; expected the plan of a pod.") from error
    try:
        status = _run(program, plan)
    except BaseException:  # the last frame of the process: print it, then end without waiting for threads
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(program: str, plan: dict[str, Any]) -> int:
    os.makedirs(plan["dirs"]["pod"], exist_ok=True)
    if program == "prepare":
        from tuttilab.sidecar.container import prepare

        return prepare.run(plan)
    if program == "member":
        from tuttilab.sidecar.container.member import Sidecar

        return Sidecar(plan).run()
    from tuttilab.sidecar.container.master import PodMaster, listen

    return PodMaster(plan, plan["dirs"]["pod"], os.environ["TUTTILAB_POD_UID"], listen(plan["port"])).run()


def leave_message(plan: Mapping[str, Any], message: Mapping[str, object]) -> None:
    """What the control plane reads in the pod's status: ``reason``, ``message``, ``outputs``. A long sentence is cut.

    What is in that file when a container ends becomes part of its status.
    """
    body = dict(message)
    text = json.dumps(body)
    if len(text.encode()) > MESSAGE_BYTES:
        body["message"] = str(body.get("message", ""))[:500]
        text = json.dumps(body)
    with open(plan["message_file"], "w", encoding="utf-8") as file:
        file.write(text)
