"""Figures of the scheduling core beside their limits: cycle times, throughput, memory, makespan, shares.

`python -m tests.benchmarks.scheduling [--only cycle,unlike,admissions,burst,shares,guarantee,mixes]`; all in this process.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.benchmarks.figures import Figure
from tuttilab.scheduler.core.cycle import schedule
from tuttilab.scheduler.core.state import State
from tuttilab.scheduler.domain import events as ev
from tuttilab.scheduler.domain.model import Cluster, Gang, Job, JobKind, JobPhase, Node, PodSet, Queue, Work
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources
from tuttilab.scheduler.runtime.garbage_collection import collect_seldom
from tuttilab.scheduler.service.turn import Turn
from tuttilab.scheduler.simulation.engine import Simulation
from tuttilab.scheduler.simulation.policies import POLICIES
from tuttilab.scheduler.simulation.trace import TraceJob
from tuttilab.scheduler.store.base import Batch


def figure(name: str, value: float, limit: float, unit: str, note: str = "", *, is_least: bool = False) -> Figure:
    return Figure(name, value, limit, note, unit, is_least)


def decide(turn: Turn) -> None:
    """A cycle and its decision in one, as often as the service could at most; nothing when nothing changed."""
    if turn.state.is_up_to_date(turn.now):
        return
    decision = schedule(turn.state.snapshot(), turn.now)
    turn.apply_decision(decision, turn.state.version)


def site(nodes: int = 1000, gpus: int = 8) -> Cluster:
    room = Resources.of({CPU: 64_000, MEMORY: 512 * 2**30, GPU: gpus})
    return Cluster("site", "fake", tuple(Node(f"n{i:04d}", "site", room, {"rack": f"r{i // 20:02d}"}) for i in range(nodes)))


def tree(leaves: int = 30, guaranteed: Resources | None = None) -> list[Queue]:
    parents = [Queue(f"p{i}", weight=1 + i) for i in range(5)]
    per = leaves // 5
    return parents + [
        Queue(f"q{i:02d}", parent=f"p{i // per}", weight=1 + i % 3, guaranteed=guaranteed or Resources()) for i in range(leaves)
    ]


def job(order: int, queue: str, pods: int, gpus: int, name: str = "x", cpu: int = 4000, at: float = 0.0) -> Job:
    each = Resources.of({CPU: cpu, MEMORY: 2**30, GPU: gpus})
    return Job(
        id=f"j{order:06d}",
        name=name,
        owner=f"u{order % 97:02d}",
        group=f"g{order % 11}",
        queue=queue,
        kind=JobKind.DISTRIBUTED if pods > 1 else JobKind.BATCH,
        gang=Gang((PodSet("worker", pods, each),)),
        work=Work(("true",), sidecar=False),
        submitted_at=at,
        order=order,
    )


def unlike(one: Job) -> Job:
    """The same gang with a little more memory than any other asks for."""
    (pods,) = one.gang.pod_sets
    return replace(one, gang=Gang((replace(pods, resources=pods.resources + Resources.of({MEMORY: one.order * 2**20})),)))


def busy_state(waiting: int, seed: int = 1, *, are_unlike: bool = False) -> tuple[State, int]:
    """1,000 nodes that are full, 30 queues, and ``waiting`` gangs of seven shapes, or all but the first of shapes of their own."""
    chance = random.Random(seed)
    state = State(epoch=1)
    state.handle(ev.QueuesConfigured(tuple(tree())), 0.0)
    state.handle(ev.ClusterObserved(site()), 0.0)
    order = 0
    shapes = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (8, 1)]
    while True:
        for _ in range(2000):
            order += 1
            pods, gpus = chance.choices(shapes, [80, 6, 5, 5, 2, 1, 1])[0]
            state.handle(ev.JobSubmitted(job(order, f"q{order % 30:02d}", pods, gpus, f"n{order % 200}")), 0.0)
        decision = schedule(state.snapshot(), 0.0)
        for admitted in decision.admitted:
            state.handle(admitted, 0.0)
            attempt = state.live_attempt(admitted.job_id)
            assert attempt is not None
            for pod in attempt.pods:
                state.handle(ev.PodStarted(admitted.job_id, attempt.number, pod.name), 0.0)
        if len(state.queued()) > 500:
            break
    for _ in range(waiting - len(state.queued())):
        order += 1
        pods, gpus = chance.choices(shapes, [80, 6, 5, 5, 2, 1, 1])[0]
        one = job(order, f"q{order % 30:02d}", pods, gpus, f"n{order % 200}")
        state.handle(ev.JobSubmitted(unlike(one) if are_unlike else one), 0.0)
    state.take_changes()
    return state, order


def end(state: State, job_id: str, now: float) -> None:
    attempt = state.live_attempt(job_id)
    assert attempt is not None
    for pod in attempt.pods:
        state.handle(ev.PodEnded(job_id, attempt.number, pod.name, 0, "Completed"), now)


def cycles(waiting: int, rounds: int, *, are_unlike: bool = False) -> tuple[list[float], list[float]]:
    """Seconds of whole cycles (snapshot, decision with every reason, applying it) after some gangs ended, and of idle turns."""
    state, order = busy_state(waiting, are_unlike=are_unlike)
    chance = random.Random(2)
    took: list[float] = []
    idle: list[float] = []
    # Processor time: the cycle is one thread that waits for nothing, and the machine may be shared.
    now = 10.0
    for _ in range(rounds):
        now += 5.0
        for live in chance.sample([one.id for one, _ in state.live()], 20):
            end(state, live, now)
        for _ in range(waiting - len(state.queued())):
            order += 1
            one = job(order, f"q{order % 30:02d}", 1, 1, f"n{order % 200}", at=now)
            state.handle(ev.JobSubmitted(unlike(one) if are_unlike else one), now)
        state.take_changes()
        turn = Turn(state, now)
        # A cycle that changed something is followed by another; only one after the last of them has nothing to do.
        while not state.is_up_to_date(now):
            began = time.process_time()
            decide(turn)
            took.append(time.process_time() - began)
        began = time.process_time()
        decide(Turn(state, now))
        idle.append(time.process_time() - began)
        for entry in turn.entries:
            if isinstance(entry.event, ev.GangAdmitted):
                attempt = state.live_attempt(entry.event.job_id)
                assert attempt is not None
                for pod in attempt.pods:
                    state.handle(ev.PodStarted(attempt.job_id, attempt.number, pod.name), now)
        assert isinstance(turn.batch(), Batch)
    return took, idle


def measure_cycles(say: Callable[[Figure], None]) -> None:
    medians: dict[int, float] = {}
    for waiting, rounds in ((1_000, 40), (10_000, 100), (100_000, 3)):
        took, idle = cycles(waiting, rounds)
        medians[waiting] = statistics.median(took)
        if waiting == 10_000:
            p99 = sorted(took)[int(len(took) * 0.99) - 1]
            say(
                figure(
                    "10,000 gangs, 1,000 nodes, 30 queues: cycle p99",
                    p99 * 1000,
                    250,
                    "ms",
                    f"median {medians[waiting] * 1000:.0f} ms",
                )
            )
            say(
                figure(
                    "the same, a cycle with nothing to do",
                    max(idle[1:]) * 1000,
                    1.0,
                    "ms",
                    f"median {statistics.median(idle) * 1000:.4f}",
                )
            )
            say(figure("resident memory with 10,000 gangs", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 512, "MiB"))
    shown = ", ".join(f"{n:,}: {s * 1000:.1f} ms" for n, s in medians.items())
    say(figure("cost at 100,000 over 10,000 gangs (n log n: 12.5)", medians[100_000] / medians[10_000], 12.5, "x", shown))


def measure_unlike(say: Callable[[Figure], None]) -> None:
    alike, unalike = (cycles(10_000, 15, are_unlike=are_unlike)[0] for are_unlike in (False, True))
    medians = statistics.median(alike), statistics.median(unalike)
    shown = f"medians {medians[0] * 1000:.0f} and {medians[1] * 1000:.0f} ms; the first cycle {unalike[0] * 1000:.0f} ms"
    say(figure("cost of 10,000 unlike gangs over 10,000 of seven shapes", medians[1] / medians[0], 4, "x", shown))


def admissions(say: Callable[[Figure], None]) -> None:
    """Gangs of one pod, submitted in bursts and started as fast as the core can, each cycle applied to the state."""
    state = State(epoch=1)
    state.handle(ev.QueuesConfigured(tuple(tree())), 0.0)
    state.handle(ev.ClusterObserved(site()), 0.0)
    order = admitted = 0
    seconds = 0.0
    for burst in range(20):
        now = float(burst)
        for _ in range(1000):
            order += 1
            state.handle(ev.JobSubmitted(job(order, f"q{order % 30:02d}", 1, 1, at=now)), now)
        began = time.process_time()
        turn = Turn(state, now)
        decide(turn)
        turn.batch()
        seconds += time.process_time() - began
        started = [e.event for e in turn.entries if isinstance(e.event, ev.GangAdmitted)]
        admitted += len(started)
        for one in started:
            attempt = state.live_attempt(one.job_id)
            assert attempt is not None
            state.handle(ev.PodStarted(one.job_id, one.attempt, attempt.pods[0].name), now)
            if burst % 2:
                end(state, one.job_id, now + 0.5)
    say(figure("admissions sustained, decision and state", admitted / seconds, 1000, "1/s", f"{admitted} gangs", is_least=True))


def burst(say: Callable[[Figure], None]) -> None:
    """15,000 jobs in 30 queues of 5 trees: 350 small, 100 medium, 50 large each; 20 CPU guaranteed each; 0.2, 0.5, 1 s."""
    kinds = {"small": (350, 1, 0.2), "medium": (100, 5, 0.5), "large": (50, 20, 1.0)}
    nodes = tuple(Node(f"n{i:02d}", "site", Resources.of({CPU: 20_000, MEMORY: 2**40})) for i in range(30))
    queues = [Queue(f"p{i}") for i in range(5)]
    queues += [Queue(f"q{i:02d}", parent=f"p{i // 6}", guaranteed=Resources.of({CPU: 20_000})) for i in range(30)]
    trace: list[TraceJob] = []
    for queue in range(30):
        for kind, (count, cpus, seconds) in kinds.items():
            for number in range(count):
                name = f"{kind}-{queue}-{number}"
                trace.append(TraceJob(name, 0.0, seconds, 0, 1, cpus * 1000, 2**20, f"q{queue:02d}", f"u{queue}", kind))
    random.Random(3).shuffle(trace)
    began = time.perf_counter()
    outcome = Simulation([Cluster("site", "fake", nodes)], queues, trace, POLICIES["ours"]).run()
    real = time.perf_counter() - began
    bound = 30 * sum(count * cpus * seconds for count, cpus, seconds in kinds.values()) / 600
    makespan = max(ran.ended_at or 0.0 for ran in outcome.ran)
    waits = {kind: statistics.fmean(r.wait_s or 0.0 for r in outcome.ran if r.job.name == kind) for kind in kinds}
    note = "mean waits " + ", ".join(f"{kind} {wait:.1f} s" for kind, wait in waits.items()) + f"; {real:.0f} s of real time"
    say(figure("15,000 jobs in 30 queues: makespan over the work bound", makespan / bound, 1.10, "x", note))


def shares(say: Callable[[Figure], None]) -> None:
    """Four queues of weights 1, 2, 3, 4 with work for more than a busy hour: room-time by queue against the weights."""
    chance = random.Random(5)
    nodes = tuple(Node(f"n{i}", "site", Resources.of({CPU: 64_000, MEMORY: 2**40, GPU: 8})) for i in range(8))
    queues = [Queue(f"q{weight}", weight=weight) for weight in (1, 2, 3, 4)]
    trace = [
        TraceJob(
            f"{q}-{i}", 0.0, chance.uniform(20, 120), chance.choice((1, 1, 1, 2)), 1, 1000, 2**20, f"q{q}", f"u{i % 5}", f"n{i % 9}"
        )
        for q in (1, 2, 3, 4)
        for i in range(2500)
    ]
    outcome = Simulation([Cluster("site", "fake", nodes)], queues, trace, POLICIES["ours"]).run(until=3600.0)
    used = dict.fromkeys(("q1", "q2", "q3", "q4"), 0.0)
    for ran in outcome.ran:
        if ran.started_at is not None and ran.started_at < 3600:
            used[ran.job.queue] += ran.job.gpus * (min(ran.ended_at or 3600.0, 3600.0) - ran.started_at)
    whole = sum(used.values())
    worst = max(abs(used[f"q{weight}"] / whole / (weight / 10) - 1) for weight in (1, 2, 3, 4))
    say(
        figure(
            "shares over a busy hour off the weights",
            worst * 100,
            5,
            "%",
            ", ".join(f"{q} {u / whole:.3f}" for q, u in used.items()),
        )
    )


def guarantee(say: Callable[[Figure], None]) -> None:
    """A queue lends everything it is guaranteed and wants it back: from submission to start, beside the borrowers' grace."""
    grace = 5.0
    worst = 0.0
    for seed in range(20):
        chance = random.Random(seed)
        nodes = tuple(Node(f"n{i}", "site", Resources.of({CPU: 64_000, MEMORY: 2**40, GPU: 8})) for i in range(4))
        queues = [Queue("lender", guaranteed=Resources.of({GPU: 16})), Queue("borrower", guaranteed=Resources.of({GPU: 16}))]
        trace = [TraceJob(f"b{i}", 0.0, 50_000.0, chance.choice((1, 2, 4)), 1, 1000, 2**20, "borrower") for i in range(40)]
        trace += [TraceJob(f"l{i}", 1000.0, 500.0, 4, 1, 1000, 2**20, "lender") for i in range(4)]
        outcome = Simulation([Cluster("site", "fake", nodes)], queues, trace, POLICIES["ours"]).run(until=3000.0)
        waits = [ran.wait_s for ran in outcome.ran if ran.job.queue == "lender"]
        worst = max(worst, *(wait if wait is not None else float("inf") for wait in waits))
    say(figure("guarantee restored after", worst, grace + 0.1, "s", f"grace {grace:.0f} s, 20 mixes"))


