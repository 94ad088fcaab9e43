"""Reading a table for training: three parts that share no row, and nothing learned from the rows
that calibrate."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.errors import InvalidInput, NotFound
from nelbo.files import open_writer
from training.config import Config
from training.data import CROSS_BELOW, TrainingSource, folds, read, split_rows

LATER = {"paid": 300_000, "packed": 9_000}


@pytest.mark.parametrize("n", [20, CROSS_BELOW - 1, CROSS_BELOW, 40_000])
def test_the_three_parts_cover_all_rows_and_share_none(n: int) -> None:
    split = split_rows(n, 0.1, seed=0)
    parts = [split.fitted, split.stop, split.calibrate]
    assert sorted(np.concatenate(parts)) == list(range(n))
    assert (len(split.calibrate) == 0) == (n < CROSS_BELOW)


def test_another_seed_splits_otherwise_and_the_same_seed_alike() -> None:
    first, again, other = (split_rows(1_000, 0.1, seed).calibrate for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["table.csv.gz", "table.jsonl.zst", "table.parquet"])
def test_a_table_trains_alike_compressed_or_with_columns_that_are_left_out(
    name: str, tmp_path: Path
) -> None:
    rows: dict[str, Any] = {
        "x": [float(i % 7) + 0.5 for i in range(60)],
        "word": [f"w{i % 3}" for i in range(60)],
    }
    plain, other = pa.table(rows), tmp_path / name
    with open_writer(tmp_path / "table.csv") as writer:
        writer.write(plain.to_batches()[0])
    if name.endswith(".parquet"):
        pq.write_table(plain.add_column(1, "tags", pa.array([[i] for i in range(60)])), other)
    else:
        with open_writer(other) as writer:
            writer.write(plain.to_batches()[0])
    wanted, found = (
        read(TrainingSource(path), Config(), seed=0) for path in (tmp_path / "table.csv", other)
    )
    own = {"type": None, "number": None}  # how a column is written in its file
    columns, others = (
        [one.model_copy(update=own) for one in read.schema.columns] for read in (wanted, found)
    )
    assert (found.digest, others) == (wanted.digest, columns)
    assert any("'tags' holds lists" in notice for notice in found.notices) == name.endswith(
        ".parquet"
    )


def test_every_row_is_inside_exactly_one_fold() -> None:
    made = list(folds(103, 5, seed=0))
    assert sorted(np.concatenate([inside for _, inside in made])) == list(range(103))
    assert all(not set(outside) & set(inside) for outside, inside in made)


def test_categories_come_from_the_rows_to_fit_only(tmp_path: Path) -> None:
    """Each row has a category of its own besides the common one, so that a category tells which row
    it came from."""
    rows = 600
    names = ["common" if i % 2 else f"rare {i}" for i in range(rows)]
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7}.5,{name}\n" for i, name in enumerate(names)))
    training = read(TrainingSource(path), Config(max_categories=10_000), seed=0)
    known = set(training.schema.categoricals[0].categories)
    fit = {names[row] for row in training.split.fitted}
    assert known == fit


def test_the_most_frequent_categories_are_first_and_ties_are_broken_by_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7}.5,{'abcdefgh'[i % 8]}\n" for i in range(160)))
    training = read(TrainingSource(path), Config(max_categories=3), seed=0)
    categories = training.schema.categoricals[0].categories
    assert len(categories) == 3
    assert list(categories) == sorted(categories)
    assert set(training.rows.codes[:, 0]) == {0, 1, 2, *range(5, 10)}


def test_of_rarer_categories_those_that_enough_rows_hold_keep_their_names_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "x,y\n"
        + "".join(f"{i % 7}.5,c{min(i % 20, 10)}\n" for i in range(200))
        + "1.5,once\n2.5,twice\n2.5,twice\n"
    )
    training = read(TrainingSource(path), Config(max_categories=3), seed=0)
    (column,) = training.schema.categoricals
    names, rows = zip(*column.rarer, strict=True)
    assert set(names) | set(column.categories) == {f"c{i}" for i in range(11)}
    assert list(rows) == sorted(rows, reverse=True)
    assert rows[-1] >= 5
    many, never = training.notices
    assert "the 3 most frequent are modelled one by one" in many
    assert (
        "2 categories that fewer than 5 rows hold, in 2% of the rows, are never generated" in never
    )


def test_rare_numbers_are_counted_in_a_notice_where_they_are_not_generated_as_they_are(
    tmp_path: Path,
) -> None:
    """Costs are 0 in 98 % of the rows, two rows have a bonus; each weight is met once, as a range's
    values are."""
    rng, rows = np.random.default_rng(0), 2_000
    costs = np.where(np.arange(rows) % 50, 0, np.arange(rows))
    bonus = np.where(np.arange(rows) < 2, 7.5, np.nan)
    table = {
        "cost": costs,
        "bonus": bonus,
        "weight": rng.normal(size=rows),
        "age": np.arange(rows) % 50,
    }
    arrays = {name: pa.array(column, from_pandas=True) for name, column in table.items()}
    pq.write_table(pa.table(arrays), tmp_path / "paid.parquet")
    training = read(TrainingSource(tmp_path / "paid.parquet"), Config(), seed=0)
    rare = len(np.unique(training.rows.numbers[training.split.fitted, 0])) - 1
    cost, of_bonus = training.notices
    assert (
        f"'cost': {rare} values that fewer than 5 rows hold, in 2% of the rows, are generated as"
        " ranges of" in cost
    )
    assert (
        "'bonus': fewer than 5 rows hold a value; generated rows leave the column empty" in of_bonus
    )


def test_a_datetime_is_counted_since_the_earlier_one_that_it_stays_closest_to(
    tmp_path: Path,
) -> None:
    """Years of orders: `paid` is days after `ordered`, `packed` hours, `due` is a day, `sent` is in
    UTC; `asked` has gaps."""
    rng, rows = np.random.default_rng(0), 300
    ordered = np.datetime64("2020-01-01T00:00:00") + rng.integers(0, 10**8, rows).astype(
        "timedelta64[s]"
    )
    later = {
        name: ordered + rng.integers(0, most, rows).astype("timedelta64[s]")
        for name, most in LATER.items()
    }
    asked = np.where(rng.random(rows) < 0.1, np.datetime64("NaT"), ordered)
    table = {
        "asked": asked,
        "born": ordered - np.timedelta64(10**9, "s") * rng.random(rows),
        "ordered": ordered,
        **later,
    }
    table["due"] = later["paid"].astype("datetime64[D]")
    arrays = {name: pa.array(column) for name, column in table.items()}
    arrays["sent"] = pa.array(later["packed"].astype(np.int64), pa.timestamp("s", "UTC"))
    pq.write_table(pa.table(arrays), tmp_path / "orders.parquet")
    training = read(TrainingSource(tmp_path / "orders.parquet"), Config(), seed=0)
    found = {column.name: column.since for column in training.schema.columns}
    assert found == dict.fromkeys(("asked", "born", "ordered")) | dict.fromkeys(
        (*later, "due", "sent"), "ordered"
    )
    days = training.rows.numbers[:, -2] / 86_400e6
    assert set(days) == {0, 1, 2, 3, 4}


def test_more_rows_than_memory_allows_are_sampled_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("x\n" + "".join(f"{i}.25\n" for i in range(1_000)))
    config = Config(max_train_rows=300)
    first, again, other = (
        read(TrainingSource(path), config, seed).rows.numbers for seed in (1, 1, 2)
    )
    assert len(first) == 300
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_table_of_identifiers_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id\n" + "".join(f"{i}\n" for i in range(50)))
    with pytest.raises(InvalidInput, match="no column is left to model"):
        read(TrainingSource(path), Config(), seed=0)


def test_a_configuration_file_with_an_unknown_key_names_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("epoch = 3\n")
    with pytest.raises(InvalidInput, match=r"epoch.*known keys are learning_rate"):
        Config.read(path)
    path.write_text("epochs = 3\n")
    assert Config.read(path).epochs == 3
    with pytest.raises(NotFound):
        Config.read(tmp_path / "absent.toml")
