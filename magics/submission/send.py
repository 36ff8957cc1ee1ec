"""Sends a submission: uploads the bundle, then submits the jobs, each with its idempotency key."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Final

from tuttilab.magics.jobs.handle import JobHandle
from tuttilab.magics.jobs.map_handle import MapHandle
from tuttilab.magics.shared.connection import client
from tuttilab.magics.shared.notebook import message_id
from tuttilab.magics.submission.interpreter import check_image, check_interpreter
from tuttilab.magics.submission.request import Executions, Submission
from tuttilab.scheduler.client import Environment, environment_for, is_local
from tuttilab.scheduler.domain.errors import BadInput, TooManyJobs

EXECUTIONS: Final = Executions()
"""The executions of this kernel; the extension calls `begin` when a cell starts."""
_BATCH: Final = 500
_BATCH_BYTES: Final = 8 * 2**20
"""About so much JSON is sent at once."""
_REST_BYTES: Final = 4096
"""Of a request without the environment."""


def send(submission: Submission, *, is_map: bool) -> JobHandle | MapHandle:
    """Uploads and submits. Sending the same submit of the same cell execution again returns the same jobs."""
    service = client()
    inherited = environment_of(submission).values
    requests = [replace(request, inherited=inherited) for request in submission.requests]
    service.put_artifact(submission.bundle)
    if not is_map:
        return JobHandle.of(service.submit(requests[0], key=submission.keys[0]))
    views = []
    # The environment is in every one of them, and a request has a limit.
    size = sum(len(name) + 4 * len(value) for name, value in inherited.items()) + _REST_BYTES
    batch = max(1, min(_BATCH, _BATCH_BYTES // size))
    for start in range(0, len(requests), batch):
        part = slice(start, start + batch)
        try:
            views += service.submit_many(requests[part], submission.keys[part])
        except TooManyJobs as refusal:
            if not views:
                raise
            for view in views:
                service.cancel(view.id)
            raise TooManyJobs(f"{refusal} The first {len(views)} of the {len(requests)} elements were cancelled again.") from None
    return MapHandle([JobHandle.of(view) for view in views])


def environment_of(submission: Submission) -> Environment:
    """What goes along of this kernel's environment. Raises TooLarge naming the largest variables.

    Raises BadInput for an interpreter that could not read the cell, where the job can only come to this machine.
    """
    request, clusters = submission.requests[0], client().clusters()
    environment = environment_for(request, clusters)
    if request.needs_containers:
        check_image(request, clusters)
        return environment
    python = request.command[0] if request.spark is None else request.spark.interpreter or sys.executable
    if not is_local(clusters, request.cluster):
        if python != sys.executable:
            raise BadInput(
                f"--python {python} is an interpreter of this machine, and the job runs elsewhere; --image names one there."
            )
        return environment
    if python != sys.executable:
        environment = environment.with_first(os.path.dirname(python))
    check_interpreter(python, {**environment.values, **request.env})
    return environment


def key_stem(digest: str) -> str:
    """The stem of the idempotency keys in this cell execution for content with this digest."""
    return EXECUTIONS.stem(message_id(), digest)
