"""Lists in pages: a page's cursor is the key of its last member, so that a page stays right while
members come and go."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

Item = TypeVar("Item")
Limit = Annotated[int, Query(ge=1, le=1_000, description="members of a page")]
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9a-f-]{36}$", description="next_cursor of the page before")
]


class Page(BaseModel, Generic[Item]):
    """Part of a list."""

    items: list[Item]
    next_cursor: Annotated[
        str | None, Field(description="cursor of the next page; null at the end")
    ]

    @classmethod
    def of(cls, found: Sequence[Item], limit: int, key: Callable[[Item], str]) -> Self:
        """A page of the first `limit` members found; one more than that tells of a next page."""
        items = list(found[:limit])
        return cls(items=items, next_cursor=key(items[-1]) if len(found) > limit else None)
