"""Writing a file: through links, into pipes and devices, and over a regular file only as a whole.

The old content of a regular file stays until all of the new content is on disk.
"""

import contextlib
import errno
import io
import os
import re
import resource
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from nelbo.errors import InvalidInput, NelboError, NotFound, Unavailable

SCRATCH = ".nelbo-"
"""Prefix of the temporary files and folders that Nelbo removes when a command ends."""
_NOT_ALLOWED = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MOUNTED = {errno.EBUSY, errno.EXDEV}
_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")


@contextlib.contextmanager
def open_target(path: str | Path) -> Iterator[BinaryIO]:
    """A stream into the file at `path`, or into standard output for "-".

    A regular file, also one behind symbolic links, gets its new content when the block ends without
    an error. Until then it keeps its old content. It always keeps its mode, its owner and its hard
    links. Pipes, devices and open descriptors (/dev/stdout, /dev/fd/63) are written at once. Only
    the stream of a regular file can seek.

    Raises NotFound if the user may not write there, InvalidInput if nobody can, and Unavailable if
    the disk is full.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(path)
    if is_stream(path):
        with _stream(_opened(path), path, seekable=False) as stream:
            yield stream
    else:
        with _whole(path) as stream:
            yield stream


def check_target(path: str | Path) -> None:
    """Raise the error that `open_target` would raise, before there is anything to write."""
    path = Path(path)
    if str(path) == "-" or (is_stream(path) and os.access(path, os.W_OK)):
        return
    if is_stream(path):
        raise cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with _temporary(path, _file_behind(path)) as (descriptor, _):
        os.close(descriptor)


def check_folder(folder: Path, room: int) -> None:
    """Refuse a folder in which no files of `room` bytes can be written.

    The folder itself may be absent, if it can be created.
    """
    final = Path(os.path.realpath(folder))
    try:
        parent = next(path for path in (final, *final.parents) if path.exists())
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=parent) as trial:
            # This fails if a name is too long.
            Path(trial, final.relative_to(parent)).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise cannot_write(folder, problem) from None

    free = shutil.disk_usage(parent).free
    if free < room:
        raise Unavailable(
            f"{folder} has {free / 2**20:.1f} MiB of free disk and {room / 2**20:.0f} MiB are"
            " needed; make room"
        )
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < room:
        raise Unavailable(
            f"files may be at most {largest / 2**20:.1f} MiB (ulimit -f) and"
            f" {room / 2**20:.0f} MiB are needed; raise the limit"
        )


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a character device or an open descriptor.

    These are written at once and never replaced by a new file.
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def cannot_write(path: Path, problem: OSError) -> NelboError:
    """The error that says in one sentence why `path` cannot be written."""
    if problem.errno == errno.ENOENT:
        return NotFound(f"no folder {path.parent} to write {path.name} into; make it first")
    message = f"{path} cannot be written: {problem.strerror or problem}"
    if problem.errno in _NOT_ALLOWED:
        return NotFound(message)
    if problem.errno in _FULL:
        return Unavailable(message)
    return InvalidInput(message)


def _descriptor(path: Path) -> int | None:
    """The descriptor that /dev/stdout, /dev/fd/N or a link to them names; None for other paths."""
    own = f"/proc/{os.getpid()}/"
    for _ in range(40):  # the system too follows at most 40 links
        folder = os.path.realpath(path.parent)
        is_own = folder.startswith(own) and _DESCRIPTORS.fullmatch(folder)
        if is_own and path.name.isdecimal():
            return int(path.name)
        try:
            path = Path(folder, os.readlink(path))
        except OSError:
            return None
    return None


def _opened(path: Path) -> int:
    number = _descriptor(path)
    try:
        return os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    except OSError as problem:
        raise cannot_write(path, problem) from None


def _file_behind(path: Path) -> os.stat_result | None:
    """The status of the regular file behind `path`; None if there is no file yet.

    Refuses a folder, a socket, a disk, and a file that the user may not write.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise cannot_write(path, problem) from None
    if stat.S_ISDIR(status.st_mode):
        raise InvalidInput(f"{path} is a folder; name a file to write")
    if not stat.S_ISREG(status.st_mode):
        kind = "socket" if stat.S_ISSOCK(status.st_mode) else "disk"
        raise InvalidInput(f"{path} is a {kind}; name a file to write")
    if not os.access(path, os.W_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return status


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    before = _file_behind(path)
    with _temporary(path, before) as (descriptor, temporary):
        with _stream(descriptor, path, seekable=True) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        try:
            _put(temporary, Path(os.path.realpath(path)), before)
        except OSError as problem:
            raise cannot_write(path, problem) from None


@contextlib.contextmanager
def _temporary(path: Path, before: os.stat_result | None) -> Iterator[tuple[int, Path]]:
    """A new file in the folder of `path`, as a descriptor and a path; the block's end removes it.

    It is in the system's temporary folder if the user may write the old file but not the folder.
    """
    final = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        if before is None:
            _check_name(final)
        beside = before is None or os.access(final.parent, os.W_OK)
        descriptor, name = tempfile.mkstemp(prefix=SCRATCH, dir=final.parent if beside else None)
    except OSError as problem:
        raise cannot_write(final, problem) from None
    try:
        yield descriptor, Path(name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _check_name(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.lstat()  # this fails if the name is too long


def _put(temporary: Path, final: Path, before: os.stat_result | None) -> None:
    """Give a complete file its final name, or copy its content into the old file.

    The old file is kept if it has other hard links, another owner, or a folder that is read-only.
    """
    if before is None:
        os.chmod(temporary, 0o666 & ~_umask())
    elif (
        before.st_nlink > 1
        or os.geteuid() not in (0, before.st_uid)
        or not os.access(final.parent, os.W_OK)
    ):
        _copy_into(temporary, final)
        return
    else:
        with contextlib.suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
        os.chmod(temporary, stat.S_IMODE(before.st_mode))
    try:
        os.replace(temporary, final)
    except OSError as problem:
        if problem.errno not in _MOUNTED:
            raise
        # A single file that is mounted, as into a container, cannot be replaced.
        _copy_into(temporary, final)


def _copy_into(temporary: Path, final: Path) -> None:
    with temporary.open("rb") as new, final.open("r+b") as old:
        new_size = os.fstat(new.fileno()).st_size
        old_size = os.fstat(old.fileno()).st_size
        if new_size > old_size:
            try:
                # A full disk must be noticed before the old content is overwritten.
                os.posix_fallocate(old.fileno(), 0, new_size)
            except OSError:
                old.truncate(old_size)
                raise
        shutil.copyfileobj(new, old)
        old.truncate()
        os.fsync(old.fileno())


class _File(io.FileIO):
    """A file whose errors name the path that the user gave."""

    def __init__(self, descriptor: int, path: Path, seekable: bool) -> None:
        super().__init__(descriptor, "w")
        self._path = path
        self._seekable = seekable

    def seekable(self) -> bool:
        return self._seekable

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]  # bytes or another buffer
        except BrokenPipeError:
            raise
        except OSError as problem:
            raise cannot_write(self._path, problem) from None


@contextlib.contextmanager
def _stream(descriptor: int, path: Path, seekable: bool) -> Iterator[BinaryIO]:
    raw = _File(descriptor, path, seekable)
    stream = io.BufferedWriter(raw, 2**16)
    try:
        yield cast(BinaryIO, stream)
        stream.flush()
    finally:
        # Closing the buffer instead would write again the bytes that an error left in it.
        raw.close()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
