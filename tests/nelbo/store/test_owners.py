"""An owner is erased: nothing of theirs is left in any table, and nothing of anyone else's is
touched."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from nelbo.audit import COMMAND_LINE, Actor
from nelbo.errors import Conflict, NotFound
from nelbo.ids import new_id
from nelbo.jobs import AugmentRequest, JobRequest, ScoreRequest
from nelbo.store import audit, catalog, expiry, files, keys, ledger, owners
from nelbo.store.session import Database, connect
from nelbo.store.tables import Base, FileRow, JobRow, score_arrays, score_json
from tests.nelbo.store.kit import add_job, assert_sound, outcome_of, take, work, work_off

ANN, BOB = "ann-of-arc", "bob"
SECRETS = (
    ANN,
    "salaries-of-arc.csv",
    "column-of-arc",
    "cell-of-arc",
    "label-of-arc",
    "model-of-arc",
    "reason-of-arc",
)


def dump(db: Database) -> str:
    """All rows of all tables."""
    payload = score_json if db.dialect == "sqlite" else score_arrays
    with db.read() as connection:
        tables = [*Base.metadata.tables.values(), payload]
        return "\n".join(
            f"{table.name} {row}" for table in tables for row in connection.execute(select(table))
        )


def fill(db: Database, owner: str) -> None:
    """A bit of everything, in every state."""
    keys.create(db, owner, COMMAND_LINE, label="label-of-arc" if owner == ANN else "")
    mine = owner == ANN
    manifest: dict[str, Any] = {
        "order": ["length", "column-of-arc" if mine else "colour"],
        "table_schema": {},
    }
    model = "model-of-arc" if mine else "adult"
    versions = [
        catalog.add_version(db, owner, model, manifest, f"{owner}-{number}") for number in range(3)
    ]
    catalog.delete_version(db, owner, model, 3, by=Actor(owner))
    rows = [{"length": "cell-of-arc" if mine else "1"}] * 10
    requests: tuple[JobRequest, ...] = (
        ScoreRequest(model=model),
        ScoreRequest(model=model, explain=True),
        AugmentRequest(model=model),
    )
    for number, request in enumerate(requests):
        add_job(
            db,
            owner=owner,
            version=versions[0],
            request=request,
            inline=rows,
            idempotency_key=f"{number}-{owner}",
        )
        work_off(db)
    add_job(db, owner=owner, version=versions[0], inline=rows)
    ledger.fail(db, take(db), "reason-of-arc" if mine else "no room")
    add_job(db, owner=owner, version=versions[1], inline=rows)
    claim = take(db)
    assert ledger.commit(db, claim, outcome_of(claim, failed=[claim.row_from]))
    ledger.submit_version(db, owner, model)
    for state in ("receiving", "reading", "ready", "rejected"):
        values: dict[str, Any] = {
            "name": "salaries-of-arc.csv" if mine else "a.csv",
            "format": "csv",
            "options": {},
            "notices": [],
        }
        with db.write() as connection:
            file = {
                "id": new_id(),
                "owner": owner,
                "state": state,
                "created_at": 1.0,
                "digest": "d",
                "rows": 1,
                **values,
            }
            connection.execute(
                insert(FileRow).values(
                    columns=["column-of-arc"] if mine else ["a"], reason=None, **file
                )
            )


def erase(db: Database, owner: str = ANN) -> None:
    found = owners.holdings(db, owner)
    owners.revoke_keys(db, owner)
    owners.erase_jobs(db, owner)
    owners.erase_files(db, owner)
    owners.erase_models(db, owner)
    owners.forget(db, owner, COMMAND_LINE, found)


def rows_of(db: Database, owner: str) -> dict[str, list[Any]]:
    """The rows of all tables that are of an owner or of an owner's job."""
    payload = score_json if db.dialect == "sqlite" else score_arrays
    jobs = select(JobRow.id).where(JobRow.owner == owner)
    found = {}
    with db.read() as connection:
        for table in [*Base.metadata.tables.values(), payload]:
            if "owner" in table.c:
                mine = table.c.owner == owner
            elif "job_id" in table.c:
                mine = table.c.job_id.in_(jobs)
            else:
                continue
            found[table.name] = sorted(map(str, connection.execute(select(table).where(mine))))
    return found


