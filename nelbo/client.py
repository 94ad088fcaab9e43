"""The HTTP client: the files, models and jobs of a Nelbo service.

with nelbo.Client() as client:
    job = client.jobs.score("adult", "adult-test.parquet").wait()
    print(job.anomalies(10))
    job.results().save("scores.parquet")
"""

import math
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx2
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from nelbo.artifact import read_artifact
from nelbo.errors import InvalidArtifact, InvalidInput, JobFailed, Unavailable
from nelbo.files import DETECTED, CsvOptions, format_of, open_table, open_target, open_writer
from nelbo.files.compression import compressing
from nelbo.files.formats import compression_of
from nelbo.frames import is_frame, to_arrow
from nelbo.home import running_up
from nelbo.jobs import (
    FINAL,
    AugmentRequest,
    CleanRequest,
    ExplainRequest,
    GenerateRequest,
    JobRequest,
    ReconstructRequest,
    ScoreRequest,
    checked_request,
)
from nelbo.packing import pack
from nelbo.rows import Anomaly, Rank, RowError
from nelbo.settings import Settings
from nelbo.transport import START_ONE, BytesProgress, FileBody, Http, part, poll
from nelbo.views import Change, File, Job, Model, Version, VersionDetails

if TYPE_CHECKING:
    import pandas as pd

WAIT_S = 20
"""Seconds that one request waits for the end of a job."""
PROGRESS_S = 1
"""The same where somebody wants to see the progress."""

Rows = Sequence[Mapping[str, Any]]
ResultFormat = Literal["parquet", "arrow", "csv", "jsonl"]
Request = ScoreRequest | GenerateRequest | AugmentRequest | ReconstructRequest
"""A request whose results are rows. The other kinds of jobs, explain and clean, give cells."""


def find_url(settings: Settings) -> str | None:
    """The address of the service, or None if there is none.

    It is NELBO_URL, or else the address of a `nelbo up` that runs on the data folder.
    """
    if settings.url:
        return settings.url
    up = running_up(settings.home)
    return None if up is None else up.url


class Client:
    """A connection to a Nelbo service. Close it, or use it in a `with` statement.

    url: address of the service. Default: NELBO_URL, or that of a running `nelbo up`.
    api_key: default: NELBO_API_KEY.
    timeout_s: maximum time in seconds for each wait on the network.
    retries: maximum number of times that a request is repeated, where that is safe.
    pause_s: first pause in seconds before a repetition. Later pauses are longer; a service may ask
    for another pause.

    Raises the errors of `nelbo.errors`: Unavailable, for example, if no service answers.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        settings: Settings | None = None,
        timeout_s: float = 30.0,
        retries: int = 5,
        pause_s: float = 0.2,
    ) -> None:
        settings = settings or Settings()
        url = url or find_url(settings)
        if url is None:
            raise Unavailable(f"no Nelbo service is running on {settings.home}; {START_ONE}")
        self.url = url.rstrip("/")
        self._http = Http(
            self.url, api_key or settings.api_key.get_secret_value(), timeout_s, retries, pause_s
        )
        self.files = Files(self._http)
        self.models = Models(self._http)
        self.jobs = Jobs(self._http, self.files)
        self.audit = Audit(self._http)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Files:
    """The uploaded tables."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        progress: BytesProgress | None = None,
        csv: CsvOptions = DETECTED,
    ) -> File:
        """Upload a table. The service then reads it; `wait` returns when the file is ready.

        name: name of the file on the service; its suffix is the format. Default: that of the path.
        csv: dialect of a CSV file. Default: detected.
        """
        path = Path(path)
        name = name or path.name
        if format_of(name) == "arrow":
            return self._upload_converted(path, name, progress)
        params = {"name": name} | csv.given()
        body = FileBody(path, progress)
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._http.request(
            "POST", "/v1/files", params=params, headers=headers, body=body, repeatable=False
        )
        return File.model_validate_json(answer.content)

    def _upload_converted(self, path: Path, name: str, progress: BytesProgress | None) -> File:
        """Upload an Arrow file as Parquet.

        Readers of Arrow trust the buffers of a file, so that a service takes none over HTTP.
        """
        with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
            copy = Path(folder) / f"{Path(name).stem}.parquet"
            with open_table(path) as table, open_writer(copy, schema=table.schema) as writer:
                for batch in table.batches():
                    writer.write(batch)
            file = self.upload(copy, progress=progress)
            return file.model_copy(update={"notices": list(table.notices)})

    def wait(
        self,
        file: File,
        *,
        progress: Callable[[File], None] | None = None,
        timeout_s: float | None = None,
    ) -> File:
        """Wait until a file is ready.

        Raises InvalidInput with the reason if the service rejects the file, NotReady after
        timeout_s seconds.
        """

        def settled() -> File | None:
            current = self.get(file.id)
            earlier = [notice for notice in file.notices if notice not in current.notices]
            current.notices[:0] = earlier
            if progress:
                progress(current)
            if current.state == "rejected":
                raise InvalidInput(f"{current.name}: {current.reason}")
            return current if current.state == "ready" else None

        return poll(settled, timeout_s, f"the service is still reading {file.name}; wait again")

    def get(self, file_id: str) -> File:
        """One file, by its id."""
        return self._http.view(File, "GET", f"/v1/files/{part(file_id)}")

    def list(self) -> Iterator[File]:
        """All files, the newest first."""
        return self._http.pages(File, "/v1/files")

    def delete(self, file_id: str) -> None:
        """Delete a file. Results of jobs that used it are kept."""
        self._http.delete(f"/v1/files/{part(file_id)}")


