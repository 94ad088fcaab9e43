"""`python -P -m worker.trial ZIP FOLDER MIB`: unpack a pushed artifact into an empty folder, check its graphs and run a row
through them, in a process that may use so much memory. The answer is one line of JSON."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from nelbo import engine as engines
from nelbo.artifact import Artifact
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.packing import unpack
from worker.graphs import check_graph


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
    packed, folder, memory_mib = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    print(json.dumps(_answer(packed, folder)))


def _answer(packed: Path, folder: Path) -> dict[str, Any]:
    """Why the artifact is rejected, or its manifest and digest."""
    try:
        artifact = unpack(packed, folder)
        check_operators(artifact)
        trial(Engine(artifact))
    except InvalidArtifact as problem:
        return {"problem": problem.message}
    except (MemoryError, OSError):  # no word on the artifact: the process ends without an answer
        raise
    except Exception as problem:  # ONNX Runtime and NumPy raise what they like about a graph that breaks its manifest
        return {"problem": f"the trial run failed: {type(problem).__name__}: {problem}"}
    return {"problem": None, "manifest": artifact.manifest.model_dump(mode="json"), "digest": artifact.digest}


def check_operators(artifact: Artifact) -> None:
    """Raise InvalidArtifact where a graph holds what a stranger's graph must not."""
    for graph in artifact.manifest.graphs.values():
        check_graph(graph.file, (artifact.folder / graph.file).read_bytes())


if __name__ == "__main__":
    main()
