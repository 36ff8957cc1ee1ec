"""A Spark session of one user: a Connect server that runs until it is stopped or idle, in the ledger like any other job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.kinds.pods import gang_of, work_of
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import Gang, Job, JobKind, JobPhase, Work
from tuttilab.scheduler.requests import JobRequest, PodRequest, SparkRequest
from tuttilab.scheduler.resources import CPU, MEMORY, parse_cpu, parse_duration, parse_memory

SESSION_LABEL: Final = "spark-session"
CONNECT_ENDPOINT: Final = "connect"
TOKEN_SECRET: Final = "spark-token"  # noqa: S105  the secret file's name, not a secret
SERVER: Final = ("-m", "tuttilab.scheduler.spark.server")


def request_of(spark: SparkRequest, interpreter: str) -> JobRequest:
    """The submit that starts this session. ``interpreter`` runs the server where the request names none."""
    cores = max(1, parse_cpu(spark.cpus, "cpus") // 1000)
    spec = {
        "cores": cores,
        "memory_bytes": parse_memory(spark.memory, "memory"),
        "conf": dict(spark.conf),
        "idle_s": parse_duration(spark.idle, "idle"),
        "ui": spark.ui,
    }
    return JobRequest(
        name=f"spark-{spark.name}",
        kind="spark",
        queue=spark.queue,
        pods=(PodRequest(role="driver", cpus=spark.cpus, memory=spark.memory),),
        command=(spark.interpreter or interpreter, *SERVER),
        env={"TUTTILAB_SPARK_SPEC": json.dumps(spec, sort_keys=True)},
        labels={SESSION_LABEL: spark.name},
        grace="10s",
    )


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    if SESSION_LABEL not in request.labels:
        raise BadInput(f"labels: a Spark session needs its name under {SESSION_LABEL!r}; start one with `%spark start`.")
    pods = gang_of(request)
    if pods.size != 1:
        raise BadInput(f"pods: {pods.size} pods for a Spark session; this version starts its executors inside one pod.")
    return JobKind.SPARK, pods, replace(work_of(request), outputs=())


def session_name(job: Job) -> str:
    return job.labels.get(SESSION_LABEL, "")


def is_live_session(job: Job, name: str, owner: str) -> bool:
    is_live = job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE) and not job.cancel_requested
    return job.kind is JobKind.SPARK and is_live and job.owner == owner and session_name(job) == name


def size_of(job: Job) -> tuple[int, int]:
    """Milli-cores and bytes of the session."""
    resources = job.gang.pod_sets[0].resources
    return resources[CPU], resources[MEMORY]
