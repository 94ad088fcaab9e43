"""Jobs: their kinds, states, transitions and requests. Pure data, no I/O."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
)

from nelbo.errors import InvalidRequest, NotFound
from nelbo.rows import Rank

Kind = Literal["score", "generate", "augment", "reconstruct", "explain", "clean"]
"""The kinds of jobs that users submit."""
InternalKind = Literal["read", "verify"]
"""Jobs of one chunk that no user sees: they read an uploaded file or verify a pushed version."""
WHOLE_TABLE: frozenset[Kind] = frozenset({"explain", "clean"})
"""Kinds whose job is one chunk, because its result needs all rows at once."""
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Stage = Literal["work", "finish"]
"""The stage of a chunk: `work` processes rows, `finish` sums up the job after all its rows."""
ChunkState = Literal["queued", "running", "done", "failed", "cancelled"]

KINDS: tuple[Kind, ...] = get_args(Kind)
INTERNAL_KINDS: tuple[InternalKind, ...] = get_args(InternalKind)
STATES: tuple[State, ...] = get_args(State)
CHUNK_STATES: tuple[ChunkState, ...] = get_args(ChunkState)
UNFINISHED: tuple[State, ...] = ("queued", "running")
FINAL: frozenset[State] = frozenset(STATES) - frozenset(UNFINISHED)

JOB_TRANSITIONS: dict[State, frozenset[State]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}
CHUNK_TRANSITIONS: dict[ChunkState, frozenset[ChunkState]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"queued", "done", "failed", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}


def _whole(value: object) -> object:
    """JSON has one type of numbers, in which 7.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For an integer field of a strict model. It comes after the field's limits.