class Models:
    """Models, their versions and aliases."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def push(
        self,
        folder: str | Path,
        *,
        name: str | None = None,
        progress: BytesProgress | None = None,
        wait: bool = True,
    ) -> Version:
        """Push the artifact in a folder as the next version of a model.

        name: name of the model. Default: the name in the artifact.
        wait: whether to return only when the service has verified the version.
        """
        name = name or read_artifact(Path(folder)).manifest.name
        address = f"/v1/models/{part(name)}/versions"
        headers = {"Content-Type": "application/zip"}
        with tempfile.TemporaryDirectory(prefix="nelbo-") as temporary:
            packed = Path(temporary) / "artifact.zip"
            pack(Path(folder), packed)
            answer = self._http.request(
                "POST",
                address,
                body=FileBody(packed, progress),
                headers=headers,
                repeatable=False,
            )
        pushed = Version.model_validate_json(answer.content)
        return self.wait(pushed) if wait else pushed

    def wait(self, version: Version, *, timeout_s: float | None = None) -> Version:
        """Wait until the service has verified a pushed version.

        Raises InvalidArtifact with the reason if the service rejects the version, NotReady after
        timeout_s seconds.
        """
        label = f"{version.model}@{version.version}"

        def settled() -> Version | None:
            current = self.version(version.model, version.version)
            if current.state == "rejected":
                raise InvalidArtifact(f"{label} was rejected: {current.reason}")
            return current if current.state == "ready" else None

        return poll(settled, timeout_s, f"{label} is still being verified; wait again")

    def get(self, name: str) -> Model:
        """One model, by its name."""
        return self._http.view(Model, "GET", f"/v1/models/{part(name)}")

    def list(self) -> Iterator[Model]:
        """All models, in the order of their names."""
        return self._http.pages(Model, "/v1/models")

    def version(self, name: str, version: int | str) -> VersionDetails:
        """One version, by number or alias, with its schema and metrics."""
        return self._http.view(
            VersionDetails, "GET", f"/v1/models/{part(name)}/versions/{part(str(version))}"
        )

    def versions(self, name: str) -> Iterator[Version]:
        """All versions of a model, the newest first."""
        return self._http.pages(Version, f"/v1/models/{part(name)}/versions")

    def set_alias(self, name: str, alias: str, version: int) -> Model:
        """Set an alias to a version. The name of a model alone means the alias `champion`."""
        address = f"/v1/models/{part(name)}/aliases/{part(alias)}"
        return self._http.view(Model, "PUT", address, json={"version": version})

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a model with all its versions, or one version of it."""
        address = f"/v1/models/{part(name)}"
        self._http.delete(address if version is None else f"{address}/versions/{version}")


