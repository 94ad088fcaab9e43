"""The numbers behind the report: marginals, scores of held-out rows, thresholds, the worst rows."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.artifact import Calibration, Manifest
from nelbo.cells import texts
from nelbo.encoding import missing_in, relative
from nelbo.engine import Engine
from nelbo.explanation import ExplainedCell, explain_row
from nelbo.forms import text_of
from nelbo.rows import Anomaly, Scores
from nelbo.schema import Column, Kind, Schema
from nelbo.scores import rows_for

from ..associations import measure_of
from ..calibrate import one_batch
from ..data import Rows, Training
from ..evaluate import Evaluation, association_errors, pair_associations, shape_errors
from ..fields import DAY, HOUR, MONDAY, WEEKDAY, Field

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_CELLS = 100_000
LEAST_ROWS = 500
"""Maximum number of held-out cells to explain, and the minimum number of rows."""
BINS = 30
RANGE = (0.005, 0.995)
"""Quantiles of the real numbers between which a histogram is drawn."""
WIDEST = 1e300
"""Maximum range of numbers in a chart: near the end of float64 a width is not finite."""
TOP = 12
WORST, FEWEST, WORST_CELLS = 20, 5, 2_000
"""Maximum and minimum number of worst rows, and the maximum number of their cells in between."""
ODD = 3
VALUES = 24
"""Values of a row that are shown beside its odd ones."""
ALPHAS = (0.05, 0.01, 0.001)
PAIRS = 5
TOLERANCE = 0.1
SURE = 3.0
"""A pair disagrees if its difference is more than this many times its floor."""
NOTICED = 0.01
"""Minimum share of real cells that a constant column lacks."""


@dataclass(frozen=True)
class Histogram:
    """Shares of the present cells between edges float[b + 1], as real[b] and synthetic[b]; `beyond`
    are those outside."""

    edges: Floats
    real: Floats
    synthetic: Floats
    beyond: tuple[float, float]


@dataclass(frozen=True)
class Bars:
    """Shares of the present cells in the most frequent categories; `rest` and `others` are those in
    the `more` rarer ones."""

    names: tuple[str, ...]
    real: Floats
    synthetic: Floats
    more: int
    rest: tuple[float, float]


@dataclass(frozen=True)
class Marginal:
    """One column, real beside synthetic. `off` is its shape error in percent, `floor` the same for
    fresh real rows.

    `missing` are the shares of missing cells (real, synthetic). A column is `constant` where all
    synthetic cells are equal, and one in a hundred real cells is not. There is no shape where all
    real cells are missing, or where the numbers are too far apart to draw.
    """

    column: Column
    off: float
    floor: float
    missing: tuple[float, float]
    constant: bool
    shape: Histogram | Bars | None


def marginals(schema: Schema, evaluation: Evaluation) -> list[Marginal]:
    """All columns in the schema's order."""
    at = {column.name: i for i, column in enumerate([*schema.numbers, *schema.categoricals])}
    off = evaluation.errors(shape_errors)
    floors = evaluation.floors(shape_errors)
    return [
        _marginal(
            column,
            float(off[at[column.name]]),
            float(floors[at[column.name]]),
            _one_column(evaluation.fitted, at[column.name]),
            _one_column(evaluation.synthetic, at[column.name]),
        )
        for column in schema.modelled
    ]


def furthest(marginals: list[Marginal], most: int) -> list[Marginal]:
    """The `most` that are furthest off, or all in their order where there are not more."""
    if len(marginals) <= most:
        return marginals
    return sorted(marginals, key=lambda marginal: -marginal.off)[:most]


def _one_column(rows: Rows, at: int) -> Rows:
    """A column, counted over the numbers and then the categories."""
    code = at - rows.numbers.shape[1]
    if code < 0:
        return Rows(rows.numbers[:, at : at + 1], rows.codes[:, :0])
    return Rows(rows.numbers[:, :0], rows.codes[:, code : code + 1])


