"""The interpreter that a cell's job runs in, asked before the job is queued whether it can read the cell.

An image is somebody else's machine: where the site names its Python that is enough, else the same question is asked at the start of
the job (`sidecar/cell/versions.py`).
"""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cloudpickle

from tuttilab.scheduler.client import LOCAL
from tuttilab.scheduler.domain.errors import BadInput

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.requests import JobRequest
    from tuttilab.scheduler.domain.wire import ClusterView

ANSWERS_S: Final = 10.0
"""An interpreter that needs longer is left to say it at the start of the job."""


def versions() -> dict[str, str]:
    """Of this kernel, as the job compares them."""
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "cloudpickle": cloudpickle.__version__}


def interpreter(text: str) -> str:
    """A converter: the absolute path of an interpreter, from a path, a name on PATH, or the folder of an environment."""
    path = Path(text).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    # Not resolved: where the link of an environment stands says which environment it is.
    found = shutil.which(path.absolute()) if os.sep in text or path.exists() else shutil.which(text)
    if found is None:
        raise ValueError("an interpreter or the folder of an environment on this machine")
    return found


def check_interpreter(python: str, env: Mapping[str, str]) -> None:
    """Raises BadInput when ``python`` cannot read what this kernel pickles. ``env``: the job's environment.

    Takes some 50 ms, and nothing when it was answered before for the same interpreter, variables and versions.
    """
    variables = tuple(sorted((name, value) for name, value in env.items() if name.startswith("PYTHON")))
    asked = (python, variables, *versions().values(), _state_of(cloudpickle.__file__), _state_of(python))
    problem = _ANSWERS.get(asked)
    if problem is None:
        problem = _ask(python, env)
        # What was wrong may be mended meanwhile; what was right is seen to change.
        _ANSWERS.update({asked: problem} if not problem else {})
    if problem:
        raise BadInput(problem)


def check_image(request: JobRequest, clusters: Sequence[ClusterView]) -> None:
    """Raises BadInput when the site says of the job's image, wherever the job may go, that it has another Python than we."""
    here = versions()["python"]
    known: list[tuple[str, str | None]] = []
    for cluster in clusters:
        image = request.image or cluster.image
        if request.cluster in (None, cluster.name) and cluster.kind != LOCAL and image is not None:
            known.append((image, cluster.pythons.get(image)))
    if known and all(python not in (None, here) for _, python in known):
        image, python = known[0]
        raise BadInput(
            f"The notebook runs Python {here} and image {image} Python {python}, as clusters[].pythons of the site says: "
            "a captured cell needs the same major and minor version; choose an image with it."
        )


_ANSWERS: Final[dict[tuple[object, ...], str]] = {}


def _state_of(file: str) -> tuple[int, int]:
    """Changes when the file is replaced."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)


def _ask(python: str, env: Mapping[str, str]) -> str:
    """The sentence of the interpreter; empty when it can read the cell, or did not say in time."""
    text = importlib.resources.files("tuttilab.sidecar.cell").joinpath("versions.py").read_text()
    try:
        done = subprocess.run(
            # Not in the notebook's folder, whose files would be found as modules.
            [python, "-c", text, json.dumps(versions())],
            cwd="/",
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWERS_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    except OSError as error:
        return f"The job's interpreter {python} cannot be started ({error.strerror}); --python names another one."
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it does not say why"])[-1][:200]
        return f"The job's interpreter {python} does not work ({said}); --python names another one."
    return done.stdout.strip()
