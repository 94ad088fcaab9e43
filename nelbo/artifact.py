"""The artifact: a folder with manifest.json and ONNX graphs, everything that scoring and generating need. No pickle."""

import hashlib
import io
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveFloat, ValidationError

from nelbo.errors import InvalidArtifact, InvalidInput, NotFound
from nelbo.schema import Schema

FORMAT = 1
MANIFEST = "manifest.json"
MAX_UNPACKED_BYTES = 512 * 2**20
GRAPHS = ("score", "posterior", "prior", "generate")
REACH = 128
"""How many times smaller than 1 / (n + 1) a tail makes p-values: further down too many rows would be flagged."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Graph(_Frozen):
    """An ONNX file of the artifact with its digest, and the names of its inputs and outputs in order."""

    file: str
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Tail(_Frozen):
    """Peaks over a threshold: generalised Pareto distributions of the calibration scores' excesses over `threshold`.

    `components` are (weight, shape, scale) of each, the weights adding up to one: how likely the excesses make it. `fit` is the
    p-value of the check that such distributions fit the excesses; only where they do is the tail used.
    """

    threshold: FiniteFloat
    excesses: int
    components: tuple[tuple[FiniteFloat, FiniteFloat, PositiveFloat], ...]
    fit: FiniteFloat
    used: bool


class Calibration(_Frozen):
    """Nelbos, ascending, of rows that touched nothing else in training; p-values count them. A tail, where training was asked
    for one and there were excesses enough, goes on above the highest."""

    method: Literal["split", "cross-conformal"]
    scores: tuple[float, ...]
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

    `order` names the modelled columns in the decoder's order, which is the order of the terms; `codes` says how many codes the
    decoder draws for a row, where those are more, as a datetime may have several; `latent` is the size of z,
    `points` the number of noise points per row, `members` each bound's weight in a row's score, `batch` the one number of
    rows that the graphs take at a time; `draws` are the uniform numbers that one row consumes: `z` for its latent, `x` for
    its cells.
    """

    format: int = FORMAT
    name: str
    table_schema: Schema
    order: tuple[str, ...]
    codes: int | None = None
    likelihoods: dict[str, str]
    graphs: dict[str, Graph]
    latent: int
    points: int
    members: dict[Literal["vae", "exemplars"], float] = {"vae": 1.0, "exemplars": 0.0}
    batch: int
    draws: dict[Literal["z", "x"], int]
    calibration: Calibration
    seed: int
    data: dict[str, Any]
    libraries: dict[str, str]
    config: dict[str, Any]
    metrics: dict[str, float]

    @property
    def table_digest(self) -> str | None:
        """nelbo.files.Digest of the table that was trained on; None where an older Nelbo trained."""
        found = self.data.get("table_sha256")
        return found if isinstance(found, str) else None


@dataclass(frozen=True)
class Artifact:
    """A folder whose files are what its manifest says; `digest` (sha256 of manifest.json) names the whole."""

    folder: Path
    manifest: Manifest
    digest: str

    def graph(self, name: str) -> Path:
        return self.folder / self.manifest.graphs[name].file


class Version(BaseModel):
    """An artifact that is registered under a model's name, as anyone sees it. Times are seconds since the epoch."""

    model: str
    version: int
    state: Literal["pending", "ready", "rejected"]
    reason: str | None = None
    """Why a pushed version was rejected."""
    digest: str
    created_at: float


class VersionDetails(Version):
    """A version with what its manifest says of the table it wants and of its quality."""

    table_schema: Schema
    metrics: dict[str, float]
    smallest_p_value: float
    """No row can be an anomaly at a smaller alpha."""
    table_digest: str | None = None
    """That of the table that was trained on, as an uploaded file has one."""


def details(version: Version, manifest: Manifest) -> VersionDetails:
    return VersionDetails(
        **version.model_dump(),
        table_schema=manifest.table_schema,
        metrics=manifest.metrics,
        smallest_p_value=manifest.calibration.smallest,
        table_digest=manifest.table_digest,
    )