class Jobs:
    """The jobs: score, generate, augment, reconstruct, explain and clean.

    `model` is the name of a model, `name@2` for a version or `name@alias`. `data` is a path on this
    machine, an uploaded File, a data frame of pandas, polars or Arrow, or a list of rows as
    dictionaries. Paths and frames are uploaded first, frames as Parquet. Rows are part of the
    request; a service takes at most `max_inline_rows` of them.
    """

    def __init__(self, http: Http, files: Files) -> None:
        self._http = http
        self._files = files

    def score(
        self,
        model: str,
        data: Any,
        *,
        alpha: float = 0.01,
        fdr: float | None = None,
        explain: bool = False,
        rank: Rank = "surprise",
    ) -> "JobHandle":
        """Score each row: its negative ELBO, and the surprise that its p-value rests on.

        alpha: rows with a p-value of at most alpha are anomalies.
        fdr: bound the false discovery rate instead, so that alpha has no effect.
        explain: also return the term and the surprise of each cell.
        rank: the score that orders `JobHandle.anomalies`. The surprise finds one wrong cell in a
        row as well as rows that are odd all over; the nelbo is the bound on -log p(row) in nats.
        """
        request = checked_request(
            ScoreRequest, model=model, alpha=alpha, fdr=fdr, explain=explain, rank=rank
        )
        return self.submit(request.model_copy(update=self._source(data)))

    def generate(
        self,
        model: str,
        n: int,
        *,
        seed: int | None = None,
        where: Sequence[str] = (),
        like: Mapping[str, Any] | None = None,
        balance: str | None = None,
        weights: Mapping[str, Mapping[str, float]] | None = None,
        rarity: tuple[float, float] | None = None,
        identifiers: bool = True,
    ) -> "JobHandle":
        """Make n new rows like those of the training table, which meet all conditions.

        seed: the same seed makes the same rows. Default: a fresh one, `view.params["seed"]`.
        where: conditions, such as ["label = fraud", "age between 30 and 40"].
        like: cells that each row has, such as {"label": "fraud"}; the others are made.
        balance: a column whose categories are made equally often.
        weights: weights of one column's categories, such as {"label": {"fraud": 1, "ok": 3}}.
        rarity: percentiles such as (95, 99.9), between which the nelbo of each row is: rare but
        plausible rows, to test alarms with.
        identifiers: whether the rows have new identifiers. Otherwise they have the modelled columns
        alone.
        """
        request = checked_request(
            GenerateRequest,
            model=model,
            n=n,
            seed=seed,
            where=(where,) if isinstance(where, str) else tuple(where),
            like={name: _json_cell(cell) for name, cell in (like or {}).items()},
            balance=balance,
            weights={name: dict(shares) for name, shares in (weights or {}).items()},
            rarity=rarity,
            identifiers=identifiers,
        )
        return self.submit(request)

    def augment(
        self,
        model: str,
        data: Any,
        *,
        per_row: int = 1,
        seed: int | None = None,
        spread: float = 0.0,
        keep: Sequence[str] = (),
        balance: str | None = None,
    ) -> "JobHandle":
        """Make `per_row` new rows like each row of the data.

        seed: as for `generate`.
        spread: 0 draws near the row, 1 anywhere in the training table.
        keep: columns that each new row has from its source row.
        balance: a column whose categories get as many new rows, instead of `per_row` of each row,
        that each has as many as the most frequent one, the rows of the data included.
        """
        request = checked_request(
            AugmentRequest,
            model=model,
            per_row=per_row,
            seed=seed,
            spread=spread,
            keep=keep,
            balance=balance,
        )
        return self.submit(request.model_copy(update=self._source(data)))

    def reconstruct(
        self,
        model: str,
        data: Any,
        *,
        mode: bool = False,
        denoise: bool = False,
        seed: int | None = None,
        columns: Sequence[str] = (),
        leave_usual: bool = False,
    ) -> "JobHandle":
        """Fill the missing cells of each row.

        mode: fill in the most likely value instead of a random draw.
        denoise: also replace the values of cells that are not missing.
        seed: as for `generate`.
        columns: columns that are filled. Default: every column.
        leave_usual: leave cells missing that are usually missing in rows like theirs.
        """
        request = checked_request(
            ReconstructRequest,
            model=model,
            mode=mode,
            denoise=denoise,
            seed=seed,
            columns=columns,
            leave_usual=leave_usual,
        )
        return self.submit(request.model_copy(update=self._source(data)))

    def explain(
        self,
        model: str,
        data: Any,
        *,
        top: int = 10,
        rows: Collection[int] = (),
        columns: int = 3,
        rank: Rank = "surprise",
        repair: bool = False,
        seed: int = 0,
    ) -> "JobHandle":
        """Find the cells that make rows odd, and what they should be.

        The results have a row for each cell, the oddest row of the data first.

        top: number of rows to explain, least likely first (ignored with `rows`).
        rows: the numbers of the rows to explain; the first is 0.
        columns: maximum number of cells of each row.
        rank: the score by which rows are ordered, as for `score`.
        repair: give the fewest cells to change so that each row is ordinary, with their new values,
        and the scores of the row before and after.
        """
        request = checked_request(
            ExplainRequest,
            model=model,
            top=top,
            row_numbers=tuple(rows),
            columns=columns,
            rank=rank,
            repair=repair,
            seed=seed,
        )
        return self.submit(request.model_copy(update=self._source(data)))

    def clean(
        self, data: Any, *, alpha: float = 0.05, quick: bool = False, seed: int = 0
    ) -> "JobHandle":
        """Find the wrong cells of a table, with no model before it.

        The results have a row for each suspicious cell, the oddest row of the table first.

        alpha: largest p-value of the rows that are listed.
        quick: take less than half the time, and find less.
        """
        request = checked_request(CleanRequest, alpha=alpha, quick=quick, seed=seed)
        return self.submit(request.model_copy(update=self._source(data)))

    def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> "JobHandle":
        """Submit a job.

        If the answer is lost, the request is sent again under the same idempotency key, so that
        there is one job only.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        answer = self._http.request(
            "POST", "/v1/jobs", json=request.model_dump(mode="json"), headers=headers
        )
        return self._job(answer)

    def get(self, job_id: str) -> "JobHandle":
        """One job, by its id."""
        return self._job(self._http.request("GET", f"/v1/jobs/{part(job_id)}"))

    def list(self, *, state: str | None = None, kind: str | None = None) -> Iterator["JobHandle"]:
        """All jobs, the newest first."""
        filters = {name: value for name, value in (("state", state), ("kind", kind)) if value}
        return (JobHandle(self._http, view) for view in self._http.pages(Job, "/v1/jobs", filters))

    def cancel(self, job_id: str) -> "JobHandle":
        """Cancel a job. A running chunk stops after its current batch of rows."""
        return self._job(self._http.request("POST", f"/v1/jobs/{part(job_id)}:cancel"))

    def retry(self, job_id: str) -> "JobHandle":
        """Queue a failed or cancelled job again. Finished chunks are not computed again."""
        return self._job(
            self._http.request("POST", f"/v1/jobs/{part(job_id)}:retry", repeatable=False)
        )

    def delete(self, job_id: str) -> None:
        """Delete a job with its results and errors."""
        self._http.delete(f"/v1/jobs/{part(job_id)}")

    def _job(self, answer: httpx2.Response) -> "JobHandle":
        return JobHandle(self._http, Job.model_validate_json(answer.content))

    def _source(self, data: Any) -> dict[str, Any]:
        """The `file` or the `rows` of a request."""
        if isinstance(data, File):
            return {"file": data.id}
        if isinstance(data, str | Path):
            return {"file": self._files.wait(self._files.upload(data)).id}
        if _is_rows(data):
            rows = [{name: _json_cell(cell) for name, cell in row.items()} for row in data]
            return {"rows": rows}
        return {"file": self._uploaded(_as_table(data)).id}

    def _uploaded(self, table: pa.Table) -> File:
        with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
            path = Path(folder) / "table.parquet"
            try:
                pa.parquet.write_table(table, path)
            except pa.ArrowNotImplementedError:  # types that Parquet does not have
                path = path.with_suffix(".arrows")
                with pa.ipc.new_stream(str(path), table.schema) as writer:
                    writer.write_table(table)
            return self._files.wait(self._files.upload(path))


class Audit:
    """The audit of changes and deletions. It needs a key with the scope `admin`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self, *, owner: str | None = None) -> Iterator[Change]:
        """The changes of all owners, or of one owner, the newest first."""
        return self._http.pages(Change, "/v1/audit", {"owner": owner} if owner else None)


