"""A service to ask: the real application on a real database and a real storage folder, and what a
worker does, by hand.

Chunks are claimed and committed through the ledger as a worker does it; only the numbers are made
up, from the row's number. Every answer is held against the OpenAPI description of its route.
"""

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.app import create_app
from api.deps import Service
from api.errors import MEDIA_TYPE
from nelbo.artifact import MANIFEST, Calibration, Graph, Manifest
from nelbo.audit import COMMAND_LINE
from nelbo.rows import SUSPICIOUS, RowError, Scores
from nelbo.rules import Rule
from nelbo.schema import Column, Schema
from nelbo.settings import Settings
from nelbo.store import catalog, keys, ledger, results, workers
from nelbo.store.claims import (
    Claim,
    Outcome,
    ReadOutcome,
    TableOutcome,
    VerifyOutcome,
)
from nelbo.store.keys import Scope
from nelbo.store.session import Database, connect

SCHEMA = Schema(
    columns=(
        Column(name="id", kind="identifier"),
        Column(name="age", kind="integer"),
        Column(name="job", kind="categorical", categories=("clerk", "smith")),
    ),
    rules=(Rule(text="job = smith => age <= 90"),),
)
COLUMNS = [column.model_dump(mode="json") for column in SCHEMA.columns]
ORDER = ("age", "job")
AS_BYTES = {"Content-Type": "application/octet-stream"}
AS_ZIP = {"Content-Type": "application/zip"}
CSV = b"id,age,job\na,39,clerk\nb,50,smith\nc,38,clerk\n"
ROWS = [{"id": "a", "age": 39, "job": "clerk"}, {"id": "b", "age": 50, "job": "smith"}]
MESSAGE = "column 'age' holds 'abc'; the model wants a number"


def manifest(name: str = "adult") -> Manifest:
    """A manifest as an artifact has it; its graphs are nowhere, for the API never opens one."""
    graph = Graph(file="score.onnx", sha256="0" * 64, inputs=("numbers",), outputs=("nelbo",))
    return Manifest(
        name=name,
        table_schema=SCHEMA,
        order=ORDER,
        likelihoods={"age": "bins", "job": "categorical"},
        graphs={key: graph for key in ("score", "posterior", "spread", "prior", "generate")},
        latent=2,
        points=4,
        batch=16,
        draws={"z": 4, "x": 7},
        calibration=Calibration(method="split", scores=(1.0, 2.0, 3.0)),
        seed=0,
        data={"rows": 3},
        libraries={},
        config={},
        metrics={"nelbo": 12.5},
    )


def packed(text: bytes | None = None) -> bytes:
    """A zip with a manifest."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(MANIFEST, manifest().model_dump_json() if text is None else text)
    return content.getvalue()


@dataclass
class Stage:
    """The running application, and shortcuts to bring it into a state."""

    client: TestClient
    settings: Settings

    @property
    def service(self) -> Service:
        service: Service = self.client.app.state.service  # type: ignore[attr-defined]
        return service

    def ask(self, method: str, path: str, **given: Any) -> httpx2.Response:
        """A request whose answer must be one that OpenAPI lists for the route. Bytes go with the
        type of their route."""
        if "content" in given:
            given["headers"] = (AS_ZIP if path.endswith("/versions") else AS_BYTES) | dict(
                given.get("headers") or {}
            )
        response = self.client.request(method, path, **given)
        check_documented(description(), response)
        return response

    def get(self, path: str, **given: Any) -> httpx2.Response:
        return self.ask("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx2.Response:
        return self.ask("POST", path, **given)

    def model(
        self, name: str = "adult", owner: str = "local", state: Any = "ready"
    ) -> catalog.VersionEntry:
        return add_model(self.service.database, name, owner, state)

    def file(
        self, content: bytes = CSV, name: str = "people.csv", headers: dict[str, str] | None = None
    ) -> str:
        """The id of a file that is ready."""
        sent = self.post("/v1/files", params={"name": name}, content=content, headers=headers)
        assert sent.status_code == 201, sent.text
        self.work_off()
        found: str = sent.json()["id"]
        return found

    def submit(self, headers: dict[str, str] | None = None, **request: Any) -> str:
        """The id of a job that was accepted."""
        sent = self.post("/v1/jobs", json=request, headers=headers)
        assert sent.status_code == 202, sent.text
        found: str = sent.json()["id"]
        return found

    def finished(self, errors: Collection[int] = (), **request: Any) -> str:
        """The id of a job that has succeeded, but for these rows."""
        job_id = self.submit(**request)
        self.work_off(errors)
        assert self.get(f"/v1/jobs/{job_id}").json()["state"] == "succeeded"
        return job_id

    def failed(self, **request: Any) -> str:
        job_id = self.submit(**request)
        claim = ledger.claim(self.service.database, "test", lease_s=60)
        assert claim is not None
        assert claim.job_id == job_id
        assert ledger.fail(self.service.database, claim, "the artifact is gone")
        return job_id

    def cleaner(self) -> None:
        """A worker that can clean tables was seen just now."""
        workers.heartbeat(self.service.database, "cleaner", host="h", pid=1, can_clean=True)

    def work_off(self, errors: Collection[int] = ()) -> int:
        return work_off(self.service.database, errors)


def add_model(
    database: Database, name: str = "adult", owner: str = "local", state: Any = "ready"
) -> catalog.VersionEntry:
    """Register a version whose artifact is nowhere, for the API never opens one."""
    return catalog.add_version(
        database, owner, name, manifest(name).model_dump(mode="json"), "d" * 64, state=state
    )


def work_off(database: Database, errors: Collection[int] = ()) -> int:
    """Claim and commit all that is queued, as a worker does, with errors for these rows; the number
    of chunks."""
    chunks = 0
    while (claim := ledger.claim(database, "test", lease_s=60)) is not None:
        outcome = (
            results.finish(database, claim) if claim.stage == "finish" else _outcome(claim, errors)
        )
        assert ledger.commit(database, claim, outcome)
        chunks += 1
    return chunks


@contextmanager
def working(database: Database, errors: Collection[int] = ()) -> Iterator[None]:
    """Work off what is submitted, on a thread, until the block ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            work_off(database, errors)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def make_key(database_url: str, owner: str, scope: Scope = "train") -> str:
    """A key of this owner, as `nelbo keys create` makes it."""
    database = connect(database_url)
    try:
        return keys.create(database, owner, COMMAND_LINE, scope=scope)[1]
    finally:
        database.dispose()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def open_stage(settings: Settings) -> Iterator[Stage]:
    """A stage on a migrated database."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield Stage(client, settings)


@cache
def description() -> dict[str, Any]:
    """The service's OpenAPI description, which does not depend on its settings."""
    return create_app(Settings()).openapi()


