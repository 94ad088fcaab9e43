"""The catalog: models with their versions and aliases. Every row has an owner, and nobody sees
another's."""

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
from nelbo.store.lookup import unfinished_jobs
from nelbo.store.session import Database, now
from nelbo.store.tables import AliasRow, JobRow, ModelRow, VersionRow
from nelbo.utf8 import clean
from nelbo.views import Model, Version, VersionState

CHAMPION = "champion"
MAX_ALIASES = 100
"""Of one model: whoever looks at it gets them all."""


@dataclass(frozen=True)
class VersionEntry:
    """A version as the catalog knows it. Its artifact lies in the storage under the id."""

    id: str
    owner: str
    model: str
    number: int
    state: VersionState
    digest: str
    """Empty until the version is verified."""
    reason: str | None
    """Why it was rejected."""
    created_at: float

    @property
    def name(self) -> str:
        return f"{self.model}@{self.number}"

    @property
    def view(self) -> Version:
        """What anyone sees of it."""
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
    """Register an artifact as the next version of a model. `ledger.submit_version` does so for one
    to be verified."""
    with db.write() as connection:
        return insert_version(
            connection, owner, model, manifest, digest, state, version_id or new_id(), by
        )


def resolve(db: Database, owner: str, reference: str) -> VersionEntry:
    """The ready version that `name` (its champion), `name@3` or `name@alias` stands for."""
    name, _, which = reference.partition("@")
    with db.read() as connection:
        found = _find_version(connection, owner, name, which or CHAMPION)
        if found is None:
            raise _no_version(connection, owner, name, which)
    if found.state == "pending":
        raise NotReady(
            f"{found.name} is still being verified; ask again in a moment", retry_after=2
        )
    if found.state == "rejected":
        raise Conflict(f"{found.name} was rejected: {found.reason}")
    return found


def get_version(db: Database, owner: str, model: str, number: int) -> VersionEntry:
    """A version in any state."""
    with db.read() as connection:
        found = _find_version(connection, owner, model, str(number))
        if found is None:
            raise _no_version(connection, owner, model, str(number))
    return found


def version_of(db: Database, version_id: str) -> VersionEntry:
    """A version by id, whoever owns it: for a worker that holds a claim on it."""
    with db.read() as connection:
        found = connection.execute(_versions().where(VersionRow.id == version_id)).first()
    if found is None:
        raise NotFound(f"no version {version_id}")
    return _version(found)


def get_manifest(db: Database, version: VersionEntry) -> dict[str, Any]:
    """What a version's manifest says; empty until the version is verified. It may be large, so
    entries come without it."""
    with db.read() as connection:
        manifest: dict[str, Any] = connection.scalars(
            select(VersionRow.manifest).where(VersionRow.id == version.id)
        ).one()
    return manifest


def list_versions(db: Database, owner: str, model: str) -> list[VersionEntry]:
    """All versions of a model, the newest first."""
    with db.read() as connection:
        _need_model(connection, owner, model)
        statement = _versions().where(*_live(owner, model)).order_by(VersionRow.number.desc())
        return [_version(found) for found in connection.execute(statement)]


def get_model(db: Database, owner: str, name: str) -> Model:
    with db.read() as connection:
        _need_model(connection, owner, name)
        return _models(
            connection,
            owner,
            select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == name),
        )[0]


def list_models(db: Database, owner: str, *, limit: int = 100, after: str = "") -> list[Model]:
    """Models in the order of their names, of names above `after`."""
    statement = select(ModelRow).where(
        ModelRow.owner == owner, ModelRow.deleted_at.is_(None), ModelRow.name > after
    )
    with db.read() as connection:
        return _models(connection, owner, statement.order_by(ModelRow.name).limit(limit))


def set_alias(
    db: Database, owner: str, model: str, alias: str, number: int, *, by: Actor = ITSELF
) -> None:
    """Let an alias stand for a ready version. A champion that was set by hand no longer follows new
    versions."""
    if not alias or alias.isdigit() or "@" in alias:
        raise InvalidInput(
            f"{alias!r} cannot be an alias: it must be a word, neither a number nor with an @"
        )
    with db.write() as connection:
        found = _find_version(connection, owner, model, str(number))
        if found is None:
            raise _no_version(connection, owner, model, str(number))
        if found.state != "ready":
            raise Conflict(f"{found.name} is {found.state}; an alias stands for a ready version")
        _need_room(connection, owner, model, alias)
        _point(connection, found, alias, by, by_hand=True)


