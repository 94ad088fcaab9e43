"""The migration: from nothing, again, from several processes at once, and equal to the typed
models."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Table, inspect, text
from sqlalchemy.exc import IntegrityError

from nelbo.errors import Unavailable
from nelbo.jobs import CHUNK_TRANSITIONS, INTERNAL_KINDS, JOB_TRANSITIONS, KINDS
from nelbo.store import lookup, migration, results
from nelbo.store.migrations.versions import v0001
from nelbo.store.session import Database, connect
from nelbo.store.sweep import sweep
from nelbo.store.tables import Base, score_arrays, score_json
from tests.deadline import until
from tests.nelbo.store.kit import OWNER, add_job, assert_sound, score_outcome, stored_rows, work_off


@pytest.fixture
def postgresql_database(postgresql_url: str) -> Iterator[Database]:
    opened = connect(postgresql_url)
    yield opened
    opened.dispose()


MIGRATE = "import sys; from nelbo.store.session import connect; connect(sys.argv[1]).migrate()"


def test_an_empty_database_is_migrated_by_many_processes_at_once(empty_database_url: str) -> None:
    migrate = [sys.executable, "-P", "-c", MIGRATE, empty_database_url]
    processes = [subprocess.Popen(migrate, stderr=subprocess.PIPE) for _ in range(3)]
    told = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, told
    database = connect(empty_database_url)
    database.check()
    database.dispose()


def test_a_filled_database_keeps_what_it_holds(database: Database) -> None:
    job = add_job(database)
    work_off(database)
    before = lookup.get_job(database, OWNER, job.id)
    database.migrate()
    assert lookup.get_job(database, OWNER, job.id) == before
    assert stored_rows(database, job.id) == list(range(10))
    assert_sound(database)


# A job of which one chunk is done and one is running, as the first schema held it.
OLD = """
INSERT INTO model (owner, name, created_at) VALUES ('local', 'adult', 1);
INSERT INTO version (id, owner, model, number, state, digest, manifest, created_at)
    VALUES ('v', 'local', 'adult', 1, 'ready', 'd', '{"order": ["length", "colour"]}', 1);
INSERT INTO job (id, owner, kind, state, version_id, params, rows, rows_done, chunks, chunks_done,
    created_at, started_at)
    VALUES ('j', 'local', 'score', 'running', 'v', '{"alpha": 0.01, "explain": false}', 4, 2, 2,
        1, 1, 2);
INSERT INTO chunk (job_id, stage, row_from, row_to, state, attempt, fence)
    VALUES ('j', 'work', 0, 2, 'done', 1, 1);
INSERT INTO chunk (job_id, stage, row_from, row_to, state, attempt, fence, lease_until, worker)
    VALUES ('j', 'work', 2, 4, 'running', 1, 1, 3, 'dead')
"""


def test_a_job_that_was_accepted_under_the_first_schema_goes_on_under_this_one(
    empty_database_url: str,
) -> None:
    database = connect(empty_database_url)
    if database.dialect == "sqlite":
        database._make_sqlite_file()
    with database.alter() as connection:
        migration.upgrade(connection, "0001")
        for statement in OLD.split(";\n"):
            connection.exec_driver_sql(statement)
    with pytest.raises(Unavailable, match="has schema 0001"):
        database.check()
    database.migrate()
    database.check()
    assert sweep(database).requeued == 1
    until(lambda: work_off(database), "the chunk to come back")
    assert lookup.get_job(database, OWNER, "j").state == "succeeded"
    database.dispose()


# An explained job of four rows, of which a program of schema 0007 has scored the first two.
OLD_SCORES = """
INSERT INTO model (owner, name, created_at) VALUES ('local', 'adult', 1);
INSERT INTO version (id, owner, model, number, state, digest, manifest, created_at)
    VALUES ('v', 'local', 'adult', 1, 'ready', 'd', '{"order": ["length", "colour"]}', 1);
INSERT INTO job (id, owner, kind, state, version_id, params, rows, rows_done, chunks, chunks_done,
    created_at, started_at)
    VALUES ('j', 'local', 'score', 'running', 'v', '{"alpha": 0.01, "explain": true}', 4, 2, 2,
        1, 1, 2);
INSERT INTO chunk (id, job_id, stage, row_from, row_to, state, attempt, fence)
    VALUES (101, 'j', 'work', 0, 2, 'done', 1, 1);
INSERT INTO chunk (id, job_id, stage, row_from, row_to, state, attempt, fence)
    VALUES (102, 'j', 'work', 2, 4, 'queued', 0, 0);
INSERT INTO anomaly (job_id, row, nelbo, p_value, kl, terms)
    VALUES ('j', 0, 9.5, 0.25, 0.5, '{"length": 2.0, "colour": 7.0}');
INSERT INTO anomaly (job_id, row, nelbo, p_value, kl, terms)
    VALUES ('j', 1, -8.0, 0.5, 1.0, '{"length": -4.0, "colour": -5.0}');
"""
OLD_CHUNK = {
    "sqlite": """
INSERT INTO score_chunk (chunk_id, job_id, row_from, fence, data)
    VALUES (101, 'j', 0, 1, '[[0,9.5,0.25,0.5,2.0,7.0],[1,-8.0,0.5,1.0,-4.0,-5.0]]')
""",
    "postgresql": """
