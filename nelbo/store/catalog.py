"""The catalog: models with their versions and aliases.

Every row has an owner, and nobody sees the rows of another owner.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from nelbo.audit import ITSELF, Action, Actor
from nelbo.errors import Conflict, Gone, InvalidInput, NotFound, NotReady
from nelbo.ids import new_id
from nelbo.store import audit
from nelbo.store.claims import VerifyOutcome
from nelbo.store.lookup import unfinished_jobs
from nelbo.store.session import Database, now
from nelbo.store.tables import AliasRow, JobRow, ModelRow, VersionRow
from nelbo.utf8 import clean
from nelbo.views import Model, Version, VersionState

CHAMPION = "champion"
MAX_ALIASES = 100
"""Maximum number of aliases per model; a view of the model lists them all."""


@dataclass(frozen=True)
class VersionEntry:
    """A version as the catalog knows it. The storage keeps its artifact under the version's id."""

    id: str
    owner: str
    model: str
    number: int
    state: VersionState
    digest: str
    """Empty until the version is verified."""
    reason: str | None
    """Why it was rejected."""
    row_s: float | None
    """The seconds that a row took when it was verified; None where an older Nelbo did that."""
    created_at: float

    @property
    def name(self) -> str:
        return f"{self.model}@{self.number}"

    @property
    def view(self) -> Version:
        """The version as users see it."""
        return Version(
            model=self.model,
            version=self.number,
            state=self.state,
            reason=self.reason,
            digest=self.digest or None,
            created_at=self.created_at,
        )


def add_version(
    db: Database,
    owner: str,
    model: str,
    manifest: dict[str, Any],
    digest: str,
    *,
    state: VersionState = "ready",
    version_id: str | None = None,
    by: Actor = ITSELF,
) -> VersionEntry:
    """Register an artifact as the next version of a model.

    `ledger.submit_version` does the same for an artifact that has yet to be verified.
    """
    with db.write() as connection:
        return insert_version(
            connection, owner, model, manifest, digest, state, version_id or new_id(), by
        )


def resolve(db: Database, owner: str, reference: str) -> VersionEntry:
    """The ready version for `name` (its champion), `name@3` or `name@alias`."""
    name, _, which = reference.partition("@")
    with db.read() as connection:
        version = _find_version(connection, owner, name, which or CHAMPION)
        if version is None:
            raise _no_version(connection, owner, name, which)
    if version.state == "pending":
        raise NotReady(
            f"{version.name} is still being verified; ask again in a moment", retry_after=2
        )
    if version.state == "rejected":
        raise Conflict(f"{version.name} was rejected: {version.reason}")
    return version


def get_version(db: Database, owner: str, model: str, number: int) -> VersionEntry:
    """A version in any state."""
    with db.read() as connection:
        version = _find_version(connection, owner, model, str(number))
        if version is None:
            raise _no_version(connection, owner, model, str(number))
    return version


def version_of(db: Database, version_id: str) -> VersionEntry:
    """A version by id, of any owner: for a worker that holds a claim on it."""
    with db.read() as connection:
        row = connection.execute(_versions().where(VersionRow.id == version_id)).first()
    if row is None:
        raise NotFound(f"no version {version_id}")
    return _version(row)


def get_manifest(db: Database, version: VersionEntry) -> dict[str, Any]:
    """A version's manifest; empty until the version is verified.

    Entries come without it, as it may be large.
    """
    with db.read() as connection:
        manifest: dict[str, Any] = connection.scalars(
            select(VersionRow.manifest).where(VersionRow.id == version.id)
        ).one()
    return manifest


def list_versions(db: Database, owner: str, model: str) -> list[VersionEntry]:
    """All versions of a model, newest first."""
    with db.read() as connection:
        _need_model(connection, owner, model)
        statement = _versions().where(*_live(owner, model)).order_by(VersionRow.number.desc())
        return [_version(row) for row in connection.execute(statement)]


def get_model(db: Database, owner: str, name: str) -> Model:
    with db.read() as connection:
        _need_model(connection, owner, name)
        this_model = select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name)
        return _models(connection, owner, this_model)[0]


def list_models(db: Database, owner: str, *, limit: int = 100, after: str = "") -> list[Model]:
    """Models in the order of their names, with names above `after`."""
    statement = select(ModelRow).where(
        ModelRow.owner == owner, ModelRow.deleted_at.is_(None), ModelRow.name > after
    )
    with db.read() as connection:
        return _models(connection, owner, statement.order_by(ModelRow.name).limit(limit))


