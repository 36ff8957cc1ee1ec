"""Literals of Spark for values of the notebook that Spark's own `lit` takes in another type than SQL would, or not at all."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterable, Sequence

from pyspark.sql import Column
from pyspark.sql.connect.column import Column as ConnectColumn
from pyspark.sql.connect.expressions import LiteralExpression
from pyspark.sql.connect.functions import builtin as functions
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from tuttilab.magics.shared.parse import UsageError

_NUMBERS = (int, decimal.Decimal, float)
_MOST_DIGITS = 38


def naive_time(value: datetime.datetime) -> Column:
    """A time without a zone as TIMESTAMP_NTZ: as a TIMESTAMP it would be moved where kernel and server have different zones."""
    return _typed(value, TimestampNTZType())


def array_of(name: str, items: Sequence[object]) -> Column:
    """An ARRAY whose elements have one type: numbers the widest, None is NULL. Raises UsageError for a mixture."""
    return functions.array(*alike(name, items))


def map_of(name: str, keys: Sequence[object], values: Sequence[object]) -> Column:
    """A MAP, with keys and values as the elements of an array."""
    pairs = zip(alike(name, keys), alike(name, values), strict=True)
    return functions.create_map(*(part for pair in pairs for part in pair))


def alike(name: str, items: Sequence[object]) -> list[Column]:
    """Literals of one type for plain values; arrays and maps among them stay as they are."""
    plain = [item for item in items if item is not None and not isinstance(item, ConnectColumn)]
    if not plain or len(plain) < sum(item is not None for item in items):
        return [functions.lit(item) for item in items]
    kind = _common(name, plain)
    return [_typed(_widened(item, kind), kind) for item in items]


def _common(name: str, items: Sequence[object]) -> DataType:
    if all(isinstance(item, bool) for item in items):
        return BooleanType()
    numbers = [item for item in items if isinstance(item, _NUMBERS) and not isinstance(item, bool)]
    if len(numbers) == len(items):
        return _common_number(name, numbers)
    times = [item for item in items if isinstance(item, datetime.datetime)]
    if len(times) == len(items) and len({item.tzinfo is None for item in times}) == 1:
        return TimestampNTZType() if times[0].tzinfo is None else TimestampType()
    if not times and all(isinstance(item, datetime.date) for item in items):
        return DateType()
    others: tuple[tuple[type, DataType], ...] = (
        (str, StringType()), (bytes, BinaryType()), (datetime.timedelta, DayTimeIntervalType())
    )  # fmt: skip
    for python, kind in others:
        if all(isinstance(item, python) for item in items):
            return kind
    kinds = " and ".join(sorted({_kind_of(item) for item in items}))
    raise UsageError(f":{name} mixes {kinds}, and SQL gives a list one type; make all of them one kind.")


def _kind_of(item: object) -> str:
    if isinstance(item, datetime.datetime):
        return "times without a zone" if item.tzinfo is None else "times with a zone"
    return type(item).__name__


def _common_number(name: str, items: Iterable[int | decimal.Decimal | float]) -> DataType:
    numbers = list(items)
    if any(isinstance(item, float) for item in numbers):
        return DoubleType()
    if any(isinstance(item, decimal.Decimal) for item in numbers):
        digits = [decimal.Decimal(item).as_tuple() for item in numbers]
        if any(not isinstance(each.exponent, int) for each in digits):
            raise UsageError(f":{name} has a decimal that is not a number, which SQL has not; leave it out, or use None.")
        scale = max(max(0, -int(each.exponent)) for each in digits)
        whole = max(max(0, len(each.digits) + int(each.exponent)) for each in digits)
        if whole + scale > _MOST_DIGITS:
            raise UsageError(f":{name} needs decimals of {whole + scale} digits, and SQL has {_MOST_DIGITS}; bind them as text.")
        return DecimalType(max(1, whole + scale), scale)
    return IntegerType() if all(-(2**31) <= item < 2**31 for item in numbers) else LongType()


def _widened(item: object, kind: DataType) -> object:
    if isinstance(kind, DoubleType) and isinstance(item, (int, decimal.Decimal)):
        return float(item)
    if isinstance(kind, DecimalType) and isinstance(item, int):
        return decimal.Decimal(item)
    return item


def _typed(value: object, kind: DataType) -> Column:
    return ConnectColumn(LiteralExpression(value, kind))
