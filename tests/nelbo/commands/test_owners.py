"""owners erase: on a running service, from the upload to the copies of the worker."""

from pathlib import Path

from nelbo.client import Client
from tests.deadline import until
from tests.nelbo.commands.running import done, run, table, up, written

SECRET = "row 17 of an owner who left"


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def stored(home: Path) -> bytes:
    """All bytes of the SQLite database, and of what it keeps beside its file."""
    return b"".join(path.read_bytes() for path in sorted(home.glob("nelbo.db*")))


def test_an_owner_is_erased_while_the_service_runs(
    home: Path, artifact: Path, tmp_path: Path
) -> None:
    rows = table(50)
    ids = rows["id"].to_pylist()
    ids[17] = SECRET
    path = written(rows.set_column(0, "id", [ids]), tmp_path / "rows.csv")
    with up(home) as url, Client(url) as client:
        client.models.push(artifact)
        client.jobs.reconstruct("linear", path).wait(timeout_s=60)
        client.jobs.score(
            "linear", [row | {"id": SECRET} for row in rows.slice(0, 3).to_pylist()]
        ).wait(timeout_s=60)
        assert SECRET.encode() in stored(home)
        assert files_below(home / "storage")
        assert files_below(home / "cache" / "artifacts")

        counted = done("owners", "erase", "local", "--dry-run", "--json").json
        assert (counted["erased"], counted["files"], counted["models"]) == (False, 1, 1)
        assert run("owners", "erase", "local", given=b"n\n").code == 1
        assert list(client.models.list())

        erased = done("owners", "erase", "local", "--yes", "--json").json
        assert erased["erased"] is True
        assert (
            list(client.models.list()),
            list(client.jobs.list()),
            list(client.files.list()),
        ) == ([], [], [])
        assert files_below(home / "storage") == []
        until(lambda: not files_below(home / "cache" / "artifacts"), "no copy to be left")
        assert SECRET.encode() not in stored(home)
        (line,) = done("audit", "--json").json["changes"]
        assert (line["action"], line["owner"]) == ("owner.erase", "")

        assert client.models.push(artifact).version == 1, "the service goes on"


def test_an_owner_that_nobody_knows_is_named(home: Path) -> None:
    done("keys", "create", "ann")
    assert run("owners", "erase", "bob", "--yes").code == 3
    assert "erased" in done("owners", "erase", "ann", "--yes").err
    assert done("keys", "list", "--json").json == {"keys": []}
