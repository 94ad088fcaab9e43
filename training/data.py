"""The training table: read once for its schema and once for its rows. A seed splits the rows: some
to fit to, some to stop by, some to calibrate with."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nelbo.artifact import MAX_MANIFEST_BYTES, MAX_TEXTS, is_parsable
from nelbo.cells import texts
from nelbo.encoding import (
    Encoded,
    as_modelled,
    check_columns,
    encode,
    floored,
    missing_in,
    relative,
)
from nelbo.errors import InvalidInput
from nelbo.files import DETECTED, CsvOptions, Digest, Limits, Table, open_table, table_of
from nelbo.identifiers import Identifier
from nelbo.rows import RowError
from nelbo.rule_keeping import matrix_of
from nelbo.rules import MAX_ENTRIES_IN_ALL
from nelbo.schema import Column, Schema
from nelbo.schema_inference import Inspector
from nelbo.ties import Tie

from .clusters import with_clusters
from .config import Config
from .fields import few_values, fields
from .identifiers import learn_identifiers, of_free_text
from .rules import of_rules, with_rules
from .ties import learn_ties

MIN_ROWS = 20
MOST_RARER = 50_000
"""Maximum number of rarer categories that an artifact names, in all columns together."""
ROOM = 3 * 2**20
"""Bytes of a manifest that are kept for everything but its schema, ties and identifiers."""
NOTED = 0.01
"""If more than this share of a column's rows hold values too rare to be generated, a notice says
so."""
CLOSE = 0.1
"""A datetime is counted since another one if that reduces its width to this share or less."""
CROSS_BELOW = 500
"""Tables with fewer rows are calibrated across folds: a held-out part would be too small."""


@dataclass(frozen=True)
class TrainingSource:
    """The file of a training table, and how it is written."""

    path: Path
    csv: CsvOptions = DETECTED
    limits: Limits = field(default_factory=Limits)

    def open(self) -> Table:
        return open_table(self.path, csv=self.csv, limits=self.limits)


@dataclass(frozen=True)
class FrameSource:
    """A training table in memory."""

    frame: pa.Table

    def open(self) -> Table:
        return table_of(self.frame)


@dataclass(frozen=True)
class Rows:
    """Encoded rows: numbers float64[n, …] and codes int64[n, …] as nelbo.encoding gives them."""

    numbers: NDArray[np.float64]
    codes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, at: NDArray[np.int64]) -> "Rows":
        return Rows(self.numbers[at], self.codes[at])


@dataclass(frozen=True)
class Training:
    """A table ready to train on. `table` has the rows as they were read, in the order of `rows`."""

    schema: Schema
    table: pa.Table
    rows: Rows
    split: "Split"
    total: int
    refused: int
    digest: str
    notices: tuple[str, ...]
    table_digest: str = ""
    at: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """int64[n], the row number in the file of each row."""
    errors: tuple[RowError, ...] = ()
    """One for each refused row, in row order."""
    ties: dict[str, tuple[Tie, ...]] = field(default_factory=dict)
    """What the columns of many categories are tied to."""
    identifiers: dict[str, Identifier] = field(default_factory=dict)
    """How the columns of identifiers are made."""
    of_reading: tuple[str, ...] = ()
    """The notices about how the file was read; the others are about the model."""


@dataclass(frozen=True)
class Split:
    """Row indices int64[…] of the rows to fit to, to stop by and to calibrate with; no row is in
    two of them."""

    fitted: NDArray[np.int64]
    stop: NDArray[np.int64]
    calibrate: NDArray[np.int64]


def read(
    source: TrainingSource | FrameSource,
    config: Config,
    seed: int,
    schema: Schema | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Training:
    """Read a table for training. Raises InvalidInput where it cannot be trained on. `progress` is
    called with the number of rows read so far."""
    inspected = _inspect(source, schema, progress)
    schema = inspected.schema
    sample = _sampled(inspected.rows, config.max_train_rows, seed)
    with source.open() as table:
        rows_as_read = pa.Table.from_batches(_taken(table.batches(), sample))
    usable, encoded = _usable(rows_as_read, schema)
    refused = len(encoded.errors)
    in_file = np.arange(inspected.rows) if sample is None else sample
    split = split_rows(len(usable), config.held_out, seed)
    schema, rows, notices = complete(schema, usable, split.fitted, config)
    room = max(0, MAX_MANIFEST_BYTES - ROOM - len(_as_json(schema))) // 2
    ties = learn_ties(schema, usable, rows.numbers, split.fitted, config.rare, room)
    identifiers = learn_identifiers(rows_as_read, schema, config.rare, room)
    notices += of_free_text(identifiers)
    return Training(
        schema=schema,
        table=usable,
        rows=rows,
        split=split,
        total=inspected.rows,
        refused=refused,
        digest=hashlib.sha256(rows.numbers.tobytes() + rows.codes.tobytes()).hexdigest(),
        notices=(*inspected.notices, *_of_refused(refused, len(usable)), *notices),
        ties=ties,
        identifiers=identifiers,
        of_reading=inspected.notices,
        table_digest=inspected.digest,
        at=in_file[encoded.rows],
        errors=tuple(
            error.model_copy(update={"row": int(in_file[error.row])}) for error in encoded.errors
        ),
    )


@dataclass(frozen=True)
class _Inspected:
    """The results of the first pass over a table."""

    schema: Schema
    rows: int
    digest: str
    notices: tuple[str, ...]


def _inspect(
    source: TrainingSource | FrameSource,
    schema: Schema | None,
    progress: Callable[[int], None],
) -> _Inspected:
    """Read a table for its schema, unless there is one already."""
    inspector = Inspector()
    digest = Digest()
    rows = 0
    with source.open() as table:
        for batch in table.batches():
            inspector.update(batch)
            digest.update(batch)
            rows += batch.num_rows
            progress(rows)
        inferred = inspector.finish()
        notices = (*table.notices, *table.late_notices)
    if schema is None:
        schema = inferred.schema
        notices = (*notices, *inferred.notices)
    else:
        notices = (*notices, *check_columns(table.names, schema))
    if not schema.modelled:
        raise InvalidInput(
            "no column is left to model: all of them are identifiers; name their kinds in a schema"
            " file"
        )
    return _Inspected(schema, rows, digest.hexdigest(), notices)


def complete(
    schema: Schema, usable: pa.Table, fitted: NDArray[np.int64], config: Config
) -> tuple[Schema, Rows, list[str]]:
    """The schema completed by the `fitted` rows (categories, datetimes counted since another), the
    encoded rows, and notices. Every row of `usable` must be one that encode accepts."""
    counted = _counted_categories(schema, usable.take(fitted))
    rarer = _rarer(counted, config)
    schema = _with_categories(schema, counted, rarer, config.max_categories)
    _check_size(schema)

    encoded = encode(_one_batch(usable), schema)
    numbers = encoded.numbers
    if not any(column.since for column in schema.columns):
        schema = _with_since(schema, numbers[fitted])
        numbers = relative(numbers, schema)

    schema = with_clusters(schema, numbers[fitted], encoded.named[fitted])
    x = matrix_of(numbers, encoded.named, schema)
    schema, left_out = _fitting(with_rules(schema, x, config))

    notices = [*of_rules(schema), *left_out]
    for name, counts in counted.items():
        notices += _of_many_categories(name, counts, len(rarer[name]), config)
    notices += _of_rare_numbers(schema, numbers[fitted], config.rare)
    return schema, Rows(numbers, as_modelled(encoded.named, schema)), notices


def split_rows(n: int, held_out: float, seed: int) -> Split:
    """A share `held_out` of the rows to stop by (at most 2,000), and the same share to calibrate
    with (at most 10,000); small tables calibrate across folds instead."""
    order = np.random.default_rng([seed, 3]).permutation(n)
    stop = max(2, min(round(n * held_out), 2_000))
    calibrate = 0 if n < CROSS_BELOW else min(round(n * held_out), 10_000)
    return Split(
        np.sort(order[stop + calibrate :]),
        np.sort(order[:stop]),
        np.sort(order[stop : stop + calibrate]),
    )


def folds(n: int, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows outside, rows inside) of each of `count` folds."""
    order = np.random.default_rng([seed, 4]).permutation(n)
    for fold in range(count):
        inside = np.sort(order[fold::count])
        yield np.setdiff1d(order, inside), inside


