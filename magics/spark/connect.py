"""The Spark Connect client of a kernel: opens sessions, watches, stops and reattaches to operations.

Spark's channel builder insists on TLS as soon as there is a token and the host is not spelled `localhost`; ours sends the
token in clear text over loopback only. Two more differences to a plain client: every operation passes a hook before it
starts, so that all operations of a cell carry the cell's tag, from any thread, and are recorded; and the client does not
release the parts of a result as they arrive, so that a kernel that dies midway leaves the whole result for the next one.
"""

from __future__ import annotations

import getpass
import ipaddress
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard, cast

import grpc
import pandas as pd
import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql.connect.client.artifact import Artifact, InMemory
from pyspark.sql.connect.client.core import ChannelBuilder
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.dataframe import DataFrame as ConnectDataFrame
from pyspark.sql.connect.functions import builtin as functions
from pyspark.sql.connect.plan import SQL, SubqueryAlias
from pyspark.sql.connect.proto import base_pb2 as messages
from pyspark.sql.connect.session import SparkSession
from pyspark.sql.connect.sql_formatter import SQLStringFormatter
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import DataType, DayTimeIntervalType, StructType, VariantType, YearMonthIntervalType

from tuttilab.magics.spark.calls import AsCaller, Gate, KeepResults
from tuttilab.magics.spark.data.forms import arrow_schema, readable, to_pandas
from tuttilab.magics.spark.plans import FromHere, OfOnePython
from tuttilab.magics.spark.session import SessionProvider, SessionRequest, SparkEndpoint, SparkSessionInfo

__all__ = [
    "DataFrame",
    "Fetched",
    "Gate",
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
    "intervals_as_text",
    "is_frame",
    "is_loopback",
    "local_frame",
    "not_run",
    "open_session",
    "operations",
    "sees_file",
    "send_classes",
    "user_id",
    "versions_of",
]

# Spark's Python client writes each failed query to stderr as 10 KB of JSON; the cell shows the error already.
logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)
# The cell reports that the session has ended; a warning about retries adds nothing.
warnings.filterwarnings("ignore", message=r"\[RETRIES_EXCEEDED\]")


@dataclass(frozen=True)
class Operation:
    """One execution on the server. `gives_result` is true for a query whose rows come back to the kernel."""

    operation_id: str
    gives_result: bool
    views: tuple[str, ...] = ()
    """Temporary views that it makes."""


class Watcher(Protocol):
    """Called with every operation before it is sent; returns the operation's tags."""

    def starting(self, operation: Operation) -> Iterable[str]: ...


def open_session(
    endpoint: SparkEndpoint,
    watcher: Watcher | None = None,
    user_agent: str = "tuttilab",
    session_id: str | None = None,
    module_path: Callable[[], Sequence[str]] = tuple,
    gate: Gate | None = None,
) -> SparkSession:
    """Opens a session on the endpoint's server. Nothing is sent yet, so a wrong token shows at the first operation.

    `session_id` joins a session that another kernel opened. `module_path`: folders where Spark's Python finds modules too.
    `gate`: ends its calls.
    """
    # pyspark.sql.functions chooses its implementation by this variable.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    hooks = [] if watcher is None else [lambda _session: _Hook(watcher)]
    channel = _Channel(endpoint, user_agent, session_id, module_path, gate or Gate())
    session = SparkSession(connection=channel, hook_factories=hooks)  # type: ignore[arg-type]  # any ChannelBuilder does
    # A lost server is reported within seconds: the default retries for ten minutes.
    # A proxy is started again when it has died; that a session has ended it says at once.
    session.client.set_retry_policies([DefaultPolicy(max_retries=62 if endpoint.is_proxied else 14, max_backoff=500)])
    # PySpark keeps one that has ended, and then knows no session: `udf(f, "long")` would fail in the next one.
    if SparkSession._get_default_session() is None:
        SparkSession._default_session = None
    if SparkSession.getActiveSession() is None:
        SparkSession._active_session.session = None
    SparkSession._set_default_and_active_session(session)
    return session


def user_id() -> str:
    """The user name for sessions on the server; the proxy replaces it by the authenticated one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "jovyan"


@dataclass(frozen=True)
class Fetched:
    """A whole result: Arrow data as received, with Spark's types."""

    session: SparkSession
    raw: pa.Table
    schema: StructType

    def arrow(self) -> pa.Table:
        """As `DataFrame.toArrow()`: times in UTC; a column of nothing but NULL is text."""
        return readable(self.raw, self.schema)

    def pandas(self) -> pd.DataFrame:
        """As `DataFrame.toPandas()`: times in the session's zone, decimals and dates as Python objects.

        Unlike there, whole numbers stay whole beside NULL (Int64), and times beyond pandas' nanoseconds keep microseconds.
        """
        zone, structs = self.session.client.get_configs(
            "spark.sql.session.timeZone", "spark.sql.execution.pandas.structHandlingMode"
        )
        return to_pandas(self.raw, self.schema, str(zone), str(structs))


def is_frame(value: object) -> TypeGuard[DataFrame]:
    """Whether a value is a DataFrame of Spark Connect; DataFrames of an in-process Spark are not supported."""
    return isinstance(value, ConnectDataFrame)


