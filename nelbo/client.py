"""The HTTP client: files, models and jobs of a Nelbo service, with the errors of `nelbo.errors`.

with nelbo.Client() as client:
    job = client.jobs.score("adult", "adult-test.parquet").wait()
    print(job.anomalies(10))
    job.results().save("scores.parquet")
"""

import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import httpx2
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from pydantic import BaseModel, ValidationError

from nelbo.artifact import read_artifact
from nelbo.errors import InvalidInput, InvalidRequest, JobFailed, Unavailable, problem_types
from nelbo.files import DETECTED, CsvOptions, format_of, open_table, open_target, open_writer
from nelbo.files.compression import compressing
from nelbo.files.formats import compression_of
from nelbo.home import running_up
from nelbo.jobs import (
    FINAL,
    AugmentRequest,
    GenerateRequest,
    ReconstructRequest,
    ScoreRequest,
)
from nelbo.packing import pack
from nelbo.rows import Anomaly, RowError
from nelbo.settings import Settings
from nelbo.transport import START_ONE, BytesProgress, FileBody, Http, part, poll
from nelbo.views import Change, File, Job, Model, Version, VersionDetails

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Mapping[str, Any]]
ResultFormat = Literal["parquet", "arrow", "csv", "jsonl"]
Request = ScoreRequest | GenerateRequest | AugmentRequest | ReconstructRequest
_Request = TypeVar("_Request", bound=BaseModel)


def find_url(settings: Settings) -> str | None:
    """The service's address: NELBO_URL, or that of a `nelbo up` on the data folder; None where
    there is none."""
    if settings.url:
        return settings.url
    up = running_up(settings.home)
    return None if up is None else up.url


class Client:
    """A connection to a Nelbo service; close it, or use it in a `with`.

    `url` and `api_key` default to NELBO_URL (or a running `nelbo up`) and NELBO_API_KEY.
    `timeout_s` bounds each wait on the network; requests that can be repeated are, `retries` times
    with growing pauses from `pause_s` on, or as long as the service asks for. Raises the errors of
    `nelbo.errors`, Unavailable where no service answers.
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
    """Tables that were uploaded."""

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
        """Upload a table and return while the service reads it; `wait` returns when it is ready.

        csv: how a CSV file is written, detected unless given.
        """
        path = Path(path)
        name = name or path.name
        if format_of(name) == "arrow":
            return self._upload_converted(path, name, progress)
        params = {"name": name} | csv.given()
        body = FileBody(path, progress)
        headers = {"Content-Type": "application/octet-stream"}
        sent = self._http.request(
            "POST", "/v1/files", params=params, headers=headers, body=body, repeatable=False
        )
        return File.model_validate_json(sent.content)

    def _upload_converted(self, path: Path, name: str, progress: BytesProgress | None) -> File:
        """An Arrow file as Parquet: over HTTP a service takes no buffers that it would have to
        trust."""
        with tempfile.TemporaryDirectory(prefix="nelbo-") as folder:
            copy = Path(folder) / f"{Path(name).stem}.parquet"
            with open_table(path) as table, open_writer(copy, schema=table.schema) as writer:
                for batch in table.batches():
                    writer.write(batch)
            sent = self.upload(copy, progress=progress)
            return sent.model_copy(update={"notices": list(table.notices)})

    def wait(
        self,
        file: File,
        *,
        progress: Callable[[File], None] | None = None,
        timeout_s: float | None = None,
    ) -> File:
        """Wait until a file is ready. Raises InvalidInput with the reason where the service rejects
        it."""

        def settled() -> File | None:
            found = self.get(file.id)
            found.notices[:0] = [notice for notice in file.notices if notice not in found.notices]
            if progress:
                progress(found)
            if found.state == "rejected":
                raise InvalidInput(f"{found.name}: {found.reason}")
            return found if found.state == "ready" else None

        return poll(
            settled, timeout_s, f"the service still reads {file.name}; it goes on, wait again"
        )

    def get(self, file_id: str) -> File:
        return self._http.view(File, "GET", f"/v1/files/{part(file_id)}")

    def list(self) -> Iterator[File]:
        """All files, the newest first."""
        return self._http.pages(File, "/v1/files")

    def delete(self, file_id: str) -> None:
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
        """Push the artifact in a folder as the next version of a model (by default the name in its
        manifest)."""
        name = name or read_artifact(Path(folder)).manifest.name
        address = f"/v1/models/{part(name)}/versions"
        headers = {"Content-Type": "application/zip"}
        with tempfile.TemporaryDirectory(prefix="nelbo-") as temporary:
            packed = Path(temporary) / "artifact.zip"
            pack(Path(folder), packed)
            body = FileBody(packed, progress)
            sent = self._http.request("POST", address, body=body, headers=headers, repeatable=False)
        pushed = Version.model_validate_json(sent.content)
        return self.wait(pushed) if wait else pushed

    def wait(self, version: Version, *, timeout_s: float | None = None) -> Version:
        """Wait until a pushed version is verified. Raises InvalidArtifact where the service rejects
        it."""

        def settled() -> Version | None:
            found = self.version(version.model, version.version)
            if found.state == "rejected":
                raise problem_types()["invalid-artifact"](
                    f"{found.model}@{found.version} was rejected: {found.reason}"
                )
            return found if found.state == "ready" else None

        return poll(
            settled,
            timeout_s,
            f"{version.model}@{version.version} is still being verified; wait again",
        )

    def get(self, name: str) -> Model:
        return self._http.view(Model, "GET", f"/v1/models/{part(name)}")

    def list(self) -> Iterator[Model]:
        """All models by name."""
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
        """Point an alias at a version; `champion` is what the plain name means."""
        address = f"/v1/models/{part(name)}/aliases/{part(alias)}"
        return self._http.view(Model, "PUT", address, json={"version": version})

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a model, or one version of it."""
        address = f"/v1/models/{part(name)}"
        self._http.delete(address if version is None else f"{address}/versions/{version}")


