"""Noise: uniform random numbers that depend on a seed, a stream and a row number alone.

Each purpose has streams of its own. So a row keeps its random numbers whatever the batch, the chunk
or the machine that computes it, and rows of two purposes never share any.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GENERATE = 0
"""The stream of generated rows."""
RECONSTRUCT = 1
"""The stream of rows whose missing cells are filled."""
AUGMENT = 2
"""The first stream of copies: AUGMENT + k is the stream of copy k."""
IDENTIFY = 2**58
"""The first stream of identifiers: IDENTIFY + j is the stream of column j of the schema."""
CANDIDATES = 3
"""The purpose of candidates, where cells are drawn again; see `mending`."""
CHOOSE = 2**59
"""The stream that chooses the candidate of each row with conditions."""
AGAIN = CHOOSE + 1
"""The stream of rows that do not meet their conditions by themselves and are drawn again."""
RARE = CHOOSE + 2
"""The first stream of rows whose nelbo is in a range: RARE + k is the stream of draw k."""
CANDIDATE = 2**60
"""The first stream of candidates: CANDIDATE + k is the stream of their k-th draw."""
KEEP = 2**62
"""The first stream of the cells that a copy keeps: KEEP + k is the stream of copy k."""
MEND = 2**61
"""The first stream of cells that are drawn again because they break a rule; see `mending`."""
EXPLAIN = 2**63
"""The first stream of hidden cells: EXPLAIN + k is the stream of draw k. No row has so many copies
that their streams reach this number."""


def uniforms(seed: int, stream: int, rows: Integers, size: int) -> Floats:
    """Uniform numbers in [0, 1) for each row number, float64[n, size].

    They come from Philox (Salmon et al. 2011), keyed by seed and stream and counted by row: a block
    of four numbers has one counter, and row r owns the counters r * blocks … (r + 1) * blocks - 1.
    """
    blocks = -(-size // 4)
    bits = np.empty((len(rows), blocks * 4), dtype=np.uint64)
    for first, last in _runs(rows):
        generator = np.random.Philox(
            key=np.array([seed, stream], dtype=np.uint64), counter=int(rows[first]) * blocks
        )
        drawn = generator.random_raw((last - first) * blocks * 4)
        bits[first:last] = drawn.reshape(last - first, -1)
    return np.asarray((bits[:, :size] >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def repeated_uniforms(
    seed: int, first_stream: int, rows: Integers, times: int, size: int
) -> Floats:
    """Uniform numbers for `times` draws of each row, float64[n * times, size]: all draws of the
    first row, then those of the next. Draw k has the stream first_stream + k."""
    draws = [uniforms(seed, first_stream + k, rows, size) for k in range(times)]
    return np.stack(draws, axis=1).reshape(len(rows) * times, size)


def of_copies(seed: int, first_stream: int, rows: Integers, copies: Integers, size: int) -> Floats:
    """The uniform numbers of `repeated_uniforms`, float64[n, size], for copies by the number of the
    row and that of the copy, both int64[n]."""
    u = np.empty((len(rows), size))
    for copy in np.unique(copies).tolist():
        own = copies == copy
        u[own] = uniforms(seed, first_stream + copy, rows[own], size)
    return u


def mending(
    seed: int, purpose: int, attempt: int, rows: Integers, copies: Integers, size: int
) -> Floats:
    """Uniform numbers float64[n, size] to draw rows again that were drawn for a purpose (GENERATE,
    RECONSTRUCT, AUGMENT or CANDIDATES), by their row numbers and the numbers of their copies."""
    u = np.empty((len(rows), size))
    for copy in np.unique(copies).tolist():
        of_copy = copies == copy
        stream = MEND + (purpose << 40) + (attempt << 20) + copy
        u[of_copy] = uniforms(seed, stream, rows[of_copy], size)
    return u


def _runs(rows: Integers) -> Iterator[tuple[int, int]]:
    """Index ranges over which row numbers rise by one."""
    if len(rows):
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)
