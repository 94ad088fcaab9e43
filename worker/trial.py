"""`python -P -m worker.trial FOLDER MIB`: one row through an artifact, in a process that may use so much memory."""

import json
import sys
from pathlib import Path

import pyarrow as pa

from nelbo import engine as engines
from nelbo.confinement import CODE, confine
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.processes import exit_with_parent

MADE_ROWS = 16
"""A graph that behaves as long as no cell has a value is no use to anyone."""


def trial(engine: Engine) -> None:
    """Everything that an artifact must do: with a row whose cells are all missing, and with rows that it makes itself."""
    names = list(engine.schema.names)
    blank = pa.record_batch([pa.nulls(1, pa.string()) for _ in names], names=names)
    if len(engines.score(engine, blank).rows) != 1:
        raise InvalidArtifact("the score graph does not give a finite nelbo for a row without values")
    made = engines.generate(engine, seed=0, first_row=0, rows=MADE_ROWS)
    spread = 0.5 if "spread" in engine.manifest.graphs else 0.0
    for rows in (blank, made):
        engines.score(engine, rows)
        engines.augment(engine, rows, first_row=0, per_row=1, seed=0, spread=spread)
        engines.reconstruct(engine, rows, first_row=0, seed=0)


def main() -> None:
    folder, memory_mib = Path(sys.argv[1]), int(sys.argv[2])
    confine(memory_mib=memory_mib, read=[folder, *CODE])
    exit_with_parent()
    print(json.dumps({"problem": _problem(folder)}))


def _problem(folder: Path) -> str | None:
    try:
        trial(Engine.load(folder))
    except InvalidArtifact as problem:
        return problem.message
    except MemoryError:  # no word on the artifact: the process ends without an answer
        raise
    except Exception as problem:  # ONNX Runtime and NumPy raise what they like about a graph that breaks its manifest
        return f"the trial run failed: {type(problem).__name__}: {problem}"[:500]
    return None


if __name__ == "__main__":
    main()
