"""The artifact: a folder with manifest.json and ONNX graphs, without any pickle.

It holds everything that scoring and generating need.
"""

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from nelbo.errors import InvalidArtifact, InvalidInput, NotFound
from nelbo.identifiers import Identifier, check_identifiers
from nelbo.schema import MAX_CATEGORIES, MAX_COLUMNS, Name, Schema
from nelbo.surprise import Surprise
from nelbo.ties import MOST_TIES, Tie, check_ties

FORMAT = 3
MANIFEST = "manifest.json"
TABLE_DIGEST = "table_sha256"
"""The key of `Manifest.data` under which training stores the digest of its table."""
MAX_MANIFEST_BYTES = 13 * 2**20
"""A manifest of 2,000 columns with 200 categories each takes 9 MiB."""
MAX_ARTIFACT_BYTES = 512 * 2**20
MAX_CALIBRATION = 100_000
MAX_POINTS = 4_096
MAX_TEXTS = 600_000
"""Maximum number of categories of all columns, the rarer ones included.

A service holds them in memory to answer.
"""
MAX_BATCH_BYTES = 256 * 2**20
"""Maximum size of an array of 8-byte cells for one batch, of columns, codes, draws or latents."""
REACH = 128
"""A tail extends p-values down to 1 / (REACH (n + 1)).

Further down, too many rows would be flagged.
"""

GRAPHS = ("score", "posterior", "prior", "generate")
ALL_GRAPHS = (*GRAPHS, "spread")
"""Older artifacts have no `spread`."""

_MAX_COUNTS = {b"{": 50_000, b"[": 200_000, b",": 2_000_000}
"""Maximum number of objects, lists and values in the text of a manifest.

A parser takes up to 700, 300 and 60 bytes for each.
"""
_MAX_VALUES = 1_000
_MAX_DEPTH = 8
_MAX_TEXT = 10_000

Word = Annotated[str, Field(max_length=100)]
Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Codes = Annotated[tuple[NonNegativeInt, ...], Field(max_length=MAX_CATEGORIES), FailFast()]
OfColumn = Annotated[tuple[Tie, ...], Field(max_length=MOST_TIES), FailFast()]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse free-form values that are too many, too deeply nested, too long or not finite."""
    nested: list[tuple[Any, int]] = [(values, 0)]
    for value, depth in nested:
        parts: list[Any] = []
        if isinstance(value, dict):
            parts = [*value.keys(), *value.values()]
        elif isinstance(value, list):
            parts = value
        if len(nested) + len(parts) > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(
                f"at most {_MAX_VALUES:,} values are allowed, nested at most {_MAX_DEPTH} deep"
            )
        nested += ((part, depth + 1) for part in parts)

        match value:
            case str() if len(value) > _MAX_TEXT:
                raise ValueError(
                    f"a text has {len(value):,} characters; at most {_MAX_TEXT:,} are allowed"
                )
            case float() if not math.isfinite(value):
                raise ValueError("a number is not finite")
            case int() if abs(value) >= 2**64:
                raise ValueError("a number is larger than 2**64")
    return values


def is_plain(name: str) -> bool:
    """Whether this is a plain file name, which never leads out of the folder, on any system."""
    return re.fullmatch(r"[0-9A-Za-z_-][0-9A-Za-z._-]*", name) is not None


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"{name!r} is not a plain file name, such as score.onnx")
    return name


Free = Annotated[dict[str, Any], Field(max_length=_MAX_VALUES), AfterValidator(_bounded)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Graph(_Frozen):
    """An ONNX file, its digest, and the names of its inputs and outputs in order."""

    file: Annotated[str, Field(max_length=100), AfterValidator(_plain)]
    sha256: Annotated[str, Field(max_length=64)]
    inputs: Annotated[tuple[Word, ...], Field(max_length=16)]
    outputs: Annotated[tuple[Word, ...], Field(max_length=16)]


class Tail(_Frozen):
    """Peaks over a threshold: the distribution of the calibration scores above `threshold`.

    The excesses over the threshold follow a mixture of generalised Pareto distributions.
    `components` are their (weight, shape, scale); the weights are the likelihoods given the
    excesses and add up to one. `fit_p_value`, named `fit` in the manifest, is the p-value of the
    test that the mixture fits the excesses; the tail is used only where it does.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    threshold: FiniteFloat
    excesses: Annotated[int, Field(ge=0, le=MAX_CALIBRATION)]
    components: Annotated[
        tuple[tuple[FiniteFloat, FiniteFloat, Scale], ...], Field(max_length=1_000), FailFast()
    ]
    fit_p_value: FiniteFloat = Field(alias="fit")
    used: bool


class Calibration(_Frozen):
    """The surprises of calibration rows, ascending, from which p-values are counted; nelbos in
    artifacts of an older Nelbo.

    Training uses these rows for nothing else. A `tail` extends the p-values above the highest
    surprise, where training was asked for one and had enough excesses.
    """

    method: Literal["split", "cross-conformal"]
    scores: Annotated[tuple[FiniteFloat, ...], Field(max_length=MAX_CALIBRATION), FailFast()]
    tail: Tail | None = None

    @property
    def used_tail(self) -> Tail | None:
        return self.tail if self.tail is not None and self.tail.used else None

    @property
    def smallest(self) -> float:
        """The smallest p-value that a row can have."""
        return 1.0 / (len(self.scores) + 1.0) / (REACH if self.used_tail else 1.0)


