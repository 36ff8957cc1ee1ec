"""Every route of the application with and without the right token; problem documents, streams, metrics, the OpenAPI document."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import CONFIG, TOKEN, Site
from tuttilab.scheduler.api import create_app
from tuttilab.scheduler.api.schema import BODIES
from tuttilab.scheduler.clusters.fake import FakeCluster
from tuttilab.scheduler.config.load import parse_config
from tuttilab.scheduler.domain import wire
from tuttilab.scheduler.domain.model import AttemptPhase
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.identity.auth import LocalAuthenticator
from tuttilab.scheduler.service.loop import Service
from tuttilab.scheduler.store.memory import MemoryStore
from tuttilab.sidecar.protocol import CLAIM, pod_token

ANYBODY, USER, ATTEMPT = "anybody", "user", "attempt"
V = "/api/v1"

RULES = {
    ("GET", "/healthz"): ANYBODY,
    ("GET", "/readyz"): ANYBODY,
    ("GET", f"{V}/healthz"): ANYBODY,
    ("GET", f"{V}/readyz"): ANYBODY,
    ("GET", "/metrics"): USER,
    ("GET", f"{V}/metrics"): USER,
    ("GET", f"{V}/openapi.json"): USER,
    ("HEAD", f"{V}/openapi.json"): USER,
    ("POST", f"{V}/jobs"): USER,
    ("GET", f"{V}/jobs"): USER,
    ("POST", f"{V}/jobs:batch"): USER,
    ("POST", f"{V}/jobs:dryrun"): USER,
    ("GET", f"{V}/jobs/{{job_id}}"): USER,
    ("DELETE", f"{V}/jobs/{{job_id}}"): USER,
    ("POST", f"{V}/jobs/{{job_id}}/cancel"): USER,
    ("POST", f"{V}/jobs/{{job_id}}/retry"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/explain"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/events"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/definition"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/result"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/logs"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/details"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/displays"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/shown"): USER,
    ("GET", f"{V}/jobs/{{job_id}}/usage"): USER,
    ("GET", f"{V}/queues"): USER,
    ("GET", f"{V}/quota"): USER,
    ("GET", f"{V}/clusters"): USER,
    ("GET", f"{V}/nodes"): USER,
    ("PUT", f"{V}/artifacts/{{artifact_id}}"): USER,
    ("GET", f"{V}/artifacts/{{artifact_id}}"): USER,
    ("GET", f"{V}/artifacts/{{artifact_id}}/upload"): USER,
    ("GET", f"{V}/spark/sessions"): USER,
    ("POST", f"{V}/spark/sessions"): USER,
    ("GET", f"{V}/spark/sessions/{{name}}/endpoint"): USER,
    ("DELETE", f"{V}/spark/sessions/{{name}}"): USER,
    ("POST", f"{V}/spark/routes"): ATTEMPT,
    ("GET", f"{V}/dags"): USER,
    ("POST", f"{V}/dags"): USER,
    ("GET", f"{V}/dags/{{name}}/definition"): USER,
    ("GET", f"{V}/dags/{{name}}/runs"): USER,
    ("GET", f"{V}/runs"): USER,
    ("POST", f"{V}/runs"): USER,
    ("GET", f"{V}/runs/{{run_id}}"): USER,
    ("POST", f"{V}/runs/{{run_id}}/cancel"): USER,
    ("POST", f"{V}/runs/{{run_id}}/retry"): USER,
    ("GET", f"{V}/changes"): USER,
    ("GET", f"{V}/audit"): USER,
    ("POST", f"{V}/notebooks"): USER,
    ("POST", f"{V}/notebooks/{{job_id}}/renew"): USER,
    ("POST", f"{V}/notebooks/{{job_id}}/active"): USER,
    ("GET", f"{V}/profiles"): USER,
    ("POST", f"{V}/profiles"): USER,
    ("GET", f"{V}/profiles/{{name}}"): USER,
    ("DELETE", f"{V}/profiles/{{name}}"): USER,
    ("POST", f"{V}/pods/report"): ATTEMPT,
    ("POST", f"{V}/pods/displays"): ATTEMPT,
    ("GET", f"{V}/pods/artifacts/{{artifact_id}}"): ATTEMPT,
    ("PUT", f"{V}/pods/artifacts/{{artifact_id}}"): ATTEMPT,
    ("GET", f"{V}/me"): USER,
    ("POST", f"{V}/shutdown"): USER,
    ("POST", f"{V}/reload"): USER,
    ("GET", f"{V}/policy"): USER,
    ("POST", f"{V}/policy"): USER,
}
"""Which token each route takes. A new route is added here first."""


def routes_of(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes, prefix + route.include_context.prefix)
        else:
            yield from ((method, prefix + route.path) for method in route.methods)


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, timeout=150) as http:
        yield http


AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def concrete(path: str) -> str:
    return path.replace("{job_id}", "abcdef").replace("{artifact_id}", "a" * 64).replace("{name}", "x")


def test_every_route_has_a_rule(tmp_path: Path) -> None:
    config = parse_config(CONFIG, tmp_path, "test")
    app = create_app(
        Service(config, MemoryStore(), {"here": FakeCluster("here", ())}, state_dir=tmp_path), LocalAuthenticator("t", "u")
    )

    found = set(routes_of(app.routes))

    assert found == set(RULES)
    documented = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert documented <= found


TRIES: dict[str, tuple[dict[str, str], str]] = {
    "none": ({}, ""),
    "wrong": ({"Authorization": "Bearer wrong"}, ""),
    "beginning of the right one": ({"Authorization": f"Bearer {TOKEN[:-1]}"}, ""),
    "other scheme": ({"Authorization": f"Basic {TOKEN}"}, ""),
    "no scheme": ({"Authorization": TOKEN}, ""),
    "empty": ({"Authorization": "Bearer"}, ""),
    "query": ({}, f"?token={TOKEN}&access_token={TOKEN}"),
    "cookie": ({"Cookie": f"token={TOKEN}"}, ""),
    "header of a proxy": ({"X-Forwarded-User": "ana", "X-Remote-User": "ana"}, ""),
}


@pytest.mark.feature("A01")
async def test_without_the_right_token_every_route_is_closed_but_the_probes(http: httpx.AsyncClient) -> None:
    report = b'{"job_id": "j", "attempt": 1, "epoch": 1, "seq": 1, "members": []}'
    wrong: list[tuple[str, str, str, int]] = []
    for (method, path), rule in RULES.items():
        expected = (200, 400) if rule == ANYBODY else (401,)
        for name, (headers, query) in TRIES.items():
            content = report if rule == ATTEMPT else b""
            answer = await http.request(method, concrete(path) + query, headers=headers, content=content)
            if answer.status_code not in expected:
                wrong.append((method, path, name, answer.status_code))

    assert wrong == []


async def test_unknown_paths_are_closed_too(http: httpx.AsyncClient) -> None:
    paths = [
        "/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/healthz/",
        "//healthz",
        "/api/v1/../healthz",
        f"{V}/pods/report/",
        f"{V}/pods",
    ]

    assert {path: (await http.get(path)).status_code for path in paths} == dict.fromkeys(paths, 401)


async def test_token_of_a_user_does_not_report_for_pods(http: httpx.AsyncClient) -> None:
    report = {"job_id": "j", "attempt": 1, "epoch": 1, "seq": 1, "members": []}

    answer = await http.post(f"{V}/pods/report", json=report, headers=AUTHORIZED)

    assert (answer.status_code, answer.json()["type"]) == (401, "unauthenticated")


async def test_a_wrong_token_of_any_characters_is_refused(http: httpx.AsyncClient) -> None:
    report = {"job_id": "j", "attempt": 1, "epoch": 1, "seq": 1, "members": []}

    answers = [
        await http.post(f"{V}/pods/report", json=report, headers={b"Authorization": b"Bearer gr\xfcn"}),
        await http.get(f"{V}/jobs", headers={b"Authorization": b"Bearer gr\xfcn"}),
    ]

    assert [answer.status_code for answer in answers] == [401, 401]


def is_running(site: Site, job_id: str) -> bool:
    attempt = site.service.state.live_attempt(job_id)
    return attempt is not None and attempt.phase is AttemptPhase.RUNNING


async def test_token_of_an_attempt_reports_for_its_pods_and_opens_nothing_else(site: Site, http: httpx.AsyncClient) -> None:
    job = {"name": "r", "command": ["sleep", "600"]}
    job_id = (await http.post(f"{V}/jobs", json=job, headers=AUTHORIZED)).json()["id"]
    async with asyncio.timeout(60):
        while not is_running(site, job_id):  # noqa: ASYNC110  the state has no event to wait for
            await asyncio.sleep(0.02)
    (pod,) = site.service.state.attempts[job_id, 1].pods
    token = pod_token(site.service.secrets.attempt_key(job_id, 1, 1), pod.rank, pod.name)
    headers = {"Authorization": f"Bearer {token}"}
    report: dict[str, Any] = {"job_id": job_id, "attempt": 1, "epoch": 1, "seq": 1, "members": []}

    claim = {key: report[key] for key in CLAIM}

    taken = await http.post(f"{V}/pods/report", params=claim, json=report, headers=headers)
    odd = await http.post(
        f"{V}/pods/report",
        params=claim,
        json={**report, "members": [{"pod": "p", "rank": 0, "phase": "Odd"}]},
        headers=headers,
    )
    other_attempt = await http.post(f"{V}/pods/report", params=claim, json={**report, "attempt": 2}, headers=headers)
    elsewhere = await http.get(f"{V}/jobs/{job_id}", headers=headers)

    assert (taken.status_code, taken.json()) == (200, {"stop": None, "next_s": 5.0})
    assert (odd.status_code, odd.json()["type"]) == (400, "bad-input")
    assert (other_attempt.status_code, elsewhere.status_code) == (401, 401)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[::1", "", "localhost:x"]
)
async def test_foreign_host_name_is_refused(http: httpx.AsyncClient, host: str) -> None:
    answers = [await http.get(path, headers={**AUTHORIZED, "Host": host}) for path in ("/healthz", f"{V}/me")]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"])
async def test_own_host_name_is_accepted(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get(f"{V}/me", headers={**AUTHORIZED, "Host": host})).json()["name"] == "ana"


async def test_two_host_headers_are_refused(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    status = await reader.readline()
    writer.close()

    assert status.split()[1] in (b"400", b"403")


async def test_no_cross_origin_request_is_allowed(http: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}

    before, asked = await http.options(f"{V}/jobs", headers=headers), await http.get("/healthz", headers=headers)

    assert before.status_code == 401
    assert [name for answer in (before, asked) for name in answer.headers if name.startswith("access-control")] == []
    assert asked.headers["x-content-type-options"] == "nosniff"


# --- problems ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "type_", "words"),
    [
        ("GET", "/nowhere", "", 404, "not-found", "there is no such path"),
        ("PATCH", "/jobs", "", 405, "method-not-allowed", "has no such method"),
        ("GET", "/jobs/abcdef", "", 404, "not-found", "There is no job 'abcdef'"),
        ("GET", "/jobs?limit=0", "", 400, "bad-input", "query: limit:"),
        ("GET", "/jobs?limit=many", "", 400, "bad-input", "(given: 'many')"),
        ("GET", "/jobs?stat=Running", "", 400, "bad-input", "unknown key stat; did you mean 'state'?"),
        ("GET", "/me?verbose=1", "", 400, "bad-input", "known keys: none"),
        ("POST", "/jobs", "{", 400, "bad-input", "job: "),
        ("POST", "/jobs", "[]", 400, "bad-input", "job: "),
        ("POST", "/jobs", '{"nmae": "x"}', 400, "bad-input", "job: unknown key nmae; did you mean 'name'?"),
        ("POST", "/jobs", '{"pods": [{"gpuss": 1}]}', 400, "bad-input", "unknown key pods[0].gpuss; did you mean 'gpus'?"),
        ("POST", "/jobs", '{"retries": true}', 400, "bad-input", "job: retries: "),
        ("POST", "/jobs", '{"retries": "1"}', 400, "bad-input", "job: retries: "),
        ("POST", "/jobs", '{"pods": [{"cpus": "1x"}]}', 400, "bad-input", "unknown unit 'x'"),
        ("POST", "/jobs", '{"queue": "nope", "command": ["x"]}', 400, "bad-input", "there is no queue 'nope'"),
        ("POST", "/jobs:batch", '{"jobs": []}', 400, "bad-input", "jobs: 0 were given"),
        ("POST", "/jobs:batch", '{"jobs": [{}], "keys": []}', 400, "bad-input", "keys: 0 were given for 1 jobs"),
        ("POST", "/jobs:batch", '{"jobs": [{"nmae": ""}]}', 400, "bad-input", "unknown key jobs[0].nmae"),
        ("POST", "/spark/sessions", '{"cpu": 1}', 400, "bad-input", "did you mean 'cpus'?"),
        ("GET", "/changes?since=99999", "", 410, "not-found", "fetch anew"),
        ("GET", "/changes?wait=1000", "", 400, "bad-input", "query: wait:"),
        ("POST", "/shutdown", "{}", 409, "conflict", "was not started as a local one"),
        ("POST", "/reload", "", 409, "conflict", "built-in configuration"),
        ("POST", "/policy", '{"values": {"order": "fifo"}}', 400, "bad-input", "fifo is not a value of order"),
        ("POST", "/policy", '{"values": {"protects": false}}', 400, "bad-input", "there is no parameter 'protects'"),
    ],
)
async def test_problem_documents_name_the_error(
    http: httpx.AsyncClient, method: str, path: str, body: str, status: int, type_: str, words: str
) -> None:
    answer = await http.request(method, V + path, content=body, headers=AUTHORIZED)

    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["type"]) == (status, status, type_)
    assert words in problem["detail"]


async def test_body_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"POST {V}/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {2**30}\r\n\r\n"
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 60)
    writer.close()

    assert status.split()[1] == b"413"


async def test_missing_token_is_401_with_a_challenge(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{V}/me")

    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["detail"].startswith("There is no token")


async def test_store_that_fails_is_a_problem_and_nothing_is_acknowledged(site: Site, http: httpx.AsyncClient) -> None:
    store: Any = site.service.store

    async def set_query_only(value: str) -> None:
        def run() -> None:
            connection = store._writer.raw_connection()
            connection.execute(f"PRAGMA query_only = {value}")
            connection.close()

        await asyncio.get_running_loop().run_in_executor(store._write_thread, run)

    await set_query_only("ON")
    refused = await http.post(f"{V}/jobs", json={"command": ["x"]}, headers=AUTHORIZED)
    await set_query_only("OFF")
    accepted = await http.post(f"{V}/jobs", json={"command": ["sleep", "600"]}, headers=AUTHORIZED)

    assert (refused.status_code, refused.json()["type"]) == (507, "store")
    assert accepted.status_code == 201
    listed = (await http.get(f"{V}/jobs?all=true", headers=AUTHORIZED)).json()["jobs"]
    assert [job["id"] for job in listed] == [accepted.json()["id"]]


# --- streams, metrics, schema --------------------------------------------------------------------------------------------


async def test_changes_as_a_stream_of_events(site: Site, http: httpx.AsyncClient) -> None:
    since = site.service.last_seq
    headers = {**AUTHORIZED, "Accept": "text/event-stream"}
    found: list[tuple[str, Any]] = []
    async with http.stream("GET", f"{V}/changes", params={"since": since}, headers=headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        submit = asyncio.create_task(http.post(f"{V}/jobs", json={"command": ["x"]}, headers=AUTHORIZED))
        number = ""
        async with asyncio.timeout(60):
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    number = line[4:]
                if line.startswith("data: "):
                    found.append((number, json.loads(line[6:])))
                if any(view["changes"] for _, view in found):
                    break
    job_id = (await submit).json()["id"]
    number, view = found[-1]
    assert (view["changes"][0]["kind"], view["changes"][0]["key"]) == ("JobSubmitted", job_id)
    assert int(number) == view["seq"]

    resumed = {**headers, "Last-Event-ID": str(since)}
    async with http.stream("GET", f"{V}/changes", headers=resumed) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                assert json.loads(line[6:])["changes"][0]["key"] == job_id
                break


async def test_metrics_are_gauges_of_now(http: httpx.AsyncClient) -> None:
    pod = {"cpus": 4}
    for _ in range(2):
        await http.post(f"{V}/jobs", json={"command": ["sleep", "600"], "pods": [pod]}, headers=AUTHORIZED)
    async with asyncio.timeout(60):
        text = ""
        while 'phase="Running"} 1' not in text or "tuttilab_waiting{" not in text:
            await asyncio.sleep(0.02)  # a gauge has no event
            text = (await http.get("/metrics", headers=AUTHORIZED)).text

    lines = text.splitlines()
    assert 'tuttilab_jobs{phase="Queued"} 1' in lines
    assert 'tuttilab_waiting{queue="research",why="quota"} 1' in lines
    assert 'tuttilab_queue_used{queue="root",resource="cpu"} 4000' in lines
    assert 'tuttilab_queue_max{queue="research",resource="cpu"} 6000' in lines
    assert 'tuttilab_cluster_reachable{cluster="here"} 1' in lines
    assert (await http.get(f"{V}/metrics", headers=AUTHORIZED)).status_code == 200


async def test_schema_has_bodies_and_answers_of_every_route(http: httpx.AsyncClient) -> None:
    document = (await http.get(f"{V}/openapi.json", headers=AUTHORIZED)).json()

    def unresolved(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node and node["$ref"].split("/")[-1] not in document["components"]["schemas"]:
                yield node["$ref"]
            for value in node.values():
                yield from unresolved(value)
        elif isinstance(node, list):
            for value in node:
                yield from unresolved(value)

    assert list(unresolved(document)) == []
    schemas = document["components"]["schemas"]
    assert {cls.__name__ for cls in BODIES} <= schemas.keys()
    assert schemas["JobRequest"]["additionalProperties"] is False
    assert schemas["JobRequest"]["properties"]["pods"]["items"] == {"$ref": "#/components/schemas/PodRequest"}
    submit = document["paths"][f"{V}/jobs"]["post"]
    assert submit["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JobRequest"}
    assert submit["responses"]["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/JobView"}
    assert submit["responses"]["4XX"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    assert "epoch" not in schemas["JobView"]["properties"].keys() | schemas["AttemptView"]["properties"].keys()


async def test_submit_accepts_every_field_as_the_client_writes_it(http: httpx.AsyncClient) -> None:
    request = JobRequest(command=("sleep", "1"), pods=(PodRequest(gpus=1, gpu_type="a100"),))

    answer = await http.post(f"{V}/jobs", content=wire.to_json(request), headers=AUTHORIZED)

    assert answer.status_code == 201, answer.text
    assert answer.json()["pods"][0]["gpus"] == 1
