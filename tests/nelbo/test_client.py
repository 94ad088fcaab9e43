"""The HTTP client against a real service."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import nelbo
from nelbo.client import Client, find_url
from nelbo.errors import (
    Conflict,
    Gone,
    IdempotencyMismatch,
    InvalidArtifact,
    InvalidInput,
    InvalidRequest,
    JobFailed,
    NotAuthenticated,
    NotFound,
    NotReady,
    TooLarge,
    Unavailable,
)
from nelbo.files import CsvOptions, open_table
from nelbo.jobs import GenerateRequest
from nelbo.rows import Rank
from nelbo.settings import Settings
from nelbo.store import ledger, workers
from nelbo.store.session import Database, connect
from nelbo.views import Job
from tests.api.serving import served
from tests.api.stage import CSV, ROWS, add_model, make_key, settings_for, work_off, working


@dataclass
class Scene:
    """A client of a service, and the service's database."""

    client: Client
    database: Database
    home: Path


@pytest.fixture
def scene(tmp_path: Path, sqlite_url: str) -> Iterator[Scene]:
    """A service with the model `adult`, whose work nobody does yet."""
    database = connect(sqlite_url)
    with served(settings_for(tmp_path, sqlite_url)) as url, Client(url, pause_s=0.01) as client:
        add_model(database)
        yield Scene(client, database, tmp_path)
    database.dispose()


@pytest.fixture
def busy(scene: Scene) -> Iterator[Scene]:
    """The same with a worker."""
    with working(scene.database):
        yield scene


def test_the_whole_road(scene: Scene) -> None:
    with working(scene.database, errors=(1,)):
        walk(scene)


def walk(busy: Scene) -> None:
    (busy.home / "people.csv").write_bytes(CSV)
    sent: list[tuple[int, int | None]] = []
    file = busy.client.files.upload(
        busy.home / "people.csv", progress=lambda done, size: sent.append((done, size))
    )
    assert sent[-1] == (len(CSV), len(CSV))
    assert busy.client.files.wait(file).state == "ready"

    seen: list[Job] = []
    job = busy.client.jobs.score("adult", file, alpha=0.3, explain=True).wait(progress=seen.append)
    assert (job.state, job.view.progress.rows_failed, seen[-1].state) == (
        "succeeded",
        1,
        "succeeded",
    )
    assert [(error.row, error.code) for error in job.errors()] == [(1, "not-a-number")]
    (worst, _) = job.anomalies(2)
    assert worst.row == 2
    assert worst.nelbo == pytest.approx(sum(worst.terms.values()) + worst.kl)
    assert job.results().to_arrow()["row"].to_pylist() == [0, 2]
    assert list(job.results().to_pandas().columns) == [
        *("row", "nelbo", "surprise", "p_value", "anomaly"),
        *("term_age", "term_job", "kl", "surprise_age", "surprise_job"),
    ]
    assert sum(batch.num_rows for batch in job.results().batches()) == 2

    busy.client.jobs.delete(job.id)
    with pytest.raises(Gone):
        busy.client.jobs.get(job.id)
    busy.client.files.delete(file.id)
    assert list(busy.client.files.list()) == []


def test_a_data_frame_is_explained(busy: Scene) -> None:
    frame = pd.DataFrame({"age": [39, 50, 38], "job": ["clerk", "smith", "clrek"]})
    job = busy.client.jobs.explain("adult", frame, rows=[0, 2], rank="nelbo", repair=True).wait()
    assert job.view.params == {
        **{"top": 10, "row_numbers": [0, 2], "columns": 3, "rank": "nelbo"},
        **{"repair": True, "seed": 0},
    }
    assert job.results().to_pandas()["row"].tolist() == [2, 2, 0]


def test_a_data_frame_is_cleaned_without_a_model(busy: Scene) -> None:
    workers.heartbeat(busy.database, "cleaner", host="h", pid=1, can_clean=True)
    frame = pd.DataFrame({"age": [39, 50, 38], "job": ["clerk", "smith", "clrek"]})
    job = busy.client.jobs.clean(frame, alpha=0.01, quick=True, seed=2).wait()
    assert (job.view.kind, job.view.model) == ("clean", None)
    assert job.view.params == {"alpha": 0.01, "quick": True, "seed": 2}
    cells = job.results().to_pandas()
    assert cells["row"].tolist() == [2, 2, 0]
    assert cells["column"].tolist() == ["age", "job", "age"]
    assert [each.id for each in busy.client.jobs.list(kind="clean")] == [job.id]


