"""The proxy between callers and sessions: whose call it is, what is passed on, what is refused, and how much of it there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from pyspark.sql.connect.proto import base_pb2 as messages

from tests.integration.spark_proxy.conftest import DETAILS, Sessions, environment_of
from tuttilab.scheduler.client import AsyncClient
from tuttilab.scheduler.spark.proxy.envelope import owner_field

pytestmark = [pytest.mark.tier("spark"), pytest.mark.timeout(700)]

AS_EVE = messages.UserContext(user_id="eve", user_name="eve")


async def refusal(call: Any) -> tuple[str, str]:  # Any: grpc has no types
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, str(caught.value.details())


async def first(answers: Any) -> Any:  # Any: as above
    async for answer in answers:
        return answer
    return None


@pytest.mark.feature("M01")
async def test_the_call_is_its_callers_whatever_the_message_says(sessions: Sessions) -> None:
    job_id, connect = await sessions.session("of-ann")
    stub, metadata = sessions.stub("of-ann", ("cookie", "a=b"), ("x-forwarded-user", "eve"))

    answer = await stub.Config(messages.ConfigRequest(session_id="s1", user_context=AS_EVE), metadata=metadata)

    assert answer.session_id == "s1"
    request, received = connect.asked[-1]
    assert (request.user_context.user_id, request.user_context.user_name, request.session_id) == ("ann", "ann", "s1")
    assert received["authorization"] == f"Bearer {sessions.secret(job_id)}"
    assert not {"cookie", "x-forwarded-user", "tuttilab-session"} & received.keys()
    call = stub.Config(messages.ConfigRequest(), metadata=metadata)
    await call
    assert not {key for key, _ in [*await call.initial_metadata(), *await call.trailing_metadata()]} & {"set-cookie", "x-secret"}


async def test_every_part_of_an_upload_is_the_callers(sessions: Sessions) -> None:
    _, connect = await sessions.session("of-ann")
    stub, metadata = sessions.stub("of-ann")

    async def parts() -> Any:
        for number in range(3):
            yield messages.AddArtifactsRequest(session_id=str(number), user_context=AS_EVE)

    await stub.AddArtifacts(parts(), metadata=metadata)

    assert [(request.session_id, request.user_context.user_id) for request, _ in connect.asked] == [(n, "ann") for n in "012"]


async def test_an_error_of_the_session_passes_with_its_details_and_nothing_else(sessions: Sessions) -> None:
    await sessions.session("of-ann")
    stub, metadata = sessions.stub("of-ann")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AnalyzePlan(messages.AnalyzePlanRequest(), metadata=metadata)

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "oh no")
    assert dict(caught.value.trailing_metadata()) == {"grpc-status-details-bin": DETAILS}


@pytest.mark.feature("M01")
async def test_who_may_not_is_told_why_in_one_sentence(sessions: Sessions) -> None:
    job_id, connect = await sessions.session("of-ann", "mine")
    ask = messages.ConfigRequest(user_context=messages.UserContext(user_id="ann"))
    tries = {
        "no token": (None, "mine", ""),
        "wrong": ("of-nobody", "mine", ""),
        "another user": ("of-eve", "mine", ""),
        "viewer": ("of-vic", "mine", ""),
        "no such session": ("of-ann", "other", ""),
        "a session before": ("of-ann", "mine", "abcdef"),
        "long name": ("of-ann", "m" * 254, ""),
        "long token": ("t" * 4097, "mine", ""),
    }
    found = {}
    for name, (token, session, job) in tries.items():
        stub, metadata = sessions.stub(token or "", ("tuttilab-session", session), ("tuttilab-job", job))
        if token is None:
            metadata = metadata[1:]
        found[name] = await refusal(stub.Config(ask, metadata=metadata))

    assert found == {
        "no token": ("UNAUTHENTICATED", "There is no token; send the hub's or the local one as `authorization: Bearer TOKEN`."),
        "wrong": ("UNAUTHENTICATED", "This token is not known."),
        "another user": ("NOT_FOUND", "There is no Spark session 'mine'; `%spark start mine` starts one."),
        "viewer": ("PERMISSION_DENIED", "vic may read and change nothing, and so runs nothing on Spark."),
        "no such session": ("NOT_FOUND", "There is no Spark session 'other'; `%spark start other` starts one."),
        "a session before": ("NOT_FOUND", "The Spark session 'mine' has ended, and another of that name was started since."),
        "long name": (
            "INVALID_ARGUMENT",
            "tuttilab-session: it is longer than 253 characters; expected the name of a Spark session or its job's id.",
        ),
        "long token": ("UNAUTHENTICATED", "The token is longer than 4096 characters, which none is."),
    }
    assert connect.asked == []
    secret = sessions.secret(job_id)
    async with AsyncClient(sessions.site.url, "of-ann") as ann, httpx.AsyncClient(base_url=sessions.site.url) as http:
        # Neither a user's token nor the proxy's alone opens a session's secret.
        for token, user in (("of-ann", "of-ann"), (sessions.site.service.secrets.proxy_token(), "of-eve")):
            asked = {"token": user, "session": "mine"}
            answer = await http.post("/api/v1/spark/routes", json=asked, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code in (401, 404)
            assert secret not in answer.text
        assert (await ann.spark_endpoint("mine")).token  # this control plane runs no proxy: its owner connects directly
    assert secret.encode() not in environment_of(sessions.proxy.pid)


async def test_a_session_that_ends_is_told_to_who_calls_next(sessions: Sessions) -> None:
    _, _ = await sessions.session("of-ann")
    stub, metadata = sessions.stub("of-ann")
    await stub.Config(messages.ConfigRequest(), metadata=metadata)
    async with AsyncClient(sessions.site.url, "of-ann") as ann:
        await ann.spark_stop("default")
    await sessions.servers[0].stop(None)

    found = await refusal(stub.Config(messages.ConfigRequest(), metadata=metadata))

    assert found == ("NOT_FOUND", "There is no Spark session 'default'; `%spark start default` starts one.")


async def test_who_was_connected_is_told_at_once_that_the_session_is_started_again(sessions: Sessions) -> None:
    job_id = await sessions.unready("of-ann", "early")
    found = {}
    for name, job in (("a new caller", ""), ("one that was connected", job_id)):
        stub, metadata = sessions.stub("of-ann", ("tuttilab-session", "early"), ("tuttilab-job", job))
        code, sentence = await refusal(stub.Config(messages.ConfigRequest(), metadata=metadata))
        found[name] = code, sentence.partition(":")[0]

    assert found == {
        "a new caller": ("UNAVAILABLE", "Spark session 'early' is not ready yet"),
        "one that was connected": ("NOT_FOUND", "The Spark session 'early' was lost and is being started again."),
    }


async def test_a_session_that_does_not_answer_is_told_to_be_tried_again(sessions: Sessions) -> None:
    await sessions.session("of-ann")
    await sessions.servers[0].stop(None)
    stub, metadata = sessions.stub("of-ann")

    found = await refusal(stub.Config(messages.ConfigRequest(), metadata=metadata))

    assert found == ("UNAVAILABLE", "The server of this Spark session does not answer; try again in a moment.")


async def test_messages_that_would_swallow_the_owner_are_refused(sessions: Sessions) -> None:
    _, connect = await sessions.session("of-ann")
    channel = grpc.aio.insecure_channel(sessions.target)
    config = channel.unary_unary("/spark.connect.SparkConnectService/Config")
    as_eve = messages.ConfigRequest(user_context=AS_EVE).SerializeToString()
    length = len(owner_field("ann"))
    broken = {
        "a field that goes on": as_eve + bytes([0xFA, 0x3E, length]),
        "a group that does not end": as_eve + bytes([0xFB, 0x3E]),
        "a number that does not end": as_eve + bytes([0xF8, 0x3E, 0x80]),
        "a length beyond all": as_eve + bytes([0xFA, 0x3E, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        "fields without end": as_eve + b"\x08\x00" * 30_000,
    }
    for name, message in broken.items():
        found = await refusal(config(message, metadata=[("authorization", "Bearer of-ann")]))
        assert found[0] == "INVALID_ARGUMENT", (name, found)

    upload = channel.stream_unary("/spark.connect.SparkConnectService/AddArtifacts")
    found = await refusal(upload(iter([as_eve + bytes([0xFA, 0x3E, length])]), metadata=[("authorization", "Bearer of-ann")]))
    assert found[0] == "INVALID_ARGUMENT", found
    assert connect.asked == []
    unknown = channel.unary_unary("/spark.connect.SparkConnectService/DropEverything")
    assert (await refusal(unknown(b"", metadata=[("authorization", "Bearer of-ann")])))[0] == "UNIMPLEMENTED"


async def test_calls_of_one_user_are_counted_and_those_of_others_go_on(sessions: Sessions) -> None:
    _, anns = await sessions.session("of-ann")
    await sessions.session("of-eve")
    ann, ann_metadata = sessions.stub("of-ann")
    eve, eve_metadata = sessions.stub("of-eve")
    held = [ann.ExecutePlan(messages.ExecutePlanRequest(), metadata=ann_metadata) for _ in range(64)]
    for call in held:
        assert (await first(call)).response_id == "1"

    status, sentence = await refusal(ann.Config(messages.ConfigRequest(), metadata=ann_metadata))

    assert (status, sentence.startswith("ann has 64 Spark calls under way at once")) == ("RESOURCE_EXHAUSTED", True)
    await eve.Config(messages.ConfigRequest(), metadata=eve_metadata)
    async with httpx.AsyncClient() as http:
        text = (await http.get(sessions.metrics)).text
        assert (await http.get(sessions.metrics.replace("metrics", "else"))).status_code == 404
    assert "tuttilab_spark_proxy_calls 64\n" in text
    assert 'tuttilab_spark_proxy_calls_total{method="Config",status="RESOURCE_EXHAUSTED"} 1' in text
    for call in held:
        call.cancel()
    async with asyncio.timeout(60):
        await anns.cancelled.wait()  # who stops reading ends the call of the session too
        while True:
            try:
                await ann.Config(messages.ConfigRequest(), metadata=ann_metadata)
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def test_messages_above_the_cap_are_refused_both_ways(sessions: Sessions) -> None:
    _, connect = await sessions.session("of-ann")
    big = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    stub, metadata = sessions.stub("of-ann", options=big)
    text = "x" * (129 * 2**20)

    status, sentence = await refusal(stub.Config(messages.ConfigRequest(client_type=text), metadata=metadata))

    assert (status, "larger than max" in sentence, connect.asked) == ("RESOURCE_EXHAUSTED", True, [])
    connect.size = 129 * 2**20
    connect.release.set()
    answers = stub.ExecutePlan(messages.ExecutePlanRequest(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in answers:
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    connect.size = 10
    assert (await stub.Config(messages.ConfigRequest(session_id="s"), metadata=metadata)).session_id == "s"
