"""Results, errors and anomalies over HTTP."""

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from nelbo.store import ledger
from tests.api.stage import MESSAGE, ROWS, Stage

SCORE: dict[str, Any] = {"kind": "score", "model": "adult", "rows": [*ROWS, *ROWS, *ROWS]}
HEAD = ("row", "nelbo", "surprise", "p_value", "anomaly")
READ: dict[str, Callable[[bytes], Any]] = {
    "parquet": lambda content: pa.parquet.read_table(io.BytesIO(content)),
    "arrow": lambda content: pa.ipc.open_stream(content).read_all(),
    "csv": lambda content: pa.csv.read_csv(io.BytesIO(content)),
    "jsonl": lambda content: pa.Table.from_pylist(
        [json.loads(line) for line in content.splitlines()]
    ),
}
MEDIA = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
}


def test_the_same_scores_come_in_every_format(either: Stage) -> None:
    either.model()
    job_id = either.finished(errors=(1,), alpha=0.25, **SCORE)
    for format in MEDIA:
        check_scores(either, job_id, format)


def check_scores(either: Stage, job_id: str, format: str) -> None:
    by_type = either.get(f"/v1/jobs/{job_id}/results", headers={"Accept": MEDIA[format]})
    by_name = either.get(
        f"/v1/jobs/{job_id}/results", params={"format": format}, headers={"Accept": "text/html"}
    )
    assert by_type.headers["content-type"].partition(";")[0] == MEDIA[format]
    suffix = "arrows" if format == "arrow" else format
    assert (
        by_type.headers["content-disposition"] == f'attachment; filename="score-{job_id}.{suffix}"'
    )
    assert by_type.headers["vary"] == "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest"
    table = READ[format](by_type.content)
    assert READ[format](by_name.content) == table
    assert table.to_pydict() == {
        "row": [0, 2, 3, 4, 5],
        "nelbo": [0.25, 3.25, 4.75, 6.25, 7.75],
        "surprise": [0.0, 2.25, 3.375, 0.5, 1.625],
        "p_value": [0.5, 0.25, 0.2, 1 / 6, 1 / 7],
        "anomaly": [False, True, True, True, True],
    }


def test_explained_scores_have_a_term_and_a_surprise_for_each_column(either: Stage) -> None:
    either.model()
    job_id = either.finished(explain=True, **SCORE)
    table = READ["parquet"](either.get(f"/v1/jobs/{job_id}/results").content)
    cells = ["term_age", "term_job", "kl", "surprise_age", "surprise_job"]
    assert table.column_names == [*HEAD, *cells]
    assert table["term_job"].to_pylist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert table["surprise_age"].to_pylist() == [0.0, 1.0, 2.0, 3.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("request_", "columns", "rows"),
    [
        ({"kind": "generate", "model": "adult", "n": 25_000}, ["age", "job"], 25_000),
        (
            {"kind": "augment", "model": "adult", "rows": ROWS, "per_row": 3},
            ["row", "copy", "age", "job"],
            6,
        ),
        ({"kind": "reconstruct", "model": "adult", "rows": ROWS}, ["row", "age", "job"], 2),
    ],
)
def test_made_rows_come_in_row_order(
    stage: Stage, request_: dict[str, Any], columns: list[str], rows: int
) -> None:
    stage.model()
    job_id = stage.finished(**request_)
    table = READ["arrow"](
        stage.get(f"/v1/jobs/{job_id}/results", params={"format": "arrow"}).content
    )
    assert (table.column_names, table.num_rows) == (columns, rows)
    ages = table["age"].to_pylist()
    assert ages == sorted(ages)


def test_a_table_of_no_rows_still_has_its_columns(stage: Stage) -> None:
    stage.model()
    columns = {
        "score": [*HEAD],
        "augment": ["row", "copy", "age", "job"],
        "reconstruct": ["row", "age", "job"],
    }
    for kind, names in columns.items():
        job_id = stage.finished(errors=(0, 1), kind=kind, model="adult", rows=ROWS)
        for format in ("parquet", "arrow", "csv"):
            content = stage.get(f"/v1/jobs/{job_id}/results", params={"format": format}).content
            table = READ[format](content)
            assert (table.column_names, table.num_rows) == (names, 0)
        assert stage.get(f"/v1/jobs/{job_id}/results", params={"format": "jsonl"}).content == b""


