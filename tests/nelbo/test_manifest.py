"""Every number, list and text of a manifest has a bound: it admits what training makes, and refuses
one more."""

import base64
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nelbo import identifiers
from nelbo.artifact import (
    MAX_BATCH_BYTES,
    MAX_CALIBRATION,
    MAX_MANIFEST_BYTES,
    MAX_POINTS,
    MAX_TEXTS,
    parse_manifest,
)
from nelbo.errors import InvalidArtifact
from nelbo.schema import MAX_CATEGORIES, MAX_COLUMNS, MAX_RARER
from nelbo.settings import Settings
from nelbo.spelling.numbers import LONGEST
from tests.artifacts import largest_manifest, linear_artifact
from training.config import Config
from training.data import MOST_RARER

KEPT = Path(__file__).parents[1] / "data" / "artifact-format-1" / "manifest.json"
Edit = Callable[[dict[str, Any], int], None]


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = linear_artifact(tmp_path_factory.mktemp("manifest") / "artifact")
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return found | {"identifiers": {}}


def columns(manifest: dict[str, Any], count: int, **more: Any) -> None:
    """Let the manifest be of so many categorical columns."""
    names = [f"c{at}" for at in range(count)]
    manifest["table_schema"]["columns"] = [
        {"name": name, "kind": "categorical", **more} for name in names
    ]
    manifest["order"], manifest["likelihoods"] = names, dict.fromkeys(names, "categorical")


def at(*path: str | int) -> Edit:
    """An edit that sets a number."""

    def edit(manifest: Any, value: int) -> None:
        for part in path[:-1]:
            manifest = manifest[part]
        manifest[path[-1]] = value

    return edit


def sized(*path: str | int, of: Callable[[int], Any]) -> Edit:
    """An edit that sets what `of` makes of a size."""
    return lambda manifest, size: at(*path)(manifest, of(size))


def column(field: str, of: Callable[[int], Any]) -> Edit:
    """An edit of the field of a column that is no part of the model's order."""
    return sized("table_schema", "columns", 0, field, of=of)


def texts(count: int) -> list[str]:
    return [f"{number:x}" for number in range(count)]


def pairs(count: int) -> list[tuple[str, int]]:
    return [(text, 5) for text in texts(count)]


def rarer_in_clusters(manifest: dict[str, Any], count: int) -> None:
    column("rarer", pairs)(manifest, min(count, MAX_RARER))
    column("clusters", lambda size: [0] * size)(manifest, count)


def named(count: int) -> dict[str, float]:
    return dict.fromkeys(texts(count), 1.0)


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


def tail(manifest: dict[str, Any], count: int) -> None:
    parts = {
        "threshold": 1.0,
        "components": [(0.1, 0.1, 1.0)] * count,
        "excesses": 50,
        "fit": 0.5,
        "used": True,
    }
    manifest["calibration"]["tail"] = parts


