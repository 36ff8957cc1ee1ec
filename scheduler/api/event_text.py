"""Describes an event of the journal in one short sentence, for a job's history. Epochs, uids and tokens are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tuttilab.scheduler.core.rows.resizing import WORKERS
from tuttilab.scheduler.core.rows.tuning import show
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.asked_size import asked_workers
from tuttilab.scheduler.domain.resources import MEMORY, show_amount
from tuttilab.scheduler.domain.titles import SHORT_ID, pod_title, title, title_of

WRITES: Final = frozenset(
    cls.__name__
    for cls in (
        ev.JobSubmitted,
        ev.JobCancelRequested,
        ev.JobDeleted,
        ev.RunSubmitted,
        ev.RunCancelRequested,
        ev.RunRetried,
        ev.DagApplied,
        ev.ProfileApplied,
        ev.ProfileDeleted,
        ev.QueuesConfigured,
        ev.PolicyTuned,
        ev.ArtifactStored,
    )
)
"""Kinds of events that somebody asked for."""


def sentence(event: ev.Event) -> str:
    match event:
        case ev.JobSubmitted(job, by):
            retry = f", as a retry of {job.retry_of[:SHORT_ID]}" if job.retry_of else ""
            return f"submitted to queue {job.queue}{retry}" + (f" by {by}" if by else "")
        case ev.JobCancelRequested(_, by):
            return f"{by} asked to cancel"
        case ev.GangAdmitted(_, number, cluster, placements, _):
            nodes = ", ".join(sorted({placement.node for placement in placements}))
            return f"attempt {number}: {len(placements)} pods admitted to cluster {cluster}, nodes {nodes}"
        case ev.GangPreempted(_, number, _, reason):
            return f"attempt {number}: {reason}"
        case ev.SessionGaveWay(_, number, _, reason):
            return f"attempt {number}: {reason}"
        case ev.GangGrown(_, number, placements, _):
            nodes = ", ".join(sorted({placement.node for placement in placements}))
            return f"attempt {number}: given {len(placements)} more pods, on nodes {nodes}"
        case ev.GangShrunk(_, number, pods, reason):
            return f"attempt {number}: stops {', '.join(map(pod_title, pods))}, {reason}"
        case ev.GrowthFailed(_, number, pods, reason, _):
            return f"attempt {number}: goes on without {', '.join(map(pod_title, pods))}: {reason}"
        case ev.PodSeen(_, number, pod, _):
            return f"attempt {number}: {pod_title(pod)} was created"
        case ev.PodReady(_, number, pod):
            return f"attempt {number}: {pod_title(pod)} waits for the others"
        case ev.PodStarted(_, number, pod):
            return f"attempt {number}: {pod_title(pod)} runs"
        case ev.PodOffers(_, number, pod, endpoints):
            return f"attempt {number}: {pod_title(pod)} {_offered(endpoints)}"
        case ev.PodEnded(_, number, pod, exit_code, reason, _):
            how = "exit code unknown" if exit_code is None else f"exit code {exit_code}"
            return f"attempt {number}: {pod_title(pod)} ended, {how}" + (f" ({reason})" if reason else "")
        case ev.LaunchFailed(_, number, reason, permanent, _):
            return f"attempt {number} cannot start: {reason}" + (" (a retry cannot help)" if permanent else "")
        case ev.HeartbeatMissed(_, number, pod):
            return f"attempt {number}: no heartbeat from {pod_title(pod)}"
        case ev.PodsOutlived(_, number, pods):
            return f"attempt {number}: {', '.join(map(pod_title, pods))} still ran after its end, and is stopped"
        case ev.BarrierTimedOut(_, number):
            return f"attempt {number}: its pods did not all become ready in time"
        case ev.NotebookExpired():
            return "ended: the hub did not ask for it any more"
        case ev.RunTimedOut(_, number):
            return f"attempt {number}: the run-time limit has passed"
        case _:
            # The other events are about queues and clusters, or a deletion, and are not in a job's history.
            return ""


def write_of(event: ev.Event, name: str) -> tuple[str, str]:
    """Author and text of an event of `WRITES`. ``name``: of the job or run whose id it gives, empty where it is not known."""
    match event:
        case ev.JobSubmitted(job, by):
            retry = f", as a retry of {job.retry_of[:SHORT_ID]}" if job.retry_of else ""
            proxy = f", to run as {job.work.run_as}" if job.work.run_as else ""
            return by or job.owner, f"submitted job {title(job)} to queue {job.queue}{retry}{proxy}"
        case ev.JobCancelRequested(job_id, by):
            return by, f"cancelled job {title_of(job_id, name)}"
        case ev.JobDeleted(job_id, by):
            return by, f"deleted job {title_of(job_id, name)}" + ("" if by else ", which had been kept long enough")
        case ev.RunSubmitted(run):
            return run.owner, f"started run {title(run)}"
        case ev.RunCancelRequested(run_id, by):
            return by, f"cancelled run {title_of(run_id, name)}"
        case ev.RunRetried(run_id, jobs, by):
            return by, f"retried run {title_of(run_id, name)}: {', '.join(jobs)}"
        case ev.DagApplied(dag, by):
            return by or dag.owner, f"applied DAG {dag.name}, version {dag.version}"
        case ev.ProfileApplied(profile):
            return profile.applied_by, f"applied profile {profile.name}"
        case ev.ProfileDeleted(profile_name, by):
            return by, f"deleted profile {profile_name}"
        case ev.ArtifactStored(artifact_id, owner, size, of_job):
            what = f"artifact {artifact_id[:SHORT_ID]} ({show_amount(MEMORY, size)}B)"
            return owner, f"kept {what} as an output of job {title_of(of_job, name)}" if of_job else f"uploaded {what}"
        case ev.QueuesConfigured(queues, by):
            done = "reloaded queues and defaults" if by else "a start took up the queues"
            return by, f"{done}: {', '.join(queue.name for queue in queues)}"
        case ev.PolicyTuned(values, by, reason):
            what = ", ".join(f"{name} {show(value)}" for name, value in values) or "nothing, the built-in rule holds"
            return by, f"tuned the decision rule: {what}" + (f"; {reason}" if reason else "")
        case _:
            return "", ""


def _offered(endpoints: Mapping[str, str]) -> str:
    """What a pod offers, and how many workers its job asks for."""
    said = [f"offers {', '.join(names)}"] if (names := sorted(endpoints.keys() - {WORKERS})) else []
    if WORKERS in endpoints:
        said.append(f"asks for {asked_workers(endpoints[WORKERS])}")
    return " and ".join(said)
