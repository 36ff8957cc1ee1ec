"""Whose a message is, written into its bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql.connect.proto import base_pb2 as messages

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark.proxy.envelope import (
    METHODS,
    STREAMED_ANSWERS,
    STREAMED_REQUESTS,
    USER_CONTEXT,
    checked,
    owner_field,
)

SERVICE = messages.DESCRIPTOR.services_by_name["SparkConnectService"]


def test_the_methods_are_those_of_spark_and_all_have_the_user_at_the_same_place() -> None:
    assert {method.name for method in SERVICE.methods} == METHODS
    assert {method.name for method in SERVICE.methods if method.server_streaming} == STREAMED_ANSWERS
    assert {method.name for method in SERVICE.methods if method.client_streaming} == STREAMED_REQUESTS
    assert {method.input_type.fields_by_name["user_context"].number for method in SERVICE.methods} == {USER_CONTEXT}


@given(st.text(min_size=1, max_size=300), st.text(max_size=300), st.lists(st.text(max_size=20), max_size=30))
def test_the_owner_replaces_whoever_the_message_names_and_nothing_else(owner: str, claimed: str, tags: list[str]) -> None:
    given_ = messages.ExecutePlanRequest(
        session_id="s", user_context=messages.UserContext(user_id=claimed, user_name=claimed), tags=tags, operation_id="o"
    )

    found = messages.ExecutePlanRequest.FromString(checked(given_.SerializeToString()) + owner_field(owner))

    given_.user_context.user_id = given_.user_context.user_name = owner
    assert found == given_


@given(st.binary(max_size=200))
def test_what_passes_is_read_by_protobuf_with_the_owner(noise: bytes) -> None:
    begin = messages.ConfigRequest(user_context=messages.UserContext(user_id="eve")).SerializeToString()
    try:
        message = checked(begin + noise)
    except BadInput:
        return
    try:
        found = messages.ConfigRequest.FromString(message + owner_field("ann"))
    except DecodeError:
        return  # Spark refuses it too
    assert found.user_context.user_id == "ann"


@pytest.mark.parametrize("tail", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x08", b"\x08\x80", b"\x09\x00", b"\x0d\x00", b"\x80" * 11])
def test_what_does_not_end_is_refused(tail: bytes) -> None:
    with pytest.raises(BadInput, match="its fields do not end where it ends"):
        checked(tail)
