"""An hour of virtual time without a control plane: what runs goes on, what ends is known afterwards, nothing is started again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.builders import request
from tests.simulation.service import virtual
from tests.simulation.service.cluster import Faults
from tests.simulation.service.world import Simulation
from tuttilab.scheduler.domain.requests import PodRequest
from tuttilab.scheduler.service.launch_plans import Secrets

AWAY_S = 3600.0
LONG, SHORT = ("run", "9000", "0"), ("run", "3000", "3")
"""Pods of the first run for 4500 s at least, of the second for 1500 s at least and 3000 s at most."""


async def away(seed: int, folder: Path) -> Simulation:
    sim = Simulation(seed, folder)
    # Members and masters lose each other's messages now and then; the control plane is what is away.
    sim.cluster.faults = Faults(loss=0.05, double=0.1, delay_s=0.05)
    sim.start()
    await asyncio.sleep(1.0)
    for number, (workers, command) in enumerate([(2, LONG), (1, LONG), (2, SHORT), (1, SHORT)]):
        pods = (PodRequest(role="worker", count=workers, cpus=1, memory="1Gi"),)
        sim.send(f"key{number}", request(pods=pods, command=command, queue="xy"[number % 2], timeout="100h", retries=2))
    await asyncio.sleep(120.0)
    before = {pod.uid for pod in sim.cluster.alive() if pod.plan.work.command == LONG}
    assert sum(pod.has_code for pod in sim.cluster.alive()) == 6
    assert sim.life is not None
    sim.life.end()
    sim.life = None

    await asyncio.sleep(AWAY_S)

    sim.raise_broken()
    assert {pod.uid for pod in sim.cluster.alive()} == before
    assert all(pod.has_code for pod in sim.cluster.alive() if not pod.pod.is_master)
    sim.start()
    await sim.rest()
    return sim


@pytest.mark.feature("J09", "S17")
@pytest.mark.parametrize("seed", range(3))
def test_an_hour_without_a_control_plane_stops_no_job_and_loses_no_end(seed: int, tmp_path: Path) -> None:
    Secrets.in_folder(tmp_path)
    sim = virtual.run(away(seed, tmp_path))

    ended = sorted((job.work.command[2], job.phase.value, job.attempts) for job in sim.oracle.jobs.values())
    # A job that failed is tried again, as it says; one that ran well is started once.
    assert ended == [("0", "Succeeded", 1)] * 2 + [("3", "Failed", 3)] * 2
