"""Notebooks that ran as jobs, seen from the notebook that submitted them: where the executed copy is, and how to open it."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.display import Shown
from tuttilab.magics.shared.job_text import newest, short_id
from tuttilab.magics.shared.labels import EXECUTED
from tuttilab.scheduler.domain.errors import TuttiError


def has_executed(handle: JobHandle) -> bool:
    """Whether the job ran a notebook and left its executed copy."""
    attempt = newest(handle.seen)
    return attempt is not None and any(EXECUTED in pod.outputs for pod in attempt.pods)


def keep_executed(handle: JobHandle) -> Shown:
    """Put the executed notebook into the current folder; says where it is. An existing copy of the same job stays."""
    from tuttilab.scheduler.client.notebooks import executed_name, save_executed

    target = Path.cwd() / executed_name(handle.seen)
    if not target.exists():
        try:
            save_executed(client(), handle.seen, target)
        except TuttiError as error:
            return Shown(f"{error} `%job {short_id(handle.id)} download FOLDER` fetches it.")
    link = f'<a href="{html.escape(quote(target.name))}">{html.escape(target.name)}</a>'
    return Shown(f"The executed notebook is {target.name}, in this folder.", f"<div>The executed notebook is {link}.</div>")
