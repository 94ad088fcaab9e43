"""A zip is an artifact's or it is refused: from its directory alone where that tells, and never by
more memory than it says."""

import io
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.artifact import MANIFEST, MAX_ARTIFACT_BYTES, MAX_MANIFEST_BYTES, read_artifact
from nelbo.errors import InvalidArtifact
from nelbo.packing import MAX_MEMBERS, MODEL_CARD, pack, unpack
from tests.artifacts import linear_artifact, packed

MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_artifact(tmp_path_factory.mktemp("packing") / "artifact")


@pytest.fixture(scope="module")
def whole(folder: Path) -> bytes:
    return packed(folder)


def test_packing_and_unpacking_gives_the_same_artifact_and_the_same_bytes(
    folder: Path, whole: bytes, tmp_path: Path
) -> None:
    (tmp_path / "packed.zip").write_bytes(whole)
    again = unpack(tmp_path / "packed.zip", tmp_path / "again")
    assert again == read_artifact(tmp_path / "again")
    assert again.digest == read_artifact(folder).digest
    assert packed(tmp_path / "again") == whole


def test_a_folder_that_was_zipped_by_hand_unpacks_too(folder: Path, tmp_path: Path) -> None:
    """Deflated, in any order, with the files that training writes beside the artifact's."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir(), reverse=True):
            archive.write(path, path.name)
        for name in (MODEL_CARD, "report.html", "history.json", "run.json"):
            archive.writestr(name, "text")
    assert (
        unpack(tmp_path / "packed.zip", tmp_path / "again").digest == read_artifact(folder).digest
    )


def test_packing_holds_a_piece_of_the_artifact_at_a_time(folder: Path, tmp_path: Path) -> None:
    large = shutil.copytree(folder, tmp_path / "large")
    with (large / MODEL_CARD).open("wb") as card:
        card.truncate(64 * MIB)
    with peak_below(16 * MIB):
        pack(large, tmp_path / "packed.zip")
    with peak_below(16 * MIB):
        unpack(tmp_path / "packed.zip", tmp_path / "again")


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, text in members:
            archive.writestr(
                zipfile.ZipInfo(name) if compression == zipfile.ZIP_STORED else name, text
            )
    return content.getvalue()


def in_directory(whole: bytes, field: int, form: str, value: int) -> bytes:
    """The zip with another value in the first record of its directory, `field` bytes from its
    beginning."""
    changed = bytearray(whole)
    struct.pack_into(form, changed, whole.index(b"PK\x01\x02") + field, value)
    return bytes(changed)


def at_the_end(whole: bytes, field: int, form: str, value: int) -> bytes:
    """The zip with another value in its last record."""
    changed = bytearray(whole)
    struct.pack_into(form, changed, len(whole) - 22 + field, value)
    return bytes(changed)


def with_zip64_locator(whole: bytes) -> bytes:
    """A directory that the last record does not tell of: zipfile would follow the locator before
    it."""
    end = len(whole) - 22
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 10**9, 0)
    return whole[:end] + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1) + whole[end:]


def deflated(size: int) -> bytes:
    """A zip of a manifest of zeros, deflated a thousand times smaller."""
    return zipped((MANIFEST, bytes(size)), compression=zipfile.ZIP_DEFLATED)


def understated(size: int) -> bytes:
    """A manifest of zeros that the directory and its own header call ten bytes long."""
    whole = bytearray(in_directory(deflated(size), 24, "<L", 10))
    struct.pack_into("<L", whole, whole.index(b"PK\x03\x04") + 22, 10)
    return in_directory(bytes(whole), 16, "<L", zlib.crc32(bytes(10)))


OTHERS = tuple((f"{at:06d}", b"") for at in range(20_000))
MADE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda whole: b"", "not a zip"),
    "text": (lambda whole: b"hello" * 100, "not a zip"),
    "the first half": (lambda whole: whole[: len(whole) // 2], "not a zip"),
    "bytes before it": (lambda whole: b"#!/bin/sh\n" + whole, "not a zip"),
    "a comment behind it": (lambda whole: at_the_end(whole, 20, "<H", 5) + b"hello", "not a zip"),
    "a zip64 locator": (with_zip64_locator, "not a zip"),
    "two disks": (lambda whole: at_the_end(whole, 4, "<H", 1), "not a zip"),
    "20,000 members": (lambda whole: zipped(*OTHERS), "20,000 files"),
    "20,000 members, called few": (
        lambda whole: at_the_end(at_the_end(zipped(*OTHERS), 8, "<H", 6), 10, "<H", 6),
        "6 files",
    ),
    "one member too many": (
        lambda whole: zipped(*OTHERS[: MAX_MEMBERS + 1]),
        f"{MAX_MEMBERS + 1} files",
    ),
    "bzip2": (
        lambda whole: zipped((MANIFEST, bytes(8 * MIB)), compression=zipfile.ZIP_BZIP2),
        "neither stored nor deflated",
    ),
    "LZMA": (
        lambda whole: zipped((MANIFEST, bytes(8 * MIB)), compression=zipfile.ZIP_LZMA),
        "neither stored nor deflated",
    ),
    "an unknown compression": (
        lambda whole: in_directory(whole, 10, "<H", 93),
        "neither stored nor deflated",
    ),
    "encryption": (lambda whole: in_directory(whole, 8, "<H", 1), "encrypted"),
    "a patch": (lambda whole: in_directory(whole, 8, "<H", 0x20), "encrypted"),
    "an offset behind the end": (lambda whole: in_directory(whole, 42, "<L", 2**31), "not a zip"),
    "a size above all": (
        lambda whole: in_directory(whole, 24, "<L", 2**32 - 2),
        f"{MAX_ARTIFACT_BYTES // MIB} MiB",
    ),
    "a manifest of zeros": (
        lambda whole: deflated(MAX_MANIFEST_BYTES + 1),
        f"{MAX_MANIFEST_BYTES // MIB} MiB",
    ),
    "an understated manifest": (lambda whole: understated(64 * MIB), "damaged"),
    "a member twice": (lambda whole: zipped((MANIFEST, b"{}"), (MANIFEST, b"{}")), "a file twice"),
    "no manifest": (lambda whole: zipped(("score.onnx", b"")), f"no {MANIFEST}"),
    "a version that needs a newer reader": (
        lambda whole: in_directory(whole, 6, "<H", 99),
        "not a zip",
    ),
    "a name that is no UTF-8": (
        lambda whole: in_directory(in_directory(whole, 8, "<H", 0x800), 46, "<H", 0xFFFF),
        "not a zip",
    ),
    "another file": (
        lambda whole: whole.replace(MODEL_CARD.encode(), b"MODEL_CARD.sh"),
        "no file of an artifact",
    ),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_is_no_artifacts_is_refused_at_little_memory_before_anything_is_written(
    folder: Path, tmp_path: Path, name: str
) -> None:
    with_card = shutil.copytree(folder, tmp_path / "artifact")
    (with_card / MODEL_CARD).write_text("# card")
    make, words = MADE[name]
    (tmp_path / "evil.zip").write_bytes(make(packed(with_card)))
    with peak_below(8 * MIB), pytest.raises(InvalidArtifact, match=words):
        unpack(tmp_path / "evil.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["../escape", "inner/manifest.json", "/etc/passwd", "..\\escape", ".", "..", "folder/", "\n"],
)
def test_a_zip_with_a_path_in_it_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "evil.zip").write_bytes(zipped((name, b"x")))
    with pytest.raises(InvalidArtifact, match="not in folders"):
        unpack(tmp_path / "evil.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(st.data())
def test_a_zip_with_some_bytes_changed_is_the_same_artifact_or_refused(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Most of the bytes that are changed are those of headers and the directory."""
    heads = [at for at in range(len(whole)) if whole.startswith(b"PK", at)]
    position = st.one_of(
        st.integers(0, len(whole) - 1),
        st.builds(int.__add__, st.sampled_from(heads), st.integers(0, 60)),
    )
    changed = bytearray(whole)
    for at, byte in data.draw(
        st.lists(st.tuples(position, st.integers(0, 255)), min_size=1, max_size=4)
    ):
        changed[min(at, len(whole) - 1)] = byte
    folder = tmp_path_factory.mktemp("changed")
    (folder / "packed.zip").write_bytes(
        changed[: data.draw(st.sampled_from([len(whole), len(whole), len(whole) - 1]))]
    )
    with suppress(InvalidArtifact):
        assert unpack(folder / "packed.zip", folder / "out").manifest.name == "linear"
    shutil.rmtree(folder)


@contextmanager
def peak_below(limit: int) -> Iterator[None]:
    """Fail where Python's objects take more than `limit` bytes at some time in the block."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak < limit, f"{peak / MIB:.0f} MiB"
    finally:
        tracemalloc.stop()
