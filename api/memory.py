"""Freed memory goes back to the system. glibc keeps much of it for later, and that counts against
the limit of a container."""

import ctypes
from contextlib import suppress

LIBRARY = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3
LARGE_BYTES = 128 * 2**10


def give_back_large_blocks() -> None:
    """From now on a freed block of 128 KiB or more is gone at once. By itself glibc raises that
    limit to whatever was freed last, up to 32 MiB (mallopt(3))."""
    with suppress(AttributeError):  # another C library has its own ways
        LIBRARY.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """Return what is free between the blocks in use; takes some milliseconds."""
    with suppress(AttributeError):
        LIBRARY.malloc_trim(0)
