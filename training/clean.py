"""Clean: find the wrong cells of a table, among the very rows that the models are fitted to.

A model has seen its own training rows and calls none of them odd. So the rows are split into FOLDS
folds, and each row is judged by a model that was fitted without it. The rows that judge hold errors
too. Two things keep those from looking usual: a curve of surprises counts only the bulk of the
costs and goes on beyond it as its own tail does (surprises.fit_curve), and a number far outside the
bulk of its column is surprising by that alone, however many errors are like it (`outlying`).

Shapes: n rows, d modelled columns.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.cells import texts, written
from nelbo.encoding import encode, missing_in, spelled_field, written_as
from nelbo.engine import Engine
from nelbo.novelty import MISSING, MISSPELT, NEW, RESPELT, Novelty
from nelbo.rows import SUSPICIOUS
from nelbo.schema import Column, Schema
from nelbo.spelling.types import as_type
from nelbo.surprise import Levels

from .calibrate import Fold, fold_models, one_batch, seen_by
from .config import Config
from .data import Training, TrainingSource, read
from .export import export_model
from .fit import share_of_exemplars
from .surprises import HeldOutCosts, fit_curve, fit_surprise, novelties_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Stage = Callable[[str, int, int, str], None]

FOLDS = 2
"""With two folds, a table takes about twice the time of one training."""
BULK = 0.98
"""Share of the costs that is counted. Up to 2 % of the cells of a column may be wrong before they
begin to look usual."""
TAIL = 0.9
SELDOM, BY_MISTAKE = 0.02, 3.0
"""New, missing and misspelt cells that fewer than SELDOM of the rows have surprise more than their
share says, because it counts the errors themselves: see novelties_of."""
FASTEST = 20.0
"""Largest exponent of the tail of a column's numbers."""
MOST_CELLS = 3
"""Cells of a row that are listed at most."""
MOST_EXPLAINED = 1_000
"""Cells whose expected value is drawn: the most surprising ones."""
KNOTS = 64
SMALLEST = 1e-300
"""No p-value is 0."""


@dataclass(frozen=True)
class Cleaned:
    """The suspicious cells of a table, most surprising row first."""

    cells: pa.Table
    rows: int
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Every row judged by a model that was fitted without it: surprise float64[n] of the rows,
    float64[n, d] of their cells, novelty levels int8[n, d], and the fold of each row int64[n]."""

    surprise: Floats
    cells: Floats
    levels: Levels
    fold: Integers

    @property
    def p_value(self) -> Floats:
        return np.maximum(np.exp(-self.surprise), SMALLEST)


def find_wrong_cells(
    source: TrainingSource,
    config: Config,
    seed: int,
    schema: Schema | None,
    alpha: float,
    stage: Stage,
) -> Cleaned:
    """The cells of rows with a p-value of at most `alpha`, and of rows that cannot be read. Raises
    InvalidInput where the table cannot be trained on."""
    stage("read", 0, 0, "rows")
    training = read(source, config, seed, schema, lambda rows: stage("read", rows, 0, "rows"))

    def progress(step: int, steps: int, held_out: float) -> None:
        stage("fit", step, steps, f"held-out nelbo {held_out:.2f}")

    with tempfile.TemporaryDirectory(prefix="nelbo-clean-") as scratch:
        stage("fit", 0, 0, "held-out nelbo")
        judges = list(_judges(training, config, seed, Path(scratch), progress))
        judged = _judged(training, judges, share_of_exemplars(training.schema, config))
        stage("explain", 0, 0, "expected values")
        lines = list(_lines(training, judges, judged, alpha, seed, stage))
    table = pa.Table.from_pylist(lines, schema=_cells_schema(training))
    return Cleaned(table, training.total, training.of_reading)


@dataclass(frozen=True)
class _Judge:
    """A fold's model as an engine, with what it has seen of the categories."""

    fold: Fold
    engine: Engine
    novelty: Novelty
    schema: Schema


def _judges(
    training: Training, config: Config, seed: int, scratch: Path, progress: Any
) -> Iterator[_Judge]:
    folds = fold_models(training.schema, training.rows, config, seed, progress, FOLDS)
    for number, fold in enumerate(folds):
        folder = scratch / str(number)
        few = fold.rows.take(fold.outside[:256])
        export_model(folder, fold.vae, "fold", training.schema, config, seed, few)
        schema = seen_by(training.schema, fold.rows, fold.outside)
        order = [column.name for column in schema.modelled]
        yield _Judge(fold, Engine.load(folder), Novelty(schema, order), schema)