def fetch(frame: DataFrame) -> Fetched:
    """All rows of a DataFrame by one request; `toArrow` and `toPandas` need two and three."""
    remote = cast(ConnectDataFrame, frame)
    session = remote.sparkSession
    plan = remote._plan.to_proto(session.client)
    table, schema, _ = session.client.to_table(plan, remote._plan.observations)
    if schema is not None and any(isinstance(field.dataType, YearMonthIntervalType) for field in schema.fields):
        return fetch(intervals_as_text(frame, schema))  # Arrow's own library cannot read them.
    return Fetched(session, table, schema if schema is not None else _spark_schema(table))


def intervals_as_text(frame: DataFrame, schema: StructType, is_for_file: bool = False) -> DataFrame:
    """The frame with its columns of intervals of months as SQL writes them; for a file also those of days, and variants as JSON."""
    kinds = (YearMonthIntervalType, DayTimeIntervalType, VariantType) if is_for_file else (YearMonthIntervalType,)
    if not any(isinstance(field.dataType, kinds) for field in schema.fields):
        return frame
    # By place: names may be there twice.
    renamed = frame.toDF(*(f"_{place}" for place in range(len(schema.fields))))
    columns = [renamed[f"_{place}"] for place in range(len(schema.fields))]
    return renamed.select(
        *(
            (_as_text(column, field.dataType) if isinstance(field.dataType, kinds) else column).alias(field.name)
            for field, column in zip(schema.fields, columns, strict=True)
        )
    )


def _as_text(column: Column, kind: DataType) -> Column:
    return functions.to_json(column) if isinstance(kind, VariantType) else column.cast("string")


def arrow_batches(frame: DataFrame) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The Arrow schema of a DataFrame and its rows, batch by batch in order, holding no more than a batch."""
    schema = arrow_schema(frame.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        remote = cast(ConnectDataFrame, frame)
        client = remote.sparkSession.client
        for item in client.to_table_as_iterator(remote._plan.to_proto(client), remote._plan.observations):
            if isinstance(item, pa.Table):
                yield from item.cast(schema).to_batches()

    return schema, batches()


def sees_file(frame: DataFrame, path: Path) -> bool:
    """Whether the processes of the frame's session can read this local file: they may have another disk."""
    try:
        return frame.sparkSession.read.text(path.as_uri()).limit(1).count() == 1
    except AnalysisException:
        return False


def local_frame(session: SparkSession, table: pa.Table) -> DataFrame:
    """A frame of rows that travel with the query. Times without a zone are TIMESTAMP_NTZ."""
    return session.createDataFrame(table, schema=_spark_schema(table))


def not_run(session: SparkSession, text: str, values: Mapping[str, Any], views: Mapping[str, Any]) -> DataFrame:  # Any: literals
    """A statement as a frame that can be explained: `session.sql` runs a command, such as DROP, at once."""
    formatter: Any = SQLStringFormatter(session)  # Any: Spark declares its attributes nowhere
    text = formatter.format(text, **views) if views else text
    named = {name: functions.lit(value) for name, value in values.items()}
    return ConnectDataFrame(SQL(text, [], named, [SubqueryAlias(df._plan, name) for df, name in formatter._temp_views]), session)


