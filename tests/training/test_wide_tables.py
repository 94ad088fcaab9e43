"""A wide table of few rows keeps its strong pairs of columns in the rows that are made from it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from training.associations import associations
from training.config import Config
from training.copula import fit_copula
from training.data import Rows, Training, split_rows
from training.export import export
from training.fit import fit_rows
from training.likelihoods import Likelihoods
from training.networks import Size
from training.vae import coded

Floats = NDArray[np.float64]
ROWS, COLUMNS, FACTORS = 800, 60, 4
PAIRS = [(3, 40), (8, 14), (11, 57), (21, 22), (30, 51), (44, 59)]
LOST = 0.15
"""Maximum loss of a pair's rank correlation, which is about 0.94 in the table."""


def factors_and_pairs(seed: int) -> Training:
    """Numbers, every third of them whole, that follow a factor weakly; the second column of each
    pair follows the first one."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(ROWS, FACTORS))
    numbers = 0.6 * factors[:, np.arange(COLUMNS) % FACTORS] + rng.normal(
        0, 0.8, size=(ROWS, COLUMNS)
    )
    for first, second in PAIRS:
        numbers[:, second] = 0.95 * numbers[:, first] + rng.normal(0, 0.31, ROWS)
    numbers[:, ::3] = np.round(5 * numbers[:, ::3])
    columns = tuple(
        Column(name=f"n{i}", kind="continuous" if i % 3 else "integer") for i in range(COLUMNS)
    )
    rows = Rows(numbers, np.empty((ROWS, 0), dtype=np.int64))
    split = split_rows(ROWS, 0.1, seed)
    return Training(Schema(columns=columns), pa.table({}), rows, split, ROWS, 0, "0" * 64, ())


def correlations(numbers: Floats) -> Floats:
    """The rank correlation of each pair."""
    every = associations(numbers, np.empty((len(numbers), 0), dtype=np.int64))
    return np.array([every[pair] for pair in PAIRS])


def test_generated_rows_keep_each_strong_pair_of_a_wide_table_of_few_rows(tmp_path: Path) -> None:
    training = factors_and_pairs(0)
    vae, _ = fit_rows(training.schema, training.rows, training.split, Config(), 0, lambda *_: None)
    export(tmp_path, vae, "wide", training, Config(), 0)
    batch = Engine.load(tmp_path).generate(0, 0, 2_000).batch
    generated = np.column_stack([np.asarray(batch.column(f"n{i}"), float) for i in range(COLUMNS)])
    lost = correlations(training.rows.numbers) - correlations(generated)
    assert lost.max() < LOST, lost.round(2)


def test_columns_that_say_nothing_have_no_slopes() -> None:
    """Constants, columns without an ordered one beside them, and cells that are all missing."""
    rng = np.random.default_rng(0)
    columns = (
        Column(name="constant", kind="integer"),
        Column(name="empty", kind="continuous"),
        Column(name="color", kind="categorical", categories=("blue", "green", "red")),
    )
    numbers = np.column_stack([np.full(100, 7.0), np.full(100, np.nan)])
    levels = rng.integers(0, 3, size=(100, 1))
    likelihoods = Likelihoods.fit(Schema(columns=columns), numbers, levels)
    codes, _ = coded(likelihoods, Rows(numbers, levels))
    copula = fit_copula(codes, likelihoods)
    assert not copula.slopes.any()
    assert all(np.isfinite(part).all() for part in (*copula.log_shares, *copula.scores))


def test_only_wide_tables_of_few_rows_get_a_decoder_by_their_columns() -> None:
    coarse = [5] * 60
    assert Size.for_table(coarse, rows=800, widest=256) == Size(16, 128, 128, wide=True)
    assert Size.for_table(coarse, rows=800, widest=64) == Size(16, 128, 64, wide=True)
    assert Size.for_table(coarse, rows=6_000, widest=256) == Size(16, 128, 32)
    assert Size.for_table([5] * 16, rows=800, widest=256) == Size(16, 128, 32)
    assert Size.for_table([5] * 1_000, rows=800, widest=256) == Size(16, 64, 32, wide=True)