def settings_for(home: Path, database_url: str = "", **given: Any) -> Settings:
    return Settings(home=home, database_url=SecretStr(database_url), **given)


def _outcome(claim: Claim, errors: Collection[int]) -> Outcome:
    outcomes: dict[str, Callable[[Claim, list[RowError]], Outcome]] = {
        "read": lambda claim, faults: ReadOutcome(rows=3, digest="0" * 64, columns=COLUMNS),
        "verify": lambda claim, faults: VerifyOutcome(manifest().model_dump(mode="json"), "d" * 64),
        "score": _scores,
        "generate": _table,
        "augment": _table,
        "reconstruct": _table,
        "explain": _cells,
        "clean": _cells,
    }
    bad = sorted(row for row in errors if claim.row_from <= row < claim.row_to)
    faults = [RowError(row=row, column="age", code="not-a-number", message=MESSAGE) for row in bad]
    return outcomes[claim.kind](claim, faults)


def _rows(claim: Claim, faults: list[RowError]) -> list[int]:
    bad = {fault.row for fault in faults}
    return [row for row in range(claim.row_from, claim.row_to) if row not in bad]


def _scores(claim: Claim, faults: list[RowError]) -> Scores:
    rows = np.array(_rows(claim, faults), dtype=np.int64)
    terms = np.stack([rows * 1.0, rows * 0.5], axis=1)
    kl = np.full(len(rows), 0.25)
    p_value = np.asarray(1.0 / (2.0 + rows), dtype=np.float64)
    surprises = np.stack([rows % 4 * 1.0, rows / 8], axis=1)
    nelbo, surprise = terms.sum(1) + kl, surprises.sum(1)
    return Scores(rows, nelbo, surprise, p_value, kl, terms, surprises, ORDER, faults)


def _table(claim: Claim, faults: list[RowError]) -> TableOutcome:
    copies = claim.params.get("per_row", 1)
    rows = np.repeat(np.array(_rows(claim, faults), dtype=np.int64), copies)
    columns: dict[str, Any] = {} if claim.kind == "generate" else {"row": rows}
    if claim.kind == "augment":
        columns["copy"] = np.tile(np.arange(copies), len(rows) // copies)
    columns |= {"age": rows + 20, "job": pa.array(["=clerk()"] * len(rows), pa.string())}
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return TableOutcome(sink.getvalue(), len(rows), faults)


def _cells(claim: Claim, faults: list[RowError]) -> TableOutcome:
    """Two suspicious cells of the last row and one of the first, the last row first; those of an
    explain job have the same columns here."""
    last = claim.rows - 1
    rows = [(last, 0.01, "age"), (last, 0.01, "job"), (0, 0.5, "age")]
    cells = [{"row": row, "q_value": q_value, "column": name} for row, q_value, name in rows]
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(cells, schema=SUSPICIOUS), sink)
    return TableOutcome(sink.getvalue(), len(cells), faults)


def operation_of(openapi: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    """The OpenAPI operation that answers a request, None for an address that is not described."""
    exact_first = sorted(openapi["paths"].items(), key=lambda item: item[0].count("{"))
    for template, operations in exact_first:
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    return None


def check_documented(openapi: dict[str, Any], response: httpx2.Response) -> None:
    """The answer's status and media type are among those of its operation; errors are problem
    documents."""
    operation = operation_of(openapi, response.request.method, response.request.url.path)
    if operation is not None:
        known = operation["responses"].get(str(response.status_code))
        assert known is not None, (
            f"{operation['operationId']} answered {response.status_code}: {response.text}"
        )
        media = response.headers.get("content-type", "").partition(";")[0]
        assert media in known.get("content", {"": None}), (
            f"{operation['operationId']} answered {media}"
        )
    if response.status_code >= 400:
        check_problem(response)


def check_problem(response: httpx2.Response) -> None:
    """A whole problem document that fits its response."""
    assert response.headers["content-type"] == MEDIA_TYPE
    problem = json.loads(response.content)
    assert problem["status"] == response.status_code
    assert problem["type"].startswith("/problems/")
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
