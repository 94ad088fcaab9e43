"""A model in this process: data frames in, data frames out.

    model = nelbo.load("adult")
    scores = model.score(df)

The work is that of `nelbo.engine`, batch by batch, as it is for commands and workers.
"""

import secrets
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import pyarrow as pa

from nelbo.artifact import files_of, read_artifact
from nelbo.cells import written
from nelbo.condition_reading import conditions_in
from nelbo.conditions import Odds
from nelbo.encoding import check_columns
from nelbo.errors import Conflict, InvalidInput
from nelbo.files import SCRATCH, Digest, Table, open_table, table_of
from nelbo.frames import (
    Library,
    alike,
    from_arrow,
    is_pandas,
    library_of,
    to_arrow,
    with_categories_of,
)
from nelbo.jobs import (
    LARGEST_SEED,
    AugmentRequest,
    ExplainRequest,
    GenerateRequest,
    ReconstructRequest,
    ScoreRequest,
    checked_request,
    seed_of,
)
from nelbo.odd_rows import cells_of_odd_rows, find_odd_rows
from nelbo.packing import BESIDE
from nelbo.row_copies import balanced_copies, check_balanced, copies_of_batch
from nelbo.rows import Rank, RowError, Scores
from nelbo.schema import Schema
from nelbo.scores import already_known, count_p_values, out_of_reach, threshold_of
from nelbo.spelling.types import as_type

if TYPE_CHECKING:
    from nelbo.engine import Engine

Data: TypeAlias = Any
"""A data frame of pandas, polars or Arrow (a table or a record batch), the path of a file, or an
array of numbers with one column for each column of the model."""
Frame: TypeAlias = Any
"""A data frame of the library of the data that came in; for paths and arrays one of pandas, or of
Arrow where pandas is not installed."""

BATCH_ROWS = 8_192
FORM = "frame.arrow"
"""The file beside an artifact with the form of the data frame that it was trained on."""
SHOWN_COLUMNS = 4
INSIDE = 5
"""Frames from a warning in `TableModel._open` to the user's own."""
METHODS = """
  .score(df)          how odd each row is, with its p-value
  .explain(df)        the cells that make rows odd, and what they should be
  .generate(1000)     new rows like those of the training table
  .augment(df)        new rows like those of df
  .reconstruct(df)    df with its missing cells filled"""


class NelboWarning(UserWarning):
    """What a user should know about a result: rows that could not be done, columns that were left
    out."""


