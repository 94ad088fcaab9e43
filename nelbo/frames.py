"""Data frames of pandas, polars, Arrow and other libraries (by the Arrow PyCapsule interface) as
Arrow tables, and back."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from nelbo.errors import InvalidInput

Library = Literal["pandas", "polars", "arrow"]
LIBRARIES: tuple[Library, ...] = get_args(Library)


def is_frame(x: object) -> bool:
    """Whether x is a data frame. A series has no columns."""
    return hasattr(x, "columns") and hasattr(x, "__arrow_c_stream__")


def is_pandas(x: object) -> bool:
    """Whether x is a data frame of pandas, which may have an index and column names that are not
    strings."""
    return is_frame(x) and hasattr(x, "iloc")


def to_arrow(frame: Any) -> pa.Table:
    """A data frame as an Arrow table, without its index.

    Raises InvalidInput for a column of several types, and for what is no data frame.
    """
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if not is_frame(frame):
        raise InvalidInput(
            f"{type(frame).__name__} is not a data frame; give one of pandas, polars or Arrow"
        )
    if is_pandas(frame) and not frame.columns.is_unique:
        twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
        raise InvalidInput(
            f"the data frame has duplicate column names: {', '.join(map(repr, twice[:10]))}; rename"
            " one of each"
        )
    try:
        if is_pandas(frame):
            return pa.Table.from_pandas(frame, preserve_index=False)
        return pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as problem:
        raise InvalidInput(
            f"the data frame cannot be read, as a column mixes values of several types ({problem});"
            " give each column one type, such as df['name'].astype(str)"
        ) from None


def library_of(frame: object) -> Library:
    """The library of a data frame. For anything else, the one of frames that nobody asked for:
    pandas, or Arrow where pandas is not installed."""
    if isinstance(frame, pa.Table | pa.RecordBatch):
        return "arrow"
    if is_pandas(frame) or not is_frame(frame):
        return "pandas" if find_spec("pandas") else "arrow"
    return "polars" if type(frame).__module__.partition(".")[0] == "polars" else "arrow"


def from_arrow(table: pa.Table, library: Library) -> Any:
    """An Arrow table as a data frame of a library.

    The types of pandas are those that the metadata of the table names, where it is from pandas.
    """
    if library not in LIBRARIES:
        raise InvalidInput(f"{library!r} is no library of data frames: {', '.join(LIBRARIES)} are")
    if library == "polars":
        return import_module("polars").from_arrow(table)
    return table.to_pandas() if library == "pandas" else table


def alike(source: Any, frame: Any, rows: Any = None) -> Any:
    """A data frame with the index of its source, and with the categories of its columns, where both
    are of pandas. Categories that only the frame has come last.

    rows: int64[n] of the source, one for each row of the frame; None for all of them.
    """
    if not (is_pandas(source) and is_pandas(frame)):
        return frame
    frame.index = source.index if rows is None else source.index.take(np.asarray(rows))
    return with_categories_of(source, frame)


def with_categories_of(source: Any, frame: Any) -> Any:
    """A data frame of pandas whose columns have the categories of those of another one."""
    for name in frame.columns.intersection(source.columns):
        if str(frame[name].dtype) == str(source[name].dtype) == "category":
            categories = source[name].cat.categories
            frame[name] = frame[name].cat.set_categories(
                categories.append(frame[name].cat.categories.difference(categories))
            )
    return frame
