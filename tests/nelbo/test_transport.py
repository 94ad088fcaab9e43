"""Requests that are lost, refused and answered by strangers."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pytest

from nelbo.client import Client
from nelbo.errors import Gone, InvalidInput, NelboError, Unavailable
from nelbo.streams import as_file
from tests.api.stage import CSV


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host", "http://", "http://[::1", "http://host:port"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="is not the address of a service"):
        Client(url)


Answer = tuple[int, dict[str, str], bytes]


class Script(BaseHTTPRequestHandler):
    """A stranger on the port: answers, one after the other, what the test wrote down; None cuts the
    connection."""

    answers: ClassVar[list[Answer | None]] = []
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((f"{self.command} {self.path}", self.headers.get("Idempotency-Key")))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.answers.pop(0)
        if answer is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def scripted(*answers: Answer | None) -> Iterator[Client]:
    Script.answers, Script.seen = list(answers), []
    with HTTPServer(("127.0.0.1", 0), Script) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(
                f"http://127.0.0.1:{server.server_port}", retries=3, pause_s=0.01
            ) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def accepted() -> Answer:
    progress = {"rows": 1, "rows_done": 0, "rows_failed": 0}
    job: dict[str, Any] = {
        "id": "j",
        "kind": "generate",
        "state": "queued",
        "model": "m@1",
        "params": {},
        "file": None,
        "summary": None,
    }
    job |= {
        "progress": progress,
        "threshold": None,
        "problem": None,
        "cancel_requested": False,
        "created_at": 0.0,
    }
    return 202, {}, json.dumps(job | {"started_at": None, "finished_at": None}).encode()


def test_a_submission_whose_answer_is_lost_is_sent_again_under_the_same_key() -> None:
    away = (503, {"Retry-After": "0"}, b"")
    with scripted(None, away, accepted()) as client:
        assert client.jobs.generate("m", 1).id == "j"
    keys = {key for _, key in Script.seen}
    assert len(Script.seen) == 3
    assert len(keys) == 1
    assert None not in keys


def test_what_is_not_safe_to_repeat_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    answers: tuple[Answer | None, ...] = (None, (502, {}, b""))
    for answer in answers:
        with scripted(answer, accepted()) as client, pytest.raises(Unavailable):
            client.files.upload(tmp_path / "a.csv")
        assert len(Script.seen) == 1


def test_a_refusal_that_passes_is_waited_for_and_one_that_stays_is_told() -> None:
    full = {"type": "/problems/unavailable", "detail": "the queue is full", "errors": []}
    busy = (
        429,
        {"Retry-After": "0", "Content-Type": "application/problem+json"},
        json.dumps(full).encode(),
    )
    with scripted(busy, busy, accepted()) as client:
        client.jobs.generate("m", 1)
    with scripted(*[busy] * 4) as client, pytest.raises(Unavailable, match="the queue is full"):
        client.jobs.generate("m", 1)


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    gone: Answer = (410, {}, json.dumps({"type": "/problems/gone", "detail": "deleted"}).encode())
    with scripted(None, gone) as client:
        client.jobs.delete("j")
    with scripted(gone) as client, pytest.raises(Gone):
        client.jobs.delete("j")


def test_a_download_that_breaks_off_is_begun_again(tmp_path: Path) -> None:
    whole = b"row,nelbo\n0,1.5\n"
    cut = (200, {"Content-Length": "1000"}, whole[:5])
    with scripted(accepted(), cut, (200, {}, whole)) as client:
        client.jobs.get("j").results().save(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == whole


def test_batches_that_break_off_are_not_taken_for_the_whole() -> None:
    table = pa.table({"row": [0, 1]})
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    cut = (200, {"Content-Length": "100000"}, stream.getvalue()[:-8])
    with (
        scripted(accepted(), cut) as client,
        pytest.raises(Unavailable, match="no Nelbo service answers"),
    ):
        list(client.jobs.get("j").results().batches())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Bad gateway</html>", b"[]", b'{"detail": 1}', b'{"type": 5, "detail": ""}'],
)
def test_a_stranger_on_the_port_is_told_apart(body: bytes) -> None:
    with (
        scripted((500, {}, body)) as client,
        pytest.raises(Unavailable, match="is a Nelbo service there"),
    ):
        client.jobs.get("j")


def test_an_error_of_a_newer_service_keeps_its_words() -> None:
    newer = json.dumps({"type": "/problems/not-invented-yet", "detail": "some words"}).encode()
    with scripted((409, {}, newer)) as client, pytest.raises(NelboError, match="some words"):
        client.jobs.get("j")


@pytest.mark.parametrize("size", [1_000, 65_536, 10_000_000])
def test_batches_larger_than_the_blocks_that_carry_them_are_read_whole(size: int) -> None:
    table = pa.table({"nelbo": pa.array(np.random.default_rng(0).normal(size=100_000))})
    written = io.BytesIO()
    with pa.ipc.new_stream(written, table.schema) as writer:
        writer.write_table(table, max_chunksize=30_001)
    content = written.getvalue()
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    with as_file(blocks) as answer, pa.ipc.open_stream(answer) as reader:
        assert reader.read_all().equals(table)
