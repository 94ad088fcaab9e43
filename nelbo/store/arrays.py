"""NumPy arrays in PostgreSQL's binary array format.

As lists of Python floats they would take 100 times as long. `wire(array)` makes a parameter, and
`unwire(bytes)` reads the result of `array_send(column)`.
"""

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy.types import UserDefinedType

Numbers = npt.NDArray[Any]
"""[n] float64 or int64."""

FLOAT8, FLOAT8_ARRAY, INT8, INT8_ARRAY = 701, 1022, 20, 1016
"""PostgreSQL's type numbers; they never change."""
_HEAD = struct.Struct(">iii")
"""Number of dimensions, whether there are nulls, type of the elements."""
_DIMENSION = struct.Struct(">ii")
"""Number of elements, index of the first."""


class FloatArray(bytes):
    """A float8[] as it goes over the wire."""


class IntArray(bytes):
    """An int8[] as it goes over the wire."""


class Wire(UserDefinedType[bytes]):
    """Either array as SQLAlchemy's type, which passes the bytes on unchanged."""

    cache_ok = True


def wire(values: Numbers) -> FloatArray | IntArray:
    """An array as a parameter of type `Wire`."""
    floats = values.dtype == np.float64
    body = np.empty(len(values), dtype=_element(floats))
    body["size"] = 8
    body["value"] = values

    kind = FloatArray if floats else IntArray
    head = _HEAD.pack(1 if len(values) else 0, 0, FLOAT8 if floats else INT8)
    dimension = _DIMENSION.pack(len(values), 1) if len(values) else b""
    return kind(head + dimension + body.tobytes())


def unwire(data: bytes) -> Numbers:
    """The array in the output of `array_send`, which must hold no nulls."""
    dimensions, _, kind = _HEAD.unpack_from(data)
    body = data[_HEAD.size + dimensions * _DIMENSION.size :]
    values = np.frombuffer(body, dtype=_element(kind == FLOAT8))["value"]
    return values.astype(np.float64 if kind == FLOAT8 else np.int64)


def register_adapters() -> None:
    """Make psycopg send both kinds of arrays."""
    # Imported here, because it takes 40 ms and SQLite does not need it.
    from psycopg import adapters
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    class WireDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: bytes) -> bytes:
            return obj

    class FloatDumper(WireDumper):
        oid = FLOAT8_ARRAY

    class IntDumper(WireDumper):
        oid = INT8_ARRAY

    adapters.register_dumper(FloatArray, FloatDumper)
    adapters.register_dumper(IntArray, IntDumper)


def _element(floats: bool) -> np.dtype[Any]:
    return np.dtype([("size", ">i4"), ("value", ">f8" if floats else ">i8")])