def test_a_service_without_a_cleaner_says_what_is_missing(scene: Scene) -> None:
    with (
        Client(scene.client.url, retries=0) as client,
        pytest.raises(Unavailable, match=r"nelbo\[training\]"),
    ):
        client.jobs.clean(ROWS)


@pytest.mark.parametrize("rank", ["surprise", "nelbo"])
def test_anomalies_come_in_the_rank_that_was_asked_for(busy: Scene, rank: Rank) -> None:
    job = busy.client.jobs.score("adult", [{"age": 1, "job": "clerk"}] * 6, rank=rank).wait()
    scores = job.results().to_arrow().sort_by([(rank, "descending")])
    assert [row.row for row in job.anomalies()] == scores["row"].to_pylist()
    assert scores["nelbo"].to_pylist() != scores["surprise"].to_pylist()


@pytest.mark.parametrize(
    "suffix", [".parquet", ".arrows", ".csv", ".jsonl", ".csv.gz", ".jsonl.zst"]
)
def test_results_are_saved_in_the_format_of_the_suffix(busy: Scene, suffix: str) -> None:
    job = busy.client.jobs.generate("adult", 100).wait()
    saved = job.results().save(busy.home / f"made{suffix}")
    with open_table(saved) as table:
        assert (table.names, sum(batch.num_rows for batch in table.batches())) == (
            ("age", "job"),
            100,
        )
    assert [path.name for path in busy.home.glob(".made*")] == []


def test_a_format_can_be_asked_for_whatever_the_suffix(busy: Scene) -> None:
    job = busy.client.jobs.generate("adult", 3).wait()
    saved = job.results("csv").save(busy.home / "made.data")
    assert saved.read_text().splitlines()[0] == "age,job"


def test_identifiers_are_left_out_where_a_client_asks_for_it(scene: Scene) -> None:
    with_them = scene.client.jobs.generate("adult", 3, seed=0)
    without = scene.client.jobs.generate("adult", 3, seed=0, identifiers=False)
    params = [scene.client.jobs.get(job.id).view.params for job in (with_them, without)]
    assert params == [{"n": 3, "seed": 0}, {"n": 3, "seed": 0, "identifiers": False}]


def test_a_place_that_cannot_be_written_is_named(busy: Scene) -> None:
    job = busy.client.jobs.generate("adult", 3).wait()
    with pytest.raises(NotFound, match=r"no folder .*/missing to write made\.csv into"):
        job.results().save(busy.home / "missing" / "made.csv")
    with pytest.raises(InvalidInput, match="wrong suffix"):
        job.results().save(busy.home / "made.xlsx")


def test_rows_tables_and_frames_are_given_alike(busy: Scene) -> None:
    table = pa.Table.from_pylist(ROWS)
    pa.parquet.write_table(table, busy.home / "people.parquet")
    with pa.ipc.new_stream(str(busy.home / "people.arrows"), table.schema) as writer:
        writer.write_table(table)
    given = [
        ROWS,
        table,
        table.to_pandas(),
        table.to_batches()[0],
        busy.home / "people.parquet",
        str(busy.home / "people.arrows"),
    ]
    for data in given:
        job = busy.client.jobs.augment("adult", data, per_row=2, spread=0.5, keep=["job"]).wait()
        assert job.view.params["spread"] == 0.5
        assert job.view.params["keep"] == ["job"]
        assert job.results().to_arrow().column_names == ["row", "copy", "age", "job"]
        filling = busy.client.jobs.reconstruct("adult", data, columns=["age"], leave_usual=True)
        assert filling.view.params["columns"] == ["age"]
        assert filling.wait().results().to_arrow().column_names == ["row", "age", "job"]
    with pytest.raises(InvalidInput, match="set is not a table"):
        busy.client.jobs.reconstruct("adult", {1, 2})


def test_columns_that_an_upload_leaves_out_here_are_told_with_what_the_service_says(
    busy: Scene,
) -> None:
    table = pa.Table.from_pylist(ROWS).append_column("tags", pa.array([[1]] * len(ROWS)))
    with pa.ipc.new_stream(str(busy.home / "people.arrows"), table.schema) as writer:
        writer.write_table(table)
    file = busy.client.files.wait(busy.client.files.upload(busy.home / "people.arrows"))
    assert [column.name for column in file.columns or ()] == ["id", "age", "job"]
    assert sum("the column 'tags' holds lists" in notice for notice in file.notices) == 1


def test_a_table_in_memory_with_types_that_parquet_lacks_is_sent_without_them(busy: Scene) -> None:
    table = pa.Table.from_pylist(ROWS)
    unknown_to_parquet = pa.array([(1, 2, 3)] * len(ROWS), pa.month_day_nano_interval())
    busy.client.jobs.score("adult", table.append_column("span", unknown_to_parquet)).wait()


