"""The engine: runs an artifact's graphs with ONNX Runtime, over batches of one fixed shape on one
thread.

A row's score depends on the artifact and the row alone, a generated row on the artifact, the seed
and its row number alone: never on its neighbours, the batch it came in, the chunk, the machine
count or a retry.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nelbo.artifact import Artifact, check_spread, read_artifact
from nelbo.encoding import Encoded, RowError, absolute, decode, encode, spelled_field, written_as
from nelbo.errors import InvalidArtifact, InvalidInput
from nelbo.graphs import checked
from nelbo.schema import Column, Schema
from nelbo.scores import p_values
from nelbo.spelling.types import as_type

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Check = Callable[[], None]
"""Called between two fixed batches; raises to stop the work (cancelled, lease lost)."""

Cells = tuple[Floats, Integers]
"""Numbers float64[n, …] and codes int64[n, …] of made rows, as nelbo.encoding.decode takes them."""

PRIOR, FILLED, COPIES = 0, 1, 2
"""Streams of random numbers: generated rows, filled rows, and from COPIES on copy 0, 1, 2 … of a
row."""
HIDDEN = 2**63
"""From here on draw 0, 1, 2 … of a row's hidden cell: no row has so many copies."""
DRAWS = 99
"""Draws of a hidden cell: the 5th lowest and the 5th highest of 99 hold one more with probability
0.9."""
_PATH = re.compile(r"/\S+")
"""ONNX Runtime's messages name its own source files."""
DRAWN, MODE = np.array([False]), np.array([True])
ANY, FILL = DRAWN, MODE
"""Whether a cell may be drawn as missing."""


@dataclass(frozen=True)
class Scored:
    """Scores of n rows in nats: nelbo[n] = terms[n, d].sum(1) + kl[n], terms in the manifest's
    order; p_value[n] in (0, 1]."""

    rows: Integers
    nelbo: Floats
    p_value: Floats
    terms: Floats
    kl: Floats
    errors: list[RowError]


@dataclass(frozen=True)
class Made:
    """Rows made from given ones: column `row` names the given row, then `copy` (augment only), then
    the table's columns."""

    batch: pa.RecordBatch
    errors: list[RowError]


class Graphs(Protocol):
    """What runs the graphs of one artifact."""

    def run(
        self, graph: str, batches: Iterable[Sequence[NDArray[Any]]], check: Check | None
    ) -> Iterator[Sequence[NDArray[Any]]]:
        """The outputs of each fixed batch, in order; arrays stand in the manifest's order. `check`
        is called for each batch."""
        ...


class Sessions:
    """The graphs in this process, each loaded when it is first used."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._loaded: dict[str, ort.InferenceSession] = {}

    def run(
        self, graph: str, batches: Iterable[Sequence[NDArray[Any]]], check: Check | None = None
    ) -> Iterator[Sequence[NDArray[Any]]]:
        if graph not in self._loaded:
            self._loaded[graph] = _session(self._artifact, graph)
        names = self._artifact.manifest.graphs[graph]
        for inputs in batches:
            if check is not None:
                check()
            yield self._loaded[graph].run(
                list(names.outputs), dict(zip(names.inputs, inputs, strict=True))
            )


class Engine:
    """An artifact ready to run. Make it after a fork, one for each process.

    Its graphs run in this process, unless `graphs` says where else.
    """

    def __init__(self, artifact: Artifact, graphs: Graphs | None = None) -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.schema: Schema = artifact.manifest.table_schema
        self._calibration = np.array(self.manifest.calibration.scores, dtype=np.float64)
        self.graphs = graphs or Sessions(artifact)
        self.places = tuple(
            [self.manifest.order.index(column.name) for column in columns]
            for columns in (self.schema.numbers, self.schema.categoricals)
        )
        """Where the number columns and the categorical columns stand in the manifest's order."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises NotFound or InvalidArtifact."""
        return cls(read_artifact(folder))

    def map(
        self, graph: str, batches: Iterable[Sequence[NDArray[Any]]], check: Check | None = None
    ) -> Iterator[Sequence[NDArray[Any]]]:
        """Fixed batches through a graph, one after the other; see Graphs.run."""
        return self.graphs.run(graph, batches, check)

    def run(
        self, graph: str, *inputs: NDArray[Any], check: Check | None = None
    ) -> Sequence[NDArray[Any]]:
        """One fixed batch through a graph; inputs and outputs in the manifest's order, each `batch`
        rows long."""
        (outputs,) = self.map(graph, [inputs], check)
        return outputs

    def draw(self, *inputs: NDArray[Any], check: Check | None = None) -> Sequence[NDArray[Any]]:
        """One fixed batch through the generator: z, x, keep, u, how, fill. Older artifacts have no
        `fill`, the last."""
        return self.run(
            "generate", *inputs[: len(self.manifest.graphs["generate"].inputs)], check=check
        )

    def p_value(self, nelbo: Floats) -> Floats:
        """scores.p_values: by the counts of the calibration scores, and by their tail where the
        artifact has one."""
        return p_values(nelbo, self._calibration, self.manifest.calibration.used_tail)


