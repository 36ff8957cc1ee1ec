"""Requests into jobs: builds a `Job` with its `Gang` from a request. One module per kind, listed in `KINDS`.

A kind's module has `gang(request) -> tuple[JobKind, Gang, Work]` and checks what is specific to the kind. What all kinds share
(names, queue, limits, sizes against max and nodes) is checked here, so that refusals are the same for every kind and caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tuttilab.scheduler.core.kinds import batch, notebook, spark, spark_batch
from tuttilab.scheduler.core.kinds.proxy_users import check_proxy_user
from tuttilab.scheduler.core.ordering.queues import choose_queue, leaves, path_of
from tuttilab.scheduler.core.placement.fit import (
    allowed_clusters,
    charge_of,
    has_master,
    named_clusters,
    permitted_clusters,
    possible_clusters,
)
from tuttilab.scheduler.core.placement.never import never_fit
from tuttilab.scheduler.core.placement.shapes import shape_key
from tuttilab.scheduler.core.placement.work_places import (
    KUBERNETES,
    SPARK_APPLICATION,
    WorkPlace,
    fitting,
    runs_spark,
    why_not_bare,
)
from tuttilab.scheduler.core.quota import reason_above_max
from tuttilab.scheduler.core.sidecars import SideCarOffer, chosen
from tuttilab.scheduler.core.storages import Storage, for_job
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden, NeverFits
from tuttilab.scheduler.domain.model import Cluster, Gang, Job, JobKind, Queue, Work
from tuttilab.scheduler.domain.requests import JobRequest, Who
from tuttilab.scheduler.domain.resources import parse_duration
from tuttilab.scheduler.domain.titles import check_visible

KINDS: Final[Mapping[str, Callable[[JobRequest], tuple[JobKind, Gang, Work]]]] = {
    "batch": batch.gang,
    "notebook": notebook.gang,
    "spark": spark.gang,
    spark_batch.KIND: spark_batch.gang,
}

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,120}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?")
MAX_RETRIES: Final = 100
MAX_PRIORITY: Final = 1000


@dataclass(frozen=True, slots=True)
class Site:
    """What a request is checked against."""

    queues: Mapping[str, Queue]
    clusters: Mapping[str, Cluster]
    default_queue: str | None = None
    default_timeout_s: float | None = None
    growing: frozenset[str] = frozenset()
    """Clusters to which nodes may be added: what fits on none of their nodes now waits for them."""
    without_images: frozenset[str] = frozenset()
    """Clusters whose pods are processes of their machine: they run no image."""
    without_default_image: frozenset[str] = frozenset()
    """Clusters of containers where a job has to name its image."""
    without_spark_image: frozenset[str] = frozenset()
    """The same for Spark sessions and applications."""
    storages: tuple[Storage, ...] = ()
    """Volumes that profiles and jobs may mount."""
    sidecars: tuple[SideCarOffer, ...] = ()
    """Containers that jobs may have beside the user's."""
    driver_ports: range = range(0)
    """For Spark drivers of notebook servers."""
    proxy_users: Mapping[str, ProxyUser] = field(default_factory=dict)
    cannot_run_as: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Clusters that do not run jobs as the proxy user of that name."""
    accepted_shapes: set[Hashable] = field(default_factory=set)
    """Cache of (queue, shape) pairs that passed the size checks; the jobs of one batch often have equal shapes."""


def build(request: JobRequest, who: Who, site: Site, *, job_id: str, order: int, now: float) -> Job:
    """The job of a request. Raises BadInput, Forbidden, AboveMax or NeverFits with one sentence."""
    if request.kind not in KINDS:
        raise BadInput(f"kind: {request.kind!r} is not known; expected one of {', '.join(sorted(KINDS))}.")
    if SPARK_APPLICATION in request.env:
        # By it an application is known, so no other job may have it.
        raise BadInput(f"env.{SPARK_APPLICATION}: it is set by the service; leave it out.")
    if request.spark is not None and request.kind != spark_batch.KIND:
        raise BadInput(f"spark: a job of kind {request.kind} has no such key; expected kind: {spark_batch.KIND}.")
    if request.kind == JobKind.NOTEBOOK and not who.is_hub:
        raise Forbidden("kind: a notebook server is started on the hub, which asks for its room; expected batch.")
    if not _NAME.fullmatch(request.name):
        raise BadInput(f"name: {request.name[:40]!r} is not a name; expected 1 to 120 printable characters.")
    check_visible(request.name, "name")
    for key, value in request.labels.items():
        check_visible(value, f"labels.{key[:80]}")
        if not _LABEL.fullmatch(key) or not re.fullmatch(r"[^\x00-\x1f\x7f]{0,256}", value):
            raise BadInput(f"labels.{key}: {value[:40]!r} is not a label; expected a short key and up to 256 printable characters.")
    if not 0 <= request.retries <= MAX_RETRIES:
        raise BadInput(f"retries: {request.retries} is out of range; expected 0 to {MAX_RETRIES}.")
    if abs(request.priority) > MAX_PRIORITY:
        raise BadInput(f"priority: {request.priority} is out of range; expected -{MAX_PRIORITY} to {MAX_PRIORITY}.")
    if request.cluster is not None and request.cluster not in site.clusters:
        raise BadInput(f"cluster: there is no cluster {request.cluster!r}; expected one of {', '.join(sorted(site.clusters))}.")
    if request.group is not None and not who.is_in(request.group):
        raise BadInput(f"group: you are not in {request.group!r}; expected one of {', '.join(who.groups) or 'none'}.")
    queue = choose_queue(site.queues, request.queue, site.default_queue, asker_of(request, who, site.queues))
    group = request.group or next((g for g in queue.groups if who.is_in(g)), queue.name)
    kind, gang, work = KINDS[request.kind](request)
    work = _with_site(work, request, group, site)
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
    _check_image(job, site)
    _check_sidecar(job, site)
    check_proxy_user(job, who, site.proxy_users)
    shape = (job.queue, shape_key(job), WorkPlace.of(job), job.work.run_as)
    if shape not in site.accepted_shapes:
        check_sizes(job, site)
        site.accepted_shapes.add(shape)
    return job


def asker_of(request: JobRequest, who: Who, queues: Mapping[str, Queue]) -> Who:
    """Who asks for the queue: a member of the request's group only, if it names one. An admin may charge any queue to any group."""
    if request.group is None or (who.is_admin and (request.queue is not None or not has_queue(request.group, queues))):
        return who
    return replace(who, groups=(request.group,), is_admin=False, in_every_group=False)