def rhythms(schema: Schema, evaluation: Evaluation) -> list[Marginal]:
    """Patterns of datetimes that a chart over years cannot show: weekdays and hours, or the time
    since another column."""
    names = [name for name, _ in _views(schema, evaluation.fitted.numbers)]
    if not names:
        return []

    def views(rows: Rows) -> Rows:
        values = [values for _, values in _views(schema, rows.numbers)]
        return Rows(np.column_stack(values), rows.codes[:, :0])

    def errors(real: Rows, other: Rows) -> Floats:
        return shape_errors(views(real), views(other))

    off = evaluation.errors(errors)
    floors = evaluation.floors(errors)
    real = views(evaluation.fitted)
    synthetic = views(evaluation.synthetic)
    marginals = []
    for at, name in enumerate(names):
        values = np.unique(real.numbers[~np.isnan(real.numbers[:, at]), at])
        kind: Kind = "integer" if (values == np.round(values)).all() else "continuous"
        if len(values) > 1:
            column = Column(name=name, kind=kind)
            both = _one_column(real, at), _one_column(synthetic, at)
            marginals.append(_marginal(column, float(off[at]), float(floors[at]), *both))
    return marginals


def _views(schema: Schema, numbers: Floats) -> Iterator[tuple[str, Floats]]:
    counted = relative(numbers, schema)
    for column, absolute, since in zip(schema.numbers, numbers.T, counted.T, strict=True):
        if column.since:
            unit = DAY if column.step >= DAY else HOUR
            name = "days" if column.step >= DAY else "hours"
            yield f"{column.name}: {name} since {column.since}", since / unit
        elif column.kind == "datetime":
            yield f"{column.name}: weekday", WEEKDAY.of(absolute) + 1
            if column.step < DAY:
                yield f"{column.name}: hour", Field(HOUR, MONDAY, 24).of(absolute)


def _marginal(column: Column, off: float, floor: float, real: Rows, synthetic: Rows) -> Marginal:
    """The comparison of one column's rows."""
    missing, shape = _compared(column, real, synthetic)
    return Marginal(column, off, floor, missing, _is_constant(real, synthetic), shape)


def _is_constant(real: Rows, synthetic: Rows) -> bool:
    """Whether synthetic cells are all equal, missing ones too, where real cells are not."""
    cells, made_cells = (np.hstack([rows.numbers, rows.codes])[:, 0] for rows in (real, synthetic))
    only = np.unique(made_cells)
    if len(only) != 1:
        return False
    equal = np.isnan(cells) if np.isnan(only[0]) else cells == only[0]
    return bool(equal.mean() <= 1 - NOTICED)


def _compared(
    column: Column, real: Rows, synthetic: Rows
) -> tuple[tuple[float, float], Histogram | Bars | None]:
    both = (real, synthetic)
    if real.numbers.shape[1]:
        numbers = [rows.numbers[:, 0] for rows in both]
        present = [values[~np.isnan(values)] for values in numbers]
        return _absent(present, both), _histogram(column, *present)
    codes = [rows.codes[:, 0] for rows in both]
    known_codes = [values[values <= len(column.categories)] for values in codes]
    return _absent(known_codes, both), _bars(column, *known_codes)


def _absent(present: Sequence[Sized], rows: Sequence[Sized]) -> tuple[float, float]:
    real, synthetic = (
        1 - len(some) / max(1, len(every)) for some, every in zip(present, rows, strict=True)
    )
    return real, synthetic


def _histogram(column: Column, real: Floats, synthetic: Floats) -> Histogram | None:
    edges = _edges(column, real)
    if edges is None:
        return None
    shares = [np.histogram(values, edges)[0] / max(1, len(values)) for values in (real, synthetic)]
    beyond = [
        1 - float(share.sum()) if len(values) else 0.0
        for share, values in zip(shares, (real, synthetic), strict=True)
    ]
    return Histogram(edges, shares[0], shares[1], (beyond[0], beyond[1]))


