"""Results: stored and read back bit by bit, in row order, page by page; what a finished job says of
them."""

import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from nelbo.jobs import AugmentRequest, GenerateRequest, ReconstructRequest, ScoreRequest
from nelbo.rows import Floats, Rank, RowError, Scores
from nelbo.store import ledger, lookup, results
from nelbo.store.session import Database, connect
from nelbo.store.sweep import sweep
from nelbo.views import Job
from tests.nelbo.store.kit import (
    COLUMNS,
    OWNER,
    add_job,
    expire,
    kl_of,
    outcome_of,
    score_outcome,
    surprises_of,
    take,
    terms_of,
    work,
    work_off,
)

EXPLAIN = ScoreRequest(model="adult", explain=True)


def read(database: Database, job: Job, **options: Any) -> pa.Table:
    batches = list(results.scores(database, job.id, **options))
    explain = options.get("explain", False)
    return pa.Table.from_batches(
        batches, schema=results.score_schema(database, job.id, explain=explain)
    )


def bits(values: Any) -> bytes:
    values = list(values)
    return struct.pack(f"{len(values)}d", *values)


def hard_floats(n: int) -> Floats:
    """Floats that are hard to write down: random bits, whole numbers, the largest, subnormal ones,
    minus zero."""
    drawn = np.random.default_rng(5).integers(0, 2**64, size=n, dtype=np.uint64).view(np.float64)
    drawn[~np.isfinite(drawn)] = 1.5
    special = [
        0.0,
        -0.0,
        1.0,
        -3.0,
        0.1,
        1e22,
        5e-324,
        2.2250738585072014e-308,
        np.finfo(float).max,
        1e-5,
        123456789.0,
    ]
    drawn[: len(special)] = special
    return drawn


def commit_hard_floats(database: Database, n: int, explain: bool) -> tuple[Job, Scores]:
    job = add_job(
        database, rows=n, chunk_rows=n, request=ScoreRequest(model="adult", explain=explain)
    )
    claim = take(database)
    nelbo, surprise, p_value, kl, *cells = hard_floats(8 * n).reshape(8, n)
    terms, surprises = np.stack(cells[:2], axis=1), np.stack(cells[2:], axis=1)
    outcome = Scores(np.arange(n), nelbo, surprise, p_value, kl, terms, surprises, COLUMNS)
    assert ledger.commit(database, claim, outcome)
    return job, outcome


def test_every_float_is_read_back_bit_by_bit(database: Database) -> None:
    job, outcome = commit_hard_floats(database, 2_000, explain=True)
    found = read(database, job, explain=True)
    for name, stored in [
        ("nelbo", outcome.nelbo),
        ("surprise", outcome.surprise),
        ("p_value", outcome.p_value),
        ("kl", outcome.kl),
        ("term_length", outcome.terms[:, 0]),
        ("term_colour", outcome.terms[:, 1]),
        ("surprise_length", outcome.surprises[:, 0]),
        ("surprise_colour", outcome.surprises[:, 1]),
    ]:
        assert bits(found[name].to_pylist()) == bits(stored), name


@pytest.mark.parametrize("explain", [True, False])
def test_the_view_shows_what_was_committed_bit_by_bit(database: Database, explain: bool) -> None:
    job, outcome = commit_hard_floats(database, 2_000, explain)
    with database.read() as connection:
        statement = "SELECT job_id, row, nelbo, p_value, anomaly, surprise FROM score ORDER BY row"
        found = connection.execute(text(statement)).all()
    assert [row.row for row in found] == outcome.rows.tolist()
    assert {row.job_id for row in found} == {job.id}
    assert {row.anomaly for row in found} == {None}, "the job has no threshold yet"
    assert bits(row.nelbo for row in found) == bits(outcome.nelbo)
    assert bits(row.p_value for row in found) == bits(outcome.p_value)
    assert bits(row.surprise for row in found) == bits(outcome.surprise)


def test_the_view_flags_what_the_results_flag(database: Database) -> None:
    job = add_job(
        database, rows=200, chunk_rows=64, request=ScoreRequest(model="adult", alpha=0.05)
    )
    work_off(database)
    flagged = [row["row"] for row in read(database, job).to_pylist() if row["anomaly"]]
    with database.read() as connection:
        statement = text("SELECT row FROM score WHERE job_id = :id AND anomaly ORDER BY row")
        assert list(connection.execute(statement, {"id": job.id}).scalars()) == flagged
    assert flagged == [row for row in range(200) if (1 + row % 97) / 98 <= 0.05]