def has_queue(group: str, queues: Mapping[str, Queue]) -> bool:
    return any(group in queue.groups for queue in leaves(queues))


def _default_timeout(kind: JobKind, site: Site) -> float | None:
    return None if kind in (JobKind.SPARK, JobKind.NOTEBOOK, JobKind.SERVICE) else site.default_timeout_s


def _with_site(work: Work, request: JobRequest, group: str, site: Site) -> Work:
    """The work with the volumes and side-cars of the site that the request names."""
    if not request.mounts and not request.sidecars:
        return work
    if request.kind not in (JobKind.BATCH, spark_batch.KIND):
        key = "mounts" if request.mounts else "sidecars"
        raise BadInput(f"{key}: a job of kind {request.kind} has none; expected no such key.")
    if request.sidecars and not request.sidecar:
        raise BadInput("sidecars: they come beside the one that sidecar: false leaves out; expected one of the two keys.")
    return replace(work, mounts=for_job(request.mounts, group, site.storages), sidecars=chosen(request.sidecars, site.sidecars))


def _check_image(job: Job, site: Site) -> None:
    """Refuse what needs a container where it would be ignored, and a job without an image where it needs one."""
    named, image = named_clusters(job), job.work.image
    names = sorted(named or site.clusters.keys())
    place = WorkPlace.of(job)
    if names and place is WorkPlace.CONTAINER and image is None:
        what = "mounts" if job.work.mounts else "sidecars"
        in_containers = [name for name in names if name not in site.without_images]
        if not in_containers:
            raise NeverFits(
                f"{what}: pods of {' and '.join(names)} are processes of the machine and have none; "
                + ("read the folder where the machine has it." if job.work.mounts else "leave them out.")
            )
        names = in_containers
    is_spark = runs_spark(job.kind, job.work)
    missing = site.without_spark_image if is_spark else site.without_default_image
    if names and image is None and place is not WorkPlace.HUB and missing.issuperset(names):
        if is_spark:
            raise NeverFits(
                f"image: {' and '.join(names)} has no image for Spark; give --image with one that has tuttilab[spark] in it, or "
                "ask an admin to name one as spark_image of the cluster."
            )
        raise NeverFits(f"image: {' and '.join(names)} has no default image for jobs that name none; give the job's --image.")
    if names and image is not None and place is WorkPlace.CONTAINER and site.without_images.issuperset(names):
        raise NeverFits(
            f"image: {image!r} cannot be run here: pods of {' and '.join(names)} are processes of the machine; leave the image "
            "out, and the job runs with the programs that are installed there."
        )


