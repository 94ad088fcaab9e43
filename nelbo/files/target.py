"""Where a file goes: through links, into pipes and devices, and over a regular file only when the
new one is whole."""

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
"""What the names of files and folders begin with that Nelbo removes when a command ends."""
_NOT_ALLOWED = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MOUNTED = {errno.EBUSY, errno.EXDEV}
_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")


@contextlib.contextmanager
def open_target(path: str | Path) -> Iterator[BinaryIO]:
    """A stream into the file that `path` names, "-" for standard output.

    A regular file, also one behind symbolic links, gets its new content when the block ends without
    an error; until then it stays as it was. It keeps its mode, its owner and its other names (hard
    links). Pipes, devices and open descriptors (/dev/stdout, /dev/fd/63) are written as the bytes
    come. Only the stream of a regular file can seek. Raises NotFound where the user may not write,
    InvalidInput where nobody could, Unavailable where the disk is full.
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
    """Raise what `open_target` would raise, before there is anything to write."""
    path = Path(path)
    if str(path) == "-" or (is_stream(path) and os.access(path, os.W_OK)):
        return
    if is_stream(path):
        raise cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with _temporary(path, _file_behind(path)) as (descriptor, _):
        os.close(descriptor)


def check_folder(folder: Path, room: int) -> None:
    """Refuse a folder in which no files of `room` bytes can be made; one that is absent is made
    where it can be."""
    final = Path(os.path.realpath(folder))
    try:
        there = next(place for place in (final, *final.parents) if place.exists())
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=there) as trial:
            Path(trial, final.relative_to(there)).mkdir(
                parents=True, exist_ok=True
            )  # a name may be too long
    except OSError as problem:
        raise cannot_write(folder, problem) from None
    free = shutil.disk_usage(there).free
    if free < room:
        raise Unavailable(
            f"{folder} has {free / 2**20:.1f} MiB of free disk and {room / 2**20:.0f} MiB are"
            " needed; make room"
        )
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < room:
        raise Unavailable(
            f"files may be at most {largest / 2**20:.1f} MiB (ulimit -f) and {room / 2**20:.0f} MiB"
            " are needed; raise the limit"
        )


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a character device or an open descriptor: written as the bytes
    come, never replaced."""
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
    kind = (
        NotFound
        if problem.errno in _NOT_ALLOWED
        else Unavailable
        if problem.errno in _FULL
        else InvalidInput
    )
    return kind(f"{path} cannot be written: {problem.strerror or problem}")


def _descriptor(path: Path) -> int | None:
    """The number that /dev/stdout, /dev/fd/N and links to them stand for; None for any other
    path."""
    for _ in range(40):  # the system follows as many links
        folder = os.path.realpath(path.parent)
        if (
            path.name.isdecimal()
            and _DESCRIPTORS.fullmatch(folder)
            and folder.startswith(f"/proc/{os.getpid()}/")
        ):
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
    """What is known of the regular file behind `path`; None where none is yet. Refuses what no
    table can be written to."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise cannot_write(path, problem) from None
    if stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"{path} is a folder; name a file to write")
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(
            f"{path} is a {'socket' if stat.S_ISSOCK(found.st_mode) else 'disk'}; name a file to"
            " write"
        )
    if not os.access(path, os.W_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return found


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
    """A new file beside the one behind `path`, as a descriptor and its name; it is gone when the
    block ends."""
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
        path.lstat()  # a name that is too long is refused here


def _put(temporary: Path, final: Path, before: os.stat_result | None) -> None:
    """Give a whole file its name, or its content to the file that must stay the same one."""
    if before is None:
        os.chmod(temporary, 0o666 & ~_umask())
    else:
        if (
            before.st_nlink > 1
            or os.geteuid() not in (0, before.st_uid)
            or not os.access(final.parent, os.W_OK)
        ):
            _copy_into(temporary, final)
            return
        with contextlib.suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
        os.chmod(temporary, stat.S_IMODE(before.st_mode))
    try:
        os.replace(temporary, final)
    except OSError as problem:
        if problem.errno not in _MOUNTED:
            raise
        _copy_into(
            temporary, final
        )  # a single file that is mounted, as containers do, has no other place


def _copy_into(temporary: Path, final: Path) -> None:
    with temporary.open("rb") as new, final.open("r+b") as old:
        size, before = os.fstat(new.fileno()).st_size, os.fstat(old.fileno()).st_size
        if size > before:
            try:
                os.posix_fallocate(
                    old.fileno(), 0, size
                )  # a full disk is found while the old content is there
            except OSError:
                old.truncate(before)
                raise
        shutil.copyfileobj(new, old)
        old.truncate()
        os.fsync(old.fileno())


class _File(io.FileIO):
    """A file whose errors name the path that the user gave."""

    def __init__(self, descriptor: int, path: Path, seekable: bool) -> None:
        super().__init__(descriptor, "w")
        self._path, self._seekable = path, seekable

    def seekable(self) -> bool:
        return self._seekable

    def write(self, content: object, /) -> int:
        try:
            return super().write(content)  # type: ignore[arg-type]  # bytes, or whatever shows its bytes
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
        # Not the buffer: it would write once more what an error kept from being written.
        raw.close()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
