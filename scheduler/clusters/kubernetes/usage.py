"""What pods use over time, from the cluster's metrics API (`metrics.k8s.io`, of metrics-server), where it has one that we may ask.

A side-car sees nothing of the container beside it, and kubelets tell only whom they would let do much more. So the numbers are
those of `kubectl top pod`: a mean over a window of some seconds, kept as a bounded series in the pod's folder, as on one machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tuttilab.scheduler.clusters.kept.usage import read_usage
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.pods import MAIN
from tuttilab.scheduler.clusters.kubernetes.states import amount, unix_time
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.sidecar import records
from tuttilab.sidecar.usage import thinned

log = logging.getLogger(__name__)

PERIOD_S: Final = 15.0
"""How often metrics-server measures by default."""
REFUSED_PERIOD_S: Final = 300.0
PODS_A_SECOND: Final = 200.0
"""Asked for at most: with very many the period is longer."""
WHY: Final = "the account may not get pods of metrics.k8s.io, or nothing serves it there (deploy/kubernetes/metrics-roles.yaml)"


class Series:
    """Of one pod, in memory; `record` is what `local`'s side-cars write."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._points: list[tuple[float, float, int]] = []
        self._cpu_s = 0.0
        self._peak = 0

    @classmethod
    def kept_in(cls, folder: Path, started_at: float) -> Series:
        """As it was before a restart."""
        found, series = read_usage(folder), cls(started_at)
        if found is not None:
            series._started_at, series._points = found.started_at, list(found.points)
            series._cpu_s, series._peak = found.cpu_s, found.peak_bytes
        return series

    def add(self, at: float, cores: float, size: int) -> bool:
        """A measurement of Unix time ``at``. False for one that is known already."""
        seconds = round(at - self._started_at, 2)
        before = self._points[-1][0] if self._points else 0.0
        if seconds <= before:
            return False
        self._cpu_s += cores * (seconds - before)
        self._peak = max(self._peak, size)
        self._points.append((seconds, round(cores, 3), size))
        if len(self._points) >= records.USAGE_POINTS:
            self._points = thinned(self._points)
        return True

    @property
    def record(self) -> dict[str, Any]:
        points = [list(point) for point in self._points]
        return {"started_at": self._started_at, "points": points, "cpu_s": round(self._cpu_s, 3), "peak_bytes": self._peak}


Running = Mapping[tuple[str, str], tuple[Path, float]]
"""Of pods whose user code runs, by namespace and name: their folder, and when the container started."""


class Measuring:
    def __init__(self, api: Api, cluster: str, selector: str, running: Callable[[], Running]) -> None:
        self._api = api
        self._cluster = cluster
        self._selector = selector
        self._running = running
        self._series: dict[tuple[str, str], Series] = {}
        self.is_refused = False

    async def run(self) -> None:
        """For as long as the cluster is watched."""
        while True:
            running = self._running()
            rest_s = REFUSED_PERIOD_S if self.is_refused else max(PERIOD_S, len(running) / PODS_A_SECOND)
            await asyncio.sleep(rest_s)
            await self.measure()

    async def measure(self) -> None:
        """Once, all pods that run."""
        running = self._running()
        self._series = {key: series for key, series in self._series.items() if key in running}
        for namespace in sorted({namespace for namespace, _ in running}):
            path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
            try:
                found = await self._api.call("GET", path, query={"labelSelector": self._selector})
            except ClusterUnreachable:
                return
            except ApiError as error:
                if error.status in (403, 404, 503) and not self.is_refused:
                    self.is_refused = True
                    log.warning("cluster %s: what pods use is not shown: %s.", self._cluster, WHY)
                return
            self.is_refused = False
            await asyncio.to_thread(self._keep, namespace, found.get("items", []), running)

    def _keep(self, namespace: str, items: list[Any], running: Running) -> None:
        for item in items:
            key = (namespace, str(item["metadata"]["name"]))
            used = next((each["usage"] for each in item.get("containers", []) if each["name"] == MAIN), None)
            if used is None or key not in running:
                continue
            folder, started_at = running[key]
            series = self._series.setdefault(key, Series.kept_in(folder, started_at))
            at = unix_time(item["timestamp"]) if "timestamp" in item else time.time()
            if not series.add(at, float(amount(used.get("cpu", 0))), int(amount(used.get("memory", 0)))):
                continue
            try:
                (folder / records.USAGE).parent.mkdir(mode=0o700, exist_ok=True)
                records.write(str(folder / records.USAGE), series.record, is_durable=False)
            except OSError:
                continue  # a full disk, or the attempt was erased meanwhile
