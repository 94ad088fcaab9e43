"""A storage holds all bytes of a key or none, and says what is missing."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.errors import InvalidInput, NotFound, Unavailable
from nelbo.storage import (
    PUSHES,
    Storage,
    artifact_key,
    file_prefix,
    open_storage,
    part_key,
    push_key,
    upload_key,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "with space ü"


@pytest.fixture(params=["url", "path"])
def storage(request: pytest.FixtureRequest, folder: Path) -> Storage:
    return open_storage(folder.as_uri() if request.param == "url" else str(folder))


def pieces(count: int) -> Iterator[bytes]:
    for at in range(count):
        yield bytes([at]) * 2**20


def test_bytes_files_and_streams_are_stored_alike(storage: Storage, tmp_path: Path) -> None:
    content = b"".join(pieces(12))
    path = tmp_path / "content"
    path.write_bytes(content)
    given_as: dict[str, Any] = {
        "a": content,
        "b": path,
        "c": io.BytesIO(content),
        "d": pieces(12),
        "e": iter(()),
    }
    for key, given in given_as.items():
        storage.put(f"files/{key}/upload", given)
        assert storage.get(f"files/{key}/upload") == (content if key != "e" else b"")


def test_an_object_is_fetched_or_read_in_the_places_that_matter(
    storage: Storage, tmp_path: Path
) -> None:
    table = pa.table({"n": list(range(100_000))})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=10_000)
    storage.put("k", tmp_path / "table.parquet")
    storage.fetch("k", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "table.parquet").read_bytes()
    with storage.open("k") as stream:
        assert pq.ParquetFile(stream).read_row_group(3).column("n")[0].as_py() == 30_000
    with storage.open("k") as stream:
        stream.seek(-4, io.SEEK_END)
        assert stream.read() == b"PAR1"
        assert stream.tell() == (tmp_path / "copy").stat().st_size


def test_a_moved_object_is_under_its_new_key_alone(storage: Storage) -> None:
    storage.put(push_key("1"), b"x")
    storage.move(push_key("1"), artifact_key("1"))
    assert storage.get(artifact_key("1")) == b"x"
    assert storage.keys(f"{PUSHES}/") == []
    with pytest.raises(NotFound):
        storage.move(push_key("1"), artifact_key("1"))
    assert storage.get(artifact_key("1")) == b"x"


def test_names_are_what_lies_directly_below_a_folder(storage: Storage, folder: Path) -> None:
    assert storage.names("files") == []
    for key in (upload_key("1"), part_key("1", 0), upload_key("2"), artifact_key("1")):
        storage.put(key, b"x")
    (folder / "files" / "3").mkdir()
    assert storage.names("files") == ["1", "2", "3"]
    assert storage.names("artifacts") == ["1.zip"]
    storage.delete(file_prefix("3"))
    assert storage.names("files") == ["1", "2"]


def test_keys_of_a_prefix_are_listed_and_deleted_and_no_others(storage: Storage) -> None:
    for key in (
        upload_key("1"),
        part_key("1", 0),
        part_key("1", 11),
        upload_key("11"),
        artifact_key("1"),
    ):
        storage.put(key, b"x")
    assert storage.keys(file_prefix("1")) == [
        "files/1/part-000000.parquet",
        "files/1/part-000011.parquet",
        "files/1/upload",
    ]
    storage.delete(file_prefix("1"))
    storage.delete(artifact_key("1"))
    assert storage.keys("") == [upload_key("11")]
    storage.delete(file_prefix("1"))


def test_a_stream_that_breaks_off_leaves_nothing_and_its_error_passes(
    storage: Storage, folder: Path
) -> None:
    def broken() -> Iterator[bytes]:
        yield from pieces(12)
        raise InvalidInput("the upload is too large")

    storage.put("k", b"before")
    with pytest.raises(InvalidInput, match="too large"):
        storage.put("k", broken())
    assert storage.get("k") == b"before"
    assert [path.name for path in folder.rglob("*")] == ["k"]


def test_the_pieces_are_asked_for_in_the_thread_of_the_caller(storage: Storage) -> None:
    """The API fetches each from its event loop, which only knows that thread."""
    seen: list[int] = []

    def watched() -> Iterator[bytes]:
        for piece in pieces(12):
            seen.append(threading.get_ident())
            yield piece

    storage.put("k", watched())
    assert set(seen) == {threading.get_ident()}


def test_what_is_not_stored_is_not_found(storage: Storage, tmp_path: Path) -> None:
    for attempt in (storage.get, storage.open, lambda key: storage.fetch(key, tmp_path / "copy")):
        with pytest.raises(NotFound, match="files/1/upload"):
            attempt(upload_key("1"))


def test_a_storage_that_does_not_work_is_unavailable(folder: Path, tmp_path: Path) -> None:
    storage = open_storage(str(folder))
    os.rmdir(folder)
    folder.write_bytes(b"now a file")
    with pytest.raises(Unavailable, match="does not answer"):
        storage.put("k", b"x")
    with pytest.raises(Unavailable, match="does not answer"):
        open_storage(str(folder / "below"))


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="neither a folder nor s3"):
        open_storage("https://example.org/bucket")
    assert isinstance(open_storage("s3://bucket/prefix"), Storage)
