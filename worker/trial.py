"""`python -P -m worker.trial ZIP FOLDER MIB`: tries out a pushed artifact, confined.

The process may use MIB of memory. It unpacks the artifact into an empty folder, checks its graphs
and runs rows through them. The answer is one line of JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from nelbo.confinement import CODE, confine
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.packing import unpack
from nelbo.processes import exit_with_parent

MADE_ROWS = 16
"""Number of rows that the artifact generates and then reads.

A graph may fail only where cells have values.
"""


def trial(engine: Engine) -> float:
    """Run each operation, with a row of missing cells and with rows that the artifact generates.
    Returns the seconds that a row of a full batch takes in the slowest one."""
    names = list(engine.schema.names)
    blank = pa.record_batch([pa.nulls(1, pa.string()) for _ in names], names=names)
    if len(engine.score(blank).rows) != 1:
        raise InvalidArtifact(
            "the score graph does not give a finite nelbo for a row without values"
        )
    generated = engine.generate(seed=0, first_row=0, rows=MADE_ROWS).batch
    spread = 0.5 if "spread" in engine.manifest.graphs else 0.0
    slowest_s = 0.0
    for rows in (blank, generated):
        operations = (
            partial(engine.score, rows),
            partial(engine.generate, seed=0, first_row=0, rows=rows.num_rows),
            partial(engine.augment, rows, first_row=0, per_row=1, seed=0, spread=spread),
            partial(engine.reconstruct, rows, first_row=0, seed=0),
        )
        slowest_s = max(_seconds(operation) for operation in operations)
    # A batch takes as long however few of its rows are used.
    return slowest_s / engine.manifest.batch


def _seconds(operation: Callable[[], object]) -> float:
    began = time.monotonic()
    operation()
    return time.monotonic() - began


def main() -> None:
    packed = Path(sys.argv[1])
    folder = Path(sys.argv[2])
    memory_mib = int(sys.argv[3])
    confine(memory_mib=memory_mib, read=[packed, *CODE], write=[folder])
    exit_with_parent()
    print(json.dumps(_answer(packed, folder)))


def _answer(packed: Path, folder: Path) -> dict[str, Any]:
    """The reason for rejecting the artifact, or its manifest and digest."""
    try:
        artifact = unpack(packed, folder)
        row_s = trial(Engine(artifact))
    except InvalidArtifact as problem:
        return {"problem": problem.message}
    # These say nothing about the artifact: the process ends without an answer.
    except (MemoryError, OSError):
        raise
    # ONNX Runtime and NumPy raise many classes for a graph that contradicts its manifest.
    except Exception as problem:
        return {"problem": f"the trial run failed: {type(problem).__name__}: {problem}"}
    return {
        "problem": None,
        "manifest": artifact.manifest.model_dump(mode="json"),
        "digest": artifact.digest,
        "row_s": row_s,
    }


if __name__ == "__main__":
    main()