def _check_sidecar(job: Job, site: Site) -> None:
    """Refuse bare pods that need a side-car. On a machine there always is one (`local`)."""
    why, named = why_not_bare(job.work), named_clusters(job)
    if why is None or job.kind is JobKind.NOTEBOOK:
        return
    clusters = [site.clusters[name] for name in named or site.clusters if name in site.clusters]
    places = fitting(job, clusters, is_named=bool(named))
    if places and all(cluster.kind == KUBERNETES for cluster in places):
        raise BadInput(why)


def _no_cluster(job: Job, path: Sequence[Queue]) -> str:
    """Why the job and its queues together allow no cluster."""
    named = sorted(named_clusters(job))
    if len(named) > 1:
        return f"pods are asked for on {' and '.join(named)}; expected one cluster, as all of a job runs on one."
    bounds = [f"queue {step.name!r} uses only {', '.join(step.clusters)}" for step in path if step.clusters]
    asked = f"{named[0]!r} is asked for, but " if named else ""
    return f"{asked}{' and '.join(bounds)}; expected a cluster that all of them allow."


def _check_run_as(job: Job, site: Site, path: Sequence[Queue]) -> None:
    """Refuse a proxy user where the job may come to a cluster that runs nothing as it."""
    cannot = site.cannot_run_as.get(job.work.run_as or "", frozenset())
    possible = [cluster.name for cluster in permitted_clusters(job, site.clusters, path)]
    wrong = sorted(cannot.intersection(possible))
    if wrong:
        others = sorted(site.clusters.keys() - cannot)
        raise NeverFits(
            f"run_as: {' and '.join(wrong)} cannot run jobs as {job.work.run_as!r}; "
            + (f"name {' or '.join(others)} as the job's cluster." if others else "leave it out.")
        )


def check_sizes(job: Job, site: Site) -> None:
    """Refuse a job that could never start: no cluster allowed, above a max on the queue's path, or no room on empty clusters."""
    path = path_of(site.queues, job.queue)
    if possible_clusters(job, path) == set():
        raise BadInput(f"cluster: {_no_cluster(job, path)}")
    _check_run_as(job, site, path)
    clusters = allowed_clusters(job, site.clusters, path) or permitted_clusters(job, site.clusters, path)
    pods = job.gang.size + int(has_master(job))
    # Before any cluster has been seen, the cost of sidecars and master is unknown and counts as nothing.
    charges = [charge_of(job, cluster) for cluster in clusters or [Cluster("", "")]]
    refusals = [reason_above_max(site.queues, job.queue, charge, pods) for charge in charges]
    if all(refusals):
        raise AboveMax(f"{job.name}: {refusals[0]}")
    found = never_fit(job, permitted_clusters(job, site.clusters, path), site.growing)
    if found is not None:
        raise NeverFits(f"{job.name}: {found.sentence()}")
