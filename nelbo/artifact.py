"""The artifact: a folder with manifest.json and ONNX graphs, everything that scoring and generating
need. No pickle."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
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
    PositiveFloat,
    ValidationError,
    model_validator,
)

from nelbo.errors import InvalidArtifact, InvalidInput, NotFound
from nelbo.schema import MAX_COLUMNS, Name, Schema

FORMAT = 1
MANIFEST = "manifest.json"
TABLE_DIGEST = "table_sha256"
"""The key of `Manifest.data` under which training keeps the digest of its table."""
MAX_MANIFEST_BYTES = 12 * 2**20
"""2,000 columns of 200 categories take 9 MiB."""
MAX_ARTIFACT_BYTES = 512 * 2**20
MAX_CALIBRATION = 100_000
MAX_POINTS = 4_096
MAX_TEXTS = 600_000
"""Categories of all columns together, the rarer ones included: a service holds them in memory to
answer."""
MAX_BATCH_BYTES = 256 * 2**20
"""The largest array of 8-byte cells for one batch, of columns, codes, draws or the latent."""
REACH = 128
"""How many times smaller than 1 / (n + 1) a tail makes p-values: further down too many rows would
be flagged."""

GRAPHS = ("score", "posterior", "prior", "generate")
ALL_GRAPHS = (*GRAPHS, "spread")
"""Older artifacts have no `spread`."""

_MOST = {b"{": 50_000, b"[": 200_000, b",": 2_000_000}
"""Objects, lists and values in the text of a manifest: a parser takes up to 700, 300 and 60 bytes
for each."""
_MAX_VALUES, _MAX_DEPTH, _MAX_TEXT = 1_000, 8, 10_000

Word = Annotated[str, Field(max_length=100)]
Text = Annotated[str, Field(max_length=_MAX_TEXT)]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[PositiveFloat, Field(allow_inf_nan=False)]


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse free-form values of which there are too many, or which are nested too deeply, too long
    or not finite."""
    todo: list[tuple[Any, int]] = [(values, 0)]
    for value, depth in todo:
        parts = (
            [*value.keys(), *value.values()]
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else []
        )
        if len(todo) + len(parts) > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(
                f"at most {_MAX_VALUES:,} values are allowed, nested at most {_MAX_DEPTH} deep"
            )
        todo += ((part, depth + 1) for part in parts)
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
    """Whether a file of this name lies in the folder itself, on every system."""
    return re.fullmatch(r"[0-9A-Za-z_-][0-9A-Za-z._-]*", name) is not None


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError(f"{name!r} is not a plain file name, such as score.onnx")
    return name


Free = Annotated[dict[str, Any], Field(max_length=_MAX_VALUES), AfterValidator(_bounded)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Graph(_Frozen):
    """An ONNX file of the artifact with its digest, and the names of its inputs and outputs in
    order."""

    file: Annotated[str, Field(max_length=100), AfterValidator(_plain)]
    sha256: Annotated[str, Field(max_length=64)]
    inputs: Annotated[tuple[Word, ...], Field(max_length=16)]
    outputs: Annotated[tuple[Word, ...], Field(max_length=16)]


class Tail(_Frozen):
    """Peaks over a threshold: generalised Pareto distributions of the calibration scores' excesses
    over `threshold`.

    `components` are (weight, shape, scale) of each, the weights adding up to one: how likely the
    excesses make it. `fit_p_value`, named `fit` in the manifest, is that of the check that such
    distributions fit the excesses; only where they do is the tail used.
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
    """Nelbos, ascending, of rows that touched nothing else in training; p-values count them. A
    tail, where training was asked for one and there were excesses enough, goes on above the
    highest."""

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


class Manifest(_Frozen):
    """What manifest.json says.

    `order` names the modelled columns in the decoder's order, which is the order of the terms;
    `codes` says how many codes the decoder draws for a row, where those are more, as a datetime may
    have several; `latent` is the size of z, `points` the number of noise points per row, `members`
    each bound's weight in a row's score, `batch` the one number of rows that the graphs take at a
    time; `draws` are the uniform numbers that one row consumes: `z` for its latent, `x` for its
    cells.
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
    def table_digest(self) -> str | None:
        """nelbo.files.Digest of the table that was trained on; None where an older Nelbo
        trained."""
        digest = self.data.get(TABLE_DIGEST)
        return digest if isinstance(digest, str) else None


@dataclass(frozen=True)
class Artifact:
    """A folder whose files are what its manifest says; `digest` (sha256 of manifest.json) names the
    whole."""

    folder: Path
    manifest: Manifest
    digest: str

    def graph(self, name: str) -> Path:
        return self.folder / self.manifest.graphs[name].file


def is_artifact(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_artifact(folder: Path) -> Artifact:
    """Read and verify an artifact. Raises NotFound, or InvalidArtifact where a file is not what the
    manifest says."""
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
    """The manifest, or InvalidArtifact that names a newer format or the first wrong field."""
    if not is_parsable(text):
        raise InvalidArtifact(
            f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB or holds too many values;"
            " train with a smaller"
            " max_categories"
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
    """Whether a manifest's text is so small that parsing it takes little memory."""
    return len(text) <= MAX_MANIFEST_BYTES and all(
        text.count(sign) <= most for sign, most in _MOST.items()
    )


def check_manifest(values: Mapping[str, Any]) -> Manifest:
    """A manifest that was parsed before, with the same bounds. Raises InvalidArtifact."""
    try:
        return Manifest.model_validate(values)
    except ValidationError as problem:
        raise _damaged(problem) from None


def _damaged(problem: ValidationError) -> InvalidArtifact:
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part)[:100] for part in first["loc"]) or "the file"
    what = first["msg"].removeprefix("Value error, ")[:300]
    return InvalidArtifact(
        f"{MANIFEST} is damaged at {field[:200]}: {what}; train or push the model again"
    )


def check_spread(graphs: Collection[str], spread: float) -> None:
    """Raise InvalidInput where a spread is asked of an artifact whose graphs, by name, know
    none."""
    if spread and "spread" not in graphs:
        raise InvalidInput(
            f"the model was trained before there was a spread, and this asks for one of {spread:g}:"
            " train it again, or leave"
            " the spread at 0"
        )


def digest_of(content: bytes) -> str:
    """Of a manifest, which names the whole artifact, or of a graph."""
    return hashlib.sha256(content).hexdigest()


def files_of(manifest: Manifest) -> tuple[str, ...]:
    """Names of the files that a service needs, all in one folder."""
    return (MANIFEST, *(graph.file for graph in manifest.graphs.values()))


def verify_graphs(artifact: Artifact) -> None:
    """Raise InvalidArtifact where a graph's file is absent or not what the manifest says."""
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
            f"{graph.file} is not what the manifest says (sha256 {digest[:12]}…, wanted"
            f" {graph.sha256[:12]}…);"
            " it was changed or damaged: copy it again or train again"
        )


class _FormatOnly(BaseModel):
    format: int