def _edges(column: Column, real: Floats) -> Floats | None:
    """Edges over the middle 99 % of the numbers; bins of integers and datetimes hold equally many
    of their steps."""
    if not len(real):
        return None
    low, high = np.quantile(real, RANGE, method="closest_observation").tolist()
    if low == high:
        low = float(real.min())
        high = float(real.max())
    if high - low > WIDEST or abs(low) > WIDEST or 0 < high - low < 1 / WIDEST:
        return None
    if column.kind == "continuous":
        margin = 0.0 if high > low else max(1.0, abs(low)) / 2
        return np.linspace(low - margin, high + margin, BINS + 1 if high > low else 2)
    step = float(column.step)
    width = step * np.ceil((high - low + step) / step / BINS)
    start = low - step / 2 if column.kind == "integer" else low
    return np.asarray(start + width * np.arange(np.floor((high - low) / width) + 2))


def _bars(column: Column, real: Integers, synthetic: Integers) -> Bars | None:
    if not len(real):
        return None
    categories = len(column.categories)
    shares = [
        np.bincount(codes, minlength=categories + 1) / max(1, len(codes))
        for codes in (real, synthetic)
    ]
    top = np.argsort(-shares[0][:categories], kind="stable")[:TOP]
    rest = [
        1 - float(share[top].sum()) if len(codes) else 0.0
        for share, codes in zip(shares, (real, synthetic), strict=True)
    ]
    names = tuple((column.words or column.categories)[at] for at in top)
    return Bars(
        names,
        shares[0][top],
        shares[1][top],
        categories + len(column.rarer) - len(top),
        (rest[0], rest[1]),
    )


@dataclass(frozen=True)
class Pair:
    """The association of two columns in real and in synthetic rows, and the name of its measure.
    `floor` is the mean difference between two samples of the real rows."""

    columns: tuple[str, str]
    measure: str
    real: float
    synthetic: float
    floor: float

    @property
    def difference(self) -> float:
        return abs(self.real - self.synthetic)

    @property
    def agrees(self) -> bool:
        """Whether the difference is small, or is seen between real rows too."""
        return self.difference <= max(TOLERANCE, SURE * self.floor)


def pairs(schema: Schema, evaluation: Evaluation) -> list[Pair]:
    """All measured pairs of columns: those that do not agree first, by their difference."""
    names = [column.name for column in (*schema.numbers, *schema.categoricals)]
    real = pair_associations(evaluation.fitted, evaluation.fitted)
    synthetic = pair_associations(evaluation.fitted, evaluation.synthetic)
    floors = evaluation.floors(association_errors)
    of_columns = [
        Pair(
            columns=(names[i], names[j]),
            measure=measure_of(i, j, len(schema.numbers)),
            real=float(real[i, j]),
            synthetic=float(synthetic[i, j]),
            floor=float(floors[i, j]),
        )
        for i, j in combinations(range(len(real)), 2)
    ]
    return sorted(of_columns, key=lambda pair: (pair.agrees, -pair.difference))


@dataclass(frozen=True)
class HeldOut:
    """Scores of held-out rows, by their row numbers in the table."""

    scores: Scores
    rows: int
    """Number of all held-out rows; those with scores are an evenly spaced sample of them, without
    scores that are not finite."""


