"""Prefilters the next gangs of a line together, where many unlike gangs wait and most would be tried in vain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tuttilab.scheduler.core.candidates import Candidate
from tuttilab.scheduler.core.placement.fit import Counts, Misfit
from tuttilab.scheduler.core.placement.prefilter import FIRST_BATCH, MAX_BATCH, MIN_SHAPES, Prefilter
from tuttilab.scheduler.core.placement.room import Room
from tuttilab.scheduler.core.placement.shapes import Shape
from tuttilab.scheduler.domain.model import Cluster


@dataclass(slots=True)
class Lookahead:
    room: Room
    shape_count: int
    """Shapes in this cycle: with few of them nothing is prefiltered."""
    _prefilters: dict[str, Prefilter] = field(default_factory=dict)
    """By cluster."""
    _evaluated: dict[Shape, int] = field(default_factory=dict)
    """How many gangs the cycle had admitted when the shape was prefiltered last."""
    _size: int = 0
    """How many gangs of a line are prefiltered next; none before one was tried in vain."""

    def evaluate(self, line: Sequence[Candidate], place: int, admitted: int) -> None:
        """Prefilter the gangs from ``place`` on, unless that one was since the last of ``admitted`` gangs; the next time more."""
        if not self._size or self._evaluated.get(line[place].shape, -1) >= admitted:
            return
        candidates = line[place : place + self._size]
        self._size = min(2 * self._size, MAX_BATCH)
        by_cluster: dict[str, list[Shape]] = {}
        for shape in dict.fromkeys(candidate.shape for candidate in candidates):
            self._evaluated[shape] = admitted
            for cluster in shape.clusters:
                by_cluster.setdefault(cluster.name, []).append(shape)
        for name, shapes in by_cluster.items():
            prefilter = self._prefilters.get(name)
            if prefilter is None:
                prefilter = self._prefilters[name] = Prefilter(self.room.node_arrays[name])
            prefilter.evaluate(shapes, self.room.free[name])

    def start(self) -> None:
        """Prefilter from now on, after a gang was tried in vain."""
        if not self._size and self.shape_count >= MIN_SHAPES:
            self._size = FIRST_BATCH

    def stop(self) -> None:
        """Try each gang by itself again, after one was admitted: more may be."""
        self._size = 0

    def misfit(self, shape: Shape, cluster: Cluster, counts: Counts | None, explains: bool) -> Misfit | None:
        """Why a prefiltered gang does not fit; with ``explains``, `record_closest_nodes` adds which node came closest."""
        prefilter = self._prefilters.get(cluster.name)
        return None if prefilter is None else prefilter.misfit(shape, counts, self.room.free[cluster.name], explains)

    def record_closest_nodes(self, cluster: str | None = None) -> None:
        """Complete the misfits given so far, of one cluster or of all. Call it before room changes."""
        for name in self._prefilters if cluster is None else self._prefilters.keys() & {cluster}:
            self._prefilters[name].record_closest_nodes(self.room.free[name])
