"""The two ways in which a command about rows is run: in this process, or as a job on a service. The
rows are the same."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from nelbo.artifact import Manifest
from nelbo.client import Client, JobHandle, Request, find_url
from nelbo.commands import local, service
from nelbo.commands.console import Console
from nelbo.commands.row_errors import RowErrors
from nelbo.commands.shown_rows import ShownRows
from nelbo.commands.table_files import OutputFile, TableFile
from nelbo.condition_reading import conditions_in
from nelbo.encoding import check_columns
from nelbo.files import Table, open_writer
from nelbo.jobs import ExplainRequest, GenerateRequest, ScoreRequest, with_seed
from nelbo.model_folder import folder_here, names_a_folder
from nelbo.odd_rows import cells_of_odd_rows
from nelbo.rows import Anomaly
from nelbo.schema import Schema
from nelbo.scores import already_known, out_of_reach
from nelbo.settings import Settings

SHOWN_ROWS = 3


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    model: str
    rows: int
    """Rows of the table, or rows asked for."""
    written: int
    job: str | None = None
    seed: int | None = None
    """Of made rows, as what follows; None where nothing is drawn."""
    conditions: Mapping[str, Any] | None = None
    """How probable the conditions of generated rows are (conditions.Odds.as_json)."""
    anomalies: int | None = None
    """Of a scoring, as what follows."""
    threshold: float | None = None
    top: list[Anomaly] = field(default_factory=list)
    shown: ShownRows | None = None
    """The rows of `top` as the table has them; None where the table cannot be read again."""


@dataclass(frozen=True)
class ExplainedRows:
    """The cells that explain rows of a table, or that repair them."""

    model: str
    rows: int
    """Number of rows that are explained."""
    cells: pa.Table
    job: str | None = None


class Runner(Protocol):
    """Runs a request about a table, or one to generate rows, which has no table. Its results go to
    `out`, and the rows that could not be done to `faults`. The cells that explain rows are few, so
    that they are a table in memory."""

    def run(
        self, request: Request, table: TableFile | None, out: OutputFile, faults: RowErrors
    ) -> Done: ...

    def explain(
        self, request: ExplainRequest, table: TableFile, faults: RowErrors
    ) -> ExplainedRows: ...


def choose_runner(settings: Settings, model: str, console: Console) -> Runner:
    """A service does the work where one is known, unless MODEL is the folder of an artifact. All
    else is done in this process."""
    if find_url(settings) and not names_a_folder(model):
        return ServiceRunner(settings, console)
    return LocalRunner(folder_here(settings, model), settings, console)


@dataclass(frozen=True)
class LocalRunner:
    """Runs requests in this process, on the artifact in `folder`."""

    folder: Path
    settings: Settings
    console: Console

    def run(
        self, request: Request, table: TableFile | None, out: OutputFile, faults: RowErrors
    ) -> Done:
        request = with_seed(request)
        work = local.Work(local.load(self.folder, request.kind), faults)
        if isinstance(request, GenerateRequest):
            conditions = conditions_in(work.engine.manifest, request.model_dump())
            with self.console.progress(service.DOING["generate"]) as tell:
                written = _write(work.generate(request, conditions, self.settings, tell), out)
            odds = work.odds(request, conditions)
            return Done(request.model, request.n, written, seed=request.seed, conditions=odds)

        assert table is not None, "only generate has no table"
        with table.open(self.settings) as opened:
            self._check(request, opened, work.engine.manifest)
            with self.console.progress(f"{service.DOING[request.kind]} {table.name}") as tell:
                written = _write(work.results(request, opened, tell), out)
            self.console.notices(opened.late_notices)
        done = Done(request.model, work.rows, written, seed=_seed_of(request))
        return self._with_anomalies(done, work) if isinstance(request, ScoreRequest) else done

    def explain(
        self, request: ExplainRequest, table: TableFile, faults: RowErrors
    ) -> ExplainedRows:
        work = local.Work(local.load(self.folder, request.kind), faults)
        manifest = work.engine.manifest
        with table.open(self.settings) as opened:
            self._check(request, opened, manifest)
            with self.console.progress(f"scoring {table.name}") as tell:
                odd = work.odd_rows(request, opened, tell)
            self.console.notices(opened.late_notices)
        self.console.notices(already_known(work.digest.hexdigest(), manifest.table_digest))
        with self.console.waiting("drawing what the cells should be"):
            return ExplainedRows(
                request.model, len(odd.rows), cells_of_odd_rows(work.engine, odd, request)
            )

    def _check(self, request: Request | ExplainRequest, table: Table, manifest: Manifest) -> None:
        """Refuse a table that does not serve the model, and say what can be seen beforehand."""
        notices = check_columns(table.names, manifest.table_schema)
        self.console.notices([*table.notices, *notices])
        if isinstance(request, ScoreRequest):
            smallest = manifest.calibration.smallest
            self.console.notices(out_of_reach(request.alpha, request.fdr, smallest))

    def _with_anomalies(self, done: Done, work: local.Work) -> Done:
        trained_on = work.engine.manifest.table_digest
        self.console.notices(already_known(work.digest.hexdigest(), trained_on))
        return replace(
            done,
            anomalies=work.anomalies,
            threshold=work.threshold,
            top=work.top[:SHOWN_ROWS],
            shown=work.shown,
        )


@dataclass(frozen=True)
class ServiceRunner:
    """Runs requests as jobs on a service."""

    settings: Settings
    console: Console

    def run(
        self, request: Request, table: TableFile | None, out: OutputFile, faults: RowErrors
    ) -> Done:
        with Client(settings=self.settings) as client:
            schema = None
            if table is not None:
                source, schema = self._uploaded(client, request, table)
                request = request.model_copy(update=source)
            with service.finished(client, request, self.console) as job:
                progress = job.view.progress
                if progress.rows_failed:
                    faults.add(job.errors())
                if progress.rows_failed < progress.rows:
                    service.download(job, out, self.console)
                done = _done(job)
            if table is None or schema is None or table.file == "-" or not done.top:
                return done
            return replace(done, shown=self._shown(table, schema, done.top))

    def explain(
        self, request: ExplainRequest, table: TableFile, faults: RowErrors
    ) -> ExplainedRows:
        with Client(settings=self.settings) as client:
            source, _ = self._uploaded(client, request, table)
            request = request.model_copy(update=source)
            with service.finished(client, request, self.console) as job:
                if job.view.progress.rows_failed:
                    faults.add(job.errors())
                assert job.view.model is not None, "an explain job names a model"
                rows = (job.view.summary or {})["rows_explained"]
                return ExplainedRows(job.view.model, rows, job.results().to_arrow(), job.id)

    def _uploaded(
        self, client: Client, request: Request | ExplainRequest, table: TableFile
    ) -> tuple[dict[str, str], Schema | None]:
        """The field of the request that names the table, which is uploaded and checked before a job
        is made, and the schema of its model."""
        file = service.upload(client, table, self.console)
        name, _, which = request.model.partition("@")
        version = client.models.version(name, which or "champion")
        service.check_table(version, file, self.console)
        if isinstance(request, ScoreRequest):
            smallest = version.smallest_p_value or 0.0
            self.console.notices(out_of_reach(request.alpha, request.fdr, smallest))
        if isinstance(request, ScoreRequest | ExplainRequest):
            self.console.notices(already_known(file.digest, version.table_digest))
        return {"file": file.id}, version.table_schema

    def _shown(self, table: TableFile, schema: Schema, top: list[Anomaly]) -> ShownRows:
        """The rows once more, from the file: the service gives scores alone."""
        shown = ShownRows(schema)
        with table.open(self.settings) as opened:
            shown.read(opened, [row.row for row in top])
        return shown


def _done(job: JobHandle) -> Done:
    """What a job that has succeeded came to."""
    view = job.view
    assert view.model is not None, "a request of this runner names a model"
    summary = view.summary or {}
    rows = view.progress.rows
    done = rows - view.progress.rows_failed
    if view.kind != "score":
        return Done(
            view.model,
            rows,
            summary.get("rows_made", done),
            view.id,
            seed=None if view.params.get("mode") else view.params.get("seed"),
            conditions=summary.get("conditions"),
        )
    return Done(
        view.model,
        rows,
        done,
        view.id,
        anomalies=summary.get("anomalies"),
        threshold=view.threshold,
        top=job.anomalies(SHOWN_ROWS),
    )


def _seed_of(request: Request) -> int | None:
    """The seed of made rows. A score and the mode of a reconstruction draw nothing."""
    return None if getattr(request, "mode", False) else getattr(request, "seed", None)


def _write(batches: Iterator[pa.RecordBatch], out: OutputFile) -> int:
    """Write all rows and count them; where there are none, OUT is left as it is."""
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return 0
    written = 0
    with open_writer(out.path, out.format, safe_csv=out.safe_csv) as writer:
        for batch in itertools.chain([first], filled):
            writer.write(batch)
            written += batch.num_rows
    return written
