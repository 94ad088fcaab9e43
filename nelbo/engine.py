"""The engine: runs an artifact's graphs with ONNX Runtime, over batches of one fixed shape on one thread.

A row's score depends on the artifact and the row alone, a generated row on the artifact, the seed and its row number alone:
never on its neighbours, the batch it came in, the chunk, the machine count or a retry.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.artifact import Artifact, read_artifact
from nelbo.encoding import Encoded, RowError, decode, encode
from nelbo.errors import InvalidArtifact
from nelbo.schema import Schema

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Check = Callable[[], None]
"""Called between two fixed batches; raises to stop the work (cancelled, lease lost)."""

PRIOR_STREAM = 0


@dataclass(frozen=True)
class Scored:
    """Scores of n rows in nats: nelbo[n] = terms[n, d].sum(1) + kl[n], terms in the manifest's order; p_value[n] in (0, 1]."""

    rows: Integers
    nelbo: Floats
    p_value: Floats
    terms: Floats
    kl: Floats
    errors: list[RowError]


@dataclass(frozen=True)
class Made:
    """Rows made from given ones: column `row` names the given row, then `copy` (augment only), then the table's columns."""

    batch: pa.RecordBatch
    errors: list[RowError]


class Engine:
    """An artifact ready to run. Make it after a fork, one for each process."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.schema: Schema = artifact.manifest.table_schema
        self._calibration = np.array(self.manifest.calibration.scores, dtype=np.float64)
        self._sessions: dict[str, ort.InferenceSession] = {}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises NotFound or InvalidArtifact."""
        return cls(read_artifact(folder))

    def run(self, graph: str, *inputs: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """One fixed batch through a graph; inputs and outputs in the manifest's order, each `batch` rows long."""
        if graph not in self._sessions:
            self._sessions[graph] = _session(self.artifact.graph(graph))
        names = self.manifest.graphs[graph]
        outputs: list[NDArray[np.generic]] = self._sessions[graph].run(
            list(names.outputs), dict(zip(names.inputs, inputs, strict=True))
        )
        return outputs

    def p_value(self, nelbo: Floats) -> Floats:
        """Conformal p-values: (1 + #{calibration scores >= nelbo}) / (n + 1); valid for exchangeable rows (Vovk et al. 2005)."""
        n = len(self._calibration)
        at_least = n - np.searchsorted(self._calibration, nelbo, side="left")
        return np.asarray((1.0 + at_least) / (n + 1.0), dtype=np.float64)


def score(engine: Engine, batch: pa.RecordBatch, first_row: int = 0, check: Check | None = None) -> Scored:
    """Negative ELBO of each row with its terms. Rows that cannot be encoded, or whose score is not finite, are errors."""
    given = encode(batch, engine.schema, first_row)
    parts = [
        [output[:size] for output in engine.run("score", numbers, codes)]
        for size, numbers, codes in _fixed(engine, check, given.numbers, given.codes)
    ]
    d = len(engine.manifest.order)
    nelbo, terms, kl = (
        np.concatenate([part[i] for part in parts]).astype(np.float64) if parts else np.zeros(shape)
        for i, shape in enumerate([(0,), (0, d), (0,)])
    )
    kept = np.isfinite(nelbo)
    errors = given.errors + [
        RowError(int(row), None, "not-finite", "the row is so far from the training table that its nelbo is not finite")
        for row in given.rows[~kept]
    ]
    rows = given.rows[kept]
    return Scored(rows, nelbo[kept], engine.p_value(nelbo[kept]), terms[kept], kl[kept], sorted(errors, key=lambda e: e.row))


def generate(engine: Engine, seed: int, first_row: int, rows: int, check: Check | None = None) -> pa.RecordBatch:
    """Rows first_row … first_row + rows - 1 of the endless table that `seed` names: z from the prior, x from p(x|z)."""
    draws = _uniforms(engine, seed, PRIOR_STREAM, np.arange(first_row, first_row + rows))
    numbers, codes = _blank(engine, rows)
    return _decode(engine, _sample(engine, "prior", numbers, codes, draws, check=check))


def augment(
    engine: Engine, batch: pa.RecordBatch, first_row: int, per_row: int, seed: int, check: Check | None = None
) -> Made:
    """`per_row` copies of each row: z from q(z|x), x from p(x|z). Copy k of row i depends on the seed, row i and k only."""
    given = encode(batch, engine.schema, first_row)
    draws = np.stack([_uniforms(engine, seed, 1 + k, given.rows) for k in range(per_row)], axis=1)
    repeat = partial(np.repeat, repeats=per_row, axis=0)
    made = _sample(
        engine, "posterior", repeat(given.numbers), repeat(given.codes), draws.reshape(-1, draws.shape[-1]), check=check
    )
    copies = np.tile(np.arange(per_row), len(given.rows))
    return Made(_table({"row": repeat(given.rows), "copy": copies}, _decode(engine, made)), given.errors)


def reconstruct(
    engine: Engine,
    batch: pa.RecordBatch,
    first_row: int,
    seed: int,
    mode: bool = False,
    denoise: bool = False,
    check: Check | None = None,
) -> Made:
    """Missing cells from p(x_j | z, the columns before it) with z from q(z | observed cells); observed cells stay.

    With `denoise` the observed cells are replaced too. `mode` takes the most probable value and the mean of z, not a draw.
    Categories that the model does not know keep their text.
    """
    given = encode(batch, engine.schema, first_row)
    observed = _observed(engine, given)
    draws = _uniforms(engine, seed, PRIOR_STREAM, given.rows)
    keep = np.zeros_like(observed) if denoise else observed
    made = _sample(engine, "posterior", given.numbers, given.codes, draws, observed, keep, mode, check)
    table = _decode(engine, made)
    source = batch.take(pa.array(given.rows - first_row))
    columns = {
        column.name: source.column(column.name)
        if column.kind == "identifier"
        else _keep_unknown(table.column(column.name), source.column(column.name), denoise)
        for column in engine.schema.columns
        if column.kind != "identifier" or column.name in source.schema.names
    }
    return Made(_table({"row": given.rows}, pa.RecordBatch.from_pydict(columns)), given.errors)


def _sample(
    engine: Engine,
    source: str,
    numbers: Floats,
    codes: Integers,
    draws: Floats,
    observed: Booleans | None = None,
    keep: Booleans | None = None,
    mode: bool = False,
    check: Check | None = None,
) -> tuple[Floats, Integers]:
    """z from the prior or the posterior, then cells from p(x|z); cells in `keep` stay as given."""
    n, d = len(draws), len(engine.manifest.order)
    observed = np.ones((n, d), dtype=np.bool_) if observed is None else observed
    keep = np.zeros((n, d), dtype=np.bool_) if keep is None else keep
    wanted, split = np.array([mode]), engine.manifest.draws["z"]
    made_numbers, made_codes = np.empty_like(numbers), np.empty_like(codes)
    start = 0
    for size, x_numbers, x_codes, x_draws, x_observed, x_keep in _fixed(engine, check, numbers, codes, draws, observed, keep):
        u_z, u_x = x_draws[:, :split], x_draws[:, split:]
        (z,) = (
            engine.run("prior", u_z) if source == "prior" else engine.run("posterior", x_numbers, x_codes, x_observed, u_z, wanted)
        )
        out_numbers, out_codes = engine.run("generate", z, x_numbers, x_codes, x_keep, u_x, wanted)
        made_numbers[start : start + size], made_codes[start : start + size] = out_numbers[:size], out_codes[:size]
        start += size
    return made_numbers, made_codes


def _fixed(engine: Engine, check: Check | None, *arrays: NDArray[np.generic]) -> Iterator[tuple[int, *tuple[NDArray, ...]]]:  # type: ignore[type-arg]
    """Cut arrays into batches of the one fixed number of rows; the last is padded with its own first row."""
    batch = engine.manifest.batch
    for start in range(0, len(arrays[0]), batch):
        if check is not None:
            check()
        parts = [array[start : start + batch] for array in arrays]
        size = len(parts[0])
        if size < batch:
            parts = [np.concatenate([part, np.repeat(part[:1], batch - size, axis=0)]) for part in parts]
        yield size, *parts


def _uniforms(engine: Engine, seed: int, stream: int, rows: Integers) -> Floats:
    """Uniform numbers in [0, 1), float64[n, draws], of each row: Philox (Salmon et al. 2011) keyed by seed and stream, counted by row.

    Row r owns the counters r * blocks … (r + 1) * blocks - 1, so that its numbers depend on nothing but seed, stream and r.
    """
    draws = sum(engine.manifest.draws.values())
    blocks = -(-draws // 4)
    made = np.empty((len(rows), blocks * 4), dtype=np.uint64)
    for first, last in _runs(rows):
        generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64), counter=int(rows[first]) * blocks)
        made[first:last] = generator.random_raw((last - first) * blocks * 4).reshape(last - first, -1)
    return np.asarray((made[:, :draws] >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def _runs(rows: Integers) -> Iterator[tuple[int, int]]:
    """Index ranges over which row numbers rise by one."""
    if len(rows):
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        yield from zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)


def _observed(engine: Engine, given: Encoded) -> Booleans:
    """bool[n, d] in the manifest's order: cells that are neither missing nor an unknown category."""
    columns: dict[str, Booleans] = {}
    for i, column in enumerate(engine.schema.numbers):
        columns[column.name] = ~np.isnan(given.numbers[:, i])
    for i, column in enumerate(engine.schema.categoricals):
        columns[column.name] = given.codes[:, i] < len(column.categories)
    n = len(given.rows)
    return np.stack([columns[name] for name in engine.manifest.order], axis=1).reshape(n, -1)


def _keep_unknown(made: pa.Array, given: pa.Array, denoise: bool) -> pa.Array:
    """A category that the model does not know is observed all the same: without `denoise` its text stays."""
    return made if denoise or not pa.types.is_string(made.type) else pa.compute.coalesce(given.cast(pa.string()), made)


def _blank(engine: Engine, rows: int) -> tuple[Floats, Integers]:
    schema = engine.schema
    return np.full((rows, len(schema.numbers)), np.nan), np.zeros((rows, len(schema.categoricals)), dtype=np.int64)


def _decode(engine: Engine, made: tuple[Floats, Integers]) -> pa.RecordBatch:
    return decode(*made, engine.schema)


def _table(first: dict[str, Integers], rest: pa.RecordBatch) -> pa.RecordBatch:
    """Columns of row numbers before a table's own; a table's own column of the same name keeps its name, ours steps aside."""
    names = {name: name if name not in rest.schema.names else f"nelbo_{name}" for name in first}
    return pa.RecordBatch.from_arrays(
        [*(pa.array(values, pa.int64()) for values in first.values()), *rest.columns],
        names=[*names.values(), *rest.schema.names],
    )


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime raises classes of its own for each way that a graph can be broken
        raise InvalidArtifact(f"{path.name} cannot be loaded by ONNX Runtime: {problem}") from None
