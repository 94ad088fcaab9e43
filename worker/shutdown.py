"""A flag that a worker's main process shares with its forked children: stop after this batch."""

import mmap

_flag = mmap.mmap(-1, 1)


def announce() -> None:
    _flag[0] = 1


def withdraw() -> None:
    _flag[0] = 0


def announced() -> bool:
    return _flag[0] == 1
