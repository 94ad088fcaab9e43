"""Tidying: what nobody owns is removed from database, storage and cache; what anyone may still use
stays."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from nelbo import copies
from nelbo.broker import make_app
from nelbo.errors import Gone
from nelbo.ids import new_id
from nelbo.jobs import GenerateRequest
from nelbo.storage import artifact_key, file_prefix, push_key, upload_key
from nelbo.store import catalog, files, lookup
from nelbo.store.catalog import VersionEntry
from nelbo.store.session import connect, now
from nelbo.store.tables import FileRow, JobRow, VersionRow
from tests.deadline import until
from tests.worker.stage import OWNER, Stage, table
from worker import tidying
from worker.dispatcher import Dispatcher

DAY = 86_400.0
OLD_ID = "0180c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"
"""Of the year 2022."""


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage


def test_results_are_kept_for_ever_unless_a_setting_says_how_long(stage: Stage) -> None:
    job = stage.submit(GenerateRequest(model="linear", n=10), stage.version(), 10)
    stage.work()
    with stage.database.write() as connection:
        connection.execute(update(JobRow).values(finished_at=now() - 100 * DAY))
    assert tidying.tidy(stage.database, stage.settings) == {}
    assert stage.made(job.id).num_rows == 10
    short = stage.with_options(keep_results_days=99.0).settings
    assert tidying.tidy(stage.database, short) == {"jobs_expired": 1}
    with pytest.raises(Gone):
        stage.job(job.id)
    with stage.database.write() as connection:
        connection.execute(update(JobRow).values(deleted_at=now() - 2 * tidying.READERS_S))
    assert tidying.tidy(stage.database, short) == {"chunks_purged": 2}
    with stage.database.write() as connection:
        connection.execute(update(JobRow).values(deleted_at=now() - 31 * DAY))
    assert tidying.tidy(stage.database, stage.with_options(keep_deleted_days=0.0).settings) == {}
    assert tidying.tidy(stage.database, short) == {"jobs_forgotten": 1}
    assert lookup.list_jobs(stage.database, OWNER).jobs == []


def test_an_upload_whose_receiver_died_is_rejected_and_its_bytes_go(stage: Stage) -> None:
    entry = files.add_file(stage.database, OWNER, "a.csv", "csv", file_id=OLD_ID)
    stage.storage.put(upload_key(entry.id), b"a\n1\n")
    torn = stage.settings.home / "storage" / file_prefix(entry.id) / "upload#1"
    torn.write_bytes(b"what a killed process was writing")
    assert tidying.tidy_storage(stage.database, stage.settings) == {}
    with stage.database.write() as connection:
        connection.execute(update(FileRow).values(created_at=now() - 2 * DAY))
    assert tidying.tidy(stage.database, stage.settings) == {"files_rejected": 1}
    assert tidying.tidy_storage(stage.database, stage.settings) == {"uploads_removed": 1}
    assert not torn.parent.exists()
    assert tidying.tidy_storage(stage.database, stage.settings) == {}


def test_a_push_that_came_to_nothing_goes_when_it_is_old(stage: Stage) -> None:
    young = push_key(new_id())
    for key in (young, push_key(OLD_ID), "pushes/notes.txt"):
        stage.storage.put(key, b"x")
    assert tidying.tidy_storage(stage.database, stage.settings) == {"pushes_removed": 1}
    assert stage.storage.keys("pushes/") == sorted([young, "pushes/notes.txt"])


def test_what_the_database_does_not_know_is_none_of_its_business(stage: Stage) -> None:
    """A storage may be older than its database, or not be its alone."""
    kept = [upload_key(OLD_ID), artifact_key(OLD_ID), "files/notes/README", "artifacts/other.zip"]
    for key in kept:
        stage.storage.put(key, b"x")
    assert tidying.tidy_storage(stage.database, stage.settings, old_s=-60.0) == {}
    assert sorted(stage.storage.keys("files/") + stage.storage.keys("artifacts/")) == sorted(kept)


def test_a_ready_file_and_a_registered_version_keep_their_bytes_however_old(stage: Stage) -> None:
    file, version = stage.file(table(10)), stage.version()
    before = stage.storage.keys("files/") + stage.storage.keys("artifacts/")
    assert tidying.tidy_storage(stage.database, stage.settings, old_s=-60.0) == {}
    assert stage.storage.keys("files/") + stage.storage.keys("artifacts/") == before
    files.delete_file(stage.database, OWNER, file.id)
    assert tidying.tidy_storage(stage.database, stage.settings) == {"uploads_removed": 1}
    assert stage.storage.keys("artifacts/") == [artifact_key(version.id)]
    catalog.delete_model(stage.database, OWNER, "linear")
    assert tidying.tidy_storage(stage.database, stage.settings) == {"artifacts_removed": 1}
    assert stage.storage.keys("artifacts/") == []


def test_a_deleted_file_is_forgotten_when_its_bytes_are_gone(stage: Stage) -> None:
    file_id = files.add_file(stage.database, OWNER, "a.csv", "csv").id
    stage.storage.put(upload_key(file_id), b"a\n1\n")
    files.delete_file(stage.database, OWNER, file_id)
    with stage.database.write() as connection:
        connection.execute(update(FileRow).values(deleted_at=now() - 31 * DAY))
    assert tidying.tidy_storage(stage.database, stage.settings) == {
        "uploads_removed": 1,
        "files_forgotten": 1,
    }
    assert stage.storage.keys("files/") == []


def copies_of(stage: Stage) -> list[str]:
    return sorted(path.name for path in copies.artifacts(stage.settings.home).iterdir())


def scored(stage: Stage, name: str = "linear") -> VersionEntry:
    """A version that this host has a copy of, as it did a job with it."""
    version = stage.version(name)
    stage.submit(GenerateRequest(model=name, n=10), version, 10)
    stage.work()
    return version


def test_the_copy_of_a_deleted_version_goes(stage: Stage) -> None:
    kept, gone = scored(stage, "kept"), scored(stage, "gone")
    assert copies_of(stage) == sorted([kept.digest, gone.digest])
    assert tidying.tidy(stage.database, stage.settings) == {}
    catalog.delete_model(stage.database, OWNER, "gone")
    assert tidying.tidy(stage.database, stage.settings) == {"copies_removed": 1}
    assert copies_of(stage) == [kept.digest]


def test_a_copy_stays_while_anyone_has_a_version_of_its_digest(stage: Stage) -> None:
    version = scored(stage)
    catalog.add_version(
        stage.database,
        "someone",
        "theirs",
        catalog.get_manifest(stage.database, version),
        version.digest,
    )
    catalog.delete_model(stage.database, OWNER, "linear")
    assert tidying.tidy(stage.database, stage.settings) == {}
    catalog.delete_model(stage.database, "someone", "theirs")
    assert tidying.tidy(stage.database, stage.settings) == {"copies_removed": 1}


def test_what_a_killed_process_left_of_a_copy_goes_when_it_is_old(stage: Stage) -> None:
    scored(stage)
    torn = copies.artifacts(stage.settings.home) / ".torn"
    torn.mkdir()
    (torn / "packed.zip").write_bytes(b"half of it")
    assert tidying.tidy(stage.database, stage.settings) == {}
    os.utime(torn, (1, 1))
    assert tidying.tidy(stage.database, stage.settings) == {"copies_removed": 1}
    assert not torn.exists()


def test_the_manifest_of_a_version_that_an_older_nelbo_deleted_goes(stage: Stage) -> None:
    version = stage.version()
    with stage.database.write() as connection:
        connection.execute(update(VersionRow).values(deleted_at=now()))
    assert tidying.tidy(stage.database, stage.settings) == {"manifests_emptied": 1}
    assert catalog.get_manifest(stage.database, version) == {}
    assert tidying.tidy(stage.database, stage.settings) == {}


def test_the_dispatcher_tidies_now_and_then_and_in_nobodys_way(stage: Stage) -> None:
    stage.storage.put(push_key(OLD_ID), b"x")
    dispatcher = Dispatcher(stage.settings, stage.database, make_app(stage.settings), "here:1")
    dispatcher.round()
    until(lambda: not stage.storage.keys("pushes/"), "the push to be removed")
    assert dispatcher.tidier is not None
    first = dispatcher.tidier
    dispatcher.round()
    dispatcher.stop()
    assert dispatcher.tidier is first, "not in each round"


def test_a_database_that_does_not_answer_is_tidied_later(stage: Stage) -> None:
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    Dispatcher(stage.settings, away, make_app(stage.settings), "here:1").tidy()
