"""What a stranger sends takes little memory: the real process of the API, each route that takes a
body, each bomb."""

import bz2
import io
import lzma
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import httpx2
import pyarrow as pa
import pytest

from api.bodies import LARGE_OF_OWNER
from nelbo.artifact import MANIFEST
from nelbo.jobs import AugmentRequest
from nelbo.rows import MadeRows
from nelbo.settings import Settings
from nelbo.store import catalog, ledger, results
from nelbo.store.session import Database, connect
from tests.api.serving import process
from tests.api.stage import description, manifest
from tests.artifacts import largest_manifest
from tests.processes import forget_peak, peak_mib
from worker.generation import outcome_of

LIMIT_MIB = 300
ZEROS_MIB = 256


def zipped(content: bytes, method: int) -> bytes:
    """A zip of a manifest of zeros that were compressed before, by `method`."""
    name, size = MANIFEST.encode(), ZEROS_MIB * 2**20
    end = struct.pack(
        "<HHHHHLLLHH", 20, 0, method, 0, 33, checksum(), len(content), size, len(name), 0
    )
    local = b"PK\x03\x04" + end + name + content
    directory = (
        b"PK\x01\x02" + struct.pack("<H", 20) + end + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name
    )
    return (
        local
        + directory
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(local), 0)
    )


@cache
def checksum() -> int:
    found = 0
    for _ in range(ZEROS_MIB):
        found = zlib.crc32(bytes(2**20), found)
    return found


def zeros(compress: Callable[[bytes], bytes], flush: Callable[[], bytes]) -> bytes:
    return b"".join([*(compress(bytes(2**20)) for _ in range(ZEROS_MIB)), flush()])


def deflated() -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return zipped(zeros(deflate.compress, deflate.flush), zipfile.ZIP_DEFLATED)


def bzip2ed() -> bytes:
    bzip2 = bz2.BZ2Compressor()
    return zipped(zeros(bzip2.compress, bzip2.flush), zipfile.ZIP_BZIP2)


def xzed() -> bytes:
    xz = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0}])
    head = struct.pack("<BBHBL", 9, 4, 5, 0x5D, 2**18)
    return zipped(head + zeros(xz.compress, xz.flush), zipfile.ZIP_LZMA)


def million_names() -> bytes:
    """Members without content, which all say that their header is the first."""
    head = b"PK\x01\x02" + struct.pack(
        "<HHHHHHLLLHHHHHLL", 20, 20, 0, 0, 0, 33, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0
    )
    directory = b"".join(head + b"%07d" % number for number in range(1_000_000))
    return directory + struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, len(directory), 0, 0
    )


