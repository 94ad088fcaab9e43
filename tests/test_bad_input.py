"""The table of docs/reference/bad-input.md, run: each input into training, onto the command line
and over HTTP."""

import gzip
import io
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import pyarrow as pa
import pytest
from pydantic import SecretStr

from nelbo.artifact import FORMAT, MANIFEST
from nelbo.client import Client
from nelbo.settings import Settings
from nelbo.store.session import connect
from tests.api.serving import served
from tests.api.stage import AS_BYTES
from tests.artifacts import packed
from tests.deadline import until
from tests.nelbo.commands.running import Ran, run, up
from worker import process, runner

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "bad-input.md").read_text("utf-8")
MODEL, ROWS = "things", 120
QUICK = "epochs = 1\nmin_steps = 20\nmax_steps = 20\nthreads = 1\n"
NOWHERE = "0198c6d2-7c55-7aa1-9c1b-6a2f0f2f4c11"
UNREACHED = "postgresql://nobody@127.0.0.1:9/none"


@dataclass(frozen=True)
class Row:
    """A row of the table. Cells are '—' or 'outcome, exit code'; `http` is a status."""

    given: str
    train: str
    score: str
    http: str
    message: str


def rows() -> list[Row]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")][2:]
    return [
        Row(*(cell.strip().strip("`") for cell in line.strip("|").split("|"))) for line in lines
    ]


def cells(rows: int = ROWS) -> dict[str, list[str]]:
    """A sound table as text: a fraction, a whole number, a date and a word in each row."""
    return {
        "amount": [f"{10 + (i * 37 % 101) / 7:.3f}" for i in range(rows)],
        "count": [str(i * 13 % 29) for i in range(rows)],
        "when": [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)],
        "colour": [("red", "green", "blue")[i % 3] for i in range(rows)],
    }


def with_cell(column: str, value: str) -> dict[str, list[str]]:
    """The table with one cell changed, in its row 7."""
    found = cells()
    found[column][7] = value
    return found


def with_column(name: str, values: list[str]) -> dict[str, list[str]]:
    return cells() | {name: values}


def csv(table: dict[str, list[str]]) -> bytes:
    lines = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
    return "\n".join(lines).encode() + b"\n"


def parquet() -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(
        pa.table({name: pa.array(values) for name, values in cells().items()}), sink
    )
    return sink.getvalue()


def german() -> bytes:
    """The table with semicolons and decimal commas."""
    return SOUND.replace(b",", b";").replace(b".", b",")


def json_lines() -> bytes:
    columns = cells()
    rows = [
        dict(zip(columns, row, strict=True)) | {"tags": ["a"]}
        for row in zip(*columns.values(), strict=True)
    ]
    return "\n".join(map(json.dumps, rows)).encode()


SOUND = csv(cells())
TABLES: dict[str, tuple[str, bytes]] = {
    "an empty file": ("table.csv", b""),
    "a header without rows": ("table.csv", SOUND.splitlines()[0] + b"\n"),
    "19 rows": ("table.csv", csv(cells(19))),
    "duplicate column names": ("table.csv", SOUND.replace(b"count", b"amount", 1)),
    "broken encoding": ("table.csv", SOUND.replace(b"red", b"r\xc3\xa9d \xff\xfe", 1)),
    "the wrong suffix": ("table.xlsx", SOUND),
    "CSV called Parquet": ("table.parquet", SOUND),
    "a truncated Parquet file": ("table.parquet", parquet()[:-200]),
    "ragged lines": ("table.csv", SOUND.replace(b",red\n", b",red,red\n", 1)),
    "5,000 columns": ("table.csv", csv({f"c{i}": ["1"] * ROWS for i in range(5_000)})),
    "a compressed table cut off": ("table.csv.gz", gzip.compress(SOUND)[:-100]),
    "decimal commas": ("table.csv", german()),
    "thousands separators and a currency sign": (
        "table.csv",
        csv(cells() | {"amount": [f'"${10 + i * 137.5:,.2f}"' for i in range(ROWS)]}),
    ),
    "dates such as 25/03/2024": (
        "table.csv",
        csv(cells() | {"when": [f"{1 + i % 28:02}/{1 + i % 12:02}/2024" for i in range(ROWS)]}),
    ),
    "title lines above the header": ("table.csv", b"Things of 2024\nas of today\n\n" + SOUND),
    "a line `sep=;` above the header": ("table.csv", b"sep=;\n" + german()),
    "no header": ("table.csv", SOUND.partition(b"\n")[2]),
    "lines without their trailing empty cells": (
        "table.csv",
        csv(
            {"amount": cells()["amount"], "when": cells()["when"], "colour": cells()["colour"]}
            | {"count": ["3"] * ROWS}
        ).replace(b",green,3\n", b",green\n"),
    ),
    "a table compressed with gzip": ("table.csv.gz", gzip.compress(SOUND)),
    "a list in a column of JSON Lines": ("table.jsonl", json_lines()),
    "a question mark for a missing number": ("table.csv", csv(with_cell("amount", "?"))),
    "a table of which no row can be scored": (
        "table.csv",
        csv(cells() | {"amount": ["much"] * ROWS}),
    ),
    "a constant column": ("table.csv", csv(cells() | {"amount": ["1.5"] * ROWS})),
    "a column without a value": ("table.csv", csv(cells() | {"amount": [""] * ROWS})),
    "NaN and empty cells": (
        "table.csv",
        csv(with_cell("amount", "NaN") | {"colour": [""] * 9 + cells()["colour"][9:]}),
    ),
    "an unseen category": ("table.csv", csv(with_cell("colour", "violet"))),
    "a column that the model does not know": ("table.csv", csv(with_column("extra", ["x"] * ROWS))),
    "a column missing": (
        "table.csv",
        csv({name: values for name, values in cells().items() if name != "amount"}),
    ),
    "an infinite number": ("table.csv", csv(with_cell("amount", "-inf"))),
    "text in a number": ("table.csv", csv(with_cell("amount", "abc"))),
    "a fraction in an integer": ("table.csv", csv(with_cell("count", "3.5"))),
    "a date that is none": ("table.csv", csv(with_cell("when", "2024-02-30"))),
    "a date out of range": ("table.csv", csv(with_cell("when", "0000-01-01"))),
}
"""A file's name and content, of those inputs that are tables."""


