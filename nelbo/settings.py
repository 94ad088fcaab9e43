"""Settings of a process, from NELBO_* environment variables and from files that hold secrets."""

import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from nelbo.errors import InvalidInput
from nelbo.home import DATABASE, STORAGE
from nelbo.utf8 import read_text

PREFIX = "NELBO_"


class Settings(BaseSettings):
    """All settings. A process reads them once, when it starts.

    The environment variable of a field is NELBO_<NAME>. NELBO_<NAME>_FILE may name a file that
    holds the value instead.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    home: Annotated[
        Path, Field(description="data folder: database, uploads, artifacts, caches and logs")
    ] = Path("~/.local/share/nelbo").expanduser()
    url: Annotated[
        str,
        Field(
            description="address of the service that the client and the commands use;"
            " empty: that of a running `nelbo up`, if there is one"
        ),
    ] = ""
    api_key: Annotated[
        SecretStr, Field(description="API key that the client and the commands send")
    ] = SecretStr("")
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="keys file of an older Nelbo;"
            " a new deployment needs none,"
            " as `nelbo keys create` stores keys in the database"
        ),
    ] = None
    require_keys: Annotated[
        bool,
        Field(
            description="refuse requests without a key (401) even before the first key is"
            " created; from then on they are always refused"
        ),
    ] = False
    max_wrong_keys: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of requests with a wrong key per client address"
            " and minute; further ones are refused (429) until the minute is"
            " over",
        ),
    ] = 20
    trusted_proxies: Annotated[
        str,
        Field(
            description="addresses of the proxies whose X-Forwarded-For header is believed,"
            " separated by commas; `*`: any address"
        ),
    ] = ""
    hosts: Annotated[
        str,
        Field(
            description="further host names of the service, separated by commas;"
            " while no key is needed, requests for any other name are refused (403)"
        ),
    ] = ""
    open_to_all: Annotated[
        bool,
        Field(
            description="listen beyond this machine without keys:"
            " everyone who reaches the port may read and change everything"
        ),
    ] = False
    database_url: Annotated[
        SecretStr,
        Field(
            description="URL of a SQLite or PostgreSQL database;"
            " empty: a SQLite file in the data folder"
        ),
    ] = SecretStr("")
    broker_url: Annotated[
        SecretStr,
        Field(
            description="URL of Redis or Valkey, which carries hints only;"
            " empty: no broker, and jobs start some seconds later (`nelbo up`"
            " then starts a broker of its own)"
        ),
    ] = SecretStr("")
    storage_url: Annotated[
        str,
        Field(
            description="folder or s3:// URL for uploads and artifacts;"
            " empty: a folder in the data folder"
        ),
    ] = ""

    max_columns: Annotated[
        int,
        Field(
            gt=0,
            le=10_000,
            description="maximum number of columns of a table; wider tables are refused",
        ),
    ] = 2_000
    max_upload_bytes: Annotated[
        int,
        Field(
            gt=0,
            description="maximum size in bytes of an upload,"
            " and of a compressed table when it is unpacked;"
            " larger ones are refused",
        ),
    ] = 10 * 2**30
    max_uploads: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of uploads and pushes that are received at once;"
            " further ones are refused (503)",
        ),
    ] = 16
    max_uploads_of_owner: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of uploads and pushes per owner that are received"
            " at once; further ones are refused (429)",
        ),
    ] = 8
    max_waiting: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of requests that wait for their job (Prefer:"
            " wait) at once; further ones are refused (503)",
        ),
    ] = 400
    max_waiting_of_owner: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of requests per owner that wait for their job at"
            " once; further ones are refused (429)",
        ),
    ] = 100
    max_downloads: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of results that are sent at once;"
            " further downloads are refused (503)",
        ),
    ] = 8
    max_downloads_of_owner: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of results per owner that are sent at once;"
            " further downloads are refused (429)",
        ),
    ] = 4
    max_unread: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of uploads and pushes per owner that are not yet"
            " read or verified; further ones are refused (429)",
        ),
    ] = 50
    max_stored_bytes: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of bytes per owner that are stored:"
            " uploads and artifacts as they were sent, inline rows, results;"
            " what would exceed it is refused (413)",
        ),
    ] = 100 * 2**30
    max_inline_rows: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows in the body of a request; more are refused (413)",
        ),
    ] = 1_000
    max_job_rows: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows that one job may score or make;"
            " larger jobs are refused (413)",
        ),
    ] = 100_000_000
    chunk_rows: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows per chunk, the unit of work, lease and commit;"
            " small jobs, wide tables and slow models get smaller chunks",
        ),
    ] = 50_000
    max_queued_rows: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows per owner that may be queued or running;"
            " further jobs are refused (429)",
        ),
    ] = 200_000_000
    max_queued_rows_in_all: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows, over all owners,"
            " that may be queued or running; further jobs are refused (503)",
        ),
    ] = 1_000_000_000
    max_unfinished_jobs: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of unfinished jobs per owner;"
            " further jobs are refused (429)",
        ),
    ] = 1_000
    max_queue_s: Annotated[
        float,
        Field(
            gt=0,
            description="maximum age in seconds of the oldest job that no worker has begun;"
            " while a job is older, further jobs are refused (503)",
        ),
    ] = 3_600.0
    min_free_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="minimum free disk space in bytes;"
            " while there is less, uploads and jobs are refused (503)",
        ),
    ] = 512 * 2**20
    database_max_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="maximum size in bytes of a PostgreSQL database;"
            " uploads and jobs are refused (503) when less than min_free_bytes"
            " of it is free; 0: the size is not checked",
        ),
    ] = 0
    keep_results_days: Annotated[
        float,
        Field(
            ge=0,
            description="number of days for which a job and its results are kept after its"
            " end; then they are deleted; 0: for ever",
        ),
    ] = 0.0
    keep_deleted_days: Annotated[
        float,
        Field(
            ge=0,
            description="number of days after which the record of a deleted job,"
            " or of a deleted or rejected file, is removed; 0: never",
        ),
    ] = 30.0
    read_memory_mib: Annotated[
        int,
        Field(
            gt=0,
            description="memory limit in MiB of the process that reads an upload;"
            " a table that needs more is rejected",
        ),
    ] = 2_048
    model_memory_mib: Annotated[
        int,
        Field(
            gt=0,
            description="memory limit in MiB of a model's process,"
            " beside the model's weights; a model that needs more is stopped",
        ),
    ] = 2_048
    model_batch_s: Annotated[
        float,
        Field(
            gt=0,
            description="maximum time in seconds for one batch of rows;"
            " a model that takes longer is stopped",
        ),
    ] = 30.0
    model_chunk_s: Annotated[
        float,
        Field(
            gt=0,
            description="maximum time in seconds for one chunk of rows;"
            " a model that takes longer is stopped",
        ),
    ] = 600.0
    clean_s: Annotated[
        float,
        Field(
            gt=0,
            le=43_200,  # temporary folders that are older than a day are removed
            description="maximum time in seconds for cleaning one table;"
            " a job that takes longer fails",
        ),
    ] = 14_400.0
    worker_memory_mib: Annotated[
        int,
        Field(
            gt=0,
            description="memory limit in MiB of each process of a worker, and of one that cleans"
            " a table; the processes of models and of readers have limits of their own",
        ),
    ] = 4_096

    lease_s: Annotated[
        float,
        Field(
            gt=0,
            description="number of seconds for which a claimed chunk belongs to its worker;"
            " without a renewal, another worker may claim it then",
        ),
    ] = 9.0
    renew_s: Annotated[
        float,
        Field(
            gt=0,
            description="number of seconds between two renewals of a lease;"
            " at most half of lease_s",
        ),
    ] = 1.5
    sweep_s: Annotated[
        float,
        Field(
            gt=0,
            description="number of seconds between two rounds of the dispatcher,"
            " which frees the chunks of expired leases and sends missing hints",
        ),
    ] = 2.0
    max_attempts: Annotated[
        int,
        Field(
            gt=0, description="number of transient failures of one chunk after which its job fails"
        ),
    ] = 5
    worker_processes: Annotated[
        int, Field(gt=0, description="number of chunks that one worker computes at the same time")
    ] = 2
    log_level: Annotated[
        str, Field(description="lowest level that is logged: DEBUG, INFO, WARNING or ERROR")
    ] = "INFO"

    @model_validator(mode="after")
    def _a_lease_outlives_its_renewal(self) -> Self:
        if self.renew_s * 2 > self.lease_s:
            raise ValueError(
                f"renew_s ({self.renew_s}) must be at most half of lease_s ({self.lease_s})"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _ValueFiles(settings_cls)

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / DATABASE}"

    @property
    def sqlite_file(self) -> Path | None:
        """The file of a SQLite database; None if the database is a server."""
        scheme, separator, path = self.database.partition(":///")
        return Path(path) if separator and scheme == "sqlite" else None

    @property
    def storage(self) -> str:
        """The URL of the storage."""
        return self.storage_url or (self.home / STORAGE).as_uri()

    @property
    def broker(self) -> str:
        """The URL of the broker; empty if there is none."""
        return self.broker_url.get_secret_value()


def read_settings() -> Settings:
    """The settings of this process.

    Raises InvalidInput, which names the first variable with a wrong value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        names = " and ".join(variable(str(part)) for part in first["loc"]) or "the settings"
        raise InvalidInput(f"{names}: {first['msg']}") from error


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


class _ValueFiles(PydanticBaseSettingsSource):
    """The values that NELBO_<NAME>_FILE variables point to.

    Files are for secrets: `docker inspect` and /proc show the value of an environment variable.
    """

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        path = os.environ.get(f"{variable(field_name)}_FILE")
        if not path:
            return None, field_name, False
        if variable(field_name) in os.environ:
            raise InvalidInput(
                f"{variable(field_name)} and {variable(field_name)}_FILE are both set;"
                " keep one of them"
            )
        try:
            return read_text(Path(path)).strip(), field_name, False
        except (OSError, InvalidInput) as error:
            raise InvalidInput(
                f"{variable(field_name)}_FILE names {path}, which cannot be read: {error}"
            ) from error
