"""Checks of a job before it is accepted, so that an accepted job can run."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from api import bodies
from api.manifests import of_manifest
from nelbo.artifact import check_filled, check_kept, check_manifest, check_spread
from nelbo.condition_reading import conditions_in
from nelbo.encoding import check_columns
from nelbo.errors import (
    FieldError,
    InvalidInput,
    InvalidRequest,
    NotFound,
    NotReady,
    TooLarge,
    Unavailable,
)
from nelbo.jobs import (
    AugmentRequest,
    CleanRequest,
    ExplainRequest,
    GenerateRequest,
    JobRequest,
    OfRows,
    ReconstructRequest,
    check_row_numbers,
)
from nelbo.row_copies import check_balanced
from nelbo.schema import Schema
from nelbo.settings import Settings
from nelbo.store import catalog, files, workers
from nelbo.store.session import Database

CHUNK_CELLS = 1_000_000
"""Maximum number of cells of a chunk.

Workers and readers of the results hold a whole chunk in memory, so that wide tables need smaller
ones.
"""
CHUNK_S = 2.0
"""Seconds that a chunk may take: other jobs wait for its end, and a crash loses as much work."""
SMALL_CHUNK = 10_000
"""Rows up to which a chunk is not made smaller only to have more of them."""
CHUNKS = 32
"""Number of chunks of a large job that keep several workers equally busy until its end."""
BALANCED = 20
"""A chunk whose rows get copies until a column is balanced has this many times fewer rows."""
MAX_CHUNKS = 20_000
"""Maximum number of chunks of a job: one transaction inserts them all."""
WAIT_S = 1.0
"""Seconds after which to try again while a file is being read."""

InlineRows = list[dict[str, str | None]]


@dataclass(frozen=True)
class JobPlan:
    """An acceptable request: its version, its number of rows and the size of its chunks."""

    version_id: str | None
    rows: int
    chunk_rows: int
    file_id: str | None = None
    inline: InlineRows | None = None


def parse(body: bytes | bytearray, requests: TypeAdapter[JobRequest]) -> JobRequest:
    """The request in a body.

    Raises RequestValidationError, which names the wrong fields, or TooLarge for too many rows.
    """
    try:
        return requests.validate_python(bodies.parsed(body))
    except ValidationError as problem:
        field_errors = problem.errors(include_url=False, include_input=False)

    for error in field_errors:
        if error["type"] == "too_long" and error["loc"][-1] == "rows":
            raise _too_many_rows(error["ctx"]["actual_length"], error["ctx"]["max_length"])
    raise RequestValidationError(
        [error | {"loc": ("body", *error["loc"])} for error in field_errors]
    )


def plan(database: Database, settings: Settings, owner: str, request: JobRequest) -> JobPlan:
    """Check a request against the models and files of the owner.

    Raises an error with the reason if the request cannot be accepted.
    """
    if isinstance(request, CleanRequest):
        return _plan_clean(database, settings, owner, request)
    _check_storable(request.model, "model")
    version = catalog.resolve(database, owner, request.model)
    graphs, schema = of_manifest(database, version, _graphs_and_schema)
    size = partial(
        chunk_rows, request, settings=settings, columns=len(schema.columns), row_s=version.row_s
    )

    if isinstance(request, GenerateRequest):
        of_manifest(database, version, partial(_check_conditions, request))
        return JobPlan(version.id, request.n, size(request.n))
    if isinstance(request, AugmentRequest):
        check_spread(graphs, request.spread)
        check_kept(schema.names, request.keep)
        check_balanced(schema, request.balance, request.per_row)
    if isinstance(request, ReconstructRequest):
        check_filled(schema, request.columns)

    _need_one_source(request)
    if request.file is not None:
        file = _ready_file(database, owner, request.file)
        check_columns([column["name"] for column in file.columns or ()], schema)
        rows = file.rows or 0
        inline = None
    elif isinstance(request, ExplainRequest):
        # Columns that the model does not know may be identifiers, which name the rows.
        inline = inline_rows(request.rows or (), None, settings)
        check_columns(list(inline[0]), schema)
        rows = len(inline)
    else:
        inline = inline_rows(request.rows or (), schema, settings)
        rows = len(inline)
    rows_of_chunk = size(rows)
    if isinstance(request, ExplainRequest):
        check_row_numbers(request.row_numbers, rows, "the table")
        rows_of_chunk = rows
    return JobPlan(version.id, rows, rows_of_chunk, request.file, inline)


def _plan_clean(
    database: Database, settings: Settings, owner: str, request: CleanRequest
) -> JobPlan:
    """One chunk of all rows. Raises Unavailable where no worker can clean tables."""
    _need_one_source(request)
    if request.file is not None:
        rows = _ready_file(database, owner, request.file).rows or 0
        inline = None
    else:
        inline = inline_rows(request.rows or (), None, settings)
        rows = len(inline)
    chunk_rows(request, rows, settings)
    if not workers.can_clean(database):
        raise Unavailable(
            "no running worker can clean tables: start one beside which nelbo[training] is"
            " installed (with docker compose, `docker compose --profile clean up --detach`)",
            retry_after=WAIT_S,
        )
    return JobPlan(None, rows, rows, request.file, inline)


def _graphs_and_schema(manifest: dict[str, Any]) -> tuple[tuple[str, ...], Schema]:
    """The names of the graphs, and the schema without its categories, which may be large."""
    content = manifest["table_schema"]
    columns = [
        column | {"categories": (), "rarer": (), "clusters": ()} for column in content["columns"]
    ]
    return tuple(manifest["graphs"]), Schema.model_validate(content | {"columns": columns})


def _check_conditions(request: GenerateRequest, manifest: dict[str, Any]) -> None:
    """Raise InvalidInput for a condition that no row of the model can meet."""
    fields = request.model_dump()
    if fields.keys() & {"where", "like", "balance", "weights", "rarity"}:
        conditions_in(check_manifest(manifest), fields)


def _check_storable(name: str, noun: str) -> None:
    """Raise NotFound for a name that no database can store, so that nothing has it."""
    if not _is_text(name):
        raise NotFound(f"no {noun} {name!r}")


def digest(request: JobRequest) -> str:
    """SHA-256 of the fields of a request.

    Requests with one idempotency key are the same job only if their digests are equal.
    """
    fields = request.model_dump(exclude={"rows"})
    if hasattr(request, "seed"):
        # Before seeds were fresh, a request without one had the seed 0: its digest stays the same.
        fields.setdefault("seed", 0)
    if not isinstance(request, GenerateRequest):
        fields["rows"] = request.rows  # not copied: many rows take much memory
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _need_one_source(request: OfRows) -> None:
    """Raise InvalidRequest unless the request has either a file or rows."""
    if (request.file is None) == (request.rows is None):
        raise InvalidRequest(
            "send either 'file' or 'rows': a job has the rows of one file, or rows of its own",
            [FieldError("/body/file", "exactly-one-of", "send either 'file' or 'rows'")],
        )


def _ready_file(database: Database, owner: str, file_id: str) -> files.FileEntry:
    """A file that has been read. Raises NotReady or InvalidInput for any other one."""
    _check_storable(file_id, "file")
    file = files.get_file(database, owner, file_id)
    if file.state == "rejected":
        raise InvalidInput(
            f"file {file.id} ({file.name}) was rejected: {file.reason}; upload a corrected one"
        )
    if file.state != "ready" or file.rows is None:
        raise NotReady(
            f"file {file.id} ({file.name}) is still {file.state}; try again soon",
            retry_after=WAIT_S,
        )
    return file


def inline_rows(
    rows: Sequence[Mapping[str, Any]], schema: Schema | None, settings: Settings
) -> InlineRows:
    """The rows of a request, with text or null in each cell, and all columns in each row: those of
    the schema or, without one, all columns."""
    if len(rows) > settings.max_inline_rows:
        raise _too_many_rows(len(rows), settings.max_inline_rows)
    if not rows:
        raise InvalidInput("'rows' is empty; a job needs at least one row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > settings.max_columns:
        raise InvalidInput(
            f"the rows have {len(names):,} columns; the limit is {settings.max_columns:,}"
            " (the setting max_columns)"
        )
    used = names
    if schema is not None:
        check_columns(names, schema)
        used = [name for name in names if name in set(schema.names)]
    return [
        {name: _text(row.get(name), index, name) for name in used} for index, row in enumerate(rows)
    ]


def _too_many_rows(rows: int, limit: int) -> TooLarge:
    return TooLarge(
        f"the request has {rows:,} rows; the limit is {limit:,} (the setting max_inline_rows):"
        " upload the table as a file, and name the file in the job"
    )


def _text(cell: Any, row: int, column: str) -> str | None:
    match cell:
        case None:
            return None
        case bool():
            return str(cell).lower()
        case float() if math.isnan(cell):
            return None
        case int() | float():
            return repr(cell)
        case str() if _is_text(cell):
            return cell
    pointer = f"/body/rows/{row}/{column.replace('~', '~0').replace('/', '~1')}"
    reason = "a cell must be text, a number, true, false or null"
    raise InvalidRequest(
        f"row {row}, column {column!r}: {reason}", [FieldError(pointer, "not-a-cell", reason)]
    )


def _is_text(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    # JSON in PostgreSQL cannot contain NUL.
    return "\0" not in cell


def chunk_rows(
    request: JobRequest,
    rows: int,
    settings: Settings,
    columns: int = 1,
    row_s: float | None = None,
) -> int:
    """The number of rows per chunk of a job with these numbers of rows and columns, by a model that
    needs `row_s` seconds for a row.

    A chunk takes about CHUNK_S seconds and is a small part of a large job, so that all workers have
    enough to do until its end. A chunk of an augmentation takes fewer rows, so that it makes as
    many rows as other chunks. Raises TooLarge, which names the setting, if the job is too large.
    """
    per_row = request.per_row if isinstance(request, AugmentRequest) else 1
    # A row of a rare category may get hundreds of copies, which one chunk holds.
    per_chunk = BALANCED if getattr(request, "balance", None) and per_row == 1 else per_row
    if rows * per_row > settings.max_job_rows:
        raise TooLarge(
            f"the job has {rows * per_row:,} rows; one job takes at most {settings.max_job_rows:,}"
            " (the setting max_job_rows): split it into several jobs"
        )
    by_time = SMALL_CHUNK if row_s is None else int(CHUNK_S / row_s)
    by_time = max(by_time, math.ceil(rows * per_chunk / MAX_CHUNKS))
    by_rows = max(SMALL_CHUNK, rows * per_chunk // CHUNKS)
    by_cells = CHUNK_CELLS // max(1, columns)
    size = max(1, min(settings.chunk_rows, by_time, by_rows, by_cells) // per_chunk)
    chunks = math.ceil(rows / size)
    if chunks > MAX_CHUNKS:
        raise TooLarge(
            f"the job has {chunks:,} chunks of {size:,} rows (by the setting chunk_rows, and at"
            f" most {CHUNK_CELLS:,} cells); one job has at most {MAX_CHUNKS:,} chunks: split it"
            " into several jobs"
        )
    return size
