"""The audit in SQL: each change and deletion, recorded in the transaction that makes it.

It covers changes of models, versions, aliases and keys, and all deletions.
"""

from sqlalchemy import Connection, insert, select

from nelbo.audit import Action, Actor
from nelbo.errors import NotAuthenticated
from nelbo.ids import new_id
from nelbo.store.session import Database, now
from nelbo.store.tables import AuditRow, KeyRow
from nelbo.utf8 import clean
from nelbo.views import Change


def record(
    connection: Connection,
    by: Actor,
    action: Action,
    owner: str,
    subject: str,
    detail: str | None = None,
) -> None:
    """Record a change, inside the transaction that makes it.

    Raises NotAuthenticated where the key was revoked meanwhile: a long push that began with a valid
    key changes nothing after the revocation.
    """
    _need_live_key(connection, by)
    values = {"by": by.name, "key": by.key, "address": by.address, "request_id": by.request_id}
    values |= {
        "owner": owner,
        "action": action,
        "subject": clean(subject),
        "detail": clean(detail),
    }
    connection.execute(insert(AuditRow).values(id=new_id(), at=now(), **values))


def list_changes(
    db: Database, *, owner: str | None = None, limit: int = 50, before: str | None = None
) -> list[Change]:
    """The changes of all owners or of one, newest first, with ids below `before`."""
    statement = select(AuditRow.__table__).order_by(AuditRow.id.desc()).limit(limit)
    if owner is not None:
        statement = statement.where(AuditRow.owner == owner)
    if before is not None:
        statement = statement.where(AuditRow.id < before)
    with db.read() as connection:
        return [
            Change.model_validate(row, from_attributes=True)
            for row in connection.execute(statement)
        ]


def _need_live_key(connection: Connection, by: Actor) -> None:
    """Lock the key, so that its revocation waits for this transaction and sees its changes."""
    if by.key is None:
        return
    live = (
        select(KeyRow.id)
        .where(KeyRow.id == by.key, KeyRow.revoked_at.is_(None))
        .with_for_update(read=True)
    )
    if connection.execute(live).first() is None:
        raise NotAuthenticated("the API key was revoked while the request ran; nothing was changed")
