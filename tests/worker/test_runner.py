"""A chunk's way through a worker, on both databases: every kind of job, and every way that a chunk
can end."""

import hashlib
import io
import re
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Connection, text

from nelbo.artifact import MANIFEST, read_artifact
from nelbo.condition_reading import conditions_in
from nelbo.engine import Engine
from nelbo.errors import Unavailable
from nelbo.jobs import AugmentRequest, GenerateRequest, JobRequest, ReconstructRequest, ScoreRequest
from nelbo.storage import artifact_key, file_prefix
from nelbo.store import catalog, files, ledger, results
from nelbo.store.files import FileEntry
from nelbo.store.session import Database
from nelbo.store.sweep import sweep
from tests.artifacts import packed
from tests.deadline import until
from tests.hostile import greedy_artifact, slow_artifact
from tests.worker.stage import OWNER, Stage, as_csv, table
from worker import reading, runner, shutdown, verifying

ROWS = 130
KINDS: list[JobRequest] = [
    ScoreRequest(model="linear"),
    GenerateRequest(model="linear", n=ROWS, seed=5),
    GenerateRequest(model="linear", n=ROWS, seed=5, where=("length > 1", "colour != red")),
    GenerateRequest(model="linear", n=ROWS, seed=5, balance="colour", like={"width": -2}),
    GenerateRequest(model="linear", n=ROWS, seed=5, weights={"colour": {"red": 1, "blue": 2}}),
    AugmentRequest(model="linear", per_row=3, seed=5),
    AugmentRequest(model="linear", per_row=3, seed=5, spread=0.5),
    AugmentRequest(model="linear", per_row=3, seed=5, keep=("colour",)),
    ReconstructRequest(model="linear", seed=5),
    ReconstructRequest(model="linear", seed=5, columns=("length",), leave_usual=True, denoise=True),
]


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url) as stage:
        yield stage


@pytest.fixture
def sqlite_stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url) as stage:
        yield stage


def engine_of(stage: Stage) -> Engine:
    return Engine.load(stage.folder / "artifact")


def row() -> dict[str, str | None]:
    """A row that a request carries."""
    return {"id": "a", "length": "1.5", "colour": "red", "width": "-2", "weight": "10"}


def file_if_needed(stage: Stage, request: JobRequest) -> FileEntry | None:
    return None if isinstance(request, GenerateRequest) else stage.file(table(ROWS))


@pytest.mark.parametrize("request_", KINDS, ids=lambda request: request.kind)
def test_a_job_of_every_kind_gives_what_the_engine_gives(
    stage: Stage, request_: JobRequest
) -> None:
    version, file = stage.version(), file_if_needed(stage, request_)
    job = stage.submit(request_, version, ROWS, file_id=file.id if file else None)
    stage.work()
    done = stage.job(job.id)
    assert (done.state, done.progress.rows_done, done.progress.rows_failed) == (
        "succeeded",
        ROWS,
        0,
    )
    whole = table(ROWS).combine_chunks().to_batches()[0]
    engine = engine_of(stage)
    match request_:
        case ScoreRequest():
            wanted = engine.score(whole)
            stored = stage.scores(job.id)
            for name in ("nelbo", "surprise", "p_value"):
                np.testing.assert_array_equal(stored[name].to_numpy(), getattr(wanted, name))
        case GenerateRequest():
            conditions = conditions_in(engine.manifest, request_.model_dump())
            wanted_rows = engine.generate(5, 0, ROWS, conditions).batch
            assert stage.made(job.id).equals(pa.Table.from_batches([wanted_rows]))
            odds = engine.odds(conditions, 5).as_json() if conditions.allowed else None
            assert (done.summary or {}).get("conditions") == odds
        case AugmentRequest(spread=spread, keep=keep):
            wanted_rows = engine.augment(whole, 0, 3, 5, spread, keep).batch
            assert stage.made(job.id).equals(pa.Table.from_batches([wanted_rows]))
        case ReconstructRequest(columns=columns, leave_usual=leave_usual, denoise=denoise):
            filled = engine.reconstruct(
                whole, 0, 5, denoise=denoise, columns=columns, leave_usual=leave_usual
            )
            assert stage.made(job.id).equals(pa.Table.from_batches([filled.batch]))


