"""The oracle: what a database must hold after any faults, asked in SQL of the database alone.

`watch` is called before the work begins: triggers write down each change of a chunk's state and
each raised fence, so that what the code says about its claims and commits is held against what
happened.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sqlalchemy import text

from nelbo.store import lookup, results
from nelbo.store.session import Database
from nelbo.views import Job

SEEN = "chunk_id, job_id, was, state, fence, row_from, row_to, worker, at"
OF_NEW = "NEW.id, NEW.job_id, OLD.state, NEW.state, NEW.fence, NEW.row_from, NEW.row_to, NEW.worker"
CHANGED = "OLD.state <> NEW.state OR OLD.fence <> NEW.fence"
TABLE = """
CREATE TABLE seen (
    chunk_id BIGINT, job_id TEXT, was TEXT, state TEXT, fence BIGINT, row_from BIGINT,
        row_to BIGINT, worker TEXT,
    at DOUBLE PRECISION
)
"""
WATCH = {
    "sqlite": [
        TABLE,
        f"""
CREATE TRIGGER see AFTER UPDATE ON chunk WHEN {CHANGED} BEGIN
    INSERT INTO seen ({SEEN}) VALUES ({OF_NEW}, (julianday('now') - 2440587.5) * 86400.0);
END
""",
    ],
    "postgresql": [
        TABLE,
        f"""
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen ({SEEN}) VALUES ({OF_NEW}, EXTRACT(EPOCH FROM clock_timestamp()));
    RETURN NULL;
END $$
""",
        f"CREATE TRIGGER see AFTER UPDATE ON chunk FOR EACH ROW WHEN ({CHANGED}) EXECUTE FUNCTION"
        " see()",
    ],
}

ACCOUNT = """
SELECT state, rows * copies AS accepted, rows_done * copies AS done,
    COALESCE((SELECT SUM(table_chunk.rows) FROM table_chunk WHERE table_chunk.job_id = job.id), 0)
        + (SELECT COUNT(*) FROM score WHERE score.job_id = job.id) AS stored,
    (SELECT COUNT(*) FROM (SELECT DISTINCT score.row FROM score
        WHERE score.job_id = job.id) AS one) AS scored,
    (SELECT COUNT(*) FROM score WHERE score.job_id = job.id) AS scores,
    (SELECT COUNT(*) FROM row_error WHERE row_error.job_id = job.id) * copies AS errors
