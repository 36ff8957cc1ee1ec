"""What the ends of pods say: whether user code ran, a sentence for whoever asks, and the exit code of a whole attempt."""

from __future__ import annotations

from typing import Final

from tuttilab.scheduler.model import Attempt, Ends, Gang, Pod
from tuttilab.scheduler.resources import MEMORY, show_amount

LEASE_LOST: Final = "LeaseLost"
"""Reason of a pod that stopped itself because nobody answered it any more: lost infrastructure, no failure of the job's own."""
NOT_STARTED: Final = ("NeverStarted", "InputMissing", "WorkdirMissing", "CommandNotFound")
"""Reasons of a pod that ended before its user code ran."""


def has_not_run(pod: Pod) -> bool:
    """Whether an ended pod that was never seen to run did not come to user code; of one that is lost nobody knows better."""
    return pod.exit_code is None or pod.reason in NOT_STARTED


def required_members(gang: Gang, attempt: Attempt) -> list[Pod]:
    """Those whose exit 0 is part of success."""
    return [pod for pod in attempt.members if _ends(gang, pod) is Ends.REQUIRED]


def _ends(gang: Gang, pod: Pod) -> Ends:
    return next(pod_set.ends for pod_set in gang.pod_sets if pod_set.role == pod.role)


def describe_end(gang: Gang, pod: Pod) -> str:
    """One sentence for a pod that did not end well."""
    who = "it" if gang.size == 1 else f"{pod.role} {pod.rank}"
    code = pod.exit_code or 0
    memory = f" ({show_amount(MEMORY, pod.resources[MEMORY])})" if pod.resources[MEMORY] else ""
    sentences = {
        "OOMKilled": f"{who} used more memory than it asked for{memory} and was killed; ask for more with --memory",
        "CommandNotFound": f"{who} could not start: the command does not exist in its environment",
        "InputMissing": f"{who} did not start: a declared input is missing",
        "OutputMissing": f"{who} ended without leaving a declared output",
        "WorkdirMissing": f"{who} did not start: its working directory does not exist",
    }
    if pod.reason in sentences:
        return sentences[pod.reason]
    if code > 128:
        return f"{who} was killed by signal {code - 128}"
    return f"{who} exited with code {code}"


def exit_code(gang: Gang, attempt: Attempt) -> int | None:
    """Of the first required member that failed, else 0 when all are known, else None."""
    required = required_members(gang, attempt)
    ended = sorted(required, key=lambda pod: (pod.ended_at or 0.0, pod.rank))
    failed = next((pod.exit_code for pod in ended if pod.exit_code and pod.reason not in ("Stopped", LEASE_LOST)), None)
    if failed is not None:
        return failed
    codes = [pod.exit_code for pod in required]
    return next((code for code in codes if code), 0) if None not in codes else None