@dataclass(frozen=True)
class Scene:
    """A trained model: its artifact, and a service that knows it as `things`."""

    artifact: Path
    url: str

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "table.csv").write_bytes(SOUND)
    ran = train(folder / "table.csv", folder)
    assert ran.code == 0, ran.err
    with up(folder / "home") as url:
        with Client(url) as client:
            client.models.push(folder / MODEL)
        yield Scene(folder / MODEL, url)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NELBO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NELBO_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def train(table: Path, folder: Path) -> Ran:
    """What `nelbo train` runs as its child, in this process: to load torch each time would take
    minutes."""
    from training.cli import command

    config = folder / "run.toml"
    config.write_text(QUICK)
    return run(
        "--name",
        MODEL,
        "--out",
        folder / MODEL,
        "--config",
        config,
        "--json",
        "--",
        table,
        main=command,
    )


def as_file(given: str, folder: Path) -> Path:
    name, content = TABLES.get(given, ("absent.csv", b""))
    if given in TABLES:
        (folder / name).write_bytes(content)
    return folder / name


def score(given: str, scene: Scene, folder: Path) -> Ran:
    """The command that meets this input."""
    if given in OTHERS:
        return OTHERS[given].command(scene, folder)
    return run("score", scene.artifact, as_file(given, folder), "-o", folder / "out.csv")


def over_http(given: str, scene: Scene, folder: Path) -> tuple[int, str]:
    """Status, and all that the service said: a problem's detail, or the errors of the rows."""
    with scene.http() as http:
        return (
            OTHERS[given].http(http, scene)
            if given in OTHERS
            else scored(http, as_file(given, folder))
        )


def scored(http: httpx2.Client, path: Path) -> tuple[int, str]:
    """Upload a table, score it, and wait for it where it is accepted."""
    file_id = NOWHERE
    if path.exists():
        sent = http.post(
            "/v1/files", params={"name": path.name}, headers=AS_BYTES, content=path.read_bytes()
        )
        if sent.is_error:
            return sent.status_code, sent.json()["detail"]
        file_id = sent.json()["id"]
        until(
            lambda: http.get(f"/v1/files/{file_id}").json()["state"] in ("ready", "rejected"),
            "the file is read",
        )
    sent = http.post("/v1/jobs", json={"kind": "score", "model": MODEL, "file": file_id})
    if sent.is_error:
        return sent.status_code, sent.json()["detail"]
    job = until(lambda: finished(http, sent.json()["id"]), "the job is done")
    assert job["state"] == "succeeded", job
    errors = http.get(f"/v1/jobs/{job['id']}/errors", params={"limit": 1_000}).json()["items"]
    assert len(errors) == job["progress"]["rows_failed"]
    return sent.status_code, json.dumps(errors)


