"""The audit: each change of a model, an alias or a key and each deletion leaves its line, or
neither is there."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import event, select

from nelbo.audit import COMMAND_LINE, ITSELF, Actor
from nelbo.errors import Conflict, Unavailable
from nelbo.store import audit, catalog, files, keys, ledger
from nelbo.store.session import Database, connect
from nelbo.store.tables import AuditRow, ModelRow
from tests.nelbo.store.kit import OWNER, add_file, add_job, add_version, take, work_off

ANN = Actor("ann", key=None, address="10.0.0.1", request_id="r")


def lines(database: Database) -> list[tuple[str, str, str | None]]:
    """Action, subject and detail of each change, the oldest first."""
    return [
        (change.action, change.subject, change.detail)
        for change in reversed(audit.list_changes(database, limit=1_000))
    ]


def after(database: Database, change: Callable[[], object]) -> list[tuple[str, str, str | None]]:
    before = len(lines(database))
    change()
    return lines(database)[before:]


def test_a_line_says_who_when_and_from_where(database: Database) -> None:
    add_version(database)
    catalog.set_alias(database, OWNER, "adult", "stable", 1, by=ANN)
    change = audit.list_changes(database)[0]
    assert (change.by, change.key, change.address, change.request_id) == (
        "ann",
        None,
        "10.0.0.1",
        "r",
    )
    assert (change.owner, change.action, change.subject, change.detail) == (
        OWNER,
        "alias.set",
        "adult@stable",
        "adult@1",
    )
    with database.read() as connection:
        now = connection.scalars(select(database.now)).one()
    assert 0 <= now - change.at < 60


def test_each_change_of_a_model_leaves_its_lines(database: Database) -> None:
    assert after(database, lambda: add_version(database)) == [
        ("version.push", "adult@1", "ready"),
        ("alias.set", "adult@champion", "adult@1"),
    ]
    pushed = after(database, lambda: ledger.submit_version(database, OWNER, "adult"))
    assert pushed == [("version.push", "adult@2", "pending")]
    assert after(database, lambda: work_off(database)) == [
        ("version.ready", "adult@2", None),
        ("alias.set", "adult@champion", "adult@2"),
    ]
    ledger.submit_version(database, OWNER, "adult")
    assert after(database, lambda: ledger.fail(database, take(database), "a secret cell")) == [
        ("version.reject", "adult@3", None)
    ]
    assert after(database, lambda: catalog.set_alias(database, OWNER, "adult", "good", 2)) == [
        ("alias.set", "adult@good", "adult@2")
    ]
    assert after(database, lambda: catalog.delete_version(database, OWNER, "adult", 2)) == [
        ("alias.delete", "adult@champion", None),
        ("alias.delete", "adult@good", None),
        ("version.delete", "adult@2", None),
        ("alias.set", "adult@champion", "adult@1"),
    ]
    catalog.set_alias(database, OWNER, "adult", "good", 1)
    assert after(database, lambda: catalog.delete_alias(database, OWNER, "adult", "good")) == [
        ("alias.delete", "adult@good", None)
    ]
    assert after(database, lambda: catalog.delete_model(database, OWNER, "adult")) == [
        ("alias.delete", "adult@champion", None),
        ("version.delete", "adult@1", None),
        ("version.delete", "adult@3", None),
        ("model.delete", "adult", None),
    ]


def test_an_alias_that_stays_where_it_is_is_no_change(database: Database) -> None:
    add_version(database)
    catalog.set_alias(database, OWNER, "adult", "good", 1)
    assert after(database, lambda: catalog.set_alias(database, OWNER, "adult", "good", 1)) == []


def test_each_deletion_leaves_its_line(database: Database) -> None:
    job, file = add_job(database), add_file(database)
    work_off(database)
    assert after(database, lambda: files.delete_file(database, OWNER, file)) == [
        ("file.delete", file, None)
    ]
    assert after(database, lambda: ledger.delete(database, OWNER, job.id)) == [
        ("job.delete", job.id, None)
    ]


def test_each_change_of_a_key_leaves_its_line(database: Database) -> None:
    entry, _ = keys.create(database, "ann", COMMAND_LINE, scope="read")
    _, successor, _ = keys.rotate(database, entry.id, COMMAND_LINE, grace_s=1)
    keys.revoke(database, entry.id, COMMAND_LINE)
    keys.import_lines(database, [keys.KeyLine("0" * 16, "bob", "0" * 64)], ITSELF)
    assert lines(database) == [
        ("key.create", entry.id, "read"),
        ("key.rotate", entry.id, successor.id),
        ("key.revoke", entry.id, None),
        ("key.import", "0" * 16, "train"),
    ]


def test_what_is_refused_leaves_no_line(database: Database) -> None:
    job = add_job(database)

    def refused() -> None:
        for change in (
            lambda: ledger.delete(database, OWNER, job.id),
            lambda: catalog.delete_model(database, OWNER, "adult"),
        ):
            with pytest.raises(Conflict):
                change()

    assert after(database, refused) == []


def test_a_change_whose_line_cannot_be_written_is_not_made(database_url: str) -> None:
    """And so a line without its change: both are one transaction."""
    database = connect(database_url)
    add_version(database)

    @event.listens_for(database._engine, "before_cursor_execute")
    def fail(_connection: object, _cursor: object, statement: str, *_: Sequence[object]) -> None:
        if statement.startswith("INSERT INTO audit"):
            raise Unavailable("the disk is full")

    with pytest.raises(Unavailable):
        catalog.delete_model(database, OWNER, "adult")
    with database.read() as connection:
        assert connection.scalars(select(ModelRow.deleted_at)).all() == [None]
        assert "model.delete" not in connection.scalars(select(AuditRow.action)).all()
    database.dispose()


def test_changes_are_listed_by_owner_and_page_by_page(database: Database) -> None:
    for owner in ("ann", "bob", "ann"):
        add_version(database, owner=owner)
    everything = audit.list_changes(database)
    assert [change.owner for change in everything] == ["ann", "ann", "bob", "bob", "ann", "ann"]
    assert [change.owner for change in audit.list_changes(database, owner="bob")] == ["bob", "bob"]
    first = audit.list_changes(database, limit=4)
    assert first + audit.list_changes(database, before=first[-1].id) == everything
