"""`%submit NOTEBOOK.ipynb`: runs a notebook file as a job. Only reads the line; `scheduler.client.notebooks` makes the job."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.jobs.collect import resolve, wait_and_collect
from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Area, Shown, show
from tuttilab.magics.shared.job_text import short_id
from tuttilab.magics.shared.notebook import origin_labels
from tuttilab.magics.shared.parse import VAR, Option, Parsed, Positional, UsageError, help_table, parse_line
from tuttilab.magics.submission.send import key_stem
from tuttilab.scheduler.client import environment_for
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.wire import DryRunView

MAGIC: Final = "%submit"
TAKEN: Final = (
    *("--name", "--cpus", "--memory", "--gpus", "--gpu-type", "--queue", "--priority", "--image"),
    *("--mount", "--sidecar"),
    *("--timeout", "--retries", "--after", "--cluster", "--env", "--wait", "--detach", "--on-interrupt", "--dry-run"),
)
"""The options that a cell's submit and a notebook's share."""


def parameter(text: str) -> tuple[str, Any]:
    """A converter: ``NAME=VALUE``, the value as JSON where it is JSON."""
    from tuttilab.scheduler.client.notebooks import parameter as read

    return read(text)


PARAMETER: Final = Option("--parameter", "K=V", parameter, repeatable=True, short="-p", help="of the notebook; repeat it")
NOTEBOOK: Final = Positional("NOTEBOOK", help="the .ipynb file; it runs as it was saved, and its executed copy comes back")


def options_of(cells: Sequence[Option]) -> tuple[Option, ...]:
    """The options of `%submit`, from those of `%%submit`."""
    return (PARAMETER, *(option for option in cells if option.name in TAKEN))


def submit_notebook(shell: InteractiveShell, line: str, cells: Sequence[Option]) -> None:
    """Submit the notebook, wait for its end unless ``--detach``, and keep the executed copy. Raises RemoteError for a failed cell.

    ``cells``: the options of `%%submit`.
    """
    parsed = parse_line(MAGIC, options_of(cells), line, positionals=(NOTEBOOK, VAR))
    if parsed.help_text is not None:
        show(Shown(f"{parsed.help_text}\n\n{help_table('%%submit', cells)}"))
        return
    name = parsed.positionals.get("NOTEBOOK")
    if name is None:
        raise UsageError(
            "%submit NOTEBOOK.ipynb [-p NAME=VALUE] runs a notebook file as a job; to run the code of a cell, write %%submit as "
            "the first line of the cell, above the code."
        )
    if not name.endswith(".ipynb"):
        raise UsageError(
            f"%submit: {name!r} is no notebook; expected a file that ends with .ipynb. A script runs with `!tuttilab submit`."
        )
    if parsed["wait"] and parsed["detach"]:
        raise UsageError("%submit: --wait and --detach exclude each other; give one of them.")
    _run(shell, parsed, Path(name))


def _run(shell: InteractiveShell, parsed: Parsed, path: Path) -> None:
    from tuttilab.scheduler.client.notebooks import notebook_job

    bundle, request = notebook_job(path, dict(parsed["parameter"]), _base(shell, parsed))
    environment = environment_for(request, client().clusters())
    request = replace(request, inherited=environment.values)
    if parsed["dry-run"]:
        show(_dry_run_text(client().dry_run(request), str(environment)))
        return
    client().put_artifact(bundle)
    key = key_stem(hashlib.sha256(f"{request!r}".encode()).hexdigest())
    handle = JobHandle.of(client().submit(request, key=key))
    if parsed.var is not None:
        shell.user_ns[parsed.var] = handle
    if parsed["detach"]:
        short = short_id(handle.id)
        show(Shown(f"job {short} {handle.name!r} submitted; `%attach {short}` waits for it and fetches the executed notebook."))
        return
    wait_and_collect(shell, handle, Area(), parsed["on-interrupt"])


def _base(shell: InteractiveShell, parsed: Parsed) -> JobRequest:
    after: list[str] = []
    for text in parsed["after"]:
        jobs = resolve(shell, text)
        after += jobs.ids if isinstance(jobs, MapHandle) else [jobs.id]
    given = {key: parsed[key] for key in ("queue", "image", "cluster") if parsed[key] is not None}
    return JobRequest(
        name=parsed["name"] or JobRequest().name,
        pods=(PodRequest(cpus=parsed["cpus"], memory=parsed["memory"], gpus=parsed["gpus"], gpu_type=parsed["gpu-type"]),),
        priority=parsed["priority"],
        timeout=None if parsed["timeout"] is None else max(1, math.ceil(parsed["timeout"])),
        retries=parsed["retries"],
        after=tuple(after),
        env=dict(parsed["env"]),
        labels=origin_labels(parsed.var),
        mounts=tuple(parsed["mount"]),
        sidecars=tuple(parsed["sidecar"]),
        **given,
    )


def _dry_run_text(verdict: DryRunView, environment: str) -> Shown:
    charge = ", ".join(f"{amount} {key}" for key, amount in verdict.charge.items())
    return Shown("\n".join([f"{verdict.verdict}: {verdict.sentence}", *([f"counts as: {charge}"] if charge else []), environment]))