BOUNDS: dict[str, tuple[Edit, int]] = {
    "latent": (at("latent"), 1_024),
    "points": (at("points"), MAX_POINTS),
    "batch": (at("batch"), 4_096),
    "codes": (at("codes"), 64 * 4),
    "draws.z": (at("draws", "z"), 64 * MAX_COLUMNS),
    "draws.x": (at("draws", "x"), 64 * 4),
    "seed": (at("seed"), 2**64 - 1),
    "name": (sized("name", of=lambda size: "n" * size), 1_000),
    "graph file": (sized("graphs", "score", "file", of=lambda size: "f" * size), 100),
    "graph digest": (sized("graphs", "score", "sha256", of=lambda size: "0" * size), 64),
    "graph inputs": (sized("graphs", "score", "inputs", of=texts), 16),
    "graph outputs": (sized("graphs", "score", "outputs", of=texts), 16),
    "graph input": (sized("graphs", "score", "inputs", 0, of=lambda size: "i" * size), 100),
    "columns": (columns, MAX_COLUMNS),
    "column name": (column("name", lambda size: "n" * size), 1_000),
    "categories": (column("categories", texts), MAX_CATEGORIES),
    "rarer": (column("rarer", pairs), MAX_RARER),
    "clusters": (rarer_in_clusters, MAX_RARER),
    "missing": (column("missing", texts), 1_000),
    "missing of all": (sized("table_schema", "missing", of=texts), 1_000),
    "step": (column("step", int), 10**14),
    "date format": (column("format", lambda size: "%" * size), 100),
    "arrow type": (column("type", lambda size: "t" * size), 1_000),
    "since": (lambda manifest, size: columns_since(manifest, "s" * size), 1_000),
    "digits": (column("number", lambda size: {"digits": size}), LONGEST),
    "prefix": (column("number", lambda size: {"prefix": "$" * size}), LONGEST),
    "suffix": (column("number", lambda size: {"suffix": "$" * size}), LONGEST),
    "words": (column("words", lambda size: ["no", "y" * size]), 1_000),
    "likelihoods": (
        sized("likelihoods", of=lambda size: dict.fromkeys(texts(size), "bins")),
        MAX_COLUMNS,
    ),
    "likelihood": (sized("likelihoods", "length", of=lambda size: "b" * size), 10_000),
    "scores": (sized("calibration", "scores", of=lambda size: [1.5] * size), MAX_CALIBRATION),
    "tail": (tail, 1_000),
    "metrics": (sized("metrics", of=named), 1_000),
    "libraries": (sized("libraries", of=lambda size: dict.fromkeys(texts(size), "1.0")), 100),
    "prefix of identifiers": (
        lambda manifest, size: manifest["identifiers"].update(
            id={"rows": 9, "consecutive": {"first": 1, "prefix": "p" * size}}
        ),
        identifiers.LONGEST,
    ),
    "templates": (
        lambda manifest, size: manifest["identifiers"].update(
            id={"rows": 9, "templates": [{"rows": 1, "segments": [{"words": ["a"]}]}] * size}
        ),
        identifiers.MOST_TEMPLATES,
    ),
    "words of a segment": (
        lambda manifest, size: template(
            manifest, segments=[{"words": [chr(100 + at) for at in range(size)]}]
        ),
        identifiers.MOST_WORDS,
    ),
    "buckets": (
        lambda manifest, size: template(
            manifest,
            buckets=size,
            used=base64.b64encode(bytes(-(-size // 8))).decode(),
        ),
        identifiers.MOST_BUCKETS,
    ),
    "values of data": (sized("data", of=lambda size: {"a": [0] * (size - 3)}), 1_000),
    "values of config": (sized("config", of=lambda size: {"a": [0] * (size - 3)}), 1_000),
    "depth of config": (sized("config", of=nested), 8),
    "text of config": (sized("config", of=lambda size: {"a": "t" * size}), 10_000),
    "texts in all": (lambda manifest, size: of_texts(manifest, size), MAX_TEXTS),
}


def template(manifest: dict[str, Any], **parts: Any) -> None:
    """Let the manifest have an identifier with a template."""
    digits = {"words": list("0123456789")}
    templates = [{"rows": 1, "segments": [digits] * 9} | parts]
    manifest["identifiers"] = {"id": {"rows": 9, "templates": templates}}


def columns_since(manifest: dict[str, Any], name: str) -> None:
    columns(manifest, 1)
    manifest["table_schema"]["columns"] = [
        {"name": name, "kind": "datetime"},
        {"name": "b", "kind": "datetime", "since": name},
    ]
    manifest["order"] = [name, "b"]


def of_texts(manifest: dict[str, Any], count: int) -> None:
    columns(manifest, 100, categories=texts(count // 100))
    manifest["table_schema"]["columns"][0]["categories"] = texts(count // 100 + count % 100)


def text_of(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest).encode()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_met_exactly_and_one_more_is_refused(linear: dict[str, Any], name: str) -> None:
    edit, most = BOUNDS[name]
    manifest = json.loads(text_of(linear))
    edit(manifest, most)
    parse_manifest(text_of(manifest))
    edit(manifest, most + 1)
    with pytest.raises(InvalidArtifact, match=r"damaged|too many"):
        parse_manifest(text_of(manifest))


@pytest.mark.parametrize("field", ["latent", "points", "batch"])
@pytest.mark.parametrize("value", [0, -1, -(10**30), 1.5, "many", None])
def test_a_number_that_is_no_number_of_things_is_refused(
    linear: dict[str, Any], field: str, value: object
) -> None:
    with pytest.raises(InvalidArtifact, match=field):
        parse_manifest(text_of(linear | {field: value}))


@pytest.mark.parametrize(
    "path",
    [
        ("calibration", "scores", 0),
        ("metrics", "nelbo"),
        ("members", "vae"),
        ("config", "a"),
        ("data", "a"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(
    linear: dict[str, Any], path: tuple[str | int, ...], value: float
) -> None:
    manifest = json.loads(text_of(linear))
    at(*path)(manifest, value)  # type: ignore[arg-type]
    with pytest.raises(InvalidArtifact, match="damaged"):
        parse_manifest(text_of(manifest))


def test_a_batch_takes_at_most_so_many_bytes_whatever_is_in_it(linear: dict[str, Any]) -> None:
    """4,096 rows are allowed, and so are 10,000 columns, but not both at once."""
    manifest = json.loads(text_of(linear))
    columns(manifest, MAX_COLUMNS)
    parse_manifest(text_of(manifest))
    for batch, codes in ((4_096, MAX_COLUMNS), (256, 16 * MAX_COLUMNS)):
        with pytest.raises(InvalidArtifact, match=f"{MAX_BATCH_BYTES // 2**20} MiB"):
            parse_manifest(text_of(manifest | {"batch": batch, "codes": codes}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": ["length", "colour", "width"]}, "order does not name each modelled column"),
        (
            {"order": ["length", "length", "width", "weight"]},
            "order does not name each modelled column",
        ),
        ({"draws": {"z": 4}}, "draws does not give a number for z and for x"),
    ],
)
def test_parts_that_do_not_agree_are_refused(
    linear: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArtifact, match=words):
        parse_manifest(text_of(linear | change))


@pytest.mark.parametrize("name", ["loop", "Score", ""])
def test_a_graph_that_no_artifact_has_is_refused(linear: dict[str, Any], name: str) -> None:
    graphs = {name if key == "spread" else key: graph for key, graph in linear["graphs"].items()}
    with pytest.raises(
        InvalidArtifact, match="an artifact has score, posterior, prior, generate and maybe spread"
    ):
        parse_manifest(text_of(linear | {"graphs": graphs}))


def test_twenty_thousand_graphs_are_refused(linear: dict[str, Any]) -> None:
    many = {f"g{at}": linear["graphs"]["score"] for at in range(20_000)}
    with pytest.raises(InvalidArtifact, match="graphs"):
        parse_manifest(text_of(linear | {"graphs": many}))


def test_the_largest_manifest_that_training_can_make_is_read_at_little_memory() -> None:
    text = json.dumps(
        largest_manifest().model_dump(mode="json"), indent=1, ensure_ascii=False
    ).encode()
    assert 8 * 2**20 < len(text) < MAX_MANIFEST_BYTES, "not much larger than it must be"
    tracemalloc.start()
    try:
        assert parse_manifest(text) == largest_manifest()
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_training_itself_asks_for_no_more_than_a_manifest_holds() -> None:
    fields = Config.model_fields
    most = {
        name: next(rule.le for rule in fields[name].metadata if hasattr(rule, "le"))
        for name in ("noise_points", "max_categories")
    }
    assert most["noise_points"] <= MAX_POINTS
    assert most["max_categories"] <= MAX_CATEGORIES
    assert MOST_RARER <= MAX_RARER
    assert (
        next(
            rule.le for rule in Settings.model_fields["max_columns"].metadata if hasattr(rule, "le")
        )
        == MAX_COLUMNS
    )


def test_the_manifest_of_the_first_format_is_within_the_bounds() -> None:
    assert parse_manifest(KEPT.read_bytes()).points == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (b"[" + b"[],".join([b""] * 3_000_000), "too many"),
        (b'{"a":0},' * 1_000_000, "too many"),
        (b"0," * 5_000_000, "too many"),
        (b"[" * 100_000, "recursion|damaged"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "larger"),
    ],
    ids=["lists", "objects", "values", "depth", "bytes"],
)
def test_a_text_that_would_take_much_memory_is_not_parsed(values: bytes, words: str) -> None:
    with pytest.raises(InvalidArtifact, match=words):
        parse_manifest(b'{"format":1,"data":{"a":[' + values)
