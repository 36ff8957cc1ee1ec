"""The settings of a Spark session: its size, those that its owner may choose, and fixed ones for safety.

Pure: text in, settings out. A setting that is not on the list is refused with a suggestion, because Spark silently ignores
misspelt settings.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuttilab.scheduler.core.kinds.spark import CONNECT_PORT, UI_PORT
from tuttilab.scheduler.core.kinds.spark_size import MIB, NO_EXECUTORS, SparkSize, heap_of
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.spark import pages

MINIMUM_MEMORY_BYTES = 1024 * MIB
LOOPBACK = "127.0.0.1"

# Settings outside `spark.sql.` that change speed or size, and neither access to the session nor the code that runs in it; with the
# type of their values.
ALLOWED = {
    "spark.default.parallelism": "number",
    "spark.driver.maxResultSize": "size",
    "spark.files.maxPartitionBytes": "size",
    "spark.files.openCostInBytes": "size",
    "spark.io.compression.codec": "text",
    "spark.kryoserializer.buffer.max": "size",
    "spark.locality.wait": "time",
    "spark.memory.fraction": "fraction",
    "spark.memory.storageFraction": "fraction",
    "spark.network.timeout": "time",
    "spark.python.worker.memory": "size",
    "spark.python.worker.reuse": "switch",
    "spark.rdd.compress": "switch",
    "spark.reducer.maxSizeInFlight": "size",
    "spark.serializer": "text",
    "spark.shuffle.compress": "switch",
    "spark.shuffle.file.buffer": "size",
    "spark.speculation": "switch",
    "spark.speculation.multiplier": "fraction",
    "spark.speculation.quantile": "fraction",
    "spark.task.cpus": "number",
    "spark.task.maxFailures": "number",
}
ALLOWED_PREFIX = "spark.sql."
# The pod decides where files are stored and what the driver loads, not the session's owner.
_FIXED_SQL = ("spark.sql.warehouse.dir", "spark.sql.extensions", "spark.sql.connect.serverStacktrace.enabled")
# The size is given by options, because the pods have to be as large.
BY_OPTION = {
    "spark.executor.instances": "--executors",
    "spark.executor.cores": "--executor-cores",
    "spark.executor.memory": "--executor-memory",
    "spark.driver.cores": "--driver-cores",
    "spark.driver.memory": "--driver-memory",
}
# The most common spark.sql settings: for suggestions in refusals, and with the type of their values.
_COMMON_SQL = {
    "spark.sql.adaptive.enabled": "switch",
    "spark.sql.ansi.enabled": "switch",
    "spark.sql.autoBroadcastJoinThreshold": "size",
    "spark.sql.files.maxPartitionBytes": "size",
    "spark.sql.session.timeZone": "text",
    "spark.sql.shuffle.partitions": "number",
    "spark.sql.sources.partitionOverwriteMode": "text",
}
_TYPES = {
    "number": (re.compile(r"\d{1,9}"), "a whole number"),
    "fraction": (re.compile(r"\d{1,6}(\.\d{1,9})?"), "a number"),
    "switch": (re.compile(r"true|false", re.IGNORECASE), "true or false"),
    "size": (re.compile(r"-?\d{1,15}([kmgtp]b?|b)?", re.IGNORECASE), "a size such as 512m or 2g"),
    "time": (re.compile(r"\d{1,12}(us|ms|s|m|min|h|d)?"), "a time such as 30s"),
    "text": (re.compile(r"[^\x00-\x1f]*"), "one line of text"),
}
LONGEST_VALUE = 4096


@dataclass(frozen=True)
class SparkSpec:
    """The size of a session. `idle_s` None: it runs until it is stopped. `ui` serves Spark's web UI on loopback."""

    cores: int
    memory_bytes: int
    conf: Mapping[str, str] = field(default_factory=dict)
    idle_s: float | None = None
    ui: bool = False
    keep: bool = False
    """Whether it stays although it is idle and other work of its owner waits for what it holds."""
    size: SparkSize = NO_EXECUTORS
    """Its executors, if they are in pods of their own."""

    @property
    def task_cores(self) -> int:
        """Cores that run tasks, in all."""
        return self.size.executors * self.size.executor_cores or self.cores