class Domain(_Frozen):
    """What a model makes in a column: numbers from `low` to `high`, which the training rows reach,
    or all categories but those with the codes `never`, which too few rows hold; and missing values,
    if `missing`. Datetimes are in microseconds since the epoch."""

    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    never: Codes = ()
    missing: bool = True


class Manifest(_Frozen):
    """The content of manifest.json.

    - `order`: the modelled columns in the decoder's order, which is the order of the terms.
    - `codes`: the number of codes that the decoder draws per row, where it exceeds the number of
      columns, because a datetime may have several.
    - `latent`: the size of z.
    - `points`: the number of noise points per row.
    - `members`: the weight of each bound in a row's score.
    - `batch`: the fixed number of rows that the graphs take at a time.
    - `surprise`: what turns costs into surprises; None in artifacts of an older Nelbo, whose rows
      are judged by their nelbo and cells by their terms.
    - `seldom`: of categorical columns, the codes that few training rows hold and that may be
      generated; a copy keeps them.
    - `identifiers`: how the columns of identifiers are made; artifacts of an older Nelbo make none.
    - `ties`: which categories of a column with many of them go with which values of other columns.
    - `domains`: what is made in each column; older artifacts do not say it.
    - `draws`: the uniform numbers that a row consumes: `z` for its latent, `x` for its cells.
    """

    format: int = FORMAT
    name: Name
    table_schema: Schema
    order: Annotated[tuple[Name, ...], Field(max_length=MAX_COLUMNS), FailFast()]
    codes: Annotated[int, Field(ge=1, le=16 * MAX_COLUMNS)] | None = None
    likelihoods: Annotated[dict[Name, Text], Field(max_length=MAX_COLUMNS)]
    graphs: Annotated[dict[Word, Graph], Field(max_length=len(ALL_GRAPHS))]
    latent: Annotated[int, Field(ge=1, le=1_024)]
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    members: dict[Literal["vae", "exemplars"], Share] = {"vae": 1.0, "exemplars": 0.0}
    batch: Annotated[int, Field(ge=1, le=4_096)]
    draws: dict[Literal["z", "x"], Annotated[int, Field(ge=0, le=64 * MAX_COLUMNS)]]
    calibration: Calibration
    surprise: Surprise | None = None
    seldom: Annotated[dict[Name, Codes], Field(max_length=MAX_COLUMNS)] = {}
    identifiers: Annotated[dict[Name, Identifier], Field(max_length=MAX_COLUMNS)] = {}
    ties: Annotated[dict[Name, OfColumn], Field(max_length=MAX_COLUMNS)] = {}
    domains: Annotated[dict[Name, Domain], Field(max_length=MAX_COLUMNS)] = {}
    seed: Annotated[int, Field(gt=-(2**64), lt=2**64)]
    data: Free
    libraries: Annotated[dict[Word, Word], Field(max_length=100)]
    config: Free
    metrics: Annotated[dict[Word, FiniteFloat], Field(max_length=1_000)]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        columns = self.table_schema.modelled
        if not set(GRAPHS) <= set(self.graphs) <= set(ALL_GRAPHS):
            raise ValueError(
                f"its graphs are {', '.join(self.graphs)}; an artifact has {', '.join(GRAPHS)} and"
                " maybe spread"
            )
        if sorted(self.order) != sorted(column.name for column in columns):
            raise ValueError("order does not name each modelled column of table_schema once")
        check_identifiers(self.identifiers, self.table_schema)
        check_ties(self.ties, self.table_schema)
        if self.ties and self.draws.get("x", 0) < len(self.table_schema.categoricals):
            raise ValueError("draws has no number for each column with ties")
        if self.surprise and len(self.surprise.members) != self.scoring_members:
            raise ValueError("surprise has another number of members than the score")
        if self.surprise and len(self.surprise.columns) != len(self.order):
            raise ValueError("surprise has another number of columns than order")
        if self.table_schema.rules:
            if self.surprise and not self.surprise.has_rules:
                raise ValueError("surprise says nothing of broken rules")
            if self.order != tuple(column.name for column in columns):
                raise ValueError("rules need the columns in the order of table_schema")
        if set(self.draws) != {"z", "x"}:
            raise ValueError("draws does not give a number for z and for x")
        if (texts := self.table_schema.texts) > MAX_TEXTS:
            raise ValueError(
                f"table_schema has {texts:,} categories in all; at most {MAX_TEXTS:,} are allowed"
            )
        widest = max(len(columns), self.codes or 0, self.latent, sum(self.draws.values()))
        if 8 * self.batch * widest > MAX_BATCH_BYTES:
            raise ValueError(
                f"a batch of {self.batch:,} rows with {widest:,} numbers each takes more than"
                f" {MAX_BATCH_BYTES // 2**20} MiB"
            )
        if max(self.codes or 0, self.draws["x"]) > 64 * len(columns):
            raise ValueError(
                f"codes or draws are more than 64 for each of {len(columns):,} columns"
            )
        return self

    @property
    def scoring_members(self) -> int:
        """The number of members with a part in the score."""
        return sum(weight > 0 for weight in self.members.values())

    @property
    def table_digest(self) -> str | None:
        """nelbo.files.Digest of the training table; None for artifacts of an older Nelbo."""
        digest = self.data.get(TABLE_DIGEST)
        return digest if isinstance(digest, str) else None


