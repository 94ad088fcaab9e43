"""A planted error is what its kind says, the key names its cell, equal seeds give equal files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.planting import KINDS, Original, plant, read_original, write_suites

ROWS = 1_500


@pytest.fixture(scope="module")
def table() -> Original:
    """Numbers, categories, dates, and a city that says its country."""
    rng = np.random.default_rng(0)
    cities = {"Paris": "France", "Lyon": "France", "Rome": "Italy", "Turin": "Italy"}
    city = rng.choice(list(cities), ROWS)
    frame = pd.DataFrame(
        {
            "price": rng.lognormal(size=ROWS).round(2).astype(str),
            "weight": rng.integers(1, 90, ROWS).astype(str),
            "city": city,
            "country": [cities[name] for name in city],
            "day": pd.date_range("2020-01-01", periods=ROWS).astype(str),
            "note": rng.choice(["", "good", "bad"], ROWS),
        }
    )
    return Original(frame)


@pytest.fixture(scope="module")
def planted(table: Original) -> tuple[pd.DataFrame, pd.DataFrame]:
    return plant(table, np.arange(ROWS), np.random.default_rng(1))


def test_one_row_in_a_hundred_gets_an_error_and_each_kind_an_equal_share(
    planted: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    _, key = planted
    assert len(key) == 15
    assert key.row.is_unique
    assert set(key.kind.value_counts()) == {2, 3}
    assert set(key.kind) == set(KINDS)


def test_the_key_names_every_cell_that_changed(
    table: Original, planted: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    dirty, key = planted
    changed = {(row, name) for row, name in np.argwhere(dirty.to_numpy() != table.frame.to_numpy())}
    named = {
        (row, table.frame.columns.get_loc(name))
        for row, columns in zip(key.row, key.column, strict=True)
        for name in columns.split("<>")
    }
    assert changed == named


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_what_it_says(table: Original, kind: str) -> None:
    rng = np.random.default_rng(2)
    errors = [(row, KINDS[kind](table, row, rng)) for row in range(200)]
    changes = [(row, cells) for row, cells in errors if cells]
    assert len(changes) > 20
    for row, cells in changes:
        before = {name: table.cell(row, name) for name in cells}
        assert IS_OF_KIND[kind](before, cells)


def is_swap(before: dict[str, str], after: dict[str, str]) -> bool:
    one, other = before
    return before[one] == after[other] != before[other] == after[one]


def is_unit(before: dict[str, str], after: dict[str, str]) -> bool:
    ((one, other),) = zip(before.values(), after.values(), strict=True)
    return float(other) == pytest.approx(1000 * float(one)) and ("." in one or "." not in other)


def is_typo(before: dict[str, str], after: dict[str, str]) -> bool:
    ((one, other),) = zip(before.values(), after.values(), strict=True)
    letters = set(one.lower())
    return one != other and abs(len(one) - len(other)) <= 1 and set(other.lower()) <= letters


def is_missing(before: dict[str, str], after: dict[str, str]) -> bool:
    return "note" not in after and list(after.values()) == [""]


def is_date(before: dict[str, str], after: dict[str, str]) -> bool:
    one, other = pd.Timestamp(before["day"]), pd.Timestamp(after["day"])
    return 4 <= abs(one.year - other.year) <= 60 and (one.month, one.day) == (
        other.month,
        other.day,
    )


def is_elsewhere(before: dict[str, str], after: dict[str, str]) -> bool:
    """Only city and country depend on each other; a tenth of the numbers meets every category."""
    return set(after) in ({"city"}, {"country"}) and before != after


IS_OF_KIND = {
    "swap": is_swap,
    "unit": is_unit,
    "typo": is_typo,
    "missing": is_missing,
    "date": is_date,
    "elsewhere": is_elsewhere,
}


def test_a_misspelt_category_is_new_to_its_column(
    table: Original, planted: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    dirty, key = planted
    for row, column in key[key.kind == "typo"][["row", "column"]].itertuples(index=False):
        assert dirty.at[row, column] not in set(table.frame[column])


def test_a_larger_share_of_the_rows_may_get_errors(table: Original) -> None:
    dirty, key = plant(table, np.arange(ROWS), np.random.default_rng(1), share=0.05)
    assert len(key) == 75
    assert (dirty != table.frame).any(axis=1).sum() == 75


def test_a_kind_that_a_table_does_not_allow_is_left_out() -> None:
    numbers = Original(pd.DataFrame({"x": [str(i) for i in range(50)], "gap": ["", "1"] * 25}))
    dirty, key = plant(numbers, np.arange(50), np.random.default_rng(0))
    assert set(key.kind) == {"unit", "missing"}
    assert len(key) == 12
    assert len(dirty) == 50


def test_equal_seeds_give_equal_files_and_the_training_rows_are_clean(
    table: Original, tmp_path: Path
) -> None:
    table.frame.to_csv(tmp_path / "table.csv", index=False)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_suites(read_original(tmp_path / "table.csv"), tmp_path / folder, "cities", seed, 0.01)
    files = sorted(path.relative_to(tmp_path / "a") for path in tmp_path.glob("a/*/*"))
    assert [str(file) for file in files] == [
        "dirty/cities.csv",
        "dirty/cities.key.csv",
        "planted/cities.csv",
        "planted/cities.key.csv",
        "planted/cities.train.csv",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    train = read_original(tmp_path / "a" / "planted" / "cities.train.csv").frame
    originals = set(table.frame.itertuples(index=False, name=None))
    assert len(train) == 0.8 * ROWS
    assert set(train.itertuples(index=False, name=None)) <= originals