def _sampled(total: int, most: int, seed: int) -> NDArray[np.int64] | None:
    if total <= most:
        return None
    return np.sort(np.random.default_rng([seed, 2]).choice(total, most, replace=False))


def _taken(
    batches: Iterator[pa.RecordBatch], sample: NDArray[np.int64] | None
) -> Iterator[pa.RecordBatch]:
    """The rows of the batches that are in the sample, or all."""
    first = 0
    for batch in batches:
        end = first + batch.num_rows
        if sample is None:
            yield batch
        else:
            start, stop = np.searchsorted(sample, [first, end])
            yield batch.take(sample[start:stop] - first)
        first = end


def _usable(table: pa.Table, schema: Schema) -> tuple[pa.Table, Encoded]:
    """The rows that can be encoded, as one batch, and the whole table encoded."""
    refused = 0
    if len(table):
        encoded = encode(_one_batch(table), schema)
        refused = len(encoded.errors)
    usable = len(table) - refused
    if usable < MIN_ROWS:
        raise InvalidInput(
            f"{usable} usable rows ({refused} refused) are too few to train on; Nelbo wants"
            f" {MIN_ROWS} at least"
        )
    return table.take(encoded.rows), encoded


def _of_refused(refused: int, usable: int) -> Iterator[str]:
    if refused:
        yield (
            f"{refused} of {usable + refused} rows hold a value that breaks their column's kind and"
            " were left out"
        )


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