@dataclass(frozen=True)
class Artifact:
    """A folder whose files match its manifest.

    `digest` (SHA-256 of manifest.json) identifies the whole artifact.
    """

    folder: Path
    manifest: Manifest
    digest: str

    def graph(self, name: str) -> Path:
        return self.folder / self.manifest.graphs[name].file


def is_artifact(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_artifact(folder: Path) -> Artifact:
    """Read and verify an artifact.

    Raises NotFound, or InvalidArtifact where a file does not match the manifest.
    """
    try:
        with (folder / MANIFEST).open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"no artifact in {folder}: it holds no {MANIFEST}; `nelbo train` writes one"
        ) from None
    artifact = Artifact(folder, parse_manifest(text), digest_of(text))
    verify_graphs(artifact)
    return artifact


def parse_manifest(text: bytes) -> Manifest:
    """The manifest. Raises InvalidArtifact, which names a newer format or the first wrong field."""
    if not is_parsable(text):
        raise InvalidArtifact(
            f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB or holds too many values;"
            " train with a smaller max_categories"
        )
    try:
        version = _FormatOnly.model_validate_json(text).format
        if version > FORMAT:
            raise InvalidArtifact(
                f"the artifact has format {version}, this Nelbo reads up to {FORMAT}; install a"
                " newer Nelbo to use it"
            )
        return Manifest.model_validate_json(text)
    except ValidationError as problem:
        raise _damaged(problem) from None


def is_parsable(text: bytes) -> bool:
    """Whether a manifest's text is small enough to be parsed with little memory."""
    return len(text) <= MAX_MANIFEST_BYTES and all(
        text.count(sign) <= limit for sign, limit in _MAX_COUNTS.items()
    )


def check_manifest(values: Mapping[str, Any]) -> Manifest:
    """A manifest from parsed values, with the same limits. Raises InvalidArtifact."""
    try:
        return Manifest.model_validate(values)
    except ValidationError as problem:
        raise _damaged(problem) from None


def _damaged(problem: ValidationError) -> InvalidArtifact:
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part)[:100] for part in first["loc"]) or "the file"
    reason = first["msg"].removeprefix("Value error, ")[:300]
    return InvalidArtifact(
        f"{MANIFEST} is damaged at {field[:200]}: {reason}; train or push the model again"
    )


def check_kept(columns: Collection[str], keep: Iterable[str]) -> None:
    """Raise InvalidInput where a copy should keep a column that the model does not have."""
    for name in keep:
        if name not in columns:
            raise InvalidInput(
                f"the model has no column {name!r} to keep; its columns are {', '.join(columns)}"
            )


def check_filled(schema: Schema, columns: Iterable[str]) -> None:
    """Raise InvalidInput where a column should be filled that the model does not make."""
    names = [column.name for column in schema.modelled]
    for name in columns:
        if name not in names:
            raise InvalidInput(
                f"the model has no column {name!r} to fill; it makes {', '.join(names)}"
            )


def check_spread(graphs: Collection[str], spread: float) -> None:
    """Raise InvalidInput where a spread is requested but the artifact has no such graph."""
    if spread and "spread" not in graphs:
        raise InvalidInput(
            f"the model was trained by an older Nelbo and cannot use the spread {spread:g}: train"
            " it again, or leave the spread at 0"
        )


def digest_of(content: bytes) -> str:
    """The SHA-256 of a manifest, which identifies the whole artifact, or of a graph."""
    return hashlib.sha256(content).hexdigest()


def files_of(manifest: Manifest) -> tuple[str, ...]:
    """The names of the files that a service needs, all in one folder."""
    return (MANIFEST, *(graph.file for graph in manifest.graphs.values()))


def verify_graphs(artifact: Artifact) -> None:
    """Raise InvalidArtifact where a graph's file is absent or does not match the manifest."""
    for name, graph in artifact.manifest.graphs.items():
        _verify(artifact.folder, name, graph)


def _verify(folder: Path, name: str, graph: Graph) -> None:
    try:
        with (folder / graph.file).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidArtifact(
            f"the artifact lacks {graph.file}; copy the whole folder or train again"
        ) from None
    if digest != graph.sha256:
        raise InvalidArtifact(
            f"{graph.file} is not what the manifest says (sha256 {digest[:12]}…, expected"
            f" {graph.sha256[:12]}…); it was changed or damaged: copy it again or train again"
        )


class _FormatOnly(BaseModel):
    format: int