def score(
    engine: Engine, batch: pa.RecordBatch, first_row: int = 0, check: Check | None = None
) -> Scored:
    """Negative ELBO of each row with its terms. Rows that cannot be encoded, or whose score is not
    finite, are errors."""
    given = encode(batch, engine.schema, first_row)
    nelbo, terms, kl = score_encoded(engine, given.numbers, given.codes, check)
    kept = np.isfinite(nelbo)
    errors = given.errors + [
        RowError(
            int(row),
            None,
            "not-finite",
            "the row is so far from the training table that its nelbo is not finite",
        )
        for row in given.rows[~kept]
    ]
    rows = given.rows[kept]
    return Scored(
        rows,
        nelbo[kept],
        engine.p_value(nelbo[kept]),
        terms[kept],
        kl[kept],
        sorted(errors, key=lambda e: e.row),
    )


def score_encoded(
    engine: Engine, numbers: Floats, codes: Integers, check: Check | None = None
) -> tuple[Floats, Floats, Floats]:
    """Nelbo [n], terms [n, d] and kl [n] of rows that are encoded already."""
    batches = list(_fixed(engine, numbers, codes))
    scored = engine.map("score", (cells for _, *cells in batches), check)
    parts = [
        [output[:size] for output in outputs]
        for (size, *_), outputs in zip(batches, scored, strict=True)
    ]
    none = np.empty(0), np.empty((0, len(engine.manifest.order))), np.empty(0)
    nelbo, terms, kl = (
        np.concatenate([empty, *(part[i] for part in parts)]) for i, empty in enumerate(none)
    )
    return nelbo, terms, kl


def generate(
    engine: Engine, seed: int, first_row: int, rows: int, check: Check | None = None
) -> pa.RecordBatch:
    """Rows first_row … first_row + rows - 1 of the endless table that `seed` names: z from the
    prior, x from p(x|z)."""
    draws = _uniforms(engine, seed, PRIOR, np.arange(first_row, first_row + rows))
    return decode(*_from_prior(engine, draws, check), engine.schema)


def augment(
    engine: Engine,
    batch: pa.RecordBatch,
    first_row: int,
    per_row: int,
    seed: int,
    spread: float = 0.0,
    check: Check | None = None,
) -> Made:
    """`per_row` copies of each row: z from q(z|x) at spread 0, from p(z) at 1, from between them
    otherwise; x from p(x|z).

    Copy k of row i depends on the spread, the seed, row i and k only. Raises InvalidInput where the
    artifact has no spread.
    """
    check_spread(engine.manifest.graphs, spread)
    given = encode(batch, engine.schema, first_row)
    repeated, draws = _repeated(engine, given, per_row, seed, COPIES)
    every = np.ones((len(repeated.rows), len(engine.manifest.order)), dtype=np.bool_)
    made = decode(
        *_from_posterior(engine, repeated, draws, every, ~every, False, check, spread),
        engine.schema,
    )
    copies = np.tile(np.arange(per_row), len(given.rows))
    columns = _with_identifiers(engine, made, batch.take(repeated.rows - first_row))
    return Made(_with_row_numbers({"row": repeated.rows, "copy": copies}, columns), given.errors)


