"""Generates a trace with the marginals of a well-known GPU cluster: run times, sizes, arrivals, owners, and recurring names.

Run times: p50 1,144 s, p90 11,266 s, mean 13,136 s. Below p90 a log-normal through both; above it a half-normal in the logarithm
whose width gives the mean, cut at twenty days (a log-normal through p50 and p90 alone has a mean of 5,626 s). Quantiles are taken
evenly, so every trace has these figures exactly, whatever its seed. ``recurrence`` is the share of the variance of the logarithm
that owner and name explain.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Final

from tuttilab.scheduler.simulation.trace import TraceJob

P50_S: Final = 1144.0
P90_S: Final = 11266.0
MEAN_S: Final = 13136.0
LONGEST_S: Final = 20 * 86400.0
SIZES: Final = ((1, 0.932), (2, 0.022), (4, 0.023), (8, 0.020), (16, 0.003))
"""GPUs of a job, and the share of such jobs. "16 or more" are 16, a quarter of the 64 GPUs on which policies are compared."""
CPU_PER_GPU: Final = 4000
MEMORY_PER_GPU: Final = 16 * 2**30

_normal = NormalDist()


def _quantile(u: float, width: float) -> float:
    sigma = math.log(P90_S / P50_S) / _normal.inv_cdf(0.9)
    if u <= 0.9:
        return P50_S * math.exp(sigma * _normal.inv_cdf(u))
    half = _normal.inv_cdf(0.5 + (u - 0.9) / 0.1 / 2)
    return min(P90_S * math.exp(width * half), LONGEST_S)


def durations(count: int) -> list[float]:
    """``count`` run times, shortest first, with the marginals above."""
    levels = [(i + 0.5) / count for i in range(count)]
    low, high = 0.1, 6.0
    for _ in range(60):
        width = (low + high) / 2
        if sum(_quantile(u, width) for u in levels) / count < MEAN_S:
            low = width
        else:
            high = width
    return [max(_quantile(u, low), 1.0) for u in levels]


def _arrivals(count: int, span_s: float, chance: random.Random) -> list[float]:
    """Submission times in ``span_s``: more by day than by night, fewer at weekends."""
    times: list[float] = []
    while len(times) < count:
        at = chance.random() * span_s
        day = 1 + 0.6 * math.sin(2 * math.pi * (at / 86400 - 0.375))
        week = 0.5 if (at // 86400) % 7 >= 5 else 1.0
        if chance.random() * 1.6 <= day * week:
            times.append(at)
    return sorted(times)


def generate(
    jobs: int = 5000, load: float = 1.0, gpus: int = 64, seed: int = 1, recurrence: float = 0.8, owners: int = 60
) -> list[TraceJob]:
    """A trace whose work is ``load`` times what ``gpus`` GPUs can do while jobs are submitted."""
    chance = random.Random(seed)
    sizes = _sizes(jobs, chance)
    owner_weights = [1 / (rank + 1) for rank in range(owners)]
    names: list[tuple[str, str, float]] = []
    name_weights: list[float] = []
    for rank in range(owners):
        for number in range(12):
            names.append((f"user{rank:02d}", f"train-{rank:02d}-{number:02d}", chance.gauss(0, 1)))
            name_weights.append(owner_weights[rank] / (number + 1))
    chosen = chance.choices(names, name_weights, k=jobs)
    scores = [math.sqrt(recurrence) * z + math.sqrt(1 - recurrence) * chance.gauss(0, 1) for _, _, z in chosen]
    lengths = durations(jobs)
    took = [0.0] * jobs
    for length, index in zip(lengths, sorted(range(jobs), key=scores.__getitem__), strict=True):
        took[index] = length
    span_s = sum(t * s for t, s in zip(took, sizes, strict=True)) / (gpus * load)
    times = _arrivals(jobs, span_s, chance)
    return [
        TraceJob(
            job_id=f"t{index:06d}",
            submit_s=times[index],
            duration_s=took[index],
            gpus=sizes[index],
            pods=sizes[index],
            cpu=CPU_PER_GPU * sizes[index],
            memory=MEMORY_PER_GPU * sizes[index],
            owner=chosen[index][0],
            name=chosen[index][1],
        )
        for index in range(jobs)
    ]


def _sizes(jobs: int, chance: random.Random) -> list[int]:
    """Sizes in exactly the proportions of `SIZES`, in random order."""
    sizes = [size for size, part in SIZES[1:] for _ in range(round(jobs * part))]
    sizes += [SIZES[0][0]] * (jobs - len(sizes))
    chance.shuffle(sizes)
    return sizes


def shuffle_names(jobs: Sequence[TraceJob], seed: int = 1) -> list[TraceJob]:
    """The same trace with owners and names shuffled, so that history predicts nothing about run times."""
    labels = [(job.owner, job.name) for job in jobs]
    random.Random(seed).shuffle(labels)
    return [replace(job, owner=owner, name=name) for job, (owner, name) in zip(jobs, labels, strict=True)]