class Jobs:
    """Jobs: score, generate, augment and reconstruct.

    `data` is a path on this machine, an uploaded File, a pyarrow table, a pandas data frame, or
    rows as dictionaries (at most the service's `max_inline_rows`); a path or a table is uploaded
    first.
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
    ) -> "JobHandle":
        """Score each row by its negative ELBO."""
        request = _checked(ScoreRequest, model=model, alpha=alpha, fdr=fdr, explain=explain)
        return self.submit(request.model_copy(update=self._given(data)))

    def generate(self, model: str, n: int, *, seed: int = 0) -> "JobHandle":
        """Make n new rows."""
        return self.submit(_checked(GenerateRequest, model=model, n=n, seed=seed))

    def augment(
        self, model: str, data: Any, *, per_row: int = 1, seed: int = 0, spread: float = 0.0
    ) -> "JobHandle":
        """Make per_row rows like each given one: near to it at spread 0, anywhere in the table at
        1."""
        request = _checked(AugmentRequest, model=model, per_row=per_row, seed=seed, spread=spread)
        return self.submit(request.model_copy(update=self._given(data)))

    def reconstruct(
        self, model: str, data: Any, *, mode: bool = False, denoise: bool = False, seed: int = 0
    ) -> "JobHandle":
        """Fill the missing cells of each row."""
        request = _checked(ReconstructRequest, model=model, mode=mode, denoise=denoise, seed=seed)
        return self.submit(request.model_copy(update=self._given(data)))

    def submit(self, request: Request, *, idempotency_key: str | None = None) -> "JobHandle":
        """Submit a job; a lost answer is asked for again under the same key, so that one job is
        made."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        sent = self._http.request(
            "POST", "/v1/jobs", json=request.model_dump(mode="json"), headers=headers
        )
        return self._job(sent)

    def get(self, job_id: str) -> "JobHandle":
        return self._job(self._http.request("GET", f"/v1/jobs/{part(job_id)}"))

    def list(self, *, state: str | None = None, kind: str | None = None) -> Iterator["JobHandle"]:
        """All jobs, the newest first."""
        filters = {name: value for name, value in (("state", state), ("kind", kind)) if value}
        return (JobHandle(self._http, view) for view in self._http.pages(Job, "/v1/jobs", filters))

    def cancel(self, job_id: str) -> "JobHandle":
        """Ask a job to stop; a chunk that runs stops between two batches."""
        return self._job(self._http.request("POST", f"/v1/jobs/{part(job_id)}:cancel"))

    def retry(self, job_id: str) -> "JobHandle":
        """Queue a failed or cancelled job again; what is done stays done."""
        return self._job(
            self._http.request("POST", f"/v1/jobs/{part(job_id)}:retry", repeatable=False)
        )

    def delete(self, job_id: str) -> None:
        self._http.delete(f"/v1/jobs/{part(job_id)}")

    def _job(self, sent: httpx2.Response) -> "JobHandle":
        return JobHandle(self._http, Job.model_validate_json(sent.content))

    def _given(self, data: Any) -> dict[str, Any]:
        """The request's `file` or `rows`."""
        if isinstance(data, File):
            return {"file": data.id}
        if isinstance(data, str | Path):
            return {"file": self._files.wait(self._files.upload(data)).id}
        if _is_rows(data):
            return {
                "rows": [{name: _json_cell(cell) for name, cell in row.items()} for row in data]
            }
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
    """Who changed and deleted what; for keys of the scope `admin`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self, *, owner: str | None = None) -> Iterator[Change]:
        """Changes of all owners or of one, the newest first."""
        return self._http.pages(Change, "/v1/audit", {"owner": owner} if owner else None)


class JobHandle:
    """A job on the service: what was last seen of it (`view`), and what can be asked of it."""

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
        """Look again."""
        self.view = self._http.view(Job, "GET", self._address)
        return self

    def wait(
        self, *, progress: Callable[[Job], None] | None = None, timeout_s: float | None = None
    ) -> Self:
        """Wait until the job has succeeded. Raises JobFailed where it failed or was cancelled."""

        def settled() -> bool | None:
            self.refresh()
            if progress:
                progress(self.view)
            return self.finished or None

        poll(settled, timeout_s, f"job {self.id} is not finished yet; it goes on, wait again")
        if self.state != "succeeded":
            raise JobFailed(
                f"job {self.id} was {self.state}"
                if self.view.problem is None
                else self.view.problem
            )
        return self

    def cancel(self) -> Self:
        """Ask the job to stop."""
        self.view = self._http.view(Job, "POST", f"{self._address}:cancel")
        return self

    def results(self, format: ResultFormat | None = None, *, safe_csv: bool = False) -> "Results":
        """The results of a job that has succeeded, in row order.

        safe_csv: for people who open CSV in a spreadsheet: what it would take for a formula begins
        with an apostrophe.
        """
        return Results(self._http, f"{self._address}/results", format, safe_csv)

    def errors(self) -> Iterator[RowError]:
        """The rows that could not be done, in row order."""
        return self._http.pages(RowError, f"{self._address}/errors")

    def anomalies(self, limit: int = 100) -> list[Anomaly]:
        """The least likely rows of a score job, the least likely first, with each column's term."""
        found = self._http.request("GET", f"{self._address}/anomalies", params={"limit": limit})
        return [Anomaly.model_validate(entry) for entry in found.json()["items"]]

    @property
    def _address(self) -> str:
        return f"/v1/jobs/{part(self.id)}"