def reconstruct(
    engine: Engine,
    batch: pa.RecordBatch,
    first_row: int,
    seed: int,
    mode: bool = False,
    denoise: bool = False,
    check: Check | None = None,
) -> Made:
    """Missing cells from p(x_j | z, the columns before it) with z from q(z | observed cells);
    observed cells stay.

    With `denoise` the observed cells are replaced too. `mode` takes the most probable value and the
    mean of z, not a draw. Categories that the model does not know keep their text.
    """
    given = encode(batch, engine.schema, first_row)
    observed = _observed(engine, given)
    keep = np.zeros_like(observed) if denoise else observed
    draws = _uniforms(engine, seed, FILLED, given.rows)
    made = decode(
        *_from_posterior(engine, given, draws, observed, keep, mode, check, fill=True),
        engine.schema,
    )
    source = batch.take(given.rows - first_row)
    if not denoise:
        made = _with_own_dates(
            engine, _with_unknown_categories(engine, given, made, source), source
        )
    return Made(
        _with_row_numbers({"row": given.rows}, _with_identifiers(engine, made, source)),
        given.errors,
    )


def expected(
    engine: Engine,
    batch: pa.RecordBatch,
    column: str,
    first_row: int = 0,
    seed: int = 0,
    check: Check | None = None,
) -> Made:
    """What a column should be in each row by all its other cells: DRAWS draws of p(x_j | z, the
    columns before it), each with its own z from q(z | x without x_j). A row's own value of the
    column has no part in it.

    Columns: `row`, `expected`, `low`, `high`, `share`, `missing`. Of numbers and datetimes
    `expected` is the median of the draws that have a value, and 90 % of those lie from `low` to
    `high`; of categories it is the most frequent draw, which may be a missing one, and `share` how
    frequent. `missing` is the share of draws without a value.
    """
    given = encode(batch, engine.schema, first_row)
    kept = np.array([name != column for name in engine.manifest.order])
    if kept.all():
        raise InvalidInput(
            f"the model has no column {column!r} to hide; it models"
            f" {', '.join(engine.manifest.order)}"
        )
    repeated, draws = _repeated(engine, _without(engine, given, column), DRAWS, seed, HIDDEN)
    others = np.tile(kept, (len(repeated.rows), 1))
    numbers, codes = _from_posterior(engine, repeated, draws, others, others, False, check)
    numbers = absolute(numbers, engine.schema)
    found: dict[str, Any] = {"row": given.rows}
    for i, one in enumerate(engine.schema.numbers):
        if one.name == column:
            found |= _interval(one, numbers[:, i].reshape(-1, DRAWS))
    for i, one in enumerate(engine.schema.categoricals):
        if one.name == column:
            found |= _most_frequent(one, codes[:, i].reshape(-1, DRAWS))
    return Made(pa.RecordBatch.from_pydict(found), given.errors)


def _without(engine: Engine, given: Encoded, column: str) -> Encoded:
    """The rows with a column missing: what is not there cannot be looked at."""
    numbers, codes = given.numbers.copy(), given.codes.copy()
    numbers[:, [one.name == column for one in engine.schema.numbers]] = np.nan
    for i, one in enumerate(engine.schema.categoricals):
        if one.name == column:
            codes[:, i] = len(one.categories) + 1
    return Encoded(numbers, codes, given.rows, [])


