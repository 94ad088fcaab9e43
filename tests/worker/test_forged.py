"""Whatever somebody wrote into the broker: no code of theirs runs, the pool goes on, and the next
job is done."""

import base64
import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from nelbo.jobs import GenerateRequest
from tests.deadline import until
from tests.processes import alive
from tests.servers import Valkey, running_embedded
from tests.worker.host import Host, running_worker
from tests.worker.stage import Stage

QUEUE = "nelbo:nelbo"


@pytest.fixture
def broker() -> Iterator[str]:
    with running_embedded() as url:
        yield url


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    """Somebody who has the broker's password."""
    with redis.Redis(
        unix_socket_path=urlsplit(broker).path, password=urlsplit(broker).password
    ) as client:
        yield client


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str, broker: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url, broker) as stage:
        yield stage


class Harm:
    """Unpickled, it makes the file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def message(
    body: bytes | None = None,
    task: str = "nelbo.work",
    kind: str = "application/json",
    **headers: Any,
) -> str:
    """As Celery makes one, with what somebody else thought of."""
    if body is None:
        body = b'[["a"], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": kind,
            "headers": {
                "lang": "py",
                "task": task,
                "id": "x",
                "root_id": "x",
                "retries": 0,
                **headers,
            },
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": "nelbo"},
                "delivery_tag": "x",
                "body_encoding": "base64",
            },
        }
    )


def forged(marker: Path) -> list[str | bytes]:
    signature = {"task": "nelbo.work", "args": ["a"], "kwargs": {}, "options": {}}
    return [
        "garbage{{{",
        b"\xff\xfe\x00",
        "",
        "null",
        "[1, 2]",
        "[" * 200_000,
        "[" * 4_000,
        "{}",
        json.dumps({"body": "e30=", "properties": {"delivery_tag": "x"}}),
        json.dumps({"body": "e30=", "headers": None, "properties": None}),
        json.dumps({"body": 7, "headers": {"task": "nelbo.work"}}),
        message(b"not json"),
        message(b"[" * 200_000),
        message(json.dumps([[1, 2, 3], {}, {}]).encode()),
        message(
            json.dumps(
                [
                    ["a"],
                    {},
                    {"chain": [signature], "errbacks": [signature], "callbacks": [signature]},
                ]
            ).encode()
        ),
        message(pickle.dumps(((), {}, Harm(marker))), kind="application/x-python-serialize"),
        message(b"!!python/object/apply:pathlib.Path.touch ['x']", kind="application/x-yaml"),
        message(gzip.compress(b"[" * 50_000_000), compression="application/x-gzip"),
        message(task="os.system"),
        message(task="celery.backend_cleanup"),
        message(task="celery.map"),
        message(expires="zzz"),
        message(eta="zzz"),
        message(eta="2099-01-01T00:00:00"),
        message(timelimit=[0.001, 0.001]),
        message(retries="many", stamped_headers=7, group=[[]], reply_to={"a": 1}),
    ]


def do_a_job(stage: Stage) -> None:
    job = stage.submit(GenerateRequest(model="linear", n=20, seed=1), stage.version(), 20)
    until(lambda: stage.job(job.id).state == "succeeded", "the job to succeed")


def lives_on(host: Host, pool: int) -> bool:
    return alive(pool) and host.find("worker.pool") == pool


def test_a_message_that_is_no_hint_is_dropped_and_logged(
    stage: Stage, client: redis.Redis, tmp_path: Path
) -> None:
    messages = forged(tmp_path / "harmed")
    with running_worker(stage) as host:
        do_a_job(stage)
        pool = host.pool()
        client.lpush(QUEUE, *messages)
        until(lambda: client.llen(QUEUE) == 0, "the messages to be taken")
        do_a_job(stage)
        assert lives_on(host, pool)
    assert not (tmp_path / "harmed").exists()
    log = host.log.read_text()
    assert log.count("it is no hint") >= 18
    assert "Traceback" not in log
    assert "garbage" not in log


def test_a_queue_that_is_no_list_is_removed(
    tmp_path: Path, sqlite_url: str, broker_url: str, valkey: Valkey
) -> None:
    """As somebody may leave it in a broker without an ACL."""
    with Stage(tmp_path, sqlite_url, broker_url) as stage, valkey.client() as client:
        client.set(QUEUE, "no list")
        with running_worker(stage) as host:
            do_a_job(stage)
            pool = host.pool()
            client.delete(QUEUE)
            client.set(QUEUE, "no list")
            do_a_job(stage)
            assert lives_on(host, pool)
