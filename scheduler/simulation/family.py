"""The named generators of traces, on which policies are compared: `recurring:load=0.8,seed=11`.

A policy that was tuned on one trace may lose on the next, so the family differs in what policies lean on: how well names tell run
times, how many gangs want whole nodes, how arrivals bunch, what limits say, whether gangs can shrink, and who else is there.
All but ``generated`` (`simulation.generate`) are made the same way: each name has a base duration and a size of its own, each of
its runs scatters around that base by a log-normal factor, and a part of the arrivals comes in bursts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.simulation.generate import LONGEST_S, P50_S, SIZES, generate, shuffle_names
from tuttilab.scheduler.simulation.trace import NOTEBOOK, SPARK, TraceJob

WIDTH: Final = 1.9
"""Standard deviation of the logarithm of the names' base durations."""
OWNERS: Final = 60
BURST_WIDTH: Final = 0.003
"""Standard deviation of the arrivals of a burst, as a part of the whole time."""
WHOLE_NODE_SIZES: Final = ((1, 0.70), (2, 0.05), (4, 0.05), (8, 0.16), (16, 0.04))
ELASTIC_SIZES: Final = ((1, 0.80), (2, 0.05), (4, 0.07), (8, 0.05), (16, 0.03))
DAY_S: Final = 86400.0
MOST_JOBS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What a trace is made of, beside what `Recipe` says."""

    sizes: Sequence[tuple[int, float]] = SIZES
    """GPUs of a job, and the share of names with so many."""
    bursts: int = 40
    in_bursts: float = 0.5
    """The share of jobs that arrive in bursts."""
    has_limits: bool = False
    """Whether each name has a run-time limit, which is wrong: ten times too long and more for most, too short for every tenth."""
    is_elastic: bool = False
    """Whether gangs of several GPUs have a pod for each, and start with a quarter of them."""
    sessions: float = 0.0
    """The share of notebooks and Spark sessions among what is submitted."""


SHAPES: Final[Mapping[str, Shape]] = {
    "recurring": Shape(),
    "whole-nodes": Shape(sizes=WHOLE_NODE_SIZES),
    "bursts": Shape(bursts=8, in_bursts=0.95),
    "limits": Shape(has_limits=True),
    "elastic": Shape(sizes=ELASTIC_SIZES, is_elastic=True),
    "sessions": Shape(sessions=0.25),
}
NAMES: Final = ("generated", *SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A trace to make. ``load``: its GPU time over what the site's GPUs can do while jobs are submitted."""

    name: str = "generated"
    jobs: int = 5000
    load: float = 1.0
    seed: int = 1
    scatter: float = 0.5
    """Standard deviation of the logarithm of the run times of one name. Not of ``generated``, nor ``runs``."""
    runs: int = 12
    """How often a name runs, on average."""
    shuffled: bool = False
    """Whether owners and names are shuffled, so that history predicts nothing."""

    def make(self, gpus: int = 64, node_gpus: int = 8) -> list[TraceJob]:
        """The jobs for a site with so many GPUs, at most ``node_gpus`` on a node; none wants more than the site has.

        Raises BadInput for a site without a GPU.
        """
        if gpus < 1:
            raise BadInput("trace: a generated one is of jobs with GPUs, and the site has none; expected a file.")
        if self.name == "generated":
            jobs = [job for job in generate(self.jobs, self.load, gpus, self.seed) if job.gpus <= gpus]
        else:
            jobs = _Maker(self, SHAPES[self.name], gpus, node_gpus).make()
        return shuffle_names(jobs, self.seed) if self.shuffled else jobs


def is_recipe(text: str) -> bool:
    """Whether the text names a generator, with or without values after a colon."""
    return text.partition(":")[0] in NAMES


