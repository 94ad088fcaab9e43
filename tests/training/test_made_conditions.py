"""The laws of rows with conditions, over tables of all kinds: every row meets every condition, the
first rows of a longer request are those of a shorter one, and no condition changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nelbo.condition_reading import read_conditions
from nelbo.conditions import Allowed, Conditions, Shares
from nelbo.encoding import Encoded, encode
from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from nelbo.files import open_table, open_writer
from nelbo.schema import CATEGORICALS, Column
from tests.training.tables import QUICK, made
from tests.training.test_conditions import SCHEMA as PAYMENTS
from tests.training.test_conditions import engine as payments  # noqa: F401  # a fixture
from tests.training.test_conditions import like_fraud
from training.export import export_model
from training.fit import fit_rows

SEED, ROWS = 3, 300


@pytest.fixture(
    scope="module",
    params=["mixed", "numbers only", "categories only", "one column", "one category"],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    table = made(request.param)
    vae, _ = fit_rows(table.schema, table.rows, table.split, QUICK, 0, lambda *_: None)
    folder = tmp_path_factory.mktemp("model")
    export_model(folder, vae, "model", table.schema, QUICK, 0, table.rows)
    return Engine.load(folder)


def asked(column: Column, engine: Engine, draw: st.DrawFn) -> Allowed | None:
    """A condition on a column that rows can meet; None for no condition."""
    domain = engine.manifest.domains[column.name]
    missing = domain.missing and draw(st.booleans())
    if column.kind in CATEGORICALS:
        codes = [code for code in range(len(column.categories)) if code not in domain.never]
        chosen = draw(st.lists(st.sampled_from(codes), unique=True)) if codes else []
        allowed = Allowed(column, missing, tuple(chosen))
    else:
        assert domain.low is not None
        assert domain.high is not None
        ends = st.floats(domain.low, domain.high)
        if column.kind != "continuous":
            step = column.step
            ends = st.integers(int(domain.low // step), int(domain.high // step)).map(
                lambda value: float(value * step)
            )
        pairs = draw(st.lists(st.tuples(ends, ends), max_size=2))
        allowed = Allowed(column, missing, (), tuple((min(pair), max(pair)) for pair in pairs))
    return None if allowed.is_empty else allowed


@st.composite
def conditions_of(draw: st.DrawFn, engine: Engine) -> Conditions:
    columns = engine.schema.modelled
    names = draw(st.lists(st.sampled_from([column.name for column in columns]), unique=True))
    chosen = [column for column in columns if column.name in names]
    allowed = [asked(column, engine, draw) for column in chosen]
    shares = None
    free = [column for column in engine.schema.categoricals if column not in chosen]
    is_shared = draw(st.booleans())
    if free and is_shared:
        codes = tuple(range(len(free[0].categories)))
        is_weighted = draw(st.booleans())
        weights = tuple(1.0 + code for code in codes) if is_weighted else ()
        shares = Shares(free[0], codes, weights)
    return Conditions(tuple(each for each in allowed if each), shares)


def encoded(engine: Engine, batch: pa.RecordBatch) -> Encoded:
    rows = encode(batch, engine.schema)
    assert rows.errors == []
    return rows


def check_laws(engine: Engine, conditions: Conditions) -> None:
    batch = engine.generate(SEED, 0, ROWS, conditions).batch
    rows = encoded(engine, batch)
    assert batch.num_rows == ROWS
    assert conditions.met(engine.schema, rows.numbers, rows.codes).all()
    if conditions.shares is not None:
        at = engine.schema.categoricals.index(conditions.shares.column)
        codes = np.array(conditions.shares.codes)[conditions.shares.of_rows(np.arange(ROWS))]
        assert np.array_equal(rows.codes[:, at], codes)

    # Whatever was prepared before, and whatever the chunk
    fresh = Engine.load(engine.artifact.folder)
    assert fresh.generate(SEED, 0, 7, conditions).batch.equals(batch.slice(0, 7))
    assert engine.generate(SEED, 41, 19, conditions).batch.equals(batch.slice(41, 19))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_row_meets_every_condition_whatever_the_chunk(
    engine: Engine, data: st.DataObject
) -> None:
    check_laws(engine, data.draw(conditions_of(engine)))


def test_no_condition_is_the_plain_model(engine: Engine) -> None:
    plain = engine.generate(SEED, 5, 50).batch
    assert engine.generate(SEED, 5, 50, Conditions()).batch.equals(plain)
    assert engine.generate(SEED, 5, 50, read_conditions(engine.manifest)).batch.equals(plain)


def test_rows_of_another_seed_are_others(engine: Engine) -> None:
    column = engine.schema.modelled[0]
    conditions = read_conditions(engine.manifest, [f"'{column.name}' is not missing"])
    batches = [engine.generate(seed, 0, 50, conditions).batch for seed in (1, 2)]
    assert not batches[0].equals(batches[1])


@pytest.mark.parametrize("where", [False, True])
@pytest.mark.parametrize("ends", [(0.9, 0.98), (0.3, 0.5), (0.97, 1.0), (0.0, 0.4)])
def test_rows_of_a_range_of_the_nelbo_are_scored_in_it_when_they_are_read_again(
    engine: Engine, ends: tuple[float, float], where: bool, tmp_path: Path
) -> None:
    plain = engine.score(engine.generate(SEED, 0, 2_000).batch).nelbo
    low = float(np.quantile(plain, ends[0])) - 1e-3 if ends[0] else -np.inf
    high = float(np.quantile(plain, ends[1])) + 1e-3
    column = engine.schema.modelled[0]
    given = read_conditions(engine.manifest, [f"'{column.name}' is not missing"] if where else [])
    conditions = replace(given, nelbo=(low, high))
    check_laws(engine, conditions)

    batch = engine.generate(SEED, 0, ROWS, conditions).batch
    with open_writer(tmp_path / "rows.csv") as writer:
        writer.write(batch)
    with open_table(tmp_path / "rows.csv") as table:
        (read_again,) = table.batches()
    scores = engine.score(read_again)
    assert len(scores.nelbo) == ROWS
    assert low <= scores.nelbo.min()
    assert scores.nelbo.max() <= high
    odds = engine.odds(conditions, SEED)
    assert 0 < odds.met <= odds.rows
    if not where:
        share = np.mean((plain >= low) & (plain <= high))
        assert odds.met / odds.rows == pytest.approx(share, abs=0.03)


def test_a_range_of_the_nelbo_in_which_there_is_no_row_is_refused(payments: Engine) -> None:  # noqa: F811
    with pytest.raises(InvalidInput, match="ask for a wider range"):
        payments.generate(SEED, 0, 5, Conditions(nelbo=(1e6, 2e6)))


# What the rows are like: payments of which one in fifty is a fraud


def payments_where(payments: Engine, *where: str, **more: object) -> pa.RecordBatch:  # noqa: F811
    conditions = read_conditions(payments.manifest, where, **more)  # type: ignore[arg-type]
    return payments.generate(1, 0, 1_000, conditions).batch


def test_rows_of_a_rare_class_are_like_it(payments: Engine) -> None:  # noqa: F811
    table = payments_where(payments, "label = fraud")
    assert set(table["label"].to_pylist()) == {"fraud"}
    assert like_fraud(table) > 0.9
    assert like_fraud(payments_where(payments, "label = ok")) < 0.01


def test_what_follows_from_a_range_is_made(payments: Engine) -> None:  # noqa: F811
    table = payments_where(payments, "hour between 0 and 3")
    assert np.mean(np.array(table["label"].to_pylist()) == "fraud") > 0.9


def test_a_combination_that_the_model_never_makes_is_made_all_the_same(
    payments: Engine,  # noqa: F811
) -> None:
    conditions = read_conditions(payments.manifest, ["label = ok and hour < 3", "country = XX"])
    table = payments.generate(1, 0, 200, conditions).batch
    assert set(table["label"].to_pylist()) == {"ok"}
    assert set(table["hour"].to_pylist()) <= {0, 1, 2}
    odds = payments.odds(conditions, 1)
    assert odds.met < 5
    assert odds.rows == 16_384


def test_the_probability_of_a_class_is_about_its_share(payments: Engine) -> None:  # noqa: F811
    odds = payments.odds(read_conditions(payments.manifest, ["label = fraud"]), 1)
    assert 0.01 < odds.met / odds.rows < 0.04


def test_numbers_in_a_range_are_not_those_of_a_few_candidates(
    payments: Engine,  # noqa: F811
) -> None:
    conditions = read_conditions(payments.manifest, ["amount between 300 and 500"])
    table = payments.generate(1, 0, 5_000, conditions).batch
    assert payments.odds(conditions, 1).candidates < 1_000
    assert len(set(table["amount"].to_pylist())) > 3_000


def test_balanced_classes_each_look_like_themselves(payments: Engine) -> None:  # noqa: F811
    table = payments_where(payments, balance="label")
    assert table["label"].to_pylist() == ["ok", "fraud"] * 500
    is_fraud = pa.array(np.arange(1_000) % 2 == 1)
    assert like_fraud(table.filter(is_fraud)) > 0.9
    assert like_fraud(table.filter(pa.compute.invert(is_fraud))) < 0.02


def test_a_row_to_be_like_gives_its_cells_to_all(payments: Engine) -> None:  # noqa: F811
    table = payments_where(payments, like={"country": "XX", "amount": 444.25})
    assert set(table["country"].to_pylist()) == {"XX"}
    assert set(table["amount"].to_pylist()) == {444.25}
    assert len(PAYMENTS.columns) == table.num_columns
