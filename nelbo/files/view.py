"""What anyone sees of an uploaded file."""

from typing import Literal

from pydantic import BaseModel

from nelbo.schema import Column


class File(BaseModel):
    """An uploaded table. `rows`, `digest`, `columns` and `notices` are known when it is ready,
    `reason` when it is rejected."""

    id: str
    name: str
    format: str
    state: Literal["receiving", "reading", "ready", "rejected"]
    bytes: int | None
    rows: int | None
    digest: str | None
    """Of names, types and values (nelbo.files.Digest), whatever file they came in."""
    columns: list[Column] | None
    notices: list[str]
    reason: str | None
    created_at: float
    """Seconds since the epoch, by the database's clock."""