class JobHandle:
    """A job on the service. `view` is its state as of the last request."""

    def __init__(self, http: Http, view: Job) -> None:
        self._http = http
        self.view = view

    def __repr__(self) -> str:
        done = f"{self.view.progress.rows_done:,} of {self.view.progress.rows:,} rows"
        return f"Job({self.id}, {self.view.kind}, {self.state}, {done})"

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def state(self) -> str:
        return self.view.state

    @property
    def finished(self) -> bool:
        return self.view.state in FINAL

    def refresh(self) -> Self:
        """Fetch the current state of the job."""
        return self._refresh(wait_s=0)

    def _refresh(self, wait_s: int) -> Self:
        """Fetch the state of the job when it has ended, after `wait_s` seconds at most."""
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else None
        self.view = self._http.view(Job, "GET", self._address, headers=headers)
        return self

    def wait(
        self, *, progress: Callable[[Job], None] | None = None, timeout_s: float | None = None
    ) -> Self:
        """Wait until the job has succeeded.

        Raises JobFailed if it failed or was cancelled, NotReady after timeout_s seconds.
        """

        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        wait_s = PROGRESS_S if progress else WAIT_S

        def settled() -> bool | None:
            self._refresh(int(min(wait_s, max(0.0, deadline - time.monotonic()))))
            if progress:
                progress(self.view)
            return self.finished or None

        poll(settled, timeout_s, f"job {self.id} is still {self.state}; wait again")
        if self.state != "succeeded":
            raise JobFailed(self.view.problem or f"job {self.id} was {self.state}")
        return self

    def cancel(self) -> Self:
        """Cancel the job."""
        self.view = self._http.view(Job, "POST", f"{self._address}:cancel")
        return self

    def results(self, format: ResultFormat | None = None, *, safe_csv: bool = False) -> "Results":
        """The results of a job that has succeeded, in row order.

        format: format of `save`. Default: by the suffix of the file.
        safe_csv: put an apostrophe before CSV cells that a spreadsheet would run as formulas.
        """
        return Results(self._http, f"{self._address}/results", format, safe_csv)

    def errors(self) -> Iterator[RowError]:
        """The rows that could not be done, in row order, each with the reason."""
        return self._http.pages(RowError, f"{self._address}/errors")

    def anomalies(self, limit: int = 100) -> list[Anomaly]:
        """The least likely rows of a score job, in the order of its rank.

        Each has the term and the surprise of each cell; the most surprising cell is the first of
        `surprises`.
        """
        answer = self._http.request("GET", f"{self._address}/anomalies", params={"limit": limit})
        return [Anomaly.model_validate(entry) for entry in answer.json()["items"]]

    @property
    def _address(self) -> str:
        return f"/v1/jobs/{part(self.id)}"


