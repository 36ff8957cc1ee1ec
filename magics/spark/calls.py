"""The calls of a Spark Connect client on their way out: who makes them, what they keep, and how all of them end at once.

A channel is closed only when nothing uses it any more: gRPC crashes the process when a call begins on one that was closed.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import grpc
from pyspark.sql.connect.proto import base_pb2 as messages

from tuttilab.magics.spark.errors import SessionGone
from tuttilab.magics.spark.session import SparkEndpoint


class Gate:
    """Through which all calls of a session go. Once it is shut, running queries end and no call begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: weakref.WeakSet[Any] = weakref.WeakSet()  # Any: grpc has no types
        self._is_shut = False
        self.no_functions = ""
        """Why functions of Python may not be sent; empty where they may."""

    def shut(self) -> None:
        """From any thread. Calls with one answer end by themselves."""
        with self._lock:
            self._is_shut = True
            running = list(self._running)
        for call in running:
            call.cancel()

    def check(self) -> None:
        """Raises SessionGone."""
        if self._is_shut:
            raise SessionGone("The Spark session has ended.")

    def add(self, call: Any) -> None:  # Any: as above
        """A call that may run for long."""
        with self._lock:
            self._running.add(call)
            is_late = self._is_shut
        if is_late:
            call.cancel()


class AsCaller(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):  # type: ignore[misc]
    """Says who calls, with the token that is valid at that moment: a local control plane has another after a restart."""

    def __init__(self, endpoint: SparkEndpoint, gate: Gate) -> None:
        self._endpoint = endpoint
        self._gate = gate

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:  # Any: grpc has no types
        mine = self._endpoint.metadata()
        details = details._replace(metadata=[*(details.metadata or ()), *mine])
        self._gate.check()
        return continuation(details, request)

    intercept_unary_unary = intercept_stream_unary = _call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:  # Any: as above
        call = self._call(continuation, details, request)
        self._gate.add(call)
        return call


class KeepResults(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Drops releases of the parts read so far; the final release of the whole result passes."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # Any: grpc has no types
        if isinstance(request, messages.ReleaseExecuteRequest) and request.HasField("release_until"):
            return _FinishedCall()
        return continuation(details, request)


class _FinishedCall:
    """A finished call; the client uses nothing but its result."""

    def result(self) -> messages.ReleaseExecuteResponse:
        return messages.ReleaseExecuteResponse()
