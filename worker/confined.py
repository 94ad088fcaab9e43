"""Runs a model's graphs in a confined process, because the model may come from a stranger.

The process (`worker.graph_process`) can read the artifact and nothing else, and can send nothing.
It is killed when a batch takes too long, when it needs too much memory, when it dies, and when the
worker's check raises (the job was cancelled or the lease is lost).
"""

import json
import os
import resource
import select
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import Artifact, read_artifact
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.processes import Lifeline, start_confined
from nelbo.sessions import Check
from worker.arrays import DONE, SLOTS, Arrays, shared_memory

CHECK_S = 0.2
"""Seconds between two calls of the worker's check during a batch.

A cancelled job stops within this time.
"""
START_S = 60.0
LONGEST_ANSWER = 4_096
COPIES = 4
"""ONNX Runtime needs memory for this number of copies of the weights while it loads them."""
KEPT_MIB = 256
"""Memory, beside the weights, that an idle model's process may keep while another model works."""


class ModelDied(Exception):
    """The model's process was stopped or died. The message is for the owner of the job."""


Batch = Sequence[NDArray[Any]]
"""The inputs or the outputs of one batch."""


@dataclass(frozen=True)
class ModelLimits:
    """A model's limits: seconds per batch of rows, and MiB of memory beside its weights."""

    batch_s: float
    memory_mib: int


@dataclass(frozen=True)
class _Group:
    """Batches in progress: the slot they are in, and their number."""

    slot: int
    batches: int


def load(folder: Path, limits: ModelLimits) -> Engine:
    """An engine whose graphs run confined. Raises NotFound or InvalidArtifact."""
    artifact = read_artifact(folder)
    return Engine(artifact, ConfinedGraphs(artifact, limits))


class ConfinedGraphs:
    """The graphs of one artifact (nelbo.sessions.Graphs).

    Their process starts with the first batch, and again after it has ended. It ends with this
    object.
    """

    def __init__(self, artifact: Artifact, limits: ModelLimits) -> None:
        self._artifact = artifact
        self._limits = limits
        self._names = sorted(artifact.manifest.graphs)
        self._process: _Process | None = None

    def run(
        self, graph: str, batches: Iterable[Batch], check: Check | None = None
    ) -> Iterator[Batch]:
        """See Graphs.run. Up to SLOTS groups of batches are in progress at a time.

        Raises ModelDied, or InvalidArtifact where the artifact cannot be run.
        """
        process = self._started(check)
        number = self._names.index(graph)
        in_progress: deque[_Group] = deque()
        try:
            for slot, inputs in zip(cycle(range(SLOTS)), process.groups(batches)):
                if check is not None:
                    check()
                process.send(number, graph, slot, inputs)
                in_progress.append(_Group(slot, len(inputs)))
                if len(in_progress) == SLOTS:
                    outputs = process.receive(graph, in_progress[0], check)
                    in_progress.popleft()
                    yield from outputs
            while in_progress:
                outputs = process.receive(graph, in_progress[0], check)
                in_progress.popleft()
                yield from outputs
        finally:
            # A caller that stops early leaves batches in progress; nobody reads their answers.
            if in_progress:
                self.close()

    def rest(self) -> None:
        """End the process if it holds much memory.

        ONNX Runtime keeps the memory of its largest batch, and other models need it now.
        """
        if self._process is not None and self._process.holds_much():
            self.close()

    def close(self) -> None:
        """End the process; the next batch starts another one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    __del__ = close

    def _started(self, check: Check | None) -> "_Process":
        if self._process is None:
            process = _Process(self._artifact, self._limits)
            try:
                process.wait(START_S, check)
            except BaseException:
                process.close()
                raise
            self._process = process
        return self._process


class _Process:
    """One process that runs worker.graph_process."""

    def __init__(self, artifact: Artifact, limits: ModelLimits) -> None:
        self._manifest = artifact.manifest
        self._limits = limits
        self._weights = sum(
            artifact.graph(name).stat().st_size for name in artifact.manifest.graphs
        )
        self._memory_mib = limits.memory_mib + COPIES * self._weights // 2**20

        memory = shared_memory(artifact.manifest)
        self._arrays = Arrays(artifact.manifest, memory)

        self._lifeline = Lifeline()
        args = [str(artifact.folder.absolute()), str(self._memory_mib), str(memory)]
        try:
            self._child = start_confined(
                self._lifeline,
                "worker.graph_process",
                args,
                keep=(memory,),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        finally:
            os.close(memory)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests = self._child.stdin
        self._answers = self._child.stdout

    def groups(self, batches: Iterable[Batch]) -> Iterator[list[Batch]]:
        """The batches in groups that fill a slot each."""
        batches = iter(batches)
        while group := list(islice(batches, self._arrays.group)):
            yield group

    def send(self, number: int, graph: str, slot: int, group: Sequence[Batch]) -> None:
        shared_inputs, _ = self._arrays.arrays(graph, slot)
        for i, inputs in enumerate(group):
            for shared, array in zip(shared_inputs, inputs, strict=True):
                np.copyto(shared[i], array, casting="no")
        try:
            os.write(self._requests.fileno(), bytes((number, slot, len(group))))
        except BrokenPipeError:
            raise self._died() from None

    def receive(self, graph: str, group: _Group, check: Check | None) -> Iterator[Batch]:
        """The outputs of each batch, copied.

        The slot is used again, and a faulty model may continue to write to it.
        """
        self.wait(self._limits.batch_s, check, group.batches)
        _, outputs = self._arrays.arrays(graph, group.slot)
        copies = [output[: group.batches].copy() for output in outputs]
        return zip(*copies, strict=True)

    def wait(self, limit_s: float, check: Check | None, batches: int = 1) -> None:
        """Wait until the process answers that it is done with its next group of batches, each of
        which may take `limit_s`."""
        end = time.monotonic() + limit_s * batches
        while not select.select([self._answers], [], [], CHECK_S)[0]:
            if check is not None:
                check()
            if time.monotonic() > end:
                raise ModelDied(
                    f"the model took more than {limit_s:g} s for one batch of"
                    f" {self._manifest.batch} rows (the setting model_batch_s) and was stopped"
                )
        answer = os.read(self._answers.fileno(), 1)
        if answer != DONE:
            raise self._problem() if answer else self._died()

    def holds_much(self) -> bool:
        try:
            pages = int(Path(f"/proc/{self._child.pid}/statm").read_text().split()[1])
        except OSError:
            return True  # the process is dead
        return pages * resource.getpagesize() > (KEPT_MIB << 20) + COPIES * self._weights

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._requests.close()
        self._answers.close()
        self._lifeline.close()

    def _died(self) -> ModelDied:
        self._child.kill()
        return ModelDied(f"the model's process ended with status {self._child.wait()}")

    def _problem(self) -> Exception:
        """The error that the process reported.

        A hostile model may control the process by now, so that only the text of the answer is used.
        """
        try:
            problem = json.loads(os.read(self._answers.fileno(), LONGEST_ANSWER))
            kind = str(problem["kind"])
            message = str(problem["message"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return self._died()
        if kind == "invalid":
            return InvalidArtifact(message)
        if kind == "memory":
            return ModelDied(
                f"the model needs more than {self._memory_mib:,} MiB (the setting model_memory_mib)"
            )
        return ModelDied(f"ONNX Runtime could not run the model ({message})")
