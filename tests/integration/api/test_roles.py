"""Every route for every role, against the real service: operator, hub, admin, owner, another user and viewer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import Site, served
from tests.integration.api.conftest import Tokens as Users
from tests.integration.api.test_routes import ANYBODY, ATTEMPT, RULES, V
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.requests import (
    DagRequest,
    JobRequest,
    NodeRequest,
    NotebookRequest,
    PodRequest,
    ProfileRequest,
    RunRequest,
    SparkRequest,
    Who,
)

ROLES = {
    "operator": Who("op", is_admin=True, in_every_group=True),
    "hub": Who("tuttilab", is_admin=True, is_hub=True),
    "admin": Who("root", ("admins",), is_admin=True),
    "owner": Who("ann", ("research",)),
    "other": Who("eve", ("research",)),
    "viewer": Who("vic", ("auditors",), is_viewer=True),
}
"""The hub's own service and its operator are what is called SA, owner and other are users."""
SMALL = (PodRequest(cpus="100m", memory="64Mi"),)
FULL = JobRequest(name="full", pods=(PodRequest(count=2, cpus="2900m"),), command=("sleep", "600"))
JOB = JobRequest(name="one", pods=(PodRequest(cpus=1),), command=("sleep", "600"))
GRAPH = DagRequest(name="nightly", nodes=(NodeRequest(name="a", job=JOB),))

EXPECTED = """
GET    /healthz                         200 200 200 200 200 200
GET    /readyz                          200 200 200 200 200 200
GET    /healthz                         200 200 200 200 200 200
GET    /readyz                          200 200 200 200 200 200
GET    /metrics                         200 200 200 200 200 200
GET    /metrics                         200 200 200 200 200 200
GET    /openapi.json                    200 200 200 200 200 200
HEAD   /openapi.json                    200 200 200 200 200 200
POST   /jobs                            201 201 201 201 201 403
GET    /jobs                            200 200 200 200 200 200
POST   /jobs:batch                      201 201 201 201 201 403
POST   /jobs:dryrun                     200 200 200 200 200 403
GET    /jobs/{job_id}                   200 200 200 200 404 404
DELETE /jobs/{job_id}                   204 204 204 204 404 403
POST   /jobs/{job_id}/cancel            200 200 200 200 404 403
POST   /jobs/{job_id}/retry             201 201 201 201 404 403
GET    /jobs/{job_id}/explain           200 200 200 200 404 404
GET    /jobs/{job_id}/events            200 200 200 200 404 404
GET    /jobs/{job_id}/definition        403 403 403 200 404 404
GET    /jobs/{job_id}/result            200 200 200 200 404 404
GET    /jobs/{job_id}/logs              200 200 200 200 404 404
GET    /jobs/{job_id}/details           200 200 200 200 404 404
GET    /jobs/{job_id}/displays          200 200 200 200 404 404
GET    /jobs/{job_id}/shown             200 200 200 200 404 404
GET    /jobs/{job_id}/usage             200 200 200 200 404 404
GET    /queues                          200 200 200 200 200 200
GET    /quota                           200 200 200 200 200 200
GET    /clusters                        200 200 200 200 200 200
GET    /nodes                           200 200 200 200 200 200
PUT    /artifacts/{artifact_id}         201 201 201 201 201 403
GET    /artifacts/{artifact_id}         200 200 200 200 404 404
GET    /artifacts/{artifact_id}/upload  200 200 200 200 200 403
GET    /spark/sessions                  200 200 200 200 200 200
POST   /spark/sessions                  200 200 200 200 200 403
GET    /spark/sessions/{name}/endpoint  404 404 404 409 404 404
DELETE /spark/sessions/{name}           404 404 404 204 404 403
POST   /spark/routes                    401 401 401 401 401 401
GET    /dags                            200 200 200 200 200 200
POST   /dags                            200 200 200 200 200 403
GET    /dags/{name}/definition          403 403 403 200 404 404
GET    /dags/{name}/runs                200 200 200 200 404 404
GET    /runs                            200 200 200 200 200 200
POST   /runs                            201 201 201 201 404 403
GET    /runs/{run_id}                   200 200 200 200 404 404
POST   /runs/{run_id}/cancel            200 200 200 200 404 403
POST   /runs/{run_id}/retry             200 200 200 200 404 403
GET    /changes                         200 200 200 200 200 200
GET    /audit                           200 200 200 200 200 200
POST   /notebooks                       403 201 403 403 403 403
POST   /notebooks/{job_id}/renew        403 200 403 403 403 403
POST   /notebooks/{job_id}/active       204 204 204 204 404 404
GET    /profiles                        200 200 200 200 200 200
POST   /profiles                        200 200 200 403 403 403
GET    /profiles/{name}                 200 200 200 200 200 200
DELETE /profiles/{name}                 204 204 204 403 403 403
POST   /pods/report                     401 401 401 401 401 401
POST   /pods/displays                   401 401 401 401 401 401
GET    /pods/artifacts/{artifact_id}    401 401 401 401 401 401
PUT    /pods/artifacts/{artifact_id}    401 401 401 401 401 401
GET    /me                              200 200 200 200 200 200
POST   /shutdown                        409 403 403 403 403 403
POST   /reload                          409 403 403 403 403 403
GET    /policy                          200 200 200 200 200 200
POST   /policy                          200 403 403 403 403 403
"""
"""Status for each role of `ROLES`, in its order; what a route is about is ann's."""


