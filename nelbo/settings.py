"""Settings: read once where a process starts, from NELBO_* environment variables and secret files."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable NELBO_<NAME>; NELBO_<NAME>_FILE names a file that holds the value."""

    model_config = SettingsConfigDict(env_prefix="NELBO_", extra="ignore", frozen=True)

    home: Annotated[Path, Field(description="data folder: database, storage, cache")] = Path(
        "~/.local/share/nelbo"
    ).expanduser()
    url: Annotated[str, Field(description="address of a service; empty means: look for a running `nelbo up`")] = ""
    api_key: Annotated[SecretStr, Field(description="key that the client sends")] = SecretStr("")
    api_keys_file: Annotated[
        Path | None, Field(description="owners and key digests; without it everyone is `local`")
    ] = None
    database_url: Annotated[
        SecretStr, Field(description="SQLite or PostgreSQL; empty means SQLite in the data folder")
    ] = SecretStr("")
    broker_url: Annotated[SecretStr, Field(description="Redis or Valkey; carries hints only")] = SecretStr("")
    storage_url: Annotated[str, Field(description="folder or s3:// URL; empty means a folder in the data folder")] = ""

    max_columns: Annotated[int, Field(gt=0, description="widest table that is accepted")] = 2_000
    max_upload_bytes: Annotated[int, Field(gt=0, description="largest upload")] = 10 * 2**30
    max_inline_rows: Annotated[int, Field(gt=0, description="rows that a request may carry in its body")] = 1_000
    max_job_rows: Annotated[int, Field(gt=0, description="most rows that one job may score or make")] = 100_000_000
    chunk_rows: Annotated[int, Field(gt=0, description="rows of a chunk, the unit of work, lease and commit")] = 10_000
    read_memory_mib: Annotated[int, Field(gt=0, description="memory limit of the process that reads an upload")] = 2_048

    lease_s: Annotated[float, Field(gt=0, description="seconds that a claimed chunk stays with its worker")] = 9.0
    renew_s: Annotated[float, Field(gt=0, description="seconds between two renewals of a lease")] = 3.0
    sweep_s: Annotated[float, Field(gt=0, description="seconds between two rounds of the dispatcher")] = 2.0
    max_attempts: Annotated[int, Field(gt=0, description="transient failures of a chunk before its job fails")] = 5
    worker_processes: Annotated[int, Field(gt=0, description="chunks that one worker computes side by side")] = 2
    log_level: Annotated[str, Field(description="DEBUG, INFO, WARNING or ERROR")] = "INFO"

    @model_validator(mode="after")
    def _a_lease_outlives_its_renewal(self) -> Self:
        if self.renew_s * 2 > self.lease_s:
            raise ValueError(f"renew_s ({self.renew_s}) must be at most half of lease_s ({self.lease_s})")
        return self

    @property
    def database(self) -> str:
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / 'nelbo.db'}"

    @property
    def storage(self) -> str:
        return self.storage_url or (self.home / "storage").as_uri()

    @property
    def broker(self) -> str:
        return self.broker_url.get_secret_value()
