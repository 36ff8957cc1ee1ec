"""Tokens of pods at the real control plane: a master reports for its gang, a single pod for itself, and none for another."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import TOKEN, Site
from tests.integration.api.test_routes import RULES, V, concrete
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.domain.model import Attempt, AttemptPhase
from tuttilab.scheduler.domain.requests import JobRequest, PodRequest
from tuttilab.scheduler.domain.titles import title
from tuttilab.sidecar.protocol import CLAIM, pod_token

GANG = JobRequest(name="gang", command=("sleep", "600"), pods=(PodRequest(count=2),))
SINGLE = JobRequest(name="single", command=("sleep", "600"))


async def running(site: Site, client: AsyncClient, job: JobRequest) -> Attempt:
    accepted = await client.submit(job)
    async with asyncio.timeout(60):
        while True:
            attempt = site.service.state.live_attempt(accepted.id)
            if attempt is not None and attempt.phase is AttemptPhase.RUNNING:
                return attempt
            await asyncio.sleep(0.02)


@pytest.fixture
async def gang(site: Site, client: AsyncClient) -> Attempt:
    return await running(site, client, GANG)


@pytest.fixture
async def single(site: Site, client: AsyncClient) -> Attempt:
    return await running(site, client, SINGLE)


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, timeout=150) as http:
        yield http


def token_of(site: Site, attempt: Attempt, place: int, number: int | None = None, epoch: int | None = None) -> str:
    """The token of the pod at that place; with another attempt number or epoch if given."""
    pod = attempt.pods[place]
    key = site.service.secrets.attempt_key(
        attempt.job_id, attempt.number if number is None else number, attempt.epoch if epoch is None else epoch
    )
    return pod_token(key, pod.rank, pod.name)


def end_report(attempt: Attempt, *places: int, seq: int = 1) -> dict[str, Any]:
    """A report that these pods of the attempt have ended."""
    members = [
        {"pod": pod.name, "rank": pod.rank, "uid": pod.uid, "phase": "Ended", "exit_code": 9, "reason": "Error"}
        for pod in (attempt.pods[place] for place in places)
    ]
    return {"job_id": attempt.job_id, "attempt": attempt.number, "epoch": attempt.epoch, "seq": seq, "members": members}


def claim_of(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in CLAIM}


async def report(http: httpx.AsyncClient, body: dict[str, Any], token: str | None) -> tuple[int, str]:
    headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode("latin-1")}
    answer = await http.post(f"{V}/pods/report", params=claim_of(body), json=body, headers=headers)
    return answer.status_code, answer.json().get("type", "")


async def test_only_the_master_reports_for_its_gang(site: Site, http: httpx.AsyncClient, gang: Attempt, single: Attempt) -> None:
    (master, first, second), alone = (token_of(site, gang, place) for place in range(3)), token_of(site, single, 0)
    signature, _, _ = second.partition(".")
    unknown, closed = (401, "unauthenticated"), (403, "forbidden")
    tries = {
        "a member, as the gang": (second, end_report(gang, 1, 2), closed),
        "a member, of another": (second, end_report(gang, 1), closed),
        "a member, of itself": (second, end_report(gang, 2), closed),
        "a member, of nobody": (first, end_report(gang), closed),
        "another job": (alone, end_report(gang, 1), unknown),
        "another job's master": (master, end_report(single, 0), unknown),
        "another attempt": (token_of(site, gang, 0, number=2), end_report(gang, 1), unknown),
        "another attempt, as that": (token_of(site, gang, 0, number=2), end_report(gang, 1) | {"attempt": 2}, (404, "not-found")),
        "another epoch": (token_of(site, gang, 0, epoch=7), end_report(gang, 1), unknown),
        "another epoch, as that": (token_of(site, gang, 0, epoch=7), end_report(gang, 1) | {"epoch": 7}, (404, "not-found")),
        "the signature, as the master": (f"{signature}.-1.{gang.pods[0].name}", end_report(gang, 1), unknown),
        "the signature, another rank": (f"{signature}.0.{gang.pods[2].name}", end_report(gang, 1), unknown),
        "the signature alone": (signature, end_report(gang, 1), unknown),
        "who, without a signature": (f".-1.{gang.pods[0].name}", end_report(gang, 1), unknown),
        "letters of any kind": ("gr\xfcn.-1.\xe9", end_report(gang, 1), unknown),
        "a user": (TOKEN, end_report(gang, 1), unknown),
        "nobody": (None, end_report(gang, 1), unknown),
        "a single, of another job's pod": (alone, end_report(single, 0) | {"members": end_report(gang, 1)["members"]}, closed),
    }

    answers = {name: await report(http, body, token) for name, (token, body, _) in tries.items()}

    assert answers == {name: expected for name, (_, _, expected) in tries.items()}
    assert {pod.phase for attempt in (gang, single) for pod in site.service.state.attempts[attempt.job_id, 1].pods} == {"Running"}
    assert await report(http, end_report(gang, 1), master) == (200, "")
    assert await report(http, end_report(single, 0), alone) == (200, "")
    assert site.service.state.attempts[gang.job_id, 1].pods[1].exit_code == 9
    assert site.service.state.attempts[single.job_id, 1].pods[0].exit_code == 9


async def test_a_refused_report_does_not_advance_the_sequence_number(site: Site, http: httpx.AsyncClient, gang: Attempt) -> None:
    assert (await report(http, end_report(gang, 1, seq=10**9), token_of(site, gang, 1)))[0] == 403

    assert await report(http, end_report(gang, 1, seq=1), token_of(site, gang, 0)) == (200, "")
    assert site.service.state.attempts[gang.job_id, 1].pods[1].exit_code == 9


async def test_a_pods_token_opens_no_other_route(site: Site, http: httpx.AsyncClient, gang: Attempt) -> None:
    others = [(method, path) for (method, path), rule in RULES.items() if rule == "user"]
    tokens = [token_of(site, gang, place) for place in range(3)]

    answers = {
        (method, path): (await http.request(method, re.sub("abcdef", gang.job_id, concrete(path)), headers=headers)).status_code
        for method, path in others
        for headers in ({"Authorization": f"Bearer {token}"} for token in tokens)
    }

    assert {route: status for route, status in answers.items() if status != 401} == {}
    assert len(answers) == len(others) > 30


async def test_reports_of_a_pod_that_left_its_gang_are_refused(site: Site, http: httpx.AsyncClient, single: Attempt) -> None:
    pod = single.pods[0]
    former = pod_token(site.service.secrets.attempt_key(single.job_id, 1, single.epoch), 5, f"{pod.name}-g1")

    assert await report(http, end_report(single, 0), former) == (404, "not-found")


@pytest.mark.feature("B30")
async def test_a_refused_report_names_job_and_pod(site: Site, http: httpx.AsyncClient, gang: Attempt, single: Attempt) -> None:
    async def said(body: dict[str, Any], token: str) -> str:
        answer = await http.post(f"{V}/pods/report", params=claim_of(body), json=body, headers={"Authorization": f"Bearer {token}"})
        return str(answer.json()["detail"])

    former = pod_token(site.service.secrets.attempt_key(single.job_id, 1, single.epoch), 5, f"{single.pods[0].name}-g1")
    over = end_report(gang, 1) | {"attempt": 2}
    refusals = [
        await said(over, token_of(site, gang, 0, number=2)),
        await said(end_report(single, 0), former),
        await said(end_report(gang, 2), token_of(site, gang, 2)),
    ]

    names = {attempt.job_id: title(site.service.state.jobs[attempt.job_id]) for attempt in (gang, single)}
    assert refusals == [
        f"Attempt 2 of job {names[gang.job_id]} is over; nobody waits for its reports.",
        f"The worker 0 is no part of attempt 1 of job {names[single.job_id]} any more.",
        "The worker 1 is a member of a gang; it reports to its master.",
    ]


async def test_tokens_are_the_same_after_a_restart(site: Site, http: httpx.AsyncClient, gang: Attempt) -> None:
    before = [token_of(site, gang, place) for place in range(3)]
    await site.stop()
    await site.start()

    assert site.service.state.epoch != gang.epoch
    again = site.service.state.live_attempt(gang.job_id)
    assert again is not None
    assert [token_of(site, again, place) for place in range(3)] == before
    assert (await report(http, end_report(again), before[0]))[0] == 200