@dataclass
class Things:
    """Makes what a request is about, fresh for each request and all of it ann's."""

    ann: AsyncClient
    root: AsyncClient
    hub: AsyncClient
    site: Site
    full: str = ""
    """The job that fills the queue, so that all others wait."""
    serving: str = ""
    number: int = 0
    data: bytes = b""

    async def running(self) -> str:
        self.full = self.full or await self._started((await self.ann.submit(FULL)).id)
        return self.full

    async def _started(self, job_id: str) -> str:
        async with asyncio.timeout(30):
            while self.site.service.state.live_attempt(job_id) is None:  # noqa: ASYNC110  the state has no event to wait for
                await asyncio.sleep(0.02)
        return job_id

    async def live(self) -> str:
        return (await self.ann.submit(JOB)).id

    async def ended(self) -> str:
        return (await self.ann.cancel(await self.live())).id

    async def run(self) -> str:
        return (await self.ann.run_dag(RunRequest(name="nightly"))).id

    async def ended_run(self) -> str:
        return (await self.ann.cancel_run(await self.run())).id

    async def session(self) -> str:
        self.number += 1
        await self.ann.spark_start(SparkRequest(name=f"s{self.number}"))
        return f"s{self.number}"

    async def profile(self) -> str:
        self.number += 1
        await self.root.apply_profile(ProfileRequest(name=f"p{self.number}"))
        return f"p{self.number}"

    async def server(self) -> str:
        self.number += 1
        asked = NotebookRequest(owner="ann", groups=("research",), server=f"n{self.number}", profile="lab")
        return (await self.hub.notebook(asked)).job.id

    async def live_server(self) -> str:
        self.serving = self.serving or await self._started(await self.server())
        return self.serving

    async def artifact(self) -> str:
        self.number += 1
        self.data = f"bytes {self.number}".encode()
        return await self.ann.put_artifact(self.data)

    async def dag(self) -> str:
        return "nightly"


PATHS: dict[str, Callable[[Things], Awaitable[str]]] = {
    "DELETE /jobs/{job_id}": Things.ended,
    "POST /jobs/{job_id}/retry": Things.ended,
    "GET /jobs/{job_id}/result": Things.running,
    "GET /jobs/{job_id}/displays": Things.running,
    "/jobs/{job_id}": Things.live,
    "POST /runs/{run_id}/retry": Things.ended_run,
    "/runs/{run_id}": Things.run,
    "/spark/sessions/{name}": Things.session,
    "/profiles/{name}": Things.profile,
    "POST /notebooks/{job_id}/active": Things.live_server,
    "/notebooks/{job_id}": Things.server,
    "/artifacts/{artifact_id}": Things.artifact,
    "/pods/artifacts/{artifact_id}": Things.artifact,
    "/dags/{name}": Things.dag,
}
BODIES: dict[str, Any] = {
    "POST /jobs": {"command": ["true"]},
    "POST /jobs:batch": {"jobs": [{"command": ["true"]}]},
    "POST /jobs:dryrun": {"command": ["true"]},
    "POST /spark/sessions": {"name": "mine"},
    "POST /dags": {"name": "weekly-{role}", "nodes": [{"name": "a", "job": {"command": ["true"]}}]},
    "POST /runs": {"name": "nightly"},
    "POST /notebooks": {"owner": "ann", "server": "made-{role}", "profile": "lab"},
    "POST /notebooks/{job_id}/renew": {"phase": "running"},
    "POST /profiles": {"name": "made-{role}"},
    "POST /policy": {"values": {"overtaking": 0.2}, "why": "better"},
}
QUERIES = {
    "GET /artifacts/{artifact_id}/upload": {"size": "5"},
    "GET /jobs/{job_id}/displays": {"attempt": "1"},
}


@pytest.fixture
async def roles(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(Site(tmp_path, Users(ROLES))) as site:
        yield site


async def answered(http: httpx.AsyncClient, things: Things, route: tuple[str, str], role: str) -> int:
    method, path = route
    name = f"{method} {path.removeprefix(V)}"
    short = path.removeprefix(V)
    if "{" in path:
        make = next(make for key, make in PATHS.items() if key == name or (key[0] == "/" and short.startswith(key)))
        path = path[: path.index("{")] + await make(things) + path[path.index("}") + 1 :]
    content = things.data if method == "PUT" else b""
    if name in BODIES:
        content = json.dumps(BODIES[name]).replace("{role}", role).encode()
    answer = await http.request(
        method, path, params=QUERIES.get(name), content=content, headers={"Authorization": f"Bearer {role}"}
    )
    return answer.status_code


@pytest.mark.timeout(700)
@pytest.mark.feature("A01")
async def test_every_route_answers_every_role_as_the_table_says(roles: Site) -> None:
    found = []
    async with (
        AsyncClient(roles.url, "owner") as ann,
        AsyncClient(roles.url, "admin") as root,
        AsyncClient(roles.url, "hub") as hub,
        httpx.AsyncClient(base_url=roles.url, timeout=150) as http,
    ):
        things = Things(ann, root, hub, roles)
        await root.apply_profile(ProfileRequest(name="lab", cpus="10m", memory="8Mi"))
        await things.live_server()
        await things.running()
        await ann.apply_dag(GRAPH)
        for route in RULES:
            statuses = [await answered(http, things, route, role) for role in ROLES]
            found.append(f"{route[0]:6} {route[1].removeprefix(V):32} " + " ".join(map(str, statuses)))

    assert [line.rstrip() for line in found] == [line.rstrip() for line in EXPECTED.strip().splitlines()]
    assert {ANYBODY, ATTEMPT} <= set(RULES.values())
