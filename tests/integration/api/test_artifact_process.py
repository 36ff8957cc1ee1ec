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
    async with httpx.AsyncClient(base_url=f"{site.url}/api/v1", headers=HEADERS, timeout=30.0) as http:
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
    async with httpx.AsyncClient(base_url=f"{apart.url}/api/v1", headers=HEADERS, timeout=30.0) as http:
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

    async with httpx.AsyncClient(headers=HEADERS, timeout=30.0) as http:
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


async def test_a_ticket_expires(apart: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr("tuttilab.scheduler.api.artifacts.process.time.time", lambda: now - 3700)
        url = await upload_url(apart)
    async with httpx.AsyncClient(timeout=30.0) as http:
        answer = await http.put(url, content=CONTENT)
    assert (answer.status_code, "has run out" in answer.json()["detail"]) == (401, True)


async def test_the_process_applies_the_rules_of_the_control_plane(apart: Site) -> None:
    url = await upload_url(apart, "c" * 64)
    folder = apart.service.config.artifacts_dir
    async with httpx.AsyncClient(timeout=30.0) as http:
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

    monkeypatch.setattr(apart.service.store, "add_artifact", full)
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
