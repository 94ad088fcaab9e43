"""`python -P -m worker.graph_process FOLDER MEMORY_MIB ARRAYS`: runs the graphs of one artifact,
confined.

It reads nothing but the artifact in FOLDER. Its inputs and outputs are arrays in memory that it
shares with the worker (descriptor ARRAYS), laid out by `worker.arrays`. On stdin it reads two bytes
for each batch, graph and slot, and on stdout it answers with one: DONE, or FAILED and a line of
JSON, after which it ends.
"""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from nelbo.artifact import read_artifact
from nelbo.confinement import confine
from nelbo.errors import InvalidArtifact
from nelbo.processes import exit_with_parent
from nelbo.sessions import Sessions
from worker.arrays import DONE, FAILED, Arrays

STDIN, STDOUT = 0, 1
LONGEST_WORDS = 500


def main() -> None:
    folder, memory_mib, shared = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    confine(memory_mib=memory_mib, read=[folder])
    exit_with_parent()
    try:
        _serve(folder, shared)
    except MemoryError:
        _fail("memory", "")
    except InvalidArtifact as problem:
        _fail("invalid", problem.message)
    except (
        Exception
    ) as problem:  # ONNX Runtime raises classes of its own for each way in which a graph can fail
        out_of_memory = "Failed to allocate" in str(problem) or "bad_alloc" in str(problem)
        _fail("memory" if out_of_memory else "failed", type(problem).__name__)


def _serve(folder: Path, shared: int) -> None:
    artifact = read_artifact(folder)
    sessions, arrays = Sessions(artifact), Arrays(artifact.manifest, shared)
    names = sorted(artifact.manifest.graphs)
    os.write(STDOUT, DONE)
    while len(batch := os.read(STDIN, 2)) == 2:
        graph, slot = names[batch[0]], batch[1]
        inputs, outputs = arrays.of(graph, slot)
        (results,) = sessions.run(graph, [inputs])
        for output, result in zip(outputs, results, strict=True):
            output[...] = _exactly(
                result, output.dtype, output.shape, artifact.manifest.graphs[graph].file
            )
        os.write(STDOUT, DONE)


def _exactly(result: object, dtype: object, shape: object, file: str) -> object:
    if getattr(result, "dtype", None) != dtype or getattr(result, "shape", None) != shape:
        raise InvalidArtifact(f"{file} gives an array of another type or shape than it declares")
    return result


def _fail(kind: str, words: str) -> NoReturn:
    os.write(
        STDOUT, FAILED + json.dumps({"kind": kind, "words": words[:LONGEST_WORDS]}).encode() + b"\n"
    )
    os._exit(1)


if __name__ == "__main__":
    main()
