"""The SQL tables as typed models.

Invariants are constraints here, or triggers in the migration.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nelbo.jobs import CHUNK_STATES, INTERNAL_KINDS, KINDS, STATES, UNFINISHED
from nelbo.views import FILE_STATES, VERSION_STATES


def one_of(column: str, values: Iterable[str]) -> str:
    """The condition that a column holds one of these words."""
    words = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({words})"


ACTIVE = one_of("state", UNFINISHED)
DELETED = "deleted_at IS NOT NULL"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pk",
            "fk": "%(table_name)s_%(column_0_name)s_fk",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger(),
        float: Double(),
        str: Text(),
        bytes: LargeBinary(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class ModelRow(Base):
    """A name for a series of versions.

    Deleting it deletes its versions; their numbers are not used again.
    """

    __tablename__ = "model"

    owner: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]


class VersionRow(Base):
    """A trained artifact, which never changes once it is ready.

    `digest` and `manifest` are empty until it is verified.
    """

    __tablename__ = "version"
    __table_args__ = (
        UniqueConstraint("owner", "model", "number"),
        ForeignKeyConstraint(["owner", "model"], ["model.owner", "model.name"]),
        CheckConstraint(one_of("state", VERSION_STATES), name="state"),
        CheckConstraint("number > 0", name="number"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    model: Mapped[str]
    number: Mapped[int]
    state: Mapped[str]
    digest: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    reason: Mapped[str | None]
    bytes: Mapped[int | None]
    """The size of its artifact, where that was pushed."""
    row_s: Mapped[float | None]
    """The seconds that a row took when the artifact was tried out, in its slowest operation."""
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]


class AliasRow(Base):
    """A name for a version that can be moved to another one.

    `champion` follows the newest ready version until someone sets it by hand.
    """

    __tablename__ = "alias"

    owner: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("version.id"))
    by_hand: Mapped[bool]


class FileRow(Base):
    """An uploaded table."""

    __tablename__ = "file"
    __table_args__ = (
        CheckConstraint(one_of("state", FILE_STATES), name="state"),
        CheckConstraint("bytes >= 0 AND rows >= 0", name="sizes"),
        CheckConstraint(
            "state <> 'ready' OR (rows IS NOT NULL AND digest IS NOT NULL)", name="ready"
        ),
        Index("file_owner_idx", "owner", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    format: Mapped[str]
    options: Mapped[dict[str, Any]]
    state: Mapped[str]
    bytes: Mapped[int | None]
    rows: Mapped[int | None]
    digest: Mapped[str | None]
    columns: Mapped[list[Any] | None]
    notices: Mapped[list[Any]]
    reason: Mapped[str | None]
    created_at: Mapped[float]
    deleted_at: Mapped[float | None]


class JobRow(Base):
    """A job that a user submitted, or an internal one, which has one chunk and is never listed."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        CheckConstraint(one_of("kind", (*KINDS, *INTERNAL_KINDS)), name="kind"),
        CheckConstraint(one_of("state", STATES), name="state"),
        CheckConstraint("rows > 0", name="rows"),
        CheckConstraint(
            "rows_failed >= 0 AND rows_failed <= rows_done AND rows_done <= rows", name="progress"
        ),
        CheckConstraint("chunks > 0 AND chunks_done >= 0 AND chunks_done <= chunks", name="chunks"),
        CheckConstraint(
            "state <> 'succeeded' OR (rows_done = rows AND chunks_done = chunks)", name="whole"
        ),
        CheckConstraint(f"({ACTIVE}) = (finished_at IS NULL)", name="finished"),
        CheckConstraint(
            "(state = 'cancelled') = (cancel_requested_at IS NOT NULL)", name="cancelled"
        ),
        Index("job_owner_idx", "owner", "id"),
        Index(
            "job_active_idx", "created_at", sqlite_where=text(ACTIVE), postgresql_where=text(ACTIVE)
        ),
        Index("job_file_idx", "file_id"),
        Index("job_version_idx", "version_id"),
        Index("job_started_idx", "owner", "started_at"),
        Index("job_served_idx", "owner", "served_until"),
        Index("job_finished_idx", "finished_at"),
        Index("job_stored_idx", "owner", "deleted_at", "bytes"),
        Index(
            "job_deleted_idx",
            "deleted_at",
            sqlite_where=text(DELETED),
            postgresql_where=text(DELETED),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    version_id: Mapped[str | None] = mapped_column(ForeignKey("version.id"))
    file_id: Mapped[str | None] = mapped_column(ForeignKey("file.id"))
    inline: Mapped[list[Any] | None]
    params: Mapped[dict[str, Any]]
    rows: Mapped[int]
    rows_done: Mapped[int] = mapped_column(server_default=text("0"))
    rows_failed: Mapped[int] = mapped_column(server_default=text("0"))
    chunks: Mapped[int]
    chunks_done: Mapped[int] = mapped_column(server_default=text("0"))
    threshold: Mapped[float | None]
    summary: Mapped[dict[str, Any] | None]
    problem: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    request_digest: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    cancel_requested_at: Mapped[float | None]
    hinted_at: Mapped[float | None]
    deleted_at: Mapped[float | None]
    served_until: Mapped[float | None]
    """The time until which other owners have their turns.

    After a long chunk, they have them for as long as that chunk took.
    """
    bytes: Mapped[int | None]
    """The approximate size of its inline rows and of its results stored so far."""


class ChunkRow(Base):
    """Rows row_from..row_to (half-open) of a job.

    The finish chunk has no rows: it runs after all other chunks are done.
    """

    __tablename__ = "chunk"
    __table_args__ = (
        UniqueConstraint("job_id", "stage", "row_from"),
        CheckConstraint(one_of("state", CHUNK_STATES), name="state"),
        CheckConstraint(
            "(stage = 'work' AND row_from >= 0 AND row_to > row_from) OR (stage = 'finish' AND"
            " row_from = 0 AND row_to = 0)",
            name="range",
        ),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint(
            "attempt >= 0 AND attempt <= fence AND crashes >= 0 AND failures >= 0", name="counts"
        ),
        Index("chunk_state_idx", "job_id", "state", "row_from"),
        Index("chunk_claimed_idx", "job_id", "claimed_at"),
        Index(
            "chunk_running_idx",
            "lease_until",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    stage: Mapped[str]
    row_from: Mapped[int]
    row_to: Mapped[int]
    state: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of claims so far, without those that were handed back at a shutdown."""
    crashes: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of workers that died on it, or lost a database that others could reach."""
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of transient errors that workers reported."""
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    """A number that every claim raises; a writer must hold the newest one."""
    lease_until: Mapped[float | None]
    not_before: Mapped[float] = mapped_column(server_default=text("0"))
    worker: Mapped[str | None]
    problem: Mapped[str | None]
    claimed_at: Mapped[float | None]
    """The time of its last claim."""


class TableChunkRow(Base):
    """The made rows of a chunk, as one Parquet file."""

    __tablename__ = "table_chunk"
    __table_args__ = (
        UniqueConstraint("job_id", "row_from"),
        CheckConstraint("rows >= 0", name="rows"),
    )

    chunk_id: Mapped[int] = mapped_column(
        ForeignKey("chunk.id"), primary_key=True, autoincrement=False
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"))
    row_from: Mapped[int]
    fence: Mapped[int]
    rows: Mapped[int]
    data: Mapped[bytes]


class ErrorRow(Base):
    """One row that failed, and why."""

    __tablename__ = "row_error"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    column: Mapped[str | None]
    code: Mapped[str]
    message: Mapped[str]


class AnomalyRow(Base):
    """One of the job's rows with the largest surprise or nelbo, with its cells."""

    __tablename__ = "anomaly"
    __table_args__ = (
        Index("anomaly_rank_idx", "job_id", text("nelbo DESC"), "row"),
        Index("anomaly_surprise_idx", "job_id", text("coalesce(surprise, nelbo) DESC"), "row"),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    nelbo: Mapped[float]
    p_value: Mapped[float]
    kl: Mapped[float]
    terms: Mapped[dict[str, Any]]
    surprise: Mapped[float | None]
    """Empty if a program of an older schema stored the row: then it is the nelbo."""
    surprises: Mapped[dict[str, Any] | None]
    """Empty where `surprise` is: then they are the terms."""


class WorkerRow(Base):
    """A heartbeat: a worker is alive while seen_at is recent."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    can_clean: Mapped[bool | None] = mapped_column(Boolean())
    """Empty if a program of an older schema stored the row: then it cannot."""


class KeyRow(Base):
    """A key of an owner, by its digest.

    The row outlives the key: a service that ever had a key requires keys from then on.
    """

    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint("scope IN ('read', 'submit', 'train', 'admin')", name="scope"),
        Index("api_key_owner_idx", "owner"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    digest: Mapped[str]
    """SHA-256 of the whole key, in hex."""
    scope: Mapped[str]
    label: Mapped[str]
    from_file: Mapped[bool]
    """Whether it came from a keys file.

    Where the API has a keys file, such a key is valid only while the file has its line.
    """
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class AuditRow(Base):
    """One change of a model, version, alias or key, or one deletion.

    It is written in the transaction of the change.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("audit_owner_idx", "owner", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[float]
    by: Mapped[str]
    key: Mapped[str | None]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
    owner: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[str | None]


class CompatibilityRow(Base):
    """One row: the schema's revision, and the oldest revision whose programs can work on it."""

    __tablename__ = "compatibility"

    revision: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[str]


def _score_chunk(*payload: Column[Any] | CheckConstraint) -> Table:
    """The table of scores, with one row per chunk.

    The payload differs by database, so each form has a metadata of its own.
    """
    return Table(
        "score_chunk",
        MetaData(naming_convention=Base.metadata.naming_convention),
        Column(
            "chunk_id",
            ChunkRow.id.type,
            ForeignKey(ChunkRow.id),
            primary_key=True,
            autoincrement=False,
        ),
        Column("job_id", Text, ForeignKey(JobRow.id), nullable=False),
        Column("row_from", BigInteger, nullable=False),
        Column("fence", BigInteger, nullable=False),
        *payload,
        UniqueConstraint("job_id", "row_from"),
    )


score_json = _score_chunk(
    Column("data", Text, nullable=False),
    Column("has_surprise", Boolean),
    CheckConstraint("json_valid(data)", name="data"),
)
"""SQLite: one JSON array with an array per row, [row, nelbo, p_value, surprise].

With `explain`, each also has kl, then one term per column, then the surprise of each cell. Without
`has_surprise`, a program of an older schema stored the chunk, and its rows have no surprises.
"""

score_arrays = _score_chunk(
    Column("rows", ARRAY(BigInteger), nullable=False),
    Column("nelbo", ARRAY(Double), nullable=False),
    Column("p_value", ARRAY(Double), nullable=False),
    Column("kl", ARRAY(Double)),
    Column("terms", ARRAY(Double)),
    Column("surprise", ARRAY(Double)),
    Column("surprises", ARRAY(Double)),
    CheckConstraint(
        "cardinality(nelbo) = cardinality(rows) AND cardinality(p_value) = cardinality(rows)",
        name="lengths",
    ),
    CheckConstraint(
        "surprise IS NULL OR cardinality(surprise) = cardinality(rows)", name="surprise"
    ),
)
"""PostgreSQL: one array per column; `terms` and `surprises` are flat, row after row.

If `surprise` is empty, a program of an older schema stored the chunk.
"""
