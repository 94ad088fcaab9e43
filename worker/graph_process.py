"""Runs the graphs of one artifact, confined.

    python -P -m worker.graph_process FOLDER MEMORY_MIB ARRAYS

It can read the artifact in FOLDER and nothing else. Its inputs and outputs are arrays in memory
that it shares with the worker (descriptor ARRAYS, layout in `worker.arrays`). For each group of
batches it reads three bytes from stdin: the number of the graph, of the slot and of the batches. It
answers on stdout with one byte, DONE, or with FAILED and a line of JSON, after which it ends.
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
LONGEST_MESSAGE = 500


def main() -> None:
    folder = Path(sys.argv[1])
    memory_mib = int(sys.argv[2])
    descriptor = int(sys.argv[3])
    confine(memory_mib=memory_mib, read=[folder])
    exit_with_parent()
    try:
        _serve(folder, descriptor)
    except MemoryError:
        _fail("memory", "")
    except InvalidArtifact as problem:
        _fail("invalid", problem.message)
    # ONNX Runtime raises many classes of its own, with no common base but Exception.
    except Exception as problem:
        out_of_memory = "Failed to allocate" in str(problem) or "bad_alloc" in str(problem)
        _fail("memory" if out_of_memory else "failed", type(problem).__name__)


def _serve(folder: Path, descriptor: int) -> None:
    artifact = read_artifact(folder)
    sessions = Sessions(artifact)
    arrays = Arrays(artifact.manifest, descriptor)
    names = sorted(artifact.manifest.graphs)
    os.write(STDOUT, DONE)
    while len(group := os.read(STDIN, 3)) == 3:
        graph, slot, batches = names[group[0]], group[1], group[2]
        inputs, outputs = arrays.arrays(graph, slot)
        of_batches = ([array[i] for array in inputs] for i in range(batches))
        file = artifact.manifest.graphs[graph].file
        for i, results in enumerate(sessions.run(graph, of_batches)):
            for output, result in zip(outputs, results, strict=True):
                output[i] = _checked(result, output.dtype, output.shape[1:], file)
        os.write(STDOUT, DONE)


def _checked(result: object, dtype: object, shape: object, file: str) -> object:
    """The result, if it has exactly this type and shape."""
    if getattr(result, "dtype", None) != dtype or getattr(result, "shape", None) != shape:
        raise InvalidArtifact(f"{file} gives an array of another type or shape than it declares")
    return result


def _fail(kind: str, message: str) -> NoReturn:
    problem = {"kind": kind, "message": message[:LONGEST_MESSAGE]}
    os.write(STDOUT, FAILED + json.dumps(problem).encode() + b"\n")
    os._exit(1)


if __name__ == "__main__":
    main()
