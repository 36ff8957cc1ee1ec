"""CPU and memory of a pod over time, for people: a bounded series of points in the pod's folder, however long the pod runs.

The record ``usage/points.json`` is::

    {"started_at": 1.8e9, "points": [[12.0, 1.93, 812646400], ...], "cpu_s": 23.1, "peak_bytes": 812646400}

A point is the seconds since the start of the main command, the mean number of cores since the point before, and the most bytes seen
since then. A point a second at first; at `USAGE_POINTS` points two become one and the interval doubles.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from tuttilab.sidecar import processes, records
from tuttilab.sidecar.accounts import Account

INTERVAL_S = 1.0
WRITE_S = 2.0
"""Shortest time between two writes of the record."""
EXACT_SHARE = 0.01
"""Share of the time that exact measurements of shared memory may take: they are slow for large processes."""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Point = tuple[float, float, int]


class Usage:
    """Takes a sample at each call of `sample`, which belongs to one thread."""

    def __init__(self, pod_dir: str, owner: Account | None = None) -> None:
        self._owner = owner
        self._path = f"{pod_dir}/{records.USAGE}"
        self._points: list[Point] = []
        self._interval_s = INTERVAL_S
        self._started_at = time.time()
        self._begun = time.monotonic()
        self._cpu_before = _reaped_cpu_s()
        self._cpu_s = 0.0
        """Of all processes of the pod since the start; never falls."""
        self._at, self._cpu_at = 0.0, 0.0
        """Time and CPU seconds of the last point."""
        self._most = 0
        """Bytes, since the last point."""
        self._peak = 0
        self._shared = 1.0
        """Exact bytes as a share of the counted ones, as of the last exact measurement."""
        self._exact_after = 0.0
        self._written_at = 0.0

    def sample(self, pids: Sequence[int], *, is_last: bool = False) -> None:
        """``pids``: every process of the pod. ``is_last``: the main command has ended."""
        now = time.monotonic() - self._begun
        self._cpu_s = max(self._cpu_s, _reaped_cpu_s() - self._cpu_before + sum(map(_cpu_s, pids)))
        self._most = max(self._most, self._bytes(pids, now))
        self._peak = max(self._peak, self._most)
        if is_last:
            self._peak = max(self._peak, _largest_ended())
            if not any(size for _, _, size in self._points):
                # It ended before a sample saw it: what the kernel counted is all that is known of it.
                self._most = self._peak
        # A little early is in time: the calls come about once in an interval.
        if now - self._at >= self._interval_s * 0.9 or (is_last and now > self._at):
            self._add(now)
        if is_last or now - self._written_at >= WRITE_S:
            self._written_at = now
            self._write()

    def _add(self, now: float) -> None:
        cores = (self._cpu_s - self._cpu_at) / (now - self._at)
        self._points.append((round(now, 2), round(cores, 3), self._most))
        self._at, self._cpu_at, self._most = now, self._cpu_s, 0
        if len(self._points) >= records.USAGE_POINTS:
            self._points = thinned(self._points)
            self._interval_s *= 2

    def _bytes(self, pids: Sequence[int], now: float) -> int:
        counted = processes.resident_bytes(pids)
        if len(pids) < 2 or counted == 0:
            return counted
        if now >= self._exact_after:
            begun = time.monotonic()
            self._shared = min(1.0, processes.proportional_bytes(pids, self._owner) / counted)
            self._exact_after = now + (time.monotonic() - begun) / EXACT_SHARE
        return int(counted * self._shared)

    def _write(self) -> None:
        record = {"started_at": self._started_at, "points": self._points, "cpu_s": round(self._cpu_s, 3), "peak_bytes": self._peak}
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            records.write(self._path, record, is_durable=False)
        except OSError:
            pass  # a full disk, or the job put something else there: the job matters more than its curve


def thinned(points: Sequence[Point]) -> list[Point]:
    """Two neighbours as one: the mean of the cores by their times, the larger bytes. An odd last point stays."""
    found: list[Point] = []
    before = 0.0
    for index in range(0, len(points) - 1, 2):
        (first_at, first_cores, first_bytes), (at, cores, size) = points[index], points[index + 1]
        mean = (first_cores * (first_at - before) + cores * (at - first_at)) / max(at - before, 1e-9)
        found.append((at, round(mean, 3), max(first_bytes, size)))
        before = at
    return found + list(points[len(found) * 2 :])


def _cpu_s(pid: int) -> float:
    """CPU seconds of the process and of those children of its own that it has waited for; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
        return sum(map(int, stat[stat.rindex(b")") + 2 :].split()[11:15])) * TICK_S
    except (OSError, ValueError):
        return 0.0


def _reaped_cpu_s() -> float:
    """CPU seconds of the processes that this one has waited for, with theirs."""
    times = os.times()
    return times.children_user + times.children_system


def _largest_ended() -> int:
    """The most bytes that one process which was waited for had resident: all there is of a job that ended before a sample."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
