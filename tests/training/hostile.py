"""Tables that people have and generators of examples do not: columns of every kind with every kind
of trouble."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import NDArray

DAY = 86_400 * 10**6
Make = Callable[[np.random.Generator, int], Any]
"""A column of so many values."""


def _floats(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    values: NDArray[np.float64] = rng.normal(20, 5, n)
    return values


def _one_off(values: NDArray[Any], value: float) -> NDArray[Any]:
    values[0] = value
    return values


def _but_three(values: Any) -> Any:
    return pa.concat_arrays([values[:3], pa.nulls(len(values) - 3, values.type)])


def _days(rng: np.random.Generator, n: int, step: int = DAY) -> NDArray[Any]:
    """Two years in steps of so many microseconds."""
    micros = np.datetime64("2023-03-01", "us").astype(np.int64) + step * rng.integers(
        0, 730 * DAY // step, n
    )
    dates: NDArray[Any] = micros.astype("datetime64[us]")
    return dates


def _later(rng: np.random.Generator, n: int, step: int = DAY) -> NDArray[Any]:
    ends = _days(rng, n, step)
    ends[rng.random(n) < 0.4] = np.datetime64("9999-12-31")
    return ends


COLUMNS: dict[str, Make] = {
    "continuous": _floats,
    "constant": lambda rng, n: np.full(n, 7.25),
    "two values": lambda rng, n: rng.choice([0.1, 0.3], n),
    "all equal but one": lambda rng, n: _one_off(np.zeros(n), 1.0),
    "tiny": lambda rng, n: rng.normal(size=n) * 1e-300,
    "denormal": lambda rng, n: rng.normal(size=n) * 1e-308,
    "huge": lambda rng, n: rng.normal(size=n) * 1e300,
    "tiny and huge": lambda rng, n: (
        rng.choice([1e-300, 1e300, -1e300, 1.0], n) * rng.normal(size=n)
    ),
    "two scales": lambda rng, n: np.round(rng.normal(5, 1, n), 2) * rng.choice([1, 1000], n),
    "a sentinel": lambda rng, n: np.where(rng.random(n) < 0.1, -9999, np.round(_floats(rng, n), 1)),
    "one far off": lambda rng, n: _one_off(_floats(rng, n), 1e12),
    "heavy tails": lambda rng, n: rng.standard_cauchy(n),
    "near duplicates": lambda rng, n: (
        rng.choice([1.0, 2.0, 5.0], n) + rng.integers(0, 3, n) * 1e-15
    ),
    "many digits": lambda rng, n: np.round(rng.uniform(-1e8, 1e8, n), 6),
    "amounts that are mostly 0": lambda rng, n: np.where(
        rng.random(n) < 0.9, 0, np.round(rng.lognormal(5, 3, n), 2)
    ),
    "integers": lambda rng, n: rng.integers(-50, 50, n),
    "integers as floats": lambda rng, n: rng.integers(0, 5, n).astype(np.float64),
    "large integers": lambda rng, n: rng.integers(-(2**53), 2**53, n),
    "round integers": lambda rng, n: 7 + 250 * rng.integers(0, 2**40, n),
    "counts with one far off": lambda rng, n: _one_off(rng.poisson(3, n), 10**15),
    "a key": lambda rng, n: np.arange(n),
    "flags": lambda rng, n: rng.random(n) < 0.3,
    "one flag": lambda rng, n: np.ones(n, dtype=bool),
    "categories": lambda rng, n: rng.choice(["red", "green", "blue"], n),
    "one category": lambda rng, n: np.full(n, "same"),
    "names": lambda rng, n: [f"name {i}" for i in rng.permutation(n)],
    "names, two rows each": lambda rng, n: [f"name {i // 2}" for i in rng.permutation(n)],
    "days": _days,
    "seconds": lambda rng, n: _days(rng, n, 10**6),
    "milliseconds": lambda rng, n: _days(rng, n, 10**3),
    "open ends": _later,
    "open ends in milliseconds": lambda rng, n: _later(rng, n, 10**3),
    "one day": lambda rng, n: np.full(n, np.datetime64("2024-02-29")),
    "first and last days": lambda rng, n: rng.choice(
        np.array(["0001-01-01", "1969-12-31", "9999-12-31"], dtype="datetime64[us]"), n
    ),
    "missing but three numbers": lambda rng, n: _but_three(pa.array(_floats(rng, n))),
    "missing but three integers": lambda rng, n: _but_three(pa.array(rng.integers(0, 9, n))),
    "missing but three texts": lambda rng, n: _but_three(pa.array(rng.choice(["a", "b"], n))),
    "missing but three flags": lambda rng, n: _but_three(pa.array(rng.random(n) < 0.5)),
    "missing but three days": lambda rng, n: _but_three(pa.array(_days(rng, n, 10**6))),
}
"""Values of a column by what is troublesome about them."""


def table(
    names: list[str], rows: int, seed: int, missing: float = 0.0, duplicated: float = 0.0
) -> pa.Table:
    """Columns by their names in COLUMNS; cells are missing and rows repeat others at these
    rates."""
    rng = np.random.default_rng(seed)
    columns = []
    for name in names:
        values = pa.array(COLUMNS[name](rng, rows))
        absent = pa.array(rng.random(rows) < missing)
        columns.append(pa.compute.if_else(absent, pa.scalar(None, values.type), values))
    made = pa.table(columns, names=[f"{name} {i}" for i, name in enumerate(names)])
    again = np.where(rng.random(rows) < duplicated, rng.integers(0, 3, rows), np.arange(rows))
    return made.take(again)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Small tables of one to many columns."""
    one_to_few = st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=6)
    alike = st.builds(
        lambda name, count: [name] * count, st.sampled_from(sorted(COLUMNS)), st.integers(2, 40)
    )
    names = draw(st.one_of(one_to_few, one_to_few, alike))
    rates = st.sampled_from([0.0, 0.0, 0.1, 0.9])
    return table(
        names, draw(st.integers(20, 60)), draw(st.integers(0, 2**32 - 1)), draw(rates), draw(rates)
    )
