"""Every route that writes leaves a line in `tuttilab audit`, with its author; those that leave none have a reason here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import CONFIG, Site, Tokens, served
from tests.integration.api.test_roles import BODIES, GRAPH, PATHS, ROLES, Things
from tests.integration.api.test_routes import RULES, V
from tuttilab.scheduler.api.artifacts.process import REDIRECT_BYTES
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.domain.requests import ProfileRequest
from tuttilab.scheduler.domain.wire import ReloadView, WriteView
from tuttilab.scheduler.service.reload import reload
from tuttilab.sidecar.protocol import pod_token

LEAVE_NOTHING = {
    "POST /jobs:dryrun": "it changes nothing",
    "POST /notebooks/{job_id}/renew": "the hub's report of a server whose start is listed; its end is in the job's history",
    "POST /notebooks/{job_id}/active": "a note in memory that a cell runs",
    "POST /pods/displays": "what a pod of a job that is listed shows while it runs",
    "POST /pods/report": "the report of a pod of a job that is listed; it is in the job's history",
    "POST /spark/routes": "a question of the Spark proxy, which changes nothing",
    "POST /shutdown": "nothing is changed that outlives it; only whoever started a local control plane may end it",
}
LINES = {
    "POST /jobs": ("ann", "submitted job "),
    "POST /jobs:batch": ("ann", "submitted job "),
    "DELETE /jobs/{job_id}": ("ann", "deleted job "),
    "POST /jobs/{job_id}/cancel": ("ann", "cancelled job "),
    "POST /jobs/{job_id}/retry": ("ann", "submitted job "),
    "PUT /artifacts/{artifact_id}": ("ann", "uploaded artifact "),
    "POST /spark/sessions": ("ann", "submitted job "),
    "DELETE /spark/sessions/{name}": ("ann", "cancelled job "),
    "POST /dags": ("ann", "applied DAG weekly-owner"),
    "POST /runs": ("ann", "started run "),
    "POST /runs/{run_id}/cancel": ("ann", "cancelled run "),
    "POST /runs/{run_id}/retry": ("ann", "retried run "),
    "POST /notebooks": ("ann", "submitted job "),
    "POST /profiles": ("root", "applied profile made-admin"),
    "DELETE /profiles/{name}": ("root", "deleted profile "),
    "PUT /pods/artifacts/{artifact_id}": ("ann", "kept artifact "),
    "POST /reload": ("op", "reloaded queues and defaults: "),
    "POST /policy": ("op", "tuned the decision rule: overtaking 0.2; better"),
}
"""Author and beginning of the line that a request of the route leaves."""
AS = {
    "POST /profiles": "admin",
    "DELETE /profiles/{name}": "admin",
    "POST /notebooks": "hub",
    "POST /reload": "operator",
    "POST /policy": "operator",
}
"""Who asks where it is not the owner."""
DATA = b"what nobody had"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, Tokens(ROLES), has_artifact_process=True)
    site.reload = partial(_reload, site)
    async with served(site) as site:
        yield site


async def _reload(site: Site, dry_run: bool, accept: tuple[str, ...], by: str) -> ReloadView:
    """Of a file in which only a default has changed."""
    wanted = parse_config(CONFIG | {"defaults": {"queue": "research", "timeout": "9h"}}, site.folder, "test")
    wanted = replace(wanted, limits=site.service.config.limits)
    return await reload(site.service, wanted, dry_run=dry_run, accept=accept, by=by)


async def newest(root: AsyncClient) -> list[WriteView]:
    """Oldest first."""
    return list(reversed((await root.audit(limit=200)).writes))


async def asked(http: httpx.AsyncClient, things: Things, site: Site, name: str) -> httpx.Response:
    """One request of the route that is meant to succeed."""
    method, short = name.split(" ")
    role = AS.get(name, "owner")
    query: dict[str, Any] = {}
    content = json.dumps(BODIES[name]).replace("{role}", role).encode() if name in BODIES else b""
    if name == "POST /reload":
        content = b"{}"
    path = short
    if "artifacts" in name:
        content = DATA + name.encode()
        path = short.replace("{artifact_id}", hashlib.sha256(content).hexdigest())
        if "pods" in name:
            attempt = site.service.state.live_attempt(things.full)
            assert attempt is not None
            pod = attempt.pods[0]
            query = {"job_id": things.full, "attempt": attempt.number, "epoch": attempt.epoch}
            key = site.service.secrets.attempt_key(things.full, attempt.number, attempt.epoch)
            role = pod_token(key, pod.rank, pod.name)
    elif "{" in path:
        make = next(make for key, make in PATHS.items() if key == name or (key[0] == "/" and short.startswith(key)))
        path = path[: path.index("{")] + await make(things) + path[path.index("}") + 1 :]
    return await http.request(method, V + path, params=query, content=content, headers={"Authorization": f"Bearer {role}"})


@pytest.mark.timeout(700)
@pytest.mark.feature("A08")
async def test_every_route_that_writes_is_in_the_audit(site: Site) -> None:
    writing = [f"{method} {path.removeprefix(V)}" for method, path in RULES if method not in ("GET", "HEAD")]
    assert set(writing) == LINES.keys() | LEAVE_NOTHING.keys(), "a new route is listed, or named with the reason why it is not"
    found = {}
    async with (
        AsyncClient(site.url, "owner") as ann,
        AsyncClient(site.url, "admin") as root,
        AsyncClient(site.url, "hub") as hub,
        httpx.AsyncClient(base_url=site.url, timeout=150) as http,
    ):
        things = Things(ann, root, hub, site)
        await root.apply_profile(ProfileRequest(name="lab", cpus="10m", memory="8Mi"))
        await things.running()
        await ann.apply_dag(GRAPH)
        for name in LINES:
            answer = await asked(http, things, site, name)
            assert answer.is_success, (name, answer.text)
            # What the request is about may have been made just before, by a line of its own: the last one is the request's.
            (write, *_) = (await root.audit(limit=1)).writes
            found[name] = (write.by, write.text[: len(LINES[name][1])])

    assert found == LINES


@pytest.mark.feature("A08")
async def test_an_upload_is_listed_once_for_each_who_brings_it_by_whichever_way_it_comes(site: Site) -> None:
    big = b"b" * REDIRECT_BYTES
    async with AsyncClient(site.url, "owner") as ann, AsyncClient(site.url, "other") as eve, AsyncClient(site.url, "admin") as root:
        for _ in range(2):
            await ann.put_artifact(b"small")
            await ann.put_artifact(big)
        await eve.put_artifact(b"small")
        everything = await newest(root)
        of_eve = await newest(eve)
        changes = (await ann.changes(0)).changes

    small, large = (hashlib.sha256(one).hexdigest() for one in (b"small", big))
    uploads = [(write.by, write.key, write.text) for write in everything if write.kind == "ArtifactStored"]
    assert uploads == [
        ("ann", small, f"uploaded artifact {small[:8]} (5B)"),
        ("ann", large, f"uploaded artifact {large[:8]} (1MiB)"),
        ("eve", small, f"uploaded artifact {small[:8]} (5B)"),
    ]
    assert [(write.by, write.key) for write in of_eve] == [("eve", small)]
    assert [change.key for change in changes if change.kind == "ArtifactStored"] == [small, large]
