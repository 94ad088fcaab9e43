"""Plant errors into some rows of a table (1 %), so that it is known which cells are wrong.

    python -m tests.benchmarks.planting TABLE.csv --out FOLDER --name NAME [--seed 0]
        [--share 0.01]

It writes two suites:

    planted   NAME.train.csv has 80 % of the rows, without errors; NAME.csv the others, with errors
    dirty     NAME.csv has all rows, with errors

Each has a NAME.key.csv: the row (of NAME.csv, counted from 0), the kind of the error, and its
column. A swap has two columns, A<>B. A row gets one error at most. Each kind that the table allows
gets an equal share:

    swap        two numbers of a row change places
    unit        a number is multiplied by 1000
    typo        a letter of a category is dropped, doubled or exchanged, or the case changes
    missing     a cell is emptied in a column that has no empty cell
    date        a date moves by 4 to 60 years
    elsewhere   a category or a number comes from another row and contradicts this one: no row has
                it together with the value of some other column, although chance would give five
                such rows or more

Equal tables and seeds give equal files.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Cells = dict[str, str]
"""New text of some cells of a row, by column."""
MIN_ERRORS = 12
TEST_SHARE = 0.2
TRIES = 200
"""Number of rows that are tried for an error before its kind is left out."""
MIN_VALUES = 10
"""A number column has more distinct values than this; others are categories written as digits."""
MIN_HOLDERS = 5
"""A category is misspelt only where at least this many rows hold it."""
MIN_EXPECTED = 5
"""A pair of values contradicts itself if at least this many rows should have it and none has."""
MAX_LEVELS = 200
YEAR = re.compile(r"(?<!\d)(?:1[5-9]|20)\d\d(?!\d)")


@dataclass(frozen=True)
class Original:
    """A table without errors, each cell as text; an empty text is a missing cell."""

    frame: pd.DataFrame

    def cell(self, row: int, name: str) -> str:
        return str(self.frame.at[row, name])

    @cached_property
    def numbers(self) -> list[str]:
        return [name for name in self._parsed if self.frame[name].nunique() > MIN_VALUES]

    @cached_property
    def dates(self) -> list[str]:
        return [name for name in self._texts if are_dates(self.frame[name])]

    @cached_property
    def categories(self) -> list[str]:
        return [name for name in self._texts if name not in self.dates]

    @cached_property
    def complete(self) -> list[str]:
        """Columns without missing cells."""
        return [str(name) for name in self.frame if (self.frame[name] != "").all()]

    @cached_property
    def counts(self) -> dict[str, "pd.Series[int]"]:
        """Number of rows of each value, for the categories."""
        return {name: self.frame[name].value_counts() for name in self.categories}

    @cached_property
    def levels(self) -> dict[str, NDArray[np.int64]]:
        """Codes of the values by column, -1 for missing; numbers are in tenths of the rows."""
        tenths = {
            name: pd.qcut(self._parsed[name], 10, labels=False, duplicates="drop")
            for name in self.numbers
        }
        codes = {
            str(name): pd.Series(pd.factorize(self.frame[name].replace("", None))[0])
            for name in self.frame
            if name not in tenths and name not in self.dates
        }
        return {
            name: column.fillna(-1).to_numpy(np.int64)
            for name, column in (codes | tenths).items()
            if column.max() < MAX_LEVELS
        }

    @cached_property
    def _parsed(self) -> dict[str, "pd.Series[float]"]:
        columns = {name: self.frame[name][self.frame[name] != ""] for name in self.frame}
        parsed = {name: pd.to_numeric(column, errors="coerce") for name, column in columns.items()}
        return {
            str(name): column.reindex(self.frame.index)
            for name, column in parsed.items()
            if len(column) and column.notna().all()
        }

    @cached_property
    def _texts(self) -> list[str]:
        return [str(name) for name in self.frame if name not in self._parsed]


def are_dates(column: "pd.Series[str]") -> bool:
    """Whether all texts are dates with a year in four digits; empty ones are missing."""
    values = column[column != ""].drop_duplicates()
    if values.empty or not values.str.contains(YEAR.pattern).all():
        return False
    return bool(pd.to_datetime(values, errors="coerce", format="mixed", utc=True).notna().all())


def swap(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    """Two numbers that differ by a tenth at least."""
    if len(table.numbers) < 2:
        return None
    one, other = rng.choice(table.numbers, 2, replace=False)
    a, b = table.cell(row, one), table.cell(row, other)
    if not (a and b) or abs(float(a) - float(b)) < 0.1 * max(abs(float(a)), abs(float(b)), 1e-9):
        return None
    return {one: b, other: a}


def unit(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    if not table.numbers:
        return None
    name = rng.choice(table.numbers)
    text = table.cell(row, name)
    return {name: _thousandfold(text)} if text and float(text) else None


def _thousandfold(text: str) -> str:
    """In the form that the number had: without a point, or with one."""
    return f"{float(text) * 1000:.10g}" if re.search(r"[.eE]", text) else str(int(text) * 1000)


def typo(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    if not table.categories:
        return None
    name = rng.choice(table.categories)
    text = table.cell(row, name)
    counts = table.counts[name]
    if not text or counts[text] < MIN_HOLDERS:
        return None
    misspelt = _misspelt(text, rng)
    return {name: misspelt} if misspelt.strip() and misspelt not in counts.index else None


def _misspelt(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text)))
    forms = (
        text[:at] + text[at + 1 :],
        text[: at + 1] + text[at:],
        text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
        text.swapcase(),
    )
    return forms[rng.integers(len(forms))]


def missing(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    return {rng.choice(table.complete): ""} if table.complete else None


def date(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    """Years are moved in fours, so that a 29th of February remains a date."""
    if not table.dates:
        return None
    name = rng.choice(table.dates)
    text = table.cell(row, name)
    years = 4 * int(rng.integers(1, 16)) * int(rng.choice([-1, 1]))
    moved = YEAR.sub(lambda year: str(int(year[0]) + years), text)
    return {name: moved} if text else None


def elsewhere(table: Original, row: int, rng: np.random.Generator) -> Cells | None:
    names = list(table.levels)
    name = names[rng.integers(len(names))]
    levels = table.levels[name]
    if levels[row] < 0:
        return None
    contradictory = np.zeros(levels.max() + 1, dtype=bool)
    for witness in names:
        code = table.levels[witness][row]
        if witness != name and code >= 0:
            contradictory |= _contradictory(levels, table.levels[witness] == code)
    donors = np.flatnonzero((levels >= 0) & contradictory[levels])
    return {name: table.cell(rng.choice(donors), name)} if len(donors) else None


def _contradictory(levels: NDArray[np.int64], witnesses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which levels no witness has, although chance would give them to MIN_EXPECTED of them."""
    overall = np.bincount(levels[levels >= 0], minlength=levels.max() + 1)
    beside = np.bincount(levels[(levels >= 0) & witnesses], minlength=len(overall))
    expected: NDArray[np.float64] = overall * (witnesses.sum() / len(levels))
    return np.asarray((beside == 0) & (expected >= MIN_EXPECTED))


