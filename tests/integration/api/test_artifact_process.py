"""The process for big artifacts: it takes tickets and no user tokens, and acknowledges an upload after its row is committed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import httpx
import psutil
import pytest

from tests.integration.api.conftest import TOKEN, Site, Tokens, served
from tuttilab.scheduler.api.artifacts.process import REDIRECT_BYTES, ArtifactProcess
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.config.model import Limits
from tuttilab.scheduler.domain.errors import NotFound, TooLarge
from tuttilab.scheduler.domain.requests import Who

CONTENT = os.urandom(3 * 2**20 + 5)
ID = hashlib.sha256(CONTENT).hexdigest()
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def apart(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, limits=Limits(bundle_bytes=4 * 2**20), has_artifact_process=True)
    async with served(site):
        yield site


def process_of(site: Site) -> ArtifactProcess:
    assert site.artifacts is not None
    return site.artifacts


async def upload_url(site: Site, id: str = ID, size: int = len(CONTENT)) -> str:
    """The URL to upload to."""
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=HEADERS, timeout=150) as http:
        url = (await http.get(f"/artifacts/{id}/upload", params={"size": size})).json()["url"]
        assert isinstance(url, str)
        return url


async def test_a_big_artifact_does_not_pass_through_the_control_plane(apart: Site) -> None:
    async with AsyncClient(apart.url, TOKEN) as client:
        assert await client.put_artifact(CONTENT) == ID
        assert await client.get_artifact(ID) == CONTENT
    pid = process_of(apart).pid
    assert pid is not None
    served_by = psutil.Process(pid)
    # What is written to disk is counted, what goes to a socket is not.
    assert served_by.io_counters().write_chars >= len(CONTENT)
    async with httpx.AsyncClient(base_url=f"{apart.url}/api/v1", headers=HEADERS, timeout=150) as http:
        moved = await http.get(f"/artifacts/{ID}", params={"redirect": "true"})
        straight = await http.get(f"/artifacts/{ID}")
    assert moved.status_code == 307
    assert urlsplit(moved.headers["location"]).port == process_of(apart).port != apart.port
    assert straight.content == CONTENT


async def test_a_small_artifact_starts_no_process(apart: Site) -> None:
    async with AsyncClient(apart.url, TOKEN) as client:
        id = await client.put_artifact(CONTENT[: REDIRECT_BYTES - 1])
        assert len(await client.get_artifact(id)) == REDIRECT_BYTES - 1
    assert process_of(apart).pid is None


async def test_only_a_valid_ticket_is_accepted(apart: Site) -> None:
    url = await upload_url(apart)
    parts = urlsplit(url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    other = "b" * 64

    def changed(path: str = parts.path, **more: str) -> str:
        return urlunsplit(parts._replace(path=path, query=urlencode(query | more)))

    async with httpx.AsyncClient(headers=HEADERS, timeout=150) as http:
        bare = urlunsplit(parts._replace(query=""))
        for wrong, status in (
            (bare, 400),
            (changed(mac=""), 401),
            (changed(mac="ä"), 401),
            (changed(mac=query["mac"][:-1] + ("0" if query["mac"][-1] != "0" else "1")), 401),
            (changed(owner="ben"), 401),
            (changed(until=str(int(query["until"]) + 1)), 401),
            (changed(until="-1"), 400),
            (changed(until="9" * 40), 400),
            (changed(path=f"/artifacts/{other}"), 401),
            (changed(path="/artifacts/..%2F..%2Fcontrol.json"), 404),
        ):
            answer = await http.put(wrong, content=CONTENT)
            assert (answer.status_code, "Traceback" in answer.text) == (status, False), (wrong, answer.text)
        # A ticket to upload does not allow a fetch, and the user's own token is not accepted here.
        assert (await http.get(url)).status_code == 401
        assert (await http.delete(url)).status_code == 405
    assert [path for path in apart.service.config.artifacts_dir.rglob("*") if path.is_file()] == []


async def fetch_url(site: Site) -> str:
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=HEADERS, timeout=150) as http:
        return str((await http.get(f"/artifacts/{ID}", params={"redirect": "true"})).headers["location"])


async def run_out(url: str) -> None:
    """Wait until the ticket's own time is over."""
    until = int(parse_qs(urlsplit(url).query)["until"][0])
    await asyncio.sleep(max(0.0, until - time.time()) + 0.05)


@pytest.mark.timeout(700)
async def test_a_ticket_is_good_again_and_again_until_it_runs_out_and_a_transfer_that_has_started_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, limits=Limits(ticket_s=15.0), has_artifact_process=True)
    async with served(site), AsyncClient(site.url, TOKEN) as client, httpx.AsyncClient(timeout=150) as http:
        # The first one waits for the start of the process.
        assert await client.put_artifact(CONTENT) == ID
        put, get = await upload_url(site), await fetch_url(site)
        tries = [("PUT", put, CONTENT), ("GET", get, b""), ("HEAD", get, b"")]

        async def slowly() -> AsyncIterator[bytes]:
            yield CONTENT[: 2**20]
            await run_out(put)
            yield CONTENT[2**20 :]

        used = [(await http.request(method, url, content=body)).status_code for method, url, body in tries * 2]
        started = asyncio.create_task(http.put(put, content=slowly()))
        await run_out(put)
        await run_out(get)
        late = [await http.request(method, url, content=body) for method, url, body in tries]

        assert used == [201, 200, 200] * 2
        assert [answer.status_code for answer in late] == [401, 401, 401]
        assert "This ticket has run out; ask the service for a new one." in late[0].text
        assert (await started).status_code == 201
        # The client asks for a ticket each time, and does not notice.
        assert await client.get_artifact(ID) == CONTENT