INSERT INTO score_chunk (chunk_id, job_id, row_from, fence, rows, nelbo, p_value, kl, terms)
    VALUES (101, 'j', 0, 1, '{0,1}', '{9.5,-8}', '{0.25,0.5}', '{0.5,1}', '{2,7,-4,-5}')
""",
}


@pytest.mark.parametrize("stored", ["before the migration", "after it"])
def test_scores_of_an_older_program_have_their_nelbo_for_surprise(
    empty_database_url: str, stored: str
) -> None:
    database = connect(empty_database_url)
    if database.dialect == "sqlite":
        database._make_sqlite_file()
    with database.alter() as connection:
        migration.upgrade(connection, "0007" if stored == "before the migration" else "")
        for statement in (OLD_SCORES + OLD_CHUNK[database.dialect]).split(";\n"):
            connection.exec_driver_sql(statement)
    database.migrate()

    [batch] = results.scores(database, "j", explain=True)
    assert batch["surprise"].equals(batch["nelbo"])
    assert batch["surprise_length"].equals(batch["term_length"])
    assert batch["surprise_colour"].to_pylist() == [7.0, -5.0]
    assert [row.surprise for row in results.anomalies(database, "j")] == [9.5, -8.0]

    assert work_off(database) == 2, "the other chunk, then the end"
    new = score_outcome(np.array([2, 3]))
    surprise = [9.5, -8.0, *new.surprise.tolist()]
    with database.read() as connection:
        view = text("SELECT surprise FROM score WHERE job_id = 'j' ORDER BY row")
        assert list(connection.execute(view).scalars()) == surprise
    ranked = results.anomalies(database, "j")
    assert [row.surprise for row in ranked] == sorted(surprise, reverse=True)
    assert all(row.surprises == row.terms for row in ranked if row.row < 2)
    assert_sound(database)
    database.dispose()


@pytest.mark.parametrize("before", ["0008", "0010", ""])
def test_jobs_of_each_kind_and_of_no_other_can_be_stored(
    empty_database_url: str, before: str
) -> None:
    """Also in a database that was migrated with rows in it, as SQLite cannot alter a constraint."""
    database = connect(empty_database_url)
    if database.dialect == "sqlite":
        database._make_sqlite_file()
    with database.alter() as connection:
        migration.upgrade(connection, before)
        for statement in OLD.split(";\n"):
            connection.exec_driver_sql(statement)
    database.migrate()
    kinds = [*KINDS, *INTERNAL_KINDS]
    with database.write() as connection:
        for kind in kinds:
            connection.execute(text(JOB), {"id": kind, "kind": kind})
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(text(JOB), {"id": "other", "kind": "other"})
    with database.read() as connection:
        stored = connection.execute(text("SELECT kind FROM job WHERE id <> 'j'")).scalars()
        assert sorted(stored) == sorted(kinds)
        if database.dialect == "sqlite":
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    assert sweep(database).requeued == 1
    database.dispose()


JOB = """
INSERT INTO job (id, owner, kind, state, params, rows, chunks, created_at)
    VALUES (:id, 'local', :kind, 'queued', '{}', 1, 1, 1)
"""


def tables_of(database: Database) -> list[Table]:
    payload = score_json if database.dialect == "sqlite" else score_arrays
    return [*Base.metadata.tables.values(), payload]


def test_the_tables_and_columns_are_those_of_the_models(database: Database) -> None:
    wanted = {
        table.name: {(column.name, column.nullable) for column in table.columns}
        for table in tables_of(database)
    }
    with database.read() as connection:
        inspector = inspect(connection)
        found = {
            name: {
                # SQLite says of INTEGER PRIMARY KEY that it may be null; it then takes the next
                # number.
                (column["name"], column["nullable"] and not column.get("primary_key"))
                for column in inspector.get_columns(name)
            }
            for name in inspector.get_table_names()
        }
    del found["alembic_version"]
    assert found == wanted


def test_the_indexes_are_those_of_the_models(database: Database) -> None:
    wanted = {index.name for table in tables_of(database) for index in table.indexes}
    # SQLAlchemy does not describe an index with an expression on SQLite.
    catalog = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = 'public'",
    }
    with database.read() as connection:
        found = set(connection.execute(text(catalog[database.dialect])).scalars())
    assert {name for name in found if name.endswith("_idx")} == wanted


def test_the_types_are_those_of_the_models(postgresql_database: Database) -> None:
    with postgresql_database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        changes = compare_metadata(context, Base.metadata) + compare_metadata(
            context, score_arrays.metadata
        )
    assert [change for change in changes if isinstance(change, list)] == [], (
        "modified columns come as lists"
    )


def test_the_constraints_are_those_of_the_models(database: Database) -> None:
    wanted = {
        constraint.name
        for table in tables_of(database)
        for constraint in table.constraints
        if constraint.name and str(constraint.name).endswith("_check")
    }
    with database.read() as connection:
        inspector = inspect(connection)
        found = {
            check["name"]
            for table in inspector.get_table_names()
            for check in inspector.get_check_constraints(table)
        }
    assert found == wanted


@pytest.mark.parametrize(
    ("table", "transitions"), [("job", JOB_TRANSITIONS), ("chunk", CHUNK_TRANSITIONS)]
)
def test_the_triggers_know_the_transitions_of_today(
    table: str, transitions: dict[str, frozenset[str]]
) -> None:
    allowed = {source: frozenset(targets) for source, targets in v0001.ALLOWED[table].items()}
    assert allowed == {source: targets for source, targets in transitions.items() if targets}
