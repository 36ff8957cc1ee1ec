"""The outside of Spark Connect messages: whose they are, written into bytes that are otherwise passed on as they came.

Each request has `user_context` as its field 2. A field that protobuf reads a second time is merged over the first, so what is
appended at the end decides. That holds only for a message that ends where it seems to, so its outermost fields are walked over
before.
Pure: bytes in, bytes out.
"""

from __future__ import annotations

from typing import Final

from tuttilab.scheduler.domain.errors import BadInput

SERVICE: Final = "/spark.connect.SparkConnectService/"
USER_CONTEXT: Final = 2
"""Number of this field in every request."""
MOST_FIELDS: Final = 20_000
"""Outermost fields of one message; Spark's own clients send about ten, and one for each tag."""
STREAMED_ANSWERS: Final = frozenset({"ExecutePlan", "ReattachExecute"})
STREAMED_REQUESTS: Final = frozenset({"AddArtifacts"})
METHODS: Final = STREAMED_ANSWERS | STREAMED_REQUESTS | {
    "AnalyzePlan",
    "ArtifactStatus",
    "CloneSession",
    "Config",
    "FetchErrorDetails",
    "GetStatus",
    "Interrupt",
    "ReleaseExecute",
    "ReleaseSession",
}  # fmt: skip
"""What is relayed; any other method is refused as unknown, because nobody has looked whose it would be."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BROKEN: Final = "This is no message of Spark Connect: its fields do not end where it ends."


def owner_field(owner: str) -> bytes:
    """`user_context` with this user's id and name, to be appended to a request."""
    name = owner.encode()
    context = _field(1, name) + _field(2, name)
    return _field(USER_CONTEXT, context)


def checked(message: bytes) -> bytes:
    """The message, of which nothing swallows what is appended. Raises BadInput."""
    place, end, fields = 0, len(message), 0
    while place < end:
        fields += 1
        if fields > MOST_FIELDS:
            raise BadInput(f"This message has more than {MOST_FIELDS:,} fields; send fewer tags.")
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _BYTES:
            length, place = _varint(message, place)
            place += length
        elif kind == _VARINT:
            _, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise BadInput(_BROKEN)  # groups, which Spark does not use
    if place != end:
        raise BadInput(_BROKEN)
    return message


def status_details(code: int, sentence: str) -> bytes:
    """A google.rpc.Status, which is what Spark's clients read a plain sentence from."""
    return _number(1 << 3) + _number(code) + _field(2, sentence.encode())


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(value)) + value


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number and the place after it. Raises BadInput."""
    value = shift = 0
    while shift < 64 and place < len(message):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise BadInput(_BROKEN)