@pytest.mark.parametrize("request_", KINDS, ids=lambda request: request.kind)
@pytest.mark.parametrize("chunk_rows", [1, 17, 1_000])
def test_a_result_does_not_depend_on_the_size_of_chunks(
    sqlite_stage: Stage, request_: JobRequest, chunk_rows: int
) -> None:
    stage, rows = sqlite_stage, 40
    version, file = stage.version(), file_if_needed(sqlite_stage, request_)
    given = {"file_id": file.id if file else None}
    one, other = (
        stage.submit(request_, version, rows, size, **given) for size in (rows, chunk_rows)
    )
    stage.work()
    result = stage.scores if request_.kind == "score" else stage.made
    assert result(one.id).combine_chunks().equals(result(other.id).combine_chunks())
    assert stage.job(one.id).summary == stage.job(other.id).summary


def test_rows_that_the_request_carries_score_like_those_of_a_file(stage: Stage) -> None:
    version, given = stage.version(), table(30)
    inline = [{name: str(value) for name, value in row.items()} for row in given.to_pylist()]
    by_file = stage.submit(ScoreRequest(model="linear"), version, 30, file_id=stage.file(given).id)
    by_rows = stage.submit(ScoreRequest(model="linear"), version, 30, chunk_rows=7, inline=inline)
    stage.work()
    assert (
        stage.scores(by_file.id).combine_chunks().equals(stage.scores(by_rows.id).combine_chunks())
    )


def test_a_row_that_cannot_be_scored_is_an_error_and_the_rest_is_stored(stage: Stage) -> None:
    version = stage.version()
    lines = as_csv(table(60)).splitlines()
    lines[1 + 41] = b"row 41,wide,red,1.0,2.0"
    file_id = stage.uploaded(b"\n".join(lines))
    stage.work()
    job = stage.submit(ScoreRequest(model="linear"), version, 60, 10, file_id=file_id)
    stage.work()
    assert stage.job(job.id).state == "succeeded"
    assert [(error.row, error.column) for error in results.errors(stage.database, job.id)] == [
        (41, "length")
    ]
    assert stage.scores(job.id)["row"].to_pylist() == [row for row in range(60) if row != 41]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,a\n1,2\n", "a"),
        (b"a,b\n1,2\n3,4,5\n", "row|line|cells|fields"),
        (b"", "empty"),
        (b"\xff\xfe\x00broken", "encoding"),
    ],
)
def test_a_file_that_cannot_be_read_is_rejected_with_the_reason(
    sqlite_stage: Stage, content: bytes, reason: str
) -> None:
    file_id = sqlite_stage.uploaded(content)
    sqlite_stage.work()
    entry = files.get_file(sqlite_stage.database, OWNER, file_id)
    assert entry.state == "rejected"
    assert entry.reason is not None
    assert any(word in entry.reason for word in reason.split("|"))


def test_a_file_is_read_into_parts_with_its_columns(stage: Stage) -> None:
    file_id = stage.uploaded(as_csv(table(70)))
    stage.work()
    file = files.get_file(stage.database, OWNER, file_id)
    assert (file.state, file.rows) == ("ready", 70)
    assert [column["name"] for column in file.columns or ()] == table(1).column_names
    assert len(stage.storage.keys(file_prefix(file.id))) == 2


def test_a_pushed_artifact_is_ready_when_it_was_tried(stage: Stage) -> None:
    version = stage.pushed(stage.packed())
    assert (version.state, version.view.digest) == ("pending", None)
    stage.work()
    ready, artifact = (
        catalog.version_of(stage.database, version.id),
        read_artifact(stage.folder / "artifact"),
    )
    assert (ready.state, ready.digest) == ("ready", artifact.digest)
    assert catalog.get_manifest(stage.database, ready) == artifact.manifest.model_dump(mode="json")


