"""Who asks: keys in SQL, those of an older Nelbo's file beside them, and what ends a key."""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from api.auth import LOCAL, REMEMBER_S, REMEMBERED, ApiKeys
from nelbo.audit import COMMAND_LINE
from nelbo.errors import NotAuthenticated, Unavailable
from nelbo.store import keys as store
from nelbo.store.session import Database, connect
from tests.api.serving import process
from tests.api.stage import Stage, bearer, make_key, open_stage, settings_for
from tests.deadline import until


def make(database: Database, owner: str, **more: Any) -> str:
    return store.create(database, owner, COMMAND_LINE, **more)[1]


def owner(keys: ApiKeys, key: str) -> str:
    return keys.look_up(f"Bearer {key}").owner


def made_by_hand(owner: str) -> tuple[str, str]:
    """A key, and its line in a keys file as an older Nelbo made it."""
    key_id = secrets.token_hex(8)
    key = f"nb_{key_id}_{secrets.token_urlsafe(32)}"
    return key, f"{key_id} {owner} {store.key_digest(key)}"


def keys_file(folder: Path, *lines: str) -> Path:
    path = folder / "keys"
    path.write_text("# id owner digest\n\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def opened(database: Database) -> Iterator[Callable[..., ApiKeys]]:
    """Makes the keys of a process."""
    with ExitStack() as stack:

        def open_keys(file: Path | None = None, **more: Any) -> ApiKeys:
            made = ApiKeys(database, file, **more)
            stack.callback(made.close)
            return made

        yield open_keys


# Whether a key is needed


def test_everyone_is_local_where_no_key_was_ever_made(opened: Callable[..., ApiKeys]) -> None:
    for authorization in (None, "Bearer whatever"):
        caller = opened().look_up(authorization)
        assert (caller.owner, caller.scope, caller.key) == (LOCAL, "admin", None)


def test_the_first_key_closes_the_service_and_nothing_opens_it_again(
    database: Database, opened: Callable[..., ApiKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.REMEMBER_S", 0.0)
    keys = opened()
    assert keys.look_up(None).owner == LOCAL
    key = make(database, "ada")
    store.revoke(database, store.id_of(key), COMMAND_LINE)
    for process_keys in (keys, opened()):
        with pytest.raises(NotAuthenticated):
            process_keys.look_up(None)
        assert process_keys.remembered(None) is None


def test_a_service_that_requires_keys_and_has_none_answers_nobody(
    tmp_path: Path, opened: Callable[..., ApiKeys]
) -> None:
    for keys in (opened(required=True), opened(keys_file(tmp_path))):
        with pytest.raises(NotAuthenticated, match="wants an API key"):
            keys.look_up(None)


# Keys in SQL


def test_a_key_names_its_owner_and_its_scope(
    database: Database, opened: Callable[..., ApiKeys]
) -> None:
    ada, bob = make(database, "ada"), make(database, "bob", scope="read")
    keys = opened()
    assert owner(keys, ada) == "ada"
    caller = keys.look_up(f"bearer  {bob} ")
    assert (caller.owner, caller.scope, caller.key) == ("bob", "read", store.id_of(bob))


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer nb_short",
        f"Bearer nb_{'0' * 16}_{'A' * 43}",
        "Bearer ключ",
    ],
)
def test_what_is_not_a_known_key_is_refused(
    database: Database, opened: Callable[..., ApiKeys], authorization: str | None
) -> None:
    make(database, "ada")
    with pytest.raises(NotAuthenticated, match="API key"):
        opened().look_up(authorization)


def test_a_known_id_with_another_secret_is_refused(
    database: Database, opened: Callable[..., ApiKeys]
) -> None:
    key = make(database, "ada")
    keys = opened()
    assert owner(keys, key) == "ada"
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in (other, key.upper(), key[:-1], key + "A"):
        assert keys.remembered(f"Bearer {wrong}") is None
        with pytest.raises(NotAuthenticated):
            owner(keys, wrong)


def test_an_unknown_id_costs_what_a_wrong_secret_costs(
    database: Database, opened: Callable[..., ApiKeys]
) -> None:
    """Neither is remembered, and each is one look into SQL however often it is sent."""
    key = make(database, "ada")
    keys = opened()
    owner(keys, key)
    statements: list[str] = []
    event.listen(
        database._engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    for wrong in (key[:-1] + ("A" if key[-1] != "A" else "B"), f"nb_{'0' * 16}_{'A' * 43}"):
        for _ in range(2):
            before = len(statements)
            with pytest.raises(NotAuthenticated):
                owner(keys, wrong)
            looks = [
                statement for statement in statements[before:] if statement.startswith("SELECT")
            ]
            assert len(looks) == 1


def test_a_revoked_and_an_expired_key_are_told_apart_to_who_holds_them(
    database: Database, opened: Callable[..., ApiKeys]
) -> None:
    keys = opened()
    revoked, expired = make(database, "ada"), make(database, "ada", lifetime_s=0.0)
    store.revoke(database, store.id_of(revoked), COMMAND_LINE)
    for key, reason in ((revoked, "was revoked"), (expired, "has expired")):
        with pytest.raises(NotAuthenticated, match=reason):
            owner(keys, key)
        with pytest.raises(NotAuthenticated, match="nobody holds"):
            owner(keys, key[:-1] + ("A" if key[-1] != "A" else "B"))


def test_a_key_is_remembered_for_a_moment_and_no_longer(
    database: Database, opened: Callable[..., ApiKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(database, "ada")
    keys = opened()
    assert keys.remembered(f"Bearer {key}") is None
    owner(keys, key)
    remembered = keys.remembered(f"Bearer {key}")
    assert remembered is not None
    assert remembered.owner == "ada"
    monkeypatch.setattr("api.auth.REMEMBER_S", 0.0)
    owner(keys, key)
    assert keys.remembered(f"Bearer {key}") is None


def test_no_number_of_keys_fills_the_memory(
    database: Database, opened: Callable[..., ApiKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.REMEMBERED", 3)
    assert REMEMBERED < 10_000
    keys = opened()
    for number in range(5):
        owner(keys, make(database, f"owner-{number}"))
    assert len(keys._remembered) == 3


def test_the_last_use_of_a_key_is_written_down(
    database: Database, opened: Callable[..., ApiKeys]
) -> None:
    key = make(database, "ada")
    owner(opened(), key)
    until(
        lambda: store.list_keys(database)[0].last_used_at is not None, "the use to be written down"
    )


def test_a_database_that_does_not_answer_is_not_taken_for_a_wrong_key(
    opened: Callable[..., ApiKeys],
) -> None:
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    for required in (True, False):
        keys = ApiKeys(away, required=required)
        with pytest.raises(Unavailable, match="the database does not answer"):
            keys.look_up(f"Bearer nb_{'0' * 16}_{'A' * 43}")
        with pytest.raises(Unavailable):
            keys.state()
        keys.close()


# The keys file of an older Nelbo


def test_the_keys_of_a_file_are_stored_once_and_work_as_before(
    tmp_path: Path, database: Database, opened: Callable[..., ApiKeys]
) -> None:
    (ada, ada_line), (bob, bob_line) = made_by_hand("ada"), made_by_hand("bob")
    path = keys_file(tmp_path, ada_line, f"{bob_line}  # his second")
    keys = opened(path)
    assert (owner(keys, ada), owner(keys, bob), owner(opened(path), bob)) == ("ada", "bob", "bob")
    assert [(key.owner, key.scope, key.from_file) for key in store.list_keys(database)] == [
        ("ada", "train", True),
        ("bob", "train", True),
    ]


def rewrite(path: Path, content: str) -> None:
    path.write_text(content)


def replace(path: Path, content: str) -> None:
    """As `sed -i` and most editors do: another file under the same name."""
    (path.parent / "new").write_text(content)
    (path.parent / "new").replace(path)


def rewrite_unnoticed(path: Path, content: str) -> None:
    """With the old size and the old time of its last change."""
    before = path.stat()
    path.write_text(content.ljust(before.st_size - 1) + "\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("edit", [rewrite, replace, rewrite_unnoticed])
def test_a_line_that_is_added_or_deleted_counts_however_the_file_is_edited(
    tmp_path: Path, opened: Callable[..., ApiKeys], edit: Callable[[Path, str], None]
) -> None:
    (ada, ada_line), (bob, bob_line) = made_by_hand("ada"), made_by_hand("bob")
    path = keys_file(tmp_path, ada_line, "# " + "-" * 100)
    keys = opened(path)
    assert owner(keys, ada) == "ada"
    edit(path, bob_line + "\n")
    assert owner(keys, bob) == "bob"
    for process_keys in (keys, opened(path)):
        with pytest.raises(NotAuthenticated, match="removed from the keys file"):
            owner(process_keys, ada)


def test_a_line_whose_owner_or_digest_was_changed_ends_the_key(
    tmp_path: Path, opened: Callable[..., ApiKeys]
) -> None:
    ada, line = made_by_hand("ada")
    path = keys_file(tmp_path, line)
    keys = opened(path)
    assert owner(keys, ada) == "ada"
    for changed in (line.replace("ada", "bob"), line[:-64] + "0" * 64):
        keys_file(tmp_path, changed)
        with pytest.raises(NotAuthenticated):
            owner(keys, ada)


def test_a_key_that_was_revoked_is_not_revived_by_its_line(
    tmp_path: Path, database: Database, opened: Callable[..., ApiKeys]
) -> None:
    ada, line = made_by_hand("ada")
    path = keys_file(tmp_path, line)
    assert owner(opened(path), ada) == "ada"
    store.revoke(database, store.id_of(ada), COMMAND_LINE)
    with pytest.raises(NotAuthenticated, match="revoked"):
        owner(opened(path), ada)


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\xff\xfe\x00\n", "ключ\n".encode(), b"\x00\n"])
def test_a_bad_line_locks_nobody_out_and_tells_no_path(
    tmp_path: Path, opened: Callable[..., ApiKeys], garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (ada, ada_line), (bob, bob_line) = made_by_hand("ada"), made_by_hand("bob")
    path = keys_file(tmp_path, ada_line)
    keys = opened(path)
    assert keys.state() == "ok"
    path.write_bytes(path.read_bytes() + garbage + bob_line.encode())
    for process_keys in (keys, opened(path)):
        assert (owner(process_keys, ada), owner(process_keys, bob)) == ("ada", "bob")
        assert process_keys.state() == "degraded"
    (error,) = {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR}
    assert "left out" in error
    assert str(tmp_path) not in caplog.text


def test_a_file_that_cannot_be_read_stops_the_start_and_later_only_its_own_keys(
    tmp_path: Path, database: Database, opened: Callable[..., ApiKeys]
) -> None:
    with pytest.raises(Unavailable, match="missing cannot be read"):
        opened(tmp_path / "missing")
    ada, line = made_by_hand("ada")
    bob = make(database, "bob")
    path = keys_file(tmp_path, line)
    keys = opened(path)
    assert owner(keys, ada) == "ada"
    path.unlink()
    assert keys.state() == "degraded"
    assert owner(keys, bob) == "bob"
    for key in (ada, made_by_hand("eve")[0]):
        with pytest.raises(Unavailable, match="cannot read all of its keys") as problem:
            owner(keys, key)
        assert str(tmp_path) not in problem.value.message
    keys_file(tmp_path, line)
    assert (owner(keys, ada), keys.state()) == ("ada", "ok")


# Over HTTP


def test_readiness_is_degraded_where_a_part_of_the_keys_cannot_be_read(
    tmp_path: Path, sqlite_url: str
) -> None:
    path = keys_file(tmp_path, made_by_hand("ada")[1])
    with open_stage(settings_for(tmp_path, sqlite_url, api_keys_file=path)) as stage:
        assert stage.get("/readyz").json()["keys"] == "ok"
        keys_file(tmp_path, "garbage")
        ready = stage.get("/readyz").json()
        assert (ready["status"], ready["keys"]) == ("degraded", "degraded")


def status_of(url: str, key: str) -> int:
    return httpx2.get(f"{url}/v1/jobs", headers=bearer(key), trust_env=False).status_code


def test_a_revoked_key_is_refused_by_every_process_soon_and_others_go_on(
    tmp_path: Path, database_url: str
) -> None:
    ada, bob = make_key(database_url, "ada"), make_key(database_url, "bob")
    database = connect(database_url)
    homes = [tmp_path / name for name in ("first", "second")]
    for home in homes:
        home.mkdir()
    with ExitStack() as stack:
        urls = [
            stack.enter_context(process(home, NELBO_DATABASE_URL=database_url))[0] for home in homes
        ]
        assert [status_of(url, key) for url in urls for key in (ada, bob)] == [200] * 4
        store.revoke(database, store.id_of(ada), COMMAND_LINE)
        until(
            lambda: [status_of(url, ada) for url in urls] == [401, 401],
            "both processes to refuse the key",
        )
        assert [status_of(url, bob) for url in urls] == [200, 200]
    database.dispose()


@pytest.fixture
def stage(tmp_path: Path, sqlite_template: Path) -> Iterator[Stage]:
    shutil.copy(sqlite_template, tmp_path / "nelbo.db")
    with open_stage(settings_for(tmp_path, require_keys=True, max_wrong_keys=5)) as opened:
        yield opened


def test_wrong_keys_are_logged_with_address_and_prefix_and_never_whole(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    known = make_key(stage.settings.database, "ada")
    wrong = known[:-10] + "A" * 10
    for header in (wrong, "nb_half-a-secret-key"):
        assert stage.get("/v1/jobs", headers=bearer(header)).status_code == 401
    refusals = [record for record in caplog.records if record.getMessage() == "API key refused"]
    told = [(vars(record)["client"], vars(record)["key"]) for record in refusals]
    assert told == [("testclient", known[:19]), ("testclient", "")]
    for record in caplog.records:
        assert known[20:-10] not in str(vars(record))
        assert "half-a-secret" not in str(vars(record))


def test_who_guesses_keys_has_to_wait_and_keeps_nobody_else_out(stage: Stage) -> None:
    """Nobody who shares the address, behind one proxy, whether or not their key was used before."""
    guesses = [
        stage.get("/v1/jobs", headers=bearer(made_by_hand("eve")[0])).status_code for _ in range(8)
    ]
    assert guesses == [401] * 5 + [429] * 3
    revoked, known = (make_key(stage.settings.database, "ada") for _ in range(2))
    until(
        lambda: stage.get("/v1/jobs", headers=bearer(known)).status_code == 200,
        "the list to hold the new key",
    )
    store.revoke(stage.service.database, store.id_of(revoked), COMMAND_LINE)
    until(
        lambda: stage.get("/v1/jobs", headers=bearer(revoked)).status_code == 429,
        "the list to lack the revoked key",
    )


def test_a_flood_of_wrong_keys_costs_the_database_no_more_than_a_few(stage: Stage) -> None:
    for _ in range(5):
        stage.get("/v1/jobs", headers=bearer(made_by_hand("eve")[0]))
    looks: list[str] = []
    engine = stage.service.database._engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: looks.append(arguments[2]))
    began = time.monotonic()
    for _ in range(200):
        assert stage.get("/v1/jobs", headers=bearer(made_by_hand("eve")[0])).status_code == 429
    assert (
        len([look for look in looks if "api_key" in look])
        <= 1 + (time.monotonic() - began) / REMEMBER_S
    )


def test_a_request_without_a_key_is_no_try(stage: Stage) -> None:
    assert {stage.get("/v1/jobs").status_code for _ in range(10)} == {401}


def test_a_client_cannot_name_an_address_for_itself_unless_a_proxy_is_trusted(
    tmp_path: Path, sqlite_url: str
) -> None:
    make_key(sqlite_url, "ada")

    def statuses(**env: str) -> list[int]:
        with process(tmp_path, NELBO_DATABASE_URL=sqlite_url, NELBO_MAX_WRONG_KEYS="2", **env) as (
            url,
            _,
        ):
            return [
                httpx2.get(
                    f"{url}/v1/jobs",
                    headers=bearer(made_by_hand("eve")[0])
                    | {"X-Forwarded-For": f"10.0.0.{number}"},
                    trust_env=False,
                ).status_code
                for number in range(3)
            ]

    assert statuses() == [401, 401, 429]
    assert statuses(NELBO_TRUSTED_PROXIES="127.0.0.1") == [401, 401, 401]
    assert '"client": "10.0.0.2"' in (tmp_path / "api.log").read_text()
