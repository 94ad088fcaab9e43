"""The storage of uploads, their parts and pushed artifacts: a local folder, or a bucket by URL.

Keys are built here from ids that Nelbo created; no name from a user becomes a path.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from nelbo.errors import InvalidInput, NotFound, Unavailable
from nelbo.files.parts import part_name

PIECE_BYTES = 2**20
FILES = "files"
ARTIFACTS = "artifacts"
PUSHES = "pushes"


def file_prefix(file_id: str) -> str:
    """The prefix of everything that is stored for a file: its upload and its parts."""
    return f"{FILES}/{file_id}"


def upload_key(file_id: str) -> str:
    return f"{file_prefix(file_id)}/upload"


def part_key(file_id: str, number: int) -> str:
    """The key of the number-th part of a ready file (nelbo.files.write_parts)."""
    return f"{file_prefix(file_id)}/{part_name(number)}"


def artifact_key(version_id: str) -> str:
    """The key of a pushed artifact as a zip (nelbo.packing.pack)."""
    return f"{ARTIFACTS}/{version_id}.zip"


def push_key(version_id: str) -> str:
    """The key of a pushed artifact before it is registered; old ones were abandoned."""
    return f"{PUSHES}/{version_id}.zip"


def stored_ids(storage: "Storage", folder: str) -> list[str]:
    """The ids of everything that is stored in FILES, ARTIFACTS or PUSHES."""
    return [PurePosixPath(name).stem for name in storage.names(folder)]


def open_storage(url: str) -> "Storage":
    """A storage by its URL.

    The URL is file:///folder, a plain path (created if absent) or s3://bucket/prefix. The other
    settings of S3 (AWS_ENDPOINT, AWS_REGION, keys) come from the environment, under the names that
    AWS uses.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        folder = Path(unquote(urlsplit(url).path) if scheme else url).absolute()
        with _translated(str(folder)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Storage(LocalStore(folder, automatic_cleanup=True), folder)
    if scheme != "s3":
        raise InvalidInput(f"the storage {url!r} is neither a folder nor s3://bucket/prefix")
    with _translated(url):
        return Storage(from_url(url))


class Storage:
    """Objects by key. A key exists with all of its bytes or not at all.

    A storage is created after a fork, as it starts threads.
    """

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @property
    def folder(self) -> Path | None:
        """The folder of the storage; None for a bucket."""
        return self._folder

    def put(self, key: str, content: bytes | Path | BinaryIO | Iterator[bytes]) -> None:
        """Store bytes, a file, or pieces of bytes as they come.

        Errors of the iterator pass through.
        """
        with _translated(key):
            if isinstance(content, Path):
                with content.open("rb") as stream:
                    obstore.put(self._store, key, stream)
            else:
                obstore.put(self._store, key, content)
            if self._folder:
                _sync(self._folder / key)

    def get(self, key: str) -> bytes:
        with _translated(key):
            return bytes(obstore.get(self._store, key).bytes())

    def move(self, key: str, new_key: str) -> None:
        """Give an object another key."""
        with _translated(key):
            obstore.rename(self._store, key, new_key)
            if self._folder:
                _sync(self._folder / new_key)

    def fetch(self, key: str, path: Path, check: Callable[[], None] | None = None) -> None:
        """Copy an object to a local path.

        `check` is called for each piece; an error that it raises ends the copying.
        """
        with _translated(key), path.open("wb") as file:
            for piece in obstore.get(self._store, key).stream(min_chunk_size=PIECE_BYTES):
                if check is not None:
                    check()
                file.write(piece)

    def open(self, key: str) -> BinaryIO:
        """An object as a seekable file, for reading parts of it."""
        with _translated(key):
            reader = _Reader(obstore.open_reader(self._store, key))
            return cast(BinaryIO, io.BufferedReader(reader, PIECE_BYTES))

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix, which ends with a slash, in order."""
        with _translated(prefix):
            pages = obstore.list(self._store, prefix)
            return sorted(entry["path"] for page in pages for entry in page)

    def names(self, folder: str) -> list[str]:
        """The names of objects and folders directly below a folder, including empty folders."""
        with _translated(folder):
            if self._folder:
                path = self._folder / folder
                return sorted(os.listdir(path)) if path.is_dir() else []
            listing = obstore.list_with_delimiter(self._store, folder)
            keys = [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]
            return sorted(key.rpartition("/")[2] for key in keys)

    def delete(self, prefix: str) -> None:
        """Delete an object, or everything below a prefix; an absent one is no error."""
        for key in [*self.keys(prefix), prefix]:
            with _translated(key), contextlib.suppress(FileNotFoundError):
                # A broken upload leaves its folder, which is no object: `head` raises, so that it
                # is not deleted as one.
                obstore.head(self._store, key)
                obstore.delete(self._store, key)
        if self._folder:
            # A killed process leaves the piece that it was writing, which is no object.
            shutil.rmtree(self._folder / prefix, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Free bytes for this user on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


class _Reader(io.RawIOBase):
    """obstore's reader as a raw file of Python."""

    def __init__(self, reader: "obstore.ReadableFile") -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _translated("the object"):
            piece = self._reader.read(len(buffer))
        buffer[: len(piece)] = bytes(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()


def _sync(path: Path) -> None:
    """Make a new file survive a power failure: its content, and its name in the folder."""
    for target in (path, path.parent):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"nothing is stored under {key}") from None
    except (BaseError, OSError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise Unavailable(f"the storage does not answer: {reason}", retry_after=5) from problem