def held_out(engine: Engine, training: Training) -> HeldOut:
    every = np.sort(np.concatenate([training.split.stop, training.split.calibrate]))
    most = max(LEAST_ROWS, MOST_CELLS // len(engine.manifest.order))
    at = every[:: -(-len(every) // most)]
    scores = engine.score(one_batch(training.table.take(at)))
    return HeldOut(replace(scores, rows=at[scores.rows]), len(every))


def threshold(scores: Floats, alpha: float) -> float | None:
    """The score above which a row's p-value is alpha or less; None where n scores are too few for
    such a p-value."""
    above = int(np.floor(alpha * (len(scores) + 1) + 1e-9)) - 1
    return None if above < 0 else float(np.sort(scores)[::-1][above])


@dataclass(frozen=True)
class Reach:
    """Whether a row can have a p-value of alpha or less, and the number of calibration rows that
    counts need for it."""

    alpha: float
    needed: int
    by: Literal["counts", "tail"] | None


def reach(calibration: Calibration) -> Iterator[Reach]:
    n = len(calibration.scores)
    for alpha in ALPHAS:
        needed = rows_for(alpha)
        yield Reach(
            alpha,
            needed,
            "counts" if n >= needed else "tail" if calibration.smallest <= alpha else None,
        )


@dataclass(frozen=True)
class ShownCell:
    """A cell as the table has it, None where it is missing."""

    name: str
    value: str | None


@dataclass(frozen=True)
class WorstRow:
    """A held-out row with a high surprise: the cells that explain it (the most surprising first),
    other cells, and how many more there are."""

    row: int
    identifiers: tuple[ShownCell, ...]
    nelbo: float
    surprise: float
    p_value: float
    odd: tuple[ExplainedCell, ...]
    others: tuple[ShownCell, ...]
    more: int


def worst_rows(engine: Engine, training: Training, scored: HeldOut) -> list[WorstRow]:
    """The rows with the highest surprise, highest first. Wide tables have fewer: what is expected
    in a cell is drawn with all columns."""
    rows = max(FEWEST, min(WORST, WORST_CELLS // len(engine.manifest.order)))
    return [_worst_row(engine, training, row) for row in scored.scores.top(rows)]


def _worst_row(engine: Engine, training: Training, row: Anomaly) -> WorstRow:
    cells = one_batch(training.table.take([row.row]))
    odd = explain_row(engine, row, cells, ODD, seed=0)
    names = {cell.column for cell in odd}
    columns = [column for column in training.schema.columns if column.name in cells.schema.names]
    others = [column for column in columns if column.name not in names]
    identifiers = [column for column in others if column.kind == "identifier"]
    modelled = [column for column in others if column.kind != "identifier"]
    return WorstRow(
        row=row.row,
        identifiers=tuple(_shown(cells, column, training.schema) for column in identifiers),
        nelbo=row.nelbo,
        surprise=row.surprise,
        p_value=row.p_value,
        odd=tuple(odd),
        others=tuple(_shown(cells, column, training.schema) for column in modelled[:VALUES]),
        more=max(0, len(modelled) - VALUES),
    )


def _shown(row: pa.RecordBatch, column: Column, schema: Schema) -> ShownCell:
    return ShownCell(column.name, text_of(row, column, schema))


@dataclass(frozen=True)
class ColumnSummary:
    """A row of the schema table; `likelihood` says of an identifier how it is made."""

    column: Column
    likelihood: str
    missing: float


def likelihood_of(manifest: Manifest, name: str) -> str:
    """The likelihood of a column; of an identifier, how generated rows get it."""
    if name in manifest.identifiers:
        return f"not modelled; generated rows: {manifest.identifiers[name].words}"
    return manifest.likelihoods.get(name, "not modelled")


def columns(engine: Engine, training: Training) -> Iterator[ColumnSummary]:
    schema = training.schema
    rows = training.rows
    absent = {
        column.name: float(np.isnan(values).mean())
        for column, values in zip(schema.numbers, rows.numbers.T, strict=True)
    }
    for column, codes in zip(schema.categoricals, rows.codes.T, strict=True):
        absent[column.name] = float((codes == len(column.categories) + 1).mean())
    for column in schema.columns:
        if column.name in absent:
            likelihood = likelihood_of(engine.manifest, column.name)
            yield ColumnSummary(column, likelihood, absent[column.name])
        elif column.name in training.table.column_names:
            empty = texts(
                training.table.column(column.name).combine_chunks(), missing_in(column, schema)
            ).null_count
            likelihood = likelihood_of(engine.manifest, column.name)
            yield ColumnSummary(column, likelihood, empty / len(training.table))
