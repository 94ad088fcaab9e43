"""Lists in pages. A cursor is the key of a member, so that it stays valid when members change."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=1_000, description="maximum number of items")]
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9a-f-]{36}$", description="next_cursor of the previous page")
]


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next_cursor: Annotated[
        str | None, Field(description="cursor of the next page; null: this is the last one")
    ]

    @classmethod
    def of(cls, members: Sequence[Item], limit: int, key: Callable[[Item], str]) -> Self:
        """A page of the first `limit` members. If there are more, there is a next page."""
        items = list(members[:limit])
        return cls(items=items, next_cursor=key(items[-1]) if len(members) > limit else None)