def mixes(say: Callable[[Figure], None]) -> None:
    """1,000 random mixes of gangs on small clusters: how many do not come to an end."""
    stuck = 0
    began = time.perf_counter()
    for seed in range(1000):
        chance = random.Random(seed)
        nodes = tuple(
            Node(f"n{i}", "c", Resources.of({CPU: 8000, MEMORY: 2**36, GPU: chance.choice((0, 2, 4))}))
            for i in range(chance.randint(1, 4))
        )
        most = sum(node.allocatable[GPU] for node in nodes)
        queues = [Queue("a", guaranteed=Resources.of({GPU: most // 2})), Queue("b", priority=chance.randint(0, 1))]
        trace = []
        for number in range(chance.randint(2, 25)):
            gpus = chance.randint(0, max((node.allocatable[GPU] for node in nodes), default=0))
            pods = chance.choice((1, 1, 2, 3))
            line = TraceJob(
                f"g{number}",
                chance.uniform(0, 50),
                chance.uniform(1, 100),
                gpus * pods,
                pods,
                1000 * pods,
                2**20 * pods,
                chance.choice("ab"),
            )
            trace.append(replace(line, priority=chance.choice((0, 0, 5))))
        outcome = Simulation([Cluster("c", "fake", nodes)], queues, trace, POLICIES["ours"]).run()
        left = [ran for ran in outcome.ran if ran.phase is not JobPhase.SUCCEEDED]
        stuck += any(_fits_alone(ran.job, nodes) for ran in left)
    say(figure("of 1,000 random mixes, those that do not end", stuck, 0, "", f"{time.perf_counter() - began:.0f} s"))


def _fits_alone(line: TraceJob, nodes: Sequence[Node]) -> bool:
    each = line.gpus // line.pods
    room = sum(min(node.allocatable[GPU] // each if each else 99, 8) for node in nodes)
    return room >= line.pods


PARTS: dict[str, Callable[[Callable[[Figure], None]], None]] = {
    "cycle": measure_cycles,
    "unlike": measure_unlike,
    "admissions": admissions,
    "burst": burst,
    "shares": shares,
    "guarantee": guarantee,
    "mixes": mixes,
}


def measure(parts: Sequence[str] = tuple(PARTS)) -> list[Figure]:
    """Print every figure as it is found, with the processor time of its part and the load of the machine."""
    found: list[Figure] = []

    def say(figure: Figure) -> None:
        found.append(figure)
        print(figure.line(), flush=True)

    collect_seldom()
    for part in parts:
        began = time.process_time()
        PARTS[part](say)
        load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"     ({part}: {time.process_time() - began:.0f} s of processor time; load of the machine {load})", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parts = options.parse_args(arguments).only.split(",")
    if set(parts) - set(PARTS):
        options.error(f"unknown parts {', '.join(sorted(set(parts) - set(PARTS)))}; expected some of {', '.join(PARTS)}")
    found = measure(parts)
    over = [figure.name for figure in found if not figure.is_within]
    print(f"{len(found) - len(over)} of {len(found)} figures within their limits" + (f"; over: {'; '.join(over)}" if over else ""))
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
