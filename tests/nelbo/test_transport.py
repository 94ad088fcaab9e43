"""An answer that comes in blocks of any size is read whole."""

import io

import numpy as np
import pyarrow as pa
import pytest

from nelbo.transport import as_file


@pytest.mark.parametrize("size", [1_000, 65_536, 10_000_000])
def test_batches_larger_than_the_blocks_that_carry_them_are_read_whole(size: int) -> None:
    table = pa.table({"nelbo": pa.array(np.random.default_rng(0).normal(size=100_000))})
    written = io.BytesIO()
    with pa.ipc.new_stream(written, table.schema) as writer:
        writer.write_table(table, max_chunksize=30_001)
    content = written.getvalue()
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    with as_file(blocks) as answer, pa.ipc.open_stream(answer) as reader:
        assert reader.read_all().equals(table)
