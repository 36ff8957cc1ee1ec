"""Local frames for Spark: pandas, polars and Arrow tables as one Arrow table that Spark takes without changing a value.

Spark has fewer types than Arrow and pandas. What has an equal or wider type there gets it; a column that has none is named, with
what to do. Times without a zone stay without one (TIMESTAMP_NTZ), so that no zone of a server can move them.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Hashable
from typing import Any

import pyarrow as pa
import pyarrow.compute

from tuttilab.magics.shared.parse import UsageError

_LARGEST_INT64 = 2**63 - 1
_DECIMAL_DIGITS = 38


class _NoForm(Exception):
    """A type without a form in Spark; str() says what it is and what to do instead, after `column x of :df`."""


def as_arrow(name: str, value: object) -> pa.Table | None:
    """A table for any kind of DataFrame; None for other values. Raises UsageError for a column that Spark cannot hold."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    local: Any = value  # Any: one of several libraries'
    if pandas is not None and isinstance(value, pandas.DataFrame):
        named = [(_text(label), local.iloc[:, place]) for place, label in enumerate(local.columns)]
    elif polars is not None and isinstance(value, polars.DataFrame):
        table = local.to_arrow()
        named = list(zip(table.column_names, table.columns, strict=True))
    elif isinstance(value, pa.Table):
        named = list(zip(value.column_names, value.columns, strict=True))
    else:
        return None
    if not named:
        raise UsageError(f":{name} has no columns, so it is no table for SQL.")
    seen: set[str] = set()
    columns = []
    for column, data in named:
        if column.lower() in seen:
            raise UsageError(f":{name} has column {column} more than once, and SQL tells no capitals apart; rename one of them.")
        seen.add(column.lower())
        try:
            columns.append(_for_spark(data if isinstance(data, pa.ChunkedArray) else _of_pandas(data)))
        except _NoForm as error:
            raise UsageError(f"column {column} of :{name} {str(error).replace('COLUMN', f'{name}[{column!r}]')}") from error
    return pa.table(columns, names=[column for column, _ in named])


def _text(label: Hashable) -> str:
    return label if isinstance(label, str) else str(label)


def _of_pandas(series: Any) -> pa.ChunkedArray:  # Any: pandas has no types here
    import pandas

    kind = series.dtype
    if isinstance(kind, pandas.PeriodDtype):
        raise _NoForm("holds periods, which SQL has not; send COLUMN.dt.to_timestamp() or COLUMN.astype(str).")
    if isinstance(kind, pandas.IntervalDtype) or kind.kind == "c":
        raise _NoForm(f"is of type {kind}, which SQL has not; send COLUMN.astype(str), or its parts as columns.")
    if isinstance(kind, pandas.SparseDtype):
        series = series.sparse.to_dense()
    if kind.kind == "O" and not isinstance(kind, pandas.api.extensions.ExtensionDtype):
        _check_objects(series)
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kinds = " and ".join(sorted({type(item).__name__ for item in series.dropna()})) or str(kind)
        raise _NoForm(f"holds {kinds}, for which SQL has no common type; send COLUMN.astype(str), or one kind only.") from error
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _check_objects(series: Any) -> None:  # Any: as above
    """Refuse what Arrow would take and change."""
    zones = {item.tzinfo is not None for item in series.dropna() if isinstance(item, datetime.datetime)}
    if len(zones) > 1:
        raise _NoForm("mixes times with and without a time zone; give all of them one with .tz_localize.")


def _for_spark(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_uint64(column.type):
        largest = pa.compute.max(column).as_py()
        if largest is None or largest <= _LARGEST_INT64:
            return column.cast(pa.int64())
    wanted = _spark_type(column.type)
    if wanted == column.type:
        return column
    try:
        # Spark has microseconds: digits beyond are cut, as Spark itself does.
        return column.cast(wanted, safe=not _has_times(column.type))
    except pa.ArrowException as error:
        raise _NoForm(f"is of type {column.type}, which Spark cannot take ({error}); send COLUMN.astype(str).") from error


def _spark_type(kind: pa.DataType) -> pa.DataType:
    """The same type, or the nearest that Spark has. Raises _NoForm."""
    types = pa.types
    plain = {
        pa.null(): pa.string(),
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20, 0),
        pa.float16(): pa.float32(),
        pa.date64(): pa.date32(),
        pa.string_view(): pa.string(),
        pa.binary_view(): pa.binary(),
    }
    if kind in plain:
        return plain[kind]
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_dictionary(kind):
        return _spark_type(kind.value_type)
    if types.is_decimal(kind):
        if kind.precision > _DECIMAL_DIGITS:
            raise _NoForm(f"has decimals of {kind.precision} digits, and Spark has {_DECIMAL_DIGITS}; send COLUMN.astype(str).")
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_time(kind):
        raise _NoForm("holds times of day, which Spark has not; send COLUMN.astype(str).")
    if types.is_struct(kind):
        if not kind.num_fields:
            raise _NoForm("holds dicts without a key, which Spark cannot type; leave it out, or send it as text.")
        return pa.struct([pa.field(each.name, _spark_type(each.type)) for each in kind])
    if types.is_map(kind):
        return pa.map_(_spark_type(kind.key_type), _spark_type(kind.item_type))
    if types.is_large_list(kind):
        return pa.large_list(_spark_type(kind.value_type))
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_spark_type(kind.value_type))
    if isinstance(kind, pa.BaseExtensionType):
        return _spark_type(kind.storage_type)
    return kind


def _has_times(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_date64(kind):
        return True
    return any(_has_times(kind.field(place).type) for place in range(kind.num_fields))
