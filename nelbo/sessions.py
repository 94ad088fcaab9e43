"""Sessions: an artifact's graphs in ONNX Runtime, in batches of a fixed size, on one thread."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nelbo.artifact import Artifact
from nelbo.errors import InvalidArtifact
from nelbo.graphs import checked

Check = Callable[[], None]
"""Called before each batch; it raises to stop the work (cancelled, lease lost)."""

_PATH = re.compile(r"/\S+")
"""ONNX Runtime's messages name its own source files."""


class Graphs(Protocol):
    """Anything that runs the graphs of one artifact."""

    def run(
        self, graph: str, batches: Iterable[Sequence[NDArray[Any]]], check: Check | None
    ) -> Iterator[Sequence[NDArray[Any]]]:
        """The outputs of each batch, in order; arrays are in the manifest's order.

        `check` is called for each batch.
        """
        ...


class Sessions:
    """The graphs in this process, each loaded on first use."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._loaded: dict[str, ort.InferenceSession] = {}

    def run(
        self, graph: str, batches: Iterable[Sequence[NDArray[Any]]], check: Check | None = None
    ) -> Iterator[Sequence[NDArray[Any]]]:
        if graph not in self._loaded:
            self._loaded[graph] = open_session(self._artifact, graph)
        session = self._loaded[graph]
        names = self._artifact.manifest.graphs[graph]

        for inputs in batches:
            if check is not None:
                check()
            yield session.run(list(names.outputs), dict(zip(names.inputs, inputs, strict=True)))


class BatchedGraphs:
    """Graphs that take any number of rows, in batches of a fixed size."""

    def __init__(self, graphs: Graphs, batch: int) -> None:
        self._graphs = graphs
        self._batch = batch

    def run(
        self,
        graph: str,
        rows: Sequence[NDArray[Any]],
        constants: Sequence[NDArray[Any]] = (),
        check: Check | None = None,
    ) -> list[NDArray[Any]]:
        """The outputs [n, …] of a graph for inputs of n rows each and for inputs that all batches
        share; none where there are no rows."""
        batches = list(fixed_batches(self._batch, *rows))
        inputs = ([*of_batch, *constants] for _, *of_batch in batches)
        outputs = self._graphs.run(graph, inputs, check)
        parts = [
            [output[:used] for output in of_batch]
            for (used, *_), of_batch in zip(batches, outputs, strict=True)
        ]
        return [np.concatenate(of_rows) for of_rows in zip(*parts, strict=True)]


def fixed_batches(rows: int, *arrays: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
    """Batches of `rows` rows from arrays of equal length: (rows used, part of each array …).

    The last batch is padded with copies of its own first row.
    """
    for start in range(0, len(arrays[0]), rows):
        parts = [array[start : start + rows] for array in arrays]
        used = len(parts[0])
        if used < rows:
            parts = [
                np.concatenate([part, np.repeat(part[:1], rows - used, axis=0)]) for part in parts
            ]
        yield used, *parts


def open_session(artifact: Artifact, graph: str) -> ort.InferenceSession:
    """A graph, checked and loaded.

    Raises InvalidArtifact, or MemoryError where it needs too much memory.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Without this, ONNX Runtime guesses the format from the bytes and may choose its own.
    options.add_session_config_entry("session.load_model_format", "ONNX")

    path = artifact.graph(graph)
    content = checked(artifact.manifest, graph, path.read_bytes())
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime raises many classes of its own, with no common base but Exception.
    except Exception as problem:
        if isinstance(problem, MemoryError) or "bad_alloc" in str(problem):
            raise MemoryError(f"{path.name} needs more memory than is available") from None
        reason = _PATH.sub("…", str(problem)).partition("\n")[0]
        raise InvalidArtifact(
            f"{path.name} cannot be loaded by ONNX Runtime: {reason[:300]}"
        ) from None
