"""The broker is in nobody's way: down, frozen or there, a submission costs the same."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.api.stage import Stage, open_stage, settings_for
from tests.deadline import until
from tests.servers import Valkey, running_valkey

GENERATE: dict[str, Any] = {"kind": "generate", "model": "adult", "n": 10}


@contextmanager
def stage_with(broker_url: str, home: Path, sqlite_url: str) -> Iterator[Stage]:
    with open_stage(settings_for(home, sqlite_url, broker_url=SecretStr(broker_url))) as stage:
        stage.model()
        yield stage


def slowest_submission_s(stage: Stage, count: int = 20) -> float:
    slowest = 0.0
    for _ in range(count):
        began = time.monotonic()
        stage.submit(**GENERATE)
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_an_accepted_job_is_hinted_for_once(
    tmp_path: Path, sqlite_url: str, valkey: Valkey, broker_url: str
) -> None:
    with stage_with(broker_url, tmp_path, sqlite_url) as stage, valkey.client() as broker:
        key = {"Idempotency-Key": "k"}
        job_id = stage.submit(headers=key, **GENERATE)
        stage.submit(headers=key, **GENERATE)
        until(lambda: broker.llen("nelbo:nelbo"), "a hint arrives")
        assert stage.get("/readyz").json() == {
            "status": "ready",
            "database": "ok",
            "broker": "ok",
            "keys": "none",
        }
    with valkey.client() as broker:
        (hint,) = broker.lrange("nelbo:nelbo", 0, -1)
        assert job_id.encode() in hint


def test_an_upload_is_hinted_for_too(
    tmp_path: Path, sqlite_url: str, valkey: Valkey, broker_url: str
) -> None:
    with stage_with(broker_url, tmp_path, sqlite_url) as stage, valkey.client() as broker:
        assert (
            stage.post("/v1/files", params={"name": "a.csv"}, content=b"a\n1\n").status_code == 201
        )
        until(lambda: broker.llen("nelbo:nelbo"), "a hint arrives")


def test_a_broker_that_is_down_costs_a_submission_nothing(tmp_path: Path, sqlite_url: str) -> None:
    with stage_with("redis://127.0.0.1:1/0", tmp_path, sqlite_url) as stage:
        assert slowest_submission_s(stage) < 1.0
        ready = stage.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["broker"]) == (
            200,
            "degraded",
            "down",
        )


def test_a_frozen_broker_costs_a_submission_nothing(tmp_path: Path, sqlite_url: str) -> None:
    with running_valkey() as valkey, stage_with(valkey.url, tmp_path, sqlite_url) as stage:
        with valkey.client() as broker:
            pid = int(broker.info()["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            assert slowest_submission_s(stage) < 1.0
        finally:
            os.kill(pid, signal.SIGCONT)


def test_no_request_speaks_to_the_broker_but_the_thread_of_hints(
    tmp_path: Path, sqlite_url: str
) -> None:
    speakers: set[str] = set()
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "socket.connect" and str(fresh.socket) in str(arguments):
            speakers.add(threading.current_thread().name)

    # One of its own, which nobody in this process is connected to yet.
    with (
        running_valkey() as fresh,
        stage_with(fresh.url, tmp_path, sqlite_url) as stage,
        fresh.client() as broker,
    ):
        broker.ping()
        sys.addaudithook(watch)  # There is no way to take one away.
        job_id = stage.submit(**GENERATE)
        stage.post(f"/v1/jobs/{job_id}:cancel")
        stage.post(f"/v1/jobs/{job_id}:retry")
        stage.post("/v1/files", params={"name": "a.csv"}, content=b"a\n1\n")
        until(lambda: broker.llen("nelbo:nelbo") == 3, "the hints arrive")
        watching = False
    assert speakers == {"hints"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_without_any_broker_the_service_is_ready(stage: Stage, path: str) -> None:
    assert stage.get(path).status_code == 200
    assert stage.get("/readyz").json()["broker"] == "none"