class Results:
    """The results of a job: as a table here, or as a file in any of the four formats."""

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
        """The rows batch by batch, at constant memory, straight from the service."""
        with (
            self._http.incoming(self._address, params={"format": "arrow"}) as content,
            pa.ipc.open_stream(content) as reader,
        ):
            yield from reader

    def save(self, path: str | Path) -> Path:
        """Write all rows to a file, in the format given or that of the suffix; the file appears
        when it is whole.

        A suffix .gz or .zst compresses it. Links, pipes, devices and "-" are as
        `nelbo.files.open_target` says.
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


def _checked(request: Callable[..., _Request], **fields: Any) -> _Request:
    """A request, or InvalidRequest that names what is wrong with it."""
    try:
        return request(**fields)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise InvalidRequest(
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        ) from None


def _is_rows(data: Any) -> bool:
    return isinstance(data, Sequence) and all(isinstance(row, Mapping) for row in data)


def _as_table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if type(data).__module__.startswith("pandas."):
        return pa.Table.from_pandas(data, preserve_index=False)
    raise InvalidInput(
        f"{type(data).__name__} is not a table: give a path, a File, an Arrow table, a data frame"
        " or rows"
    )


def _json_cell(cell: Any) -> Any:
    """A cell as JSON: dates as ISO 8601, NaN as null, infinities as text that becomes an error of
    its row."""
    if hasattr(cell, "item"):
        cell = cell.item()  # a NumPy scalar
    if cell is None or cell != cell:
        return None  # NaN and pandas' NaT differ from themselves
    if isinstance(cell, datetime | date):
        return cell.isoformat()
    exact = isinstance(cell, bool | int | str) or (isinstance(cell, float) and math.isfinite(cell))
    return cell if exact else str(cell)
