"""API keys in SQL: created, listed, rotated, revoked and looked up.

Only a key's digest is stored, never the key itself. A key is `nb_<id>_<secret>`: the id finds its
row, and the secret has 256 random bits.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, and_, case, insert, select, update
from sqlalchemy.exc import IntegrityError

from nelbo.audit import Actor
from nelbo.errors import Conflict, InvalidInput, NotFound
from nelbo.store import audit
from nelbo.store.session import Database, now
from nelbo.store.tables import KeyRow
from nelbo.utf8 import clean

Scope = Literal["read", "submit", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each scope includes the rights of those before it."""
KEY = re.compile(r"nb_([0-9a-f]{16})_[0-9A-Za-z_-]{43}")
_ID = re.compile(r"(?:nb_)?([0-9a-f]{16})(?:_[0-9A-Za-z_-]{43})?")
OWNER = re.compile(r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")
_LINE = re.compile(rf"([0-9a-f]{{16}})\s+({OWNER.pattern[1:-1]})\s+([0-9a-f]{{64}})")
MAX_LABEL = 100


@dataclass(frozen=True)
class KeyEntry:
    """A key's public data. Times are seconds since the epoch, by the database's clock."""

    id: str
    owner: str
    scope: Scope
    label: str
    state: Literal["live", "expired", "revoked"]
    from_file: bool
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None

    @property
    def prefix(self) -> str:
        """The beginning of the key."""
        return f"nb_{self.id}"


@dataclass(frozen=True)
class StoredKey:
    """The data against which a request's key is checked."""

    id: str
    owner: str
    scope: Scope
    digest: str
    state: Literal["live", "expired", "revoked"]
    from_file: bool
    idle_s: float | None
    """Seconds since its last use; None before its first use."""


@dataclass(frozen=True)
class KeyLine:
    """A line of a keys file: `<id> <owner> <SHA-256 of the whole key, in hex>`."""

    id: str
    owner: str
    digest: str


def key_digest(key: str) -> str:
    """SHA-256 of a key, in hex. The secret is random, so no salt is needed."""
    return sha256(key.encode()).hexdigest()


def create(
    db: Database,
    owner: str,
    by: Actor,
    *,
    scope: Scope = "train",
    label: str = "",
    lifetime_s: float | None = None,
) -> tuple[KeyEntry, str]:
    """Create a key for an owner. Returns its entry and the key, which cannot be shown again."""
    check_owner(owner)
    if len(label) > MAX_LABEL:
        raise InvalidInput(f"the label has {len(label):,} characters (limit {MAX_LABEL})")
    with db.write() as connection:
        key_id, key = _insert(connection, owner, scope, label, lifetime_s)
        audit.record(connection, by, "key.create", owner, key_id, scope)
        return _need_key(connection, key_id), key


def list_keys(db: Database, owner: str | None = None) -> list[KeyEntry]:
    """The keys of all owners or of one, oldest first."""
    statement = _keys().where(KeyRow.digest != "").order_by(KeyRow.created_at, KeyRow.id)
    if owner is not None:
        statement = statement.where(KeyRow.owner == owner)
    with db.read() as connection:
        return [KeyEntry(**row._asdict()) for row in connection.execute(statement)]


def rotate(
    db: Database, key_id: str, by: Actor, *, grace_s: float, lifetime_s: float | None = None
) -> tuple[KeyEntry, KeyEntry, str]:
    """Replace a key by a new one with the same owner, scope and label.

    The old key stays live for `grace_s`. Returns the old entry, the new entry and the new key.
    Without `lifetime_s` the new key lives as long as the old one was meant to.
    """
    with db.write() as connection:
        old = _need_key(connection, key_id, lock=True)
        if old.state != "live":
            raise Conflict(
                f"key {old.prefix} is {old.state}; only a live key can be rotated: create a new one"
                " with `nelbo keys create`"
            )
        if lifetime_s is None and old.expires_at is not None:
            lifetime_s = old.expires_at - old.created_at
        successor, key = _insert(connection, old.owner, old.scope, old.label, lifetime_s)
        end = now() + grace_s
        sooner = case((KeyRow.expires_at < end, KeyRow.expires_at), else_=end)
        connection.execute(update(KeyRow).where(KeyRow.id == old.id).values(expires_at=sooner))
        audit.record(connection, by, "key.rotate", old.owner, old.id, successor)
        return _need_key(connection, old.id), _need_key(connection, successor), key


def revoke(db: Database, key_id: str, by: Actor) -> KeyEntry:
    """End a key for good. Raises Conflict where it is revoked already."""
    with db.write() as connection:
        key = _need_key(connection, key_id, lock=True)
        if key.state == "revoked":
            raise Conflict(f"key {key.prefix} was revoked already")
        connection.execute(update(KeyRow).where(KeyRow.id == key.id).values(revoked_at=now()))
        audit.record(connection, by, "key.revoke", key.owner, key.id)
        return _need_key(connection, key.id)


def import_lines(db: Database, lines: Iterable[KeyLine], by: Actor) -> int:
    """Store the keys of a keys file that were never stored; returns their number.

    A key that was stored and revoked stays revoked.
    """
    by_id = {line.id: line for line in lines}
    with db.read() as connection:
        stored = set(connection.scalars(select(KeyRow.id).where(KeyRow.id.in_(by_id))))
    new = [line for line in by_id.values() if line.id not in stored]
    return sum(_import(db, line, by) for line in new)


def _import(db: Database, line: KeyLine, by: Actor) -> int:
    values = {
        "id": line.id,
        "owner": line.owner,
        "digest": line.digest,
        "scope": "train",
        "label": "keys file",
    }
    try:
        with db.write() as connection:
            connection.execute(insert(KeyRow).values(from_file=True, created_at=now(), **values))
            audit.record(connection, by, "key.import", line.owner, line.id, "train")
    except IntegrityError:
        return 0  # another process stored it at the same moment
    return 1


def find(db: Database, key_id: str) -> StoredKey | None:
    """The key with this id, for a request that names it."""
    idle_s = (now() - KeyRow.last_used_at).label("idle_s")
    columns = (
        KeyRow.id,
        KeyRow.owner,
        KeyRow.scope,
        KeyRow.digest,
        _state(),
        KeyRow.from_file,
        idle_s,
    )
    with db.read() as connection:
        row = connection.execute(select(*columns).where(KeyRow.id == key_id)).first()
    return None if row is None else StoredKey(**row._asdict())


def any_was_created(db: Database) -> bool:
    """Whether a key exists or ever existed."""
    with db.read() as connection:
        return connection.execute(select(KeyRow.id).limit(1)).first() is not None


def live_key_digests(db: Database) -> frozenset[str]:
    """The digests of all live keys."""
    with db.read() as connection:
        return frozenset(connection.scalars(select(KeyRow.digest).where(_state() == "live")))


def mark_used(db: Database, key_id: str) -> None:
    with db.write() as connection:
        connection.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now()))


