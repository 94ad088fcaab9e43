"""Arrays in memory that a worker shares with the process that runs a model's graphs.

No batch is sent through a pipe. The memory has SLOTS slots. Each holds a group of batches, with
their inputs and outputs: one message asks for a whole group, so that the two processes seldom wake
each other. Several slots are in progress at a time, so that neither process waits for the other.
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
GROUP = 16
"""Maximum number of batches in a slot."""
SLOT_BYTES = 2**21
"""A slot has room for as many batches as this holds, but at least for one."""
ALIGNMENT = 64
"""Each array begins at a multiple of this number of bytes, for vector instructions."""
DONE, FAILED = b"\0", b"\1"
"""The first byte of an answer."""


class Arrays:
    """The slots, over a descriptor of shared memory that `shared_memory` creates."""

    def __init__(self, manifest: Manifest, descriptor: int) -> None:
        self._signatures = signatures(manifest)
        self._slot_bytes = slot_bytes(manifest)
        self.group = group_of(manifest)
        self._memory = mmap.mmap(descriptor, self._slot_bytes * SLOTS)
        self._arrays: dict[tuple[str, int], tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {}

    def arrays(self, graph: str, slot: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """A graph's inputs and outputs in a slot, each [group, …]; writing to them writes to the
        memory."""
        if (graph, slot) not in self._arrays:
            self._arrays[graph, slot] = self._new_arrays(graph, slot)
        return self._arrays[graph, slot]

    def _new_arrays(self, graph: str, slot: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        signature = self._signatures[graph]
        views = list(self._views((*signature.inputs, *signature.outputs), slot * self._slot_bytes))
        return views[: len(signature.inputs)], views[len(signature.inputs) :]

    def _views(self, arrays: Sequence[Array], offset: int) -> Iterator[NDArray[Any]]:
        for array in arrays:
            count = self.group * array.bytes // array.dtype.itemsize
            flat = np.frombuffer(self._memory, array.dtype, count, offset)
            yield flat.reshape(self.group, *array.shape)
            offset += self.group * _aligned(array.bytes)


def shared_memory(manifest: Manifest) -> int:
    """A descriptor of new shared memory for an artifact's slots.

    Its size is sealed: neither process can shrink it while the other one uses it.
    """
    descriptor = os.memfd_create("nelbo-arrays", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, slot_bytes(manifest) * SLOTS)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    )
    return descriptor


def group_of(manifest: Manifest) -> int:
    """Number of batches in a slot."""
    return max(1, min(GROUP, SLOT_BYTES // _batch_bytes(manifest)))


def slot_bytes(manifest: Manifest) -> int:
    """Bytes of one slot."""
    return group_of(manifest) * _batch_bytes(manifest)


def _batch_bytes(manifest: Manifest) -> int:
    """Bytes of the inputs and outputs of one batch of the largest graph."""
    return max(
        sum(_aligned(array.bytes) for array in (*signature.inputs, *signature.outputs))
        for signature in signatures(manifest).values()
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
