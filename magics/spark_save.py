"""`--save PATH`: a result as one Parquet, CSV or JSON file below the workspace, written batch by batch.

A file appears under its name only when it is whole, and one that exists is replaced only when asked. Paths cannot lead
out of the workspace, neither by `..` nor through a link.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from tuttilab.magics.parse import UsageError, nearest

ROW_GROUP_BYTES = 64 * 1024 * 1024
FORMATS = ("parquet", "csv", "json")


@dataclass(frozen=True)
class Target:
    """Where a result goes. With `is_directory` Spark's own processes write it, in parallel, in as many files."""

    path: Path
    format: str
    is_directory: bool
    overwrite: bool


@dataclass(frozen=True)
class Saved:
    """What was written."""

    path: Path
    rows: int
    bytes: int


def workspace(environ: Mapping[str, str]) -> Path:
    """TUTTILAB_WORKSPACE, or the current folder."""
    return Path(environ.get("TUTTILAB_WORKSPACE") or os.getcwd()).resolve()


def target(text: str, root: Path, overwrite: bool) -> Target:
    """Check a path as written; raises UsageError with what is wrong and what to do."""
    is_directory = text.endswith("/")
    written = Path(text)
    path = (root / written).resolve()
    if ".." in written.parts or not path.is_relative_to(root) or path == root:
        raise UsageError(f"--save {text} leads out of the workspace {root}; give a path below it.")
    ending = path.suffix.lstrip(".").lower()
    if is_directory:
        ending = ending if ending in FORMATS else "parquet"
    elif ending not in FORMATS:
        guess = nearest(ending, FORMATS) if ending else None
        hint = f"did you mean .{guess}?" if guess else "end it in .parquet, .csv or .json, or in / for a folder."
        raise UsageError(f"--save {text} does not say which format; {hint}")
    if path.exists() and not overwrite:
        raise UsageError(f"--save {text}: {path} exists; add --overwrite to replace it.")
    if not is_directory and path.is_dir():
        raise UsageError(f"--save {text} is a folder; end the path in / to let Spark replace what is in it.")
    if not is_directory and not path.parent.is_dir():
        raise UsageError(f"--save {text}: the folder {path.parent} does not exist; make it first.")
    return Target(path, ending, is_directory, overwrite)


def write_file(target: Target, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Saved:
    """Write the batches to one file. What was there before stays until the new file is whole."""
    fresh = target.path.with_name(f".{target.path.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        with _writer(target.format, fresh, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        size = fresh.stat().st_size
        if target.overwrite:
            fresh.replace(target.path)
        else:
            try:
                os.link(fresh, target.path)  # unlike a rename, it fails if somebody was faster
            except FileExistsError as error:
                raise UsageError(f"{target.path} came into being meanwhile; add --overwrite to replace it.") from error
    finally:
        fresh.unlink(missing_ok=True)
    return Saved(target.path, rows, size)


class _Writer(Protocol):
    def __enter__(self) -> _Writer: ...
    def __exit__(self, *details: object) -> object: ...
    def write_batch(self, batch: pa.RecordBatch) -> object: ...


def _writer(format: str, path: Path, schema: pa.Schema) -> _Writer:
    if format == "json":
        return _JsonLines(path)
    if format == "csv":
        import pyarrow.csv

        for field in schema:
            if pa.types.is_nested(field.type):
                raise UsageError(f"CSV cannot hold column {field.name} of type {field.type}; save as .parquet or .json.")
        csv: _Writer = pyarrow.csv.CSVWriter(path, schema)
        return _Renaming(csv, schema)
    return _Parquet(path, schema)


class _Renaming:
    """Gives each batch the announced schema: batches may differ from it in what may be NULL."""

    def __init__(self, writer: _Writer, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema

    def __enter__(self) -> _Renaming:
        self._writer.__enter__()
        return self

    def __exit__(self, *details: object) -> object:
        return self._writer.__exit__(*details)

    def write_batch(self, batch: pa.RecordBatch) -> object:
        return self._writer.write_batch(batch.cast(self._schema) if batch.schema != self._schema else batch)


class _Parquet:
    """Row groups of a size that readers like, whatever the size of the batches."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet

        self._schema = schema
        self._writer = pyarrow.parquet.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._size = 0

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, *details: object) -> object:
        if details[0] is None:
            self._flush()
        self._writer.close()
        return None

    def write_batch(self, batch: pa.RecordBatch) -> object:
        self._waiting.append(batch.cast(self._schema) if batch.schema != self._schema else batch)
        self._size += batch.nbytes
        if self._size >= ROW_GROUP_BYTES:
            self._flush()
        return None

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting.clear()
        self._size = 0


class _JsonLines:
    """One object a line; dates as ISO text, decimals as text so that no digit is lost, bytes as hexadecimal."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> _JsonLines:
        return self

    def __exit__(self, *details: object) -> object:
        self._file.close()
        return None

    def write_batch(self, batch: pa.RecordBatch) -> object:
        for row in batch.to_pylist():
            self._file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")
        return None


def _plain(value: object) -> str:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
