"""Arrow types by the names that a schema keeps, and values cast back to their column's type."""

import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute
_TYPES = pa.types


class HasType(Protocol):
    """A column of a schema."""

    @property
    def kind(self) -> str: ...
    @property
    def type(self) -> str | None: ...


def named(name: str) -> pa.DataType | None:
    """The type whose str() is the name; None for nested types and for any other text."""
    for pattern, make in _WITH_ARGUMENTS:
        match = re.fullmatch(pattern, name)
        if match:
            try:
                kind: pa.DataType | None = make(*match.groups())
                return kind
            except (ValueError, TypeError, pa.ArrowException):
                return None
    by_alias: Any = pa.type_for_alias
    try:
        simple: pa.DataType = by_alias(name)
    except ValueError:
        return None
    return simple


def _dictionary(values: str, indices: str, ordered: str) -> pa.DataType | None:
    value_type: Any = named(values)
    index_type: Any = named(indices)
    if value_type is None or index_type is None:
        return None
    dictionary: Any = pa.dictionary  # the stubs want a type for `ordered`
    kind: pa.DataType = dictionary(index_type, value_type, ordered == "1")
    return kind


_WITH_ARGUMENTS: tuple[tuple[str, Any], ...] = (
    (r"timestamp\[(s|ms|us|ns), tz=(.+)\]", pa.timestamp),
    (r"decimal32\((\d+), (-?\d+)\)", lambda p, s: pa.decimal32(int(p), int(s))),
    (r"decimal64\((\d+), (-?\d+)\)", lambda p, s: pa.decimal64(int(p), int(s))),
    (r"decimal128\((\d+), (-?\d+)\)", lambda p, s: pa.decimal128(int(p), int(s))),
    (r"decimal256\((\d+), (-?\d+)\)", lambda p, s: pa.decimal256(int(p), int(s))),
    (r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", _dictionary),
)


def type_of(column: HasType) -> pa.DataType | None:
    """The type in which generated values of a column are written; None for its kind's usual type.

    A column without a type, or with one that does not fit its kind, has the usual type.
    """
    kind = None if column.type is None else named(column.type)
    if kind is None:
        return None
    plain: Any = kind.value_type if _TYPES.is_dictionary(kind) else kind
    if not is_in_parquet(plain):
        return None
    fits = any(check(plain) for check in _FITTING.get(column.kind, ()))
    return kind if fits else None


def is_in_parquet(kind: Any) -> bool:
    """False for a decimal type with a negative scale, or with a scale above its precision."""
    return not _TYPES.is_decimal(kind) or 0 <= kind.scale <= kind.precision


_FITTING: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "continuous": (_TYPES.is_floating, _TYPES.is_decimal),
    "integer": (
        _TYPES.is_integer,
        _TYPES.is_floating,
        _TYPES.is_decimal,
        _TYPES.is_duration,
    ),
    "boolean": (_TYPES.is_boolean,),
    "datetime": (_TYPES.is_timestamp, _TYPES.is_date),
    "categorical": (
        _TYPES.is_string,
        _TYPES.is_large_string,
        _TYPES.is_string_view,
        _TYPES.is_time,
        _TYPES.is_integer,
        _TYPES.is_floating,
        _TYPES.is_decimal,
    ),
    "identifier": (
        _TYPES.is_string,
        _TYPES.is_large_string,
        _TYPES.is_string_view,
        _TYPES.is_integer,
        _TYPES.is_floating,
        _TYPES.is_decimal,
        _TYPES.is_timestamp,
        _TYPES.is_date,
    ),
}
"""The types that fit each kind of column."""


def as_type(array: Any, kind: Any) -> Any:
    """The array cast to a type; values outside of its range become the nearest value inside."""
    if array.type == kind:
        return array
    if _TYPES.is_dictionary(kind):
        encoded = as_type(array, kind.value_type).dictionary_encode()
        indices = encoded.indices.cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)
    if _TYPES.is_integer(kind) and _TYPES.is_integer(array.type):
        bounds: Any = np.iinfo(str(kind))
        return _within(array, int(bounds.min), min(int(bounds.max), 2**63 - 1)).cast(kind)
    if _TYPES.is_decimal(kind) and not _TYPES.is_string(array.type):
        return pc.round(array.cast(pa.float64()), kind.scale).cast(kind, safe=False)
    if _TYPES.is_timestamp(kind) and kind.unit == "ns":
        micros = _within(array.cast(pa.int64()), -(2**63) // 1000 + 1, 2**63 // 1000 - 1)
        return micros.cast(pa.timestamp("us", array.type.tz)).cast(kind)
    if _TYPES.is_time(kind):
        return _times(array).cast(kind, safe=False)
    return array.cast(kind, safe=False)


def _times(text: Any) -> Any:
    """Times of day from ISO 8601 text, which Arrow reads only behind a date."""
    moments = pc.binary_join_element_wise("1970-01-01T", text, "").cast(pa.timestamp("us"))
    return moments.cast(pa.time64("us"))


def _within(array: Any, low: int, high: int) -> Any:
    array = pc.max_element_wise(array, low, skip_nulls=False)
    return pc.min_element_wise(array, high, skip_nulls=False)
