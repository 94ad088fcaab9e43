"""Arrays that a worker shares with the process that runs a model's graphs, so that no batch is sent
through a pipe.

The memory has SLOTS slots, each as large as the largest graph's inputs and outputs together. A
batch occupies one slot, and some batches are under way at the same time, so that neither process
waits for the other.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.artifact import Manifest
from nelbo.graphs import Array, signatures

SLOTS = 4
ALIGNMENT = 64
"""Arrays begin at a multiple of this, as vector instructions like it."""
DONE, FAILED = b"\0", b"\1"
"""First byte of an answer."""


class Arrays:
    """The slots, over a descriptor of shared memory; `shared_memory` makes one."""

    def __init__(self, manifest: Manifest, descriptor: int) -> None:
        self._signatures = signatures(manifest)
        self._slot_bytes = slot_bytes(manifest)
        self._memory = mmap.mmap(descriptor, self._slot_bytes * SLOTS)
        self._known: dict[tuple[str, int], tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {}

    def of(self, graph: str, slot: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """A graph's inputs and outputs in a slot, as arrays that write through."""
        if (graph, slot) not in self._known:
            self._known[graph, slot] = self._made(graph, slot)
        return self._known[graph, slot]

    def _made(self, graph: str, slot: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        signature = self._signatures[graph]
        views = list(self._views((*signature.inputs, *signature.outputs), slot * self._slot_bytes))
        return views[: len(signature.inputs)], views[len(signature.inputs) :]

    def _views(self, arrays: Sequence[Array], at: int) -> Iterator[NDArray[Any]]:
        for array in arrays:
            flat = np.frombuffer(self._memory, array.dtype, array.bytes // array.dtype.itemsize, at)
            yield flat.reshape(array.shape)
            at += _aligned(array.bytes)


def shared_memory(manifest: Manifest) -> int:
    """A descriptor of new memory for an artifact's slots. Its size is sealed: neither side can pull
    it from under the other."""
    descriptor = os.memfd_create("nelbo-arrays", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, slot_bytes(manifest) * SLOTS)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return descriptor


def slot_bytes(manifest: Manifest) -> int:
    return max(
        sum(_aligned(array.bytes) for array in (*signature.inputs, *signature.outputs))
        for signature in signatures(manifest).values()
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
