"""Kind batch: a command that runs to its end, in one pod or in a distributed gang with a master."""

from __future__ import annotations

from dataclasses import replace

from tuttilab.scheduler.core.kinds.pods import gang_of, work_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Framework, Gang, JobKind, Work
from tuttilab.scheduler.domain.requests import JobRequest


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    pods = gang_of(request)
    work = work_of(request)
    if work.framework is Framework.SPARK:
        raise BadInput("framework: spark comes with Spark jobs and sessions; expected one of torch, tensorflow, xgboost, none.")
    if work.framework is Framework.TENSORFLOW and not any(p.role in ("worker", "chief") for p in pods.pod_sets):
        roles = ", ".join(p.role for p in pods.pod_sets)
        raise BadInput(f"framework: tensorflow needs a role worker or chief; given {roles}.")
    if work.framework is Framework.NONE:
        # Without a framework no process knows the gang's size, so pods may join and leave; with one the size is fixed at the start.
        sets = [replace(one, can_grow=one.min_count is not None and one.min_count < one.count) for one in pods.pod_sets]
        pods = replace(pods, pod_sets=tuple(sets))
    return (JobKind.DISTRIBUTED if pods.size > 1 else JobKind.BATCH), pods, work