def set_alias(
    db: Database, owner: str, model: str, alias: str, number: int, *, by: Actor = ITSELF
) -> None:
    """Point an alias at a ready version.

    A champion that was set by hand no longer follows new versions.
    """
    if not alias or alias.isdigit() or "@" in alias:
        raise InvalidInput(
            f"{alias!r} cannot be an alias: use a word that is no number and contains no @"
        )
    with db.write() as connection:
        version = _find_version(connection, owner, model, str(number))
        if version is None:
            raise _no_version(connection, owner, model, str(number))
        if version.state != "ready":
            raise Conflict(
                f"{version.name} is {version.state}; only a ready version can have an alias"
            )
        _need_room(connection, owner, model, alias)
        _point(connection, version, alias, by, by_hand=True)


def _need_room(connection: Connection, owner: str, model: str, alias: str) -> None:
    statement = select(AliasRow.name).where(AliasRow.owner == owner, AliasRow.model == model)
    names = connection.scalars(statement).all()
    if alias not in names and len(names) >= MAX_ALIASES:
        raise Conflict(
            f"model {model} has {len(names)} aliases, the maximum per model; delete an unused one"
        )


def delete_alias(db: Database, owner: str, model: str, alias: str, *, by: Actor = ITSELF) -> None:
    """Remove an alias; champion then follows the newest ready version again."""
    with db.write() as connection:
        this_alias = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == alias)
        if connection.execute(delete(AliasRow).where(*this_alias)).rowcount == 0:
            raise NotFound(f"model {model} has no alias {alias}")
        audit.record(connection, by, "alias.delete", owner, f"{model}@{alias}")
        crown(connection, owner, model, by)


def delete_version(db: Database, owner: str, model: str, number: int, *, by: Actor = ITSELF) -> str:
    """Forget a version and return its id, whose artifact the caller removes.

    Raises Conflict while an unfinished job uses it.
    """
    with db.write() as connection:
        version = _find_version(connection, owner, model, str(number), lock=True)
        if version is None:
            raise _no_version(connection, owner, model, str(number))
        _forget_versions(connection, owner, model, [version], by)
        crown(connection, owner, model, by)
        return version.id


def delete_model(db: Database, owner: str, name: str, *, by: Actor = ITSELF) -> list[str]:
    """Forget a model with its versions and return their ids, whose artifacts the caller removes.

    Raises Conflict while an unfinished job uses one of them.
    """
    with db.write() as connection:
        _need_model(connection, owner, name)
        statement = _versions().where(*_live(owner, name))
        versions = [_version(row) for row in connection.execute(statement.with_for_update())]
        _forget_versions(connection, owner, name, versions, by)

        this_model = (ModelRow.owner == owner, ModelRow.name == name)
        connection.execute(update(ModelRow).where(*this_model).values(deleted_at=now()))
        audit.record(connection, by, "model.delete", owner, name)
        return [version.id for version in versions]


def insert_version(
    connection: Connection,
    owner: str,
    model: str,
    manifest: dict[str, Any],
    digest: str,
    state: VersionState,
    version_id: str,
    by: Actor = ITSELF,
) -> VersionEntry:
    """Insert the next version of a model, inside the caller's transaction."""
    _open_model(connection, owner, model)
    taken = select(func.coalesce(func.max(VersionRow.number), 0)).where(
        VersionRow.owner == owner, VersionRow.model == model
    )
    number = connection.scalars(taken).one() + 1
    values = {
        "owner": owner,
        "model": model,
        "number": number,
        "state": state,
        "digest": digest,
        "manifest": manifest,
    }
    connection.execute(insert(VersionRow).values(id=version_id, created_at=now(), **values))
    audit.record(connection, by, "version.push", owner, f"{model}@{number}", state)
    if state == "ready":
        crown(connection, owner, model, by)
    return _version(connection.execute(_versions().where(VersionRow.id == version_id)).one())


def accept_version(connection: Connection, version_id: str, verified: VerifyOutcome) -> bool:
    """pending -> ready, inside the caller's transaction.

    False where the version is not pending.
    """
    version = _settle(
        connection,
        version_id,
        "version.ready",
        state="ready",
        manifest=verified.manifest,
        digest=verified.digest,
        row_s=verified.row_s,
    )
    if version is not None:
        crown(connection, version.owner, version.model, ITSELF)
    return version is not None


def reject_version(connection: Connection, version_id: str, reason: str) -> bool:
    """pending -> rejected, inside the caller's transaction.

    False where the version is not pending.
    """
    return (
        _settle(connection, version_id, "version.reject", state="rejected", reason=clean(reason))
        is not None
    )


