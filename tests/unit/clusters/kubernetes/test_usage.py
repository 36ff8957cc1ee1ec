"""What is kept of the metrics API's numbers, and what is said where there are none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tuttilab.scheduler.clusters.kept.usage import read_usage
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.states import unix_time
from tuttilab.scheduler.clusters.kubernetes.usage import Measuring, Series
from tuttilab.scheduler.domain.errors import ClusterUnreachable
from tuttilab.sidecar import records

BEGAN = "2026-11-30T05:00:00Z"


def metrics(at: str, cpu: str, memory: str, name: str = "p") -> dict[str, Any]:
    used = [{"name": "sidecar", "usage": {"cpu": "1", "memory": "1Gi"}}, {"name": "main", "usage": {"cpu": cpu, "memory": memory}}]
    return {"metadata": {"name": name, "namespace": "ml"}, "timestamp": at, "window": "15s", "containers": used}


class Answers:
    """In place of the API server: one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.paths: list[str] = []

    async def call(self, method: str, path: str, *, query: Any) -> Any:
        self.paths.append(f"{method} {path}?{query['labelSelector']}")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"items": answer}


def measuring(tmp_path: Path, *answers: Any) -> tuple[Measuring, Answers]:
    api = Answers(*answers)
    running = {("ml", "p"): (tmp_path, unix_time(BEGAN))}
    return Measuring(api, "k", "ours=1", lambda: running), api  # type: ignore[arg-type]


async def test_the_users_container_is_kept_and_nothing_else(tmp_path: Path) -> None:
    first = metrics("2026-11-30T05:00:15Z", "500m", "100Mi")
    one, api = measuring(tmp_path, [first], [first], [metrics("2026-11-30T05:00:30Z", "1500000000n", "80Mi")])

    for _ in range(3):
        await one.measure()

    found = read_usage(tmp_path)
    assert found is not None
    assert found.points == ((15.0, 0.5, 100 * 2**20), (30.0, 1.5, 80 * 2**20))
    assert (found.started_at, found.cpu_s, found.peak_bytes) == (unix_time(BEGAN), 30.0, 100 * 2**20)
    assert set(api.paths) == {"GET /apis/metrics.k8s.io/v1beta1/namespaces/ml/pods?ours=1"}


async def test_a_control_plane_that_was_restarted_goes_on(tmp_path: Path) -> None:
    before, _ = measuring(tmp_path, [metrics("2026-11-30T05:00:15Z", "1", "1Gi")])
    await before.measure()
    after, _ = measuring(tmp_path, [metrics("2026-11-30T05:00:30Z", "1", "1Mi"), metrics("2026-11-30T05:00:30Z", "1", "1Mi", "x")])

    await after.measure()

    found = read_usage(tmp_path)
    assert found is not None
    assert [at for at, _, _ in found.points] == [15.0, 30.0]
    assert (found.cpu_s, found.peak_bytes) == (30.0, 2**30)


@pytest.mark.parametrize("refusal", [ApiError(403, "Forbidden", "no"), ApiError(404, "NotFound", "no"), ApiError(503, "", "no")])
async def test_without_the_right_or_the_server_it_is_said_once(
    tmp_path: Path, refusal: ApiError, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = measuring(tmp_path, refusal, refusal, [metrics("2026-11-30T05:00:15Z", "1", "1Mi")])
    with caplog.at_level(logging.WARNING):
        await one.measure()
        await one.measure()
    assert one.is_refused
    (line,) = caplog.messages
    assert line.startswith("cluster k: what pods use is not shown: the account may not get pods of metrics.k8s.io")

    await one.measure()

    assert not one.is_refused
    assert read_usage(tmp_path) is not None


async def test_an_outage_is_no_refusal(tmp_path: Path) -> None:
    one, _ = measuring(tmp_path, ClusterUnreachable("away"))
    await one.measure()
    assert not one.is_refused


def test_a_series_stays_bounded_and_keeps_its_sums(tmp_path: Path) -> None:
    series = Series(0.0)
    for number in range(1, 2000):
        assert series.add(15.0 * number, 0.5, number)
    record = series.record
    assert len(record["points"]) < records.USAGE_POINTS
    assert record["peak_bytes"] == 1999
    assert record["cpu_s"] == pytest.approx(0.5 * 15 * 1999)
    assert not series.add(15.0, 1.0, 1)
