"""A reader that breaks each rule on purpose: what the fuzzer does not find in it, it would find
nowhere."""

import ctypes
from pathlib import Path

import numpy as np

from tests.fuzz.readers import Reader


def _fails(content: bytes, folder: Path) -> None:
    raise KeyError("a column")


def _crashes(content: bytes, folder: Path) -> None:
    ctypes.string_at(0)


def _hangs(content: bytes, folder: Path) -> None:
    while True:
        pass


def _takes_memory(content: bytes, folder: Path) -> None:
    np.ones(400 * 2**20, np.uint8)


def _runs_out(content: bytes, folder: Path) -> None:
    np.ones(2**40, np.uint8)


def _writes_outside(content: bytes, folder: Path) -> None:
    (folder / ".." / ".." / "corpus" / "evil").write_bytes(content)


def _writes_beside(content: bytes, folder: Path) -> None:
    ctypes.CDLL(None).mkdir(
        bytes(folder.parent / "evil"), 0o700
    )  # as a library of C does, which Python does not see


FAULTS = (_fails, _crashes, _hangs, _takes_memory, _runs_out, _writes_outside, _writes_beside)


def _read(content: bytes, folder: Path) -> None:
    """The first byte chooses a fault; others are read without one."""
    if content[0] < len(FAULTS):
        FAULTS[content[0]](content, folder)


def _seeds() -> list[bytes]:
    return [bytes([at]) for at in range(len(FAULTS) + 5)]


FAULTY = {
    "faulty": Reader(
        _read, _seeds, lambda rng, content: b"\xff", (), 0.0, deadline_s=2.0, peak_mib=400
    )
}
