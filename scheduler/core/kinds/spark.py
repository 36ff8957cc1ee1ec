"""Kind spark: a user's Spark session, a job that runs a Spark Connect server until it is stopped or idle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from tuttilab.scheduler.core.kinds.pods import gang_of, work_of
from tuttilab.scheduler.core.kinds.spark_size import (
    DRIVER,
    EXECUTOR,
    MIB,
    NO_EXECUTORS,
    WORKER,
    SparkSize,
    heap,
    heap_of,
    in_mib,
    pod_memory,
    size_of_executors,
)
from tuttilab.scheduler.core.placement.work_places import KUBERNETES
from tuttilab.scheduler.domain.errors import BadInput, NeverFits
from tuttilab.scheduler.domain.model import Attempt, Cluster, Framework, Gang, Job, JobKind, JobPhase, Node, Work
from tuttilab.scheduler.domain.requests import Amount, JobRequest, PodRequest, SparkRequest
from tuttilab.scheduler.domain.resources import CPU, MEMORY, parse_cpu, parse_duration, parse_memory

SESSION_LABEL: Final = "spark-session"
CONNECT_ENDPOINT: Final = "connect"
UI_ENDPOINT: Final = "ui"
TOKEN_SECRET: Final = "spark-token"  # noqa: S105  the secret file's name, not a secret
MOST_CORES: Final = 2
MOST_MEMORY_MIB: Final = 2048
LEAST_MEMORY_MIB: Final = 1024
"""Sizes of a session that names none."""
IDLE_SINCE: Final = "idle-since"
"""Published beside a session's addresses: since when nothing runs in it, in seconds since 1970. Absent while it is used or kept."""
GIVES_WAY_AFTER_S: Final = 20.0
"""A session that was not used for this long is idle."""
KEEP_LABEL: Final = "spark-keep"
SPEC: Final = "TUTTILAB_SPARK_SPEC"
"""Variable of the size and the settings, as JSON, for the programs in the pods."""
SERVER: Final = ("-m", "tuttilab.scheduler.spark.server")
CONNECT_PORT: Final = 15002
UI_PORT: Final = 4040
PORTS_ON_A_NETWORK: Final = (CONNECT_PORT, UI_PORT)
"""Of a session whose pod has an address of its own; on a machine that it shares they are chosen by the system."""
OF_IMAGE: Final = "python3"
"""The Python of an image."""


