"""Whose turn it is: laws of the order in which chunks are claimed, and what looking for the next
one costs."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text

from nelbo.store import files, ledger, queue
from nelbo.store.claims import Claim
from nelbo.store.session import Database
from nelbo.store.sweep import sweep
from nelbo.store.tables import JobRow
from tests.nelbo.store.kit import OWNER, add_job, add_version, take, work

Pick = Callable[[list[Claim]], int]
ENDS: dict[str, Pick] = {
    "the oldest chunk ends first": lambda held: 0,
    "the newest chunk ends first": lambda held: len(held) - 1,
}


def order_of_claims(db: Database, held: list[Claim], claims: int, ends: Pick) -> Iterator[str]:
    """The jobs of the next claims, while workers end their chunks in this order; one that ends
    takes the next."""
    for _ in range(claims):
        done = held.pop(ends(held))
        assert ledger.commit(db, done, work(db, done))
        held.append(take(db))
        yield held[-1].job_id


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("owner", [OWNER, "other"])
@pytest.mark.parametrize("workers", [1, 4])
def test_the_small_jobs_last_chunk_is_among_the_next_two_claims_a_worker(
    database: Database, workers: int, owner: str, ends: Pick
) -> None:
    add_job(database, rows=100, chunk_rows=1)
    held = [take(database) for _ in range(workers)]
    small = add_job(database, rows=workers, chunk_rows=1, owner=owner)
    order = list(order_of_claims(database, held, 2 * workers, ends))
    assert order.count(small.id) == workers


@pytest.mark.parametrize("workers", [1, 3])
def test_an_owner_with_many_jobs_does_not_starve_one_with_one(
    database: Database, workers: int
) -> None:
    version = add_version(database)
    for _ in range(20):
        add_job(database, rows=1, version=version)
    held = [take(database) for _ in range(workers)]
    other = add_job(database, rows=5, chunk_rows=1, owner="other")
    order = list(order_of_claims(database, held, 11, ENDS["the oldest chunk ends first"]))
    assert order.count(other.id) >= 5


def test_an_owner_is_served_as_often_as_any_other_however_they_cut_their_work(
    database: Database,
) -> None:
    version = add_version(database)
    add_job(database, rows=100, chunk_rows=1, owner="one huge")
    for _ in range(40):
        add_job(database, rows=1, version=version)
    for _ in range(2):
        add_job(database, rows=50, chunk_rows=1, owner="two")
    owners = Counter[str]()
    for _ in range(30):
        claim = take(database)
        assert ledger.commit(database, claim, work(database, claim))
        owners[claim.owner] += 1
    assert owners == {"one huge": 10, OWNER: 10, "two": 10}


def test_jobs_of_one_owner_are_served_in_turn_the_oldest_first(database: Database) -> None:
    jobs = [add_job(database, rows=2, chunk_rows=1).id for _ in range(3)]
    assert [take(database).job_id for _ in range(6)] == jobs * 2


def test_a_stream_of_small_jobs_does_not_starve_a_huge_one(database: Database) -> None:
    """Two small ones come with each claim, so that ever more of them wait."""
    huge, version = add_job(database, rows=100, chunk_rows=1), add_version(database)
    waits, waited = [], 0
    for _ in range(20):
        for _ in range(2):
            add_job(database, rows=1, version=version)
        claim = take(database)
        assert ledger.commit(database, claim, work(database, claim))
        waited += 1
        if claim.job_id == huge.id:
            waits.append(waited)
            waited = 0
    assert len(waits) >= 3, "as often as any other job, however many there are"


def test_a_job_whose_chunks_must_wait_leaves_its_turn_to_others(database: Database) -> None:
    waiting, other = add_job(database, rows=1), add_job(database, rows=1)
    assert ledger.release(database, take(database), delay_s=600, problem="storage does not answer")
    assert take(database).job_id == other.id
    assert ledger.claim(database, "worker", lease_s=60) is None
    assert waiting.id != other.id


def steps_of_claim(db: Database) -> int:
    """Work of one claim, whatever the machine: instructions of SQLite's virtual machine, or pages
    that PostgreSQL reads."""
    return _pages(db) if db.dialect == "postgresql" else _instructions(db)


def _instructions(db: Database) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    def watch(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        driver.set_progress_handler(tick, 1)  # type: ignore[union-attr]

    event.listen(db._engine, "begin", watch)
    try:
        take(db)
    finally:
        event.remove(db._engine, "begin", watch)
        with db.read() as connection:
            driver = connection.connection.driver_connection
            driver.set_progress_handler(None, 0)  # type: ignore[union-attr]
    return count


def _pages(db: Database) -> int:
    with db.write() as connection:
        jobs = queue.in_claim_order(select(JobRow.id, JobRow.state)).limit(ledger.CANDIDATES)
        job_id = connection.execute(jobs).first()
        assert job_id is not None
        return sum(
            _explained(connection, statement)
            for statement in (jobs, ledger._claim_chunk(job_id[0], "worker", 60.0))
        )


def _explained(connection: Connection, statement: Any) -> int:
    sql = str(statement.compile(connection.engine, compile_kwargs={"literal_binds": True}))
    found = connection.execute(
        text("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + sql.replace(":", r"\:"))
    ).scalar_one()
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_the_next_chunk_is_found_as_cheaply_among_ten_thousand_as_among_a_hundred(
    database: Database,
) -> None:
    add_job(database, rows=100, chunk_rows=1)
    take(database)
    few = steps_of_claim(database)
    add_job(database, rows=10_000, chunk_rows=1)
    _analyze(database)
    take(database)
    many = steps_of_claim(database)
    assert many < 3 * few, (few, many)


def test_each_job_that_waits_adds_little_to_a_claim(database: Database) -> None:
    version, costs = add_version(database), []
    for _ in range(2):
        for _ in range(100):
            add_job(database, rows=10, chunk_rows=1, version=version)
        _analyze(database)
        take(database)
        costs.append(steps_of_claim(database))
    assert costs[1] < 3 * costs[0], costs


def _analyze(db: Database) -> None:
    with db.write() as connection:
        connection.execute(text("ANALYZE"))


def began_before(db: Database, claim: Claim, seconds: float) -> Claim:
    """The claim as if it had been made so much earlier."""
    with db.write() as connection:
        moved = {"id": claim.chunk_id, "seconds": seconds}
        connection.execute(
            text("UPDATE chunk SET claimed_at = claimed_at - :seconds WHERE id = :id"), moved
        )
    return replace(claim, claimed_at=claim.claimed_at - seconds)


def test_an_owner_whose_chunk_took_long_lets_others_go_first_for_as_long(
    database: Database,
) -> None:
    slow, quick = (
        add_job(database, rows=50, chunk_rows=1, owner=owner) for owner in ("slow", "quick")
    )
    claim = began_before(database, take(database), 600.0)
    assert claim.job_id == slow.id
    assert ledger.commit(database, claim, work(database, claim))
    for _ in range(10):
        claim = take(database)
        assert claim.job_id == quick.id, "ten short chunks are not ten minutes"
        assert ledger.commit(database, claim, work(database, claim))


def test_an_owner_whose_chunk_took_long_is_served_at_once_where_nobody_else_waits(
    database: Database,
) -> None:
    add_job(database, rows=3, chunk_rows=1)
    claim = began_before(database, take(database), 600.0)
    assert ledger.commit(database, claim, work(database, claim))
    take(database)


@pytest.mark.parametrize("end", ["still at work", "put off", "failed", "taken back"])
def test_a_long_chunk_counts_however_it_ends(database: Database, end: str) -> None:
    for _ in range(3):
        add_job(database, rows=2, chunk_rows=1, owner="slow")
    claim = began_before(database, take(database), 600.0)
    quick = add_job(database, rows=5, chunk_rows=1, owner="quick")
    match end:
        case "put off":
            assert ledger.release(database, claim, problem="the model took too long")
        case "failed":
            assert ledger.fail(database, claim, "the model took too long")
        case "taken back":
            assert sweep(database, dead={"worker"}).requeued == 1
    assert [take(database).job_id for _ in range(5)] == [quick.id] * 5


def test_an_owner_reads_one_file_at_a_time(database: Database) -> None:
    """Else two files that take hours to read hold all processes of a worker."""
    mine = [reading_job(database, OWNER) for _ in range(3)]
    scored = add_job(database, rows=1)
    theirs = [reading_job(database, "other") for _ in range(2)]
    held = [take(database) for _ in range(3)]
    assert sorted(claim.job_id for claim in held) == sorted([mine[0], scored.id, theirs[0]])
    assert ledger.claim(database, "worker", lease_s=60) is None
    (done,) = (claim for claim in held if claim.job_id == mine[0])
    assert ledger.fail(database, done, "not a table")
    assert take(database).job_id == mine[1]


def reading_job(db: Database, owner: str) -> str:
    """The id of the job that reads a new file."""
    file = files.add_file(db, owner, "a.csv", "csv")
    ledger.submit_file(db, owner, file.id, bytes=10)
    with db.read() as connection:
        return str(connection.scalars(select(JobRow.id).where(JobRow.file_id == file.id)).one())