def flipped(packed: bytes, name: str) -> bytes:
    """The zip with one bit of one member changed."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as given, zipfile.ZipFile(changed, "w") as made:
        for member in given.namelist():
            content = bytearray(given.read(member))
            content[-1] ^= member == name
            made.writestr(member, bytes(content))
    return changed.getvalue()


@pytest.mark.parametrize("name", ["score.onnx", "generate.onnx", "manifest.json"])
def test_a_pushed_artifact_with_a_flipped_bit_is_rejected(sqlite_stage: Stage, name: str) -> None:
    assert name in rejection(sqlite_stage, flipped(sqlite_stage.packed(), name))


def rejection(stage: Stage, content: bytes) -> str:
    """Why what was pushed was rejected."""
    version = stage.pushed(content)
    stage.work()
    rejected = catalog.version_of(stage.database, version.id)
    assert rejected.state == "rejected"
    return rejected.reason or ""


def without_graph(content: bytes) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(changed, "w") as rest:
        for member in whole.namelist():
            if member != "prior.onnx":
                rest.writestr(member, whole.read(member))
    return changed.getvalue()


def with_graph(content: bytes, graph: bytes) -> bytes:
    """The zip with another graph, of which the manifest tells the digest."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(changed, "w") as other:
        old, new = (
            hashlib.sha256(text).hexdigest().encode() for text in (whole.read("score.onnx"), graph)
        )
        for member in whole.namelist():
            text = graph if member == "score.onnx" else whole.read(member)
            other.writestr(member, text.replace(old, new) if member == MANIFEST else text)
    return changed.getvalue()


