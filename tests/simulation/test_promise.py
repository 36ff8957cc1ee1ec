"""I18: of the time a gang waits, gangs of its queue and class submitted later account for a bounded part. Measured from outside.

Nothing of the accounts of `core` is read: a run leaves when each gang was submitted, started and ended, and from that alone the
room-time is added up that later ones used while a gang waited. docs/scheduling-proof.md argues why the bound holds.
"""

import random
from dataclasses import replace

import pytest

from tuttilab.scheduler.domain.model import Cluster, Job, Node, Queue
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources
from tuttilab.scheduler.simulation.engine import JobOutcome, Outcome, Simulation
from tuttilab.scheduler.simulation.policies import POLICIES
from tuttilab.scheduler.simulation.trace import TraceJob

GPUS = 16
LIMIT_S = 3600.0
QUEUE = Queue("main", overtaking=0.1, overtaking_s=300.0)


def trace(seed: int, jobs: int = 500, load: float = 1.6) -> tuple[list[TraceJob], dict[str, Job]]:
    """More work than the room can do, in gangs of up to half of it, of a minute to an hour; every one has a limit of an hour."""
    chance = random.Random(seed)
    lines: list[TraceJob] = []
    sizes = [chance.choices((1, 2, 4, 8), (80, 8, 7, 5))[0] for _ in range(jobs)]
    lengths = [60.0 * 60.0 ** chance.random() for _ in range(jobs)]
    span = sum(size * length for size, length in zip(sizes, lengths, strict=True)) / GPUS / load
    for number, at in enumerate(sorted(chance.uniform(0, span) for _ in range(jobs))):
        gpus = sizes[number]
        name = f"n{int(lengths[number]) // 300 if seed % 2 else chance.randrange(12)}"
        lines.append(TraceJob(f"t{number:04d}", at, lengths[number], gpus, gpus, 1000 * gpus, 2**20 * gpus, "main", "ann", name))
    return lines, {line.job_id: replace(line.job(order), timeout_s=LIMIT_S) for order, line in enumerate(lines, start=1)}


def run(seed: int, policy: str) -> Outcome:
    nodes = tuple(Node(f"n{i}", "site", Resources.of({CPU: 64_000, MEMORY: 2**40, GPU: 8})) for i in range(GPUS // 8))
    lines, jobs = trace(seed)
    return Simulation([Cluster("site", "fake", nodes)], [QUEUE], lines, POLICIES[policy], jobs=jobs).run()


def overtaken_s(ran: JobOutcome, others: tuple[JobOutcome, ...]) -> float:
    """Seconds of the whole room that gangs submitted later used while this one waited."""
    assert ran.started_at is not None
    used = 0.0
    for other in others:
        if other.job.submit_s > ran.job.submit_s and other.started_at is not None and other.ended_at is not None:
            used += other.job.gpus * max(min(other.ended_at, ran.started_at) - min(other.started_at, ran.started_at), 0.0)
    return used / GPUS


def worst(outcome: Outcome) -> tuple[float, float]:
    """Of all gangs: the most by which one was overtaken beyond twice its allowance and a limit's length, and the longest wait."""
    assert all(ran.started_at is not None for ran in outcome.ran)
    over = []
    for ran in outcome.ran:
        wait = ran.wait_s or 0.0
        over.append(overtaken_s(ran, outcome.ran) - 2 * (QUEUE.overtaking * wait + QUEUE.overtaking_s) - LIMIT_S)
    return max(over), max(ran.wait_s or 0.0 for ran in outcome.ran)


@pytest.mark.parametrize("seed", range(8))
def test_S06_I18_later_gangs_account_for_a_bounded_part_of_a_wait(seed: int) -> None:
    over, longest = worst(run(seed, "ours"))
    assert longest > 4 * 3600.0, "the trace is too light to say anything"
    assert over <= 0.0, f"seed {seed}: {over:.0f} s beyond the bound"


def test_S06_without_protection_the_bound_breaks_on_these_traces() -> None:
    """Else the test above would show nothing."""
    overs = [worst(run(seed, "sjf-oracle"))[0] for seed in range(8)]
    assert max(overs) > 0.0
