"""The roles of a deployment on a real PostgreSQL: each does its work, and nothing else."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import inspect

from nelbo.jobs import GenerateRequest
from nelbo.store import (
    catalog,
    expiry,
    files,
    grants,
    ledger,
    lookup,
    migration,
    queue,
    results,
    workers,
)
from nelbo.store.session import Database, connect
from nelbo.store.sweep import sweep
from tests.conftest import postgresql_database
from tests.nelbo.store.kit import (
    OWNER,
    SCORE,
    add_file,
    add_job,
    assert_sound,
    expire,
    outcome_of,
    take,
    work,
    work_off,
)
from tests.servers import Postgres

DEPLOY = Path(__file__).parents[3] / "deploy"
ROLES = ("nelbo_migrate", "nelbo_api", "nelbo_worker")


def make_roles(server: Postgres, name: str, secrets: Path) -> None:
    """As the deployment does it: the script of make-secrets, run by the superuser."""
    subprocess.run(
        [DEPLOY / "make-secrets"], env=os.environ | {"NELBO_SECRETS": str(secrets)}, check=True
    )
    place = [f"--host={server.folder}", "--username=postgres", f"--dbname={name}"]
    psql = [
        str(server.commands / "psql"),
        "--no-psqlrc",
        "--quiet",
        *place,
        f"--file={secrets / 'roles_sql'}",
    ]
    subprocess.run(psql, check=True, timeout=60)


@pytest.fixture
def name(postgresql: Postgres, tmp_path: Path) -> Iterator[str]:
    """A database with the roles, migrated by the role that owns it."""
    with postgresql_database(postgresql, "template1") as url:
        name = url.partition("?")[0].rpartition("/")[2]
        make_roles(postgresql, name, tmp_path / "secrets")
        migrate(postgresql, name)
        yield name


def migrate(server: Postgres, name: str) -> None:
    owner = connect(server.url(name, "nelbo_migrate"))
    owner.migrate()
    owner.dispose()


@pytest.fixture
def api(postgresql: Postgres, name: str) -> Iterator[Database]:
    opened = connect(postgresql.url(name, "nelbo_api"))
    yield opened
    opened.dispose()


@pytest.fixture
def worker(postgresql: Postgres, name: str) -> Iterator[Database]:
    opened = connect(postgresql.url(name, "nelbo_worker"))
    yield opened
    opened.dispose()


def test_a_job_is_accepted_by_one_role_and_done_by_the_other(
    api: Database, worker: Database
) -> None:
    score = add_job(api)
    made = add_job(api, request=GenerateRequest(model="adult", n=10, seed=1))
    held = take(worker)
    assert ledger.renew(worker, held, 60)
    assert ledger.release(worker, held)
    work_off(worker)
    for job in (score, made):
        assert lookup.get_job(api, OWNER, job.id).state == "succeeded"
    assert sum(batch.num_rows for batch in results.scores(api, score.id)) == 10
    assert sum(batch.num_rows for batch in results.tables(api, made.id)) == 10
    assert results.anomalies(api, score.id, limit=5)
    assert_sound(api)


def test_a_chunk_that_kills_its_worker_is_halved_and_its_row_becomes_an_error(
    api: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    job = add_job(api, rows=3, chunk_rows=3)
    while claim := ledger.claim(worker, "worker", lease_s=60):
        if claim.row_from == 0 and claim.stage == "work":
            expire(worker, claim)
            sweep(worker)
        else:
            assert ledger.commit(worker, claim, work(worker, claim))
    assert [error.row for error in results.errors(api, job.id)] == [0]


def test_files_and_versions_are_read_and_verified(api: Database, worker: Database) -> None:
    entry = files.add_file(api, OWNER, "a.csv", "csv")
    ledger.submit_file(api, OWNER, entry.id, 10)
    ledger.submit_version(api, OWNER, "new", version_id="v1")
    for _ in range(2):
        claim = take(worker)
        assert ledger.commit(worker, claim, outcome_of(claim))
    assert files.get_file(api, OWNER, entry.id).state == "ready"
    assert catalog.resolve(api, OWNER, "new").id == "v1"
    catalog.set_alias(api, OWNER, "new", "best", 1)
    catalog.delete_alias(api, OWNER, "new", "best")
    catalog.delete_model(api, OWNER, "new")


def test_what_ended_is_retried_deleted_and_forgotten(api: Database, worker: Database) -> None:
    cancelled, failed = add_job(api), add_job(api)
    ledger.cancel(api, OWNER, cancelled.id)
    assert ledger.fail(worker, take(worker), "broken")
    ledger.retry(api, OWNER, failed.id)
    work_off(worker)
    ledger.delete(api, OWNER, failed.id)
    expiry.expire_jobs(worker, -1.0)
    while expiry.purge(worker, -1.0):
        pass
    assert expiry.forget_jobs(worker, -1.0) == 2
    files.delete_file(api, OWNER, add_file(api))
    assert expiry.forget_files(worker, -1.0) == 1


def test_a_host_says_that_it_is_alive_and_hints(api: Database, worker: Database) -> None:
    job = add_job(api)
    workers.heartbeat(worker, "w", host="here", pid=1)
    assert [beat.worker for beat in workers.heartbeats(api)] == ["w"]
    assert queue.due_for_hint(worker, 5, again_s=1.0)
    queue.mark_hinted(worker, [job.id])
    assert queue.holders(worker) == set()
    for database in (api, worker):
        database.check()


@pytest.mark.parametrize("role", ROLES)
def test_no_role_is_more_than_a_user_of_its_database(
    postgresql: Postgres, name: str, role: str
) -> None:
    with psycopg.connect(postgresql.url(name, role), autocommit=True) as connection:
        flags = connection.execute(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM"
            " pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        assert flags == (False,)
        for statement in HARM:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


HARM = (
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY alembic_version FROM PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/nelbo-harm'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "CREATE ROLE another SUPERUSER",
    "ALTER ROLE postgres PASSWORD 'x'",
    "SET ROLE postgres",
    "ALTER SYSTEM SET log_statement = 'all'",
    "CREATE DATABASE another",
    "CREATE EXTENSION file_fdw",
    "CREATE FUNCTION harm() RETURNS int LANGUAGE c AS 'libc', 'system'",
)


@pytest.mark.parametrize("role", ["nelbo_api", "nelbo_worker"])
def test_neither_the_api_nor_a_worker_changes_the_schema(
    postgresql: Postgres, name: str, role: str
) -> None:
    statements = (
        "CREATE TABLE another (id int)",
        "CREATE TEMPORARY TABLE another (id int)",
        "CREATE SCHEMA another",
        "ALTER TABLE job ADD COLUMN another int",
        "ALTER TABLE job DISABLE TRIGGER job_state",
        "DROP TABLE job",
        "TRUNCATE job",
        "DROP FUNCTION nelbo_refuse_state",
        "UPDATE alembic_version SET version_num = '9999'",
        "SET ROLE nelbo_migrate",
    )
    with psycopg.connect(postgresql.url(name, role), autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_a_table_that_is_new_is_the_apis_and_no_workers_until_it_is_named(
    postgresql: Postgres, name: str
) -> None:
    with psycopg.connect(postgresql.url(name, "nelbo_migrate"), autocommit=True) as owner:
        owner.execute("CREATE TABLE secret (id int)")
    migrate(postgresql, name)
    with psycopg.connect(postgresql.url(name, "nelbo_api"), autocommit=True) as api:
        api.execute("INSERT INTO secret VALUES (1)")
    with (
        psycopg.connect(postgresql.url(name, "nelbo_worker"), autocommit=True) as worker,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        worker.execute("SELECT id FROM secret")


def test_every_table_that_is_named_is_there(postgresql: Postgres, name: str) -> None:
    """A name that is misspelt would grant nothing, and nobody would see it."""
    database = connect(postgresql.url(name))
    with database.read() as connection:
        tables = set(inspect(connection).get_table_names())
    database.dispose()
    assert set(grants.OF_WORKER) <= tables
    assert set(grants.OF_API) - {"audit"} <= tables


def test_a_deployment_that_had_one_superuser_for_everything_goes_on(
    postgresql: Postgres, tmp_path: Path
) -> None:
    with postgresql_database(postgresql, "template1") as url:
        name = url.partition("?")[0].rpartition("/")[2]
        old = connect(url)
        with old.alter() as connection:
            migration.upgrade(connection, "0001")
        old.migrate()
        job = add_job(old)
        old.dispose()
        for _ in range(2):
            make_roles(postgresql, name, tmp_path / "secrets")
            migrate(postgresql, name)
        worker = connect(postgresql.url(name, "nelbo_worker"))
        work_off(worker)
        assert lookup.get_job(worker, OWNER, job.id).state == "succeeded"
        worker.dispose()


def test_a_database_with_a_single_user_needs_no_roles(postgresql_url: str) -> None:
    database = connect(postgresql_url)
    add_job(database, request=SCORE)
    assert work_off(database)
    database.dispose()
