"""Results as figures and as one table: waits, completion times, use, fairness, preemptions, decisions per second."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from tuttilab.scheduler.domain.model import JobPhase
from tuttilab.scheduler.domain.resources import show_duration
from tuttilab.scheduler.simulation.engine import JobOutcome, Outcome
from tuttilab.scheduler.simulation.trace import csv_lines


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one simulation. ``jct``: job completion time, from submission to end."""

    policy: str
    jobs: int
    ended: int
    mean_wait_s: float
    p50_wait_s: float
    p99_wait_s: float
    max_wait_s: float
    mean_jct_s: float
    p50_jct_s: float
    p99_jct_s: float
    max_jct_s: float
    makespan_s: float
    """From the first submission to the last end."""
    utilisation: float
    fairness: float
    """Jain's index of the owners' mean slowdowns; 1: all equal."""
    preemptions: int
    decisions: int
    decisions_per_s: float
    estimate_error: float | None
    """Median of |forecast - real| wait over real wait + 1 min, of the sampled gangs."""
    estimate_factor: float | None
    """Median factor, up or down, between forecast and real wait (each + 1 min)."""
    told: float | None
    """Share of the sampled waiting gangs that were told when they start."""
    told_held: float | None
    """Share of these that started in the range told at their submission."""
    told_again_held: float | None
    """The same for the ranges told later, while they waited."""
    told_width: float | None
    """Median factor between the end and the beginning of a told range, each as seconds from then on + 1 min."""