class Model(BaseModel):
    """A model's name, the numbers of its versions, and its aliases; `champion` is what the plain name means."""

    name: str
    versions: tuple[int, ...]
    """Their numbers, ascending."""
    aliases: dict[str, int]
    created_at: float


def is_artifact(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def read_artifact(folder: Path) -> Artifact:
    """Read and verify an artifact. Raises NotFound, or InvalidArtifact where a file is not what the manifest says."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no artifact in {folder}: it holds no {MANIFEST}; `nelbo train` writes one") from None
    manifest = parse_manifest(text)
    for name, graph in manifest.graphs.items():
        _verify(folder, name, graph)
    return Artifact(folder, manifest, digest_of(text))


def parse_manifest(text: bytes) -> Manifest:
    """The manifest, or InvalidArtifact that names a newer format or the first wrong field."""
    try:
        found = _FormatOnly.model_validate_json(text).format
        if found > FORMAT:
            raise InvalidArtifact(
                f"the artifact has format {found}, this Nelbo reads up to {FORMAT}; install a newer Nelbo to use it"
            )
        manifest = Manifest.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidArtifact(f"{MANIFEST} is damaged at {where}: {first['msg']}; train or push the model again") from None
    missing = sorted(set(GRAPHS) - set(manifest.graphs))
    if missing:
        raise InvalidArtifact(f"{MANIFEST} lacks the graph {missing[0]!r}; train or push the model again")
    return manifest


def check_spread(graphs: Collection[str], spread: float) -> None:
    """Raise InvalidInput where a spread is asked of an artifact whose graphs, by name, know none."""
    if spread and "spread" not in graphs:
        raise InvalidInput(
            f"the model was trained before there was a spread, and this asks for one of {spread:g}: train it again, or leave"
            " the spread at 0"
        )


def digest_of(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()


def files_of(manifest: Manifest) -> tuple[str, ...]:
    """Names of the files that a service needs, all in one folder."""
    return (MANIFEST, *(graph.file for graph in manifest.graphs.values()))


def pack(folder: Path) -> bytes:
    """The artifact's files as one zip (stored, fixed time stamps, so that equal artifacts give equal bytes)."""
    artifact = read_artifact(folder)
    extra = [name for name in ("MODEL_CARD.md",) if (folder / name).is_file()]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in (*files_of(artifact.manifest), *extra):
            archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
    return packed.getvalue()


def unpack(packed: Path, folder: Path) -> Artifact:
    """Unpack a zip made by `pack` into an empty folder and verify it; nothing is written outside the folder."""
    try:
        with zipfile.ZipFile(packed) as archive:
            members = list(_safe_members(archive))
            folder.mkdir(parents=True, exist_ok=True)
            for member in members:
                (folder / member.filename).write_bytes(archive.read(member))
    except zipfile.BadZipFile:
        raise InvalidArtifact("the upload is not a zip of an artifact; push the folder with `nelbo push`") from None
    return read_artifact(folder)


def _safe_members(archive: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    total = 0
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if len(path.parts) != 1 or path.name in ("", "..") or "\\" in member.filename:
            raise InvalidArtifact(f"the zip holds {member.filename!r}; an artifact's files stand in no folder")
        total += member.file_size
        if total > MAX_UNPACKED_BYTES:
            raise InvalidArtifact(f"the artifact unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MiB")
        yield member


def _verify(folder: Path, name: str, graph: Graph) -> None:
    if PurePosixPath(graph.file).name != graph.file:
        raise InvalidArtifact(f"graph {name!r} names {graph.file!r}, which is not a plain file name")
    try:
        found = hashlib.sha256((folder / graph.file).read_bytes()).hexdigest()
    except FileNotFoundError:
        raise InvalidArtifact(f"the artifact in {folder} lacks {graph.file}; copy the whole folder or train again") from None
    if found != graph.sha256:
        raise InvalidArtifact(
            f"{graph.file} in {folder} is not what the manifest says (sha256 {found[:12]}…, wanted {graph.sha256[:12]}…);"
            " it was changed or damaged: copy it again or train again"
        )


class _FormatOnly(BaseModel):
    format: int
