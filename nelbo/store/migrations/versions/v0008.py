"""Adds the surprise of rows and cells to scores, to anomalies and to the view `score`.

Programs of an older schema can still use the database. Scores that they store have no surprise; it
is their nelbo, and the surprises of their cells are their terms. On SQLite, such programs cannot
read explained scores that newer ones store, and say so with an error. Frozen: a later schema is
another migration.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

ANOMALIES = (
    "ALTER TABLE anomaly ADD COLUMN surprise DOUBLE PRECISION",
    "ALTER TABLE anomaly ADD COLUMN surprises JSON",
    "CREATE INDEX anomaly_surprise_idx ON anomaly (job_id, coalesce(surprise, nelbo) DESC, row)",
)

SCORES = {
    "sqlite": (
        "ALTER TABLE score_chunk ADD COLUMN has_surprise BOOLEAN",
        "DROP VIEW score",
        """
CREATE VIEW score AS
SELECT
    score_chunk.job_id,
    CAST(json_extract(scored.value, '$[0]') AS INTEGER) AS "row",
    CAST(json_extract(scored.value, '$[1]') AS REAL) AS nelbo,
    CAST(json_extract(scored.value, '$[2]') AS REAL) AS p_value,
    CAST(json_extract(scored.value, '$[2]') AS REAL) <= job.threshold AS anomaly,
    CAST(json_extract(scored.value, iif(score_chunk.has_surprise, '$[3]', '$[1]')) AS REAL)
        AS surprise
FROM score_chunk
JOIN job ON job.id = score_chunk.job_id
CROSS JOIN json_each(score_chunk.data) AS scored
""",
    ),
    "postgresql": (
        "ALTER TABLE score_chunk ADD COLUMN surprise DOUBLE PRECISION[]",
        "ALTER TABLE score_chunk ADD COLUMN surprises DOUBLE PRECISION[]",
        # For NULL alone, the check of the stored chunks would read the arrays of all of them.
        """
ALTER TABLE score_chunk ADD CONSTRAINT score_chunk_surprise_check
    CHECK (surprise IS NULL OR cardinality(surprise) = cardinality(rows))
""",
        """
CREATE OR REPLACE VIEW score AS
SELECT
    score_chunk.job_id,
    scored."row",
    scored.nelbo,
    scored.p_value,
    scored.p_value <= job.threshold AS anomaly,
    scored.surprise
FROM score_chunk
JOIN job ON job.id = score_chunk.job_id
CROSS JOIN LATERAL unnest(
    score_chunk.rows,
    score_chunk.nelbo,
    score_chunk.p_value,
    coalesce(score_chunk.surprise, score_chunk.nelbo)
) AS scored ("row", nelbo, p_value, surprise)
""",
    ),
}


def upgrade() -> None:
    for statement in (*ANOMALIES, *SCORES[op.get_bind().dialect.name]):
        op.execute(statement)