def stored(text: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(MANIFEST, text)
    return content.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "a manifest of zeros, deflated": deflated,
    "a manifest of zeros, bzip2": bzip2ed,
    "a manifest of zeros, LZMA": xzed,
    "a million names": million_names,
    "a manifest of 40 MiB": lambda: stored(
        b'{"format":1,"data":{"a":[' + b"[]," * (40 * 2**20 // 3)
    ),
    "100 MiB of zeros": lambda: bytes(100 * 2**20),
}
"""Bodies by name. A new kind is a line here."""


@cache
def bomb(name: str) -> bytes:
    return BOMBS[name]()


@dataclass
class Service:
    """The process of the API, and what is asked of it."""

    process: subprocess.Popen[bytes]
    http: httpx2.Client
    database: Database


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("memory")
    url = f"sqlite:///{home / 'nelbo.db'}"
    database = connect(url)
    database.migrate()
    with (
        process(home, NELBO_DATABASE_URL=url) as (address, started),
        httpx2.Client(base_url=address, trust_env=False, timeout=120) as http,
    ):
        yield Service(started, http, database)
    database.dispose()


def routes() -> list[tuple[str, str, str]]:
    """Method, address and content type of each route that takes a body."""
    known = {"{name}": "bomb", "{alias}": "good"}
    found = []
    for path, operations in description()["paths"].items():
        for method, operation in operations.items():
            for content_type in operation.get("requestBody", {}).get("content", ()):
                for parameter, value in known.items():
                    path = path.replace(parameter, value)
                found.append((method.upper(), path, content_type))
    return found


def test_the_routes_that_take_a_body_are_found() -> None:
    assert {path for _, path, _ in routes()} == {
        "/v1/files",
        "/v1/jobs",
        "/v1/models/bomb/versions",
        "/v1/models/bomb/aliases/good",
    }


@pytest.mark.parametrize("name", [name for name in BOMBS if "manifest" in name])
def test_a_bomb_is_one_to_who_reads_it(name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(bomb(name))) as archive, archive.open(MANIFEST) as member:
        assert len(member.read(2**20)) == 2**20


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_takes_the_service_much_memory_on_any_route(service: Service, name: str) -> None:
    forget_peak(service.process.pid)
    for method, path, content_type in routes():
        parameters = {"name": "bomb.csv"} if path == "/v1/files" else {}
        headers = {"Content-Type": content_type}
        answer = service.http.request(
            method, path, params=parameters, content=bomb(name), headers=headers
        )
        assert answer.status_code < 500
        assert peak_mib(service.process.pid) < LIMIT_MIB, f"{method} {path}"
    assert service.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv", "jsonl"])
def test_results_that_repeat_a_long_text_take_the_service_little_memory(
    service: Service, format: str
) -> None:
    """300 MiB of them, which are some kilobytes as they are stored."""
    text = "x" * (300 * 2**10)
    request = AugmentRequest(model="adult", rows=[{"age": "1", "job": text}], per_row=1_000)
    version = catalog.add_version(
        service.database, "local", "adult", manifest().model_dump(mode="json"), "d" * 64
    )
    inline = list(request.rows or ())
    job, _ = ledger.submit(
        service.database,
        "local",
        request,
        version_id=version.id,
        rows=1,
        chunk_rows=1,
        inline=inline,
    )
    while (claim := ledger.claim(service.database, "test", lease_s=60)) is not None:
        if claim.job_id != job.id:
            assert ledger.fail(service.database, claim, "it was pushed or uploaded by another test")
            continue
        made = pa.record_batch({"row": [0] * 1_000, "copy": range(1_000), "job": [text] * 1_000})
        outcome = (
            outcome_of(MadeRows(made))
            if claim.stage == "work"
            else results.finish(service.database, claim)
        )
        assert ledger.commit(service.database, claim, outcome)

    def download(_: int) -> int:
        address = f"/v1/jobs/{job.id}/results"
        with service.http.stream("GET", address, params={"format": format}) as answer:
            return sum(len(piece) for piece in answer.iter_raw())

    forget_peak(service.process.pid)
    at_a_time = Settings.model_fields["max_downloads_of_owner"].default
    with ThreadPoolExecutor(at_a_time) as pool:
        sizes = list(pool.map(download, range(at_a_time)))
    assert format == "parquet" or min(sizes) > 1_000 * len(text)
    assert peak_mib(service.process.pid) < LIMIT_MIB


def test_the_largest_manifest_takes_the_service_little_memory_wherever_it_is_needed(
    service: Service,
) -> None:
    """Ten versions of it, of which a list holds none; and some who ask at once, who are answered
    one after the other."""
    manifest = largest_manifest().model_dump(mode="json")
    for _ in range(10):
        catalog.add_version(service.database, "local", "wide", manifest, "d" * 64)
    forget_peak(service.process.pid)
    assert len(service.http.get("/v1/models/wide/versions").json()["items"]) == 10
    assert (
        len(service.http.get("/v1/models/wide/versions/champion").json()["table_schema"]["columns"])
        == 2_000
    )
    row = {f"column {at}": "category of" for at in range(2_000)}
    job = {"kind": "score", "model": "wide", "rows": [row]}
    assert service.http.post("/v1/jobs", json=job).status_code == 202
    with ThreadPoolExecutor(LARGE_OF_OWNER) as pool:
        answers = list(
            pool.map(lambda _: service.http.post("/v1/jobs", json=job).status_code, range(5))
        )
    with ThreadPoolExecutor(5) as pool:
        answers += pool.map(
            lambda _: service.http.get("/v1/models/wide/versions/champion").status_code, range(5)
        )
    assert answers == [202] * 5 + [200] * 5
    assert service.http.delete("/v1/models/wide/versions/3").status_code == 204
    assert peak_mib(service.process.pid) < LIMIT_MIB
