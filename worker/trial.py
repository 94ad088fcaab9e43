"""`python -P -m worker.trial FOLDER MIB`: one row through an artifact, in a process that may use so much memory."""

import json
import resource
import sys
from pathlib import Path

import pyarrow as pa

from nelbo import engine as engines
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact


def trial(engine: Engine) -> None:
    """One row, all cells missing, through all that an artifact must do."""
    row = pa.record_batch([pa.nulls(1, pa.string()) for _ in engine.schema.names], names=list(engine.schema.names))
    scored = engines.score(engine, row)
    if len(scored.rows) != 1 or scored.terms.shape != (1, len(engine.manifest.order)):
        raise InvalidArtifact("the score graph does not give a finite nelbo and a term per column for a row without values")
    engines.generate(engine, seed=0, first_row=0, rows=1)
    spread = 0.5 if "spread" in engine.manifest.graphs else 0.0
    engines.augment(engine, row, first_row=0, per_row=1, seed=0, spread=spread)
    engines.reconstruct(engine, row, first_row=0, seed=0)


def main() -> None:
    folder, memory_mib = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
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
