"""Where the files of jobs, attempts and pods are: ``<state>/pods/<job>/<attempt>/<pod>/``.

Files of the attempt begin with a dot, which no name of a pod does.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.runtime.crash_points import point

ROOT: Final = "pods"
"""Below the state folder; the files below it are the jobs' own."""
ATTEMPT: Final = ".attempt.json"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,251}")


def attempt_folder(state_dir: Path, job_id: str, attempt: int) -> Path:
    """Raises BadInput for an invalid id."""
    if not NAME.fullmatch(job_id):
        raise BadInput(f"job id {job_id!r}: expected letters, digits, dots and dashes.")
    return state_dir / ROOT / job_id / str(attempt)


def pod_folder(state_dir: Path, job_id: str, attempt: int, pod: str) -> Path:
    if not NAME.fullmatch(pod):
        raise BadInput(f"pod name {pod!r}: expected letters, digits, dots and dashes.")
    return attempt_folder(state_dir, job_id, attempt) / pod


def erase(attempt: Path) -> None:
    """Delete the folder of an attempt. It is renamed first: a partial one would look like started pods."""
    erased = attempt.with_name(f".{attempt.name}.gone")
    shutil.rmtree(erased, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        attempt.rename(erased)
    point("erase.renamed")
    shutil.rmtree(erased, ignore_errors=True)