def read_recipe(text: str, base: Recipe | None = None) -> Recipe:
    """``NAME`` or ``NAME:key=value,…``. What it does not say is as in ``base``. Raises BadInput naming the key."""
    name, _, rest = text.partition(":")
    if name not in NAMES:
        raise BadInput(f"trace: {name[:40]!r} is no generator; expected one of {', '.join(NAMES)}.")
    given: dict[str, int | float | bool] = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, _, value = part.partition("=")
        if key not in _READERS:
            raise BadInput(f"trace {name}: {key[:40]!r} is not known; expected some of {', '.join(_READERS)}.")
        if key in given:
            raise BadInput(f"trace {name}: {key} stands there twice; expected each once.")
        if name == "generated" and key in ("scatter", "runs"):
            raise BadInput(f"trace generated: {key} is of the other generators; expected one of {', '.join(SHAPES)} for it.")
        given[key] = _READERS[key](value, f"trace {name}, {key}")
    values = {field.name: getattr(base, field.name) for field in fields(Recipe)} if base is not None else {}
    return Recipe(**{**values, **given, "name": name})


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(text: str, where: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
            raise BadInput(f"{where}: {text[:40]!r} is not whole or out of range; expected {least} to {most}.")
        return int(text)

    return read


def _real(least: float, most: float) -> Callable[[str, str], float]:
    def read(text: str, where: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise BadInput(f"{where}: {text[:40]!r} is no number or out of range; expected {least:g} to {most:g}.")
        return value

    return read


def _yes_or_no(text: str, where: str) -> bool:
    if text not in ("yes", "no"):
        raise BadInput(f"{where}: {text[:40]!r} is neither; expected yes or no.")
    return text == "yes"


_READERS: Final[Mapping[str, Callable[[str, str], int | float | bool]]] = {
    "jobs": _whole(1, MOST_JOBS),
    "load": _real(0.01, 100.0),
    "seed": _whole(0, 10**9),
    "scatter": _real(0.0, 5.0),
    "runs": _whole(1, MOST_JOBS),
    "shuffled": _yes_or_no,
}


@dataclass(frozen=True, slots=True)
class _Name:
    """What the runs of one name have in common."""

    owner: str
    name: str
    base_s: float
    gpus: int
    limit_s: float | None


class _Maker:
    def __init__(self, recipe: Recipe, shape: Shape, gpus: int, node_gpus: int) -> None:
        self.recipe, self.shape, self.gpus, self.node_gpus = recipe, shape, gpus, node_gpus
        self.chance = random.Random(recipe.seed)

    def make(self) -> list[TraceJob]:
        recipe, chance = self.recipe, self.chance
        sizes = [(size, share) for size, share in self.shape.sizes if size <= self.gpus]
        names = [self._name(number, sizes) for number in range(max(1, recipe.jobs // recipe.runs))]
        sessions = round(recipe.jobs * self.shape.sessions)
        jobs = [self._run(chance.choice(names)) for _ in range(recipe.jobs - sessions)]
        jobs += [self._session() for _ in range(sessions)]
        chance.shuffle(jobs)
        took = [min(job.duration_s, job.limit_s or LONGEST_S) for job in jobs]
        work = sum(seconds * job.gpus for seconds, job in zip(took, jobs, strict=True))
        span = work / (self.gpus * recipe.load)
        times = sorted(span * self._arrival() for _ in jobs)
        return [
            replace(job, job_id=f"t{index:06d}", submit_s=round(at, 1))
            for index, (job, at) in enumerate(zip(jobs, times, strict=True))
        ]

    def _name(self, number: int, sizes: Sequence[tuple[int, float]]) -> _Name:
        chance = self.chance
        owner = f"user{int(chance.paretovariate(1.1)) % OWNERS:02d}"
        base = P50_S * math.exp(chance.gauss(0.0, WIDTH))
        gpus = chance.choices([size for size, _ in sizes], [share for _, share in sizes])[0]
        limit = None
        if self.shape.has_limits:
            times = 0.6 if chance.random() < 0.1 else chance.choice((10.0, 30.0, 100.0))
            limit = max(round(base * times), 1.0)
        return _Name(owner, f"job{number}", base, gpus, limit)

    def _run(self, name: _Name) -> TraceJob:
        took = min(name.base_s * math.exp(self.chance.gauss(0.0, self.recipe.scatter)), LONGEST_S)
        is_elastic = self.shape.is_elastic and name.gpus > 1
        return TraceJob(
            job_id="",
            submit_s=0.0,
            duration_s=float(max(1, round(took))),
            gpus=name.gpus,
            pods=name.gpus if is_elastic else self._pods(name.gpus),
            cpu=1000 * name.gpus,
            memory=2**30 * name.gpus,
            owner=name.owner,
            name=name.name,
            limit_s=name.limit_s,
            min_count=max(1, name.gpus // 4) if is_elastic else None,
        )

    def _pods(self, gpus: int) -> int:
        """As few as nodes allow that share the GPUs evenly."""
        least = -(-gpus // self.node_gpus)
        return next(pods for pods in range(least, gpus + 1) if gpus % pods == 0)

    def _session(self) -> TraceJob:
        """A notebook for a working day or less, every third with a GPU; or a Spark session of eight cores for an hour or two."""
        chance = self.chance
        owner = f"user{int(chance.paretovariate(1.1)) % OWNERS:02d}"
        is_notebook = chance.random() < 0.6
        took = min(chance.lognormvariate(math.log(7200.0 if is_notebook else 3600.0), 0.9), DAY_S / 2)
        gpus = 1 if is_notebook and chance.random() < 1 / 3 else 0
        return TraceJob(
            job_id="",
            submit_s=0.0,
            duration_s=float(max(60, round(took))),
            gpus=gpus,
            cpu=4000 if is_notebook else 8000,
            memory=2**34,
            owner=owner,
            name=NOTEBOOK if is_notebook else "spark-default",
            kind=NOTEBOOK if is_notebook else SPARK,
        )

    def _arrival(self) -> float:
        """As a part of the whole time."""
        chance, shape = self.chance, self.shape
        at = chance.random()
        if chance.random() >= shape.in_bursts:
            return at
        return min(1.0, max(0.0, round(at * shape.bursts) / shape.bursts + chance.gauss(0.0, BURST_WIDTH)))
