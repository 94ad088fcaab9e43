"""`python -P -m worker.trial ZIP FOLDER MIB`: unpack a pushed artifact into an empty folder, check
its graphs and run a row through them, in a process that may use so much memory. The answer is one
line of JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from nelbo.confinement import CODE, confine
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.packing import unpack
from nelbo.processes import exit_with_parent

MADE_ROWS = 16
"""Rows that the artifact makes and then reads: a graph may fail only where cells have values."""


def trial(engine: Engine) -> None:
    """Everything that an artifact must do: with a row whose cells are all missing, and with rows
    that it makes itself."""
    names = list(engine.schema.names)
    blank = pa.record_batch([pa.nulls(1, pa.string()) for _ in names], names=names)
    if len(engine.score(blank).rows) != 1:
        raise InvalidArtifact(
            "the score graph does not give a finite nelbo for a row without values"
        )
    generated = engine.generate(seed=0, first_row=0, rows=MADE_ROWS).batch
    spread = 0.5 if "spread" in engine.manifest.graphs else 0.0
    for rows in (blank, generated):
        engine.score(rows)
        engine.augment(rows, first_row=0, per_row=1, seed=0, spread=spread)
        engine.reconstruct(rows, first_row=0, seed=0)


def main() -> None:
    packed, folder, memory_mib = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    confine(memory_mib=memory_mib, read=[packed, *CODE], write=[folder])
    exit_with_parent()
    print(json.dumps(_answer(packed, folder)))


def _answer(packed: Path, folder: Path) -> dict[str, Any]:
    """Why the artifact is rejected, or its manifest and digest."""
    try:
        artifact = unpack(packed, folder)
        trial(Engine(artifact))
    except InvalidArtifact as problem:
        return {"problem": problem.message}
    except (MemoryError, OSError):  # no word on the artifact: the process ends without an answer
        raise
    # ONNX Runtime and NumPy raise what they like about a graph that breaks its manifest.
    except Exception as problem:
        return {"problem": f"the trial run failed: {type(problem).__name__}: {problem}"}
    return {
        "problem": None,
        "manifest": artifact.manifest.model_dump(mode="json"),
        "digest": artifact.digest,
    }


if __name__ == "__main__":
    main()
