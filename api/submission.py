"""Everything about a job that can be checked before it is accepted, so that a 202 means: this will
run."""

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
from nelbo.artifact import check_spread
from nelbo.encoding import check_columns
from nelbo.errors import FieldError, InvalidInput, InvalidRequest, NotFound, NotReady, TooLarge
from nelbo.jobs import AugmentRequest, GenerateRequest, JobRequest, ReconstructRequest, ScoreRequest
from nelbo.schema import Schema
from nelbo.settings import Settings
from nelbo.store import catalog, files
from nelbo.store.session import Database

CHUNK_CELLS = 1_000_000
"""Most cells of a chunk: a wide table has smaller chunks, as a worker and whoever reads the results
hold a whole one."""
MAX_CHUNKS = 20_000
"""Most chunks of a job: they are inserted in one transaction."""
WAIT_S = 1.0
"""What someone is told to wait for a file that is being read or a version that is being
verified."""

OfRows = ScoreRequest | AugmentRequest | ReconstructRequest
InlineRows = list[dict[str, str | None]]


@dataclass(frozen=True)
class Plan:
    """A request that can be accepted: its version pinned, its rows counted and cut."""

    version_id: str
    rows: int
    chunk_rows: int
    file_id: str | None = None
    inline: InlineRows | None = None


def parse(body: bytes | bytearray, requests: TypeAdapter[JobRequest]) -> JobRequest:
    """The request in a body. Raises what names the fields that are wrong, TooLarge where it carries
    too many rows."""
    try:
        return requests.validate_python(bodies.parsed(body))
    except ValidationError as problem:
        faults = problem.errors(include_url=False, include_input=False)
    for fault in faults:
        if fault["type"] == "too_long" and fault["loc"][-1] == "rows":
            raise _too_many_rows(fault["ctx"]["actual_length"], fault["ctx"]["max_length"])
    raise RequestValidationError([fault | {"loc": ("body", *fault["loc"])} for fault in faults])


def plan(database: Database, settings: Settings, owner: str, request: JobRequest) -> Plan:
    """Check a request against what the owner has. Raises what says why it cannot be accepted."""
    version = catalog.resolve(database, owner, _known(request.model, "model"))
    graphs, schema = of_manifest(database, version, _checked_against)
    size = partial(chunk_rows, request, settings=settings, columns=len(schema.columns))
    if isinstance(request, GenerateRequest):
        return Plan(version.id, request.n, size(request.n))
    if isinstance(request, AugmentRequest):
        check_spread(graphs, request.spread)
    _need_one_source(request)
    if request.file is not None:
        rows = _file_rows(files.get_file(database, owner, _known(request.file, "file")), schema)
        return Plan(version.id, rows, size(rows), file_id=request.file)
    inline = inline_rows(request.rows or (), schema, settings)
    return Plan(version.id, len(inline), size(len(inline)), inline=inline)


def _checked_against(manifest: dict[str, Any]) -> tuple[tuple[str, ...], Schema]:
    """What a request is checked against: the graphs' names, and the schema without its categories,
    which may be large."""
    columns = [
        column | {"categories": (), "rarer": ()} for column in manifest["table_schema"]["columns"]
    ]
    return tuple(manifest["graphs"]), Schema.model_validate(
        manifest["table_schema"] | {"columns": columns}
    )


def _known(name: str, noun: str) -> str:
    """Refuse a name that no database can hold, hence that nothing has."""
    if not _is_text(name):
        raise NotFound(f"no {noun} {name!r}")
    return name


def digest(request: JobRequest) -> str:
    """SHA-256 over the request's fields: what must be equal for an idempotency key to mean the same
    job."""
    fields = request.model_dump(exclude={"rows"})
    if not isinstance(request, GenerateRequest):
        fields["rows"] = request.rows  # as they are: a copy of many rows takes much memory
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _need_one_source(request: OfRows) -> None:
    """Refuse a request that names no rows, or names them twice."""
    if (request.file is None) == (request.rows is None):
        raise InvalidRequest(
            "a job is about the rows of a file or rows of its own: give either 'file' or 'rows'",
            [FieldError("/body/file", "exactly-one-of", "give either 'file' or 'rows'")],
        )


def _file_rows(file: files.FileEntry, schema: Schema) -> int:
    """Rows of a file that is ready and serves the schema."""
    if file.state == "rejected":
        raise InvalidInput(
            f"file {file.id} ({file.name}) was rejected: {file.reason}; upload a repaired one"
        )
    if file.state != "ready" or file.rows is None:
        raise NotReady(
            f"file {file.id} ({file.name}) is still {file.state}; try again soon",
            retry_after=WAIT_S,
        )
    check_columns([column["name"] for column in file.columns or ()], schema)
    return file.rows


def inline_rows(
    rows: Sequence[Mapping[str, Any]], schema: Schema, settings: Settings
) -> InlineRows:
    """Rows of a request as JSON Lines would hold them: text or null in each cell, each row with all
    columns."""
    if len(rows) > settings.max_inline_rows:
        raise _too_many_rows(len(rows), settings.max_inline_rows)
    if not rows:
        raise InvalidInput("'rows' is empty; a job needs at least one row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) > settings.max_columns:
        raise InvalidInput(
            f"{len(names):,} columns; at most {settings.max_columns:,} are accepted (max_columns)"
        )
    check_columns(names, schema)
    known = [name for name in names if name in set(schema.names)]
    return [{name: _text(row.get(name), at, name) for name in known} for at, row in enumerate(rows)]


def _too_many_rows(rows: int, limit: int) -> TooLarge:
    return TooLarge(
        f"{rows:,} rows in a request; at most {limit:,} fit (the setting max_inline_rows): upload"
        " the table as a file and"
        " name it in the job"
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
    wanted = "a cell is text, a number, true, false or null"
    raise InvalidRequest(
        f"row {row}, column {column!r}: {wanted}", [FieldError(pointer, "not-a-cell", wanted)]
    )


def _is_text(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    # PostgreSQL's JSON cannot hold it.
    return "\0" not in cell


def chunk_rows(request: JobRequest, rows: int, settings: Settings, columns: int = 1) -> int:
    """Rows that a chunk of a job about so many rows and columns holds. Raises TooLarge with the
    setting that says so.

    A chunk of an augmentation is about so few given rows that what it makes has the size of any
    other chunk.
    """
    per_row = request.per_row if isinstance(request, AugmentRequest) else 1
    if rows * per_row > settings.max_job_rows:
        raise TooLarge(
            f"the job is about {rows * per_row:,} rows; one job takes at most"
            f" {settings.max_job_rows:,} (the setting"
            " max_job_rows): split it into several"
        )
    size = max(1, min(settings.chunk_rows, CHUNK_CELLS // max(1, columns)) // per_row)
    chunks = math.ceil(rows / size)
    if chunks > MAX_CHUNKS:
        raise TooLarge(
            f"the job falls into {chunks:,} chunks of {size:,} rows (the setting chunk_rows, and at"
            f" most {CHUNK_CELLS:,}"
            f" cells); one job has at most {MAX_CHUNKS:,} chunks: split it into several"
        )
    return size