class Results:
    """The results of a job: as a table in memory, or as a file in one of four formats."""

    def __init__(
        self, http: Http, address: str, format: ResultFormat | None, safe_csv: bool = False
    ) -> None:
        self._http = http
        self._address = address
        self._format = format
        self._safe_csv = safe_csv

    def to_arrow(self) -> pa.Table:
        """All rows as a typed table in memory."""
        with tempfile.TemporaryFile(prefix="nelbo-") as copy:
            self._http.download(self._address, copy, params={"format": "arrow"})
            copy.seek(0)
            with pa.ipc.open_stream(copy) as reader:
                return reader.read_all()

    def to_pandas(self) -> "pd.DataFrame":
        """All rows as a data frame; needs pandas."""
        return self.to_arrow().to_pandas()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, batch by batch as they arrive, at constant memory."""
        with (
            self._http.incoming(self._address, params={"format": "arrow"}) as content,
            pa.ipc.open_stream(content) as reader,
        ):
            yield from reader

    def save(self, path: str | Path) -> Path:
        """Write all rows to a file, which appears when it is complete.

        Without a `format`, the suffix decides. A suffix .gz or .zst compresses the file. For links,
        pipes, devices and "-" see `nelbo.files.open_target`.
        """
        params = {"format": self._format or format_of(path), "safe": str(self._safe_csv).lower()}
        compression = compression_of(path)
        with open_target(path) as target:
            if str(path) != "-" and target.seekable() and compression is None:
                self._http.download(self._address, target, params=params)
            else:
                with tempfile.TemporaryFile(prefix="nelbo-") as copy:
                    self._http.download(self._address, copy, params=params)
                    copy.seek(0)
                    with compressing(target, compression) as stream:
                        shutil.copyfileobj(copy, stream)
        return Path(path)


def _is_rows(data: Any) -> bool:
    return isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data)


def _as_table(data: Any) -> pa.Table:
    if isinstance(data, pa.RecordBatch) or is_frame(data):
        return to_arrow(data)
    raise InvalidInput(
        f"{type(data).__name__} is not a table;"
        " pass a path, a File, a data frame of pandas, polars or Arrow, or a list of rows"
    )


def _json_cell(cell: Any) -> Any:
    """A cell as a JSON value.

    Dates become ISO 8601 and NaN becomes null. An infinity becomes text, which the service reports
    as an error of the row.
    """
    if hasattr(cell, "item"):
        cell = cell.item()  # a NumPy scalar
    if cell is None or cell != cell:
        return None  # NaN and pandas' NaT differ from themselves
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    exact = isinstance(cell, bool | int | str) or (isinstance(cell, float) and math.isfinite(cell))
    return cell if exact else str(cell)
