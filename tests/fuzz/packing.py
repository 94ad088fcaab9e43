"""Zips of artifacts for the fuzzer: other members, other records, other manifests."""

import hashlib
import io
import json
import struct
import warnings
import zipfile
from pathlib import Path
from random import Random

from nelbo.artifact import MANIFEST
from nelbo.packing import unpack
from tests.fuzz import manifest, mutations

MODULES = ("packing",)
NAMES = (
    "../out-of-it", "/tmp/out-of-it", "..", ".", "", "a/b", "a\\b", "C:x", "MODEL_CARD.md",
    "report.html", "run.json", "x.py",
    "manifest.json", "score.onnx", "score.onnx/", "é.onnx", "n" * 300, "nul\0.onnx",
    " score.onnx", "SCORE.ONNX",
)  # fmt: skip
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# Where each field of a record begins and how many bytes it has: APPNOTE.TXT 4.3.7, 4.3.12, 4.3.16.
RECORDS = {
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x01\x02": (
        (4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2),
        (34, 2), (38, 4), (42, 4),
    ),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}  # fmt: skip


def read(content: bytes, folder: Path) -> None:
    packed = folder / "pushed.zip"
    packed.write_bytes(content)
    unpack(packed, folder / "artifact")


def seeds() -> list[bytes]:
    files = list(manifest.files().items())
    many = [(f"{at}.onnx", b"") for at in range(20)]
    bomb = [*files[:-1], (files[-1][0], b"\0" * 2**20)]
    zips = [_zip(files, (method,)) for method in METHODS]
    return [
        *zips,
        _zip(files[1:], METHODS),
        _zip(files + many, METHODS),
        _zip(bomb, METHODS[1:2]),
        _zip([], METHODS),
        b"",
    ]


def mutate(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if choice < 0.2:
        return mutations.changed(rng, content)
    if choice < 0.6:
        return _changed_record(rng, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()[:20]]
    except Exception:  # whatever zipfile says of a zip that was changed before
        return _zip(list(manifest.files().items()), (rng.choice(METHODS),))
    return _changed_members(rng, members)[: mutations.MOST_BYTES]


def _zip(members: list[tuple[str, bytes]], methods: tuple[int, ...], comment: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # of names that stand twice
        for at, (name, content) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = methods[at % len(methods)]
            archive.writestr(info, content[: 2**21])
        archive.comment = comment
    return packed.getvalue()


def _changed_members(rng: Random, members: list[tuple[str, bytes]]) -> bytes:
    choice, at = rng.random(), rng.randrange(max(1, len(members)))
    if choice < 0.25:
        members = mutations.taken(rng, members)
    elif choice < 0.5 and members:
        members[at] = rng.choice(NAMES), members[at][1]
    elif choice < 0.7 and members:
        members[at] = members[at][0], mutations.changed(rng, members[at][1])
    elif choice < 0.95:
        members = _with_manifest(rng, members)
    return _zip(
        members,
        rng.choice(((0,), (8,), METHODS)),
        rng.choice((b"", b"", b"", b"PK\x05\x06 a comment")),
    )


def _with_manifest(rng: Random, members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Another manifest and another graph, whose digest it names."""
    files = dict(members)
    content = files.get(MANIFEST, b"{}")
    try:
        if rng.random() < 0.7:
            value = json.loads(content)
            graph = rng.choice(list(value["graphs"].values()))
            name = rng.choice((graph["file"], *NAMES))
            files[name] = mutations.changed(rng, files.pop(graph["file"], b""))
            graph |= {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest()}
            files[MANIFEST] = json.dumps(value).encode()
        else:
            files[MANIFEST] = manifest.mutate(rng, content)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        files[MANIFEST] = manifest.mutate(rng, content)
    return list(files.items())


def _changed_record(rng: Random, content: bytes) -> bytes:
    signature = rng.choice(tuple(RECORDS))
    places = (
        [at for at in range(len(content)) if content.startswith(signature, at)]
        if signature in content
        else []
    )
    if not places:
        return mutations.changed(rng, content)
    offset, size = rng.choice(RECORDS[signature])
    at = rng.choice(places) + offset
    value: int = struct.unpack_from(
        "<H" if size == 2 else "<I", content.ljust(at + size, b"\0"), at
    )[0]
    return (
        content[:at]
        + (mutations.number(rng, value) % (1 << 8 * size)).to_bytes(size, "little")
        + content[at + size :]
    )