def _need_room(connection: Connection, owner: str, model: str, alias: str) -> None:
    statement = select(AliasRow.name).where(AliasRow.owner == owner, AliasRow.model == model)
    names = connection.scalars(statement).all()
    if alias not in names and len(names) >= MAX_ALIASES:
        raise Conflict(
            f"model {model} has {len(names)} aliases, the most of one model; delete one that is not"
            " used any more"
        )


def delete_alias(db: Database, owner: str, model: str, alias: str, *, by: Actor = ITSELF) -> None:
    """Remove an alias; champion then follows the newest ready version again."""
    with db.write() as connection:
        place = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == alias)
        if connection.execute(delete(AliasRow).where(*place)).rowcount == 0:
            raise NotFound(f"model {model} has no alias {alias}")
        audit.record(connection, by, "alias.delete", owner, f"{model}@{alias}")
        crown(connection, owner, model, by)


def delete_version(db: Database, owner: str, model: str, number: int, *, by: Actor = ITSELF) -> str:
    """Forget a version and give its id, whose artifact the caller removes. Raises Conflict while a
    job that is not finished uses it."""
    with db.write() as connection:
        found = _find_version(connection, owner, model, str(number), lock=True)
        if found is None:
            raise _no_version(connection, owner, model, str(number))
        _forget_versions(connection, owner, model, [found], by)
        crown(connection, owner, model, by)
        return found.id


def delete_model(db: Database, owner: str, name: str, *, by: Actor = ITSELF) -> list[str]:
    """Forget a model with its versions and give their ids, whose artifacts the caller removes.
    Raises Conflict while a job that is not finished uses one."""
    with db.write() as connection:
        _need_model(connection, owner, name)
        statement = _versions().where(*_live(owner, name))
        found = [_version(row) for row in connection.execute(statement.with_for_update())]
        _forget_versions(connection, owner, name, found, by)
        place = (ModelRow.owner == owner, ModelRow.name == name)
        connection.execute(update(ModelRow).where(*place).values(deleted_at=now()))
        audit.record(connection, by, "model.delete", owner, name)
        return [version.id for version in found]


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
    """The next version of a model, inside a transaction of the caller."""
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


def accept_version(
    connection: Connection, version_id: str, manifest: dict[str, Any], digest: str
) -> bool:
    """pending -> ready, inside a transaction of the caller; False where the version is not
    pending."""
    version = _settle(
        connection, version_id, "version.ready", state="ready", manifest=manifest, digest=digest
    )
    if version is not None:
        crown(connection, version.owner, version.model, ITSELF)
    return version is not None


def reject_version(connection: Connection, version_id: str, reason: str) -> bool:
    """pending -> rejected, inside a transaction of the caller; False where the version is not
    pending."""
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
    """Let champion stand for the newest ready version, unless someone set it by hand."""
    place = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == CHAMPION)
    if connection.scalars(select(AliasRow.by_hand).where(*place)).first():
        return
    newest = (
        _versions()
        .where(*_live(owner, model), VersionRow.state == "ready")
        .order_by(VersionRow.number.desc())
        .limit(1)
    )
    found = connection.execute(newest).first()
    if found is not None:
        _point(connection, _version(found), CHAMPION, by, by_hand=False)
    elif connection.execute(delete(AliasRow).where(*place)).rowcount:
        audit.record(connection, by, "alias.delete", owner, f"{model}@{CHAMPION}")


def rest_of_manifest(connection: Connection, version_id: str) -> dict[str, Any]:
    """What stays of a deleted version's manifest: the names of the columns, where results of a
    score job still need them."""
    scored = (
        select(JobRow.id).where(JobRow.version_id == VersionRow.id, JobRow.kind == "score").exists()
    )
    order = select(VersionRow.manifest["order"]).where(VersionRow.id == version_id, scored)
    columns = connection.scalars(order).first()
    return {} if columns is None else {"order": columns}


def need_ready_version(connection: Connection, owner: str, version_id: str) -> None:
    """Raise unless the version can be used by a job that this transaction inserts; it cannot be
    deleted meanwhile."""
    statement = select(VersionRow.state).where(
        VersionRow.owner == owner, VersionRow.id == version_id, VersionRow.deleted_at.is_(None)
    )
    state = connection.scalars(statement.with_for_update(read=True)).first()
    if state is None:
        raise NotFound(f"no version {version_id}")
    if state != "ready":
        raise Conflict(f"version {version_id} is {state}; a job needs a ready one")