Before them, it would keep the limits out of the JSON schema.
"""
LARGEST_SEED = 2**63 - 1
MOST_COPIES = 1_000
"""Maximum number of copies of a row."""
MOST_EXPLAINED = 10_000
"""Maximum number of rows that one request explains."""
FRESH_SEEDS = 10**9
"""A fresh seed is below this number, so that it is short enough to type."""
Seed = Annotated[
    int | None,
    Field(
        ge=0,
        le=LARGEST_SEED,
        description="the same seed, version and row number make the same row; without one, each job"
        " has a fresh seed, which its params show",
        # A request without a seed has the same digest each time it is sent.
        exclude_if=lambda seed: seed is None,
    ),
    WHOLE,
]
Spread = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="0: near the source row, 1: anywhere in the table, as generate; a job's params"
        " leave it out where it is 0",
        # Without a spread, a request keeps the digest that it had before spreads existed, so that
        # its idempotency key still matches.
        exclude_if=lambda spread: spread == 0,
    ),
]
_Names = tuple[Annotated[str, Field(max_length=1_000)], ...]
Kept = Annotated[
    _Names,
    Field(
        max_length=1_000,
        strict=False,
        description="columns that each copy has from its row; a job's params leave it out where it"
        " is empty",
        # As for the spread.
        exclude_if=lambda keep: not keep,
    ),
]
WithIdentifiers = Annotated[
    bool,
    Field(
        description="whether the rows have new identifiers; without them, they have the modelled"
        " columns alone; a job's params leave it out where it is true",
        # As for the spread.
        exclude_if=lambda identifiers: identifiers,
    ),
]
Filled = Annotated[
    _Names,
    Field(
        max_length=1_000,
        strict=False,
        description="columns that are filled, all others stay as they are; empty: every column; a"
        " job's params leave it out where it is empty",
        # As for the spread.
        exclude_if=lambda columns: not columns,
    ),
]
LeavesUsual = Annotated[
    bool,
    Field(
        description="leave cells missing that the rest of their row lets expect to be missing; a"
        " job's params leave it out where it is false",
        # As for the spread.
        exclude_if=lambda leave_usual: not leave_usual,
    ),
]
Where = Annotated[
    tuple[Annotated[str, Field(max_length=10_000)], ...],
    Field(
        max_length=100,
        strict=False,
        description="conditions that each row meets, such as 'label = fraud', 'label in (a, b)',"
        " 'age between 30 and 40', 'date = 2024-05', 'income is missing'; 'and' joins several; a"
        " job's params leave it out where it is empty",
        examples=[["income = >50K", "age between 30 and 40"]],
        # As for the spread.
        exclude_if=lambda where: not where,
    ),
]
Like = Annotated[
    dict[Annotated[str, Field(max_length=1_000)], Any],
    Field(
        max_length=10_000,
        description="cells that each row has, {column: value}; the others are made",
        examples=[{"age": 39, "workclass": "Private"}],
        # As for the spread.
        exclude_if=lambda like: not like,
    ),
]
Balance = Annotated[
    str | None,
    Field(
        max_length=1_000,
        description="a column whose categories are made equally often",
        examples=["income"],
        # As for the spread.
        exclude_if=lambda balance: balance is None,
    ),
]
BalancedCopies = Annotated[
    str | None,
    Field(
        max_length=1_000,
        description="a column: each row gets as many copies that all categories have as many rows"
        " and copies as the most frequent one has rows; it decides instead of per_row",
        examples=["income"],
        # As for the spread.
        exclude_if=lambda balance: balance is None,
    ),
]
Weights = Annotated[
    dict[
        Annotated[str, Field(max_length=1_000)],
        Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(max_length=10_000)],
    ],
    Field(
        max_length=1,
        description="weights of one column's categories, {column: {category: weight}}",
        examples=[{"income": {"<=50K": 1, ">50K": 3}}],
        # As for the spread.
        exclude_if=lambda weights: not weights,
    ),
]
Percentile = Annotated[float, Field(ge=0, le=100)]
Rarity = Annotated[
    tuple[Percentile, Percentile] | None,
    Field(
        strict=False,
        description="two percentiles of the nelbo of held-out rows, such as 95 and 99.9: each row's"
        " nelbo is between them, so that it is rare but plausible; a job's params leave it out"
        " where it is null",
        examples=[[95, 99.9]],
        # As for the spread.
        exclude_if=lambda rarity: rarity is None,
    ),
]
RankedBy = Annotated[
    Rank,
    Field(
        description="score that ranks the anomalies: the surprise finds one wrong cell as well as a"
        " row that is odd all over, the nelbo is the bound on -log p(row) in nats; a job's params"
        " leave it out where it is surprise",
        # As for the spread.
        exclude_if=lambda rank: rank == "surprise",
    ),
]


def _require_kind(schema: dict[str, Any]) -> None:
    """Require the kind in a request, where only this field tells which class it is."""
    del schema["properties"]["kind"]["default"]
    schema.setdefault("required", []).append("kind")


class _Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, json_schema_extra=_require_kind
    )


class _OfModel(_Request):
    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=201,
            description="name, name@version or name@alias",
            examples=["adult"],
        ),
    ]


class OfRows(_Request):
    """A job about source rows: those of a ready file, or a few in the request itself."""

    file: Annotated[str | None, Field(max_length=100, description="id of a ready file")] = None
    rows: Annotated[
        list[dict[str, Any]] | None, Field(description="rows inline, each {column: value}")
    ] = None


class ScoreRequest(OfRows, _OfModel):
    """Score each row: its negative ELBO, and the surprise that p-values and anomalies rest on."""

    kind: Literal["score"] = "score"
    alpha: Annotated[
        float, Field(gt=0, lt=1, description="rows with p-value <= alpha are anomalies")
    ] = 0.01
    fdr: Annotated[
        float | None,
        Field(gt=0, lt=1, description="bound the false discovery rate instead of alpha"),
    ] = None
    explain: Annotated[
        bool,
        Field(
            description="keep the term and the surprise of each cell for every row, not only for"
            " the top anomalies"
        ),
    ] = False
    rank: RankedBy = "surprise"


class GenerateRequest(_OfModel):
    """Generate new rows: z from the prior, x from p(x|z); with conditions, rows that meet all of
    them. A condition that no row can meet is refused."""

    kind: Literal["generate"] = "generate"
    n: Annotated[int, Field(gt=0, description="number of rows to generate"), WHOLE]
    seed: Seed = None
    identifiers: WithIdentifiers = True
    where: Where = ()
    like: Like = {}
    balance: Balance = None
    weights: Weights = {}
    rarity: Rarity = None


class AugmentRequest(OfRows, _OfModel):
    """Make copies of source rows: z from q(z|x) of the row, x from p(x | z, kept cells).

    `spread` moves z from q(z|x) towards p(z). A copy keeps the row's cells of the columns `keep`
    and, with probability 1 - `spread`, its seldom categories. With `balance`, the column's
    categories become equally frequent.
    """

    kind: Literal["augment"] = "augment"
    per_row: Annotated[
        int, Field(gt=0, le=MOST_COPIES, description="copies of each row"), WHOLE
    ] = 1
    seed: Seed = None
    spread: Spread = 0.0
    keep: Kept = ()
    balance: BalancedCopies = None


class ReconstructRequest(OfRows, _OfModel):
    """Fill missing cells from the observed ones; with `denoise`, replace the observed cells too."""

    kind: Literal["reconstruct"] = "reconstruct"
    mode: Annotated[bool, Field(description="the most probable value instead of a draw")] = False
    denoise: Annotated[bool, Field(description="replace observed cells as well")] = False
    seed: Seed = None
    columns: Filled = ()
    leave_usual: LeavesUsual = False


class ExplainRequest(OfRows, _OfModel):
    """Find the cells that make rows odd, and what they should be; with `repair`, the fewest cells
    to change so that a row is ordinary."""

    kind: Literal["explain"] = "explain"
    top: Annotated[
        int,
        Field(gt=0, le=MOST_EXPLAINED, description="number of rows to explain, least likely first"),
        WHOLE,
    ] = 10
    row_numbers: Annotated[
        tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED), WHOLE], ...],
        Field(
            max_length=MOST_EXPLAINED,
            strict=False,
            description="numbers of the rows to explain, the first is 0; empty: the rows of `top`;"
            " a job's params leave it out where it is empty",
            # As for the spread.
            exclude_if=lambda numbers: not numbers,
        ),
    ] = ()
    columns: Annotated[
        int, Field(gt=0, le=10_000, description="maximum number of cells of each row"), WHOLE
    ] = 3
    rank: RankedBy = "surprise"
    repair: Annotated[
        bool,
        Field(description="the fewest cells to change so that a row is ordinary (p-value >= 0.05)"),
    ] = False
    seed: Annotated[
        int,
        Field(ge=0, le=LARGEST_SEED, description="the same rows and seed give the same answer"),
        WHOLE,
    ] = 0


class CleanRequest(OfRows):
    """Find the wrong cells of a table by models of the rest of its own rows. It needs no model."""

    kind: Literal["clean"] = "clean"
    alpha: Annotated[
        float, Field(gt=0, le=1, description="largest p-value of the rows that are listed")
    ] = 0.05
    quick: Annotated[bool, Field(description="take less than half the time, and find less")] = False
    seed: Annotated[
        int,
        Field(ge=0, le=LARGEST_SEED, description="the same table and seed give the same cells"),
        WHOLE,
    ] = 0


JobRequest = Annotated[
    ScoreRequest
    | GenerateRequest
    | AugmentRequest
    | ReconstructRequest
    | ExplainRequest
    | CleanRequest,
    Field(discriminator="kind"),
]


_Kind = TypeVar("_Kind", bound=BaseModel)


def checked_request(kind: Callable[..., _Kind], **fields: Any) -> _Kind:
    """A request with these fields. Raises InvalidRequest, which names the wrong field."""
    try:
        return kind(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise InvalidRequest(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        ) from None


def check_row_numbers(numbers: Iterable[int], rows: int, name: str) -> None:
    """Raise NotFound if a table with this number of rows lacks one of the numbered rows."""
    absent = max(numbers, default=-1)
    if absent >= rows:
        raise NotFound(f"{name} has no row {absent}; it has {rows:,}, and the first is row 0")


_Job = TypeVar("_Job", bound=_Request)


def with_seed(request: _Job) -> _Job:
    """The request; with a fresh seed, where it is of a kind that needs one and names none."""
    if getattr(request, "seed", 0) is not None:
        return request
    return request.model_copy(update={"seed": secrets.randbelow(FRESH_SEEDS)})


def seed_of(request: GenerateRequest | AugmentRequest | ReconstructRequest) -> int:
    """The seed of a request that `with_seed` gave."""
    assert request.seed is not None, "a request has a seed before its rows are drawn"
    return request.seed


def bounded_request(max_rows: int, max_columns: int) -> TypeAdapter[JobRequest]:
    """A parser of requests with limits on the number of inline rows and of their columns."""
    row = Annotated[dict[str, Any], Field(max_length=max_columns)]
    rows = Annotated[list[row] | None, Field(max_length=max_rows)]
    score, augment, reconstruct, explain, clean = (
        create_model(kind.__name__, __base__=kind, rows=(rows, None))
        for kind in (ScoreRequest, AugmentRequest, ReconstructRequest, ExplainRequest, CleanRequest)
    )
    kinds: Any = score | GenerateRequest | augment | reconstruct | explain | clean
    return TypeAdapter(Annotated[kinds, Field(discriminator="kind")])


def chunk_ranges(rows: int, chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Half-open row ranges that divide 0..rows into chunks of at most chunk_rows."""
    for start in range(0, rows, chunk_rows):
        yield start, min(start + chunk_rows, rows)
