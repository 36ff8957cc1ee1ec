"""Notebook variables on their way into SQL: which are DataFrames, and what the others are as literals.

Libraries are recognised by what is already imported: a value cannot be a polars frame in a kernel without polars.
"""

from __future__ import annotations

import datetime
import decimal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuttilab.magics.parse import UsageError

if TYPE_CHECKING:
    from tuttilab.magics.spark_connect import DataFrame, SparkSession

_PLAIN = (bool, int, float, str, bytes, decimal.Decimal, datetime.date, datetime.timedelta)


def as_spark_frame(spark: SparkSession, name: str, value: object) -> DataFrame | None:
    """A Spark DataFrame for any kind of DataFrame, None for what is none."""
    from tuttilab.magics.spark_connect import is_frame  # imports pyspark: more than a second

    if is_frame(value):
        if id(value.sparkSession) != id(spark):
            raise UsageError(f":{name} belongs to another Spark session; run {name}.toPandas() there, or use --session of {name}.")
        return value
    for module, kind in (("pandas", "DataFrame"), ("pyarrow", "Table"), ("polars", "DataFrame")):
        library = sys.modules.get(module)
        if library is not None and isinstance(value, getattr(library, kind)):
            local: Any = value  # Any: createDataFrame takes several kinds
            return spark.createDataFrame(local.to_arrow() if module == "polars" else local)
    return None


def as_literal(name: str, value: object) -> object:
    """What Spark makes a literal of; raises UsageError for a value that has no form in SQL."""
    value = _python_value(value)
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_literal(name, item) for item in value]
    if isinstance(value, Mapping):
        from tuttilab.magics.spark_connect import map_literal

        return map_literal([(as_literal(name, key), as_literal(name, item)) for key, item in value.items()])
    raise UsageError(
        f":{name} is a {type(value).__name__}, which has no form in SQL; bind a number, text, date, list, dict or DataFrame."
    )


def _python_value(value: object) -> object:
    """numpy's and pandas' scalars and arrays as Python's own."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NaT or value is pandas.NA):
        return None
    if pandas is not None and isinstance(value, pandas.Timestamp):
        return value.to_pydatetime()
    if pandas is not None and isinstance(value, pandas.Timedelta):
        return value.to_pytimedelta()
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return value.tolist()
    return value
