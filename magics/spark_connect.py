"""The kernel's end of Spark Connect: opening a session, watching its operations, stopping them, and taking one up again.

Spark's own channel builder insists on TLS as soon as there is a token and the host is not spelled `localhost`; ours
sends the token in clear text over loopback only. Two more things differ from a plain client. Every operation that
starts passes a hook, so that all operations of a cell carry the cell's tag, from whatever thread, and are written down
before they start. And the client does not tell the server to forget a part of a result as soon as it arrived: a kernel
that dies half-way leaves the whole result for the next one.
"""

from __future__ import annotations

import getpass
import ipaddress
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import grpc
import pandas as pd
import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql.connect.client.core import ChannelBuilder
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.dataframe import DataFrame as ConnectDataFrame
from pyspark.sql.connect.functions import builtin as functions
from pyspark.sql.connect.proto import base_pb2 as messages
from pyspark.sql.connect.session import SparkSession
from pyspark.sql.pandas.conversion import _convert_arrow_table_to_pandas
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from tuttilab.magics.spark_session import SessionProvider, SessionRequest, SparkEndpoint, SparkSessionInfo

__all__ = [
    "DataFrame",
    "Fetched",
    "Operation",
    "OperationGone",
    "SessionProvider",
    "SessionRequest",
    "SparkEndpoint",
    "SparkSession",
    "SparkSessionInfo",
    "Watcher",
    "arrow_batches",
    "fetch",
    "fetch_again",
    "is_frame",
    "map_literal",
    "open_session",
    "operations",
    "sees_file",
    "user_id",
]

# Spark's Python client writes each failed query to stderr as 10 KB of JSON; the cell shows the error already.
logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)
# The cell says that the session has ended; a warning about retries before it explains nothing.
warnings.filterwarnings("ignore", message=r"\[RETRIES_EXCEEDED\]")


@dataclass(frozen=True)
class Operation:
    """One execution on the server. `gives_result` is true for a query whose rows come back to the kernel."""

    operation_id: str
    gives_result: bool


class Watcher(Protocol):
    """Told of every operation before it is sent; returns the tags that it shall carry."""

    def starting(self, operation: Operation) -> Iterable[str]: ...


def open_session(
    endpoint: SparkEndpoint, watcher: Watcher | None = None, user_agent: str = "tuttilab", session_id: str | None = None
) -> SparkSession:
    """A session on the endpoint's server; nothing is sent yet, so a wrong token shows at the first operation.

    `session_id` joins a session that another kernel opened.
    """
    # pyspark.sql.functions asks this variable which of its two implementations to use.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    hooks = [] if watcher is None else [lambda _session: _Hook(watcher)]
    session = SparkSession(connection=_Channel(endpoint, user_agent, session_id), hook_factories=hooks)  # type: ignore[arg-type]  # any ChannelBuilder does
    # A server that is gone is reported within seconds: the default keeps trying for ten minutes.
    session.client.set_retry_policies([DefaultPolicy(max_retries=6, max_backoff=2000)])
    SparkSession._set_default_and_active_session(session)
    return session


def user_id() -> str:
    """The name under which sessions are kept on the server; the proxy replaces it by the authenticated one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "jovyan"


@dataclass(frozen=True)
class Fetched:
    """A whole result in the kernel: Arrow data as it came, with Spark's types."""

    session: SparkSession
    raw: pa.Table
    schema: StructType

    def arrow(self) -> pa.Table:
        """As `DataFrame.toArrow()`: times in UTC."""
        return self.raw.cast(_arrow_schema(self.schema))

    def pandas(self) -> pd.DataFrame:
        """As `DataFrame.toPandas()`: times in the session's zone, decimals and dates as Python objects."""
        zone, structs = self.session.client.get_configs(
            "spark.sql.session.timeZone", "spark.sql.execution.pandas.structHandlingMode"
        )
        frame: pd.DataFrame = _convert_arrow_table_to_pandas(self.raw, self.schema, timezone=zone, struct_handling_mode=structs)
        return frame


def is_frame(value: object) -> TypeGuard[DataFrame]:
    """Whether a value is a DataFrame of Spark Connect; those of an in-process Spark are not ours to run."""
    return isinstance(value, ConnectDataFrame)


def fetch(frame: DataFrame) -> Fetched:
    """All rows of a DataFrame by one request; `toArrow` and `toPandas` need two and three."""
    remote = cast(ConnectDataFrame, frame)
    session = remote.sparkSession
    plan = remote._plan.to_proto(session.client)
    table, schema, _ = session.client.to_table(plan, remote._plan.observations)
    return Fetched(session, table, schema if schema is not None else _spark_schema(table))


