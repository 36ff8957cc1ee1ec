"""The policy on a family of traces, against EASY with the same predictions and EASY that is told the true run times; one table.

`python -m tests.benchmarks.policy [--only TRACE,…] [--seeds 71,72,73] [--jobs N] [--nodes N] [--workers N]`

A line for each trace and seed: completion, waits, the waits of gangs that want whole nodes, and how often jobs started in the range
that they were told; then what was aimed at and missed. The seeds are for measuring: take others while working on it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from tests.benchmarks.figures import Figure
from tuttilab.scheduler.domain.model import Cluster, Node, Queue
from tuttilab.scheduler.domain.resources import CPU, GPU, MEMORY, Resources
from tuttilab.scheduler.runtime.garbage_collection import collect_seldom
from tuttilab.scheduler.simulation import POLICIES, Outcome, Recipe, Simulation, figures, read_recipe

NODE_GPUS: Final = 8
SEEDS: Final = (71, 72, 73)
JOBS: Final = 5000
SAMPLE_EVERY: Final = 10
TOLD, PREDICTED, OURS = POLICIES_COMPARED = ("easy", "easy-predicted", "ours")


@dataclass(frozen=True)
class Trace:
    """``recipe`` on a site of ``nodes`` with eight GPUs each."""

    text: str
    nodes: int = 8

    @property
    def label(self) -> str:
        return f"{self.text} on {self.nodes}"

    def recipe(self, seed: int, jobs: int) -> Recipe:
        return read_recipe(self.text, Recipe(seed=seed, jobs=jobs))


FAMILY: Final = (
    *(Trace(f"generated:load={load}") for load in (0.8, 1.0, 1.3)),
    Trace("generated:load=1.3,shuffled=yes"),
    *(Trace(f"recurring:load={load}") for load in (0.8, 1.0, 1.3)),
    *(Trace(f"recurring:load=1.3,{what}") for what in ("shuffled=yes", "scatter=0.1", "scatter=1.5", "runs=4", "runs=100")),
    Trace("recurring:load=0.9,shuffled=yes"),
    *(Trace(f"whole-nodes:load={load}") for load in (0.8, 1.0, 1.3)),
    *(Trace(f"{name}:load=1.0") for name in ("bursts", "limits", "elastic", "sessions")),
    *(Trace(f"recurring:load={load}", nodes) for nodes in (2, 64) for load in (0.9, 1.3)),
    Trace("whole-nodes:load=1.0", 2),
    Trace("whole-nodes:load=1.0", 64),
)


@dataclass(frozen=True)
class Measured:
    """One policy on one trace."""

    mean_jct_s: float
    mean_wait_s: float
    p99_wait_s: float
    max_wait_s: float
    max_whole_node_wait_s: float
    told: int
    told_held: int
    """Ranges told at submission, and those in which the job started."""
    told_again: int
    told_again_held: int
    told_width: float | None
    unended: int
    seconds: float


def site(nodes: int) -> list[Cluster]:
    room = Resources.of({CPU: 64_000, MEMORY: 2**40, GPU: NODE_GPUS})
    return [Cluster("gpu", "fake", tuple(Node(f"n{i}", "gpu", room) for i in range(nodes)))]


def measure_one(trace: Trace, seed: int, jobs: int, policy: str, sample_every: int = SAMPLE_EVERY) -> Measured:
    """Run one policy. Only ours is asked what it tells, as that takes time."""
    collect_seldom()
    began = time.process_time()
    lines = trace.recipe(seed, jobs).make(trace.nodes * NODE_GPUS, NODE_GPUS)
    samples = sample_every if policy == OURS else 0
    outcome = Simulation(site(trace.nodes), [Queue("main")], lines, POLICIES[policy], sample_every=samples).run()
    return measured(outcome, time.process_time() - began)


def measured(outcome: Outcome, seconds: float) -> Measured:
    row = figures(outcome)
    whole = [ran.wait_s for ran in outcome.ran if ran.wait_s is not None and ran.job.gpus >= NODE_GPUS * ran.job.pods]
    first, later = ([one for one in outcome.told if one.is_told and one.is_first is is_first] for is_first in (True, False))
    return Measured(
        row.mean_jct_s,
        row.mean_wait_s,
        row.p99_wait_s,
        row.max_wait_s,
        max(whole, default=0.0),
        len(first),
        sum(one.holds for one in first),
        len(later),
        sum(one.holds for one in later),
        row.told_width,
        row.jobs - row.ended,
        seconds,
    )


@dataclass(frozen=True)
class Line:
    """One trace and seed."""

    trace: Trace
    seed: int
    told: Measured
    predicted: Measured
    ours: Measured

    def aims(self) -> Iterator[Figure]:
        """What was aimed at, each with what was found."""
        recipe, ours, predicted, told = self.trace.recipe(self.seed, 1), self.ours, self.predicted, self.told

        def aim(what: str, value: float, limit: float, unit: str) -> Figure:
            return Figure(f"{self.trace.label}, seed {self.seed}: {what}", value, limit, "", unit)

        def hours(what: str, found: float, times: float, peer: float, more_s: float = 0.0) -> Figure:
            return aim(what, found / 3600, (times * peer + more_s) / 3600, "h")

        yield aim("mean completion over EASY predicted", ours.mean_jct_s / predicted.mean_jct_s, 1.02, "x")
        if recipe.load <= 1.0:
            yield hours("mean wait", ours.mean_wait_s, 1.1, predicted.mean_wait_s)
        yield hours("p99 wait", ours.p99_wait_s, 1.35, predicted.p99_wait_s, 600)
        yield hours("longest wait", ours.max_wait_s, 1.5, predicted.max_wait_s, 3600)
        # The hour as for all gangs: twice a wait of a minute says nothing.
        whole = ours.max_whole_node_wait_s, predicted.max_whole_node_wait_s
        yield hours("longest wait for a whole node", whole[0], 2.0, whole[1], 3600)
        yield aim("jobs that do not end", ours.unended - predicted.unended, 0, "")
        recurs = not recipe.shuffled and recipe.scatter <= 0.5
        if recurs and recipe.load == 1.3 and recipe.name != "generated":
            yield aim("mean completion over EASY told", ours.mean_jct_s / told.mean_jct_s, 1 / 1.5, "x")
        if recipe.name == "generated" and recurs:
            mean, p99, p99_s, longest, longest_s = GENERATED[recipe.load]
            yield aim("mean completion over EASY told", ours.mean_jct_s / told.mean_jct_s, mean, "x")
            yield hours("p99 wait, to EASY told", ours.p99_wait_s, p99, told.p99_wait_s, p99_s)
            yield hours("longest wait, to EASY told", ours.max_wait_s, longest, told.max_wait_s, longest_s)

    def cells(self) -> tuple[str, ...]:
        ours, peers = self.ours, (self.told, self.predicted)

        def over(key: str) -> str:
            mine = getattr(ours, key)
            return " ".join(f"{mine / peer:.2f}" if (peer := getattr(one, key)) else "-" for one in peers)

        def hours(key: str) -> str:
            return f"{getattr(ours, key) / 3600:.2f}h {over(key)}"

        told = f"{ours.told_held / ours.told:.0%} x{ours.told_width or 0:.1f}" if ours.told else "-"
        later = f"{ours.told_again_held / ours.told_again:.0%}" if ours.told_again else "-"
        keys = ("mean_jct_s", "mean_wait_s", "p99_wait_s", "max_wait_s", "max_whole_node_wait_s")
        missed = ", ".join(one.name.partition(": ")[2] for one in self.aims() if not one.is_within) or "met"
        return (self.trace.label, str(self.seed), *map(hours, keys), told, later, missed)


GENERATED: Final = {1.3: (1 / 1.6, 1.35, 0.0, 1.5, 0.0), 1.0: (1 / 1.2, 1.6, 0.0, 1.8, 0.0), 0.8: (1.0, 1.0, 600.0, 1.0, 3600.0)}
"""By load, on the product's own generator, over EASY told: mean completion, p99 wait and seconds more, longest wait and more."""
HEAD: Final = ("trace on nodes", "seed", "mean done", "mean wait", "p99 wait", "longest", "whole nodes", "told", "later", "missed")


