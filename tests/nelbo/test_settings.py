"""Settings come from the environment and from secret files, and a wrong one is named."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from nelbo.errors import InvalidInput
from nelbo.settings import PREFIX, Settings, read_settings, variable

TEXTS = {
    "home": "/data",
    "log_level": "DEBUG",
    "api_keys_file": "/keys",
    "url": "http://example.org",
    "require_keys": "true",
    "open_to_all": "true",
}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def value_of(name: str) -> str:
    """A text that the setting accepts and that is not its default."""
    field = Settings.model_fields[name]
    return TEXTS.get(
        name, "secret" if field.default is not None and "Secret" in str(field.annotation) else "7"
    )


@pytest.mark.parametrize(
    "name", [name for name in Settings.model_fields if name not in {"lease_s", "renew_s"}]
)
def test_every_setting_is_the_same_from_a_variable_and_from_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = read_settings()
    monkeypatch.setenv(variable(name), value_of(name))
    from_variable = read_settings()
    monkeypatch.delenv(variable(name))
    (tmp_path / "value").write_text(value_of(name) + "\n")
    monkeypatch.setenv(variable(name) + "_FILE", str(tmp_path / "value"))
    assert read_settings() == from_variable != default


def test_a_variable_and_its_file_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_DATABASE_URL", "sqlite:///here.db")
    monkeypatch.setenv("NELBO_DATABASE_URL_FILE", "/dev/null")
    with pytest.raises(
        InvalidInput, match="NELBO_DATABASE_URL and NELBO_DATABASE_URL_FILE are both set"
    ):
        read_settings()


def test_a_secret_file_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_BROKER_URL_FILE", str(tmp_path / "gone"))
    with pytest.raises(
        InvalidInput, match=r"NELBO_BROKER_URL_FILE names .*gone, which cannot be read"
    ):
        read_settings()


def test_a_byte_order_mark_in_a_secret_file_is_skipped_and_other_encodings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "url"
    monkeypatch.setenv("NELBO_BROKER_URL_FILE", str(path))
    path.write_text("redis://broker\n", encoding="utf-8-sig")
    assert read_settings().broker == "redis://broker"
    path.write_text("redis://broker\n", encoding="utf-16")
    with pytest.raises(
        InvalidInput, match=r"NELBO_BROKER_URL_FILE names .*url is UTF-16 text; save it as UTF-8"
    ):
        read_settings()


def test_an_empty_variable_for_a_file_means_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_BROKER_URL_FILE", "")
    assert read_settings().broker == ""


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_CHUNK_ROWS", "many")
    with pytest.raises(InvalidInput, match="NELBO_CHUNK_ROWS: Input should be a valid integer"):
        read_settings()


def test_a_lease_must_outlive_its_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_RENEW_S", "5")
    monkeypatch.setenv("NELBO_LEASE_S", "9")
    with pytest.raises(InvalidInput, match="at most half of lease_s"):
        read_settings()


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NELBO_DATABASE_URL", "postgresql://nelbo:hunter2@db/nelbo")
    assert "hunter2" not in repr(read_settings())
    assert "hunter2" in read_settings().database


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_file_of_the_database_is_known_and_a_server_has_none(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).sqlite_file == tmp_path / "nelbo.db"
    named = Settings(home=tmp_path, database_url=SecretStr(f"sqlite:///{tmp_path}/my.db"))
    assert named.sqlite_file == tmp_path / "my.db"
    server = Settings(home=tmp_path, database_url=SecretStr("postgresql://nelbo@db/nelbo"))
    assert server.sqlite_file is None
