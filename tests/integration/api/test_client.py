"""The real client against the real service over HTTP."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.integration.api.conftest import TOKEN, Losing, Site, Tokens, served
from tuttilab.scheduler.client import AsyncClient, Client, connect
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.errors import (
    AboveMax,
    BadInput,
    Conflict,
    EnvironmentProblem,
    Forbidden,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest, SparkRequest, Who
from tuttilab.scheduler.domain.wire import JobView

QUICK = JobRequest(name="quick", command=("print", "hello", "print", "world"))
LONG = JobRequest(name="long", command=("sleep", "600"))
BIG = replace(LONG, name="big", pods=(PodRequest(cpus=4),))


def pods(cpus: int, count: int = 1) -> tuple[PodRequest, ...]:
    return (PodRequest(cpus=cpus, count=count),)


async def until_running(client: AsyncClient, job_id: str) -> JobView:
    async with asyncio.timeout(60):
        while (job := await client.job(job_id)).phase != "Running":  # noqa: ASYNC110  the job is polled here
            await asyncio.sleep(0.02)
    return job


# --- a job's life ------------------------------------------------------------------------------------------------------


@pytest.mark.feature("J10")
async def test_job_runs_to_its_end_and_leaves_its_log(client: AsyncClient) -> None:
    accepted = await client.submit(QUICK)
    assert (accepted.name, accepted.owner, accepted.queue, accepted.kind) == ("quick", "ana", "research", "batch")
    assert accepted.charge["cpu"] == "1"

    job = await client.wait(accepted.id, timeout_s=150)

    assert (job.phase, job.exit_code, job.is_ended) == ("Succeeded", 0, True)
    assert [(a.number, a.phase, a.cluster, [p.rank for p in a.pods]) for a in job.attempts] == [(1, "Succeeded", "here", [0])]
    log = await client.logs(job.id)
    assert (log.lines, log.next, log.is_end) == (("hello", "world"), 2, True)
    assert (await client.logs(job.id, start=1)).lines == ("world",)


async def test_events_describe_each_step(client: AsyncClient) -> None:
    job = await client.wait((await client.submit(QUICK)).id, timeout_s=150)

    events = await client.events(job.id)

    kinds = [event.kind for event in events]
    assert kinds[:2] == ["JobSubmitted", "GangAdmitted"]
    assert kinds[-1] == "PodEnded"
    assert events[0].text == "submitted to queue research"
    assert events[1].text.startswith("attempt 1: 1 pods admitted to cluster here, nodes ")
    assert events[-1].text.endswith("ended, exit code 0 (Completed)")
    assert [event.seq for event in events] == sorted(event.seq for event in events)


@pytest.mark.feature("B02", "S14")
async def test_waiting_job_shows_its_cause(client: AsyncClient) -> None:
    first = await client.submit(BIG)
    await until_running(client, first.id)
    second = await client.submit(replace(BIG, name="second"))

    async with asyncio.timeout(60):
        while (wait := await client.explain(second.id)) is None:  # noqa: ASYNC110  a wait has no event
            await asyncio.sleep(0.01)
    job = await client.job(second.id)

    assert (wait.why, wait.queue, wait.place) == ("quota", "research", 1)
    assert first.id in wait.blockers or "research uses 4" in wait.sentence
    assert (job.phase, job.reason, job.wait) == ("Queued", "quota", wait)
    assert await client.explain(first.id) is None


@pytest.mark.feature("J11")
async def test_cancel_retry_delete(client: AsyncClient) -> None:
    job = await client.submit(LONG)
    await until_running(client, job.id)
    with pytest.raises(Conflict, match="cancel it first"):
        await client.delete(job.id)
    await client.cancel(job.id)
    ended = await client.wait(job.id, timeout_s=150)
    assert ended.phase == "Cancelled"

    again = await client.retry(job.id)
    assert (again.retry_of, again.name) == (job.id, "long")

    await client.delete(job.id)
    with pytest.raises(NotFound):
        await client.job(job.id)


async def test_dry_run_accepts_nothing(client: AsyncClient) -> None:
    starts = await client.dry_run(LONG)
    refused = await client.dry_run(replace(LONG, pods=pods(4, 2)))

    assert (starts.verdict, list(starts.placements)) == ("starts", ["worker-0"])
    assert starts.charge == {"cpu": "1", "memory": "1Gi"}
    assert refused.verdict == "refused"
    assert "may never use more than 6 CPU" in refused.sentence
    assert (await client.jobs(all=True)).jobs == ()


async def test_job_that_can_never_run_is_refused_at_once(client: AsyncClient) -> None:
    with pytest.raises(AboveMax, match="may never use more than 6 CPU"):
        await client.submit(replace(LONG, pods=pods(4, 2)))


# --- submitting once -----------------------------------------------------------------------------------------------------


async def test_one_idempotency_key_makes_one_job(client: AsyncClient) -> None:
    first = await client.submit(LONG, key="k1")
    second = await client.submit(LONG, key="k1")
    assert second.id == first.id

    with pytest.raises(Conflict, match="was used for another submit"):
        await client.submit(BIG, key="k1")
    assert [job.id for job in (await client.jobs()).jobs] == [first.id]


async def test_batch_is_accepted_whole_or_not_at_all(client: AsyncClient) -> None:
    jobs = await client.submit_many([replace(LONG, name=f"n{n}") for n in range(3)], keys=["a", "b", "c"])
    assert [job.name for job in jobs] == ["n0", "n1", "n2"]

    with pytest.raises(AboveMax):
        await client.submit_many([LONG, replace(LONG, pods=pods(4, 2))])

    assert len((await client.jobs(all=True)).jobs) == 3


@pytest.mark.parametrize("losses", [1, 3])
async def test_lost_response_makes_no_second_job(client: AsyncClient, losses: int) -> None:
    lossy = Losing(losses)
    lossy.carry(client)

    job = await client.submit(LONG)

    assert lossy.delivered == losses + 1
    assert [one.id for one in (await client.jobs()).jobs] == [job.id]


# --- lists ---------------------------------------------------------------------------------------------------------------


@pytest.mark.feature("J13")
async def test_jobs_by_state_text_and_page(client: AsyncClient) -> None:
    ended = await client.wait((await client.submit(QUICK)).id, timeout_s=150)
    running = await client.submit(BIG)
    await until_running(client, running.id)
    waiting = [await client.submit(replace(BIG, name=f"w{n}")) for n in range(3)]

    async def ids(**query: str | bool | int) -> list[str]:
        return [job.id for job in (await client.jobs(**query)).jobs]  # type: ignore[arg-type]  # the names are the test's

    newest_first = [job.id for job in reversed(waiting)]
    assert await ids() == [*newest_first, running.id]
    assert await ids(all=True) == [*newest_first, running.id, ended.id]
    assert await ids(state="running") == [running.id]
    assert await ids(state="Queued") == newest_first
    assert await ids(state="Succeeded") == [ended.id]
    assert await ids(text="W1") == [waiting[1].id]
    assert await ids(kind="notebook") == []
    page = await client.jobs(all=True, limit=2)
    assert ([job.id for job in page.jobs], page.next is not None) == (newest_first[:2], True)
    rest = await client.jobs(all=True, limit=3, cursor=page.next)
    assert ([job.id for job in rest.jobs], rest.next) == ([newest_first[2], running.id, ended.id], None)
    assert [a.phase for a in rest.jobs[-1].attempts] == ["Succeeded"]
    with pytest.raises(BadInput, match="did you mean Running"):
        await client.jobs(state="runing")


async def test_job_is_found_by_a_prefix_of_its_id(client: AsyncClient) -> None:
    job = await client.submit(LONG)

    assert (await client.job(job.id[:8])).id == job.id
    with pytest.raises(NotFound):
        await client.job(job.id[:2])
    with pytest.raises(NotFound):
        await client.job("../me")


async def test_queues_show_use_against_guarantee_and_max(client: AsyncClient) -> None:
    job = await client.submit(BIG)
    await until_running(client, job.id)
    await client.submit(replace(BIG, name="waits"))

    queues = {queue.name: queue for queue in await client.queues()}

    cpu = next(use for use in queues["research"].use if use.resource == "cpu")
    assert (cpu.used, cpu.guaranteed, cpu.max) == (4000, 2000, 6000)
    assert (cpu.used_text, cpu.guaranteed_text, cpu.max_text) == ("4", "2", "6")
    assert [(q.waiting, q.running, q.mine) for q in (queues["research"], queues["root"])] == [(1, 1, True), (1, 1, False)]
    assert {queue.name for queue in await client.quota()} == {"root", "research", "quant"}


async def test_clusters_and_nodes_show_what_is_used(client: AsyncClient) -> None:
    job = await client.submit(BIG)
    node = (await until_running(client, job.id)).attempts[0].pods[0].node

    (cluster,) = await client.clusters()
    nodes = {one.name: one for one in await client.nodes()}

    assert (cluster.name, cluster.kind, cluster.nodes, cluster.is_reachable) == ("here", "fake", 2, True)
    assert (cluster.allocatable["cpu"], cluster.used["cpu"]) == ("8", "4")
    assert nodes[node].used["cpu"] == "4"
    assert nodes["a"].labels == {"gpu-model": "a100"}


# --- waiting -------------------------------------------------------------------------------------------------------------


async def test_wait_reports_every_change_once(client: AsyncClient) -> None:
    seen: list[str] = []
    runs = asyncio.Event()
    job = await client.submit(LONG)

    def note(view: JobView) -> None:
        seen.append(view.phase)
        if view.phase == "Running":
            runs.set()

    waiting = asyncio.create_task(client.wait(job.id, timeout_s=150, on_change=note))
    await asyncio.wait_for(runs.wait(), 60)
    await client.cancel(job.id)
    await waiting

    assert seen[-1] == "Cancelled"
    assert seen.count("Running") == seen.count("Cancelled") == 1


async def test_wait_times_out_and_the_job_goes_on(client: AsyncClient) -> None:
    job = await client.submit(LONG)

    with pytest.raises(TimeoutError, match=r"after 0.3 s and goes on"):
        await client.wait(job.id, timeout_s=0.3)

    assert not (await client.job(job.id)).is_ended


async def test_wait_survives_a_restart_at_another_port(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.start()
    client = AsyncClient(site.url, TOKEN, rediscover=lambda: (site.url, TOKEN))
    blocker = await client.submit(replace(BIG, name="blocker"))
    job = await client.submit(replace(BIG, name="waits"))
    waiting = asyncio.create_task(client.wait(job.id, timeout_s=150))
    await asyncio.sleep(0.1)
    await site.stop()
    await asyncio.sleep(0.3)
    site.port = 0

    await site.start()
    await client.cancel(blocker.id)
    await client.cancel(job.id)

    assert (await waiting).phase == "Cancelled"
    await client.close()
    await site.stop()


async def test_changes_come_as_soon_as_there_are_some(site: Site, client: AsyncClient) -> None:
    since = site.service.last_seq
    nothing = await client.changes(since, wait_s=0.05)
    assert (nothing.seq, nothing.changes) == (since, ())
    waiting = asyncio.create_task(client.changes(since, wait_s=20))
    await asyncio.sleep(0.05)

    job = await client.submit(LONG)

    first = (await asyncio.wait_for(waiting, 20)).changes[0]
    assert (first.kind, first.key) == ("JobSubmitted", job.id)
    with pytest.raises(NotFound, match="fetch anew"):
        await client.changes(10_000)


async def test_changes_of_one_job_only(site: Site, client: AsyncClient) -> None:
    since = site.service.last_seq
    other, mine = await client.submit(LONG), await client.submit(LONG)

    found = await client.changes(since, wait_s=5, key=mine.id)

    assert {change.key for change in found.changes} == {mine.id}
    assert other.id not in {change.key for change in found.changes}


# --- artifacts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def small_limit(tmp_path: Path) -> AsyncIterator[tuple[Site, AsyncClient]]:
    async with served(Site(tmp_path, limits=Limits(bundle_bytes=2**20))) as site, AsyncClient(site.url, TOKEN) as client:
        yield site, client


@pytest.mark.parametrize("content", [b"", b"hello", os.urandom(3 * 2**20)])
async def test_artifact_round_trip(client: AsyncClient, tmp_path: Path, content: bytes) -> None:
    source, to = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(content)

    by_bytes, by_file = await client.put_artifact(content), await client.put_artifact(source)

    assert by_bytes == by_file == hashlib.sha256(content).hexdigest()
    assert await client.get_artifact(by_bytes) == content
    assert await client.get_artifact(by_bytes, to) == b""
    assert to.read_bytes() == content


async def test_artifact_is_private_on_disk_and_nothing_else_is_left(site: Site, client: AsyncClient) -> None:
    artifact_id = await client.put_artifact(b"secret")

    folder = site.service.config.artifacts_dir
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files == [folder / artifact_id[:2] / artifact_id]
    assert (files[0].stat().st_mode & 0o777, files[0].parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.feature("J06")
async def test_artifact_above_the_limit_is_refused_and_leaves_nothing(small_limit: tuple[Site, AsyncClient]) -> None:
    site, client = small_limit

    with pytest.raises(TooLarge, match="at most 1048576 are taken"):
        await client.put_artifact(os.urandom(3 * 2**20))

    assert [path for path in site.service.config.artifacts_dir.rglob("*") if path.is_file()] == []
    assert await client.put_artifact(os.urandom(2**20)) != ""


async def test_artifact_with_another_digest_is_refused(site: Site, client: AsyncClient) -> None:
    wrong = hashlib.sha256(b"other").hexdigest()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=headers, timeout=150) as http:
        answer = await http.put(f"/artifacts/{wrong}", content=b"content")
        odd = await http.put("/artifacts/..%2F..%2Fetc", content=b"")
        upper = await http.put(f"/artifacts/{'A' * 64}", content=b"")

    assert (answer.status_code, answer.json()["type"]) == (400, "bad-input")
    assert odd.status_code in (400, 404)
    assert upper.status_code == 400
    with pytest.raises(NotFound):
        await client.get_artifact(wrong)


async def test_body_without_a_declared_length_is_cut_off_at_the_limit(small_limit: tuple[Site, AsyncClient]) -> None:
    """Chunked, so that no length is declared at all."""
    site, _ = small_limit

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 2**16

    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=headers, timeout=150) as http:
        answer = await http.put(f"/artifacts/{'a' * 64}", content=endless())

    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")
    assert [path for path in site.service.config.artifacts_dir.rglob("*") if path.is_file()] == []


# --- two users -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[AsyncClient, AsyncClient]]:
    users = {"a": Who("ana", ("research",)), "b": Who("ben", ("quant",))}
    async with served(Site(tmp_path, Tokens(users))) as site:
        async with AsyncClient(site.url, "a") as ana, AsyncClient(site.url, "b") as ben:
            yield ana, ben


@pytest.mark.feature("A01")
async def test_objects_of_other_owners_are_not_visible(two: tuple[AsyncClient, AsyncClient]) -> None:
    ana, ben = two
    job = await ana.submit(LONG)
    artifact = await ana.put_artifact(b"anas")
    await ana.spark_start(SparkRequest())
    since = (await ben._changes(None)).seq

    for ask in (
        ben.job(job.id),
        ben.job(job.id[:6]),
        ben.cancel(job.id),
        ben.retry(job.id),
        ben.delete(job.id),
        ben.explain(job.id),
        ben.logs(job.id),
        ben.events(job.id),
        ben.result(job.id),
        ben.get_artifact(artifact),
        ben.spark_endpoint("default"),
        ben.spark_stop("default"),
        ben.submit(replace(LONG, queue="quant", after=(job.id,))),
    ):
        with pytest.raises(NotFound):
            await ask
    assert (await ben.jobs(all=True)).jobs == ()
    assert await ben.spark_sessions() == []
    await ana.cancel(job.id)
    await ana.wait(job.id, timeout_s=150)
    assert {change.key for change in (await ben.changes(since, 0)).changes} <= {"here", "queues"}
    with pytest.raises(Forbidden):
        await ben.jobs(owner="ana")
    with pytest.raises(Forbidden):
        await ben.jobs(owner="*")


async def test_the_same_bytes_of_two_owners_belong_to_both(two: tuple[AsyncClient, AsyncClient]) -> None:
    ana, ben = two
    artifact = await ana.put_artifact(b"same")

    assert await ben.put_artifact(b"same") == artifact

    assert (await ana.get_artifact(artifact), await ben.get_artifact(artifact)) == (b"same", b"same")


async def test_queue_of_another_group_is_not_marked_mine(two: tuple[AsyncClient, AsyncClient]) -> None:
    ana, _ = two

    assert {queue.name: queue.mine for queue in await ana.queues()} == {"root": False, "research": True, "quant": False}
    assert {queue.name for queue in await ana.quota()} == {"root", "research"}
    with pytest.raises(Forbidden):
        await ana.submit(replace(LONG, queue="quant"))


async def test_only_a_local_user_ends_the_service(two: tuple[AsyncClient, AsyncClient], client: AsyncClient) -> None:
    with pytest.raises(Forbidden):
        await two[0].shutdown(now=True)
    with pytest.raises(Conflict, match="was not started as a local one"):
        await client.shutdown(now=True)


async def test_shutdown_reaches_the_process(tmp_path: Path) -> None:
    asked: list[bool] = []
    async with served(Site(tmp_path, shut_down=asked.append)) as site, AsyncClient(site.url, TOKEN) as client:
        await client.shutdown(now=False)
        await client.shutdown(now=True)

    assert asked == [False, True]


# --- Spark sessions ------------------------------------------------------------------------------------------------------


async def test_spark_session_by_name(client: AsyncClient) -> None:
    for cpus in (4, 2):
        await until_running(client, (await client.submit(replace(LONG, pods=pods(cpus)))).id)
    first = await client.spark_start(SparkRequest(name="s1", cpus=1, memory="1Gi"))
    again = await client.spark_start(SparkRequest(name="s1"))

    assert again.job_id == first.job_id
    assert (first.name, first.phase, first.cpus, first.memory, first.is_ready) == ("s1", "Queued", "1", "1Gi", False)
    with pytest.raises(Conflict, match="'s1' is not ready yet: "):
        await client.spark_endpoint("s1")
    assert [session.name for session in await client.spark_sessions()] == ["s1"]
    await client.spark_stop("s1")
    await client.wait(first.job_id, timeout_s=150)
    assert await client.spark_sessions() == []
    with pytest.raises(NotFound, match="no Spark session 's1'"):
        await client.spark_endpoint("s1")


# --- transport errors ----------------------------------------------------------------------------------------------------


async def test_no_service_is_unavailable_in_one_sentence() -> None:
    async with AsyncClient("http://127.0.0.1:1", TOKEN) as client:
        with pytest.raises(Unavailable, match=r"^Nobody answers at http://127.0.0.1:1; .*\.$"):
            await client.me()


async def test_wrong_token_is_unauthenticated(site: Site) -> None:
    async with AsyncClient(site.url, "wrong") as client:
        with pytest.raises(Unauthenticated):
            await client.me()


async def test_new_token_after_a_restart_is_found(site: Site) -> None:
    async with AsyncClient(site.url, "old", rediscover=lambda: (site.url, TOKEN)) as client:
        assert (await client.me()).name == "ana"


async def test_requests_to_this_machine_bypass_the_proxy_of_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async with AsyncClient(site.url, TOKEN) as client:
        assert (await client.me()).name == "ana"


@pytest.mark.parametrize(("url", "token"), [("localhost:80", "t"), ("ftp://x", "t"), ("http://x", ""), ("http://x", "a\nb")])
def test_invalid_url_or_token_is_refused(url: str, token: str) -> None:
    with pytest.raises(BadInput):
        AsyncClient(url, token)


# --- without await -------------------------------------------------------------------------------------------------------


async def test_blocking_client_works_beside_a_running_loop(site: Site) -> None:
    """As in a kernel, whose main thread already runs an event loop."""

    def use() -> tuple[str, list[str], str]:
        with Client(site.url, TOKEN) as client:
            job = client.submit(QUICK)
            phases: list[str] = []
            threads: set[str] = set()

            def note(view: JobView) -> None:
                phases.append(view.phase)
                threads.add(threading.current_thread().name)

            ended = client.wait(job.id, timeout_s=150, on_change=note)
            assert threads == {threading.current_thread().name}
            assert client.logs(job.id).lines == ("hello", "world")
            return client.me().name, phases[-1:], ended.phase

    assert await asyncio.to_thread(use) == ("ana", ["Succeeded"], "Succeeded")


async def test_blocking_client_refuses_to_work_in_a_fork(site: Site) -> None:
    def use() -> str:
        client = Client(site.url, TOKEN)
        assert client.me().name == "ana"
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                client.me()
                text = "no error"
            except EnvironmentProblem as error:
                text = str(error)
                with Client(site.url, TOKEN) as fresh:
                    text += " " + fresh.me().name
            os.write(writer, text.encode())
            os._exit(0)
        os.waitpid(child, 0)
        client.close()
        return os.read(reader, 1000).decode()

    said = await asyncio.to_thread(use)

    assert said.startswith(f"This client belongs to process {os.getpid()}")
    assert said.endswith("call connect() again here. ana")


async def test_interrupt_leaves_a_wait_at_once(site: Site, client: AsyncClient) -> None:
    job = await client.submit(LONG)
    program = f"""
