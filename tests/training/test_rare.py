"""The rare-value promise: no command makes a category that fewer than `rare` rows hold, whatever
the table.

Rare numbers are made as ranges, so that tails stay.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nelbo.encoding import decode
from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from training.columns import UNROLLED
from training.config import Config
from training.data import Rows, split_rows
from training.export import export_model
from training.fit import fit_rows

CONFIG = Config(min_steps=40, max_steps=40, epochs=1, rare=5)
ROWS = 60
TABLES = {
    "names, each once": (1, 0, 0),
    "names, each in two rows": (2, 0, 0),
    "names, some cells empty": (1, 3, 0),
    "names, many cells empty": (1, 20, 0),
    "names beside one that many rows hold": (1, 0, 20),
    "names beside one that many rows hold, some cells empty": (1, 7, 20),
    "names in a table of many columns": (1, 0, 0),
}
"""Rows of each name, empty cells, rows of a name that is not rare."""
Made = tuple[Engine, Rows, set[str]]


@pytest.fixture(scope="module", params=TABLES)
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model of names and amounts, its rows, and the names that may be made."""
    each, empty, often = TABLES[request.param]
    rng = np.random.default_rng(0)
    held = np.concatenate([np.zeros(often), 1 + np.arange(ROWS - often) // each]).astype(np.int64)
    names = tuple(f"person {i:02}" for i in range(held.max() + 1))
    codes = rng.permutation(np.where(np.arange(ROWS) >= ROWS - empty, len(names) + 1, held))[
        :, None
    ]
    width = UNROLLED + 5 if "many columns" in request.param else 1
    numbers = rng.normal(size=(ROWS, width)) + codes / 10
    rows = Rows(numbers, codes)
    columns = [Column(name=f"x{i}", kind="continuous") for i in range(width)]
    schema = Schema(columns=(Column(name="name", kind="categorical", categories=names), *columns))
    vae, _ = fit_rows(schema, rows, split_rows(ROWS, 0.1, 0), CONFIG, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("people")
    export_model(folder, vae, "people", schema, CONFIG, 0, rows)
    return Engine.load(folder), rows, {names[0]} if often else set()


def given(people: Made) -> pa.RecordBatch:
    engine, rows, _ = people
    return decode(rows.numbers, rows.codes, engine.schema)


def names(batch: pa.RecordBatch, column: str = "name") -> set[str]:
    return set(filter(None, batch[column].to_pylist()))


def test_generate_makes_no_rare_category(people: Made) -> None:
    engine, _, allowed = people
    assert names(engine.generate(0, 0, 500).batch) == allowed


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_augment_makes_no_rare_category_not_even_the_given_row_s(
    people: Made, spread: float
) -> None:
    engine, _, allowed = people
    assert names(engine.augment(given(people), 0, 5, seed=0, spread=spread).batch) <= allowed


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("denoise", [False, True])
def test_reconstruct_fills_in_no_rare_category(people: Made, mode: bool, denoise: bool) -> None:
    """What is observed stays, unless all is made anew."""
    engine, _, allowed = people
    rows = given(people)
    kept = rows["name"].slice(0, ROWS // 2)
    half = pa.concat_arrays([kept, pa.nulls(ROWS - ROWS // 2, pa.string())])
    filled = engine.reconstruct(
        rows.set_column(0, "name", half), 0, 0, mode=mode, denoise=denoise
    ).batch
    assert names(filled.slice(ROWS // 2)) <= allowed
    if denoise:
        assert names(filled) <= allowed
    else:
        before = kept.to_pylist()
        after = filled["name"].slice(0, ROWS // 2).to_pylist()
        assert all(name in (None, made) for name, made in zip(before, after, strict=True))


def test_explain_expects_no_rare_category(people: Made) -> None:
    engine, _, allowed = people
    should = engine.explain(given(people), "name").batch
    assert names(should, "expected") <= allowed


def test_rarer_categories_named_by_a_schema_are_drawn_only_if_enough_rows_hold_them(
    tmp_path: Path,
) -> None:
    """A schema file may name any; here all known categories are rare, one rarer category is not."""
    rng, n = np.random.default_rng(0), 200
    name = Column(
        name="name",
        kind="categorical",
        categories=("a", "b"),
        rarer=(("c", 2), ("d", 180), ("e", 3)),
        clusters=(0, 1, 0),
    )
    schema = Schema(columns=(name, Column(name="x", kind="continuous")))
    codes = np.where(np.arange(n) < 4, np.arange(n) % 2, 5)
    codes[4:9] = [4, 4, 6, 6, 6]
    codes = codes[:, None]
    rows = Rows(rng.normal(size=(n, 1)), codes)
    vae, _ = fit_rows(schema, rows, split_rows(n, 0.1, 0), CONFIG, 0, lambda *_: None)
    export_model(tmp_path, vae, "rarer", schema, CONFIG, 0, rows)
    engine = Engine.load(tmp_path)
    assert names(engine.generate(0, 0, 300).batch) == {"d"}
    empty = pa.record_batch(
        [pa.nulls(50, pa.string()), pa.array(rng.normal(size=50))], names=["name", "x"]
    )
    for mode in (False, True):
        assert names(engine.reconstruct(empty, 0, 0, mode=mode).batch) == {"d"}


@pytest.fixture(scope="module")
def tails(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Rows]:
    """A model of ages that thin out, limits up to a lone million, amounts that are 0 in 98 % of the
    rows, incomes."""
    rng, n = np.random.default_rng(0), 6_000
    ages = np.floor(17 + 63 * rng.beta(1.5, 4, n))
    limits = rng.choice(np.arange(1.0, 51) * 10_000, n)
    limits[:3] = 1e6
    amounts = np.where(rng.random(n) < 0.98, 0, rng.lognormal(6, 1, n).round(2))
    incomes = np.floor(rng.lognormal(10, 0.7, n))
    rows = Rows(
        rng.permutation(np.column_stack([ages, limits, amounts, incomes])),
        np.empty((n, 0), dtype=np.int64),
    )
    kinds = {"age": "integer", "limit": "integer", "amount": "continuous", "income": "integer"}
    schema = Schema(
        columns=tuple(
            Column.model_validate({"name": name, "kind": kind}) for name, kind in kinds.items()
        )
    )
    split = split_rows(n, 0.1, 0)
    config = Config(min_steps=300, max_steps=300, widest=32, exemplars=0)
    vae, _ = fit_rows(schema, rows, split, config, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("tails")
    export_model(folder, vae, "tails", schema, config, 0, rows)
    return Engine.load(folder), rows.take(split.fitted)


def test_ranges_and_quantiles_of_made_numbers_are_the_table_s(tails: tuple[Engine, Rows]) -> None:
    """As far out as one row of a thousand, to a tenth of the range."""
    engine, rows = tails
    made = engine.generate(0, 0, 20_000).batch
    for name, real in zip(made.schema.names, rows.numbers.T, strict=True):
        values = made[name].to_numpy()
        ends, spread = [0.001, 0.01, 0.5, 0.99, 0.999], np.ptp(real)
        assert real.min() <= values.min() <= real.min() + 0.1 * spread
        assert real.max() - 0.25 * spread <= values.max() <= real.max()
        assert np.abs(np.quantile(values, ends) - np.quantile(real, ends)).max() < 0.1 * spread, (
            name
        )


def test_copies_of_a_row_with_a_rare_number_hold_numbers_of_a_range(
    tails: tuple[Engine, Rows],
) -> None:
    engine, rows = tails
    lone = rows.take(np.flatnonzero(rows.numbers[:, 1] == 1e6))
    copies = engine.augment(decode(lone.numbers, lone.codes, engine.schema), 0, 200, seed=0).batch
    assert (copies["limit"].to_numpy() == 1e6).mean() < 0.05