def operations(session: SparkSession, among: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """The operations of this session on the server, or those given, each with its state in lower case; `unknown` is one of them."""
    response = session.client._get_operation_statuses(None if among is None else list(among))
    names = messages.GetStatusResponse.OperationStatus.OperationState
    return [
        (status.operation_id, names.Name(status.state).removeprefix("OPERATION_STATE_").lower())
        for status in response.operation_statuses
    ]


def send_classes(session: SparkSession, files: Mapping[str, bytes]) -> None:
    """Gives the session class files, by paths such as ``org/example/Name.class``, for its driver and its executors."""
    artifacts = session.client._artifact_manager
    sent = [Artifact(f"classes/{path}", InMemory(content)) for path, content in files.items()]
    artifacts._request_add_artifacts(artifacts._add_artifacts(sent))


def versions_of(session: SparkSession) -> tuple[str | None, str | None]:
    """Python's and Spark's version where the session's server runs; None from one that does not tell them."""
    python, spark = session.client.get_config_with_defaults(("spark.tuttilab.python", None), ("spark.tuttilab.spark", None))
    return python, spark


class OperationGone(Exception):
    """The server no longer has the operation: its result was fetched or dropped, or the server was restarted."""


def fetch_again(session: SparkSession, operation_id: str) -> Fetched | None:
    """Waits for an operation that another kernel started and fetches its whole result; None if it gives no rows.

    `session` must have been opened with the session id of that kernel. Raises OperationGone, or the operation's error.
    """
    client = session.client
    request = client._execute_plan_request_with_metadata(operation_id)
    inner = client._stub
    client._stub = _ReattachingStub(inner, operation_id)  # type: ignore[assignment]  # stands in for the generated stub
    # Whoever stops waiting here wants to ask again later: the client would end the operation.
    client.interrupt_operation = _leave_running  # type: ignore[assignment,method-assign]  # for this instance
    try:
        table, schema, _, _, _ = client._execute_and_fetch(request, {})
    finally:
        client._stub = inner
        del client.interrupt_operation
    if table is None:
        return None
    return Fetched(session, table, schema if schema is not None else _spark_schema(table))


def _leave_running(_operation_id: str) -> list[str]:
    return []


class _ReattachingStub:
    """Wraps the stub: ExecutePlan of one operation becomes ReattachExecute, and an unfinished operation is not released."""

    def __init__(self, stub: Any, operation_id: str) -> None:  # Any: generated class without types
        self._stub = stub
        self._operation_id = operation_id
        self._attached = False
        self._is_over = False

    def __getattr__(self, name: str) -> Any:  # Any: as above
        return getattr(self._stub, name)

    def ExecutePlan(self, request: messages.ExecutePlanRequest, **options: Any) -> Any:  # Any: as above
        if self._attached:  # the client retries when the server does not know the operation
            raise OperationGone(f"Operation {self._operation_id} is no longer known to the session.")
        self._attached = True
        reattach = messages.ReattachExecuteRequest(
            session_id=request.session_id,
            user_context=request.user_context,
            operation_id=request.operation_id,
            client_type=request.client_type,
        )
        return self.ReattachExecute(reattach, **options)

    def ReattachExecute(self, request: messages.ReattachExecuteRequest, **options: Any) -> Any:  # Any: as above
        try:
            for response in self._stub.ReattachExecute(request, **options):
                self._is_over = self._is_over or response.HasField("result_complete")
                yield response
        except Exception:
            self._is_over = True
            raise

    def ReleaseExecute(self, request: messages.ReleaseExecuteRequest, **options: Any) -> Any:  # Any: as above
        """What was not fetched to its end stays for whoever asks next."""
        if request.HasField("release_all") and not self._is_over:
            return messages.ReleaseExecuteResponse()
        return self._stub.ReleaseExecute(request, **options)


class _Hook(SparkSession.Hook):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_execute_plan(self, request: messages.ExecutePlanRequest) -> messages.ExecutePlanRequest:
        operation = Operation(request.operation_id, request.plan.HasField("root"), tuple(_views_made_by(request.plan)))
        for tag in self._watcher.starting(operation):
            if tag not in request.tags:
                request.tags.append(tag)
        return request


# The name is quoted, or a word; with a schema it is no temporary view.
_CREATES_VIEW = re.compile(
    r"^\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:GLOBAL\s+)?TEMP(?:ORARY)?\s+VIEW\s+(?:IF\s+NOT\s+EXISTS\s+)?(`[^`]+`|\w+)", re.IGNORECASE
)


def _views_made_by(plan: messages.Plan) -> Iterator[str]:
    command = plan.command
    if command.HasField("create_dataframe_view"):
        yield command.create_dataframe_view.name
    elif command.HasField("sql_command"):
        relation = command.sql_command.input
        relation = relation.with_relations.root if relation.HasField("with_relations") else relation
        found = _CREATES_VIEW.search(relation.sql.query or command.sql_command.sql)
        if found is not None:
            yield found[1].strip("`")


class _Channel(ChannelBuilder):
    """A channel with the token as metadata: clear text on loopback, TLS elsewhere."""

    def __init__(
        self,
        endpoint: SparkEndpoint,
        user_agent: str,
        session_id: str | None,
        module_path: Callable[[], Sequence[str]],
        gate: Gate,
    ) -> None:
        params = {self.PARAM_USER_ID: user_id(), self.PARAM_USER_AGENT: user_agent}
        if session_id is not None:
            params[self.PARAM_SESSION_ID] = session_id
        super().__init__(params=params)
        self._endpoint = endpoint
        if endpoint.is_proxied:  # it is back soon after it has died, and calls are tried again meanwhile
            self.setChannelOption("grpc.initial_reconnect_backoff_ms", 100)
            self.setChannelOption("grpc.max_reconnect_backoff_ms", 1000)
        self.add_interceptor(AsCaller(endpoint, gate))
        self.add_interceptor(KeepResults())
        self.add_interceptor(OfOnePython(lambda: gate.no_functions))
        if endpoint.here and is_loopback(endpoint.host):  # elsewhere are other disks
            self.add_interceptor(FromHere(module_path))

    @property
    def host(self) -> str:
        return self._endpoint.host

    @property
    def token(self) -> str | None:
        return None  # sent by metadata(); Spark's own way would insist on TLS

    def metadata(self) -> list[tuple[str, str]]:
        return []  # at each call, by AsCaller: Spark's client keeps what it got first for a whole operation

    def toChannel(self) -> grpc.Channel:
        target = f"{self._endpoint.host}:{self._endpoint.port}"
        if is_loopback(self._endpoint.host) and not self._endpoint.tls:
            return self._insecure_channel(target)
        return self._secure_channel(target, grpc.ssl_channel_credentials())


def _spark_schema(table: pa.Table) -> StructType:
    return from_arrow_schema(table.schema, prefer_timestamp_ntz=True)


def is_loopback(host: str) -> bool:
    """Whether the server is on this machine, with the notebook's disk."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