def _interval(column: Column, drawn: Floats) -> dict[str, Any]:
    """Of draws float64[n, DRAWS]: each figure is one of them, hence a value that the column can
    have."""
    present = (~np.isnan(drawn)).sum(1)
    at = np.maximum(-(present[:, None] * np.array([-50, -5, -95]) // 100) - 1, 0)
    figures = np.take_along_axis(np.sort(drawn, axis=1), at, axis=1)
    none = np.empty((len(drawn), 0), dtype=np.int64)
    alone = Schema(columns=(column.model_copy(update={"since": None}),))
    low_to_high = [decode(figures[:, i : i + 1], none, alone).column(0) for i in range(3)]
    rest = {"share": pa.nulls(len(drawn), pa.float64()), "missing": 1 - present / DRAWS}
    return dict(zip(("expected", "low", "high"), low_to_high, strict=True)) | rest


def _most_frequent(column: Column, drawn: Integers) -> dict[str, Any]:
    """Of draws int64[n, DRAWS]."""
    missing = len(column.categories) + 1
    times = np.zeros((len(drawn), missing + 1 + len(column.rarer)), dtype=np.int64)
    np.add.at(times, (np.arange(len(drawn))[:, None], drawn), 1)
    value = decode(
        np.empty((len(drawn), 0)), times.argmax(1)[:, None], Schema(columns=(column,))
    ).column(0)
    nothing = pa.nulls(len(drawn), value.type)
    shares = {"share": times.max(1, initial=0) / DRAWS, "missing": times[:, missing] / DRAWS}
    return {"expected": value, "low": nothing, "high": nothing} | shares


def _repeated(
    engine: Engine, given: Encoded, times: int, seed: int, stream: int
) -> tuple[Encoded, Floats]:
    """Each row so many times, one after the other, with uniform numbers of its own from the streams
    that begin at `stream`."""
    draws = np.stack(
        [_uniforms(engine, seed, stream + k, given.rows) for k in range(times)], axis=1
    )
    at = np.repeat(np.arange(len(given.rows)), times)
    repeated = Encoded(given.numbers[at], given.codes[at], given.rows[at], [])
    return repeated, draws.reshape(len(at), draws.shape[-1])


def _with_identifiers(
    engine: Engine, made: pa.RecordBatch, source: pa.RecordBatch
) -> pa.RecordBatch:
    """All columns of the schema in its order: identifiers, where given, from the source rows, the
    others made, in the form that the given table has them in.
    """
    columns, fields = [], []
    for column in engine.schema.columns:
        if column.kind != "identifier":
            field = spelled_field(written_as(column, source.schema.field(column.name)))
            columns.append(as_type(made.column(column.name), field.type))
            fields.append(field)
        elif column.name in source.schema.names:
            columns.append(source.column(column.name))
            fields.append(pa.field(column.name, source.schema.field(column.name).type))
    return pa.record_batch(columns, schema=pa.schema(fields))


def _with_unknown_categories(
    engine: Engine, given: Encoded, made: pa.RecordBatch, source: pa.RecordBatch
) -> pa.RecordBatch:
    """Categories that the model does not know are observed all the same: each gets its own text
    back."""
    for i, column in enumerate(engine.schema.categoricals):
        unknown = given.codes[:, i] == len(column.categories)
        if unknown.any():
            text = source.column(column.name).cast(pa.string())
            found = pc.if_else(pa.array(unknown), text, made.column(column.name).cast(pa.string()))
            made = made.set_column(made.schema.get_field_index(column.name), column.name, found)
    return made


def _with_own_dates(engine: Engine, made: pa.RecordBatch, source: pa.RecordBatch) -> pa.RecordBatch:
    """A datetime whose reference is missing cannot be encoded, but is observed all the same: it
    gets its own value back."""
    counted = tuple(
        column.model_copy(update={"since": None})
        for column in engine.schema.numbers
        if column.since
    )
    alone = Schema(columns=counted, missing=engine.schema.missing)
    given = encode(source, alone)
    own = decode(given.numbers, given.codes, alone)
    for name in alone.names:
        found = pc.coalesce(own.column(name), made.column(name))
        made = made.set_column(made.schema.get_field_index(name), name, found)
    return made


def _from_prior(engine: Engine, draws: Floats, check: Check | None) -> Cells:
    """Cells of new rows: z from the prior, then every column from p(x|z)."""
    d, split = len(engine.manifest.order), engine.manifest.draws["z"]
    codes = engine.manifest.codes or d
    parts = []
    for size, u in _fixed(engine, draws):
        (z,) = engine.run("prior", u[:, :split], check=check)
        x, keep = np.zeros((len(u), codes), dtype=np.int64), np.zeros((len(u), d), dtype=np.bool_)
        made = engine.draw(z, x, keep, u[:, split:], DRAWN, ANY, check=check)
        parts.append([cells[:size] for cells in made])
    return _joined(engine, parts)


def _from_posterior(
    engine: Engine,
    given: Encoded,
    draws: Floats,
    seen: Booleans,
    keep: Booleans,
    mode: bool,
    check: Check | None,
    spread: float = 0.0,
    fill: bool = False,
) -> Cells:
    """Cells of rows like given ones: z from q(z | seen cells), or so far on the way to p(z) as
    `spread` says, then from p(x|z) every cell that is not kept, with `fill` none of them missing.
    Cells are bool[n, d].
    """
    split, how = engine.manifest.draws["z"], MODE if mode else DRAWN
    parts = []
    for size, numbers, codes, u, now_seen, now_keep in _fixed(
        engine, given.numbers, given.codes, draws, seen, keep
    ):
        z, x, *q = engine.run("posterior", numbers, codes, now_seen, u[:, :split], how, check=check)
        if spread:
            (z,) = engine.run(
                "spread", *q, u[:, :split], np.array([spread], dtype=np.float64), check=check
            )
        made_numbers, made_codes = engine.draw(
            z, x, now_keep, u[:, split:], how, FILL if fill else ANY, check=check
        )
        kept_numbers, kept_codes = (now_keep[:, at] for at in engine.places)
        cells = (
            np.where(kept_numbers, numbers, made_numbers),
            np.where(kept_codes, codes, made_codes),
        )
        parts.append([part[:size] for part in cells])
    return _joined(engine, parts)


def _joined(engine: Engine, parts: list[list[NDArray[Any]]]) -> Cells:
    """All batches together. Raises InvalidArtifact for a code that no category has."""
    schema = engine.schema
    none = (
        np.empty((0, len(schema.numbers))),
        np.empty((0, len(schema.categoricals)), dtype=np.int64),
    )
    numbers, codes = (
        np.concatenate([empty, *(part[i] for part in parts)]) for i, empty in enumerate(none)
    )
    highest = np.array(
        [len(column.categories) + 1 + len(column.rarer) for column in schema.categoricals],
        dtype=np.int64,
    )
    if ((codes < 0) | (codes > highest)).any():
        raise InvalidArtifact(
            "the graph 'generate' gives a code that no category has; train the model again"
        )
    return numbers, codes


def _fixed(engine: Engine, *arrays: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Batches of the one fixed number of rows as (rows, parts …); the last is padded with its own
    first row."""
    batch = engine.manifest.batch
    for start in range(0, len(arrays[0]), batch):
        parts = [array[start : start + batch] for array in arrays]
        size = len(parts[0])
        if size < batch:
            parts = [
                np.concatenate([part, np.repeat(part[:1], batch - size, axis=0)]) for part in parts
            ]
        yield size, *parts


def _uniforms(engine: Engine, seed: int, stream: int, rows: Integers) -> Floats:
    """Uniform numbers in [0, 1), float64[n, draws]: Philox (Salmon et al. 2011) keyed by seed and
    stream, counted by row.

    Row r owns the counters r * blocks … (r + 1) * blocks - 1, so that its numbers depend on nothing
    but seed, stream and r.
    """
    draws = sum(engine.manifest.draws.values())
    blocks = -(-draws // 4)
    made = np.empty((len(rows), blocks * 4), dtype=np.uint64)
    for first, last in _runs(rows):
        generator = np.random.Philox(
            key=np.array([seed, stream], dtype=np.uint64), counter=int(rows[first]) * blocks
        )
        made[first:last] = generator.random_raw((last - first) * blocks * 4).reshape(
            last - first, -1
        )
    return np.asarray((made[:, :draws] >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def _runs(rows: Integers) -> Iterator[tuple[int, int]]:
    """Index ranges over which row numbers rise by one."""
    if len(rows):
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)


def _observed(engine: Engine, given: Encoded) -> Booleans:
    """bool[n, d] in the manifest's order: cells that are neither missing nor, where training knew
    none, an unknown category."""
    columns: dict[str, Booleans] = {}
    for i, column in enumerate(engine.schema.numbers):
        columns[column.name] = ~np.isnan(given.numbers[:, i])
    for i, column in enumerate(engine.schema.categoricals):
        columns[column.name] = given.codes[:, i] < len(column.categories) + bool(column.rarer)
    return np.stack([columns[name] for name in engine.manifest.order], axis=1)


def _with_row_numbers(first: dict[str, Integers], rest: pa.RecordBatch) -> pa.RecordBatch:
    """Columns of row numbers before a table's own; where a table has a column of that name already,
    ours steps aside."""
    names = {name: name if name not in rest.schema.names else f"nelbo_{name}" for name in first}
    return pa.record_batch(
        [*(pa.array(values, pa.int64()) for values in first.values()), *rest.columns],
        schema=pa.schema([*(pa.field(name, pa.int64()) for name in names.values()), *rest.schema]),
    )


def _session(artifact: Artifact, graph: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without this, ONNX Runtime looks at the bytes and may take them for its own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    path = artifact.graph(graph)
    content = checked(artifact.manifest, graph, path.read_bytes())
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (
        Exception
    ) as problem:  # onnxruntime raises classes of its own for each way that a graph can be broken
        if isinstance(problem, MemoryError) or "bad_alloc" in str(problem):
            raise MemoryError(f"{path.name} needs more memory than there is") from None
        words = _PATH.sub("…", str(problem)).partition("\n")[0]
        raise InvalidArtifact(
            f"{path.name} cannot be loaded by ONNX Runtime: {words[:300]}"
        ) from None