KINDS: dict[str, Callable[[Original, int, np.random.Generator], Cells | None]] = {
    "swap": swap,
    "unit": unit,
    "typo": typo,
    "missing": missing,
    "date": date,
    "elsewhere": elsewhere,
}


def plant(
    table: Original, rows: NDArray[np.int64], rng: np.random.Generator, share: float = 0.01
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Those rows of the table with errors, and the key. A kind that no row allows is left out."""
    count = max(MIN_ERRORS, round(share * len(rows)))
    free = list(rng.permutation(len(rows)))
    kinds = list(KINDS)
    dirty = table.frame.iloc[rows].reset_index(drop=True)
    key: list[dict[str, object]] = []
    while len(key) < count and kinds:
        kind = kinds.pop(0)
        error = _first_error(table, kind, rows, free, rng)
        if error is None:
            continue
        kinds.append(kind)
        at, cells = error
        free.remove(at)
        dirty.loc[at, list(cells)] = list(cells.values())
        key.append({"row": at, "kind": kind, "column": "<>".join(cells)})
    return dirty, pd.DataFrame(key, columns=["row", "kind", "column"])


def _first_error(
    table: Original,
    kind: str,
    rows: NDArray[np.int64],
    free: list[int],
    rng: np.random.Generator,
) -> tuple[int, Cells] | None:
    """The first of the free rows that allows an error of this kind."""
    for at in free[:TRIES]:
        row = int(rows[at])
        cells = KINDS[kind](table, row, rng)
        if cells and any(table.cell(row, name) != text for name, text in cells.items()):
            return int(at), cells
    return None


def read_original(path: Path) -> Original:
    """Usual spellings of a missing cell become an empty text."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=["NA", "NaN", "nan"])
    return Original(frame.fillna("").reset_index(drop=True))


def write_suites(table: Original, folder: Path, name: str, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table.frame))
    test = np.sort(order[: round(TEST_SHARE * len(order))])
    train = np.sort(order[len(test) :])
    for suite, rows in (("planted", test), ("dirty", np.arange(len(order)))):
        (folder / suite).mkdir(parents=True, exist_ok=True)
        dirty, key = plant(table, rows, rng, share)
        dirty.to_csv(folder / suite / f"{name}.csv", index=False)
        key.to_csv(folder / suite / f"{name}.key.csv", index=False)
    table.frame.iloc[train].to_csv(folder / "planted" / f"{name}.train.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.01)
    options = parser.parse_args()
    table = read_original(options.table)
    write_suites(table, options.out, options.name, options.seed, options.share)


if __name__ == "__main__":
    main()