@dataclass(frozen=True)
class _Opened:
    """Data that came in: the table that is read of it and, for data frames, the frame in Arrow."""

    table: Table
    frame: pa.Table | None

    @property
    def form(self) -> pa.Schema | None:
        """The form of the data frame; None for a file, whose text becomes typed."""
        return None if self.frame is None else self.frame.schema

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batches of the table, each with the number of its first row."""
        first_row = 0
        for batch in self.table.batches(BATCH_ROWS):
            yield first_row, batch
            first_row += batch.num_rows


class TableModel:
    """A trained model of a table. `nelbo.load` and `nelbo.fit` give it.

    errors: the rows of the last call that could not be done, each with the reason. A NelboWarning
    tells their number.
    seed: the seed of the last rows that were made. With it, the same call makes the same rows.
    odds: how probable the conditions of the last generation with conditions are.
    """

    def __init__(
        self, engine: "Engine", form: pa.Table | None = None, library: Library | None = None
    ) -> None:
        """form: the data frame that the model was trained on, without its rows. Generated rows get
        its types and its spelling of text. Without it, they have the types of the training table.

        library: of that data frame.
        """
        self.engine = engine
        self.errors: list[RowError] = []
        self.seed: int | None = None
        self.odds: Odds | None = None
        self._form = form
        self._library = library or library_of(None)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The model in a folder with an artifact. Raises NotFound or InvalidArtifact."""
        from nelbo.engine import Engine  # it loads ONNX Runtime, which `nelbo.fit` alone has before

        form = None
        if (folder / FORM).is_file():
            with pa.ipc.open_file(str(folder / FORM)) as file:
                form = file.read_all()
        return cls(Engine.load(folder), form)

    @property
    def name(self) -> str:
        return self.engine.manifest.name

    @property
    def schema(self) -> Schema:
        """The columns of the table with their kinds, categories and spelling."""
        return self.engine.schema

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the training table."""
        return self.engine.schema.names

    @property
    def report(self) -> Path | None:
        """The page with the quality of the model; None where there is none."""
        page = self.engine.artifact.folder / "report.html"
        return page if page.exists() else None

    def __repr__(self) -> str:
        names = ", ".join(self.columns[:SHOWN_COLUMNS])
        more = ", …" if len(self.columns) > SHOWN_COLUMNS else ""
        rows = self.engine.manifest.data.get("rows")
        trained = f", trained on {rows:,} rows" if isinstance(rows, int) else ""
        count = f"{len(self.columns)} columns ({names}{more})"
        return f"Nelbo model {self.name!r}: {count}{trained}{METHODS}"

    def score(
        self,
        data: Data,
        *,
        alpha: float = 0.01,
        fdr: float | None = None,
        explain: bool = False,
    ) -> Frame:
        """How odd each row is: a frame with as many rows as the data, and with its index.

        Columns: `row` (its number), `nelbo` (how unlikely the row is, in nats), `surprise` (how odd
        it is), `p_value` (that of the surprise) and `anomaly`. Rows that cannot be scored have
        missing values in all but the first; `errors` says why.

        alpha: rows with a p-value of at most alpha are anomalies.
        fdr: bound the false discovery rate instead, so that alpha has no effect.
        explain: also give the term and the surprise of each cell.
        """
        request = checked_request(
            ScoreRequest, model=self.name, alpha=alpha, fdr=fdr, explain=explain
        )
        columns = self.engine.manifest.order if request.explain else None
        parts = [pa.RecordBatch.from_pylist([], Scores.schema(columns))]
        p_values: Counter[float] = Counter()
        digest = Digest()
        with self._open(data) as opened:
            for first_row, batch in opened.batches():
                digest.update(batch)
                scores = self.engine.score(batch, first_row)
                self.errors += scores.errors
                count_p_values(p_values, scores.p_value)
                parts.append(scores.to_batch(None, request.explain))
                rows = first_row + batch.num_rows
        smallest = self.engine.manifest.calibration.smallest
        _warn(out_of_reach(request.alpha, request.fdr, smallest))
        _warn(already_known(digest.hexdigest(), self.engine.manifest.table_digest))

        threshold = threshold_of(p_values, request.alpha, request.fdr)
        table = _with_every_row(_flagged(pa.Table.from_batches(parts), threshold), rows)
        scored = from_arrow(table, library_of(data))
        if is_pandas(scored) and table.column("anomaly").null_count:
            scored = scored.astype({"anomaly": "boolean"})  # this type has missing values
        return alike(data, scored)

    def explain(
        self,
        data: Data,
        *,
        top: int = 10,
        rows: Collection[int] = (),
        columns: int = 3,
        rank: Rank = "surprise",
        repair: bool = False,
        seed: int = 0,
    ) -> Frame:
        """The cells that make rows odd, and what they should be, given all other cells of the row.

        The columns are those of `nelbo explain`: `row`, the identifiers of the row, its scores,
        then `column`, `value`, `expected` and more.

        top: number of rows to explain, least likely first (ignored with `rows`).
        rows: the numbers of the rows to explain; the first is 0.
        columns: maximum number of cells of each row.
        repair: give the fewest cells to change so that each row is ordinary, with their new values,
        and the scores of the row before and after (`nelbo explain --repair`).
        """
        request = checked_request(
            ExplainRequest,
            model=self.name,
            top=top,
            row_numbers=tuple(rows),
            columns=columns,
            rank=rank,
            repair=repair,
            seed=seed,
        )
        with self._open(data) as opened:
            batches = (batch for _, batch in opened.batches())
            odd = find_odd_rows(self.engine, batches, request, self.errors.extend, name="the data")
        return from_arrow(cells_of_odd_rows(self.engine, odd, request), library_of(data))

    def generate(
        self,
        n: int,
        *,
        where: Sequence[str] = (),
        like: Mapping[str, Any] | None = None,
        balance: str | None = None,
        weights: Mapping[str, Mapping[str, float]] | None = None,
        rarity: tuple[float, float] | None = None,
        identifiers: bool = True,
        seed: int | None = None,
        as_: Library | None = None,
    ) -> Frame:
        """n new rows like those of the training table, which meet all conditions.

        where: conditions, such as ["label = fraud", "age between 30 and 40"]; `odds` then says how
        probable they are.
        like: cells that each row has, such as {"label": "fraud"}; the others are made.
        balance: a column whose categories are made equally often.
        weights: weights of one column's categories, such as {"label": {"fraud": 1, "ok": 3}}.
        rarity: percentiles such as (95, 99.9), between which the nelbo of each row is: rare but
        plausible rows, to test alarms with.
        identifiers: whether the rows have new identifiers. Otherwise they have the modelled columns
        alone.
        seed: the same seed gives the same rows, and the first rows of a larger n. None takes a new
        seed for each call.
        as_: the library of the frame. Default: that of the training table or, if it was a file,
        pandas, or Arrow where pandas is not installed.
        """
        request = checked_request(
            GenerateRequest,
            model=self.name,
            n=n,
            seed=self._seed(seed),
            identifiers=identifiers,
            where=(where,) if isinstance(where, str) else tuple(where),
            like=dict(like or {}),
            balance=balance,
            weights=dict(weights or {}),
            rarity=rarity,
        )
        conditions = conditions_in(self.engine.manifest, request.model_dump())
        parts = []
        for first_row in range(0, request.n, BATCH_ROWS):
            rows = min(BATCH_ROWS, request.n - first_row)
            made_rows = self.engine.generate(
                seed_of(request), first_row, rows, conditions, identifiers=request.identifiers
            )
            parts.append(made_rows.batch)
        if conditions.has_odds:
            self.odds = self.engine.odds(conditions, seed_of(request))
        form = self._form
        table = _in_form(pa.Table.from_batches(parts), None if form is None else form.schema)
        frame = from_arrow(table, as_ or self._library)
        if form is not None and is_pandas(frame):
            frame = with_categories_of(from_arrow(form, "pandas"), frame)
        return frame

    def augment(
        self,
        data: Data,
        *,
        per_row: int = 1,
        spread: float = 0.0,
        keep: Sequence[str] = (),
        balance: str | None = None,
        seed: int | None = None,
    ) -> Frame:
        """`per_row` new rows like each row of the data, one after the other.

        The columns are those of the model; in pandas each new row has the index of its row. Rows
        that cannot be used are left out; `errors` says why.

        spread: 0 draws near the row, 1 anywhere in the training table.
        keep: columns that each new row has from its row.
        balance: a column whose categories get as many new rows, instead of `per_row` of each row,
        that each has as many as the most frequent one, the given rows included.
        """
        request = checked_request(
            AugmentRequest,
            model=self.name,
            per_row=per_row,
            spread=spread,
            keep=keep,
            balance=balance,
            seed=self._seed(seed),
        )
        check_balanced(self.schema, balance, per_row)
        parts = []
        with self._open(data) as opened:
            copies = None
            if request.balance is not None:
                copies = balanced_copies(opened.table.batches(), self.schema, request.balance)
            for first_row, batch in opened.batches():
                for rows in copies_of_batch(self.engine, batch, first_row, request, copies):
                    self.errors += rows.errors
                    parts.append(rows.batch)
        table = pa.Table.from_batches(parts)
        copies_alone = _in_form(table.select(range(2, table.num_columns)), opened.form)
        made_rows = from_arrow(copies_alone, library_of(data))
        return alike(data, made_rows, table.column(0))

    def reconstruct(
        self,
        data: Data,
        *,
        columns: Sequence[str] = (),
        leave_usual: bool = False,
        mode: bool = False,
        denoise: bool = False,
        seed: int | None = None,
    ) -> Frame:
        """The data with its missing cells filled, given the other cells of the row.

        Columns that the model does not know stay as they are, and so do rows that cannot be used;
        `errors` says why.

        columns: columns that are filled. Default: every column.
        leave_usual: leave cells missing that are usually missing in rows like theirs.
        mode: fill in the most likely value instead of a random draw.
        denoise: also replace the values of cells that are not missing.
        """
        request = checked_request(
            ReconstructRequest,
            model=self.name,
            mode=mode,
            denoise=denoise,
            seed=self._seed(seed),
            columns=columns,
            leave_usual=leave_usual,
        )
        read = []
        parts = []
        with self._open(data) as opened:
            for first_row, batch in opened.batches():
                filled = self.engine.reconstruct(
                    batch,
                    first_row,
                    seed_of(request),
                    mode=request.mode,
                    denoise=request.denoise,
                    columns=request.columns,
                    leave_usual=request.leave_usual,
                )
                self.errors += filled.errors
                read.append(batch)
                parts.append(filled.batch)
        source = pa.Table.from_batches(read) if opened.frame is None else opened.frame
        names = [column.name for column in self.schema.modelled]
        filled_rows = _in_form(pa.Table.from_batches(parts), opened.form)
        table = _with_filled(source, filled_rows, names)
        return alike(data, from_arrow(table, library_of(data)))

    def save(self, folder: str | Path) -> Path:
        """Write the artifact to a folder that is new or empty. `nelbo.load` reads it again, and
        `nelbo push` registers it."""
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Conflict(f"{folder} is not empty; name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        own = self.engine.artifact.folder
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder.parent) as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            for name in dict.fromkeys([*files_of(self.engine.manifest), *BESIDE]):
                if (own / name).is_file():
                    shutil.copy(own / name, new / name)
            read_artifact(new)
            if self._form is not None:
                _write_form(self._form, new / FORM)
            new.rename(folder)
        return folder

    @contextmanager
    def _open(self, data: Data) -> Iterator[_Opened]:
        """Data as a table, with warnings about what is left out of it, and about rows that could
        not be done."""
        self.errors = []
        frame = None
        if not isinstance(data, str | Path):
            frame = self._named(data) if isinstance(data, np.ndarray) else to_arrow(data)
        with open_table(data) if frame is None else table_of(frame) as table:
            _warn([*table.notices, *check_columns(table.names, self.schema)], INSIDE)
            yield _Opened(table, frame)
            _warn(table.late_notices, INSIDE)
        if self.errors:
            first = self.errors[0]
            count = "1 row" if len(self.errors) == 1 else f"{len(self.errors):,} rows"
            _warn([f"{count} could not be done; row {first.row}: {first.message}"], INSIDE)

    def _named(self, array: Any) -> pa.Table:
        """An array of numbers as a table with the columns of the model."""
        names = [column.name for column in self.schema.modelled]
        if array.ndim != 2 or array.shape[1] != len(names):
            raise InvalidInput(
                f"the array has the shape {array.shape}; give one column for each of"
                f" {', '.join(names)}, or a data frame"
            )
        return pa.table(dict(zip(names, map(pa.array, np.ascontiguousarray(array.T)), strict=True)))

    def _seed(self, seed: int | None) -> int:
        """The seed, or a new one; `self.seed` remembers it."""
        self.seed = secrets.randbelow(LARGEST_SEED + 1) if seed is None else seed
        return self.seed


def _warn(texts: Iterable[str], stacklevel: int = 3) -> None:
    for text in texts:
        warnings.warn(text, NelboWarning, stacklevel=stacklevel)


def _write_form(form: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), form.schema) as writer:
        empty = [column.combine_chunks() for column in form.columns]
        writer.write_batch(pa.record_batch(empty, schema=form.schema))  # it holds the categories


def _flagged(scores: pa.Table, threshold: float) -> pa.Table:
    anomaly = pa.array(np.asarray(scores.column("p_value")) <= threshold)
    return scores.set_column(scores.column_names.index("anomaly"), "anomaly", anomaly)


def _with_every_row(scores: pa.Table, rows: int) -> pa.Table:
    """The scores with a line for each of `rows` rows, in which those without a score have missing
    values."""
    at = np.full(rows, -1)
    at[np.asarray(scores.column("row"))] = np.arange(len(scores))
    taken = scores.take(pa.array(at, mask=at < 0))
    every = pa.table(taken.columns, names=taken.column_names)  # no column refuses missing values
    return every.set_column(0, "row", pa.array(np.arange(rows)))


def _with_filled(source: pa.Table, filled: pa.Table, names: Iterable[str]) -> pa.Table:
    """The source with the columns `names` of filled rows, whose first column is the number of the
    row. A row that could not be done keeps its cells, where they are of the type of the column."""
    rows = np.asarray(filled.column(0))
    without = np.setdiff1d(np.arange(len(source)), rows)
    order = np.argsort(np.concatenate([rows, without]))
    names_read = [name.strip() for name in source.column_names]
    for name in names:
        at = names_read.index(name)
        column: Any = filled.column(name)
        if len(without):
            own = source.column(at)
            same = own.type == column.type
            rest: Any = own.take(without) if same else pa.nulls(len(without), column.type)
            parts = pa.concat_tables([pa.table([column], [name]), pa.table([rest], [name])])
            column = parts.unify_dictionaries().combine_chunks().column(name).take(order)
        source = source.set_column(at, pa.field(source.column_names[at], column.type), column)
    return source


def _in_form(table: pa.Table, form: pa.Schema | None) -> pa.Table:
    """The table in the form of a frame: where the frame has text, for example for dates, there is
    text of the same spelling. What Nelbo notes about the spelling is left out."""
    types = {} if form is None else dict(zip(form.names, form.types, strict=True))
    columns: list[Any] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = types.get(field.name, field.type)
        if _is_text(kind) and not _is_text(field.type):
            columns.append(as_type(written(column.combine_chunks(), field), kind))
        else:
            columns.append(column)
    metadata: Any = None if form is None else form.metadata
    return pa.table(columns, table.column_names).replace_schema_metadata(metadata)


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)
