"""A command that runs to its end: one pod, or a distributed gang under a master."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.kinds.pods import gang_of, work_of
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import Framework, Gang, JobKind, Work
from tuttilab.scheduler.requests import JobRequest


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    pods = gang_of(request)
    work = work_of(request)
    if work.framework is Framework.TENSORFLOW and not any(p.role in ("worker", "chief") for p in pods.pod_sets):
        roles = ", ".join(p.role for p in pods.pod_sets)
        raise BadInput(f"framework: tensorflow needs a role worker or chief; given {roles}.")
    if work.framework is Framework.NONE:
        # Its workers are told of no fixed world, so they may come and go; with a framework the size is chosen at the start.
        sets = [replace(one, can_grow=one.min_count is not None and one.min_count < one.count) for one in pods.pod_sets]
        pods = replace(pods, pod_sets=tuple(sets))
    return (JobKind.DISTRIBUTED if pods.size > 1 else JobKind.BATCH), pods, work
