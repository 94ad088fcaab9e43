"""The audit: changes and deletions, and who made them; for administrators."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Owner, ServiceDep
from api.errors import answers
from api.pages import Cursor, Limit, Page
from nelbo.errors import InvalidRequest, NotAuthenticated, Unavailable
from nelbo.store import audit
from nelbo.store.keys import OWNER
from nelbo.views import Change

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get(
    "",
    operation_id="list_audit",
    summary="List changes and deletions of all owners, newest first",
    responses=answers(NotAuthenticated, InvalidRequest, Unavailable),
)
def list_audit(
    service: ServiceDep,
    _: Owner,
    limit: Limit = 50,
    cursor: Cursor = None,
    owner: Annotated[
        str | None, Query(pattern=OWNER.pattern, description="only changes to what this owner has")
    ] = None,
) -> Page[Change]:
    """Changes of models, versions, aliases and keys, and deletions of models, files and jobs."""
    changes = audit.list_changes(service.database, owner=owner, limit=limit + 1, before=cursor)
    return Page.of(changes, limit, key=lambda change: change.id)
