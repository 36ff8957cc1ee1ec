"""What pods ask of the control plane with their own tokens: to take a report, and to give or take an artifact of their job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tuttilab.scheduler.clusters.base import KeepsDisplays, PodState
from tuttilab.scheduler.domain.errors import Forbidden, NotFound, Unauthenticated
from tuttilab.scheduler.domain.model import MASTER, Attempt, AttemptPhase, PodPhase
from tuttilab.scheduler.domain.titles import pod_title, title, title_of
from tuttilab.scheduler.domain.wire import PodReport
from tuttilab.scheduler.domain.words import STOPPED_BECAUSE
from tuttilab.scheduler.runtime.crash_points import point
from tuttilab.scheduler.service import reconcile
from tuttilab.scheduler.service.heartbeats import next_report_s
from tuttilab.scheduler.service.loop import Service
from tuttilab.sidecar.protocol import Sender, sender_of

REPORT_BYTES: Final = 256 * 1024
"""Of a report, at most; a master may have `MEMBER_BYTES` more for each pod of its gang."""
MEMBER_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """The attempt that a pod says it belongs to; its token proves it."""

    job_id: str
    attempt: int
    epoch: int


async def handle_report(service: Service, report: PodReport, token: str) -> dict[str, object]:
    """Apply the report. The answer says whether the attempt's pods must stop, and when the sender reports again.

    Raises Unauthenticated, Forbidden, NotFound.
    """
    attempt, sender = await _attempt_of(service, report.job_id, report.attempt, report.epoch, token)
    _check_permitted(service, attempt, sender, report)
    if service.heartbeats.is_newer(sender.pod, report.seq):
        pods = _pods_of(report)
        # A master repeats what it knows of its members; the report is a heartbeat of the sender alone.
        service.heartbeats.record_alive([sender.pod], service.now())
        if any(True for pod in pods for _ in reconcile.pod_events(service.state, pod)):
            point("report.before")
            await service.ask(lambda turn: service.apply_pod_states(turn, pods))
            point("report.after")
    return _answer(service, attempt)


async def largest_report(service: Service, claim: Claim, token: str) -> int:
    """How many bytes the report of the token's sender may have. Raises Unauthenticated, NotFound."""
    attempt, _ = await _attempt_of(service, claim.job_id, claim.attempt, claim.epoch, token)
    return REPORT_BYTES + MEMBER_BYTES * (len(attempt.pods) + len(attempt.left))


async def owner_of_artifact(service: Service, claim: Claim, token: str, artifact_id: str, *, is_upload: bool) -> str:
    """The owner of the pod's job, if the pod may fetch this artifact, or may upload one.

    A pod fetches what its own job was given, code and inputs. Raises Unauthenticated, NotFound.
    """
    attempt, sender = await _attempt_of(service, claim.job_id, claim.attempt, claim.epoch, token)
    job = service.state.jobs.get(attempt.job_id)
    if job is None or all(pod.name != sender.pod for pod in attempt.pods):
        raise NotFound(f"Pod {sender.pod} is no part of attempt {attempt.number} of job {_job(service, attempt.job_id)} any more.")
    if not is_upload and artifact_id not in {job.work.code, *(needed.artifact for needed in job.work.inputs)}:
        raise NotFound(f"Artifact {artifact_id} is neither code nor input of job {title(job)}.")
    return job.owner


async def keep_displays(service: Service, claim: Claim, token: str, start: int, body: bytes) -> int:
    """Keep lines that a pod's cell displayed, of a cluster that does not see them; the byte that is wanted next.

    Raises Unauthenticated, NotFound, TooLarge.
    """
    attempt, sender = await _attempt_of(service, claim.job_id, claim.attempt, claim.epoch, token)
    cluster = service.clusters.get(attempt.cluster)
    if not isinstance(cluster, KeepsDisplays) or all(pod.name != sender.pod for pod in attempt.pods):
        raise NotFound(
            f"Of pod {sender.pod} no displays are taken: its cluster sees them itself, or it is no part of its job any more."
        )
    return await cluster.keep_displays(claim.job_id, claim.attempt, sender.pod, start, body)


async def _attempt_of(service: Service, job_id: str, number: int, epoch: int, token: str) -> tuple[Attempt, Sender]:
    """The live attempt that the token proves its sender to belong to. Raises Unauthenticated, NotFound."""
    sender = sender_of(token, service.secrets.attempt_key(job_id, number, epoch))
    if sender is None:
        raise Unauthenticated("This token does not belong to that attempt; only its own pods may report.")
    await service.wait_until_committed()
    attempt = service.state.live_attempt(job_id)
    if attempt is None or attempt.number != number:
        raise NotFound(f"Attempt {number} of job {_job(service, job_id)} is over; nobody waits for its reports.")
    if epoch != attempt.epoch:
        raise NotFound(f"Attempt {number} of job {_job(service, job_id)} is of epoch {attempt.epoch}, not {epoch}.")
    return attempt, sender


def _job(service: Service, job_id: str) -> str:
    job = service.state.jobs.get(job_id)
    return title_of(job_id) if job is None else title(job)


def _check_permitted(service: Service, attempt: Attempt, sender: Sender, report: PodReport) -> None:
    """A master reports for its gang, a pod without a master for itself; other members report to their master only."""
    pod = next((pod for pod in attempt.pods if pod.name == sender.pod), None)
    if pod is None:
        raise NotFound(
            f"The {pod_title(sender.pod)} is no part of attempt {attempt.number} of job {_job(service, attempt.job_id)} any more."
        )
    if pod.role == MASTER:
        return
    if any(other.role == MASTER for other in attempt.pods):
        raise Forbidden(f"The {pod_title(pod.name)} is a member of a gang; it reports to its master.")
    other_pod = next((member.pod for member in report.members if member.pod != pod.name), None)
    if other_pod is not None:
        raise Forbidden(f"The {pod_title(pod.name)} may report of itself only, not of {pod_title(other_pod[:80])}.")


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
    """``attempt`` as it was when the report arrived: changes by the report itself are answered with the next one."""
    job = service.state.jobs.get(attempt.job_id)  # It may have been deleted meanwhile.
    if attempt.stopping_at is not None and job is not None:
        grace = job.work.grace_s
        return {"stop": {"grace_s": grace, "why": STOPPED_BECAUSE[attempt.stop_reason] if attempt.stop_reason is not None else ""}}
    if attempt.phase is not AttemptPhase.RUNNING:
        return {"stop": None}
    limits = service.config.limits
    return {"stop": None, "next_s": next_report_s(service.state.live_count, limits.heartbeat_s, limits.lost_after_s)}