def test_cells_of_python_numpy_and_pandas_become_json(scene: Scene) -> None:
    cells = [
        np.int64(2**60),
        np.float32(0.5),
        np.nan,
        pd.NaT,
        float("inf"),
        date(2026, 1, 2),
        None,
        np.bool_(True),
    ]
    cells += [pd.Timestamp("2026-01-02T03:04:05Z"), datetime(2026, 1, 2)]
    scene.client.jobs.score("adult", [{"id": cell, "age": 1, "job": "x"} for cell in cells])
    claim = ledger.claim(scene.database, "test", lease_s=60)
    assert claim is not None
    assert claim.inline is not None
    times = ["2026-01-02T03:04:05+00:00", "2026-01-02T00:00:00"]
    texts = [str(2**60), "0.5", None, None, "inf", "2026-01-02", None, "true", *times]
    assert [row["id"] for row in claim.inline] == texts


def test_jobs_are_watched_cancelled_and_queued_again(scene: Scene) -> None:
    job = scene.client.jobs.generate("adult", 20_000, seed=3)
    assert repr(job) == f"Job({job.id}, generate, queued, 0 of 20,000 rows)"
    with pytest.raises(NotReady, match="is still queued; wait again"):
        job.wait(timeout_s=0.2)
    assert job.cancel().state == "cancelled"
    with pytest.raises(JobFailed, match="was cancelled"):
        job.wait()
    with pytest.raises(JobFailed):
        job.results().to_arrow()
    scene.client.jobs.retry(job.id)
    work_off(scene.database)
    assert job.wait().finished
    with pytest.raises(Conflict):
        scene.client.jobs.cancel(job.id)
    assert [found.id for found in scene.client.jobs.list(state="succeeded", kind="generate")] == [
        job.id
    ]
    assert list(scene.client.jobs.list(kind="score")) == []


def test_models_are_listed_aliased_and_deleted(scene: Scene) -> None:
    add_model(scene.database)
    assert scene.client.models.get("adult").aliases == {"champion": 2}
    assert scene.client.models.set_alias("adult", "good", 1).aliases == {"champion": 2, "good": 1}
    assert scene.client.models.version("adult", "good").version == 1
    assert [version.version for version in scene.client.models.versions("adult")] == [2, 1]
    scene.client.models.delete("adult", 1)
    scene.client.models.delete("adult")
    assert list(scene.client.models.list()) == []


def test_lists_of_any_length_are_read_page_by_page(scene: Scene) -> None:
    for number in range(120):
        add_model(scene.database, f"m{number:03d}")
    assert [model.name for model in scene.client.models.list()][1:] == [
        f"m{number:03d}" for number in range(120)
    ]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.artifacts import linear_artifact

    return linear_artifact(tmp_path_factory.mktemp("artifact"))


def test_a_folder_is_pushed_and_verified(busy: Scene, artifact: Path) -> None:
    sent: list[int] = []
    version = busy.client.models.push(artifact, progress=lambda done, size: sent.append(done))
    assert (version.model, version.version, version.state) == ("linear", 1, "ready")
    assert sent[-1] > 1_000
    assert busy.client.models.push(artifact, name="other").model == "other"


def test_a_rejected_push_says_why(scene: Scene, artifact: Path) -> None:
    pushed = scene.client.models.push(artifact, wait=False)
    claim = ledger.claim(scene.database, "test", lease_s=60)
    assert claim is not None
    ledger.fail(scene.database, claim, "score.onnx holds an operator that is not allowed")
    with pytest.raises(InvalidArtifact, match=r"linear@1 was rejected: score\.onnx"):
        scene.client.models.wait(pushed)


def test_a_rejected_file_says_why(scene: Scene) -> None:
    (scene.home / "people.csv").write_bytes(CSV)
    file = scene.client.files.upload(
        scene.home / "people.csv",
        csv=CsvOptions(delimiter=",", encoding="utf-8", header=True, skip=0),
    )
    claim = ledger.claim(scene.database, "test", lease_s=60)
    assert claim is not None
    ledger.fail(scene.database, claim, "line 2 has 3 cells")
    with pytest.raises(InvalidInput, match=r"people\.csv: line 2 has 3 cells"):
        scene.client.files.wait(file)


