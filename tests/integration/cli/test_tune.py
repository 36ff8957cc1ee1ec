"""`tuttilab scheduler tune`, as the guide says it, on a control plane that has a past."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.past import fill, long_and_short, two_nodes
from tests.user_machine import UserMachine, eventually
from tuttilab.scheduler.cli.root import run
from tuttilab.scheduler.client import Client
from tuttilab.scheduler.domain.model import Queue
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.server.nightly import Propose, proposer
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.simulation.tune import Proposal
from tuttilab.scheduler.store.sql import SqlStore

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "tuning.md"
QUEUES = (Queue("root"), Queue("main", parent="root"))
JOBS = 240
"""Of the past, three fifths of which are enough to know run times by."""
CONFIG = """
clusters:
  - name: here
    kind: fake
    nodes:
      - {name: a, cpus: 16, memory: 64Gi, resources: {nvidia.com/gpu: 4}}
      - {name: b, cpus: 16, memory: 64Gi, resources: {nvidia.com/gpu: 4}}
queues: [{name: root}, {name: main, parent: root}]
tune: {least_jobs: 50, bounds: {order: [small-first, submission]}}
"""


async def proposal(propose: Propose, service: Service) -> Proposal:
    return await propose(service)


@pytest.mark.timeout(700)  # the nightly run has the lowest priority, and this machine other work
def test_the_guide_tunes_a_site_on_its_past(
    machine: UserMachine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands run in this process, which has loaded what they need; the control plane and its nightly run are others."""
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(machine.home)

    def said(words: str) -> str:
        capsys.readouterr()
        code = run(shlex.split(words))
        found = capsys.readouterr()
        assert code == 0, found
        return found.out

    commands = [line.removeprefix("tuttilab ") for line in re.findall(r"^tuttilab .*", GUIDE.read_text(), re.MULTILINE)]
    (machine.home / "tuttilab.yaml").write_text(CONFIG)
    asyncio.run(
        fill(SqlStore(f"sqlite:///{machine.state}/state.db"), long_and_short(JOBS), two_nodes(), QUEUES, time.time() - 90000)
    )
    assert said("up --config tuttilab.yaml")
    runtime = machine.runtime()
    pods = (PodRequest(count=2, cpus=1, memory="1Gi", gpus=4),)
    with Client(runtime.url, runtime.token) as client:
        client.set_policy({"order": "submission"}, "tried")
        waiting = [client.submit(JobRequest(name="whole", command=("sleep", "600"), pods=pods)) for _ in range(2)][1].id
        eventually(lambda: client.explain(waiting))
    assert "rule      order submission (built in small-first), since" in said(f"explain {waiting}")

    proposed, applied, policy, audit, reset = map(said, commands)
    page = (machine.home / "tuning.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert re.search(rf"^queue main +{round(0.4 * JOBS)} +now ", proposed, re.MULTILINE), proposed
    assert "the built-in rule is better: mean completion" in proposed
    assert "In force from the next decision on: the built-in rule." in applied
    assert re.search(r"order +small-first +small-first", policy), policy
    assert "the built-in rule is better" in policy
    assert "tuned the decision rule: nothing, the built-in rule holds; the built-in rule is better: mean completion" in audit
    assert "tuned the decision rule: order submission; tried" in audit
    assert "since" in reset
    assert "rule      the built-in rule, since" in said(f"explain {waiting}")
    assert said("scheduler verify --decisions")

    # What the leader runs at night.
    service = cast(Service, SimpleNamespace(config=cast(Any, SimpleNamespace(tune=SimpleNamespace(limit_s=400.0)))))
    found = asyncio.run(proposal(proposer(runtime, machine.environ), service))
    assert (found.jobs, found.now) == (JOBS, ())
