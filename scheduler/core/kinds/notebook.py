"""A notebook server of a hub: one pod that the hub's spawner makes and no cluster of ours, in the ledger before it exists.

Its attempt is Launching from its admission until the hub says that the server runs. Whoever waits for it, starts it or stops
it says so again and again; after `TTL_S` of silence it is given up. A server that runs is never given up for silence, because
the hub may be down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tuttilab.scheduler import events as ev
from tuttilab.scheduler.core.kinds.pods import gang_of
from tuttilab.scheduler.errors import BadInput
from tuttilab.scheduler.model import Attempt, AttemptPhase, Gang, Job, JobKind, PodPhase, Work
from tuttilab.scheduler.requests import JobRequest, NotebookRequest, PodRequest, ProfileRequest, RenewRequest

ROLE: Final = "notebook"
SERVER_LABEL: Final = "notebook-server"
"""The hub's name of the server; the unnamed one is empty."""
PROFILE_LABEL: Final = "notebook-profile"
TTL_S: Final = 600.0
PHASES: Final = ("waiting", "running", "ended")
"""What the hub may say of a server."""
LONGEST_NAME: Final = 100
SAME: Final = ("gang", "work", "queue", "group", "cluster", "labels", "preemptible")
"""What two servers of one name have in common when one may go on as the other."""


def request_of(asked: NotebookRequest, profile: ProfileRequest, image: str | None) -> JobRequest:
    """The submit that stands for this server in the ledger."""
    pod = PodRequest(
        role=ROLE,
        cpus=profile.cpus,
        memory=profile.memory,
        gpus=profile.gpus,
        gpu_type=profile.gpu_type,
        resources=profile.resources,
    )
    return JobRequest(
        name=f"notebook {asked.server}".strip()[:LONGEST_NAME],
        kind="notebook",
        queue=profile.queue,
        pods=(pod,),
        image=image,
        cluster=asked.cluster,
        labels={SERVER_LABEL: asked.server, PROFILE_LABEL: profile.name},
    )


def gang(request: JobRequest) -> tuple[JobKind, Gang, Work]:
    pods = gang_of(request)
    if pods.size != 1 or request.retries:
        raise BadInput(f"pods: a notebook server is one pod without retries; given {pods.size} pods, {request.retries} retries.")
    # What runs in it is the spawner's business: only its size and place count here.
    return JobKind.NOTEBOOK, pods, Work(command=(), image=request.image, sidecar=False)


def is_live_server(job: Job, owner: str, server: str) -> bool:
    is_one = job.kind is JobKind.NOTEBOOK and not job.phase.is_terminal
    return is_one and job.owner == owner and job.labels.get(SERVER_LABEL) == server


def is_same(one: Job, other: Job) -> bool:
    """Whether a server that still waits may go on in its place as the other."""
    return all(getattr(one, name) == getattr(other, name) for name in SAME)


def may_expire(attempt: Attempt | None) -> bool:
    """Silence ends it: while it waits in its queue, is being started or is being stopped, but never while it runs."""
    return attempt is None or attempt.phase is not AttemptPhase.RUNNING


def news(job: Job, attempt: Attempt | None, said: RenewRequest) -> Iterator[ev.Event]:
    """What follows from what the hub says about a live server. Nothing for what is known already."""
    if said.phase == "ended" and (attempt is None or attempt.phase is AttemptPhase.LAUNCHING):
        yield ev.JobCancelRequested(job.id, "the hub")
    if attempt is None:
        return
    for pod in attempt.pods:
        where = (job.id, attempt.number, pod.name)
        if said.phase == "running" and attempt.phase is AttemptPhase.LAUNCHING and pod.phase is PodPhase.PENDING:
            yield ev.PodStarted(*where)
        elif said.phase == "ended" and pod.phase is not PodPhase.ENDED:
            never_ran = attempt.phase is AttemptPhase.LAUNCHING
            exit_code = None if never_ran else said.exit_code or 0
            yield ev.PodEnded(*where, exit_code, "NeverStarted" if never_ran else said.reason)