def _settle(
    connection: Connection, version_id: str, action: Action, **values: Any
) -> Row[*tuple[Any, ...]] | None:
    pending = (
        update(VersionRow)
        .where(VersionRow.id == version_id, VersionRow.state == "pending")
        .values(**values)
    )
    version = connection.execute(
        pending.returning(VersionRow.owner, VersionRow.model, VersionRow.number)
    ).first()
    if version is not None:
        audit.record(connection, ITSELF, action, version.owner, f"{version.model}@{version.number}")
    return version


def crown(connection: Connection, owner: str, model: str, by: Actor) -> None:
    """Point champion at the newest ready version, unless someone set it by hand."""
    champion = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == CHAMPION)
    if connection.scalars(select(AliasRow.by_hand).where(*champion)).first():
        return
    newest = (
        _versions()
        .where(*_live(owner, model), VersionRow.state == "ready")
        .order_by(VersionRow.number.desc())
        .limit(1)
    )
    row = connection.execute(newest).first()
    if row is not None:
        _point(connection, _version(row), CHAMPION, by, by_hand=False)
    elif connection.execute(delete(AliasRow).where(*champion)).rowcount:
        audit.record(connection, by, "alias.delete", owner, f"{model}@{CHAMPION}")


def rest_of_manifest(connection: Connection, version_id: str) -> dict[str, Any]:
    """The part of a deleted version's manifest that must stay.

    These are the names of the columns, where results of a score job still need them.
    """
    scored = (
        select(JobRow.id).where(JobRow.version_id == VersionRow.id, JobRow.kind == "score").exists()
    )
    order = select(VersionRow.manifest["order"]).where(VersionRow.id == version_id, scored)
    columns = connection.scalars(order).first()
    return {} if columns is None else {"order": columns}


def need_ready_version(connection: Connection, owner: str, version_id: str) -> None:
    """Raise unless a job that this transaction inserts can use the version.

    The version is locked, so that it cannot be deleted meanwhile.
    """
    statement = select(VersionRow.state).where(
        VersionRow.owner == owner, VersionRow.id == version_id, VersionRow.deleted_at.is_(None)
    )
    state = connection.scalars(statement.with_for_update(read=True)).first()
    if state is None:
        raise NotFound(f"no version {version_id}")
    if state != "ready":
        raise Conflict(f"version {version_id} is {state}; a job needs a ready one")


def _open_model(connection: Connection, owner: str, model: str) -> None:
    """Insert the model if it is new, and lock it.

    Versions therefore get their numbers one after the other.
    """
    this_model = (ModelRow.owner == owner, ModelRow.name == model)
    opened = update(ModelRow).where(*this_model).values(deleted_at=None)
    if connection.execute(opened).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(ModelRow).values(owner=owner, name=model, created_at=now()))
    except IntegrityError:
        connection.execute(opened)


def _need_model(connection: Connection, owner: str, name: str) -> None:
    statement = select(ModelRow.deleted_at).where(ModelRow.owner == owner, ModelRow.name == name)
    row = connection.execute(statement).first()
    if row is None:
        raise _no_model(connection, owner, name)
    if row.deleted_at is not None:
        raise Gone(f"model {name} was deleted")


def _models(connection: Connection, owner: str, statement: Select[ModelRow]) -> list[Model]:
    models = connection.execute(statement).all()
    names = [model.name for model in models]
    numbers = (
        select(VersionRow.model, VersionRow.number)
        .where(
            VersionRow.owner == owner, VersionRow.model.in_(names), VersionRow.deleted_at.is_(None)
        )
        .order_by(VersionRow.number)
    )
    aliases = (
        select(AliasRow.model, AliasRow.name, VersionRow.number)
        .join_from(AliasRow, VersionRow, AliasRow.version_id == VersionRow.id)
        .where(AliasRow.owner == owner, AliasRow.model.in_(names))
        .order_by(AliasRow.name)
    )
    version_rows = connection.execute(numbers).all()
    alias_rows = connection.execute(aliases).all()
    return [
        Model(
            name=model.name,
            created_at=model.created_at,
            versions=tuple(row.number for row in version_rows if row.model == model.name),
            aliases={row.name: row.number for row in alias_rows if row.model == model.name},
        )
        for model in models
    ]


