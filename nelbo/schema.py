"""The schema of a table: its columns, each with a kind."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from nelbo.errors import InvalidInput, NotFound
from nelbo.spelling.columns import MISSING as MISSING
from nelbo.spelling.numbers import NumberFormat
from nelbo.utf8 import read_text

Kind = Literal["continuous", "integer", "boolean", "categorical", "datetime", "identifier"]
NUMBERS: tuple[Kind, ...] = ("continuous", "integer", "datetime")
CATEGORICALS: tuple[Kind, ...] = ("boolean", "categorical")
MAX_COLUMNS = 10_000
MAX_CATEGORIES = 10_000
"""The largest number of categories of one column, and of rarer ones beside them."""
Name = Annotated[str, Field(max_length=1_000)]


class Column(BaseModel):
    """A column and what its values mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Kind
    categories: Annotated[tuple[str, ...], Field(max_length=MAX_CATEGORIES), FailFast()] = ()
    """Known values of a categorical column, chosen from the training rows; ("false", "true") for a
    boolean."""
    rarer: Annotated[
        tuple[tuple[str, NonNegativeInt], ...], Field(max_length=MAX_CATEGORIES), FailFast()
    ] = ()
    """Categorical only: further values with the training rows of each, the most frequent first; all
    of them are `other`."""
    zone: Literal["utc"] | None = None
    """Datetime only: "utc" for values with a zone (moved to UTC), None for naive ones, which stay
    naive."""
    step: Annotated[int, Field(ge=1, le=10**14)] = 1
    """Datetime only: resolution in microseconds, of which all values are multiples."""
    format: Annotated[str, Field(max_length=100)] | None = None
    """Datetime only: how dates are written in text (strptime's directives); ISO 8601 is read too,
    and written by default."""
    number: NumberFormat | None = None
    """Numbers only: how they are written in text; None for 1234.5."""
    words: tuple[Name, Name] | None = None
    """Boolean only: the words for false and true in text."""
    missing: Annotated[tuple[Name, ...], Field(max_length=1_000), FailFast()] = ()
    """Further texts that mean in this column that a value is missing, such as -9999 or ?."""
    type: Name | None = None
    """The Arrow type of the column, where it was typed: made columns have it too."""
    since: Name | None = None
    """Datetime only: the datetime column that it stays close to in the training rows; modelled is
    the time from there."""


class Schema(BaseModel):
    """The columns of a table in their order, and which texts mean that a value is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Annotated[tuple[Column, ...], Field(max_length=MAX_COLUMNS), FailFast()]
    missing: Annotated[tuple[Name, ...], Field(max_length=1_000), FailFast()] = MISSING

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter(column.name for column in self.columns)
        if len(counts) < len(self.columns):
            twice = sorted(name for name, times in counts.items() if times > 1)
            raise ValueError(f"column names must be unique; these stand twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _since_is_a_datetime(self) -> Self:
        counted = {
            column.name: column.since for column in self.columns if column.kind == "datetime"
        }
        for name, since in ((column.name, column.since) for column in self.columns if column.since):
            if name not in counted or counted.get(since, since) is not None:
                raise ValueError(
                    f"column {name!r} cannot be counted since {since!r}; both must be datetimes,"
                    " one without since"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def numbers(self) -> tuple[Column, ...]:
        """Columns that enter the graphs as float64, in schema order."""
        return tuple(column for column in self.columns if column.kind in NUMBERS)

    @property
    def categoricals(self) -> tuple[Column, ...]:
        """Columns that enter the graphs as int64 codes, in schema order."""
        return tuple(column for column in self.columns if column.kind in CATEGORICALS)

    @property
    def texts(self) -> int:
        """The number of categories of all columns, the rarer ones included."""
        return sum(len(column.categories) + len(column.rarer) for column in self.columns)

    @property
    def modelled(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind != "identifier")

    @property
    def identifiers(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind == "identifier")

    @classmethod
    def read(cls, path: Path) -> Self:
        """A schema from a JSON file, as `nelbo schema FILE` writes it."""
        try:
            return cls.model_validate_json(read_text(path))
        except FileNotFoundError:
            raise NotFound(f"no schema file at {path}") from None
        except OSError as problem:
            raise InvalidInput(f"{path} cannot be read: {problem.strerror}") from None
        except ValidationError as problem:
            first = problem.errors()[0]
            key = "".join(
                f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
            ).lstrip(".")
            raise InvalidInput(
                f"{path} is not a schema: {key or 'the file'}: {first['msg']}; `nelbo schema FILE`"
                " writes one to start from"
            ) from None