async def test_a_ticket_of_somebody_else_of_another_artifact_or_of_another_control_plane_opens_nothing(tmp_path: Path) -> None:
    users = Tokens({TOKEN: Who("ana"), "token-of-ben": Who("ben")})
    site = Site(tmp_path, users, has_artifact_process=True)
    async with served(site), AsyncClient(site.url, TOKEN) as ana, AsyncClient(site.url, "token-of-ben") as ben:
        assert await ana.put_artifact(CONTENT) == ID
        with pytest.raises(NotFound):
            await ben.get_artifact(ID)
        theirs = await upload_url(site, hashlib.sha256(b"x" * 2**21).hexdigest(), 2**21)
        hers = await fetch_url(site)
        async with httpx.AsyncClient(timeout=150) as http:
            wrong = urlsplit(theirs)._replace(path=urlsplit(hers).path)
            answers = [await http.get(urlunsplit(wrong)), await http.put(urlunsplit(wrong), content=CONTENT)]
            # At the control plane itself, and where pods are served, a ticket is no token.
            query = urlsplit(hers).query
            for path in (f"/artifacts/{ID}", f"/pods/artifacts/{ID}", f"/artifacts/{ID}/upload"):
                answers.append(await http.get(f"{site.url}/api/v1{path}?{query}"))
            answers.append(await http.put(f"{site.url}/api/v1/artifacts/{ID}?{query}", content=CONTENT))
    async with served(site), httpx.AsyncClient(timeout=150) as http:
        port = urlsplit(await upload_url(site)).port
        for url in (hers, theirs):
            parts = urlsplit(url)
            answers.append(await http.get(urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))))

    assert [answer.status_code for answer in answers] == [401] * 8


async def test_the_process_applies_the_rules_of_the_control_plane(apart: Site) -> None:
    url = await upload_url(apart, "c" * 64)
    folder = apart.service.config.artifacts_dir
    async with httpx.AsyncClient(timeout=150) as http:
        other = await http.put(url, content=CONTENT)
        assert (other.status_code, other.json()["type"]) == (400, "bad-input")

        async def too_long() -> AsyncIterator[bytes]:
            for _ in range(24):
                yield b"x" * 2**18

        big = await http.put(url, content=too_long())
        assert (big.status_code, big.json()["type"]) == (413, "too-large")
    async with AsyncClient(apart.url, TOKEN) as client:
        with pytest.raises(TooLarge, match="at most 4194304 are taken"):
            await client.put_artifact(b"x" * (5 * 2**20))
        with pytest.raises(NotFound):
            await client.get_artifact("d" * 64)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_a_broken_upload_leaves_no_file(apart: Site) -> None:
    url = urlsplit(await upload_url(apart))
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    writer.write(head.encode() + CONTENT[: 2 * 2**20])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    folder = apart.service.config.artifacts_dir
    async with asyncio.timeout(60):
        while any(path.is_file() for path in folder.rglob("*")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with AsyncClient(apart.url, TOKEN) as client:
        assert await client.put_artifact(CONTENT) == ID


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_process_starts_again_at_the_same_port(apart: Site, number: signal.Signals) -> None:
    async with AsyncClient(apart.url, TOKEN) as client:
        await client.put_artifact(CONTENT)
        first = process_of(apart).pid
        assert first is not None
        os.kill(first, number)
        async with asyncio.timeout(60):
            while process_of(apart).pid == first:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await client.get_artifact(ID) == CONTENT
        assert process_of(apart).pid not in (None, first)


async def test_it_ends_with_the_control_plane(tmp_path: Path) -> None:
    site = Site(tmp_path, has_artifact_process=True)
    async with served(site), AsyncClient(site.url, TOKEN) as client:
        await client.put_artifact(CONTENT)
        pid = process_of(site).pid
        assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_an_upload_without_a_committed_row_fails(apart: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuttilab.scheduler.domain.errors import StoreError

    async def full(*_: object) -> None:
        raise StoreError("The database refused: the disk is full.")

    monkeypatch.setattr(apart.service.store, "commit", full)
    async with AsyncClient(apart.url, TOKEN) as client:
        with pytest.raises(StoreError, match="the disk is full"):
            await client.put_artifact(CONTENT)


async def test_behind_a_tunnel_all_bytes_go_through_the_control_plane(apart: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(process_of(apart), "port", unused.getsockname()[1])
        async with AsyncClient(apart.url, TOKEN) as client:
            assert await client.put_artifact(CONTENT) == ID
            assert await client.get_artifact(ID) == CONTENT


async def test_knowing_the_id_does_not_give_access_to_the_bytes(tmp_path: Path) -> None:
    users = {"a": Who("ana", ("research",)), "b": Who("ben", ("quant",))}
    async with served(Site(tmp_path, Tokens(users), has_artifact_process=True)) as site:
        async with AsyncClient(site.url, "a") as ana, AsyncClient(site.url, "b") as ben:
            await ana.put_artifact(CONTENT)
            with pytest.raises(NotFound):
                await ben.get_artifact(ID)
            # A user who can upload the content has it anyway.
            await ben.put_artifact(CONTENT)
            assert await ben.get_artifact(ID) == CONTENT
