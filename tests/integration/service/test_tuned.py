"""A decision rule that is tuned while a service runs: from the next cycle on, through restarts and reloads, told and journaled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import node
from tests.integration.service.test_retention import found_wrong
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.config.model import Config
from tuttilab.scheduler.core.rows.tuning import tuning_of, values_of
from tuttilab.scheduler.core.rules import EndEstimate
from tuttilab.scheduler.domain.errors import BadInput, Conflict, Unavailable
from tuttilab.scheduler.server.nightly import AUTHOR, tune_nightly, tune_once
from tuttilab.scheduler.service.clock import World
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.service.reload import reload
from tuttilab.scheduler.simulation.tune import Proposal
from tuttilab.scheduler.store.sql import SqlStore
from tuttilab.scheduler.usecases.policy import tune

NODES = (node("a", cpus=4),)
CLUSTERS = [{"name": "here", "kind": "fake", "nodes": [{"name": "a", "cpus": 4, "memory": "64Gi"}]}]
NIGHTLY = {"every": "0 3 * * *", "bounds": {"overtaking": [0.1, 0.3]}}
BETTER = Proposal("it is better", (("overtaking", 0.3),), ())


def config_of(folder: Path, **data: Any) -> Config:
    return parse_config({"clusters": CLUSTERS, **data}, folder, "test")


@asynccontextmanager
async def life(folder: Path, world: World | None = None, **data: Any) -> AsyncIterator[Service]:
    folder.mkdir(exist_ok=True)
    config = config_of(folder, **data)
    service = Service(config, SqlStore(config.store.url), {"here": FakeCluster("here", NODES)}, state_dir=folder, world=world)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def in_force(service: Service) -> dict[str, float | str | bool]:
    return values_of(tuning_of(service.state.queues.values()))


async def test_what_was_tuned_holds_from_the_next_cycle_on_through_reloads_and_restarts(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with life(folder) as service:
        view = await tune(service, {"end_estimate": "probabilistic", "overtaking": 0.3}, "op", "better")
        assert view.text == "end_estimate probabilistic (built in corrected), overtaking 0.3 (built in 0.15)"
        assert service.state.snapshot().rules.end_estimate is EndEstimate.PROBABILISTIC
        assert (await reload(service, config_of(folder), by="op")).changes == ()
        seq = service.last_seq
        assert (await tune(service, {"end_estimate": "probabilistic", "overtaking": 0.3}, "ann")).by == "op"
        assert service.last_seq == seq, "what is in force is not journaled again"
    async with life(folder) as service:
        assert in_force(service) == {"end_estimate": "probabilistic", "overtaking": 0.3}
        assert service.state.snapshot().rules.end_estimate is EndEstimate.PROBABILISTIC
        fixed = config_of(folder, policy={"overtaking": 0.2}, tune={"days": 7})
        assert (await reload(service, fixed, by="ann")).changes == (
            "queue root: overtaking 0.3 -> 0.2, tuning end_estimate probabilistic (built in corrected), overtaking 0.3 (built in "
            "0.15) -> end_estimate probabilistic (built in corrected), overtaking 0.2 (built in 0.15)",
            "queue default: overtaking 0.3 -> 0.2",
            "tune changed, for the next run",
        )
        with pytest.raises(Conflict, match=r"the configuration says policy\.overtaking 0\.2"):
            await tune(service, {"overtaking": 0.3}, "op")
        with pytest.raises(BadInput, match="there is no parameter 'gone'"):
            await tune(service, {"gone": 1}, "op")
    async with life(folder, policy={"overtaking": 0.2}) as service:
        assert in_force(service) == {"end_estimate": "probabilistic", "overtaking": 0.2}
        assert (await tune(service, {}, "op", "reset")).text == "overtaking 0.2 (built in 0.15)"
        assert await found_wrong(service) == []
    async with life(folder) as service:
        assert in_force(service) == {}
        assert await found_wrong(service) == []


@dataclass
class Night:
    """A clock that only sleepers move, and the runs that were asked for."""

    now: float
    asked: list[float] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[Proposal | Exception] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def propose(self, service: Service) -> Proposal:
        self.asked.append(self.now)
        if not self.answers:
            self.over.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_night_tunes_at_its_time_and_one_that_fails_changes_nothing(tmp_path: Path) -> None:
    begin = 1_800_000_000.0  # 2027-01-15 08:00 UTC
    night = Night(begin, answers=[BETTER, Unavailable("The replays failed: no disk"), ValueError("bug")])
    world = World(wall=lambda: night.now, monotonic=lambda: night.now)
    async with life(tmp_path / "state", world, tune=NIGHTLY) as service:
        running = asyncio.create_task(tune_nightly(service, night.propose, night.sleep))
        async with asyncio.timeout(30):
            await night.over.wait()
        running.cancel()
        first = begin + 19 * 3600
        assert [round(at - first) // 86400 for at in night.asked] == [0, 1, 2, 3]
        assert all(0 <= (at - first) % 86400 < 30 for at in night.asked)
        tuning = tuning_of(service.state.queues.values())
        assert tuning is not None
        assert (tuning.tuned, tuning.by, tuning.why) == ((("overtaking", 0.3),), AUTHOR, "it is better")


async def test_a_night_sets_nothing_beyond_its_bounds_and_nothing_over_what_others_set_meanwhile(tmp_path: Path) -> None:
    async with life(tmp_path / "state", tune=NIGHTLY) as service:

        async def proposed(found: Proposal) -> str:
            async def propose(service: Service) -> Proposal:
                return found

            return await tune_once(service, propose)

        assert (
            await proposed(replace(BETTER, values=(("overtaking", 0.5),)))
            == "overtaking 0.5 is outside of tune.bounds and is not set"
        )
        assert "is outside of" in await proposed(replace(BETTER, values=(("order", "submission"),)))
        assert await proposed(replace(BETTER, values=None, text="nothing")) == "nothing"
        assert "somebody set other parameters" in await proposed(replace(BETTER, now=(("order", "submission"),)))
        assert in_force(service) == {}
        assert await proposed(BETTER) == "in force is overtaking 0.3 (built in 0.15), as it is better"
