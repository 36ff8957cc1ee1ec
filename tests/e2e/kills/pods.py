"""The processes of pods of a control plane that a test starts and kills: who they are, and pods that run for certain."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from tests.e2e.kills.plane import DEADLINE_S, Plane
from tuttilab.sidecar.keeper import TITLE


def processes_of(plane: Plane) -> list[tuple[psutil.Process, list[str]]]:
    """Those of the machine whose command line names the plane's state folder, with its words."""
    found = ((process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [(process, words) for process, words in found if any(str(plane.state) in word for word in words)]


def sidecars(plane: Plane, part: str) -> list[psutil.Process]:
    """Sidecars of pods whose name ends so; of a gang's master that is the master itself."""
    return [
        process
        for process, words in processes_of(plane)
        if any(word.endswith("plan.json") and Path(word).parent.name.endswith(part) for word in words)
    ]


def keepers(plane: Plane) -> list[psutil.Process]:
    return [process for process, words in processes_of(plane) if words[0].startswith(TITLE)]


def running(plane: Plane, key: str, workers: int, script: str) -> str:
    """Submits a job, and returns when all of its workers have begun."""
    job_id = plane.submit(key, workers=workers, script=script)
    until = time.monotonic() + DEADLINE_S
    while sum(plane.ran(job_id).values()) < workers:
        assert time.monotonic() < until, plane.ask(lambda client: client.job(job_id))
        time.sleep(0.05)
    return job_id