def finished(http: httpx2.Client, job_id: str) -> dict[str, Any]:
    """The job, or nothing while it runs."""
    job: dict[str, Any] = http.get(f"/v1/jobs/{job_id}").json()
    return job if job["state"] in ("succeeded", "failed", "cancelled") else {}


def asked(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("detail", "")


@dataclass(frozen=True)
class Other:
    """An input that is no table: the command that meets it, and the request."""

    command: Callable[[Scene, Path], Ran]
    http: Callable[[httpx2.Client, Scene], tuple[int, str]]


def of_model(model: str) -> Other:
    def command(scene: Scene, folder: Path) -> Ran:
        assert run("push", scene.artifact).code == 0
        return run("score", model, as_file("19 rows", folder), "-o", folder / "out.csv")

    return Other(
        command,
        lambda http, scene: asked(
            http.post("/v1/jobs", json={"kind": "generate", "model": model, "n": 1})
        ),
    )


def of_rows(rows: int) -> Other:
    def command(scene: Scene, folder: Path) -> Ran:
        return run("generate", scene.artifact, "--rows", rows, "-o", folder / "out.csv")

    return Other(
        command,
        lambda http, scene: asked(
            http.post("/v1/jobs", json={"kind": "generate", "model": MODEL, "n": rows})
        ),
    )


def of_artifact(
    spoil: Callable[[Path], object], http: Callable[[httpx2.Client, Scene], tuple[int, str]]
) -> Other:
    def command(scene: Scene, folder: Path) -> Ran:
        spoil(shutil.copytree(scene.artifact, folder / "spoilt"))
        return run("score", folder / "spoilt", as_file("19 rows", folder), "-o", folder / "out.csv")

    return Other(command, http)


def flip_a_bit(folder: Path) -> None:
    graph = folder / "score.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def make_newer(folder: Path) -> None:
    manifest = folder / MANIFEST
    manifest.write_text(
        manifest.read_text()
        .replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}', 1)
        .replace(f'"format":{FORMAT}', f'"format":{FORMAT + 1}', 1)
    )


def push(http: httpx2.Client, packed: bytes) -> httpx2.Response:
    headers = {"Content-Type": "application/zip"}
    return http.post("/v1/models/spoilt/versions", content=packed, headers=headers)


def push_flipped(http: httpx2.Client, scene: Scene) -> tuple[int, str]:
    content = bytearray(packed(scene.artifact))
    content[content.index((scene.artifact / "score.onnx").read_bytes()) + 1_000] ^= 1
    return job_of_pushed(http, repaired(bytes(content)))


def job_of_pushed(http: httpx2.Client, content: bytes) -> tuple[int, str]:
    """The answer to a job of a version that a worker has rejected."""
    sent = push(http, content)
    assert sent.status_code == 202, sent.text
    address = f"/v1/models/spoilt/versions/{sent.json()['version']}"
    until(lambda: http.get(address).json()["state"] == "rejected", "the version is rejected")
    return asked(
        http.post(
            "/v1/jobs",
            json={"kind": "generate", "model": f"spoilt@{sent.json()['version']}", "n": 1},
        )
    )


def repaired(packed: bytes) -> bytes:
    """The zip with right check sums of its own, so that only the manifest can tell."""
    import zipfile

    class Careless(zipfile.ZipExtFile):
        def _update_crc(self, newdata: bytes) -> None:
            pass

    again = io.BytesIO()
    with (
        patch.object(zipfile, "ZipExtFile", Careless),
        zipfile.ZipFile(io.BytesIO(packed)) as old,
        zipfile.ZipFile(again, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name))
    return again.getvalue()


def push_newer(http: httpx2.Client, scene: Scene) -> tuple[int, str]:
    newer = re.sub(
        rb'("format": ?)%d\b' % FORMAT, rb"\g<1>%d" % (FORMAT + 1), packed(scene.artifact), count=1
    )
    return job_of_pushed(http, repaired(newer))


def without_database(scene: Scene, folder: Path) -> Ran:
    with patch.dict("os.environ", {"NELBO_DATABASE_URL": UNREACHED}):
        return run("score", MODEL, as_file("19 rows", folder), "-o", folder / "out.csv")


def ask_without_database(http: httpx2.Client, scene: Scene) -> tuple[int, str]:
    settings = Settings(home=scene.artifact.parent / "lost", database_url=SecretStr(UNREACHED))
    with served(settings) as url, httpx2.Client(base_url=url, trust_env=False) as alone:
        return asked(alone.post("/v1/jobs", json={"kind": "generate", "model": MODEL, "n": 1}))


