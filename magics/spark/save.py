"""`--save PATH`: saves a result as one Parquet, CSV or JSON file below the workspace, batch by batch.

A file appears under its name only when complete; an existing file is replaced only with `--overwrite`. Paths cannot lead
out of the workspace, neither by `..` nor through a link.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from tuttilab.magics.shared.parse import UsageError, nearest

ROW_GROUP_BYTES = 64 * 1024 * 1024
FORMATS = ("parquet", "csv", "json")


@dataclass(frozen=True)
class Target:
    """Where a result is saved. With `is_directory` Spark's processes write it in parallel, as several files."""

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
    """Checks a path as written. Raises UsageError."""
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
    """Writes the batches to one file. An existing file stays until the new one is complete."""
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
                os.link(fresh, target.path)  # unlike a rename, it fails if the file was created meanwhile
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
        return _JsonLines(path, schema)
    if format == "csv":
        import pyarrow.csv

        for field in schema:
            if pa.types.is_nested(field.type):
                raise UsageError(f"CSV cannot hold column {field.name} of type {field.type}; save as .parquet or .json.")
        csv: _Writer = pyarrow.csv.CSVWriter(path, schema)
        return _Renaming(csv, schema)
    return _Parquet(path, schema)


class _Renaming:
    """Casts each batch to the announced schema: batches may differ from it in nullability."""

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
    """Writes row groups of a size suited to readers, whatever the size of the batches."""

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
    """One object per line, as every reader of JSON takes it.

    Dates and times as ISO text, decimals and intervals as text so that no digit is lost, bytes as hexadecimal, maps as objects,
    NaN as null; infinity, which JSON has not, as the text Infinity.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("w", encoding="utf-8")
        forms = [(field.name, _json_form(field.type)) for field in schema]
        self._forms = [(name, form) for name, form in forms if form is not None]

    def __enter__(self) -> _JsonLines:
        return self

    def __exit__(self, *details: object) -> object:
        self._file.close()
        return None

    def write_batch(self, batch: pa.RecordBatch) -> object:
        for row in batch.to_pylist():
            for name, form in self._forms:
                if row[name] is not None:
                    row[name] = form(row[name])
            self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        return None


_Form = Callable[[Any], object]  # Any: a value of the type that the form was made for


def _json_form(kind: pa.DataType) -> _Form | None:
    """What makes JSON of a value of this type; None when the value is JSON already. NULL is null everywhere."""
    types = pa.types
    if types.is_floating(kind):
        return _json_number
    if types.is_temporal(kind):
        return lambda value: value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)
    if types.is_decimal(kind):
        return str
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda value: value.hex()
    if types.is_map(kind):
        key, item = _json_form(kind.key_type), _json_form(kind.item_type)
        return lambda pairs: {_json_key(_formed(key, name)): _formed(item, value) for name, value in pairs}
    if types.is_struct(kind):
        fields = {field.name: _json_form(field.type) for field in kind}
        return lambda value: {name: _formed(fields[name], each) for name, each in value.items()}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        form = _json_form(kind.value_type)
        return None if form is None else lambda values: [_formed(form, value) for value in values]
    return None


def _formed(form: _Form | None, value: object) -> object:
    return value if form is None or value is None else form(value)


def _json_number(value: float) -> object:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json_key(key: object) -> str:
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)
