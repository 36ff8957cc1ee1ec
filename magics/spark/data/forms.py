"""A result of Spark in the forms of the notebook: Arrow with types that every reader has, and pandas without silent changes."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute
from pyspark.sql.pandas.conversion import _convert_arrow_table_to_pandas
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType, VariantType, VariantVal

from tuttilab.magics.shared.parse import UsageError

# What pandas' nanoseconds hold, in microseconds since 1970: from 1677 to 2262.
_NANOSECONDS_END = (2**63 - 1) // 1000
_NULLABLE = {pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}


def arrow_schema(schema: StructType) -> pa.Schema:
    """Arrow's types for a schema of Spark's; times in UTC. Raises what Spark raises for a type without a form in Arrow."""
    return to_arrow_schema(schema, error_on_duplicated_field_names_in_struct=True, timezone="UTC")


def readable(raw: pa.Table, schema: StructType) -> pa.Table:
    """The table with Spark's types, of which the type of nothing but NULL becomes text, and a variant its JSON."""
    fields, columns = [], []
    for field, column in zip(schema.fields, raw.columns, strict=True):
        if isinstance(field.dataType, VariantType):
            texts = [None if each is None else str(VariantVal(each["value"], each["metadata"])) for each in column.to_pylist()]
            fields.append(pa.field(field.name, pa.string(), field.nullable))
            columns.append(pa.chunked_array([pa.array(texts, pa.string())]))
            continue
        is_empty = _is_empty(column.type)
        kind = _without_empty(column.type) if is_empty else arrow_schema(StructType([field])).field(0).type
        fields.append(pa.field(field.name, kind, field.nullable or is_empty))
        columns.append(column.cast(kind))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def to_pandas(raw: pa.Table, schema: StructType, zone: str, structs: str) -> pd.DataFrame:
    """As Spark's own `toPandas`, except for columns that it would turn into other numbers or could not convert."""
    ours: dict[int, Any] = {}  # Any: of pandas
    for place, (field, column) in enumerate(zip(schema.fields, raw.columns, strict=True)):
        series = _series(column, field.name, zone)
        if series is not None:
            ours[place] = series
    left = [place for place in range(raw.num_columns) if place not in ours]
    rest = _convert_arrow_table_to_pandas(
        raw.select(left), StructType([schema.fields[place] for place in left]), timezone=zone, struct_handling_mode=structs
    )
    if not ours:
        return pd.DataFrame(rest)
    theirs = iter(range(len(left)))
    columns = [ours[place] if place in ours else rest.iloc[:, next(theirs)] for place in range(raw.num_columns)]
    frame: pd.DataFrame = pd.concat([column.reset_index(drop=True) for column in columns], axis=1)
    frame.columns = pd.Index([field.name for field in schema.fields])
    return frame


def _series(column: pa.ChunkedArray, name: str, zone: str) -> Any:  # Any: of pandas
    """A column that needs more than Spark's conversion; None for every other one."""
    if column.type in _NULLABLE and column.null_count:
        return column.to_pandas(types_mapper=_NULLABLE.get)
    if pa.types.is_timestamp(column.type) and len(column) > column.null_count:
        ends = pa.compute.min_max(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())).as_py()
        if ends["min"] < -_NANOSECONDS_END or ends["max"] > _NANOSECONDS_END:
            return _far_times(column, name, zone)
    return None


def _far_times(column: pa.ChunkedArray, name: str, zone: str) -> Any:  # Any: of pandas
    series = column.cast(pa.timestamp("us", column.type.tz)).to_pandas(coerce_temporal_nanoseconds=False)
    if column.type.tz is None:
        return series
    try:
        return series.dt.tz_convert(zone).dt.tz_localize(None)
    except (OverflowError, ValueError) as error:
        raise UsageError(
            f"column {name} has times that pandas cannot show in the zone {zone}; --as arrow has all of them."
        ) from error


def _is_empty(kind: pa.DataType) -> bool:
    """Whether a type is the empty one, or has it inside."""
    return bool(pa.types.is_null(kind)) or any(_is_empty(kind.field(place).type) for place in range(kind.num_fields))


def _without_empty(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_null(kind):
        return pa.string()
    if not _is_empty(kind):
        return kind
    if pa.types.is_map(kind):
        return pa.map_(_without_empty(kind.key_type), _without_empty(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(each.name, _without_empty(each.type)) for each in kind])
    return pa.list_(_without_empty(kind.value_type))
