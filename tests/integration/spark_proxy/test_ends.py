"""A session that ends under a cell: the cell's calls end when the control plane knows it, whatever the session's server does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest

from tests.integration.spark_proxy.conftest import Sessions
from tuttilab.magics.shared.connection import disconnect
from tuttilab.magics.spark.connect import Gate, open_session
from tuttilab.magics.spark.ends import EndWatch
from tuttilab.magics.spark.errors import SessionGone, is_of_connection
from tuttilab.magics.spark.provider import RestProvider
from tuttilab.magics.spark.session import SparkEndpoint
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.clusters.base import LaunchPlan, PodPlan
from tuttilab.scheduler.clusters.fake import _FakePod
from tuttilab.scheduler.domain.errors import NotFound
from tuttilab.scheduler.domain.requests import SparkRequest

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]


@pytest.fixture
async def ann(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setenv("TUTTILAB_URL", sessions.site.url)
    monkeypatch.setenv("TUTTILAB_TOKEN", "of-ann")
    disconnect()
    async with AsyncClient(sessions.site.url, "of-ann") as client:
        yield client
    disconnect()


@pytest.mark.parametrize("how", ["lost", "stopped"])
async def test_a_running_query_ends_when_its_session_is_gone_although_the_server_answers(
    sessions: Sessions, ann: AsyncClient, how: str
) -> None:
    job_id, connect = await sessions.session("of-ann")
    host, _, port = sessions.target.rpartition(":")
    endpoint = SparkEndpoint(host, int(port), "", job_id, "default", lambda: "of-ann")
    gate = Gate()
    spark = open_session(endpoint, gate=gate)
    watch = EndWatch(endpoint, RestProvider(), gate.shut)
    query = asyncio.create_task(asyncio.to_thread(spark.range(1).collect))
    await asyncio.wait_for(connect.begun.acquire(), 120)
    watch.begin()
    await asyncio.sleep(2)  # the watch has asked more than once
    assert (query.done(), watch.has_ended) == (False, False)

    if how == "lost":
        attempt = sessions.site.service.state.live_attempt(job_id)
        assert attempt is not None
        sessions.site.cluster.lose(attempt.members[0].name)
    else:
        await ann.spark_stop("default")

    with pytest.raises(Exception) as caught:
        await asyncio.wait_for(query, 120)
    assert is_of_connection(caught.value), repr(caught.value)
    # Nobody but the watch has ended it: the server would go on.
    assert (watch.has_ended, connect.release.is_set()) == (True, False)
    with pytest.raises(SessionGone):
        await asyncio.to_thread(spark.range(1).collect)
    await asyncio.to_thread(spark.client.close)


async def test_a_control_plane_that_is_away_is_no_end(sessions: Sessions, ann: AsyncClient) -> None:
    job_id, _ = await sessions.session("of-ann")
    host, _, port = sessions.target.rpartition(":")
    endpoint = SparkEndpoint(host, int(port), "", job_id, "default", lambda: "of-ann")
    ended: list[str] = []
    watch = EndWatch(endpoint, RestProvider(), lambda: ended.append(job_id))
    watch.begin()
    await asyncio.sleep(1)
    await sessions.site.stop()
    await asyncio.sleep(3)
    assert (watch.has_ended, ended) == (False, [])
    watch.finish()
    # Served again for the fixture's end; whether the session is still there is nobody's question any more.
    await sessions.site.start()
    await asyncio.sleep(1)
    assert ended == []


async def test_a_session_on_its_way_out_does_not_hold_its_name(sessions: Sessions, ann: AsyncClient) -> None:
    """Its driver has failed, and an executor takes its time to end."""
    cluster = sessions.site.cluster
    create = type(cluster)._create

    def slow_to_end(plan: LaunchPlan, pod: PodPlan) -> _FakePod:
        made = create(cluster, plan, pod)
        if not made.is_master:
            offer = [("offer", "connect", "127.0.0.1:1")] if pod.rank == 0 else []
            made.steps = deque([*offer, ("sleep", "1000000")])
            made.is_stubborn = pod.rank != 0
        return made

    cluster._create = slow_to_end  # type: ignore[method-assign]  # as in conftest
    first = await ann.spark_start(SparkRequest(executors=1, executor_memory="512m", cpus=1, memory="1Gi"))
    while not (await ann.spark_sessions())[0].is_ready:  # noqa: ASYNC110  as elsewhere
        await asyncio.sleep(0.02)
    attempt = sessions.site.service.state.live_attempt(first.job_id)
    assert attempt is not None
    cluster._pods[first.job_id, 1][attempt.members[0].name].end(1, "Error")
    cluster.tick()
    while (await ann.job(first.job_id)).reason != "MemberFailed":  # noqa: ASYNC110  as above
        await asyncio.sleep(0.02)

    with pytest.raises(NotFound, match="There is no Spark session 'default'"):
        await ann.spark_endpoint("default")
    again = await ann.spark_start(SparkRequest(cpus=1, memory="1Gi"))

    assert again.job_id != first.job_id
    assert not (await ann.job(first.job_id)).is_ended