def test_nothing_of_an_owner_is_left_and_nothing_of_another_is_touched(database: Database) -> None:
    fill(database, BOB)
    fill(database, ANN)
    before = rows_of(database, BOB)
    assert min(map(len, before.values())) > 0, "there is a row in each table"
    assert all(secret in dump(database) for secret in SECRETS)
    erase(database)
    assert not [secret for secret in SECRETS if secret in dump(database)]
    assert rows_of(database, BOB) == before
    assert not owners.holdings(database, ANN)
    assert_sound(database)


def test_one_line_of_the_audit_is_left_and_it_names_nobody(database: Database) -> None:
    fill(database, ANN)
    erase(database)
    (line,) = audit.list_changes(database, limit=100)
    assert (line.by, line.owner, line.action, line.subject) == (
        "command line",
        "",
        "owner.erase",
        "",
    )
    assert line.detail is not None
    assert line.detail.startswith("6 jobs, 4 files, 1 models, 4 versions, 1 keys, ")


def test_no_byte_of_an_owner_is_left_in_a_sqlite_file(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    fill(database, BOB)
    fill(database, ANN)
    erase(database)
    database.rewrite()
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    left = b"".join(file.read_bytes() for file in path.parent.glob("nelbo.db*"))
    assert b"bob" in left
    assert not [secret for secret in SECRETS if secret.encode() in left]
    database.dispose()


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database, ANN)
    return database


def test_a_worker_that_is_at_a_job_is_refused_what_it_commits(filled: Database) -> None:
    claims = []
    while (claim := ledger.claim(filled, "worker", lease_s=60)) is not None:
        claims.append(claim)
    assert {claim.kind for claim in claims} == {"score", "verify"}
    outcomes = [work(filled, claim) for claim in claims]
    erase(filled)
    for claim, outcome in zip(claims, outcomes, strict=True):
        assert not ledger.renew(filled, claim, 60)
        assert not ledger.commit(filled, claim, outcome)
        assert not ledger.fail(filled, claim, "reason-of-arc")
    assert not owners.holdings(filled, ANN)
    assert ledger.claim(filled, "worker", lease_s=60) is None


def test_an_upload_that_is_under_way_leads_to_nothing_and_its_bytes_are_known_to_be_dead(
    database: Database,
) -> None:
    file = files.add_file(database, ANN, "salaries-of-arc.csv", "csv").id
    erase(database)
    with pytest.raises(Conflict):
        ledger.submit_file(database, ANN, file, 10)
    with pytest.raises(NotFound):
        files.get_file(database, ANN, file)
    assert expiry.dead_files(database, [file]) == {file}


def test_a_push_that_is_under_way_with_an_erased_key_is_refused(database: Database) -> None:
    entry, _ = keys.create(database, ANN, COMMAND_LINE)
    erase(database)
    with pytest.raises(Exception, match="revoked while the request ran"):
        ledger.submit_version(database, ANN, "model-of-arc", by=Actor(ANN, key=entry.id))
    assert not owners.holdings(database, ANN)


def test_a_keys_file_brings_no_erased_key_back_and_the_service_stays_closed(
    database: Database,
) -> None:
    line = keys.KeyLine("0" * 16, ANN, "1" * 64)
    keys.import_lines(database, [line], COMMAND_LINE)
    erase(database)
    assert keys.import_lines(database, [line], COMMAND_LINE) == 0
    assert keys.list_keys(database) == []
    assert keys.any_was_created(database)
    with pytest.raises(NotFound):
        keys.revoke(database, line.id, COMMAND_LINE)


def test_the_same_name_can_begin_anew(filled: Database) -> None:
    erase(filled)
    assert catalog.add_version(filled, ANN, "model-of-arc", {}, "digest").number == 1
    erase(filled)
    with filled.read() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM version WHERE owner <> ''")).scalar() == 0
        )