def test_scores_come_in_row_order_whatever_the_order_of_the_commits(database: Database) -> None:
    job = add_job(database, rows=23, chunk_rows=5, request=EXPLAIN)
    claims = [take(database) for _ in range(5)]
    for claim in claims[::-1]:
        assert ledger.commit(
            database,
            claim,
            outcome_of(claim, failed=[7]) if claim.row_from == 5 else outcome_of(claim),
        )
    work_off(database)
    found = read(database, job, explain=True)
    rows = np.array([row for row in range(23) if row != 7])
    assert found.column_names == [
        "row",
        "nelbo",
        "surprise",
        "p_value",
        "anomaly",
        "term_length",
        "term_colour",
        "kl",
        "surprise_length",
        "surprise_colour",
    ]
    assert found["row"].to_pylist() == rows.tolist()
    assert found["nelbo"].to_pylist() == (terms_of(rows).sum(axis=1) + kl_of(rows)).tolist()
    assert found["surprise"].to_pylist() == surprises_of(rows).max(axis=1).tolist()
    assert found["term_colour"].to_pylist() == terms_of(rows)[:, 1].tolist()
    assert found["surprise_colour"].to_pylist() == surprises_of(rows)[:, 1].tolist()
    assert read(database, job).column_names == ["row", "nelbo", "surprise", "p_value", "anomaly"]


@pytest.mark.parametrize("limit", [1, 4, 7, 100])
def test_pages_of_scores_are_the_scores(database: Database, limit: int) -> None:
    job = add_job(database, rows=23, chunk_rows=5)
    work_off(database)
    rows: list[Any] = []
    while page := read(database, job, after_row=rows[-1] if rows else -1, limit=limit)[
        "row"
    ].to_pylist():
        assert len(page) <= limit
        rows += page
    assert rows == list(range(23))


