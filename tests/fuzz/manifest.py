"""Manifests for the fuzzer."""

import json
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from nelbo.artifact import MANIFEST, check_manifest, check_spread, files_of, parse_manifest
from nelbo.graphs import signatures
from tests.artifacts import linear_artifact
from tests.fuzz import mutations

MODULES = ("artifact", "schema")


@cache
def files() -> dict[str, bytes]:
    """The files of a small artifact, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            path.name: path.read_bytes()
            for path in sorted(linear_artifact(Path(folder), calibration=9).iterdir())
        }


def read(content: bytes, folder: Path) -> None:
    """The manifest, and what is derived from it before a graph runs."""
    manifest = parse_manifest(content)
    assert check_manifest(manifest.model_dump(mode="json")) == manifest, (
        "a stored manifest is read as another"
    )
    signatures(manifest)
    check_spread(manifest.graphs, 0.0)
    assert len(files_of(manifest)) == 1 + len(manifest.graphs)
    assert 0 < manifest.calibration.smallest <= 1
    assert manifest.table_digest is None or isinstance(manifest.table_digest, str)


def seeds() -> list[bytes]:
    small = json.loads(files()[MANIFEST])
    column = {
        "name": "when", "kind": "datetime", "zone": "utc", "step": 1000, "format": "%d.%m.%Y",
        "missing": ["9999-12-31"],
        "type": "timestamp[us, tz=UTC]", "words": ["no", "yes"], "rarer": [["x", 3]],
        "clusters": [0],
        "number": {"decimal": ",", "group": ".", "prefix": "", "suffix": " €", "digits": 2},
    }  # fmt: skip
    tail = {
        "threshold": 5.0,
        "excesses": 50,
        "components": [[1.0, 0.1, 2.0]],
        "fit": 0.5,
        "used": True,
    }
    more = mutations.json_value(Random(0), small) | {
        "order": ["when"],
        "table_schema": {"columns": [column]},
        "identifiers": {},
    }
    kept = small | {
        "calibration": small["calibration"] | {"tail": tail},
        "data": {"table_sha256": "a" * 64, "rows": [1, {}]},
    }
    since = column | {"name": "until", "since": "when"}
    two = kept | {
        "order": ["when", "until"],
        "table_schema": {"columns": [column, since]},
        "identifiers": {},
        "codes": 4,
    }
    digits = {"words": list("0123456789")}
    template = {"rows": 9, "segments": [{"words": ["A-"], "rows": [9]}, digits, digits]}
    tie = {"column": "length", "edges": [0.5, 1.5], "pairs": "AAAAAAEAAAAJAAAA"}
    named = small | {
        "identifiers": {
            "id": {"rows": 9, "missing": 1, "templates": [template], "longest": 4},
        },
        "ties": {"colour": [tie]},
    }
    values: list[Any] = [small, more, kept, two, named, {}, [], {"format": 2}, {"format": 1}]
    return [_spelled(value) for value in values]


def mutate(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.2:
        return mutations.changed(rng, content)
    try:
        value: Any = json.loads(content)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            value = mutations.json_value(rng, value)
        return _spelled(value)[: mutations.MOST_BYTES]
    except (ValueError, RecursionError):
        return mutations.changed(rng, content)


def _spelled(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