SPOILT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda content: b"", "not a zip of an artifact"),
    "half": (lambda content: content[: len(content) // 2], "not a zip of an artifact"),
    "a graph missing": (without_graph, "lacks prior.onnx"),
    "a graph that is none": (lambda content: with_graph(content, b"\x00\x01"), "score.onnx"),
    "an empty graph": (lambda content: with_graph(content, b""), "score.onnx"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_rejection_names_files_and_no_path_of_this_machine(
    sqlite_stage: Stage, name: str
) -> None:
    spoil, words = SPOILT[name]
    reason = rejection(sqlite_stage, spoil(sqlite_stage.packed()))
    assert words in reason
    assert "/" not in reason


def test_a_bomb_is_rejected_and_leaves_nothing(sqlite_stage: Stage) -> None:
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_BZIP2) as bomb,
        bomb.open(MANIFEST, "w", force_zip64=True) as manifest,
    ):
        for _ in range(64):
            manifest.write(bytes(2**20))
    assert "neither stored nor deflated" in rejection(sqlite_stage, content.getvalue())
    assert [
        path for path in (sqlite_stage.settings.home / "cache").rglob("*") if path.is_file()
    ] == []


def test_a_version_whose_artifact_is_gone_fails_the_job_at_once(stage: Stage) -> None:
    version = stage.version()
    stage.storage.delete(artifact_key(version.id))
    job = stage.submit(GenerateRequest(model="linear", n=10), version, 10)
    stage.work()
    failed = stage.job(job.id)
    assert failed.state == "failed"
    assert artifact_key(version.id) in (failed.problem or "")


def test_a_transient_error_is_tried_again_and_then_fails_the_job(sqlite_stage: Stage) -> None:
    """The cache folder cannot be made, as on a full disk."""
    stage = sqlite_stage.with_options(max_attempts=2)
    version = stage.version()
    blocker = stage.settings.home / "cache"
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("not a folder")
    job = stage.submit(GenerateRequest(model="linear", n=10), version, 10)
    until(lambda: stage.state_after_work(job.id) == "failed", "two tries")
    assert "2 times" in (stage.job(job.id).problem or "")
    blocker.unlink()
    ledger.retry(stage.database, OWNER, job.id)
    stage.work()
    assert stage.job(job.id).state == "succeeded"


def test_a_transient_error_that_passes_costs_nothing(sqlite_stage: Stage) -> None:
    version = sqlite_stage.version()
    blocker = sqlite_stage.settings.home / "cache"
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("not a folder")
    job = sqlite_stage.submit(GenerateRequest(model="linear", n=10), version, 10)
    sqlite_stage.work()
    assert sqlite_stage.job(job.id).state == "running"
    blocker.unlink()
    until(lambda: sqlite_stage.state_after_work(job.id) == "succeeded", "another try")


class Blinking(Database):
    """A database that takes what is written and goes away whenever it is read."""

    @contextmanager
    def read(self) -> Iterator[Connection]:
        raise Unavailable("the database does not answer: it is being restarted")
        yield


@pytest.mark.parametrize("stage_of_work", ["work", "finish"])
def test_a_database_that_goes_away_again_and_again_fails_no_job(
    sqlite_stage: Stage, stage_of_work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    stage, rows = sqlite_stage, 10
    job = stage.submit(GenerateRequest(model="linear", n=rows), stage.version(), rows)
    if stage_of_work == "finish":
        claim = ledger.claim(stage.database, "dead", lease_s=60)
        assert claim is not None
        outcome = runner.compute(stage.process(), claim, lambda: None)
        assert ledger.commit(stage.database, claim, outcome)
    process = replace(stage.process(), database=Blinking(stage.database._engine))
    for _ in range(3 * stage.settings.max_attempts):
        runner.work(process, slice_s=0.0)
    assert stage.job(job.id).state == "running"
    stage.work()
    assert stage.job(job.id).state == "succeeded"
    assert stage.made(job.id).num_rows == rows


def test_a_database_that_stays_away_for_an_hour_fails_the_job(
    sqlite_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    monkeypatch.setattr(runner, "MOST_ATTEMPTS", 7)
    stage = sqlite_stage
    job = stage.submit(GenerateRequest(model="linear", n=10), stage.version(), 10)
    process = replace(stage.process(), database=Blinking(stage.database._engine))
    for _ in range(7):
        assert stage.job(job.id).state in ("queued", "running")
        runner.work(process, slice_s=0.0)
    assert stage.job(job.id).state == "failed"
    assert "7 times" in (stage.job(job.id).problem or "")


def test_an_outage_of_the_storage_fails_no_job_however_often_it_is_met(
    sqlite_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "BACKOFF_S", 0.0)
    stage = sqlite_stage.with_options(max_attempts=2)
    job = stage.submit(GenerateRequest(model="linear", n=10), stage.version(), 10)
    storage, away, process = (
        stage.settings.home / "storage",
        stage.settings.home / "away",
        stage.process(),
    )
    storage.rename(away)
    storage.write_text("not a folder")
    for _ in range(4):
        runner.work(process)
        assert stage.job(job.id).state == "running"
    storage.unlink()
    away.rename(storage)
    stage.work()
    assert stage.job(job.id).state == "succeeded"


def test_a_stored_artifact_that_cannot_be_loaded_fails_its_job_after_some_tries_alone(
    sqlite_stage: Stage,
) -> None:
    stage = sqlite_stage.with_options(max_attempts=2)
    version = stage.version()
    stage.storage.put(artifact_key(version.id), b"not an artifact")
    job = stage.submit(GenerateRequest(model="linear", n=10), version, 10)
    stage.work()
    assert stage.job(job.id).state == "running"
    until(lambda: stage.state_after_work(job.id) == "failed", "another try")


def test_a_process_that_meets_a_transient_error_leaves_the_rest_to_others(
    sqlite_stage: Stage,
) -> None:
    version = sqlite_stage.version()
    blocker = sqlite_stage.settings.home / "cache"
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("not a folder")
    job = sqlite_stage.submit(GenerateRequest(model="linear", n=10), version, 10, chunk_rows=1)
    sqlite_stage.work()
    with sqlite_stage.database.read() as connection:
        assert (
            connection.execute(text("SELECT COUNT(*) FROM chunk WHERE failures > 0")).scalar_one()
            == 1
        )
    assert sqlite_stage.job(job.id).state == "running"


def test_a_chunk_that_was_taken_over_is_not_stored_twice(stage: Stage) -> None:
    """The first worker sleeps past its lease, a second one does the chunk, the first wakes and
    commits."""
    version, process = stage.version(), stage.process()
    job = stage.submit(GenerateRequest(model="linear", n=10), version, 10)
    slow = ledger.claim(stage.database, "slow", lease_s=0.01)
    assert slow is not None
    outcome = runner.compute(process, slow, lambda: None)
    until(lambda: sweep(stage.database).requeued, "the lease to run out")
    until(lambda: stage.state_after_work(job.id) == "succeeded", "the second worker")
    assert not ledger.commit(stage.database, slow, outcome)
    assert stage.made(job.id).num_rows == 10


def test_a_cancelled_job_stops_the_chunk_between_two_batches(stage: Stage) -> None:
    version = stage.version()
    job = stage.submit(GenerateRequest(model="linear", n=2_000), version, 2_000, chunk_rows=2_000)
    process = stage.with_options(lease_s=2.0, renew_s=0.05).process()
    claim = ledger.claim(stage.database, process.name, lease_s=2.0)
    assert claim is not None
    ledger.cancel(stage.database, OWNER, job.id)
    runner.run(process, claim, asked_at=time.monotonic())
    assert stage.job(job.id).state == "cancelled"
    assert list(results.tables(stage.database, job.id)) == []


def test_a_file_that_takes_too_long_to_read_is_rejected(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_S", 0.01)
    monkeypatch.setattr(reading, "READ_BYTES_PER_S", 1e9)
    file_id = stage.uploaded(as_csv(table(70)))
    stage.work()
    file = files.get_file(stage.database, OWNER, file_id)
    assert (file.state, file.reason) == (
        "rejected",
        "reading table.csv took more than 0 s; upload it in several files",
    )


def test_a_model_that_takes_too_long_fails_its_job_after_three_tries(stage: Stage) -> None:
    hasty = stage.with_options(model_batch_s=1.0)
    version = hasty.version("slow", slow_artifact)
    job = hasty.submit(ScoreRequest(model="slow"), version, 1, inline=[row()])
    until(lambda: hasty.state_after_work(job.id) == "failed", "three tries")
    assert re.match(
        r"chunk at row 0 failed 3 times, last: worker-died: the model took more than 1 s for one"
        r" batch of 16 rows"
        r" \(the setting model_batch_s\) and was stopped; train a smaller model",
        stage.job(job.id).problem or "",
    )


def test_a_model_whose_many_batches_take_too_long_fails_its_job_after_three_tries(
    sqlite_stage: Stage,
) -> None:
    """However quick each of them is: else it holds a process of the worker for hours."""
    hasty = sqlite_stage.with_options(model_chunk_s=0.05)
    rows = 50_000
    job = hasty.submit(
        GenerateRequest(model="linear", n=rows), hasty.version(), rows, chunk_rows=rows
    )
    until(lambda: hasty.state_after_work(job.id) == "failed", "three tries")
    assert re.match(
        r"chunk at row 0 failed 3 times, last: worker-died: the model took more than 0.05 s for one"
        r" chunk of rows"
        r" \(the setting model_chunk_s\) and was stopped",
        hasty.job(job.id).problem or "",
    )


def test_a_model_that_needs_too_much_memory_fails_its_job_after_three_tries(
    sqlite_stage: Stage,
) -> None:
    version = sqlite_stage.version("greedy", lambda folder: greedy_artifact(folder, gib=3))
    job = sqlite_stage.submit(ScoreRequest(model="greedy"), version, 1, inline=[row()])
    until(lambda: sqlite_stage.state_after_work(job.id) == "failed", "three tries")
    assert "worker-died: the model needs more than 2,048 MiB" in (
        sqlite_stage.job(job.id).problem or ""
    )


def test_a_cancelled_job_ends_a_batch_that_goes_on_for_ever(stage: Stage) -> None:
    version = stage.version("slow", slow_artifact)
    job = stage.submit(ScoreRequest(model="slow"), version, 1, inline=[row()])
    process = stage.with_options(lease_s=2.0, renew_s=0.05).process()
    claim = ledger.claim(stage.database, process.name, lease_s=2.0)
    assert claim is not None
    at_work = threading.Thread(target=runner.run, args=(process, claim, time.monotonic()))
    at_work.start()
    ledger.cancel(stage.database, OWNER, job.id)
    at_work.join(20)
    assert not at_work.is_alive(), "the batch would take longer"
    assert stage.job(job.id).state == "cancelled"


@pytest.mark.parametrize(
    "make", [slow_artifact, partial(greedy_artifact, gib=3)], ids=["time", "memory"]
)
def test_a_pushed_model_that_takes_too_much_only_for_rows_with_values_is_rejected(
    sqlite_stage: Stage, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "TRIAL_S", 6.0)
    version = sqlite_stage.pushed(
        packed(make(sqlite_stage.folder / "hostile", only_with_values=True))
    )
    sqlite_stage.work()
    rejected = catalog.version_of(sqlite_stage.database, version.id)
    assert rejected.state == "rejected", rejected.reason


def test_a_worker_that_is_asked_to_end_hands_its_chunk_back_unharmed(stage: Stage) -> None:
    version = stage.version()
    job = stage.submit(GenerateRequest(model="linear", n=100), version, 100, chunk_rows=100)
    process = stage.process()
    claim = ledger.claim(stage.database, process.name, lease_s=600)
    assert claim is not None
    shutdown.announce()
    try:
        runner.run(process, claim, asked_at=time.monotonic())
        assert stage.job(job.id).state == "running"
        stage.work()
        assert stage.job(job.id).state == "running", "nothing is claimed any more"
    finally:
        shutdown.withdraw()
    again = ledger.claim(stage.database, process.name, lease_s=600)
    assert again is not None
    assert again.attempt == 1


def test_a_hint_works_for_its_slice_and_is_then_passed_on(sqlite_stage: Stage) -> None:
    version = sqlite_stage.version()
    job = sqlite_stage.submit(GenerateRequest(model="linear", n=100), version, 100, chunk_rows=10)
    runner.work(sqlite_stage.process(), slice_s=0.0)
    assert sqlite_stage.hints == [job.id]
    assert sqlite_stage.job(job.id).progress.rows_done == 10


def test_a_small_job_does_not_wait_for_a_huge_one(sqlite_stage: Stage) -> None:
    version = sqlite_stage.version()
    huge = sqlite_stage.submit(
        GenerateRequest(model="linear", n=1_000), version, 1_000, chunk_rows=1
    )
    assert ledger.claim(sqlite_stage.database, "busy", lease_s=600) is not None
    small = sqlite_stage.submit(GenerateRequest(model="linear", n=2), version, 2, chunk_rows=1)
    process = sqlite_stage.process()
    for _ in range(6):
        runner.work(process, slice_s=0.0)
    assert sqlite_stage.job(small.id).state == "succeeded", (
        "two chunks, each in its turn, and the finish at once"
    )
    assert sqlite_stage.job(huge.id).progress.rows_done == 4


@pytest.mark.parametrize("source", ["file", "rows"])
def test_copies_of_a_whole_table_are_balanced_chunk_by_chunk(
    sqlite_stage: Stage, source: str
) -> None:
    data = table(120)
    colours = data["colour"].to_pylist()
    data = data.filter(pa.array([name != "red" or row < 40 for row, name in enumerate(colours)]))
    given: dict[str, Any] = {"file_id": sqlite_stage.file(data).id}
    if source == "rows":
        given = {
            "inline": [{name: str(cell) for name, cell in row.items()} for row in data.to_pylist()]
        }
    request = AugmentRequest(model="linear", balance="colour", seed=5)
    job = sqlite_stage.submit(request, sqlite_stage.version(), data.num_rows, 7, **given)
    sqlite_stage.work()
    made = sqlite_stage.made(job.id)
    ended = sqlite_stage.job(job.id)
    assert ended.summary == {"rows": data.num_rows, "rows_failed": 0, "rows_made": made.num_rows}
    rows = Counter(data["colour"].to_pylist()) + Counter(made["colour"].to_pylist())
    assert len(rows) > 1
    assert len(set(rows.values())) == 1


def test_a_balanced_table_that_needs_too_many_copies_fails_its_job(sqlite_stage: Stage) -> None:
    hasty = sqlite_stage.with_options(max_job_rows=3)
    cells = [row() | {"colour": name} for name in ("red", "red", "red", "red", "red", "green")]
    request = AugmentRequest(model="linear", balance="colour", seed=5)
    job = hasty.submit(request, hasty.version(), len(cells), inline=cells)
    hasty.work()
    assert "(the setting max_job_rows)" in (hasty.job(job.id).problem or "")
