"""A pod's token at the real master of its gang: it opens what is the pod's own, and nothing of any other."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.clusters import GANG_KEY, growth, plan, watching
from tests.integration.local.control_plane import ControlPlane
from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan
from tuttilab.sidecar.protocol import ORDERS_PATH, REPORT_PATH, pod_token

OWN = pod_token(GANG_KEY, 1, "job-1-1")
SIGNATURE, _, WHO = OWN.partition(".")
STRANGERS: dict[str, Mapping[bytes, bytes]] = {
    "none": {},
    **{
        name: {b"Authorization": said.encode("latin-1")}
        for name, said in {
            "empty": "Bearer",
            "other scheme": f"Basic {OWN}",
            "other attempt or other job": f"Bearer {pod_token('another key', 1, 'job-1-1')}",
            "the key itself": f"Bearer {GANG_KEY}",
            "the signature alone": f"Bearer {SIGNATURE}",
            "the signature, another rank": f"Bearer {SIGNATURE}.0.job-1-1",
            "the signature, another pod": f"Bearer {SIGNATURE}.1.job-1-0",
            "no signature": f"Bearer .{WHO}",
            "letters of any kind": "Bearer gr\xfcn.1.job-1-1",
        }.items()
    },
}


def plan_of(folder: Path, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "pods" / "job" / "1" / pod / "plan.json").read_text())
    return found


def told(pod: str, rank: int, *, seq: int = 1000, is_alive: bool = False) -> dict[str, object]:
    state = {"phase": "Running", "exit_code": None} if is_alive else {"phase": "Ended", "exit_code": 9}
    member = {"pod": pod, "rank": rank, "uid": "u", "reason": "", "endpoints": {}, "outputs": {}} | state
    return {"job_id": "job", "attempt": 1, "epoch": 1, "seq": seq, "members": [member]}


@pytest.fixture
async def gang(cluster: Cluster, control_plane: ControlPlane) -> AsyncIterator[LaunchPlan]:
    """Of two members, which run until the test is over; nothing that was tried has ended one or reached the control plane."""
    launch = plan("job", "sleep", "300", members=2, report_url=control_plane.url)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.phase("Running", "job-1-0", "job-1-1", "job-1-master")
        yield launch
        assert {name: str(pod.phase) for name, pod in seen.pods.items() if not name.endswith("-g1")} == dict.fromkeys(
            ("job-1-0", "job-1-1", "job-1-master"), "Running"
        )
        assert [set(control_plane.phases(pod)) & {"Ended"} for pod in ("job-1-0", "job-1-1")] == [set(), set()]
        assert control_plane.tokens == {f"Bearer {launch.pods[0].token}"}
        await cluster.stop("job", 1, 5.0)
        await seen.ended("job-1-0", "job-1-1", "job-1-master")


@pytest.fixture
async def master(gang: LaunchPlan, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    url = f"http://{plan_of(tmp_path, 'job-1-master')['listens_at']}"
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=15) as client:
        yield client


async def test_no_strangers_token_opens_any_route_of_a_master(master: httpx.AsyncClient) -> None:
    told_of_own = told("job-1-1", 1, is_alive=True)
    answers = {
        (name, path): answer.status_code
        for name, headers in STRANGERS.items()
        for path in (REPORT_PATH, ORDERS_PATH, "/")
        for answer in (
            await master.post(path, json=told_of_own, headers=headers),
            await master.get(f"{path}?known=0", headers=headers),
        )
    }

    assert {key: status for key, status in answers.items() if status != 401} == {}


@pytest.mark.parametrize(
    ("pod", "rank"), [("job-1-0", 0), ("job-1-1", 0), ("job-1-0", 1), ("job-1-master", -1), ("job-1-0-g1", 0), ("other-1-1", 1)]
)
async def test_a_member_reports_of_nobody_else(master: httpx.AsyncClient, pod: str, rank: int) -> None:
    answer = await master.post(REPORT_PATH, json=told(pod, rank), headers={"Authorization": f"Bearer {OWN}"})

    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("rank 1 may report of itself only, not of ")


async def test_a_member_that_joined_does_not_take_the_place_of_another(master: httpx.AsyncClient) -> None:
    joined = {"Authorization": f"Bearer {pod_token(GANG_KEY, 2, 'job-1-2-g1')}"}

    places = [await master.post(REPORT_PATH, json=told("job-1-2-g1", rank, is_alive=True), headers=joined) for rank in (0, 1)]

    assert [answer.status_code for answer in places] == [403, 403]


async def test_a_member_s_own_token_opens_what_it_needs(master: httpx.AsyncClient) -> None:
    headers = {"Authorization": f"Bearer {OWN}"}
    orders = {"version": 1, "open": True, "stop": None}

    # An older number than its side-car has sent: heard, and nothing changes.
    assert (await master.post(REPORT_PATH, json=told("job-1-1", 1, seq=1), headers=headers)).json() == orders
    assert (await master.get(f"{ORDERS_PATH}?known=0", headers=headers)).json() == orders


async def test_only_the_master_has_the_key(gang: LaunchPlan, cluster: Cluster, tmp_path: Path) -> None:
    more = growth(gang, 2)
    async with watching(cluster) as seen:
        await cluster.launch(more)
        await seen.phase("Running", "job-1-2-g1")
        plans = {pod.name: plan_of(tmp_path, pod.name) for pod in more.pods}
        await cluster.stop("job", 1, 5.0, ["job-1-2-g1"])
        await seen.ended("job-1-2-g1")

    assert {name: plan["gang_key"] for name, plan in plans.items()} == dict.fromkeys(plans, None) | {"job-1-master": GANG_KEY}
    assert len({plan["token"] for plan in plans.values()}) == 4
    assert [name for name, plan in plans.items() if GANG_KEY in json.dumps(plan)] == ["job-1-master"]