FROM (
    SELECT id, state, rows, rows_done,
        CASE kind WHEN 'augment' THEN CAST(params ->> 'per_row' AS INTEGER) ELSE 1 END AS copies
    FROM job WHERE kind NOT IN ('read', 'verify')
) AS job
"""

STORED = """
(SELECT chunk_id, fence FROM table_chunk UNION ALL SELECT chunk_id, fence FROM score_chunk)
"""
LAWS = {
    "a job has not ended": "SELECT id FROM job WHERE state IN ('queued', 'running')",
    "a job failed": "SELECT problem FROM job WHERE state = 'failed'",
    "a chunk runs under a lease that is over": "SELECT id FROM chunk WHERE state = 'running' AND"
    " lease_until < {now}",
    "a chunk goes on after its job": """
        SELECT chunk.id FROM chunk JOIN job ON job.id = chunk.job_id
        WHERE job.finished_at IS NOT NULL AND chunk.state IN ('queued', 'running')
    """,
    "two chunks hold the same row": """
        SELECT one.id FROM chunk AS one JOIN chunk AS other ON one.job_id = other.job_id
            AND one.id < other.id
        WHERE one.stage = 'work' AND other.stage = 'work' AND one.row_from < other.row_to
            AND other.row_from < one.row_to
    """,
    "a job succeeded with rows of no chunk that is done": """
        SELECT job.id FROM job JOIN chunk ON chunk.job_id = job.id
            AND chunk.state = 'done' WHERE job.state = 'succeeded'
        GROUP BY job.id, job.rows HAVING SUM(chunk.row_to - chunk.row_from) <> job.rows
    """,
    "a job succeeded without one finish": """
        SELECT job.id FROM job WHERE state = 'succeeded' AND kind NOT IN ('read', 'verify')
            AND 1 <> (
            SELECT COUNT(*) FROM chunk WHERE chunk.job_id = job.id AND stage = 'finish'
                AND state = 'done'
        )
    """,
    # A row that is given up raises the fence once more, without a claim.
    "a fence is not the number of claims": """
        SELECT id FROM chunk WHERE fence <> (
            SELECT COUNT(*) FROM seen WHERE seen.chunk_id = chunk.id AND (
                seen.was = 'queued' AND seen.state = 'running' OR seen.state = 'done'
                    AND seen.fence > (
                    SELECT MAX(claim.fence) FROM seen AS claim WHERE claim.chunk_id = chunk.id
                        AND claim.state = 'running'
                )
            )
        )
    """,
    "two claims of a chunk have the same fence": """
        SELECT chunk_id FROM seen WHERE was = 'queued'
            AND state = 'running' GROUP BY chunk_id, fence HAVING COUNT(*) > 1
    """,
    "a chunk was done twice": "SELECT chunk_id FROM seen WHERE state = 'done' GROUP BY chunk_id"
    " HAVING COUNT(*) > 1",
    "a result is not of the chunk's last claim": f"""
        SELECT chunk.id FROM {STORED} AS stored JOIN chunk ON chunk.id = stored.chunk_id
        WHERE chunk.state <> 'done' OR chunk.fence <> stored.fence
    """,
    "a chunk is done with neither result nor errors": f"""
        SELECT id FROM chunk WHERE stage = 'work' AND state = 'done'
        AND job_id IN (SELECT id FROM job WHERE kind NOT IN ('read', 'verify'))
        AND NOT EXISTS (SELECT 1 FROM {STORED} AS stored WHERE stored.chunk_id = chunk.id)
        AND row_to - row_from > (
            SELECT COUNT(*) FROM row_error WHERE row_error.job_id = chunk.job_id
                AND row >= row_from AND row < row_to
        )
    """,
    "all rows of a job are done, and it has neither succeeded nor was cancelled": """
        SELECT id FROM job WHERE rows_done = rows AND state NOT IN ('succeeded', 'cancelled')
    """,
    "a job counts other errors than there are": """
        SELECT id FROM job WHERE rows_failed <> (SELECT COUNT(*) FROM row_error
            WHERE row_error.job_id = job.id)
    """,
    "an error is of no row of its job": """
        SELECT job_id FROM row_error JOIN job ON job.id = row_error.job_id
            WHERE row < 0 OR row >= job.rows
    """,
    "a row is both a result and an error": """
        SELECT row_error.job_id FROM row_error JOIN score ON score.job_id = row_error.job_id
            AND score.row = row_error.row
    """,
    "one idempotency key made several jobs": """
        SELECT owner FROM job
            WHERE idempotency_key IS NOT NULL GROUP BY owner, idempotency_key HAVING COUNT(*) > 1
    """,
}


@dataclass(frozen=True)
class Verdict:
    """Rows of all jobs that were not cancelled; `broken` says in words what does not hold."""

    jobs: int
    accepted: int
    stored: int
    errors: int
    lost: int
    duplicated: int
    broken: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.lost or self.duplicated or self.broken)


@dataclass(frozen=True)
class Reference:
    """What a request gives undisturbed: its rows in order, threshold and summary."""

    rows: pa.Table
    threshold: float | None
    summary: object


def watch(database: Database) -> None:
    with database.write() as connection:
        for statement in WATCH[database.dialect]:
            connection.exec_driver_sql(statement)


def judge(
    database: Database,
    owner: str,
    references: Mapping[str, Reference] | None = None,
    keys: Mapping[str, str] | None = None,
    found_before: Sequence[str] = (),
) -> Verdict:
    """`references` by job id: what each must be equal to. `keys`: the job that was promised under
    each idempotency key. `found_before`: what others saw that does not hold."""
    with database.read() as connection:
        account = connection.execute(text(ACCOUNT)).all()
        clock = "(julianday('now') - 2440587.5) * 86400.0"
        now = clock if database.dialect == "sqlite" else "EXTRACT(EPOCH FROM clock_timestamp())"
        found = {
            law: connection.execute(text(law_sql.format(now=now))).all()
            for law, law_sql in LAWS.items()
        }
        promised = {
            key: connection.execute(
                text("SELECT id FROM job WHERE idempotency_key = :key"), {"key": key}
            )
            .scalars()
            .all()
            for key in keys or {}
        }
    broken = list(found_before)
    broken += [f"{law}: {len(rows)}, such as {rows[0][0]}" for law, rows in found.items() if rows]
    broken += [
        f"key {key} made {promised[key]}, not {job_id}"
        for key, job_id in (keys or {}).items()
        if promised[key] != [job_id]
    ]
    broken += [
        f"{job.done} rows are done, {job.stored} stored, {job.errors} errors"
        for job in account
        if job.done != job.stored + job.errors
    ]
    broken += [
        words
        for job_id, reference in (references or {}).items()
        if (words := _unlike(database, owner, job_id, reference))
    ]
    kept = [job for job in account if job.state != "cancelled"]
    return Verdict(
        jobs=len(account),
        accepted=sum(int(job.accepted) for job in kept),
        stored=sum(int(job.stored) for job in kept),
        errors=sum(int(job.errors) for job in kept),
        lost=sum(max(0, int(job.accepted - job.stored - job.errors)) for job in kept),
        duplicated=sum(max(0, int(job.stored + job.errors - job.accepted)) for job in kept)
        + sum(int(job.scores - job.scored) for job in account),
        broken=tuple(broken),
    )


def reference(database: Database, job: Job) -> Reference:
    return Reference(_rows(database, job), job.threshold, job.summary)


def digest(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=1 << 30)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _unlike(database: Database, owner: str, job_id: str, wanted: Reference) -> str:
    """How a job's results differ from those of an undisturbed run, as far as they are there;
    nothing where they do not."""
    job = lookup.get_job(database, owner, job_id)
    with database.read() as connection:
        whole = text(
            "SELECT row_from, row_to FROM chunk WHERE job_id = :id AND stage = 'work' AND state ="
            " 'done'"
        )
        done = connection.execute(whole, {"id": job_id}).all()
        failed = (
            connection.execute(text("SELECT row FROM row_error WHERE job_id = :id"), {"id": job_id})
            .scalars()
            .all()
        )
    rows, given = wanted.rows, np.zeros(job.progress.rows, dtype=bool)
    for row_from, row_to in done:
        given[row_from:row_to] = True
    given[list(failed)] = False
    if not given.any():
        return ""
    copies = rows.num_rows // job.progress.rows
    rows, found = rows.filter(pa.array(np.repeat(given, copies))), _rows(database, job)
    if given.all() and job.state == "succeeded":
        if (job.threshold, job.summary) != (wanted.threshold, wanted.summary):
            return f"job {job_id} ({job.kind}): another threshold or summary than undisturbed"
    elif "anomaly" in rows.column_names:
        rows, found = rows.drop(["anomaly"]), found.drop(["anomaly"])
    return (
        ""
        if digest(rows) == digest(found)
        else f"job {job_id} ({job.kind}): other results than undisturbed"
    )


def _rows(database: Database, job: Job) -> pa.Table:
    explain = bool(job.params.get("explain"))
    batches = (
        results.scores(database, job.id, explain=explain)
        if job.kind == "score"
        else results.tables(database, job.id)
    )
    return pa.Table.from_batches(batches).combine_chunks()