def _judged(training: Training, judges: Sequence[_Judge], share: float) -> Judged:
    parts = [_costs(training, judge) for judge in judges]
    inside = np.concatenate([judge.fold.inside for judge in judges])
    costs = HeldOutCosts(
        np.concatenate([part.nelbo for part in parts]),
        np.concatenate([part.members for part in parts]),
        np.concatenate([part.levels for part in parts]),
    ).take(np.argsort(inside))
    fold = np.concatenate([np.full(len(part), i) for i, part in enumerate(parts)])

    novelties = list(
        novelties_of(training.schema, training.table, training.rows, SELDOM, BY_MISTAKE)
    )
    fitted = fit_surprise(costs, novelties, share, BULK, nelbo_weight=share / 2)
    cells = fitted.of_cells(costs.members, costs.levels)
    cells = np.maximum(cells, outlying(training.schema, training.rows.numbers))
    # The weighted mean of two surprises is none itself: its own curve makes it one.
    most = fit_curve(cells.max(axis=1), KNOTS, BULK)(cells.max(axis=1))
    weight = fitted.nelbo_weight
    joined = (1 - weight) * most + weight * fitted.nelbo(costs.nelbo)
    surprise = fit_curve(joined, KNOTS, BULK)(joined)
    return Judged(surprise, cells, costs.levels, fold[np.argsort(inside)])


def _costs(training: Training, judge: _Judge) -> HeldOutCosts:
    rows = judge.fold.rows.take(judge.fold.inside)
    costs = judge.engine.costs(rows.numbers, rows.codes)
    assert costs.members is not None, "present training writes the costs of the members"
    batch = one_batch(training.table.take(judge.fold.inside))
    levels = judge.novelty.levels(batch, encode(batch, judge.schema))
    highest = np.nextafter(np.inf, 0)
    return HeldOutCosts(
        np.nan_to_num(costs.nelbo, nan=highest, posinf=highest),
        np.nan_to_num(costs.members, nan=highest, posinf=highest),
        levels,
    )


def outlying(schema: Schema, numbers: Floats) -> Floats:
    """float64[n, d]: −log of how much of its column a number has beyond it, for numbers beyond the
    quantile BULK on either side of the median; 0 for all other cells.

    The tail is a power law of the distance from the median. Its exponent follows from the quantiles
    TAIL and BULK, which few errors do not move, and is halved: tails are often heavier farther out.
    """
    order = [column.name for column in schema.modelled]
    surprises = np.zeros((len(numbers), len(order)))
    for values, column in zip(numbers.T, schema.numbers, strict=True):
        seen = values[~np.isnan(values)]
        if not len(seen):
            continue
        step = {"integer": 1.0, "datetime": float(column.step)}.get(column.kind, 0.0)
        middle = np.median(seen)
        sides = [_beyond(sign * (values - middle), step) for sign in (1, -1)]
        surprises[:, order.index(column.name)] = np.maximum(*sides)
    return surprises


def _beyond(distance: Floats, step: float) -> Floats:
    """−log of the share of a column beyond each distance float64[n] from its median, on one
    side."""
    near, far = np.nanquantile(distance, [TAIL, BULK])
    if near <= 0:
        return np.zeros(len(distance))
    nats = np.log((1 - TAIL) / (1 - BULK))
    width = np.log(max(far, near + step) / near)
    exponent = 0.5 * min(FASTEST, nats / max(width, nats / FASTEST))
    is_beyond = distance > far + step
    ratio = np.where(is_beyond, distance, far) / far
    return np.where(is_beyond, -np.log(1 - BULK) + exponent * np.log(ratio), 0.0)


# Lines: what is written about a suspicious cell


