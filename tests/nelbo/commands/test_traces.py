"""Nothing is written beside the data folder and the files that were asked for: not by Nelbo, and by
no library of its."""

import subprocess
from pathlib import Path

from tests.nelbo.commands.running import COMMAND, environment, table, up, written


def test_training_serving_and_scoring_leave_an_empty_home_empty(tmp_path: Path) -> None:
    user, work, temporary = (tmp_path / name for name in ("user", "work", "tmp"))
    for folder in (user, work, temporary):
        folder.mkdir()
    rows = written(table(300), work / "rows.csv")
    places = {"HOME": str(user), "TMPDIR": str(temporary)}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        places[name] = str(user / name)

    def nelbo(*words: object) -> None:
        command = [*COMMAND, *map(str, words)]
        subprocess.run(
            command,
            cwd=work,
            env=environment(user / "nelbo", **places),
            check=True,
            capture_output=True,
            timeout=100,
        )

    with up(user / "nelbo", **places):
        nelbo("train", rows, "--name", "m", "--quick", "--out", "artifact")
        nelbo("score", "m", rows, "-o", "served.csv")
    nelbo("score", "artifact", rows, "-o", "here.csv")
    nelbo("explain", "artifact", rows, "-o", "why.csv")
    assert [path.name for path in user.iterdir()] == ["nelbo"]
    assert [path for path in temporary.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in work.iterdir()) == [
        "artifact",
        "here.csv",
        "rows.csv",
        "served.csv",
        "why.csv",
    ]