import os, signal, threading, time
from tuttilab.scheduler.client import Client
client = Client({site.url!r}, {TOKEN!r})
begin = time.monotonic()
try:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    client.wait({job.id!r}, timeout_s=150)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin < 30, client.job({job.id!r}).is_ended)
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=150)

    assert (done.stdout, done.stderr) == ("interrupted True False\n", "")


async def test_connect_reads_url_and_token_from_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTTILAB_URL", site.url)
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    monkeypatch.delenv("TUTTILAB_TOKEN", raising=False)
    with pytest.raises(EnvironmentProblem, match="TUTTILAB_TOKEN is not"):
        connect()
    monkeypatch.setenv("TUTTILAB_TOKEN", TOKEN)

    def name() -> str:
        with connect() as client:
            return client.me().name

    assert await asyncio.to_thread(name) == "ana"


def test_connect_without_a_service_and_without_starting_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTTILAB_URL", raising=False)
    monkeypatch.setenv("TUTTILAB_STATE_DIR", str(tmp_path / "none"))

    with pytest.raises(Unavailable, match="`tuttilab up` starts one"):
        connect(start=False)

    assert not (tmp_path / "none").exists()


def test_import_of_the_client_imports_no_server_module() -> None:
    program = """
import sys
import tuttilab.scheduler.client
heavy = ("alembic", "fastapi", "sqlalchemy", "starlette", "uvicorn", "IPython", "kubernetes", "pyspark", "yaml", "platformdirs")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