def test_problems_become_the_errors_that_they_were(scene: Scene) -> None:
    jobs = scene.client.jobs
    with pytest.raises(NotFound, match="did you mean adult"):
        jobs.generate("adlut", 1)
    with pytest.raises(TooLarge, match="max_job_rows"):
        jobs.generate("adult", 10**9)
    with pytest.raises(InvalidInput, match="lacks"):
        jobs.score("adult", [{"age": 1}])
    with pytest.raises(NotFound, match=r"no job no such\?job"):
        jobs.get("no such?job")
    with pytest.raises(NotFound, match="cannot be read"):
        scene.client.files.upload(scene.home / "missing.csv")
    jobs.submit(GenerateRequest(model="adult", n=1), idempotency_key="k")
    with pytest.raises(IdempotencyMismatch):
        jobs.submit(GenerateRequest(model="adult", n=2), idempotency_key="k")
    with pytest.raises(InvalidRequest) as refused:
        jobs.submit(GenerateRequest.model_construct(kind="generate", model="adult", n=0, seed=0))
    assert refused.value.fields[0].pointer == "/body/generate/n"


@pytest.mark.parametrize("ask", [{"alpha": 2.0}, {"fdr": 0.0}, {"rank": "kl"}])
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    scene: Scene, ask: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(ask))):
        scene.client.jobs.score("adult", scene.home / "missing.csv", **ask)


def test_an_upload_above_the_limit_hears_of_the_limit(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "a.csv").write_bytes(b"1\n" * 2**24)
    with (
        served(settings_for(tmp_path, sqlite_url, max_upload_bytes=2**20)) as url,
        Client(url, pause_s=0.01) as client,
        pytest.raises(TooLarge, match="max_upload_bytes"),
    ):
        client.files.upload(tmp_path / "a.csv")


def test_a_key_is_sent(tmp_path: Path, sqlite_url: str) -> None:
    key = make_key(sqlite_url, "ada")
    with served(settings_for(tmp_path, sqlite_url)) as url:
        with Client(url, api_key=key) as client:
            assert list(client.jobs.list()) == []
        with Client(url) as client, pytest.raises(NotAuthenticated, match="API key"):
            list(client.jobs.list())


def test_without_a_service_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable,
        match=r"no Nelbo service is running .*; start one with `nelbo up` or set NELBO_URL",
    ):
        Client(settings=Settings(home=tmp_path))
    with (
        Client("http://127.0.0.1:1", retries=1, pause_s=0.0) as client,
        pytest.raises(Unavailable) as refused,
    ):
        list(client.jobs.list())
    assert "no Nelbo service answers at http://127.0.0.1:1 (" in refused.value.message
    assert "`nelbo up`" in refused.value.message


def test_a_running_service_is_found_by_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    assert find_url(settings) is None
    record = tmp_path / "up.json"
    record.write_text(json.dumps({"url": "http://127.0.0.1:8765", "pid": os.getpid()}))
    assert find_url(settings) == "http://127.0.0.1:8765"
    assert find_url(settings.model_copy(update={"url": "http://elsewhere"})) == "http://elsewhere"
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.waitpid(ended, 0)
    for stale in (
        json.dumps({"url": "http://127.0.0.1:8765", "pid": ended}),
        "{",
        "[]",
        '{"pid": "x"}',
    ):
        record.write_text(stale)
        assert find_url(settings) is None
    monkeypatch.setenv("NELBO_URL", "http://from-environment:1")
    with nelbo.Client() as client:
        assert client.url == "http://from-environment:1"


def test_nelbo_alone_does_not_load_the_client() -> None:
    assert nelbo.Client is Client


def test_conditions_of_generated_rows_are_those_of_the_job(scene: Scene) -> None:
    generate = scene.client.jobs.generate
    job = generate(
        "adult", 5, seed=1, where=["age > 30", "job = clerk"], like={"age": np.int64(39)}
    )
    assert job.view.params == {
        "n": 5,
        "seed": 1,
        "where": ["age > 30", "job = clerk"],
        "like": {"age": 39},
    }
    weighted = generate("adult", 5, where="age > 30", weights={"job": {"smith": 2}})
    assert weighted.view.params["where"] == ["age > 30"]
    assert weighted.view.params["weights"] == {"job": {"smith": 2}}
    assert generate("adult", 5, balance="job").view.params["balance"] == "job"
    with pytest.raises(InvalidInput, match="no category 'pilot'"):
        generate("adult", 5, where=["job = pilot"])


def test_each_job_that_draws_rows_has_a_seed_of_its_own(scene: Scene) -> None:
    seeds = {scene.client.jobs.generate("adult", 5).view.params["seed"] for _ in range(3)}
    assert len(seeds) == 3
