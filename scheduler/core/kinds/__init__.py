"""From a request to a `Job` with its `Gang`: one file a kind, one line in the table below.

A kind's file has `gang(request) -> tuple[JobKind, Gang, Work]` and checks what is particular to it. What all kinds share (names,
queue, limits, sizes against max and nodes) is checked here, so that every refusal reads the same whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tuttilab.scheduler.core.kinds import batch, notebook, spark
from tuttilab.scheduler.core.placement import (
    allowed_clusters,
    charge_of,
    has_master,
    named_clusters,
    never_fits,
    permitted_clusters,
    possible_clusters,
)
from tuttilab.scheduler.core.queues import choose_queue, path_of
from tuttilab.scheduler.core.quota import never_within
from tuttilab.scheduler.core.shapes import shape_key
from tuttilab.scheduler.errors import AboveMax, BadInput, Forbidden, NeverFits
from tuttilab.scheduler.model import Cluster, Gang, Job, JobKind, Queue, Work
from tuttilab.scheduler.requests import JobRequest, Who
from tuttilab.scheduler.resources import parse_duration

KINDS: Final[Mapping[str, Callable[[JobRequest], tuple[JobKind, Gang, Work]]]] = {
    "batch": batch.gang,
    "notebook": notebook.gang,
    "spark": spark.gang,
}

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,120}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?")
MOST_RETRIES: Final = 100
HIGHEST_PRIORITY: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """What a request is checked against."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    default_queue: str | None = None
    default_timeout_s: float | None = None
    fitting: set[Hashable] = field(default_factory=set)
    """Shapes whose sizes were found in order, by queue: the jobs of a batch are often alike."""


def build(request: JobRequest, who: Who, site: Site, *, job_id: str, order: int, now: float) -> Job:
    """The job a request stands for. Raises BadInput, Forbidden, AboveMax or NeverFits with one sentence; decides nothing else."""
    if request.kind not in KINDS:
        raise BadInput(f"kind: {request.kind!r} is not known; expected one of {', '.join(sorted(KINDS))}.")
    if request.kind == JobKind.NOTEBOOK and not who.is_hub:
        raise Forbidden("kind: a notebook server is started on the hub, which asks for its room; expected batch.")
    if not _NAME.fullmatch(request.name):
        raise BadInput(f"name: {request.name[:40]!r} is not a name; expected 1 to 120 printable characters.")
    for key, value in request.labels.items():
        if not _LABEL.fullmatch(key) or not re.fullmatch(r"[^\x00-\x1f\x7f]{0,256}", value):
            raise BadInput(f"labels.{key}: {value[:40]!r} is not a label; expected a short key and up to 256 printable characters.")
    if not 0 <= request.retries <= MOST_RETRIES:
        raise BadInput(f"retries: {request.retries} is out of range; expected 0 to {MOST_RETRIES}.")
    if abs(request.priority) > HIGHEST_PRIORITY:
        raise BadInput(f"priority: {request.priority} is out of range; expected -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}.")
    if request.cluster is not None and request.cluster not in site.clusters:
        raise BadInput(f"cluster: there is no cluster {request.cluster!r}; expected one of {', '.join(sorted(site.clusters))}.")
    queue = choose_queue(site.queues, request.queue, site.default_queue, who)
    group = request.group or next((g for g in queue.groups if who.is_in(g)), queue.name)
    if request.group is not None and not who.is_in(request.group):
        raise BadInput(f"group: you are not in {request.group!r}; expected one of {', '.join(who.groups) or 'none'}.")
    kind, gang, work = KINDS[request.kind](request)
    job = Job(
        id=job_id,
        name=request.name,
        owner=who.name,
        group=group,
        queue=queue.name,
        kind=kind,
        gang=gang,
        work=work,
        submitted_at=now,
        order=order,
        priority=request.priority,
        timeout_s=parse_duration(request.timeout, "timeout") if request.timeout is not None else _default_timeout(kind, site),
        retries=request.retries,
        after=request.after,
        cluster=request.cluster,
        labels=dict(request.labels),
    )
    alike = (job.queue, shape_key(job))
    if alike not in site.fitting:
        _check_sizes(job, site)
        site.fitting.add(alike)
    return job


def _default_timeout(kind: JobKind, site: Site) -> float | None:
    return None if kind in (JobKind.SPARK, JobKind.NOTEBOOK, JobKind.SERVICE) else site.default_timeout_s


def _no_cluster(job: Job, path: Sequence[Queue]) -> str:
    """Why the job and its queues leave no cluster."""
    named = sorted(named_clusters(job))
    if len(named) > 1:
        return f"pods are asked for on {' and '.join(named)}; expected one cluster, as all of a job runs on one."
    bounds = [f"queue {step.name!r} uses only {', '.join(step.clusters)}" for step in path if step.clusters]
    asked = f"{named[0]!r} is asked for, but " if named else ""
    return f"{asked}{' and '.join(bounds)}; expected a cluster that all of them allow."


def _check_sizes(job: Job, site: Site) -> None:
    """Refuse what waiting cannot help: above a max on the queue's path, or a pod larger than any node."""
    path = path_of(site.queues, job.queue)
    if possible_clusters(job, path) == set():
        raise BadInput(f"cluster: {_no_cluster(job, path)}")
    clusters = allowed_clusters(job, site.clusters, path) or permitted_clusters(job, site.clusters, path)
    pods = job.gang.size + int(has_master(job))
    # Before any cluster has been seen, our own pods count nothing.
    charges = [charge_of(job, cluster) for cluster in clusters or [Cluster("", "")]]
    refusals = [never_within(site.queues, job.queue, charge, pods) for charge in charges]
    if all(refusals):
        raise AboveMax(f"{job.name}: {refusals[0]}")
    with_nodes = [cluster for cluster in clusters if cluster.nodes]
    misfit = never_fits(job, with_nodes) if with_nodes else None
    if misfit is not None:
        raise NeverFits(f"{job.name}: {misfit.sentence()} when empty; ask for less per pod or for more, smaller workers.")
