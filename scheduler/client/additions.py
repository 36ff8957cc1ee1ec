"""How a volume, a side-car of the site and options of Spark are written in one word, in a shell and in a cell's first line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tuttilab.scheduler.domain.requests import MountRequest, SideCarRequest, SparkBatchRequest

KINDS: Final = ("claim", "cephfs", "nfs", "host_path")
MOUNT: Final = "[KIND=]VOLUME[/FOLDER]:PATH[:r]"
SIDECAR: Final = "NAME[:K=V,...]"
SPARK: Final = "K=V[,K=V]"
SPARK_SIZES: Final = ("executors", "executor-cores", "executor-memory", "driver-cores", "driver-memory")
SPARK_LISTS: Final = ("py-files", "jars", "archives")


def read_mount(text: str) -> MountRequest:
    """``work:/workspace``, ``work/users/{owner}:/workspace``, ``cephfs=market:/data:r``, ``nfs=nas.example:/export//team:/team``.

    A folder of an ``nfs`` or ``host_path`` volume comes after two slashes, as one is part of its name. Raises ValueError with
    what is expected.
    """
    expected = f"{MOUNT}, such as work:/workspace, or cephfs=market:/data:r to read only"
    rest, mode = text, "rw"
    for each in ("r", "rw"):
        if rest.endswith(f":{each}"):
            rest, mode = rest.removesuffix(f":{each}"), each
            break
    volume, colon, path = rest.rpartition(":")
    kind, equals, source = volume.partition("=")
    if not equals:
        kind, source = "claim", volume
    if not colon or not path.startswith("/") or not source or kind not in KINDS:
        raise ValueError(expected)
    source, _, folder = source.partition("/" if kind in ("claim", "cephfs") else "//")
    return MountRequest(path=path, sub_path=folder, mode=mode, **{kind: source})


def read_sidecar(text: str) -> SideCarRequest:
    """``proxy`` or ``proxy:port=8081,mode=fast``. Raises ValueError with what is expected."""
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")] if colon else []
    if not name or any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{SIDECAR}, such as proxy:port=8081")
    return SideCarRequest(name=name, params={key: value for key, _, value in pairs})


def read_spark(texts: Sequence[str], main: str) -> SparkBatchRequest:
    """``executors=4,executor-memory=2g``, ``py-files=a.py``, ``jars=a.jar``, ``class=org.example.Main``, ``conf=spark.x=y``.

    Sizes may stand in one word with commas between; lists and settings are repeated. Raises ValueError with what is expected.
    """
    found: dict[str, Any] = {"conf": {}}
    for key, value in (pair for text in texts for pair in _pairs(text)):
        name = key.replace("-", "_")
        if key in SPARK_LISTS:
            found[name] = (*found.get(name, ()), value)
        elif key == "conf":
            setting, equals, given = value.partition("=")
            if not equals:
                raise ValueError("a setting and its value, such as conf=spark.sql.shuffle.partitions=8")
            found["conf"][setting] = given
        elif key == "class":
            found["main_class"] = value
        elif key == "executors":
            if not value.isascii() or not value.isdigit():
                raise ValueError("a whole number of executors, such as executors=4")
            found[name] = int(value)
        else:
            found[name] = value
    return SparkBatchRequest(main=main, **found)


def _pairs(text: str) -> list[tuple[str, str]]:
    known = (*SPARK_SIZES, *SPARK_LISTS, "class", "conf")
    first = text.partition("=")[0]
    found = []
    for part in text.split(",") if first in SPARK_SIZES else [text]:
        key, equals, value = part.strip().partition("=")
        if key not in known or not equals or not value:
            raise ValueError(f"{SPARK}, such as executors=4,executor-memory=2g; known are {', '.join(known)}")
        found.append((key, value))
    return found
