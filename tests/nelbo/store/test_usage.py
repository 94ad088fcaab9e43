"""What an owner has stored: inline rows and results are counted about as large as they lie in the
database."""

import pytest
from sqlalchemy import text

from nelbo.jobs import ScoreRequest
from nelbo.store import ledger
from nelbo.store.session import Database, connect
from nelbo.store.usage import usage
from tests.nelbo.store.kit import OWNER, add_job, outcome_of, take, work_off

ROWS = 20_000


@pytest.mark.parametrize(
    "failed", [0, ROWS // 2, ROWS], ids=["all rows scored", "half of them", "none"]
)
@pytest.mark.parametrize("explain", [False, True])
def test_results_count_about_as_much_as_the_file_of_the_database_grows_by(
    sqlite_url: str, explain: bool, failed: int
) -> None:
    db = connect(sqlite_url)
    add_job(db, ROWS, 10_000, ScoreRequest(model="adult", explain=explain))
    before = used_bytes(db)
    for _ in range(2):
        claim = take(db)
        rows = [row for row in range(claim.row_from, claim.row_to) if row < failed]
        assert ledger.commit(db, claim, outcome_of(claim, rows))
    work_off(db)
    grown = used_bytes(db) - before
    assert usage(db, OWNER).stored_bytes == pytest.approx(grown, rel=0.3)
    db.dispose()


def test_rows_that_a_job_carries_count_as_soon_as_it_is_accepted(database: Database) -> None:
    add_job(database, 2, inline=[{"name": "x" * 1_000}, {"name": "y" * 1_000}])
    assert 2_000 < usage(database, OWNER).stored_bytes < 2_100
    add_job(database, 10, owner="another")
    assert 2_000 < usage(database, OWNER).stored_bytes < 2_100


def used_bytes(db: Database) -> int:
    with db.read() as connection:
        pages = (
            "SELECT page_count - freelist_count FROM pragma_page_count(), pragma_freelist_count()"
        )
        return int(connection.scalar(text(pages)) or 0) * int(
            connection.scalar(text("PRAGMA page_size")) or 0
        )
