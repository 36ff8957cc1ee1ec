"""Converts notebook variables for SQL: DataFrames to Spark DataFrames, other values to literals.

No library is imported for this: a value cannot be a polars frame in a kernel that has not imported polars.
"""

from __future__ import annotations

import datetime
import decimal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuttilab.magics.shared.display import show_bytes
from tuttilab.magics.shared.parse import UsageError

if TYPE_CHECKING:
    from tuttilab.magics.spark.connect import DataFrame, SparkSession

MOST_IN_LIST = 10_000
"""Values of one `IN (:list)`; Spark's planning time grows with each."""
MOST_BYTES = 200 * 1024 * 1024
"""What one variable may carry along with a statement."""
MOST_LITERAL_BYTES = 16 * 1024 * 1024
_PLAIN = (bool, int, float, str, bytes, decimal.Decimal, datetime.date, datetime.timedelta)


def is_local_frame(value: object) -> bool:
    """Whether a value is a DataFrame of pandas or polars, or an Arrow table."""
    for module, kind in (("pandas", "DataFrame"), ("pyarrow", "Table"), ("polars", "DataFrame")):
        library = sys.modules.get(module)
        if library is not None and isinstance(value, getattr(library, kind, ())):
            return True
    return False


def as_spark_frame(spark: SparkSession, name: str, value: object) -> DataFrame | None:
    """A Spark DataFrame for any kind of DataFrame; None for other values. Raises UsageError for what Spark cannot hold."""
    from tuttilab.magics.spark.connect import is_frame, local_frame  # imports pyspark: more than a second

    if is_frame(value):
        if id(value.sparkSession) != id(spark):
            raise UsageError(f":{name} belongs to another Spark session; run {name}.toPandas() there, or use --session of {name}.")
        return value
    if not is_local_frame(value):
        return None
    from tuttilab.magics.spark.data.frames import as_arrow

    table = as_arrow(name, value)
    if table is None:
        return None
    if table.nbytes > MOST_BYTES:
        raise UsageError(
            f":{name} has {show_bytes(table.nbytes)}, and {show_bytes(MOST_BYTES)} may travel with a statement; "
            f"write it with {name}.to_parquet('{name}.parquet') once and read it as parquet.`{name}.parquet`."
        )
    return local_frame(spark, table)


def list_items(name: str, value: object) -> list[object] | None:
    """The values of anything like a list, for `IN (:name)`; None for other values. Raises UsageError for too many."""
    value = _python_value(value)
    if not isinstance(value, (list, tuple, set, frozenset, range)):
        return None
    if len(value) > MOST_IN_LIST:
        raise UsageError(
            f":{name} has {len(value):,} values, and IN takes {MOST_IN_LIST:,}; "
            "put them into a DataFrame df and select from :df inside the IN."
        )
    return list(value)


def as_literal(name: str, value: object) -> object:
    """A value of which Spark makes a literal. Raises UsageError for a value without a form in SQL."""
    value = _python_value(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is None:
        from tuttilab.magics.spark.data.literals import naive_time

        return naive_time(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        if abs(value) >= 10**38:
            raise UsageError(f":{name} has a number of more than 38 digits, which SQL has not; bind it as text.")
        return decimal.Decimal(value)
    if isinstance(value, (str, bytes)) and len(value) > MOST_LITERAL_BYTES:
        raise UsageError(f":{name} has {show_bytes(len(value))}, too much for a literal; bind it as a DataFrame, or write a file.")
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple, set, frozenset, range)):
        from tuttilab.magics.spark.data.literals import array_of

        return array_of(name, _elements(name, value))
    if isinstance(value, Mapping):
        from tuttilab.magics.spark.data.literals import map_of

        return map_of(name, _elements(name, value), _elements(name, value.values()))
    raise UsageError(
        f":{name} is a {type(value).__name__}, which has no form in SQL; bind a number, text, date, list, dict or DataFrame."
    )


def alike_literals(name: str, items: Sequence[object]) -> list[object]:
    """The values of one `IN (:list)` as literals of one type; numbers get the widest."""
    from tuttilab.magics.spark.data.literals import alike

    return list(alike(name, _elements(name, items)))


def _elements(name: str, items: Iterable[object]) -> list[object]:
    """Plain values as they are: what they have in common is decided among them. Others as literals."""
    plain = [_python_value(item) for item in items]
    return [item if isinstance(item, datetime.datetime) else as_literal(name, item) for item in plain]


def _python_value(value: object) -> object:
    """Converts scalars and arrays of numpy, pandas and polars to Python values."""
    numpy, pandas, polars = sys.modules.get("numpy"), sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and (value is pandas.NaT or value is pandas.NA):
        return None
    if pandas is not None and isinstance(value, pandas.Timestamp):
        return value.to_pydatetime()
    if pandas is not None and isinstance(value, pandas.Timedelta):
        return value.to_pytimedelta()
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index)):
        return [_missing_is_none(item) for item in value.tolist()]
    if polars is not None and isinstance(value, polars.Series):
        return value.to_list()
    if numpy is not None and isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else value.astype("datetime64[us]").item()
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        if isinstance(value, numpy.ndarray) and value.dtype.kind == "M":
            return [_python_value(item) for item in value]
        return value.tolist()
    return value


def _missing_is_none(item: Any) -> object:  # Any: an element of pandas
    """In a Series a missing number or time is NaN, NaT or NA; in SQL all of them are NULL."""
    return None if isinstance(item, float) and item != item else _python_value(item)
