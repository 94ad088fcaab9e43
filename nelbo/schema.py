"""The schema of a table: its columns, each with a kind."""

from collections import Counter
from collections.abc import Sequence
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
from nelbo.rules import MAX_ENTRIES_IN_ALL, MAX_RULES, Rule, check_kinds, check_parts, read_rule
from nelbo.spelling.columns import MISSING as MISSING
from nelbo.spelling.numbers import NumberFormat
from nelbo.utf8 import read_text

Kind = Literal["continuous", "integer", "boolean", "categorical", "datetime", "identifier"]
NUMBERS: tuple[Kind, ...] = ("continuous", "integer", "datetime")
CATEGORICALS: tuple[Kind, ...] = ("boolean", "categorical")
MAX_COLUMNS = 10_000
MAX_CATEGORIES, MAX_RARER = 10_000, 50_000
"""Maximum number of categories of a column, and of its rarer categories."""
Name = Annotated[str, Field(max_length=1_000)]


class Column(BaseModel):
    """A column and the meaning of its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: Kind
    categories: Annotated[tuple[str, ...], Field(max_length=MAX_CATEGORIES), FailFast()] = ()
    """Categories of a categorical column, chosen by training; ("false", "true") for a boolean."""
    rarer: Annotated[
        tuple[tuple[str, NonNegativeInt], ...], Field(max_length=MAX_RARER), FailFast()
    ] = ()
    """Categorical only: further values with their numbers of training rows, most frequent first.

    The model treats those of a cluster as one category.
    """
    clusters: Annotated[
        tuple[NonNegativeInt, ...],
        Field(max_length=MAX_RARER, exclude_if=lambda clusters: not clusters),
        FailFast(),
    ] = ()
    """The cluster of each of the rarer categories, chosen by training. Where there are none, as in
    artifacts of an older Nelbo, the model treats all rarer categories as `other`."""
    zone: Literal["utc"] | None = None
    """Datetime only: "utc" if values have a time zone (they are converted to UTC), else None."""
    step: Annotated[int, Field(ge=1, le=10**14)] = 1
    """Datetime only: resolution in microseconds. All values are multiples of it."""
    format: Annotated[str, Field(max_length=100)] | None = None
    """Datetime only: how dates are written in text, in strptime's directives.

    ISO 8601 is always read too, and is written if the format is None.
    """
    number: NumberFormat | None = None
    """Numbers only: how they are written in text; None for 1234.5."""
    words: tuple[Name, Name] | None = None
    """Boolean only: the words for false and true in text."""
    missing: Annotated[tuple[Name, ...], Field(max_length=1_000), FailFast()] = ()
    """Further texts that mean a missing value in this column, such as -9999 or ?."""
    type: Name | None = None
    """The Arrow type of the column in a typed table; generated columns get it too."""
    since: Name | None = None
    """Datetime only: another datetime column that is close to this one in the training rows.

    The model learns the difference between the two.
    """

    @model_validator(mode="after")
    def _clusters_are_of_the_rarer(self) -> Self:
        if not self.clusters:
            return self
        rarer = len(self.rarer)
        if len(self.clusters) != rarer or max(self.clusters) >= rarer:
            raise ValueError(f"column {self.name!r} has clusters that do not suit its rarer values")
        return self


class Schema(BaseModel):
    """The columns of a table in order, and the texts that mean a missing value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: Annotated[tuple[Column, ...], Field(max_length=MAX_COLUMNS), FailFast()]
    missing: Annotated[tuple[Name, ...], Field(max_length=1_000), FailFast()] = MISSING
    rules: Annotated[
        tuple[Rule, ...] | None,
        Field(max_length=MAX_RULES, exclude_if=lambda rules: rules is None),
        FailFast(),
    ] = None
    """What always holds between the columns of a row, and made rows keep. None where training is to
    find it."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        counts = Counter(column.name for column in self.columns)
        if len(counts) < len(self.columns):
            twice = sorted(name for name, times in counts.items() if times > 1)
            raise ValueError(f"column names must be unique; these appear twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def _since_is_a_datetime(self) -> Self:
        datetimes = {column.name: column for column in self.columns if column.kind == "datetime"}
        for column in self.columns:
            if not column.since:
                continue
            reference = datetimes.get(column.since)
            if column.name not in datetimes or reference is None or reference.since is not None:
                raise ValueError(
                    f"column {column.name!r} cannot be counted since {column.since!r}; both must"
                    " be datetimes, and the second must have no since itself"
                )
        return self

    @model_validator(mode="after")
    def _rules_can_be_read(self) -> Self:
        kinds = {column.name: column.kind for column in self.modelled}
        rules = self.rules or ()
        for rule in rules:
            try:
                statement = read_rule(rule.text, list(kinds))
                check_kinds(rule.text, statement, kinds)
                check_parts(rule, statement, kinds)
            except InvalidInput as problem:
                raise ValueError(problem.message) from None
        if sum(len(rule.values) for rule in rules) > MAX_ENTRIES_IN_ALL:
            raise ValueError(f"rules fix more than {MAX_ENTRIES_IN_ALL:,} values in all")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def numbers(self) -> tuple[Column, ...]:
        """The columns that are float64 in the graphs, in schema order."""
        return tuple(column for column in self.columns if column.kind in NUMBERS)

    @property
    def categoricals(self) -> tuple[Column, ...]:
        """The columns that are int64 codes in the graphs, in schema order."""
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
            raise InvalidInput(
                f"{path} is not a schema: {_key(first['loc'])}: {first['msg']}; `nelbo schema FILE`"
                " writes one to start from"
            ) from None


def _key(location: Sequence[int | str]) -> str:
    """A location in a JSON file, such as columns[3].kind."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".") or "the file"