def test_results_wait_for_success(stage: Stage) -> None:
    stage.model()
    job_id = stage.submit(**SCORE)
    early = stage.get(f"/v1/jobs/{job_id}/results")
    assert (early.status_code, early.json()["type"], early.headers["retry-after"]) == (
        409,
        "/problems/not-ready",
        "1",
    )
    stage.post(f"/v1/jobs/{job_id}:cancel")
    never = stage.get(f"/v1/jobs/{job_id}/results")
    assert (never.status_code, never.json()["type"]) == (409, "/problems/job-failed")
    assert "retry-after" not in never.headers
    failed = stage.get(f"/v1/jobs/{stage.failed(**SCORE)}/results")
    assert "the artifact is gone" in failed.json()["detail"]


def test_errors_are_listed_in_row_order_page_by_page(either: Stage) -> None:
    either.model()
    job_id = either.finished(errors=(1,), **SCORE)
    page = either.get(f"/v1/jobs/{job_id}/errors").json()
    assert page == {
        "items": [{"row": 1, "column": "age", "code": "not-a-number", "message": MESSAGE}],
        "next_cursor": None,
    }
    assert either.get(f"/v1/jobs/{job_id}/errors", params={"cursor": "1"}).json()["items"] == []
    progress = either.get(f"/v1/jobs/{job_id}").json()["progress"]
    assert (progress["rows_done"], progress["rows_failed"]) == (6, 1)


@pytest.mark.parametrize(
    ("rank", "rows", "flags"),
    [
        ({}, [3, 2, 5, 1], [True, False, True, False]),
        ({"rank": "surprise"}, [3, 2, 5, 1], [True, False, True, False]),
        ({"rank": "nelbo"}, [5, 4, 3, 2], [True, True, True, False]),
    ],
)
def test_anomalies_come_in_the_jobs_rank_with_terms_that_add_up(
    either: Stage, rank: dict[str, Any], rows: list[int], flags: list[bool]
) -> None:
    either.model()
    job_id = either.finished(alpha=0.2, **SCORE, **rank)
    items = either.get(f"/v1/jobs/{job_id}/anomalies", params={"limit": 4}).json()["items"]
    assert [item["row"] for item in items] == rows
    assert [item["anomaly"] for item in items] == flags
    for item in items:
        assert item["nelbo"] == pytest.approx(sum(item["terms"].values()) + item["kl"])
        assert item["surprise"] == pytest.approx(sum(item["surprises"].values()))


def test_what_a_running_job_found_so_far_can_be_seen(stage: Stage) -> None:
    stage.model()
    job_id = stage.submit(**SCORE)
    claim = ledger.claim(stage.service.database, "test", lease_s=60)
    assert claim is not None
    assert stage.get(f"/v1/jobs/{job_id}/errors").json()["items"] == []
    assert stage.get(f"/v1/jobs/{job_id}/anomalies").json()["items"] == []


@pytest.mark.parametrize(
    ("headers", "params", "safe"),
    [
        ({}, {}, False),
        ({"Accept": "text/csv"}, {}, False),
        ({"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, {}, True),
        ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, {}, True),
        ({"Sec-Fetch-Dest": "empty"}, {}, True),
        ({"Sec-Fetch-Mode": "navigate"}, {"safe": "false"}, False),
        ({}, {"safe": "true"}, True),
    ],
)
def test_people_get_csv_without_formulas_and_programs_every_text_as_it_is(
    stage: Stage, headers: dict[str, str], params: dict[str, str], safe: bool
) -> None:
    stage.model()
    address = f"/v1/jobs/{stage.finished(kind='generate', model='adult', n=2)}/results"
    answer = stage.get(address, params={"format": "csv"} | params, headers=headers)
    assert answer.text == "age,job\n20,{0}\n21,{0}\n".format("'=clerk()" if safe else "=clerk()")
