"""The source rows of a chunk: from the parts of a file, or from the job's request."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow as pa

from nelbo.errors import InvalidInput
from nelbo.files import read_parts
from nelbo.storage import Storage, part_key
from nelbo.store import files
from nelbo.store.claims import Claim
from nelbo.store.session import Database


def source_rows(storage: Storage, claim: Claim) -> pa.RecordBatch:
    """Rows claim.row_from to claim.row_to (exclusive) as one batch."""
    batches = list(source_batches(storage, claim))
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch


def source_batches(storage: Storage, claim: Claim) -> Iterator[pa.RecordBatch]:
    """The same rows in several batches, which are not all in memory at once."""
    if claim.inline is not None:
        return iter([_from_request(claim.inline[claim.row_from : claim.row_to])])
    if claim.file_id is None:
        raise InvalidInput("the job names no rows; submit it again with 'file' or 'rows'")
    return _from_parts(storage, claim.file_id, claim)


def whole_table(
    database: Database, storage: Storage, claim: Claim, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """These columns of all rows of the chunk's job."""
    if claim.inline is not None or claim.file_id is None:
        whole = replace(claim, row_from=0, row_to=len(claim.inline or ()))
        return (batch.select(columns) for batch in source_batches(storage, whole))
    rows = files.file_of(database, claim.file_id).rows or 0
    return _from_parts(storage, claim.file_id, replace(claim, row_from=0, row_to=rows), columns)


def _from_request(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """The API has checked that cells are text or None and that each row has all columns."""
    names = list(rows[0])
    columns = [pa.array([row[name] for row in rows], pa.string()) for name in names]
    return pa.record_batch(columns, names=names)


def _from_parts(
    storage: Storage, file_id: str, claim: Claim, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    def open_part(number: int) -> BinaryIO:
        return storage.open(part_key(file_id, number))

    return read_parts(open_part, claim.row_from, claim.row_to, columns=columns)