def arrow_batches(frame: DataFrame) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The Arrow schema of a DataFrame and its rows, batch by batch in order, holding no more than a batch."""
    schema = _arrow_schema(frame.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        remote = cast(ConnectDataFrame, frame)
        client = remote.sparkSession.client
        for item in client.to_table_as_iterator(remote._plan.to_proto(client), remote._plan.observations):
            if isinstance(item, pa.Table):
                yield from item.cast(schema).to_batches()

    return schema, batches()


def sees_file(frame: DataFrame, path: Path) -> bool:
    """Whether the processes of the frame's session find this file of ours: their disk may be another one."""
    try:
        return frame.sparkSession.read.text(path.as_uri()).limit(1).count() == 1
    except AnalysisException:
        return False


def map_literal(pairs: Iterable[tuple[object, object]]) -> Column:
    """A MAP of SQL; `lit` itself takes no dict."""
    return functions.create_map(*(functions.lit(part) for pair in pairs for part in pair))


def operations(session: SparkSession) -> list[tuple[str, str]]:
    """Each operation that the server knows of this session, with its state in lower case."""
    response = session.client._get_operation_statuses()
    names = messages.GetStatusResponse.OperationStatus.OperationState
    return [
        (status.operation_id, names.Name(status.state).removeprefix("OPERATION_STATE_").lower())
        for status in response.operation_statuses
    ]


class OperationGone(Exception):
    """The server no longer has the operation: it was fetched already, or given up, or the server was started anew."""


def fetch_again(session: SparkSession, operation_id: str) -> Fetched | None:
    """Wait for an operation that another kernel started and get its result from the start; None if it gives no rows.

    `session` must have been opened with the session id of that kernel. Raises OperationGone, or the operation's error.
    """
    client = session.client
    request = client._execute_plan_request_with_metadata(operation_id)
    inner = client._stub
    client._stub = _ReattachingStub(inner, operation_id)  # type: ignore[assignment]  # stands in for the generated stub
    try:
        table, schema, _, _, _ = client._execute_and_fetch(request, {})
    finally:
        client._stub = inner
    if table is None:
        return None
    return Fetched(session, table, schema if schema is not None else _spark_schema(table))


class _ReattachingStub:
    """Passes everything on, but answers ExecutePlan of one operation with ReattachExecute."""

    def __init__(self, stub: Any, operation_id: str) -> None:  # Any: generated class without types
        self._stub = stub
        self._operation_id = operation_id
        self._attached = False

    def __getattr__(self, name: str) -> Any:  # Any: as above
        return getattr(self._stub, name)

    def ExecutePlan(self, request: messages.ExecutePlanRequest, **options: Any) -> Any:  # Any: as above
        if self._attached:  # the client tries once more when the server does not know the operation
            raise OperationGone(f"Operation {self._operation_id} is no longer known to the session.")
        self._attached = True
        reattach = messages.ReattachExecuteRequest(
            session_id=request.session_id,
            user_context=request.user_context,
            operation_id=request.operation_id,
            client_type=request.client_type,
        )
        return self._stub.ReattachExecute(reattach, **options)


class _Hook(SparkSession.Hook):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_execute_plan(self, request: messages.ExecutePlanRequest) -> messages.ExecutePlanRequest:
        operation = Operation(request.operation_id, request.plan.HasField("root"))
        for tag in self._watcher.starting(operation):
            if tag not in request.tags:
                request.tags.append(tag)
        return request


class _Channel(ChannelBuilder):
    """Token as metadata; clear text on loopback, TLS elsewhere."""

    def __init__(self, endpoint: SparkEndpoint, user_agent: str, session_id: str | None) -> None:
        params = {self.PARAM_USER_ID: user_id(), self.PARAM_USER_AGENT: user_agent}
        if session_id is not None:
            params[self.PARAM_SESSION_ID] = session_id
        super().__init__(params=params)
        self._endpoint = endpoint
        self.add_interceptor(_KeepResults())

    @property
    def host(self) -> str:
        return self._endpoint.host

    @property
    def token(self) -> str | None:
        return None  # sent by metadata(); Spark's own way would insist on TLS

    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self._endpoint.token}")]

    def toChannel(self) -> grpc.Channel:
        target = f"{self._endpoint.host}:{self._endpoint.port}"
        if _is_loopback(self._endpoint.host):
            return self._insecure_channel(target)
        return self._secure_channel(target, grpc.ssl_channel_credentials())


class _KeepResults(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Drops "forget what I have read so far"; the final "forget all of it" passes."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:  # Any: grpc has no types
        if isinstance(request, messages.ReleaseExecuteRequest) and request.HasField("release_until"):
            return _Answered()
        return continuation(details, request)


class _Answered:
    """A call that is over; the client asks for nothing but its result."""

    def result(self) -> messages.ReleaseExecuteResponse:
        return messages.ReleaseExecuteResponse()


def _arrow_schema(schema: StructType) -> pa.Schema:
    return to_arrow_schema(schema, error_on_duplicated_field_names_in_struct=True, timezone="UTC")


def _spark_schema(table: pa.Table) -> StructType:
    return from_arrow_schema(table.schema, prefer_timestamp_ntz=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
