"""Views of the service as the tests of the magics need them: sound by default, each test names what it is about."""

from typing import Any

from tuttilab.scheduler.domain.wire import AttemptView, JobView, PodShapeView, PodView, WaitView

NOW = 1_000_000.0


def a_pod(rank: int = 0, **more: Any) -> PodView:
    return PodView(**{"name": f"p{rank}", "rank": rank, "role": "worker", "node": "a", "phase": "Running", **more})


def an_attempt(*pods: PodView, **more: Any) -> AttemptView:
    given = {
        "number": 1,
        "phase": "Running",
        "cluster": "here",
        "admitted_at": NOW - 20,
        "started_at": NOW - 10,
        "pods": pods,
        **more,
    }
    return AttemptView(**given)


def a_wait(**more: Any) -> WaitView:
    return WaitView(**{"why": "quota", "sentence": "research is at its max of 4 GPU.", "place": 2, **more})


def a_job(**more: Any) -> JobView:
    given = {
        "id": "3f2a9c12deadbeef3f2a9c12deadbeef",
        "name": "train",
        "owner": "ada",
        "group": "research",
        "queue": "research",
        "kind": "batch",
        "phase": "Running",
        "reason": "",
        "created_at": NOW - 30,
        "started_at": NOW - 10,
        "pods": (PodShapeView(role="worker", count=1, cpus="1", memory="1Gi", gpus=0),),
        **more,
    }
    return JobView(**given)


def an_ended_job(pod: PodView | None, *, job_reason: str = "", attempt_reason: str = "", **more: Any) -> JobView:
    """A failed one, unless ``phase`` says otherwise."""
    pods = () if pod is None else (pod,)
    phase = more.get("phase", "Failed")
    attempt = an_attempt(*pods, phase=phase, reason=attempt_reason, **({} if pod else {"started_at": None}))
    return a_job(**{"phase": "Failed", "reason": job_reason, "is_ended": True, "ended_at": NOW, "attempts": (attempt,), **more})
