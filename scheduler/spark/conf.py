"""The settings of a Spark session: its size, those that its owner may choose, and fixed ones for safety.

Pure: text in, settings out. A setting that is not on the list is refused with a suggestion, because Spark silently ignores
misspelt settings.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuttilab.scheduler.domain.errors import BadInput

MIB = 1024 * 1024
MINIMUM_MEMORY_BYTES = 1024 * MIB

# Settings outside `spark.sql.` that change speed or size, and neither access to the session nor the code that runs in it.
ALLOWED = (
    "spark.default.parallelism",
    "spark.driver.maxResultSize",
    "spark.files.maxPartitionBytes",
    "spark.files.openCostInBytes",
    "spark.io.compression.codec",
    "spark.kryoserializer.buffer.max",
    "spark.locality.wait",
    "spark.memory.fraction",
    "spark.memory.storageFraction",
    "spark.network.timeout",
    "spark.python.worker.memory",
    "spark.python.worker.reuse",
    "spark.rdd.compress",
    "spark.reducer.maxSizeInFlight",
    "spark.serializer",
    "spark.shuffle.compress",
    "spark.shuffle.file.buffer",
    "spark.speculation",
    "spark.speculation.multiplier",
    "spark.speculation.quantile",
    "spark.task.cpus",
    "spark.task.maxFailures",
)
ALLOWED_PREFIX = "spark.sql."
# The pod decides where files are stored and what the driver loads, not the session's owner.
_FIXED_SQL = ("spark.sql.warehouse.dir", "spark.sql.extensions", "spark.sql.connect.serverStacktrace.enabled")
# Only for suggestions in refusals: the most common spark.sql settings.
_COMMON_SQL = (
    "spark.sql.adaptive.enabled",
    "spark.sql.ansi.enabled",
    "spark.sql.autoBroadcastJoinThreshold",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.session.timeZone",
    "spark.sql.shuffle.partitions",
    "spark.sql.sources.partitionOverwriteMode",
)


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


def check_conf(conf: Mapping[str, object]) -> dict[str, str]:
    """The settings as text for Spark. Raises BadInput for the first one that a session may not choose."""
    checked: dict[str, str] = {}
    for key, value in conf.items():
        if not (key in ALLOWED or (key.startswith(ALLOWED_PREFIX) and key not in _FIXED_SQL)):
            guess = difflib.get_close_matches(key, [*ALLOWED, *_COMMON_SQL], n=1, cutoff=0.6)
            hint = f"did you mean {guess[0]}?" if guess else f"allowed are {ALLOWED_PREFIX}* and {', '.join(ALLOWED)}."
            raise BadInput(f"The Spark setting {key} cannot be chosen for a session; {hint}")
        if isinstance(value, bool):
            checked[key] = "true" if value else "false"
        elif isinstance(value, (str, int, float)):
            checked[key] = str(value)
        else:
            raise BadInput(f"The Spark setting {key} takes text, a number or true/false, got {value!r}.")
    return checked


def parse_spec(text: str) -> SparkSpec:
    """The specification from the JSON of TUTTILAB_SPARK_SPEC. Raises BadInput."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BadInput(f"The Spark session's specification is not JSON: {error}.") from error
    known = {"cores", "memory_bytes", "conf", "idle_s", "ui", "keep"}
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
        cores, memory, check_conf(body.get("conf", {})), idle_s, bool(body.get("ui", False)), bool(body.get("keep", False))
    )


def heap_bytes(memory_bytes: int) -> int:
    """The size of the Java heap. A quarter of the memory, at least 384 MiB, stays for the JVM, Python UDFs and this program."""
    return memory_bytes - max(384 * MIB, memory_bytes // 4)


def server_conf(spec: SparkSpec, token: str, directory: Path) -> dict[str, str]:
    """All settings of one Connect server. The owner's settings override the defaults but not the fixed ones."""
    heap = heap_bytes(spec.memory_bytes)
    defaults = {
        "spark.sql.shuffle.partitions": str(max(8, 4 * spec.cores)),
        # A result passes through the heap in about three copies: a larger one is refused, instead of exhausting the memory.
        "spark.driver.maxResultSize": f"{heap // 4 // MIB}m",
        # Other readers of the default type cannot represent times before 1677 or after 2262.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    fixed = {
        "spark.app.name": "tuttilab",
        "spark.master": f"local[{spec.cores}]",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        # Authentication on Java's own ports (driver, block manager); in local mode Spark makes the secret itself.
        "spark.authenticate": "true",
        "spark.driver.memory": f"{heap // MIB}m",
        "spark.sql.warehouse.dir": str(directory / "warehouse"),
        "spark.sql.connect.serverStacktrace.enabled": "false",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.connect.authenticate.token": token,
        "spark.connect.execute.manager.detachedTimeout": "1h",
        # How much of the responses a reattaching kernel can read again; older ones are dropped.
        "spark.connect.execute.reattachable.observerRetryBufferSize": f"{min(256 * MIB, heap // 8)}b",
        # The server belongs to one user and stops when idle, so sessions with their temporary views may live long.
        "spark.connect.session.manager.defaultSessionTimeout": "12h",
        "spark.connect.progress.reportInterval": "500ms",
        "spark.ui.enabled": "true" if spec.ui else "false",
        "spark.ui.port": "0",
        "spark.ui.killEnabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    return defaults | dict(spec.conf) | fixed
