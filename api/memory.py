"""Return freed memory to the system.

glibc and Arrow keep much of it for later, and that counts towards the memory limit of a container.
"""

import ctypes
from contextlib import suppress

import pyarrow as pa

LIBRARY = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 * 2**10


def give_back_large_blocks() -> None:
    """Return each freed block of 128 KiB or more at once from now on.

    By itself, glibc raises this limit to the size of a freed block, up to 32 MiB (mallopt(3)).
    """
    with suppress(AttributeError):  # another C library lacks this function
        LIBRARY.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """Return the free memory between the blocks in use. It takes some milliseconds."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError):
        LIBRARY.malloc_trim(0)
