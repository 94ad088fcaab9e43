"""The given rows of a chunk: those of a file from its parts, or the ones that the request
carried."""

from typing import Any

import pyarrow as pa

from nelbo.errors import InvalidInput
from nelbo.files import read_parts
from nelbo.storage import Storage, part_key
from nelbo.store.claims import Claim


def rows(storage: Storage, claim: Claim) -> pa.RecordBatch:
    """Rows claim.row_from … claim.row_to as one batch."""
    if claim.inline is not None:
        return _carried(claim.inline[claim.row_from : claim.row_to])
    if claim.file_id is None:
        raise InvalidInput("the job names no rows; submit it again with 'file' or 'rows'")
    return _stored(storage, claim.file_id, claim)


def _carried(given: list[dict[str, Any]]) -> pa.RecordBatch:
    """Cells are text or None, as the API leaves them; each row has all columns."""
    names = list(given[0])
    return pa.record_batch(
        [pa.array([row[name] for row in given], pa.string()) for name in names], names=names
    )


def _stored(storage: Storage, file_id: str, claim: Claim) -> pa.RecordBatch:
    batches = list(
        read_parts(
            lambda number: storage.open(part_key(file_id, number)), claim.row_from, claim.row_to
        )
    )
    (batch,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return batch