def parse_lines(content: bytes) -> tuple[list[KeyLine], list[int]]:
    """The keys of a keys file, and the numbers of its invalid lines.

    A line may also be blank or a comment after `#`.
    """
    keys: list[KeyLine] = []
    invalid: list[int] = []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        match = _LINE.fullmatch(entry)
        if match is not None:
            keys.append(KeyLine(*match.groups()))
        elif entry:
            invalid.append(number)
    return keys, invalid


def check_owner(owner: str) -> None:
    """Raise InvalidInput unless this can be the name of an owner."""
    if not OWNER.fullmatch(owner):
        raise InvalidInput(
            f"{owner!r} is not a valid owner name: use up to 64 letters, digits, dots, dashes and"
            " underscores, and begin with a letter or a digit"
        )


def id_of(text: str) -> str:
    """The id in the name of a key: its id, its prefix nb_<id>, or the whole key."""
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            "a key is named by its prefix, such as nb_0123456789abcdef; `nelbo keys list` shows it"
        )
    return match[1]


def _insert(
    connection: Connection, owner: str, scope: Scope, label: str, lifetime_s: float | None
) -> tuple[str, str]:
    key_id = secrets.token_hex(8)
    key = f"nb_{key_id}_{secrets.token_urlsafe(32)}"
    values = {
        "id": key_id,
        "owner": owner,
        "digest": key_digest(key),
        "scope": scope,
        "label": clean(label),
    }
    end = None if lifetime_s is None else now() + lifetime_s
    connection.execute(
        insert(KeyRow).values(from_file=False, created_at=now(), expires_at=end, **values)
    )
    return key_id, key


def _need_key(connection: Connection, key_id: str, *, lock: bool = False) -> KeyEntry:
    statement = _keys().where(KeyRow.id == key_id, KeyRow.digest != "")
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        raise NotFound(f"no key nb_{key_id}; `nelbo keys list` lists all keys")
    return KeyEntry(**row._asdict())


def _keys() -> Select[*tuple[Any, ...]]:
    return select(
        KeyRow.id,
        KeyRow.owner,
        KeyRow.scope,
        KeyRow.label,
        _state(),
        KeyRow.from_file,
        KeyRow.created_at,
        KeyRow.expires_at,
        KeyRow.last_used_at,
        KeyRow.revoked_at,
    )


def _state() -> ColumnElement[str]:
    over = and_(KeyRow.expires_at.is_not(None), KeyRow.expires_at <= now())
    return case((KeyRow.revoked_at.is_not(None), "revoked"), (over, "expired"), else_="live").label(
        "state"
    )
