"""API keys in SQL: made, rotated, revoked, imported; the key itself is stored nowhere."""

import pytest
from sqlalchemy import CheckConstraint, select

from nelbo.audit import COMMAND_LINE, Actor
from nelbo.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from nelbo.store import audit, catalog, keys
from nelbo.store.keys import SCOPES, KeyLine
from nelbo.store.session import Database
from nelbo.store.tables import AuditRow, Base, KeyRow, one_of
from tests.nelbo.store.kit import at_once

DAY = 86_400.0


def made(database: Database, owner: str = "ada", **more: object) -> tuple[keys.KeyEntry, str]:
    return keys.create(database, owner, COMMAND_LINE, **more)  # type: ignore[arg-type]


def test_a_key_has_256_random_bits_and_is_stored_nowhere(database: Database) -> None:
    entry, key = made(database, label="for the dashboard")
    assert keys.KEY.fullmatch(key)
    assert len(key.rpartition("_")[2]) >= 43 or len(key.split("_", 2)[2]) == 43
    secret = key.split("_", 2)[2]
    with database.read() as connection:
        stored = [
            *connection.execute(select(KeyRow.__table__)),
            *connection.execute(select(AuditRow.__table__)),
        ]
    assert secret not in str(stored)
    assert key.startswith(entry.prefix)
    found = keys.find(database, entry.id)
    assert found is not None
    assert found.digest == keys.key_digest(key)


def test_a_key_may_submit_and_train_unless_another_scope_is_named(database: Database) -> None:
    assert made(database)[0].scope == "train"
    assert made(database, scope="read")[0].scope == "read"


def test_a_key_without_a_lifetime_never_expires_and_another_does(database: Database) -> None:
    assert made(database)[0].expires_at is None
    entry, _ = made(database, lifetime_s=DAY)
    assert entry.expires_at == pytest.approx(entry.created_at + DAY, abs=5)
    assert entry.state == "live"
    assert made(database, lifetime_s=0.0)[0].state == "expired"


@pytest.mark.parametrize(
    "owner", ["ada lovelace", "", "-ada", "a" * 65, "ключ", "command line", "nelbo itself"]
)
def test_an_owner_needs_a_plain_name(database: Database, owner: str) -> None:
    with pytest.raises(InvalidInput, match="is not a valid owner name"):
        made(database, owner)


def test_a_rotated_key_and_its_successor_both_live_for_a_while(database: Database) -> None:
    old, _ = made(database, scope="read", label="dashboard", lifetime_s=30 * DAY)
    ending, new, key = keys.rotate(database, old.id, COMMAND_LINE, grace_s=3_600)
    assert (new.owner, new.scope, new.label, new.state) == (old.owner, old.scope, old.label, "live")
    assert key.startswith(new.prefix)
    assert new.expires_at == pytest.approx(new.created_at + 30 * DAY, abs=5)
    assert ending.state == "live"
    assert ending.expires_at == pytest.approx(new.created_at + 3_600, abs=5)
    assert {entry.id for entry in keys.list_keys(database, "ada") if entry.state == "live"} == {
        old.id,
        new.id,
    }


def test_a_rotation_never_prolongs_the_old_key(database: Database) -> None:
    old, _ = made(database, lifetime_s=60.0)
    ending, _, _ = keys.rotate(database, old.id, COMMAND_LINE, grace_s=DAY)
    assert ending.expires_at == old.expires_at


def test_only_a_live_key_can_be_rotated_and_none_be_revoked_twice(database: Database) -> None:
    entry, _ = made(database)
    assert keys.revoke(database, entry.id, COMMAND_LINE).state == "revoked"
    with pytest.raises(Conflict, match="revoked already"):
        keys.revoke(database, entry.id, COMMAND_LINE)
    with pytest.raises(Conflict, match="only a live key"):
        keys.rotate(database, entry.id, COMMAND_LINE, grace_s=1)
    with pytest.raises(NotFound, match="no key nb_0000000000000000"):
        keys.revoke(database, "0" * 16, COMMAND_LINE)


def test_a_key_is_named_by_its_prefix_its_id_or_itself(database: Database) -> None:
    entry, key = made(database)
    assert {keys.id_of(text) for text in (entry.id, entry.prefix, key, f" {entry.prefix}\n")} == {
        entry.id
    }
    with pytest.raises(InvalidInput, match="named by its prefix"):
        keys.id_of("ada")


def test_the_lines_of_a_file_are_stored_once_even_by_many_at_once(database: Database) -> None:
    lines = [KeyLine(f"{number:016x}", "ada", f"{number:064x}") for number in range(5)]
    stored = at_once([lambda: keys.import_lines(database, lines, COMMAND_LINE)] * 4)
    assert sum(stored) == 5
    assert len(keys.list_keys(database)) == 5
    assert len(audit.list_changes(database)) == 5


def test_a_change_is_refused_whose_key_was_revoked_while_the_request_ran(
    database: Database,
) -> None:
    """A push may take an hour; what it wants to write at its end is no longer its owner's to
    write."""
    entry, _ = made(database)
    by = Actor("ada", key=entry.id)
    catalog.add_version(database, "ada", "adult", {}, "digest")
    keys.revoke(database, entry.id, COMMAND_LINE)
    with (
        pytest.raises(NotAuthenticated, match="revoked while the request ran"),
        database.write() as connection,
    ):
        audit.record(connection, by, "model.delete", "ada", "adult")


def test_the_scopes_that_the_database_takes_are_those_of_keys() -> None:
    table = Base.metadata.tables["api_key"]
    (check,) = (part for part in table.constraints if isinstance(part, CheckConstraint))
    assert str(check.sqltext) == one_of("scope", SCOPES)
