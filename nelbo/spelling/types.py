"""Arrow types by their names, as a schema keeps them, and values in the type that their column came
in."""

import re
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute


class HasType(Protocol):
    """A column of a schema."""

    @property
    def kind(self) -> str: ...
    @property
    def type(self) -> str | None: ...


def named(name: str) -> pa.DataType | None:
    """The type whose str() is the name, None for nested types and names that are none."""
    for pattern, make in _WITH_ARGUMENTS:
        found = re.fullmatch(pattern, name)
        if found:
            try:
                made: pa.DataType | None = make(*found.groups())
                return made
            except (ValueError, TypeError, pa.ArrowException):
                return None
    by_alias: Any = pa.type_for_alias
    try:
        simple: pa.DataType = by_alias(name)
    except ValueError:
        return None
    return simple


def _dictionary(values: str, indices: str, ordered: str) -> pa.DataType | None:
    of: Any = named(values)
    by: Any = named(indices)
    made: Any = pa.dictionary
    return None if of is None or by is None else made(by, of, ordered == "1")


_WITH_ARGUMENTS: tuple[tuple[str, Any], ...] = (
    (r"timestamp\[(s|ms|us|ns), tz=(.+)\]", pa.timestamp),
    (r"decimal32\((\d+), (-?\d+)\)", lambda p, s: pa.decimal32(int(p), int(s))),
    (r"decimal64\((\d+), (-?\d+)\)", lambda p, s: pa.decimal64(int(p), int(s))),
    (r"decimal128\((\d+), (-?\d+)\)", lambda p, s: pa.decimal128(int(p), int(s))),
    (r"decimal256\((\d+), (-?\d+)\)", lambda p, s: pa.decimal256(int(p), int(s))),
    (r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", _dictionary),
)


def type_of(column: HasType) -> pa.DataType | None:
    """The type that a column of its kind is made in, None for the kind's usual one."""
    wanted = None if column.type is None else named(column.type)
    if wanted is None:
        return None
    plain: Any = wanted.value_type if pa.types.is_dictionary(wanted) else wanted
    if not is_in_parquet(plain):
        return None
    numeric = (
        pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_decimal(plain)
    )
    text = (
        pa.types.is_string(plain)
        or pa.types.is_large_string(plain)
        or pa.types.is_string_view(plain)
    )
    fits = {
        "continuous": numeric and not pa.types.is_integer(plain),
        "integer": numeric or pa.types.is_duration(plain),
        "boolean": pa.types.is_boolean(plain),
        "datetime": pa.types.is_timestamp(plain) or pa.types.is_date(plain),
        "categorical": text or pa.types.is_time(plain) or numeric,
    }
    return wanted if fits.get(column.kind, False) else None


def is_in_parquet(kind: Any) -> bool:
    """False for decimals in tens or hundreds, and for those with more digits behind the point than
    digits."""
    return not pa.types.is_decimal(kind) or 0 <= kind.scale <= kind.precision


def as_type(array: Any, wanted: pa.DataType) -> Any:
    """The array in a type; what lies outside of the type's range becomes its nearest value."""
    if array.type == wanted:
        return array
    if pa.types.is_dictionary(wanted):
        of: Any = wanted
        encoded = as_type(array, of.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            encoded.indices.cast(of.index_type), encoded.dictionary, ordered=of.ordered
        )
    if pa.types.is_integer(wanted) and pa.types.is_integer(array.type):
        bounds: Any = np.iinfo(str(wanted))
        return _within(array, int(bounds.min), min(int(bounds.max), 2**63 - 1)).cast(wanted)
    if pa.types.is_decimal(wanted) and not pa.types.is_string(array.type):
        exact: Any = wanted
        return pc.round(array.cast(pa.float64()), exact.scale).cast(wanted, safe=False)
    if pa.types.is_timestamp(wanted) and wanted.unit == "ns":
        micros = _within(array.cast(pa.int64()), -(2**63) // 1000 + 1, 2**63 // 1000 - 1)
        return micros.cast(pa.timestamp("us", array.type.tz)).cast(wanted)
    if pa.types.is_time(wanted):
        moment = pc.binary_join_element_wise("1970-01-01T", array, "").cast(pa.timestamp("us"))
        return moment.cast(pa.time64("us")).cast(wanted, safe=False)
    return array.cast(wanted, safe=False)


def _within(array: Any, low: int, high: int) -> Any:
    return pc.min_element_wise(
        pc.max_element_wise(array, low, skip_nulls=False), high, skip_nulls=False
    )
