"""Kind notebook: a notebook server of the hub. The hub's spawner creates its one pod; the job exists before the pod does.

The attempt is Launching from its admission until the hub reports that the server runs. While the server waits, starts or stops,
the hub renews a lease; `TTL_S` after the last renewal the job expires. A running server never expires, because the hub may be
down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tuttilab.scheduler.core.kinds.driver_ports import ports_of
from tuttilab.scheduler.core.kinds.pods import gang_of
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase, Gang, Job, JobKind, PodPhase, Work
from tuttilab.scheduler.domain.requests import JobRequest, NotebookRequest, PodRequest, ProfileRequest, RenewRequest

ROLE: Final = "notebook"
SERVER_LABEL: Final = "notebook-server"
"""The server's name in the hub; empty for the default server."""
PROFILE_LABEL: Final = "notebook-profile"
RUN_AS_LABEL: Final = "notebook-run-as"
"""The proxy user; missing where there is none."""
TTL_S: Final = 600.0
PHASES: Final = ("waiting", "running", "ended")
"""Phases that the hub may report."""
MAX_NAME_LENGTH: Final = 100
COMPARED_FIELDS: Final = ("gang", "work", "queue", "group", "cluster", "preemptible")
"""Job fields that must be equal for `is_interchangeable`."""
COMPARED_LABELS: Final = (SERVER_LABEL, PROFILE_LABEL, RUN_AS_LABEL)


def request_of(asked: NotebookRequest, profile: ProfileRequest, image: str | None) -> JobRequest:
    """The job request of this server."""
    pod = PodRequest(
        role=ROLE,
        cpus=profile.cpus,
        memory=profile.memory,
        gpus=profile.gpus,
        gpu_type=profile.gpu_type,
        resources=profile.resources,
    )
    return JobRequest(
        name=f"notebook {asked.server}".strip()[:MAX_NAME_LENGTH],
        kind="notebook",
        queue=profile.queue or asked.queue,
        pods=(pod,),
        image=image,
        cluster=asked.cluster,
        labels={SERVER_LABEL: asked.server, PROFILE_LABEL: profile.name} | ({RUN_AS_LABEL: asked.run_as} if asked.run_as else {}),
    )


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    pods = gang_of(request)
    if pods.size != 1 or request.retries:
        raise BadInput(f"pods: a notebook server is one pod without retries; given {pods.size} pods, {request.retries} retries.")
    # The spawner decides what runs in the pod; only size and placement are decided here.
    return JobKind.NOTEBOOK, pods, Work(command=(), image=request.image, sidecar=False)


def is_live_server(job: Job, owner: str, server: str) -> bool:
    is_live = job.kind is JobKind.NOTEBOOK and not job.phase.is_terminal
    return is_live and job.owner == owner and job.labels.get(SERVER_LABEL) == server


def is_interchangeable(one: Job, other: Job) -> bool:
    """Whether a waiting server may keep its place in the queue and serve a new request for the other."""
    has_equal_labels = all(one.labels.get(name) == other.labels.get(name) for name in COMPARED_LABELS)
    has_as_many_ports = len(ports_of(one)) == len(ports_of(other))
    return has_equal_labels and has_as_many_ports and all(getattr(one, name) == getattr(other, name) for name in COMPARED_FIELDS)


def may_expire(attempt: Attempt | None) -> bool:
    """Whether its lease may expire: while it waits, starts or stops, but never while it runs."""
    return attempt is None or attempt.phase is not AttemptPhase.RUNNING


def events_of_report(job: Job, attempt: Attempt | None, report: RenewRequest) -> Iterator[ev.Event]:
    """The events that follow from the hub's report on a live server; none if it reports nothing new."""
    is_failure = bool(report.exit_code and report.reason)
    """It did not start and the hub says why: an end as any other, not one that somebody asked for."""
    is_launching = attempt is not None and attempt.phase is AttemptPhase.LAUNCHING
    if report.phase == "ended" and (attempt is None or (is_launching and not is_failure)):
        yield ev.JobCancelRequested(job.id, "the hub")
    if attempt is None:
        return
    for pod in attempt.pods:
        where = (job.id, attempt.number, pod.name)
        if report.phase == "running" and attempt.phase is AttemptPhase.LAUNCHING and pod.phase is PodPhase.PENDING:
            yield ev.PodStarted(*where)
        elif report.phase == "ended" and pod.phase is not PodPhase.ENDED:
            never_ran = is_launching and not is_failure
            exit_code = None if never_ran else report.exit_code or 0
            yield ev.PodEnded(*where, exit_code, "NeverStarted" if never_ran else report.reason)
