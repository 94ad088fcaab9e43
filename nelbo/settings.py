"""Settings: read once where a process starts, from NELBO_* environment variables and secret
files."""

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
    """Each field is the environment variable NELBO_<NAME>; NELBO_<NAME>_FILE names a file that
    holds the value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    home: Annotated[Path, Field(description="data folder: database, storage, cache")] = Path(
        "~/.local/share/nelbo"
    ).expanduser()
    url: Annotated[
        str, Field(description="address of a service; empty means: look for a running `nelbo up`")
    ] = ""
    api_key: Annotated[SecretStr, Field(description="key that the client sends")] = SecretStr("")
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="keys file of an older Nelbo; `nelbo keys create` makes keys without a file"
        ),
    ] = None
    require_keys: Annotated[
        bool,
        Field(
            description="requests need a key even before the first key is created; after that they"
            " always do"
        ),
    ] = False
    max_wrong_keys: Annotated[
        int,
        Field(
            gt=0,
            description="requests with a wrong key that one address may send in a minute before it"
            " has to wait",
        ),
    ] = 20
    trusted_proxies: Annotated[
        str,
        Field(
            description="addresses of proxies, with commas, whose X-Forwarded-For names the client;"
            " `*` for any"
        ),
    ] = ""
    hosts: Annotated[
        str,
        Field(
            description="further host names of the service, separated by commas; without keys it"
            " answers to no others"
        ),
    ] = ""
    open_to_all: Annotated[
        bool,
        Field(
            description="listen beyond this machine without keys: whoever reaches the port may do"
            " everything"
        ),
    ] = False
    database_url: Annotated[
        SecretStr, Field(description="SQLite or PostgreSQL; empty means SQLite in the data folder")
    ] = SecretStr("")
    broker_url: Annotated[SecretStr, Field(description="Redis or Valkey; carries hints only")] = (
        SecretStr("")
    )
    storage_url: Annotated[
        str, Field(description="folder or s3:// URL; empty means a folder in the data folder")
    ] = ""

    max_columns: Annotated[
        int, Field(gt=0, le=10_000, description="widest table that is accepted")
    ] = 2_000
    max_upload_bytes: Annotated[
        int,
        Field(
            gt=0, description="largest upload, and the most that a compressed table may unpack to"
        ),
    ] = 10 * 2**30
    max_uploads: Annotated[
        int, Field(gt=0, description="uploads and pushes that are received at a time")
    ] = 16
    max_uploads_of_owner: Annotated[
        int, Field(gt=0, description="of these, the most of one owner")
    ] = 8
    max_waiting: Annotated[
        int, Field(gt=0, description="requests at a time that wait for their job (Prefer: wait)")
    ] = 400
    max_waiting_of_owner: Annotated[
        int, Field(gt=0, description="of these, the most of one owner")
    ] = 100
    max_downloads: Annotated[int, Field(gt=0, description="results that are sent at a time")] = 8
    max_downloads_of_owner: Annotated[
        int, Field(gt=0, description="of these, the most of one owner")
    ] = 4
    max_unread: Annotated[
        int,
        Field(
            gt=0,
            description="uploads and pushes of one owner that may wait to be read or verified, or"
            " be at it",
        ),
    ] = 50
    max_stored_bytes: Annotated[
        int,
        Field(
            gt=0,
            description="bytes that one owner may keep here: uploads and artifacts as they were"
            " sent, inline rows, results",
        ),
    ] = 100 * 2**30
    max_inline_rows: Annotated[
        int, Field(gt=0, description="rows that a request may carry in its body")
    ] = 1_000
    max_job_rows: Annotated[
        int, Field(gt=0, description="most rows that one job may score or make")
    ] = 100_000_000
    chunk_rows: Annotated[
        int, Field(gt=0, description="rows of a chunk, the unit of work, lease and commit")
    ] = 10_000
    max_queued_rows: Annotated[
        int, Field(gt=0, description="rows of one owner that may wait or be worked on")
    ] = 200_000_000
    max_queued_rows_in_all: Annotated[
        int, Field(gt=0, description="rows of all owners that may")
    ] = 1_000_000_000
    max_unfinished_jobs: Annotated[int, Field(gt=0, description="jobs of one owner that may")] = (
        1_000
    )
    max_queue_s: Annotated[
        float,
        Field(
            gt=0,
            description="seconds that the oldest job may have waited for its first claim while more"
            " are taken",
        ),
    ] = 3_600.0
    min_free_bytes: Annotated[
        int, Field(ge=0, description="free disk below which nothing more is taken")
    ] = 512 * 2**20
    database_max_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="bytes that a PostgreSQL database may have, min_free_bytes of them free; 0:"
            " not watched",
        ),
    ] = 0
    keep_results_days: Annotated[
        float,
        Field(
            ge=0, description="days after its end that a job is kept with its results; 0: for ever"
        ),
    ] = 0.0
    keep_deleted_days: Annotated[
        float,
        Field(
            ge=0,
            description="days that deleted jobs and files, and rejected ones, are remembered; 0:"
            " for ever",
        ),
    ] = 30.0
    read_memory_mib: Annotated[
        int, Field(gt=0, description="memory limit of the process that reads an upload")
    ] = 2_048
    model_memory_mib: Annotated[
        int,
        Field(
            gt=0,
            description="memory in MiB that the process of a model may take beside its weights",
        ),
    ] = 2_048
    model_batch_s: Annotated[
        float,
        Field(
            gt=0,
            description="seconds after which a model is stopped that has not finished a batch of"
            " rows",
        ),
    ] = 30.0
    model_chunk_s: Annotated[
        float,
        Field(
            gt=0,
            description="seconds after which a model is stopped that has not finished a chunk of"
            " rows",
        ),
    ] = 600.0
    worker_memory_mib: Annotated[
        int,
        Field(
            gt=0,
            description="memory in MiB of each process of a worker, beside those of models and of"
            " reading",
        ),
    ] = 4_096

    lease_s: Annotated[
        float, Field(gt=0, description="seconds that a claimed chunk stays with its worker")
    ] = 9.0
    renew_s: Annotated[
        float, Field(gt=0, description="seconds between two renewals of a lease")
    ] = 1.5
    sweep_s: Annotated[
        float, Field(gt=0, description="seconds between two rounds of the dispatcher")
    ] = 2.0
    max_attempts: Annotated[
        int, Field(gt=0, description="transient failures of a chunk before its job fails")
    ] = 5
    worker_processes: Annotated[
        int, Field(gt=0, description="chunks that one worker computes side by side")
    ] = 2
    log_level: Annotated[str, Field(description="DEBUG, INFO, WARNING or ERROR")] = "INFO"

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
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / DATABASE}"

    @property
    def sqlite_file(self) -> Path | None:
        """The file of the database; None where the database is a server's."""
        scheme, file = "sqlite:///", self.database
        return Path(file.removeprefix(scheme)) if file.startswith(scheme) else None

    @property
    def storage(self) -> str:
        return self.storage_url or (self.home / STORAGE).as_uri()

    @property
    def broker(self) -> str:
        return self.broker_url.get_secret_value()


def read_settings() -> Settings:
    """The settings of this process. Raises InvalidInput that names the first variable whose value
    is wrong."""
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
    """Values that stand in files: a password in an environment variable shows in `docker inspect`
    and in /proc."""

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        path = os.environ.get(f"{variable(field_name)}_FILE")
        if not path:
            return None, field_name, False
        if variable(field_name) in os.environ:
            raise InvalidInput(
                f"{variable(field_name)} and {variable(field_name)}_FILE are both set; keep one of"
                " them"
            )
        try:
            return read_text(Path(path)).strip(), field_name, False
        except (OSError, InvalidInput) as error:
            raise InvalidInput(
                f"{variable(field_name)}_FILE names {path}, which cannot be read: {error}"
            ) from error
