"""A notebook as a job: the bundle and the request that run a notebook file with papermill, and its executed copy.

    job = submit_notebook(client, Path("report.ipynb"), {"day": "2026-11-22"}, JobRequest(pods=…))
    …
    save_executed(client, client.wait(job.id), Path("report-done.ipynb"))

`notebook_job` makes the bundle and the request alone, for a dry run or an asyncio client.

The job has the notebook as it was at the submit, without outputs, and runs in the notebook's folder. The executed notebook is the
output `EXECUTED` of the job, also after a failure: then with what ran until then.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tuttilab.scheduler.client.archives import tar_of
from tuttilab.scheduler.client.environment import environment_for
from tuttilab.scheduler.domain.errors import BadInput, EnvironmentProblem, NotFound, TooLarge, TuttiError
from tuttilab.scheduler.domain.requests import DagRequest, JobRequest, NodeRequest, OutputRequest, PodRequest
from tuttilab.scheduler.domain.titles import visible

if TYPE_CHECKING:
    from tuttilab.scheduler.client.sync_client import Client
    from tuttilab.scheduler.domain.wire import JobView

RUNNER: Final = "notebook_runner.py"
EXECUTED: Final = "notebook"
"""Name of the output that is the executed notebook."""
ERROR: Final = "error"
"""Name of the output that says which cell failed, and how; as the magics' cells leave it."""
LABEL: Final = "runs-notebook"
"""Label with the path of the notebook that the job runs."""
PARAMETER: Final = "TUTTILAB_PARAMETER_"
"""Before the name, in the job's environment: a parameter as ``=VALUE``, JSON where it is JSON and else text."""
MOST_BYTES: Final = 64 * 2**20
"""Of a notebook without its outputs."""
_MOST_FILE_BYTES: Final = 512 * 2**20
_LONGEST_LABEL: Final = 256


def is_notebook(path: str) -> bool:
    return path.endswith(".ipynb")


def notebook_job(
    path: Path, parameters: Mapping[str, Any], base: JobRequest, *, in_environment: bool = False
) -> tuple[bytes, JobRequest]:
    """The code bundle, and the request that runs it with the sizes, queue and limits of ``base``. Blocks while the file is read.

    ``in_environment``: parameters are in the request and not in the bundle, so that variables of a DAG are put into them.

    Any: a parameter is what JSON can hold. Raises BadInput, TooLarge, and EnvironmentProblem without papermill.
    """
    if any(pod.count != 1 for pod in base.pods):
        raise BadInput("A notebook runs in one pod; leave --workers out, or submit the work as a script.")
    if base.image is None and importlib.util.find_spec("papermill") is None:
        raise EnvironmentProblem(
            f"papermill, which runs notebooks, is not installed in {sys.executable}; `pip install 'tuttilab[lab]'` there."
        )
    path = path.expanduser().absolute()
    notebook = _read(path)
    _check_parameters(path.name, notebook, parameters)
    about = {"name": path.name, "parameters": {} if in_environment else dict(parameters)}
    # The sign keeps a value that is a variable alone a text, whatever the variable's type is.
    told = {f"{PARAMETER}{name}": f"={_told(value)}" for name, value in parameters.items()} if in_environment else {}
    bundle = tar_of(
        {
            RUNNER: importlib.resources.files("tuttilab.scheduler.client").joinpath(RUNNER).read_bytes(),
            "notebook.json": json.dumps(about, sort_keys=True, allow_nan=False).encode(),
            "notebook.ipynb": json.dumps(_without_outputs(notebook)).encode(),
        }
    )
    if len(bundle) > MOST_BYTES:
        raise TooLarge(
            f"{path.name} has {len(bundle) // 2**20} MiB without its outputs, and at most {MOST_BYTES // 2**20} MiB go with a job; "
            "move its attachments to files."
        )
    label = "".join(character for character in str(path) if character.isprintable())[-_LONGEST_LABEL:]
    request = replace(
        base,
        name=base.name if base.name != JobRequest().name else visible(path.stem) or "notebook",
        # An image has its own interpreter; without one the job runs this process's.
        command=("python3" if base.image else sys.executable, f"$(TUTTILAB_CODE_DIR)/{RUNNER}"),
        code=hashlib.sha256(bundle).hexdigest(),
        env={**base.env, **told},
        workdir=base.workdir if base.workdir is not None or base.needs_containers else str(path.parent),
        outputs=(
            OutputRequest(name=EXECUTED, path=path.name, optional=True),
            OutputRequest(name=ERROR, path="error.json", optional=True),
            *base.outputs,
        ),
        labels={LABEL: label, **base.labels},
    )
    return bundle, request


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def with_notebooks(client: Client, request: DagRequest) -> DagRequest:
    """The DAG with a job in the place of each notebook, whose bundles are uploaded. Errors name the node."""
    return replace(request, nodes=tuple(node if node.notebook is None else _as_job(client, node) for node in request.nodes))


