"""What pods tell of themselves: the report of a sidecar, or of a master for its gang, is checked, taken in and answered."""

from __future__ import annotations

from tuttilab.scheduler import reconcile
from tuttilab.scheduler.clusters.base import PodState
from tuttilab.scheduler.crashpoints import point
from tuttilab.scheduler.errors import Forbidden, NotFound, Unauthenticated
from tuttilab.scheduler.heartbeats import next_report_s
from tuttilab.scheduler.model import MASTER, Attempt, AttemptPhase, PodPhase
from tuttilab.scheduler.service import Service
from tuttilab.scheduler.wire import PodReport
from tuttilab.sidecar.protocol import Sender, sender_of


async def take_in(service: Service, report: PodReport, token: str) -> dict[str, object]:
    """The answer says whether the attempt's pods are to stop, and when the sender is to report again.

    Raises Unauthenticated, Forbidden, NotFound.
    """
    sender = sender_of(token, service.keys.attempt_key(report.job_id, report.attempt, report.epoch))
    if sender is None:
        raise Unauthenticated("This token does not belong to that attempt; only its own pods may report.")
    await service.settled()
    attempt = service.state.live_attempt(report.job_id)
    if attempt is None or attempt.number != report.attempt:
        raise NotFound(f"Attempt {report.attempt} of job {report.job_id} is over; nobody waits for its reports.")
    if report.epoch != attempt.epoch:
        raise NotFound(f"Attempt {report.attempt} of job {report.job_id} is of epoch {attempt.epoch}, not {report.epoch}.")
    _check_right(attempt, sender, report)
    if service.heartbeats.is_news(sender.pod, report.seq):
        pods = _pods_of(report)
        # A master repeats what it knows of its members; only of itself it says that it lives now.
        service.heartbeats.heard([sender.pod], service.now())
        if any(True for pod in pods for _ in reconcile.pod_events(service.state, pod)):
            point("report.before")
            await service.ask(lambda turn: service.take_in_pods(turn, pods))
            point("report.after")
    return _answer(service, attempt)


def _check_right(attempt: Attempt, sender: Sender, report: PodReport) -> None:
    """A master reports of its gang, a pod without one of itself, and a member not here but to its master."""
    pod = next((pod for pod in attempt.pods if pod.name == sender.pod), None)
    if pod is None:
        raise NotFound(f"Pod {sender.pod} is no part of attempt {attempt.number} of job {attempt.job_id} any more.")
    if pod.role == MASTER:
        return
    if any(other.role == MASTER for other in attempt.pods):
        raise Forbidden(f"Pod {pod.name} is a member of a gang; it reports to its master.")
    other_pod = next((member.pod for member in report.members if member.pod != pod.name), None)
    if other_pod is not None:
        raise Forbidden(f"Pod {pod.name} may report of itself only, not of {other_pod[:80]!r}.")


def _pods_of(report: PodReport) -> list[PodState]:
    return [
        PodState(
            report.job_id,
            report.attempt,
            member.pod,
            member.uid,
            PodPhase(member.phase),
            member.exit_code,
            member.reason,
            member.endpoints,
            member.outputs,
        )
        for member in report.members
        if member.uid
    ]


def _answer(service: Service, attempt: Attempt) -> dict[str, object]:
    """``attempt`` as it was when the report came: what the report itself changed is told with the next one."""
    job = service.state.jobs.get(attempt.job_id)  # It may have been deleted meanwhile.
    if attempt.stopping_at is not None and job is not None:
        grace = job.work.grace_s
        return {"stop": {"grace_s": grace, "why": str(attempt.stop_reason or "")}}
    if attempt.phase is not AttemptPhase.RUNNING:
        return {"stop": None}
    limits = service.config.limits
    return {"stop": None, "next_s": next_report_s(service.state.live_count, limits.heartbeat_s, limits.lost_after_s)}