def default_size(nodes: Iterable[Node]) -> tuple[int, str]:
    """Cores and memory of a session that names none: at most half of the largest node, so that other work fits beside it."""
    largest = max((node.allocatable for node in nodes), key=lambda amounts: (amounts[CPU], amounts[MEMORY]), default=None)
    if largest is None:
        return MOST_CORES, f"{MOST_MEMORY_MIB}Mi"
    cores = min(MOST_CORES, max(1, largest[CPU] // 2000))
    memory = min(MOST_MEMORY_MIB, max(LEAST_MEMORY_MIB, largest[MEMORY] // 2**21))
    return cores, f"{memory}Mi"


def request_of(spark: SparkRequest, interpreter: str, nodes: Iterable[Node] = ()) -> JobRequest:
    """The job request of this session. Raises BadInput.

    ``interpreter`` runs the server if the session's request names neither one nor an image.
    """
    size = size_of_executors(spark.executors, spark.executor_cores, spark.executor_memory)
    cpus, memory = driver_size(spark, nodes)
    spec = {
        "cores": max(1, parse_cpu(cpus, "cpus") // 1000),
        "memory_bytes": parse_memory(memory, "memory"),
        "conf": dict(spark.conf),
        "idle_s": parse_duration(spark.idle, "idle"),
        "ui": spark.ui,
        "keep": spark.keep,
        **size.spec(),
    }
    return JobRequest(
        name=f"spark-{spark.name}",
        kind="spark",
        queue=spark.queue,
        pods=(PodRequest(role=DRIVER, cpus=cpus, memory=memory), *size.executor_pods()),
        image=spark.image,
        cluster=spark.cluster,
        command=(spark.interpreter or (interpreter if spark.image is None else OF_IMAGE), *SERVER),
        env={SPEC: json.dumps(spec, sort_keys=True)},
        labels={SESSION_LABEL: spark.name, **({KEEP_LABEL: "true"} if spark.keep else {})},
        framework=Framework.SPARK if size.executors else Framework.NONE,
        timeout=spark.ttl,
        grace="10s",
    )


def driver_size(spark: SparkRequest, nodes: Iterable[Node]) -> tuple[Amount, Amount]:
    """Cores and memory of the driver's pod. Raises BadInput where one is given twice."""
    for one, other in (("cpus", "driver_cores"), ("memory", "driver_memory")):
        if getattr(spark, one) is not None and getattr(spark, other) is not None:
            raise BadInput(f"{other}: the driver's size is given by {one} already; expected one of the two.")
    cpus, memory = default_size(nodes)
    if spark.executors:
        cpus = 1  # it runs no tasks
    if spark.driver_memory is not None:
        memory = in_mib(pod_memory(heap(spark.driver_memory, "driver_memory")))
    own_cpus = spark.cpus if spark.cpus is not None else spark.driver_cores
    return cpus if own_cpus is None else own_cpus, memory if spark.memory is None else spark.memory


def check_reachable(spark: SparkRequest, clusters: Mapping[str, Cluster]) -> None:
    """Raises NeverFits where the session would be on a cluster whose pods kernels reach through a Spark proxy only."""
    possible = [cluster for cluster in clusters.values() if spark.cluster in (None, cluster.name)]
    if spark.image is not None or (possible and all(cluster.kind == KUBERNETES for cluster in possible)):
        raise NeverFits(
            f"spark: the session {spark.name!r} would listen on the network of pods, where kernels send no token without TLS, and "
            "this site has no Spark proxy; an admin names one in tuttilab.yaml, as spark: {proxy: ...}."
        )


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    if SESSION_LABEL not in request.labels:
        raise BadInput(f"labels: a Spark session needs its name under {SESSION_LABEL!r}; start one with `%spark start`.")
    pods = gang_of(request)
    if pods.size > 1 and request.framework != Framework.SPARK:
        raise BadInput(f"pods: {pods.size} pods for a Spark session; start one with executors by `%spark start --executors N`.")
    return JobKind.SPARK, pods, replace(work_of(request), outputs=())


def session_name(job: Job) -> str:
    return job.labels.get(SESSION_LABEL, "")


def is_kept(job: Job) -> bool:
    """Whether its owner wants it to stay although other work of theirs waits for what it holds."""
    return KEEP_LABEL in job.labels


def idle_since(job: Job, attempt: Attempt) -> float | None:
    """Since when the session is idle and may give way, by its pod's clock; None for other jobs, and while it may not."""
    if job.kind is not JobKind.SPARK or is_kept(job) or not attempt.members:
        return None
    text = attempt.members[0].endpoints.get(IDLE_SINCE, "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def as_holder(job: Job, is_stopping: bool = False) -> str:
    """The owner's session as what holds room, and what frees it."""
    name = session_name(job) or job.name
    what = f"your Spark session '{name}'"
    stop = "%spark stop" if name == DEFAULT_SESSION else f"%spark stop {name}"
    if is_stopping:
        return f"{what}, which ends"
    if is_kept(job):
        return f"{what}, which you keep (`{stop}` frees it)"
    return f"{what}, which gives way once idle for {GIVES_WAY_AFTER_S:g} s (`{stop}` frees it now)"


DEFAULT_SESSION: Final = "default"


def is_live_session(job: Job, name: str, owner: str) -> bool:
    is_live = job.phase in (JobPhase.QUEUED, JobPhase.ACTIVE) and not job.cancel_requested
    return job.kind is JobKind.SPARK and is_live and job.owner == owner and session_name(job) == name


def size_of(job: Job) -> tuple[int, int]:
    """CPU in milli-cores and memory in bytes of the session's driver."""
    resources = job.gang.pod_sets[0].resources
    return resources[CPU], resources[MEMORY]


def executors_of(job: Job) -> SparkSize:
    """Those of the session; none where its tasks run in its driver."""
    pods = next((one for one in job.gang.pod_sets if one.role == EXECUTOR), None)
    if pods is None:
        return NO_EXECUTORS
    return SparkSize(pods.count, pods.resources[CPU] // 1000, heap_of(pods.resources[MEMORY] - WORKER) // MIB * MIB)