@dataclass(frozen=True)
class Master:
    """Where a gang's Spark master listens, and the secret with which driver, master and executors know each other."""

    host: str
    port: int
    secret: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"spark://{self.host}:{self.port}"

    def authentication(self) -> dict[str, str]:
        """Settings of every process of the gang. On a network, what they send is encrypted too."""
        is_local = self.host == LOOPBACK
        return {
            "spark.authenticate": "true",
            "spark.authenticate.secret": self.secret,
            "spark.network.crypto.enabled": "false" if is_local else "true",
        }


def check_conf(conf: Mapping[str, object]) -> dict[str, str]:
    """The settings as text for Spark. Raises BadInput for the first one that a session may not choose."""
    checked: dict[str, str] = {}
    for key, value in conf.items():
        if not (key in ALLOWED or (key.startswith(ALLOWED_PREFIX) and key not in _FIXED_SQL)):
            if key in BY_OPTION:
                raise BadInput(f"The Spark setting {key} is given by {BY_OPTION[key]}: the pods have to be as large.")
            guess = difflib.get_close_matches(key, [*ALLOWED, *_COMMON_SQL], n=1, cutoff=0.6)
            hint = f"did you mean {guess[0]}?" if guess else f"allowed are {ALLOWED_PREFIX}* and {', '.join(ALLOWED)}."
            raise BadInput(f"The Spark setting {key} cannot be chosen for a session; {hint}")
        if isinstance(value, bool):
            checked[key] = "true" if value else "false"
        elif isinstance(value, (str, int, float)):
            checked[key] = str(value)
        else:
            raise BadInput(f"The Spark setting {key} takes text, a number or true/false, got {value!r}.")
        pattern, expected = _TYPES[ALLOWED.get(key) or _COMMON_SQL.get(key, "text")]
        if len(checked[key]) > LONGEST_VALUE or not pattern.fullmatch(checked[key]):
            raise BadInput(f"The Spark setting {key} takes {expected}, got {checked[key][:80]!r}.")
    return checked