Counts = list[tuple[str, int]]
"""Categories with their rows, the most frequent first."""


def _counted_categories(schema: Schema, fit: pa.Table) -> dict[str, Counts]:
    """The categories of each column whose schema names none."""
    return {
        column.name: category_counts(fit.column(column.name), missing_in(column, schema))
        for column in schema.categoricals
        if not column.categories
    }


def category_counts(column: "pa.ChunkedArray[Any]", missing: Sequence[str]) -> Counts:
    """The categories of a column with their rows."""
    held = pc.value_counts(texts(column.combine_chunks(), missing).drop_null())
    names: list[Any] = held.field("values").to_pylist()
    rows: list[Any] = held.field("counts").to_pylist()
    counts = list(zip(names, rows, strict=True))
    return sorted(counts, key=lambda pair: (-pair[1], pair[0]))


def _rarer(counted: dict[str, Counts], config: Config) -> dict[str, Counts]:
    """The rarer categories of each column that an artifact names: those that enough rows hold, the
    most frequent of them where all columns together have too many."""
    often = {
        name: [pair for pair in counts[config.max_categories :] if pair[1] >= config.rare]
        for name, counts in counted.items()
    }
    room = MOST_RARER
    few_first = sorted(often, key=lambda name: len(often[name]))
    for at, name in enumerate(few_first):
        often[name] = often[name][: room // (len(few_first) - at)]
        room -= len(often[name])
    return often


def _with_categories(
    schema: Schema, counted: dict[str, Counts], rarer: dict[str, Counts], most: int
) -> Schema:
    """The schema with the `most` frequent categories of each column, in the order of their texts,
    and with its rarer ones."""
    categories = {
        name: {
            "categories": tuple(sorted(category for category, _ in counts[:most])),
            "rarer": tuple(rarer[name]),
        }
        for name, counts in counted.items()
    }
    columns = tuple(
        column.model_copy(update=categories.get(column.name, {})) for column in schema.columns
    )
    return schema.model_copy(update={"columns": columns})


def _check_size(schema: Schema) -> None:
    """Refuse a schema whose categories no manifest can hold, before training."""
    if not _fits(schema):
        raise InvalidInput(
            f"the table has {schema.texts:,} categories in all, which take"
            f" {len(_as_json(schema)) / 2**20:,.0f} MiB; an artifact holds at most {MAX_TEXTS:,} in"
            f" {(MAX_MANIFEST_BYTES - ROOM) // 2**20} MiB: lower max_categories, or give columns of"
            " long texts the kind identifier in a schema file"
        )


def _fits(schema: Schema) -> bool:
    """Whether a manifest can hold the schema."""
    text = _as_json(schema)
    small = len(text) <= MAX_MANIFEST_BYTES - ROOM and is_parsable(text)
    entries = sum(len(rule.values) for rule in schema.rules or ())
    return small and schema.texts <= MAX_TEXTS and entries <= MAX_ENTRIES_IN_ALL


def _as_json(schema: Schema) -> bytes:
    return json.dumps(schema.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()


def _fitting(schema: Schema) -> tuple[Schema, list[str]]:
    """The schema without the rules that fix so many values that no manifest can hold them, and
    notices about those."""
    notices = []
    while schema.rules and not _fits(schema):
        largest = max(schema.rules, key=lambda rule: len(rule.values))
        rules = tuple(rule for rule in schema.rules if rule is not largest)
        schema = schema.model_copy(update={"rules": rules})
        notices.append(
            f"the rule {largest.text!r} is not kept: it fixes {len(largest.values):,} values, and"
            " an artifact cannot hold so many"
        )
    return schema, notices


def _with_since(schema: Schema, numbers: NDArray[np.float64]) -> Schema:
    """The schema with each datetime counted since the closest earlier datetime that is never
    missing, if one is close enough."""
    since: dict[str, str | None] = {}
    for j, column in enumerate(schema.numbers):
        nearest = CLOSE * _width(numbers[:, j])
        for i in range(j):
            earlier = schema.numbers[i]
            may_count = _is_datetime_since(column, earlier) and not np.isnan(numbers[:, i]).any()
            if not may_count or since.get(earlier.name):
                continue
            width = _width(numbers[:, j] - floored(numbers[:, i], column.step))
            if width < nearest:
                since[column.name] = earlier.name
                nearest = width
    columns = tuple(
        column.model_copy(update={"since": since.get(column.name)}) for column in schema.columns
    )
    return schema.model_copy(update={"columns": columns})


def _is_datetime_since(column: Column, earlier: Column) -> bool:
    return column.kind == "datetime" and earlier.kind == "datetime"


def _width(values: NDArray[np.float64]) -> float:
    """Width of the middle nine tenths of the values; 0 where all are missing."""
    seen = values[~np.isnan(values)]
    return float(np.subtract(*np.quantile(seen, (0.95, 0.05)))) if len(seen) else 0.0


def _of_many_categories(name: str, counts: Counts, rarer: int, config: Config) -> Iterator[str]:
    """Notices about a column whose categories are not all modelled one by one, but for `rarer`
    further ones that have a name."""
    most, rare = config.max_categories, config.rare
    if len(counts) > most:
        yield (
            f"column {name!r} has {len(counts):,} categories: the {most:,} most frequent are"
            " modelled one by one, the others in"
            " clusters, from which generated rows draw those that go with their other cells, by"
            " frequency (max_categories)"
        )
    upto = most + rarer
    never = [rows for at, (_, rows) in enumerate(counts) if rows < rare or at >= upto]
    share = sum(never) / max(1, sum(rows for _, rows in counts))
    if share >= NOTED:
        yield (
            f"column {name!r}: {len(never):,} categories that fewer than {rare} rows hold, in"
            f" {share:.0%} of the rows, are"
            f" never generated (rare)"
            f"{'; generated rows leave the column empty' if len(never) == len(counts) else ''}"
        )


def _of_rare_numbers(schema: Schema, numbers: NDArray[np.float64], rare: int) -> Iterator[str]:
    """Notices about number columns with values that are too rare to be generated."""
    for column, values in zip(schema.numbers, numbers.T, strict=True):
        held = int((~np.isnan(values)).sum())
        if held < rare <= len(values) - held:
            yield (
                f"column {column.name!r}: fewer than {rare} rows hold a value; generated rows leave"
                " the column empty (rare)"
            )
            continue
        for one in fields(column, values):
            of_field = one.of(values[~np.isnan(values)])
            counts = np.unique(of_field, return_counts=True)[1]
            few = counts[counts < rare]
            if few_values(of_field) and few.sum() >= NOTED * held > 0:
                part = f" ({one.name})" if one.name else ""
                yield (
                    f"column {column.name!r}{part}: {len(few):,} values that fewer than {rare} rows"
                    " hold, in"
                    f" {few.sum() / held:.0%} of the rows, are generated as ranges of at least"
                    f" {rare} rows (rare)"
                )
