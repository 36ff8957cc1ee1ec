"""What ended pods mean: whether user code ran, the reason in words, and the exit code of the attempt."""

from __future__ import annotations

from typing import Final

from tuttilab.scheduler.domain.container_reasons import is_refusal_of_node
from tuttilab.scheduler.domain.exit_codes import signal_of
from tuttilab.scheduler.domain.model import MASTER, Attempt, Ends, Gang, Pod
from tuttilab.scheduler.domain.resources import MEMORY, show_amount

LEASE_LOST: Final = "LeaseLost"
"""Reason of a pod that stopped itself because its lease was not renewed: an infrastructure failure, not one of the job."""
BAD_IMAGE: Final = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageNotRunnable")
"""Reasons of a pod whose image is not there, or starts on no node of that kind."""
BAD_CONTAINER: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
BAD_SIDECAR: Final = "SideCarFailed"
"""A side-car of the site ends again and again, so that the job beside it cannot start."""
UNTRACED: Final = "Untraced"
NOT_STARTED: Final = (
    "NeverStarted",
    "InputMissing",
    "WorkdirMissing",
    "CommandNotFound",
    "CommandNotExecutable",
    "WrongArchitecture",
    *BAD_IMAGE,
    *BAD_CONTAINER,
    BAD_SIDECAR,
)
"""Reasons of a pod that ended before its user code ran."""


def untraced_pod(attempt: Attempt) -> Pod | None:
    """A pod of which something may still run: its job must not be started again."""
    return next((pod for pod in attempt.pods if pod.reason == UNTRACED), None)


def has_not_run(pod: Pod) -> bool:
    """Whether user code of an ended pod that was never seen running did not run; a lost pod counts as not run."""
    return pod.exit_code is None or pod.reason in NOT_STARTED


def is_refused_by_node(pod: Pod) -> bool:
    """Whether the node that was decided on did not take the pod: another one may."""
    return pod.exit_code is None and is_refusal_of_node(pod.reason)


def required_members(gang: Gang, attempt: Attempt) -> list[Pod]:
    """Members that have to exit with 0 for the attempt to succeed."""
    return [pod for pod in attempt.members if _ends(gang, pod) is Ends.REQUIRED]


def is_awaited(gang: Gang, pod: Pod) -> bool:
    """Whether the attempt cannot succeed before this pod has ended."""
    return pod.role != MASTER and not pod.is_given_back and _ends(gang, pod) is Ends.REQUIRED


def _ends(gang: Gang, pod: Pod) -> Ends:
    return next(pod_set.ends for pod_set in gang.pod_sets if pod_set.role == pod.role)


def describe_end(gang: Gang, pod: Pod) -> str:
    """One sentence for a pod that failed; of a server it is the hub's own, which sees the pod."""
    if " " in pod.reason:
        return pod.reason
    who = "it" if gang.size == 1 else f"{pod.role} {pod.rank}"
    code = pod.exit_code or 0
    asked = next((one.resources for one in gang.pod_sets if one.role == pod.role), pod.resources)[MEMORY]
    memory = f" ({show_amount(MEMORY, asked)})" if asked else ""
    sentences = {
        "OOMKilled": f"{who} used more memory than it asked for{memory} and was killed; ask for more with --memory",
        "CommandNotFound": f"{who} could not start: the command does not exist in its environment",
        "FolderGone": f"{who} deleted or replaced its own folder or files that tuttilab keeps there, and was killed; "
        "a job writes to its working directory and RESULT_DIR",
        UNTRACED: f"{who} was lost with the processes that watch it, its side-car and keeper, and without a cgroup nobody can say "
        "whether something it started still runs; so it is not started again",
        "StorageExceeded": f"{who} wrote more to its node's disk than it asked for and was put out; ask for more ephemeral-storage",
        "WrongArchitecture": f"{who} could not start: its image or program is for another kind of machine than its node; use an "
        "image for the nodes' architecture",
        "CommandNotExecutable": f"{who} could not start: the command is nothing that can be run",
        "InputCorrupt": f"{who} did not start: its code bundle or an input cannot be used; its log says why",
        "InputMissing": f"{who} did not start: a declared input is missing",
        "OutputLost": f"{who} ended, but a declared output could not be kept; its log says why",
        "OutputMissing": f"{who} ended without leaving a declared output",
        BAD_SIDECAR: f"{who} did not start: a side-car of the site ends again and again; its log says which and how",
        "WorkdirMissing": f"{who} did not start: its working directory does not exist",
    }
    if pod.reason in sentences:
        return sentences[pod.reason]
    if pod.reason in BAD_IMAGE:
        return f"{who} did not start: its image cannot be pulled or run on this cluster ({pod.reason}); its log says why"
    if pod.reason in BAD_CONTAINER:
        return f"{who} did not start: the cluster could not make its container ({pod.reason}); its log says why"
    killed_by = signal_of(code)
    if killed_by is not None:
        return f"{who} was killed by {killed_by}"
    return f"{who} exited with code {code}"


def describe_loss(pod: Pod) -> str:
    """Of a pod that went without an end of its own."""
    sentences = {
        "Deleted": "somebody deleted it",
        "Evicted": "its node put it out to keep memory or disk for others",
        "NodeLost": "its node does not answer",
        "Unschedulable": "the cluster found no place for it there; its log says why",
    }
    why = f"{pod.reason}: {sentences[pod.reason]}" if pod.reason in sentences else pod.reason or "no trace"
    return f"pod {pod.name} was lost ({why})"


def exit_code(gang: Gang, attempt: Attempt) -> int | None:
    """The exit code of the first required member that failed, else 0 when all are known, else None."""
    required = required_members(gang, attempt)
    ended = sorted(required, key=lambda pod: (pod.ended_at or 0.0, pod.rank))
    failed = next((pod.exit_code for pod in ended if pod.exit_code and pod.reason not in ("Stopped", LEASE_LOST)), None)
    if failed is not None:
        return failed
    codes = [pod.exit_code for pod in required]
    return next((code for code in codes if code), 0) if None not in codes else None
