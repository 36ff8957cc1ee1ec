"""A job's definition: the request that submits the same job again. The inverse of `kinds.build`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.core.kinds import spark_batch
from tuttilab.scheduler.core.storages import request_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Job, JobKind, PodSet, Toleration, Work
from tuttilab.scheduler.domain.requests import InputRequest, JobRequest, OutputRequest, PodRequest, SideCarRequest
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, show_amount

_OTHER_WAY: Final[Mapping[JobKind, str]] = {
    JobKind.SPARK: "a Spark session; `tuttilab spark start` starts one",
    JobKind.NOTEBOOK: "a notebook server; the hub starts it",
}
RUN_LABELS: Final = ("dag-run", "dag-node")
"""Labels that a run of a DAG writes on its jobs: a job that is submitted again is no part of the run."""


def definition_of(job: Job) -> JobRequest:
    """The request, with every amount as text. Without the submitter's environment: whoever submits has one.

    Raises BadInput for what is not submitted as a job.
    """
    if job.kind in _OTHER_WAY:
        raise BadInput(f"{job.name} has no manifest: it is {_OTHER_WAY[job.kind]}.")
    work = job.work
    if spark_batch.is_application(job):
        return spark_batch.definition_of(job, _plain(job, work))
    return _plain(job, work)


def _plain(job: Job, work: Work) -> JobRequest:
    return JobRequest(
        name=job.name,
        group=job.group,
        queue=job.queue,
        priority=job.priority,
        pods=tuple(_pod(pods) for pods in job.gang.pod_sets),
        image=work.image,
        command=work.command,
        env=dict(work.env),
        # Without one the pod has a private folder, which a manifest says so.
        workdir=work.workdir or (None if work.needs_containers else ""),
        code=work.code,
        inputs=tuple(InputRequest(path=one.path, artifact=one.artifact) for one in work.inputs),
        outputs=tuple(OutputRequest(name=one.name, path=one.path, optional=one.is_optional) for one in work.outputs),
        framework=str(work.framework),
        timeout=None if job.timeout_s is None else _seconds(job.timeout_s),
        grace=_seconds(work.grace_s),
        retries=job.retries,
        after=job.after,
        cluster=job.cluster,
        labels={key: value for key, value in job.labels.items() if key not in RUN_LABELS},
        sidecar=work.sidecar,
        run_as=work.run_as,
        mounts=tuple(map(request_of, work.mounts)),
        sidecars=tuple(SideCarRequest(name=one.name, params=dict(one.params)) for one in work.sidecars),
    )


def _pod(pods: PodSet) -> PodRequest:
    others = {key: text for key, text in pods.resources.show().items() if key not in (CPU, MEMORY, GPU)}
    return PodRequest(
        role=pods.role,
        count=pods.count,
        min_count=pods.min_count,
        cpus=show_amount(CPU, pods.resources[CPU]),
        memory=show_amount(MEMORY, pods.resources[MEMORY]),
        gpus=pods.resources[GPU],
        node_labels=dict(pods.node_labels),
        tolerations=tuple(map(_toleration, pods.tolerations)),
        resources=others,
        ends=str(pods.ends),
    )


def _toleration(one: Toleration) -> str:
    """As `placement.taints.toleration_of` reads it."""
    return one.key + (f"={one.value}" if one.value is not None else "") + (f":{one.effect}" if one.effect is not None else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:g}s" if seconds < 1e6 else f"{seconds:.0f}s"
