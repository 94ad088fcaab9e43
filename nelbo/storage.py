"""Where uploads, their parts and pushed artifacts lie: a local folder, or a bucket by URL.

Keys are made here, from ids that Nelbo made; nothing that a user names becomes a path.
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
    """All that is stored of a file: its upload and its parts."""
    return f"{FILES}/{file_id}"


def upload_key(file_id: str) -> str:
    return f"{file_prefix(file_id)}/upload"


def part_key(file_id: str, number: int) -> str:
    """The number-th part of a ready file (nelbo.files.write_parts)."""
    return f"{file_prefix(file_id)}/{part_name(number)}"


def artifact_key(version_id: str) -> str:
    """A pushed artifact as a zip (nelbo.packing.pack)."""
    return f"{ARTIFACTS}/{version_id}.zip"


def push_key(version_id: str) -> str:
    """A pushed artifact until it is registered. Whatever is old here came to nothing."""
    return f"{PUSHES}/{version_id}.zip"


def stored_ids(storage: "Storage", folder: str) -> list[str]:
    """The ids of all that is stored in FILES, ARTIFACTS or PUSHES."""
    return [PurePosixPath(name).stem for name in storage.names(folder)]


def open_storage(url: str) -> "Storage":
    """A storage by its URL: file:///folder or a plain path (made if absent), or s3://bucket/prefix.

    What S3 needs besides (AWS_ENDPOINT, AWS_REGION, keys) comes from the environment, as AWS names
    it.
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
    """Objects by key. A key is there with all of its bytes or not at all. Made after a fork, as it
    starts threads."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @property
    def folder(self) -> Path | None:
        """Where all of it lies, None for a bucket."""
        return self._folder

    def put(self, key: str, content: bytes | Path | BinaryIO | Iterator[bytes]) -> None:
        """Store bytes, a file, or pieces of bytes as they come; errors of the iterator pass
        through."""
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

    def move(self, key: str, to: str) -> None:
        """Give an object another key."""
        with _translated(key):
            obstore.rename(self._store, key, to)
            if self._folder:
                _sync(self._folder / to)

    def fetch(self, key: str, path: Path, check: Callable[[], None] | None = None) -> None:
        """Copy an object to a local path. `check` is called for each piece; what it raises ends the
        copying."""
        with _translated(key), path.open("wb") as file:
            for piece in obstore.get(self._store, key).stream(min_chunk_size=PIECE_BYTES):
                if check is not None:
                    check()
                file.write(piece)

    def open(self, key: str) -> BinaryIO:
        """An object as a file that can seek, for reading parts of it."""
        with _translated(key):
            return cast(
                BinaryIO,
                io.BufferedReader(_Reader(obstore.open_reader(self._store, key)), PIECE_BYTES),
            )

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix, which ends at a slash, in order."""
        with _translated(prefix):
            return sorted(
                found["path"] for page in obstore.list(self._store, prefix) for found in page
            )

    def names(self, folder: str) -> list[str]:
        """What lies directly below a folder, objects and folders, even those without an object in
        them."""
        with _translated(folder):
            if self._folder:
                place = self._folder / folder
                return sorted(os.listdir(place)) if place.is_dir() else []
            found = obstore.list_with_delimiter(self._store, folder)
            return sorted(
                key.rpartition("/")[2]
                for key in (*found["common_prefixes"], *(o["path"] for o in found["objects"]))
            )

    def delete(self, prefix: str) -> None:
        """Delete an object, or all below a prefix; what is not there is no error."""
        for key in [*self.keys(prefix), prefix]:
            with _translated(key), contextlib.suppress(FileNotFoundError):
                # An upload that broke off leaves its folder, which has no head and cannot be
                # deleted as an object.
                obstore.head(self._store, key)
                obstore.delete(self._store, key)
        if self._folder:
            # A process that was killed leaves the piece that it was writing, which is no object.
            shutil.rmtree(self._folder / prefix, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """Free disk for this user where a folder is or will be."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


class _Reader(io.RawIOBase):
    """obstore's reader, with what Python expects of a raw file."""

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
    """Make a new file outlast a power cut: its content, and its name in the folder."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
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
        what = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise Unavailable(f"the storage does not answer: {what}", retry_after=5) from problem
