"""Which kinds of clusters run which kinds of jobs: an image, a volume or a side-car of the site needs containers, a program of the
machine needs the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from tuttilab.scheduler.domain.model import Cluster, Framework, Job, JobKind, Work

LOCAL: Final = "local"
KUBERNETES: Final = "kubernetes"
SPARK_APPLICATION: Final = "TUTTILAB_SPARK_APPLICATION"
"""Variable of a Spark application and its size, as JSON, for the programs in its pods."""


class WorkPlace(Enum):
    """Where the programs of a job are."""

    HUB = 1
    """The hub makes the pod, on whatever cluster."""
    MACHINE = 2
    """Nowhere named: on the machine, or in the default image of a cluster."""
    CONTAINER = 3
    """In an image, or beside what only a container gets."""
    SPARK = 4
    """In the Spark of this installation, or in the image that a cluster names for Spark."""

    @classmethod
    def of(cls, job: Job) -> WorkPlace:
        if job.kind is JobKind.NOTEBOOK:
            return cls.HUB
        if job.work.needs_containers:
            return cls.CONTAINER
        return cls.SPARK if runs_spark(job.kind, job.work) else cls.MACHINE


def runs_spark(kind: str, work: Work) -> bool:
    """Whether the programs of its pods are those of `scheduler/spark`: of a session, or of an application."""
    return kind == JobKind.SPARK or SPARK_APPLICATION in work.env


def fitting(job: Job, clusters: Sequence[Cluster], *, is_named: bool) -> list[Cluster]:
    """Those of ``clusters`` that run such a job. ``is_named``: whether the job names its cluster.

    A job without an image goes to containers only if it says so, or where there is nothing else.
    """
    place = WorkPlace.of(job)
    if place is WorkPlace.CONTAINER:
        return [cluster for cluster in clusters if cluster.kind != LOCAL]
    others = [cluster for cluster in clusters if cluster.kind != KUBERNETES]
    is_anywhere = place is WorkPlace.HUB or is_named or not others
    return list(clusters) if is_anywhere else others


def why_not_bare(work: Work) -> str | None:
    """Why the work cannot run in containers without a side-car; None where it can, or has one."""
    if work.sidecar:
        return None
    needs = {
        "a code bundle": work.code is not None,
        "inputs": bool(work.inputs),
        "outputs": bool(work.outputs),
        "side-cars of the site": bool(work.sidecars),
        "the programs of a Spark application": SPARK_APPLICATION in work.env,
        f"the framework {work.framework}, whose members wait for each other": work.framework is not Framework.NONE,
        "a workdir of its own folder": work.workdir is not None and not work.workdir.startswith("/"),
    }
    found = [what for what, is_needed in needs.items() if is_needed]
    if not found:
        return None
    return f"sidecar: without one a container has nobody for {' and '.join(found)}; expected sidecar: true, or none of these."
