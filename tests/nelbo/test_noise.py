"""Laws of the random numbers: they depend on seed, stream and row number alone."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo import noise
from nelbo.expectations import DRAWS

SEEDS = st.integers(0, 2**63 - 1)
STREAMS = st.sampled_from([noise.GENERATE, noise.RECONSTRUCT, noise.AUGMENT + 7, noise.EXPLAIN])
SIZES = st.integers(1, 9)
ROWS = st.lists(st.integers(0, 2**40), min_size=1, max_size=8)


@given(SEEDS, STREAMS, ROWS, SIZES)
def test_a_row_has_the_same_numbers_whatever_rows_stand_beside_it(
    seed: int, stream: int, rows: list[int], size: int
) -> None:
    together = noise.uniforms(seed, stream, np.array(rows), size)
    alone = [noise.uniforms(seed, stream, np.array([row]), size)[0] for row in rows]
    assert np.array_equal(together, np.array(alone))
    assert together.shape == (len(rows), size)
    assert ((together >= 0) & (together < 1)).all()


@given(SEEDS, st.integers(0, 2**40), st.integers(1, 20), SIZES)
def test_consecutive_rows_have_the_numbers_that_each_has_alone(
    seed: int, first: int, count: int, size: int
) -> None:
    rows = np.arange(first, first + count)
    together = noise.uniforms(seed, noise.GENERATE, rows, size)
    assert np.array_equal(together[-1:], noise.uniforms(seed, noise.GENERATE, rows[-1:], size))


@given(SEEDS, ROWS, st.integers(1, 5), SIZES)
def test_draws_of_a_row_come_one_after_the_other_each_from_a_stream_of_its_own(
    seed: int, rows: list[int], times: int, size: int
) -> None:
    numbers = np.array(rows)
    repeated = noise.repeated_uniforms(seed, noise.AUGMENT, numbers, times, size)
    copies = np.tile(np.arange(times), len(numbers))
    by_copy = noise.of_copies(seed, noise.AUGMENT, np.repeat(numbers, times), copies, size)
    assert np.array_equal(by_copy, repeated)
    for k in range(times):
        own = noise.uniforms(seed, noise.AUGMENT + k, numbers, size)
        assert np.array_equal(repeated[k::times], own)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_rows_seeds_and_streams_share_no_numbers(size: int) -> None:
    rows = np.arange(500)
    drawn = [
        noise.uniforms(seed, stream, rows, size)
        for seed in (0, 1)
        for stream in (noise.GENERATE, noise.RECONSTRUCT, noise.AUGMENT, noise.EXPLAIN)
    ]
    assert len(np.unique(np.concatenate(drawn))) == 8 * 500 * size


def test_no_purpose_has_a_stream_of_another() -> None:
    copies = noise.AUGMENT + 2**62
    streams = [noise.GENERATE, noise.RECONSTRUCT, noise.AUGMENT, copies, noise.EXPLAIN]
    assert streams == sorted(set(streams))
    assert noise.EXPLAIN + DRAWS < 2**64


def test_no_two_purposes_share_a_stream() -> None:
    """Each purpose of many streams has room for 2**58 of them."""
    names = ("IDENTIFY", "CHOOSE", "CANDIDATE", "MEND", "KEEP", "EXPLAIN")
    first = [getattr(noise, name) for name in names]
    assert first == sorted(first)
    assert all(after - before >= 2**58 for before, after in pairwise([0, *first]))
    assert noise.AGAIN == noise.CHOOSE + 1
    few = (noise.GENERATE, noise.RECONSTRUCT, noise.AUGMENT, noise.CANDIDATES)
    assert len(set(few)) == len(few)
