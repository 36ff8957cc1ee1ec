"""Whether a session can be reached, and what its proxy says when it cannot."""

from __future__ import annotations

import socket
from typing import Final

from tuttilab.magics.spark.errors import grpc_status, spark_condition
from tuttilab.magics.spark.session import SessionProvider, SparkEndpoint
from tuttilab.scheduler.domain.errors import TuttiError

REFUSALS: Final = ("UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNAVAILABLE")


def answers(endpoint: SparkEndpoint, provider: SessionProvider) -> bool:
    """Whether the session is there still. A proxy listens also when the session has ended."""
    if endpoint.is_proxied:
        return provider.is_live(endpoint)
    try:
        # A tenth of a millisecond, against seconds of retries by the client.
        with socket.create_connection((endpoint.host, endpoint.port), timeout=1.0):
            return True
    except OSError:
        return False


def refusal_of(error: BaseException, endpoint: SparkEndpoint, provider: SessionProvider) -> str | None:
    """What to show of a call that the session's proxy refused, empty when the session has ended; None for other errors."""
    status = grpc_status(error)
    if not endpoint.is_proxied or status not in REFUSALS or spark_condition(error) is not None:
        return None
    if status not in ("NOT_FOUND", "UNAVAILABLE"):
        return str(error)
    try:
        if not provider.is_live(endpoint):
            return ""
    except TuttiError as other:
        return f"The Spark session {endpoint.name} cannot be reached: neither its proxy nor the control plane answers ({other})."
    return f"The Spark session {endpoint.name} runs, but its proxy could not reach it: {str(error)[:300]}"