def _open_model(connection: Connection, owner: str, model: str) -> None:
    """Make the model unless it is there, and lock it, so that versions get their numbers one after
    the other."""
    place = (ModelRow.owner == owner, ModelRow.name == model)
    opened = update(ModelRow).where(*place).values(deleted_at=None)
    if connection.execute(opened).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(insert(ModelRow).values(owner=owner, name=model, created_at=now()))
    except IntegrityError:
        connection.execute(opened)


def _need_model(connection: Connection, owner: str, name: str) -> None:
    statement = select(ModelRow.deleted_at).where(ModelRow.owner == owner, ModelRow.name == name)
    found = connection.execute(statement).first()
    if found is None:
        raise _no_model(connection, owner, name)
    if found.deleted_at is not None:
        raise Gone(f"model {name} was deleted")


def _models(connection: Connection, owner: str, statement: Select[ModelRow]) -> list[Model]:
    found = connection.execute(statement).all()
    names = [model.name for model in found]
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
    versions_of, aliases_of = connection.execute(numbers).all(), connection.execute(aliases).all()
    return [
        Model(
            name=model.name,
            created_at=model.created_at,
            versions=tuple(
                version.number for version in versions_of if version.model == model.name
            ),
            aliases={alias.name: alias.number for alias in aliases_of if alias.model == model.name},
        )
        for model in found
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
        VersionRow.created_at,
    )


def _live(owner: str, model: str) -> tuple[ColumnElement[bool], ...]:
    return VersionRow.owner == owner, VersionRow.model == model, VersionRow.deleted_at.is_(None)


def _version(found: Row[*tuple[Any, ...]]) -> VersionEntry:
    return VersionEntry(**found._asdict())


def _find_version(
    connection: Connection, owner: str, model: str, which: str, lock: bool = False
) -> VersionEntry | None:
    """By number or alias; None where nothing of that name is there (any more)."""
    statement = _versions().where(*_live(owner, model))
    if which.isdecimal():
        # Longer numbers would not fit the column; none is that high.
        statement = statement.where(VersionRow.number == int(which[:18]))
    else:
        place = (AliasRow.owner == owner, AliasRow.model == model, AliasRow.name == which)
        statement = statement.where(
            VersionRow.id == select(AliasRow.version_id).where(*place).scalar_subquery()
        )
    found = connection.execute(statement.with_for_update() if lock else statement).first()
    return None if found is None else _version(found)


def _no_version(
    connection: Connection, owner: str, model: str, which: str
) -> NotFound | Gone | NotReady:
    try:
        _need_model(connection, owner, model)
    except (NotFound, Gone) as problem:
        return problem
    entry = _models(
        connection, owner, select(ModelRow).where(ModelRow.owner == owner, ModelRow.name == model)
    )[0]
    known = ", ".join([*entry.aliases, *map(str, entry.versions)]) or "none"
    if which in ("", CHAMPION):
        states = connection.scalars(select(VersionRow.state).where(*_live(owner, model))).all()
        if "pending" in states:
            return NotReady(
                f"model {model} has no verified version yet; ask again in a moment", retry_after=2
            )
        return NotFound(f"model {model} has no ready version (versions: {known})")
    if which.isdecimal() and _was_deleted(connection, owner, model, which):
        return Gone(f"{model}@{which} was deleted")
    return NotFound(f"model {model} has no version or alias {which!r}; it has: {known}")


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
    return NotFound(f"no model {name!r}; `nelbo models` lists what is there")


def _point(
    connection: Connection, version: VersionEntry, alias: str, by: Actor, by_hand: bool
) -> None:
    values = {"version_id": version.id, "by_hand": by_hand}
    place = (
        AliasRow.owner == version.owner,
        AliasRow.model == version.model,
        AliasRow.name == alias,
    )
    before = connection.execute(select(AliasRow.version_id, AliasRow.by_hand).where(*place)).first()
    if before is not None and before._asdict() == values:
        return
    if connection.execute(update(AliasRow).where(*place).values(**values)).rowcount == 0:
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
        gone = {"deleted_at": now(), "manifest": rest, "reason": None}
        connection.execute(update(VersionRow).where(VersionRow.id == version.id).values(**gone))
        audit.record(connection, by, "version.delete", owner, version.name)