def _lines(
    training: Training,
    judges: Sequence[_Judge],
    judged: Judged,
    alpha: float,
    seed: int,
    stage: Stage,
) -> Iterator[dict[str, Any]]:
    highest = float(judged.surprise.max(initial=0.0)) + 1
    for error in training.errors:
        yield {
            "row": error.row,
            "surprise": highest,
            "p_value": max(float(np.exp(-highest)), SMALLEST),
            "q_value": max(float(np.exp(-highest)), SMALLEST),
            "column": error.column,
            "reason": error.message,
            "cell_surprise": highest,
        }
    listed = [int(i) for i in np.argsort(-judged.surprise, kind="stable")]
    listed = [i for i in listed if judged.p_value[i] <= alpha]
    cells = [(i, j) for i in listed for j in _suspicious(judged.cells[i])]
    expected = _expected(training, judges, judged, cells[:MOST_EXPLAINED], seed, stage)
    q_value = q_values(judged.p_value)
    for i, j in cells:
        column = training.schema.modelled[j]
        yield {
            "row": int(training.at[i]),
            **_identifiers(training, i),
            "surprise": float(judged.surprise[i]),
            "p_value": float(judged.p_value[i]),
            "q_value": float(q_value[i]),
            "column": column.name,
            "value": _text(training, i, column),
            **expected.get((i, j), {}),
            **_reason(training, judges[judged.fold[i]], judged.levels[i, j], i, column),
            "cell_surprise": float(judged.cells[i, j]),
        }


def _suspicious(cells: Floats) -> list[int]:
    """The columns of a row's suspicious cells: the most surprising one, and others that are more
    than half as surprising."""
    order = [int(j) for j in np.argsort(-cells, kind="stable")[:MOST_CELLS]]
    return [j for j in order if cells[j] > 0.5 * cells[order[0]] or j == order[0]]


def q_values(p_values: Floats) -> Floats:
    """The false discovery rate float64[n] of each row and all rows before it (Benjamini and
    Hochberg 1995)."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    rates = p_values[order] * n / np.arange(1, n + 1)
    q_values = np.empty(n)
    q_values[order] = np.minimum.accumulate(rates[::-1])[::-1]
    return np.minimum(q_values, 1.0)


def _expected(
    training: Training,
    judges: Sequence[_Judge],
    judged: Judged,
    cells: Sequence[tuple[int, int]],
    seed: int,
    stage: Stage,
) -> dict[tuple[int, int], dict[str, Any]]:
    """What cells should be by the other cells of their rows, as Engine.explain says it."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, j in cells:
        groups.setdefault((int(judged.fold[i]), j), []).append(i)

    expected: dict[tuple[int, int], dict[str, Any]] = {}
    for done, ((fold, j), rows) in enumerate(groups.items()):
        stage("explain", done, len(groups), "expected values")
        column = training.schema.modelled[j]
        batch = one_batch(training.table.take(rows))
        summary = judges[fold].engine.explain(batch, column.name, seed=seed).batch
        field = spelled_field(written_as(column, batch.schema.field(column.name)))
        spelled = {
            name: written(as_type(summary[name], field.type), field).to_pylist()
            for name in ("expected", "low", "high")
        }
        shares = summary["share"].to_pylist()
        for at, i in enumerate(rows):
            figures = {name: values[at] for name, values in spelled.items()}
            expected[i, j] = {**figures, "share": shares[at]}
    return expected


def _reason(
    training: Training, judge: _Judge, level: int, i: int, column: Column
) -> dict[str, Any]:
    """What is new about a cell, in words; a misspelt category should be the known one."""
    if level == MISSING:
        return {"reason": "missing, which it seldom is"}
    if level == NEW:
        return {"reason": "no other row has this value"}
    if level in (MISSPELT, RESPELT):
        match = judge.novelty.known(_named(judge.schema, column)).match(
            _text(training, i, column) or ""
        )
        if match:
            return {"reason": f"did you mean {match.category}?", "expected": match.category}
    return {"reason": None}


def _named(schema: Schema, column: Column) -> Column:
    return next(one for one in schema.columns if one.name == column.name)


def _text(training: Training, i: int, column: Column) -> str | None:
    cell = training.table.column(column.name).slice(i, 1).combine_chunks()
    text: str | None = texts(cell, missing_in(column, training.schema))[0].as_py()
    return text


def _identifiers(training: Training, i: int) -> dict[str, str | None]:
    return {
        name: None if (value := training.table.column(column)[i].as_py()) is None else str(value)
        for name, column in _identifier_names(training).items()
    }


def _identifier_names(training: Training) -> dict[str, str]:
    """The names of the identifiers' columns in the result, and in the table."""
    return {
        f"{column.name} (table)" if column.name in SUSPICIOUS.names else column.name: column.name
        for column in training.schema.identifiers
        if column.name in training.table.column_names
    }


def _cells_schema(training: Training) -> pa.Schema:
    identifiers = [pa.field(name, pa.string()) for name in _identifier_names(training)]
    return pa.schema([SUSPICIOUS.field("row"), *identifiers, *list(SUSPICIOUS)[1:]])