def _versions() -> Select[*tuple[Any, ...]]:
    return select(
        VersionRow.id,
        VersionRow.owner,
        VersionRow.model,
        VersionRow.number,
        VersionRow.state,
        VersionRow.digest,
        VersionRow.reason,
        VersionRow.row_s,
        VersionRow.created_at,
    )


def _live(owner: str, model: str) -> tuple[ColumnElement[bool], ...]:
    return VersionRow.owner == owner, VersionRow.model == model, VersionRow.deleted_at.is_(None)


def _version(row: Row[*tuple[Any, ...]]) -> VersionEntry:
    return VersionEntry(**row._asdict())


def _find_version(
    connection: Connection, owner: str, model: str, which: str, lock: bool = False
) -> VersionEntry | None:
    """A version by number or alias; None where there is no such version."""
    statement = _versions().where(*_live(owner, model))
    if which.isdecimal():
        # A longer number would not fit the column, and no version has one.
        statement = statement.where(VersionRow.number == int(which[:18]))
    else:
        this_alias = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == which)
        target = select(AliasRow.version_id).where(*this_alias).scalar_subquery()
        statement = statement.where(VersionRow.id == target)
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    return None if row is None else _version(row)


def _no_version(
    connection: Connection, owner: str, model: str, which: str
) -> NotFound | Gone | NotReady:
    try:
        _need_model(connection, owner, model)
    except (NotFound, Gone) as problem:
        return problem

    this_model = select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == model)
    entry = _models(connection, owner, this_model)[0]
    names = ", ".join([*entry.aliases, *map(str, entry.versions)]) or "none"
    if which in ("", CHAMPION):
        states = connection.scalars(select(VersionRow.state).where(*_live(owner, model))).all()
        if "pending" in states:
            return NotReady(
                f"model {model} has no verified version yet; ask again in a moment", retry_after=2
            )
        return NotFound(f"model {model} has no ready version (versions: {names})")

    if which.isdecimal() and _was_deleted(connection, owner, model, which):
        return Gone(f"{model}@{which} was deleted")
    return NotFound(f"model {model} has no version or alias {which!r}; it has: {names}")


def _was_deleted(connection: Connection, owner: str, model: str, number: str) -> bool:
    statement = select(VersionRow.id).where(
        VersionRow.owner == owner, VersionRow.model == model, VersionRow.number == int(number[:18])
    )
    return connection.execute(statement).first() is not None


def _no_model(connection: Connection, owner: str, name: str) -> NotFound:
    names = connection.scalars(
        select(ModelRow.name).where(ModelRow.owner == owner, ModelRow.deleted_at.is_(None))
    ).all()
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return NotFound(f"no model {name!r}; did you mean {' or '.join(near)}?")
    return NotFound(f"no model {name!r}; `nelbo models` lists all models")


def _point(
    connection: Connection, version: VersionEntry, alias: str, by: Actor, by_hand: bool
) -> None:
    values = {"version_id": version.id, "by_hand": by_hand}
    this_alias = (
        AliasRow.owner == version.owner,
        AliasRow.model == version.model,
        AliasRow.name == alias,
    )
    current = select(AliasRow.version_id, AliasRow.by_hand).where(*this_alias)
    before = connection.execute(current).first()
    if before is not None and before._asdict() == values:
        return
    if connection.execute(update(AliasRow).where(*this_alias).values(**values)).rowcount == 0:
        connection.execute(
            insert(AliasRow).values(owner=version.owner, model=version.model, name=alias, **values)
        )
    audit.record(
        connection, by, "alias.set", version.owner, f"{version.model}@{alias}", version.name
    )


def _forget_versions(
    connection: Connection, owner: str, model: str, versions: Sequence[VersionEntry], by: Actor
) -> None:
    ids = [version.id for version in versions]
    users = unfinished_jobs(connection, JobRow.version_id.in_(ids))
    if users:
        names = ", ".join(version.name for version in versions)
        raise Conflict(f"{names} is in use by {users}; cancel it or wait for it")
    aliases = delete(AliasRow).where(
        AliasRow.owner == owner, AliasRow.model == model, AliasRow.version_id.in_(ids)
    )
    for alias in sorted(connection.scalars(aliases.returning(AliasRow.name))):
        audit.record(connection, by, "alias.delete", owner, f"{model}@{alias}")
    for version in versions:
        rest = rest_of_manifest(connection, version.id)
        values = {"deleted_at": now(), "manifest": rest, "reason": None}
        connection.execute(update(VersionRow).where(VersionRow.id == version.id).values(**values))
        audit.record(connection, by, "version.delete", owner, version.name)