def quantile(values: Sequence[float], level: float) -> float:
    """The smallest value that at least ``level`` of all do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(max(-int(-level * len(ranked) // 1) - 1, 0), len(ranked) - 1)] if ranked else 0.0


def figures(outcome: Outcome) -> Figures:
    waits = [ran.wait_s for ran in outcome.ran if ran.wait_s is not None]
    ends = [ran.completion_s for ran in outcome.ran if ran.completion_s is not None]
    last = max((ran.ended_at for ran in outcome.ran if ran.ended_at is not None), default=None)
    errors = [abs(forecast - real) / (real + 60.0) for forecast, real in outcome.estimate_errors]
    factors = [max(forecast + 60.0, real + 60.0) / min(forecast + 60.0, real + 60.0) for forecast, real in outcome.estimate_errors]
    return Figures(
        policy=outcome.policy,
        jobs=len(outcome.ran),
        ended=len(ends),
        mean_wait_s=fmean(waits) if waits else 0.0,
        p50_wait_s=quantile(waits, 0.5),
        p99_wait_s=quantile(waits, 0.99),
        max_wait_s=max(waits, default=0.0),
        mean_jct_s=fmean(ends) if ends else 0.0,
        p50_jct_s=quantile(ends, 0.5),
        p99_jct_s=quantile(ends, 0.99),
        max_jct_s=max(ends, default=0.0),
        makespan_s=last - min(ran.job.submit_s for ran in outcome.ran) if last is not None else 0.0,
        utilisation=_utilisation(outcome),
        fairness=_fairness(outcome),
        preemptions=outcome.preemptions,
        decisions=outcome.decisions,
        decisions_per_s=outcome.decisions / outcome.seconds if outcome.seconds else 0.0,
        estimate_error=median(errors) if errors else None,
        estimate_factor=median(factors) if factors else None,
        told=_share([one.is_told for one in outcome.told if one.is_first]),
        told_held=_share([one.holds for one in outcome.told if one.is_first and one.is_told]),
        told_again_held=_share([one.holds for one in outcome.told if not one.is_first and one.is_told]),
        told_width=_width(outcome),
    )


def _share(answers: Sequence[bool]) -> float | None:
    return sum(answers) / len(answers) if answers else None


def _width(outcome: Outcome) -> float | None:
    widths = [
        (one.latest_s + 60.0) / (one.earliest_s + 60.0)
        for one in outcome.told
        if one.is_first and one.earliest_s is not None and one.latest_s is not None
    ]
    return median(widths) if widths else None


def _utilisation(outcome: Outcome) -> float:
    """Mean use of the scarcest resource from the first submission to the last one."""
    last = max((ran.job.submit_s for ran in outcome.ran), default=0.0)
    used = span = 0.0
    for (at, share), (after, _) in zip(outcome.use, outcome.use[1:], strict=False):
        until = min(after, last)
        if until > at:
            used += share * (until - at)
            span += until - at
    return used / span if span else 0.0


def _fairness(outcome: Outcome) -> float:
    """Jain's index (Jain, Chiu, Hawe 1984) of the owners' mean bounded slowdowns (completion over run time of at least 10 s)."""
    by_owner: dict[str, list[float]] = {}
    for ran in outcome.ran:
        if ran.completion_s is not None:
            by_owner.setdefault(ran.job.owner, []).append(max(ran.completion_s / max(ran.job.duration_s, 10.0), 1.0))
    means = [fmean(values) for values in by_owner.values()]
    return sum(means) ** 2 / (len(means) * sum(m * m for m in means)) if means else 1.0


def unfinished_lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """A line for each policy under which jobs did not end; the figures do not include their waits."""
    for outcome in outcomes:
        waiting = [ran.job.job_id for ran in outcome.ran if ran.phase is JobPhase.QUEUED]
        running = [ran.job.job_id for ran in outcome.ran if ran.phase is JobPhase.ACTIVE]
        for left, why in ((waiting, "as they fit on no nodes or quota"), (running, "as their cluster stays lost")):
            if left:
                some = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
                yield f"{outcome.policy}: {len(left)} of {len(outcome.ran)} jobs never end, {why}: {some}"


RUN_COLUMNS: Final = (
    *("policy", "job_id", "queue", "phase", "reason", "submit_s", "started_s", "ended_s"),
    *("attempts", "cluster", "nodes", "given_back"),
)


def run_lines(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """CSV, header first: when and where each job ran last under each policy, and how many pods it gave back meanwhile."""
    return csv_lines((RUN_COLUMNS, *(_run_fields(outcome.policy, ran) for outcome in outcomes for ran in outcome.ran)))


def _run_fields(policy: str, ran: JobOutcome) -> Sequence[str | int]:
    times = ["" if at is None else f"{at:.3f}" for at in (ran.job.submit_s, ran.started_at, ran.ended_at)]
    own = (policy, ran.job.job_id, ran.job.queue, ran.phase.value, ran.reason, *times, ran.attempts)
    if ran.last is None:
        return (*own, "", "", 0)
    nodes = ";".join(dict.fromkeys(pod.node for pod in (*ran.last.pods, *ran.last.left)))
    return (*own, ran.last.cluster, nodes, len(ran.last.left))


def _told(row: Figures) -> str:
    """``84% in x6.1``: how many started in the range that they were told, and how wide it was."""
    return "-" if row.told_held is None else f"{row.told_held:.0%} in x{row.told_width:.1f}"


def table(rows: Iterable[Figures], against: Figures | None = None) -> str:
    """The figures, one policy per line. With ``against``, mean completion, p99 and longest wait also as ratios to that policy's."""
    head = (
        "policy",
        "mean wait",
        "p50",
        "p99",
        "longest",
        "mean done",
        "p99 done",
        "used",
        "fair",
        "stops",
        "dec/s",
        "estimate",
        "told",
    )
    lines = [head]
    for row in rows:
        marks = ["", "", ""]
        if against is not None and against is not row:
            pairs = (
                (row.p99_wait_s, against.p99_wait_s),
                (row.max_wait_s, against.max_wait_s),
                (row.mean_jct_s, against.mean_jct_s),
            )
            marks = [f" ({a / b:.2f}x)" if b else "" for a, b in pairs]
        lines.append(
            (
                row.policy,
                show_duration(row.mean_wait_s),
                show_duration(row.p50_wait_s),
                show_duration(row.p99_wait_s) + marks[0],
                show_duration(row.max_wait_s) + marks[1],
                show_duration(row.mean_jct_s) + marks[2],
                show_duration(row.p99_jct_s),
                f"{row.utilisation:.1%}",
                f"{row.fairness:.2f}",
                str(row.preemptions),
                f"{row.decisions_per_s:.0f}",
                "-" if row.estimate_factor is None else f"x/{row.estimate_factor:.1f} ±{row.estimate_error:.0%}",
                _told(row),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)