def parse_spec(text: str) -> SparkSpec:
    """The specification from the JSON of TUTTILAB_SPARK_SPEC. Raises BadInput."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BadInput(f"The Spark session's specification is not JSON: {error}.") from error
    known = {"cores", "memory_bytes", "conf", "idle_s", "ui", "keep", "executors", "executor_cores", "executor_heap"}
    if not isinstance(body, dict) or not {"cores", "memory_bytes"} <= body.keys() <= known:
        raise BadInput(f"A Spark session is specified by cores and memory_bytes, and may have conf, idle_s, ui, keep: {text}")
    cores, memory, idle_s = body["cores"], body["memory_bytes"], body.get("idle_s")
    if type(cores) is not int or cores < 1:
        raise BadInput(f"A Spark session needs a whole number of cores, at least 1, got {cores!r}.")
    if type(memory) is not int or memory < MINIMUM_MEMORY_BYTES:
        raise BadInput(f"A Spark session needs at least {MINIMUM_MEMORY_BYTES} bytes of memory (1Gi), got {memory!r}.")
    if idle_s is not None and (type(idle_s) not in (int, float) or idle_s <= 0):
        raise BadInput(f"idle_s is a number of seconds above zero, or null, got {idle_s!r}.")
    if not isinstance(body.get("conf", {}), dict):
        raise BadInput(f"conf is an object of Spark settings, got {body['conf']!r}.")
    return SparkSpec(
        cores,
        memory,
        check_conf(body.get("conf", {})),
        idle_s,
        bool(body.get("ui", False)),
        bool(body.get("keep", False)),
        parse_size(body),
    )


def parse_size(body: Mapping[str, object]) -> SparkSize:
    """The executors of a specification. Raises BadInput."""
    amounts = [body.get(key, 0) for key in ("executors", "executor_cores", "executor_heap")]
    numbers = [amount for amount in amounts if type(amount) is int and amount >= 0]
    if len(numbers) != len(amounts) or (numbers[0] and not (numbers[1] and numbers[2])):
        raise BadInput(f"executors, executor_cores and executor_heap are whole numbers, got {amounts!r}.")
    return SparkSize(*numbers)


def heap_bytes(memory_bytes: int) -> int:
    """The size of the Java heap. A quarter of the memory, at least 384 MiB, stays for the JVM, Python UDFs and this program."""
    return heap_of(memory_bytes)


def executor_conf(size: SparkSize, master: Master) -> dict[str, str]:
    """Settings of a driver whose executors are in pods of their own: all of them, each on a worker of exactly its size."""
    return master.authentication() | {
        "spark.master": master.url,
        "spark.executor.instances": str(size.executors),
        "spark.executor.cores": str(size.executor_cores),
        "spark.executor.memory": size.heap_text(),
        "spark.cores.max": str(size.executors * size.executor_cores),
        "spark.dynamicAllocation.enabled": "false",
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.scheduler.maxRegisteredResourcesWaitingTime": "1h",
    }


def server_conf(spec: SparkSpec, token: str, directory: Path, master: Master | None = None, host: str = LOOPBACK) -> dict[str, str]:
    """All settings of one Connect server. The owner's settings override the defaults but not the fixed ones.

    ``master``: of the gang; None where tasks run in the server's own process. ``host``: where kernels and proxies connect.
    """
    heap = heap_bytes(spec.memory_bytes)
    defaults = {
        "spark.sql.shuffle.partitions": str(max(8, 4 * spec.task_cores)),
        # A result passes through the heap in about three copies: a larger one is refused, instead of exhausting the memory.
        "spark.driver.maxResultSize": f"{heap // 4 // MIB}m",
        # Other readers of the default type cannot represent times before 1677 or after 2262.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    fixed = {
        "spark.app.name": "tuttilab",
        "spark.master": f"local[{spec.cores}]",
        "spark.driver.host": LOOPBACK,
        "spark.driver.bindAddress": LOOPBACK,
        # Authentication on Java's own ports (driver, block manager); in local mode Spark makes the secret itself.
        "spark.authenticate": "true",
        "spark.driver.memory": f"{heap // MIB}m",
        "spark.sql.warehouse.dir": str(directory / "warehouse"),
        "spark.sql.connect.serverStacktrace.enabled": "false",
        "spark.connect.grpc.binding.address": host,
        "spark.connect.grpc.binding.port": "0" if host == LOOPBACK else str(CONNECT_PORT),
        "spark.connect.authenticate.token": token,
        "spark.connect.execute.manager.detachedTimeout": "1h",
        # How much of the responses a reattaching kernel can read again; older ones are dropped.
        "spark.connect.execute.reattachable.observerRetryBufferSize": f"{min(256 * MIB, heap // 8)}b",
        # The server belongs to one user and stops when idle, so sessions with their temporary views may live long.
        "spark.connect.session.manager.defaultSessionTimeout": "12h",
        "spark.connect.progress.reportInterval": "500ms",
        "spark.ui.enabled": "true" if spec.ui else "false",
        "spark.ui.port": "0" if host == LOOPBACK else str(UI_PORT),
        "spark.ui.killEnabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if host != LOOPBACK and spec.ui:
        fixed |= pages.settings(token)
    if master is not None:
        fixed |= executor_conf(spec.size, master) | {"spark.driver.cores": str(spec.cores), "spark.driver.host": master.host}
        fixed["spark.driver.bindAddress"] = master.host
    return defaults | dict(spec.conf) | fixed