def coverage(lines: Sequence[Line]) -> Iterator[Figure]:
    """Of each trace, over its seeds: how often jobs started in the range that they were told, off the 80 % that are promised."""
    for trace in dict.fromkeys(line.trace for line in lines):
        all_of = [line.ours for line in lines if line.trace is trace]
        told, held = (sum(one.told + one.told_again for one in all_of), sum(one.told_held + one.told_again_held for one in all_of))
        if told >= 100:  # of fewer, five points are chance
            width = median([one.told_width for one in all_of if one.told_width is not None] or [0.0])
            note = f"{held / told:.1%} of {told}, x{width:.1f}"
            yield Figure(f"{trace.label}: told ranges off 80 %", abs(held / told - 0.8) * 100, 5.0, note, "points")


def show(lines: Sequence[Line]) -> str:
    rows = [HEAD, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


Task = tuple[Trace, int, int, str]


def measure(
    traces: Sequence[Trace] = FAMILY,
    seeds: Sequence[int] = SEEDS,
    jobs: int = JOBS,
    workers: int | None = None,
    peers: Path | None = None,
) -> list[Figure]:
    """Print the table, and a line on stderr as each simulation ends. ``peers``: EASY's figures are kept there for the next time."""
    kept: dict[str, Measured] = {}
    if peers is not None and peers.exists():
        kept = {key: Measured(**value) for key, value in json.loads(peers.read_text()).items()}
    tasks = [(trace, seed, jobs, policy) for trace in traces for seed in seeds for policy in POLICIES_COMPARED]
    found = {task: kept[_key(task)] for task in tasks if task[3] != OURS and _key(task) in kept}
    began = time.monotonic()
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        # The largest sites take longest, so they go first.
        ahead = sorted((task for task in tasks if task not in found), key=lambda task: -task[0].nodes)
        running: dict[Future[Measured], Task] = {pool.submit(measure_one, *task): task for task in ahead}
        for number, done in enumerate(as_completed(running), start=1):
            task = running[done]
            one = found[task] = done.result()
            where = f"{number} of {len(running)}, {time.monotonic() - began:.0f} s"
            waits = f"mean wait {one.mean_wait_s / 3600:.2f} h, p99 {one.p99_wait_s / 3600:.2f} h"
            what = f"{task[0].label}, seed {task[1]}, {task[3]}"
            print(f"     {where}: {what}: {waits}, {one.seconds:.0f} s", file=sys.stderr, flush=True)
    lines = [Line(t, seed, *(found[t, seed, jobs, policy] for policy in POLICIES_COMPARED)) for t in traces for seed in seeds]
    if peers is not None:
        kept |= {_key(task): one for task, one in found.items() if task[3] != OURS}
        peers.write_text(json.dumps({key: asdict(one) for key, one in kept.items()}, indent=1))
    print("ours, and over EASY told the run times, and over EASY with the same predictions:")
    print(show(lines), flush=True)
    told = list(coverage(lines))
    for covered in told:
        print(covered.line())
    every = [one for line in lines for one in line.aims()]
    return [*every, *told]


def _key(task: Task) -> str:
    return json.dumps((task[0].text, *map(str, (task[0].nodes, *task[1:]))))


def chosen(words: Iterable[str]) -> list[Trace]:
    """Traces whose label begins with one of the words; a word with values that the family lacks is one of its own."""
    found: list[Trace] = []
    for word in words:
        matching = [trace for trace in FAMILY if trace.label.startswith(word)]
        found += matching or [Trace(word)]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--only", help="traces, with ';' between: recurring, or recurring:load=0.8,scatter=2; 'list' names the family"
    )
    options.add_argument("--nodes", type=int, help="all of them on so many nodes")
    options.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    options.add_argument("--jobs", type=int, default=JOBS, help="of a trace")
    options.add_argument("--workers", type=int, help="processes; as many as there are cores")
    options.add_argument("--peers", type=Path, help="keep EASY's figures in this file, and take them from there")
    given = options.parse_args(arguments)
    if given.only == "list":
        print("\n".join(trace.label for trace in FAMILY))
        return 0
    traces = chosen(given.only.split(";")) if given.only else list(FAMILY)
    if given.nodes:
        traces = list(dict.fromkeys(replace(trace, nodes=given.nodes) for trace in traces))
    found = measure(traces, [int(seed) for seed in given.seeds.split(",")], given.jobs, given.workers, given.peers)
    over = [one for one in found if not one.is_within]
    print(f"{len(found) - len(over)} of {len(found)} aims met")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
