"""An artifact as one zip file, with limits on what a stranger's zip may contain."""

import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nelbo.artifact import (
    MANIFEST,
    MAX_ARTIFACT_BYTES,
    MAX_MANIFEST_BYTES,
    Artifact,
    digest_of,
    files_of,
    is_plain,
    parse_manifest,
    read_artifact,
    verify_graphs,
)
from nelbo.errors import InvalidArtifact
from nelbo.streams import pieces_of

MODEL_CARD = "MODEL_CARD.md"
BESIDE = (MODEL_CARD, "report.html", "history.json", "run.json")
"""Files of training that a service does not need; a zip may hold them."""
MAX_MEMBERS = 16
MAX_DIRECTORY_BYTES = 16 * 2**10
_END = struct.Struct("<4s4H2LH")
"""The record at the end of a zip.

Signature, disk, disk of the directory, members on this disk, members, bytes of the directory, its
offset, bytes of the comment.
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.16
"""
_ZIP64_LOCATOR = b"PK\x06\x07"
_LOCATOR_BYTES = 20
_PLAIN_FLAGS = 0x0002 | 0x0004 | 0x0008 | 0x0800
"""Levels of deflate, sizes after the content, names in UTF-8.

All other flags mean encryption or patches.
"""
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    OverflowError,
)
"""The errors that zipfile raises for a file that is not a zip."""


def pack(folder: Path, packed: Path) -> None:
    """Write the artifact in a folder as one zip.

    Members are stored, with fixed time stamps, so that equal artifacts give equal bytes.
    """
    artifact = read_artifact(folder)
    extra = [MODEL_CARD] if (folder / MODEL_CARD).is_file() else []
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in dict.fromkeys((*files_of(artifact.manifest), *extra)):
            member = zipfile.ZipInfo(name)
            with (folder / name).open("rb") as file:
                member.file_size = os.fstat(file.fileno()).st_size
                with archive.open(member, "w") as target:
                    for block in pieces_of(file):
                        target.write(block)


def unpack(packed: Path, folder: Path) -> Artifact:
    """Unpack a zip made by `pack` into an empty folder and verify it. Raises InvalidArtifact.

    Files are written only after the directory and the manifest were checked, and only into the
    folder.
    """
    with packed.open("rb") as file, _opened(file) as archive:
        members = _members(archive)
        text = b"".join(_content(archive, members[MANIFEST]))
        manifest = parse_manifest(text)
        _check_names(members, (*files_of(manifest), *BESIDE))
        folder.mkdir(parents=True, exist_ok=True)
        for name, member in members.items():
            with (folder / name).open("wb") as target:
                for block in _content(archive, member):
                    target.write(block)
    artifact = Artifact(folder, manifest, digest_of(text))
    verify_graphs(artifact)
    return artifact


@contextmanager
def _opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """The zip, after a check of its last record: zipfile reads a directory of any size it names."""
    _check_last_record(file)
    with _understood():
        archive = zipfile.ZipFile(file)
    with archive:
        yield archive


def _check_last_record(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = file.read()
    if len(tail) < _END.size:
        raise _not_a_zip()
    record = _END.unpack(tail[-_END.size :])
    signature, disk, directory_disk, here, entries, directory_bytes, offset, comment = record
    if signature != b"PK\x05\x06" or comment or tail[: -_END.size].startswith(_ZIP64_LOCATOR):
        raise _not_a_zip()
    if disk or directory_disk or here != entries or offset + directory_bytes + _END.size != size:
        raise _not_a_zip()
    if entries > MAX_MEMBERS or directory_bytes > MAX_DIRECTORY_BYTES:
        raise InvalidArtifact(
            f"the zip holds {entries:,} files; an artifact has at most {MAX_MEMBERS}: use `nelbo"
            " push`"
        )


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name, the manifest first. Their content is not read yet."""
    members = {member.filename: member for member in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise InvalidArtifact("the zip holds a file twice; push the folder with `nelbo push`")
    for member in members.values():
        _check_member(member, archive.start_dir)
    if sum(member.file_size for member in members.values()) > MAX_ARTIFACT_BYTES:
        raise InvalidArtifact(
            f"the artifact unpacks to more than {MAX_ARTIFACT_BYTES // 2**20} MiB"
        )
    if MANIFEST not in members:
        raise InvalidArtifact(
            f"the zip holds no {MANIFEST}; push the folder that `nelbo train` wrote"
        )
    if members[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise InvalidArtifact(
            f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB; train with fewer"
            " categories"
        )
    return {MANIFEST: members[MANIFEST]} | members


def _check_member(member: zipfile.ZipInfo, directory: int) -> None:
    """Refuse a member in a folder, an unusual compression, or content behind the directory."""
    name = member.filename
    if not is_plain(name):
        raise InvalidArtifact(
            f"the zip holds {name[:100]!r}; an artifact's files are not in folders"
        )
    if (
        member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        or member.flag_bits & ~_PLAIN_FLAGS
    ):
        raise InvalidArtifact(
            f"{name[:100]} is neither stored nor deflated, or is encrypted; use `nelbo push`"
        )
    if member.header_offset + member.compress_size > directory:
        raise _not_a_zip()


def _check_names(members: Iterable[str], allowed: Collection[str]) -> None:
    unknown = sorted(set(members) - set(allowed))
    if unknown:
        raise InvalidArtifact(
            f"the zip holds {unknown[0][:100]!r}, which is no file of an artifact; use `nelbo push`"
        )


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member in pieces. Refuses another size than the directory states."""
    size = 0
    with _understood(), archive.open(member) as source:
        for block in pieces_of(source):
            size += len(block)
            yield block
    if size != member.file_size:
        raise _not_a_zip()


@contextmanager
def _understood() -> Iterator[None]:
    """Translate zipfile's errors into InvalidArtifact."""
    try:
        yield
    except _BROKEN:
        raise _not_a_zip() from None


def _not_a_zip() -> InvalidArtifact:
    return InvalidArtifact(
        "the pushed file is not a zip of an artifact, or is damaged; push the folder with `nelbo"
        " push`"
    )