@contextmanager
def without_broker(scene: Scene) -> Iterator[str]:
    """The address of a service whose broker is gone, with a worker that finds its work in the
    database."""
    home = scene.artifact.parent / "no-broker"
    settings = Settings(home=home, broker_url=SecretStr("redis://127.0.0.1:9/0"))
    database = connect(settings.database)
    database.migrate()
    database.dispose()
    over = threading.Event()
    worker = process.make(settings, hint=lambda job_id: None)

    def work() -> None:
        while not over.wait(0.05):
            runner.work(worker, slice_s=1.0)

    thread = threading.Thread(target=work)
    with served(settings) as url:
        thread.start()
        try:
            with Client(url) as client:
                client.models.push(scene.artifact, name=MODEL)
            yield url
        finally:
            over.set()
            thread.join()
            worker.database.dispose()


def generate_without_broker(scene: Scene, folder: Path) -> Ran:
    with without_broker(scene) as url, patch.dict("os.environ", {"NELBO_URL": url}):
        return run("generate", MODEL, "--rows", 3, "-o", folder / "out.csv")


def ask_without_broker(http: httpx2.Client, scene: Scene) -> tuple[int, str]:
    with without_broker(scene) as url, httpx2.Client(base_url=url, trust_env=False) as alone:
        sent = alone.post("/v1/jobs", json={"kind": "generate", "model": MODEL, "n": 3})
        until(lambda: finished(alone, sent.json()["id"]), "the job is done")
        return asked(sent)


OTHERS: dict[str, Other] = {
    "an artifact with a flipped bit": of_artifact(flip_a_bit, push_flipped),
    "an artifact of a newer format": of_artifact(make_newer, push_newer),
    "an unknown model": of_model("unknown"),
    "an unknown version": of_model(f"{MODEL}@99"),
    "an unknown job": Other(
        lambda scene, folder: run_at(scene.url, "results", NOWHERE),
        lambda http, scene: asked(http.get(f"/v1/jobs/{NOWHERE}")),
    ),
    "--rows 0": of_rows(0),
    "--rows -5": of_rows(-5),
    "--rows 1000000000": of_rows(1_000_000_000),
    "the database gone": Other(without_database, ask_without_database),
    "the broker gone": Other(generate_without_broker, ask_without_broker),
}
"""What meets those inputs that are no tables."""


def run_at(url: str, *arguments: object) -> Ran:
    with patch.dict("os.environ", {"NELBO_URL": url}):
        return run(*arguments)


CASES = [
    pytest.param(row, doing, id=f"{row.given}: {doing}")
    for row in rows()
    for doing in ("train", "score", "http")
    if getattr(row, doing) != "—"
]


def test_the_table_names_each_input_once_and_each_is_made_here() -> None:
    assert sorted(row.given for row in rows()) == sorted(["no file", *TABLES, *OTHERS])


@pytest.mark.parametrize(("row", "doing"), CASES)
def test_bad_input_is_answered_as_the_reference_says(
    row: Row, doing: str, scene: Scene, tmp_path: Path
) -> None:
    if doing == "http":
        status, said = over_http(row.given, scene, tmp_path)
        assert str(status) == row.http, said
        if status >= 400 or row.score.startswith("row error"):
            assert row.message in said
        return
    ran = (
        train(as_file(row.given, tmp_path), tmp_path)
        if doing == "train"
        else score(row.given, scene, tmp_path)
    )
    outcome, code = getattr(row, doing).split(", ")
    said = " ".join(ran.err.split())
    assert ran.code == int(code), said
    assert "Traceback" not in said
    {"refused": check_refused, "row error": check_row_error, "accepted": check_accepted}[outcome](
        row, doing, said, tmp_path
    )


def check_refused(row: Row, doing: str, said: str, folder: Path) -> None:
    assert row.message in said
    assert not (folder / "out.csv").exists()
    assert not (folder / MODEL).exists()


def check_row_error(row: Row, doing: str, said: str, folder: Path) -> None:
    if doing == "train":
        assert (
            f"1 of {ROWS} rows hold a value that breaks their column's kind and were left out"
            in said
        )
        return
    assert "1 row could not be done" in said
    assert row.message in said
    assert len((folder / "out.csv").read_text().splitlines()) == ROWS


def check_accepted(row: Row, doing: str, said: str, folder: Path) -> None:
    assert "could not be done" not in said
    assert "rows hold a value that breaks" not in said
    if doing == "score":
        assert (folder / "out.csv").exists()
        assert row.train.startswith("refused") or row.message in said
    else:
        assert (folder / MODEL / MANIFEST).exists()
