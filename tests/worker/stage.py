"""What a worker works on: a real database, a real storage folder, a small real artifact; and a
process of the worker."""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from nelbo.artifact import Artifact, read_artifact
from nelbo.files import open_table, open_writer, part_name, read_into_parts
from nelbo.ids import new_id
from nelbo.jobs import JobRequest
from nelbo.settings import Settings
from nelbo.storage import Storage, artifact_key, open_storage, part_key, upload_key
from nelbo.store import catalog, files, ledger, lookup, results
from nelbo.store.catalog import VersionEntry
from nelbo.store.claims import ReadOutcome
from nelbo.store.files import FileEntry
from nelbo.store.session import Database, connect
from nelbo.views import Job
from tests.artifacts import COLOURS, linear_artifact, packed, sample
from worker import process, runner

OWNER = "local"


@dataclass
class Stage:
    """`hints` are the jobs that a process of `process()` passed on."""

    folder: Path
    database_url: str
    broker_url: str = ""
    hints: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings(
            home=self.folder / "home",
            database_url=SecretStr(self.database_url),
            **{"broker_url": SecretStr(self.broker_url), **self.options},
        )
        self.database: Database = connect(self.database_url)
        self.storage: Storage = open_storage(self.settings.storage)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.dispose()

    def with_options(self, **options: Any) -> "Stage":
        """The same with other settings."""
        other = replace(self, options=options)
        other.database = self.database
        return other

    def process(self) -> process.Process:
        return replace(process.make(self.settings, self.hints.append), database=self.database)

    def work(self) -> None:
        """Do all that is due, in this process."""
        runner.work(self.process(), slice_s=600.0)

    def state_after_work(self, job_id: str) -> str:
        self.work()
        return self.job(job_id).state

    def version(
        self, name: str = "linear", make: Callable[[Path], Path] | None = None, owner: str = OWNER
    ) -> VersionEntry:
        """A ready version; `make` writes another artifact than the linear one into a folder."""
        place, version_id = self._stored(make(self.folder / name)) if make else self._artifact(name)
        return catalog.add_version(
            self.database,
            owner,
            name,
            place.manifest.model_dump(mode="json"),
            place.digest,
            version_id=version_id,
        )

    def pushed(self, content: bytes, name: str = "linear") -> VersionEntry:
        """A pending version whose artifact is `content`, with the job that verifies it."""
        version_id = new_id()
        self.storage.put(artifact_key(version_id), content)
        ledger.submit_version(self.database, OWNER, name, version_id=version_id)
        return catalog.version_of(self.database, version_id)

    def packed(self) -> bytes:
        return packed(linear_artifact(self.folder / "artifact"))

    def uploaded(self, content: bytes, name: str = "table.csv") -> str:
        """The id of a file that is being read."""
        entry = files.add_file(self.database, OWNER, name, Path(name).suffix[1:])
        self.storage.put(upload_key(entry.id), content)
        ledger.submit_file(self.database, OWNER, entry.id, len(content))
        return entry.id

    def file(self, table: pa.Table) -> FileEntry:
        """A ready file, read in this process, which is quicker than a worker's child; nothing else
        may be due."""
        file_id = self.uploaded(as_csv(table))
        claim = ledger.claim(self.database, "stage", lease_s=600.0)
        assert claim is not None
        assert claim.file_id == file_id
        with tempfile.TemporaryDirectory() as folder:
            found = read_into_parts(open_table(io.BytesIO(as_csv(table)), "csv"), Path(folder))
            for number in range(found.parts):
                self.storage.put(part_key(file_id, number), Path(folder) / part_name(number))
        columns = [column.model_dump(mode="json") for column in found.columns]
        assert ledger.commit(self.database, claim, ReadOutcome(found.rows, found.digest, columns))
        return files.get_file(self.database, OWNER, file_id)

    def submit(
        self,
        request: JobRequest,
        version: VersionEntry | None,
        rows: int,
        chunk_rows: int = 50,
        **given: Any,
    ) -> Job:
        version_id = None if version is None else version.id
        options = {"version_id": version_id, "rows": rows, "chunk_rows": chunk_rows, **given}
        return ledger.submit(self.database, OWNER, request, **options)[0]

    def job(self, job_id: str) -> Job:
        return lookup.get_job(self.database, OWNER, job_id)

    def scores(self, job_id: str, explain: bool = False) -> pa.Table:
        return pa.Table.from_batches(results.scores(self.database, job_id, explain=explain))

    def made(self, job_id: str) -> pa.Table:
        return pa.Table.from_batches(results.tables(self.database, job_id))

    def _artifact(self, name: str) -> tuple[Artifact, str]:
        return self._stored(linear_artifact(self.folder / "artifact", name))

    def _stored(self, folder: Path) -> tuple[Artifact, str]:
        """The artifact and the id under which it is stored."""
        artifact, version_id = read_artifact(folder), new_id()
        self.storage.put(artifact_key(version_id), packed(artifact.folder))
        return artifact, version_id


def table(rows: int, seed: int = 7) -> pa.Table:
    """Rows drawn from the linear model, with ids."""
    numbers, codes = sample(rows, seed)
    names = np.array(list(COLOURS)[:3])
    return pa.table(
        {
            "id": [f"row {i}" for i in range(rows)],
            "length": pa.array(numbers[:, 0]),
            "colour": pa.array(names[codes[:, 0]]),
            "width": pa.array(numbers[:, 1]),
            "weight": pa.array(numbers[:, 2]),
        }
    )


def as_csv(given: pa.Table) -> bytes:
    content = io.BytesIO()
    with open_writer(content, "csv") as writer:
        for batch in given.to_batches():
            writer.write(batch)
    return content.getvalue()
