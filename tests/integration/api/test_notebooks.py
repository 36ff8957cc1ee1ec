"""Notebook servers and profiles over HTTP, with the real service and store: requests of the hub, of users, and many at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import Site, served
from tests.integration.api.conftest import Tokens as Users
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.errors import AboveMax, BadInput, Forbidden, NotFound
from tuttilab.scheduler.domain.requests import JobRequest, NotebookRequest, PodRequest, ProfileRequest, RenewRequest, Who
from tuttilab.scheduler.domain.wire import NotebookView

USERS = {
    "hub": Who("tuttilab", is_admin=True, is_hub=True),
    "ann": Who("ann", ("quant",)),
    "zoe": Who("zoe"),
    "root": Who("root", ("admins",), is_admin=True),
}
RUNNING, WAITING = RenewRequest(phase="running"), RenewRequest(phase="waiting")
ENDED = RenewRequest(phase="ended", exit_code=0)


@pytest.fixture
async def hub_site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path, Users(USERS))) as site:
        async with client(site, "root") as root:
            await root.apply_profile(ProfileRequest(name="gpu", groups=("quant",), queue="quant", gpus=1, preemptible=True))
        yield site


def client(site: Site, name: str) -> AsyncClient:
    return AsyncClient(site.url, name)


def server(owner: str = "ann", **given: Any) -> NotebookRequest:
    return NotebookRequest(**{"owner": owner, "groups": ("quant",), **given})


async def seen(hub: AsyncClient, asked: NotebookRequest) -> NotebookView:
    """The server after the next cycle: admitted, or with its place in the queue."""
    view = await hub.notebook(asked)
    async with asyncio.timeout(60):
        while not view.is_admitted and view.place is None:
            await asyncio.sleep(0.01)
            view = await hub.renew(view.job.id, WAITING)
    return view


async def test_server_is_admitted_renewed_and_ended(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub:
        view = await seen(hub, server())
        assert (view.is_admitted, view.is_wanted, view.node, view.profile.name) == (True, True, "a", "gpu")
        assert view.expires_at is not None

        view = await hub.renew(view.job.id, RUNNING)
        assert (view.job.phase, view.expires_at) == ("Running", None)

        view = await hub.renew(view.job.id, ENDED)
        assert (view.job.phase, view.is_wanted, view.is_admitted) == ("Succeeded", False, False)
        assert (await hub.renew(view.job.id, RUNNING)).is_wanted is False


async def test_an_answer_waits_for_room_and_comes_when_there_is_some(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub:
        first, second = [await hub.notebook(server(name), wait_s=10.0) for name in ("amy", "bob")]
        assert (first.is_admitted, second.is_admitted) == (True, True)

        third = await hub.notebook(server("cat"), wait_s=0.2)
        assert (third.is_admitted, third.is_wanted) == (False, True)
        asked = asyncio.create_task(hub.renew(third.job.id, WAITING, wait_s=10.0))
        await asyncio.sleep(0.2)
        assert not asked.done()
        await hub.renew(first.job.id, ENDED)
        assert (await asked).is_admitted

        fourth = await hub.notebook(server("dan"), wait_s=0.1)
        asked = asyncio.create_task(hub.renew(fourth.job.id, WAITING, wait_s=10.0))
        await hub.renew(fourth.job.id, ENDED)
        assert not (await asked).is_wanted


async def test_owner_may_cancel_the_server_and_the_hub_learns_of_it(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub, client(hub_site, "ann") as ann:
        view = await seen(hub, server())
        await hub.renew(view.job.id, RUNNING)
        assert [job.kind for job in (await ann.jobs()).jobs] == ["notebook"]

        assert (await ann.cancel(view.job.id)).phase == "Stopping"

        told = await hub.renew(view.job.id, RUNNING)
        assert (told.is_wanted, told.is_admitted) == (False, False)
        assert (await hub.renew(view.job.id, ENDED)).job.phase == "Cancelled"


@pytest.mark.feature("B01")
async def test_many_servers_and_jobs_at_once_never_exceed_the_room(hub_site: Site) -> None:
    """The nodes have two GPUs; forty servers and ten jobs want one each, and release it at once."""
    running: set[str] = set()
    most = 0

    async def one(hub: AsyncClient, number: int) -> None:
        nonlocal most
        view = await hub.notebook(server(f"user{number}"), wait_s=10.0)
        while not view.is_admitted:
            view = await hub.renew(view.job.id, WAITING, wait_s=10.0)
        running.add(view.job.id)
        most = max(most, len(running))
        await hub.renew(view.job.id, RUNNING)
        hub_site.service.state.check_invariants()
        await asyncio.sleep(0)
        running.discard(view.job.id)
        await hub.renew(view.job.id, ENDED)

    async with client(hub_site, "hub") as hub, client(hub_site, "root") as root:
        request = JobRequest(name="job", queue="quant", pods=(PodRequest(gpus=1),), command=("sleep", "0.05"))
        jobs = [root.submit(request) for _ in range(10)]
        await asyncio.gather(*(one(hub, number) for number in range(40)), *jobs)

    assert 1 <= most <= 2
    assert sum(job.kind == "notebook" and job.phase == "Succeeded" for job in hub_site.service.state.jobs.values()) == 40


async def test_refusals_say_why_and_leave_nothing(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub:
        for asked, error in [
            (server(profile="unknown"), Forbidden),
            (server(groups=()), Forbidden),
            (server(image="x"), BadInput),
            (server(cluster="nowhere"), BadInput),
        ]:
            with pytest.raises(error):
                await hub.notebook(asked)
        with pytest.raises(NotFound, match="no notebook server"):
            await hub.renew("unknown", RUNNING)
        with pytest.raises(BadInput, match="phase: 'sleeping' is not known"):
            await hub.renew("unknown", RenewRequest(phase="sleeping"))
    assert list(hub_site.service.state.jobs) == []


@pytest.mark.feature("N22")
async def test_a_hundred_servers_at_once_have_ports_of_their_own_which_are_free_once_they_stop(hub_site: Site) -> None:
    """The site has 200 ports, and each of the servers asks for two."""
    async with client(hub_site, "root") as root, client(hub_site, "hub") as hub:
        await root.apply_profile(ProfileRequest(name="yarn", groups=("quant",), queue="quant", preemptible=True, driver_ports=2))
        views = await asyncio.gather(*(hub.notebook(server(f"user{number}", profile="yarn")) for number in range(100)))

        given = [port for view in views for port in view.driver_ports]
        assert {len(view.driver_ports) for view in views} == {2}
        assert sorted(given) == list(range(30100, 30300))
        with pytest.raises(AboveMax, match=r"2 asked, and 0 of the site's 200 \(30100-30299\) are free"):
            await hub.notebook(server("late", profile="yarn"))
        again = await hub.notebook(server("user7", profile="yarn"))
        assert (again.job.id, again.driver_ports) == (views[7].job.id, views[7].driver_ports), "it kept its place"

        await hub.renew(views[42].job.id, ENDED)
        assert (await hub.notebook(server("late", profile="yarn"))).driver_ports == views[42].driver_ports


async def test_ports_of_servers_survive_a_restart_and_an_adoption(hub_site: Site) -> None:
    async with client(hub_site, "root") as root, client(hub_site, "hub") as hub:
        await root.apply_profile(ProfileRequest(name="yarn", groups=("quant",), queue="quant", preemptible=True, driver_ports=8))
        first = await seen(hub, server(profile="yarn"))
        await hub.renew(first.job.id, RUNNING)
    await hub_site.stop()
    await hub_site.start()

    async with client(hub_site, "hub") as hub:
        assert (await hub.renew(first.job.id, RUNNING)).driver_ports == first.driver_ports
        adopted = await hub.notebook(server("amy", profile="yarn", is_running=True, driver_ports=(30200, 30201)))
        assert adopted.driver_ports == (30200, 30201), "its pod has them, whatever this database knows"
        others = [await hub.notebook(server(f"user{number}", profile="yarn")) for number in range(20)]
        taken = {*first.driver_ports, *adopted.driver_ports}
        assert not any(taken.intersection(view.driver_ports) for view in others)


async def test_a_profile_with_more_ports_than_a_server_may_have_is_refused(hub_site: Site) -> None:
    async with client(hub_site, "root") as root:
        with pytest.raises(BadInput, match="driver_ports: 9 given; expected 0 to 8"):
            await root.apply_profile(ProfileRequest(name="greedy", driver_ports=9))


async def test_profile_above_the_max_is_refused_and_not_stored(hub_site: Site) -> None:
    async with client(hub_site, "root") as root:
        with pytest.raises(AboveMax, match="profile 'big': asks for 9 CPU"):
            await root.apply_profile(ProfileRequest(name="big", cpus=9))
        assert [view.profile.name for view in await root.profiles()] == ["gpu"]


@pytest.mark.feature("N20")
async def test_users_see_their_profiles_and_only_admins_write(hub_site: Site) -> None:
    async with client(hub_site, "root") as root, client(hub_site, "ann") as ann, client(hub_site, "zoe") as zoe:
        await root.apply_profile(ProfileRequest(name="off", disabled=True, preemptible=True))

        assert [view.profile.name for view in await root.profiles()] == ["gpu", "off"]
        assert [view.profile.name for view in await ann.profiles()] == ["gpu"]
        assert await zoe.profiles() == []
        assert (await ann.profile("gpu")).applied_by == "root"
        for ask in (zoe.profile("gpu"), ann.profile("off"), ann.profile("unknown")):
            with pytest.raises(NotFound):
                await ask
        for refused in (
            ann.apply_profile(ProfileRequest(name="mine")),
            ann.delete_profile("gpu"),
            ann.notebook(server()),
            root.notebook(server()),
            root.profiles(owner="ann"),
        ):
            with pytest.raises(Forbidden):
                await refused

        await root.delete_profile("gpu")
        with pytest.raises(NotFound):
            await root.delete_profile("gpu")
        assert [view.profile.name for view in await root.profiles()] == ["off"]


async def test_hub_lists_the_profiles_of_a_user(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub:
        assert [view.profile.name for view in await hub.profiles(owner="x", groups=["a", "quant"])] == ["gpu"]
        assert await hub.profiles(owner="x") == []


async def test_servers_and_profiles_survive_a_restart(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub:
        running = (await seen(hub, server())).job.id
        await hub.renew(running, RUNNING)
        starting = (await seen(hub, server("amy"))).job.id
        waiting = (await seen(hub, server("abe"))).job.id
    await hub_site.stop()
    await hub_site.start()

    async with client(hub_site, "hub") as hub:
        phases = {job.id: job.phase for job in (await hub.jobs(owner="*")).jobs}
        assert phases == {running: "Running", starting: "Launching", waiting: "Queued"}
        again = await seen(hub, server("abe"))
        assert (again.job.id, again.refusal.startswith("asks for ")) == (waiting, True)
        assert [view.profile.name for view in await hub.profiles(owner="x", groups=["quant"])] == ["gpu"]
        for job_id in (waiting, starting, running):
            await hub.renew(job_id, ENDED)
        assert (await hub.jobs(owner="*")).jobs == ()


async def test_server_that_is_never_started_expires(hub_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuttilab.scheduler.service.notebook_leases.TTL_S", 0.3)
    async with client(hub_site, "hub") as hub:
        view = await hub.notebook(server())
        async with asyncio.timeout(60):
            ended = await hub.wait(view.job.id)
    assert (ended.phase, ended.reason) == ("Cancelled", "nobody waited for it any more")


async def filled(site: Site) -> dict[str, str]:
    """Two running servers that use all CPU, borrowed from the queue `research`: owner to job id."""
    async with client(site, "root") as root, client(site, "hub") as hub:
        await root.apply_profile(ProfileRequest(name="wide", groups=("quant",), queue="quant", cpus=4, preemptible=True))
        made = {owner: (await seen(hub, server(owner, profile="wide"))).job.id for owner in ("ann", "amy")}
        for job_id in made.values():
            await hub.renew(job_id, RUNNING)
    return made


async def claim(site: Site) -> str:
    """A job within the guaranteed share of `research`, after the next cycle."""
    async with client(site, "root") as root:
        job = await root.submit(JobRequest(name="claim", queue="research", pods=(PodRequest(cpus=1),), command=("true",)))
        async with asyncio.timeout(60):
            while job.wait is None or job.wait.place is None:
                await asyncio.sleep(0.01)
                job = await root.job(job.id)
    return job.id


async def stopped(site: Site, servers: dict[str, str]) -> list[str]:
    async with client(site, "hub") as hub:
        return [owner for owner, job_id in servers.items() if not (await hub.renew(job_id, RUNNING)).is_wanted]


async def silent_for(site: Site, seconds: float) -> None:
    """As if no activity had been reported for ``seconds``."""
    site.service.state.rules = replace(site.service.state.rules, idle_notebook_s=seconds)


async def test_server_with_a_running_cell_is_not_stopped_for_a_guaranteed_share(hub_site: Site) -> None:
    servers = await filled(hub_site)
    async with client(hub_site, "ann") as ann, client(hub_site, "root") as root:
        await ann.active(servers["ann"])
        await root.active(servers["amy"])
    await claim(hub_site)
    assert await stopped(hub_site, servers) == []

    async with client(hub_site, "root") as root:
        journal = [event.kind for event in await root.events(servers["ann"])]
        assert "NotebookActive" not in journal

    await silent_for(hub_site, 0.0)
    await claim(hub_site)
    assert len(await stopped(hub_site, servers)) == 1


async def test_of_two_servers_the_one_without_a_cell_is_stopped(hub_site: Site) -> None:
    servers = await filled(hub_site)
    # Neither has just started.
    await silent_for(hub_site, 3.0)
    await asyncio.sleep(3.1)
    async with client(hub_site, "ann") as ann:
        await ann.active(servers["ann"])
    await claim(hub_site)
    assert await stopped(hub_site, servers) == ["amy"]


async def test_after_a_restart_no_server_is_stopped_before_it_could_report(hub_site: Site) -> None:
    servers = await filled(hub_site)
    await hub_site.stop()
    await hub_site.start()
    await claim(hub_site)
    assert await stopped(hub_site, servers) == []

    await silent_for(hub_site, 0.0)
    await claim(hub_site)
    assert len(await stopped(hub_site, servers)) == 1


async def test_only_its_owner_and_admins_report_for_a_live_server(hub_site: Site) -> None:
    async with client(hub_site, "hub") as hub, client(hub_site, "ann") as ann, client(hub_site, "zoe") as zoe:
        job_id = (await seen(hub, server())).job.id
        await ann.active(job_id)
        for ask in (zoe.active(job_id), ann.active("unknown")):
            with pytest.raises(NotFound, match="has no notebook server"):
                await ask
        await hub.renew(job_id, ENDED)
        with pytest.raises(NotFound, match="has no notebook server"):
            await ann.active(job_id)
