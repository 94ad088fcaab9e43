"""An explain job in a worker: the cells that the model in this process gives, whatever is killed
meanwhile."""

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nelbo.jobs import ExplainRequest
from nelbo.model import TableModel
from nelbo.views import Job
from tests.deadline import until
from tests.worker.host import chunks, computing, running_worker
from tests.worker.stage import Stage, as_csv, table

ROWS = 300
EXPLAIN = ExplainRequest(model="linear", top=40, columns=4)


@pytest.fixture
def stage(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, database_url, broker_url) as stage:
        yield stage


@pytest.fixture
def sqlite_stage(tmp_path: Path, sqlite_url: str, broker_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url, broker_url) as stage:
        yield stage


def odd(rows: int = ROWS, identifier: str = "id") -> pa.Table:
    """Rows with a far outlier, an unseen category and one that cannot be read."""
    columns = {
        name: [str(cell) for cell in values] for name, values in table(rows).to_pydict().items()
    }
    columns["weight"][5] = "100"
    columns["colour"][7] = "violet"
    columns["width"][9] = "abc"
    columns[identifier] = columns.pop("id")
    return pa.table(columns)


def submit(stage: Stage, data: pa.Table, request: ExplainRequest = EXPLAIN, **given: Any) -> Job:
    source = given or {"file_id": stage.file(data).id}
    return stage.submit(request, stage.version(), data.num_rows, data.num_rows, **source)


def explained(stage: Stage, data: pa.Table, **options: Any) -> pa.Table:
    """What the model in this process says about the same table."""
    file = stage.folder / "rows.csv"
    file.write_bytes(as_csv(data))
    model = TableModel.read(stage.folder / "artifact")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pa.Table.from_pandas(model.explain(file, **options), preserve_index=False)


@pytest.mark.parametrize("identifier", ["id", "row"])
@pytest.mark.parametrize("repair", [False, True])
def test_a_job_gives_the_cells_that_a_model_in_this_process_gives(
    stage: Stage, repair: bool, identifier: str
) -> None:
    data = odd(identifier=identifier)
    request = ExplainRequest(model="linear", top=4, repair=repair, seed=3)
    of_file = submit(stage, data, request)
    of_rows = submit(stage, data, request, inline=data.to_pylist())
    stage.work()
    cells = explained(stage, data, top=4, repair=repair, seed=3)
    for job in (of_file, of_rows):
        ended = stage.job(job.id)
        assert (ended.state, ended.progress.rows_failed) == ("succeeded", 1), ended.problem
        assert ended.summary == {"rows": ROWS, "rows_failed": 1, "rows_explained": 4}
        made = stage.made(job.id)
        assert made.column_names[:2] == ["nelbo_row" if identifier == "row" else "row", identifier]
        assert made.to_pylist() == cells.cast(made.schema).to_pylist()


def test_a_worker_killed_in_mid_job_costs_an_attempt_and_no_cell(stage: Stage) -> None:
    data = odd(20_000)
    job = submit(stage, data)
    with running_worker(stage):
        os.kill(until(lambda: computing(stage.database, job.id), "the rows"), signal.SIGKILL)
        until(lambda: stage.job(job.id).state == "succeeded", "the job to succeed", 60)
    work, _ = chunks(stage.database, job.id)
    assert work.attempt == 2
    again = submit(stage, data)
    stage.work()
    assert stage.made(job.id).equals(stage.made(again.id))


def test_a_model_that_is_too_slow_fails_the_job(sqlite_stage: Stage) -> None:
    hasty = sqlite_stage.with_options(model_chunk_s=0.01)
    job = submit(hasty, odd(20_000))
    until(lambda: hasty.state_after_work(job.id) == "failed", "three tries")
    assert "(the setting model_chunk_s)" in (hasty.job(job.id).problem or "")
