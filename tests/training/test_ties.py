"""Columns of many categories keep their ties to other columns in all rows that are made."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from nelbo.artifact import read_artifact
from nelbo.engine import Engine
from tests.training.tables import QUICK
from training.data import TrainingSource
from training.pipeline import train

RARE, ROWS, PLANES = 5, 5_000, 400


def flights() -> pa.Table:
    """Each plane has one carrier and one model, each town one county and each county one state; 20
    planes are in 2 rows each."""
    rng = np.random.default_rng(0)
    carriers = rng.integers(0, 6, PLANES)
    models = carriers * 3 + rng.integers(0, 3, PLANES)
    plane = np.append(rng.integers(20, PLANES, ROWS - 40), np.repeat(np.arange(20), 2))
    town = rng.integers(0, 300, ROWS)
    return pa.table(
        {
            "carrier": [f"carrier {each}" for each in carriers[plane]],
            "plane": [f"N{each:03}" for each in plane],
            "model": [f"model {each}" for each in models[plane]],
            "seats": pa.array((20 + 7 * models)[plane]),
            "hour": pa.array(rng.integers(0, 24, ROWS)),
            "town": [f"town {each}" for each in town],
            "county": [f"county {each // 4}" for each in town],
            "state": [f"state {each // 40}" for each in town],
            "delay": pa.array(np.round(rng.normal(carriers[plane], 2), 1)),
        }
    )


TABLE = flights()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A model without rules, so that ties alone keep columns together."""
    folder = tmp_path_factory.mktemp("flights")
    csv.write_csv(TABLE, folder / "flights.csv")
    update = {"max_categories": 30, "min_steps": 150, "max_steps": 150, "find_rules": False}
    config = QUICK.model_copy(update=update)
    source = TrainingSource(folder / "flights.csv")
    train(source, "flights", folder / "artifact", config, 0, None, lambda *_: None)
    return Engine.load(folder / "artifact")


def pairs(table: pa.RecordBatch | pa.Table, *names: str) -> set[tuple[object, ...]]:
    return set(zip(*(table.column(name).to_pylist() for name in names), strict=True))


def test_each_column_of_many_categories_is_tied_to_what_says_most_about_it(engine: Engine) -> None:
    ties = {
        name: {tie.column for tie in of_column} for name, of_column in engine.manifest.ties.items()
    }
    assert {"carrier", "model"} <= ties["plane"]
    assert {"county", "state"} <= ties["town"]
    assert "state" in ties["county"]
    assert not any({"hour", "delay"} & columns for columns in ties.values())


@pytest.mark.parametrize(
    "names", [("plane", "carrier"), ("plane", "model"), ("town", "county"), ("county", "state")]
)
def test_generated_pairs_are_those_of_the_table(engine: Engine, names: tuple[str, str]) -> None:
    batch = engine.generate(0, 0, 4_000).batch
    assert pairs(batch, *names) <= pairs(TABLE, *names)


def test_all_categories_that_enough_rows_hold_are_made_about_as_often(engine: Engine) -> None:
    planes = engine.generate(0, 0, 20_000).batch["plane"].to_pylist()
    often = [f"N{each:03}" for each in range(20, PLANES)]
    rare = [f"N{each:03}" for each in range(20)]
    assert not set(planes) & set(rare)
    counts = np.array([planes.count(each) for each in often])
    own = np.array([TABLE["plane"].to_pylist().count(each) for each in often])
    assert (counts[own >= RARE] > 0).mean() > 0.98
    assert np.abs(counts / counts.sum() - own / own.sum()).sum() / 2 < 0.2


def test_no_pair_of_a_tie_is_held_by_fewer_rows_than_rare(engine: Engine) -> None:
    for of_column in engine.manifest.ties.values():
        for tie in of_column:
            assert tie.table()[:, 2].min() >= RARE


def test_a_row_is_the_same_in_every_chunk(engine: Engine) -> None:
    whole = engine.generate(3, 0, 300).batch
    assert engine.generate(3, 120, 60).batch.equals(whole.slice(120, 60))


def with_only(names: list[str], rows: int = 300) -> pa.RecordBatch:
    """Rows of the table of which these cells alone are given."""
    sample = TABLE.slice(0, rows)
    columns = {
        name: sample[name].combine_chunks() if name in names else pa.nulls(rows, pa.string())
        for name in TABLE.column_names
    }
    return pa.record_batch(columns)


@pytest.mark.parametrize("mode", [False, True])
def test_a_plane_follows_a_given_carrier(engine: Engine, mode: bool) -> None:
    batch = engine.reconstruct(with_only(["carrier"]), 0, seed=1, mode=mode).batch
    assert batch["carrier"].to_pylist() == TABLE["carrier"].to_pylist()[:300]
    assert pairs(batch, "plane", "carrier") <= pairs(TABLE, "plane", "carrier")


def test_columns_follow_a_given_plane_and_a_given_town(engine: Engine) -> None:
    given = with_only(["plane", "town"])
    batch = engine.reconstruct(given, 0, seed=1).batch
    for names in (("plane", "carrier"), ("plane", "model"), ("town", "county"), ("town", "state")):
        right = [pair in pairs(TABLE, *names) for pair in pairs(batch, *names)]
        assert np.mean(right) > 0.95, names
    for name in ("plane", "town"):
        assert batch[name].to_pylist() == given[name].to_pylist()


def test_copies_that_keep_a_plane_have_its_carrier(engine: Engine) -> None:
    given = TABLE.slice(0, 200).combine_chunks().to_batches()[0]
    batch = engine.augment(given, 0, 2, seed=1, spread=1.0, keep=["plane"]).batch
    assert batch["plane"].to_pylist() == [each for each in given["plane"].to_pylist() for _ in "ab"]
    right = [pair in pairs(TABLE, "plane", "model") for pair in pairs(batch, "plane", "model")]
    assert np.mean(right) > 0.95


def test_an_artifact_without_ties_makes_the_other_cells_alike(engine: Engine) -> None:
    artifact = read_artifact(engine.artifact.folder)
    manifest = artifact.manifest.model_copy(update={"ties": {}})
    without = Engine(type(artifact)(artifact.folder, manifest, artifact.digest))
    one, other = (each.generate(0, 0, 500).batch for each in (engine, without))
    for name in ("seats", "hour", "delay"):
        assert one[name].equals(other[name]), name
    assert not pairs(other, "plane", "carrier") <= pairs(TABLE, "plane", "carrier")