def _as_job(client: Client, node: NodeRequest) -> NodeRequest:
    if node.job is not None or node.spark_sql is not None:
        raise BadInput(f"node {node.name!r}: expected exactly one of the keys job, spark_sql and notebook.")
    if not node.notebook or not is_notebook(node.notebook) or "$" in node.notebook:
        raise BadInput(f"node {node.name!r}: notebook: {node.notebook!r} is no notebook; expected the path of an .ipynb file.")
    base = JobRequest(name=node.name, pods=(PodRequest(cpus=node.cpus, memory=node.memory),))
    try:
        bundle, job = notebook_job(Path(node.notebook), node.parameters, base, in_environment=True)
    except TuttiError as error:
        raise type(error)(f"node {node.name!r}: {error}") from error
    client.put_artifact(bundle)
    return replace(node, job=job, notebook=None, parameters={})


def submit_notebook(
    client: Client, path: Path, parameters: Mapping[str, Any], base: JobRequest, *, key: str | None = None
) -> JobView:
    """Upload and submit, with the environment of this process. Any: as `notebook_job`. Errors are those of both, and TooLarge."""
    bundle, request = notebook_job(path, parameters, base)
    request = replace(request, inherited=environment_for(request, client.clusters()).values)
    client.put_artifact(bundle)
    return client.submit(request, key=key)


def parameter(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` of ``-p``: the value as JSON where it is JSON (numbers, lists, true, null), else as text.

    Any: as `notebook_job`. Raises ValueError with what was expected.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError("NAME=VALUE with a variable's name")
    words = {"True": True, "False": False, "None": None}
    if value in words:
        return name, words[value]
    try:
        return name, json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return name, value


def _refuse_constant(text: str) -> float:
    raise ValueError(text)


def executed_artifact(job: JobView) -> str | None:
    """The artifact of the executed notebook, of the newest attempt that left one; None before, and for other jobs."""
    for attempt in reversed(job.attempts):
        for pod in attempt.pods:
            if pod.rank == 0 and EXECUTED in pod.outputs:
                return pod.outputs[EXECUTED]
    return None


def executed_name(job: JobView) -> str:
    """``report-3f2a9c12.ipynb``: a name for the copy beside the notebook that no other job's copy has."""
    return f"{Path(job.labels.get(LABEL) or job.name).stem or 'notebook'}-{job.id[:8]}.ipynb"


def save_executed(client: Client, job: JobView, to: Path) -> Path:
    """Write the executed notebook to the file ``to``, which must not exist, or below its own name into the folder ``to``."""
    artifact = executed_artifact(job)
    if artifact is None:
        raise NotFound(
            f"Job {job.id[:8]} {job.name} left no executed notebook; `tuttilab logs {job.id[:8]}` shows what it printed."
        )
    target = to / executed_name(job) if to.is_dir() else to
    if target.exists():
        raise BadInput(f"{target} is there already; give another name for the executed notebook.")
    part = target.with_name(f".{target.name}.part")
    try:
        client.get_artifact(artifact, part)
        part.replace(target)
    except OSError as error:
        raise BadInput(f"{target} cannot be written ({error.strerror}); give another folder for the executed notebook.") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _read(path: Path) -> dict[str, Any]:
    try:
        # Without O_NONBLOCK a FIFO would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise BadInput(f"{path}: it is no regular file; expected a notebook (.ipynb).")
            if about.st_size > _MOST_FILE_BYTES:
                raise TooLarge(f"{path} has {about.st_size // 2**20} MiB; clear its outputs and save it before you submit it.")
            body = file.read()
    except OSError as error:
        raise BadInput(f"{path}: the notebook cannot be read ({error.strerror}); give the path of an .ipynb file.") from error
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: it is not a notebook ({error}); expected a file that Jupyter saved.") from None
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or found.get("nbformat") != 4 or not all(isinstance(cell, dict) for cell in cells):
        raise BadInput(f"{path}: it is not a notebook of format 4; open and save it in JupyterLab, which converts it.")
    if not any(cell.get("cell_type") == "code" and source_of(cell).strip() for cell in cells):
        raise BadInput(f"{path}: no cell of it has code; write one, save the notebook, and submit it again.")
    notebook: dict[str, Any] = found
    return notebook


def source_of(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _tags(cell: Mapping[str, Any]) -> Iterable[str]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else ()


def _check_parameters(name: str, notebook: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """In Python, a parameter that the cell tagged ``parameters`` does not set is a typing error; without that cell any is taken."""
    tagged = next((source_of(cell) for cell in notebook["cells"] if "parameters" in _tags(cell)), None)
    metadata = notebook.get("metadata")
    spec = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = spec.get("language") if isinstance(spec, dict) else None
    if tagged is None or language not in (None, "python"):
        return
    known = list(dict.fromkeys(re.findall(r"^([^\W\d]\w*)\s*(?::[^=\n]+)?=(?!=)", tagged, re.MULTILINE)))
    for given in parameters:
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"its cell tagged `parameters` sets {', '.join(known) or 'none'}."
            raise BadInput(f"{name} has no parameter {given!r}; {hint}")


def _without_outputs(notebook: Mapping[str, Any]) -> dict[str, Any]:
    cells = [
        {**cell, "outputs": [], "execution_count": None} if cell.get("cell_type") == "code" else cell for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells}