def test_scores_are_read_across_chunks_that_were_halved(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    job = add_job(database, rows=16, chunk_rows=16)
    for _ in range(2):
        expire(database, take(database))
        sweep(database)
    work_off(database)
    assert read(database, job)["row"].to_pylist() == list(range(16))
    assert read(database, job, after_row=9)["row"].to_pylist() == list(range(10, 16))


def test_what_is_not_stored_yet_is_left_out(database: Database) -> None:
    job = add_job(database, rows=12)
    first, second = take(database), take(database)
    assert ledger.commit(database, second, outcome_of(second))
    found = read(database, job)
    assert found["row"].to_pylist() == [4, 5, 6, 7]
    assert found["anomaly"].null_count == 4
    assert first.row_from == 0


# Finish


def finished(database: Database, p_values: Floats, **request: Any) -> Job:
    """A finished job over rows with these p-values, in chunks of 50."""
    n = len(p_values)
    job = add_job(database, rows=n, chunk_rows=50, request=ScoreRequest(model="adult", **request))
    while claim := ledger.claim(database, "worker", lease_s=60):
        outcome = work(database, claim)
        if isinstance(outcome, Scores):
            outcome = replace(outcome, p_value=p_values[claim.row_from : claim.row_to])
        assert ledger.commit(database, claim, outcome)
    return lookup.get_job(database, OWNER, job.id)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_false_discovery_threshold_is_that_of_benjamini_and_hochberg(
    database: Database, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p_values = np.concatenate(
        [np.ceil(rng.random(150) * 400) / 400, np.ceil(rng.random(30) * 4) / 400]
    )
    job = finished(database, p_values, fdr=0.2)
    ranked = np.sort(p_values)
    allowed = [p for k, p in enumerate(ranked, start=1) if p <= 0.2 * k / len(ranked)]
    assert allowed, "the example is about something"
    assert job.threshold == max(allowed)
    assert job.summary is not None
    assert job.summary["anomalies"] == (p_values <= max(allowed)).sum()


def test_without_any_discovery_nothing_is_an_anomaly(database: Database) -> None:
    job = finished(database, np.full(60, 0.5), fdr=0.1)
    assert job.threshold == 0.0
    assert (job.summary or {})["anomalies"] == 0
    assert not any(read(database, job)["anomaly"].to_pylist())


def test_the_summary_says_what_the_scores_are(database: Database) -> None:
    job = add_job(database, rows=200, chunk_rows=30)
    work_off(database)
    summary = lookup.get_job(database, OWNER, job.id).summary
    assert summary is not None
    scores = np.array(read(database, job)["nelbo"].to_pylist())
    assert summary["nelbo"] == {
        "mean": math.fsum(scores) / 200,
        "min": scores.min(),
        "max": scores.max(),
    }
    counts, edges = np.histogram(scores, bins=results.HISTOGRAM_BINS)
    assert summary["histogram"] == {"edges": edges.tolist(), "counts": counts.tolist()}
    assert (summary["rows"], summary["rows_scored"], summary["rows_failed"]) == (200, 200, 0)


def test_the_summary_does_not_depend_on_how_the_rows_were_cut(
    sqlite_url: str, postgresql_url: str
) -> None:
    summaries = []
    for url, chunk_rows in ((sqlite_url, 7), (sqlite_url, 500), (postgresql_url, 33)):
        database = connect(url)
        job = add_job(database, rows=500, chunk_rows=chunk_rows)
        work_off(database)
        summaries.append(lookup.get_job(database, OWNER, job.id).summary)
        database.dispose()
    assert summaries[0] == summaries[1] == summaries[2]


# Anomalies, errors, tables


@pytest.mark.parametrize("rank", ["surprise", "nelbo"])
def test_the_top_anomalies_are_the_rows_that_the_jobs_rank_puts_first(
    database: Database, monkeypatch: pytest.MonkeyPatch, rank: Rank
) -> None:
    monkeypatch.setattr(results, "TOP_ANOMALIES", 9)
    request = ScoreRequest(model="adult", rank=rank)
    job = add_job(database, rows=200, chunk_rows=30, request=request)
    claims = [take(database) for _ in range(7)]
    for claim in [claims[3], *claims[:3], *claims[4:]]:
        # Rows 40 apart have the same scores: of these the first ones are kept.
        rows = np.arange(claim.row_from, claim.row_to)
        assert ledger.commit(database, claim, replace(score_outcome(rows % 40), rows=rows))
        with database.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM anomaly")).scalar() == 9
    work_off(database)
    whole = score_outcome(np.arange(200) % 40)
    scores = getattr(whole, rank).tolist()
    best = sorted(range(200), key=lambda row: (-scores[row], row))[:9]
    found = results.anomalies(database, job.id)
    assert [anomaly.row for anomaly in found] == best
    for anomaly in found:
        row = anomaly.row
        assert anomaly.terms == dict(zip(COLUMNS, whole.terms[row].tolist(), strict=True))
        assert anomaly.surprises == dict(zip(COLUMNS, whole.surprises[row].tolist(), strict=True))
        assert (anomaly.nelbo, anomaly.surprise) == (whole.nelbo[row], whole.surprise[row])
        assert anomaly.anomaly == (anomaly.p_value <= 0.01)
    assert [anomaly.row for anomaly in results.anomalies(database, job.id, limit=3)] == best[:3]


def test_errors_come_in_row_order_page_by_page(database: Database) -> None:
    job = add_job(database, rows=12)
    failed = [11, 1, 3, 2, 9]
    while claim := ledger.claim(database, "worker", lease_s=60):
        outcome = work(database, claim)
        if claim.stage == "work":
            outcome = outcome_of(
                claim, [row for row in failed if claim.row_from <= row < claim.row_to]
            )
        assert ledger.commit(database, claim, outcome)
    first = results.errors(database, job.id, limit=3)
    assert first[0] == RowError(
        row=1, column="length", code="not-a-number", message="column 'length' holds 'x'"
    )
    assert [error.row for error in first] == [1, 2, 3]
    assert [error.row for error in results.errors(database, job.id, after_row=3)] == [9, 11]


@pytest.mark.parametrize(
    ("request_", "rows"),
    [
        (GenerateRequest(model="adult", n=11), list(range(11))),
        (AugmentRequest(model="adult", per_row=2), [row for row in range(11) for _ in range(2)]),
        (ReconstructRequest(model="adult"), list(range(11))),
    ],
)
def test_made_rows_come_in_row_order_and_page_by_page(
    database: Database, request_: Any, rows: list[int]
) -> None:
    job = add_job(database, rows=11, request=request_)
    claims = [take(database) for _ in range(3)]
    for claim in claims[::-1]:
        assert ledger.commit(database, claim, outcome_of(claim))

    def values(**options: Any) -> list[Any]:
        batches = results.tables(database, job.id, **options)
        return [value for batch in batches for value in batch["value"].to_pylist()]

    assert values() == [row * 10 for row in rows]
    assert values(after_row=5) == [row * 10 for row in rows if row > 5]
    assert values(after_row=10) == []
    assert values(after_row=2, limit=5) == [row * 10 for row in rows if row > 2][:5]


def test_a_table_of_which_no_row_could_be_made_still_has_its_columns(database: Database) -> None:
    job = add_job(database, rows=2, request=ReconstructRequest(model="adult"))
    claim = take(database)
    assert ledger.commit(database, claim, outcome_of(claim, failed=[0, 1]))
    [batch] = results.tables(database, job.id)
    assert (batch.num_rows, batch.schema.names) == (0, ["row", "value"])
