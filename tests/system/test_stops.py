"""Each command, stopped at any moment or out of disk, ends in a sentence at most and leaves nothing
behind."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from nelbo.artifact import read_artifact
from tests.artifacts import linear_artifact
from tests.nelbo.commands.running import COMMAND, environment, table, written
from tests.processes import hear_control_c

pytestmark = pytest.mark.system
FIRST_S = 0.3
"""Until then Python itself is starting, and a ^C shows its trace."""
COMMANDS = {
    "score": (["score", "MODEL", "FILE", "-o", "OUT"], 3.0),
    "generate": (["generate", "MODEL", "--rows", "20000", "--seed", "1", "-o", "OUT"], 3.0),
    "augment": (["augment", "MODEL", "FILE", "--per-row", "2", "--seed", "1", "-o", "OUT"], 3.0),
    "reconstruct": (["reconstruct", "MODEL", "FILE", "--seed", "1", "-o", "OUT"], 3.0),
    "explain": (["explain", "MODEL", "FILE", "--top", "5", "-o", "OUT"], 3.0),
    "schema": (["schema", "FILE", "-o", "OUT"], 2.0),
    "push": (["push", "MODEL"], 2.0),
    "train": (["train", "FILE", "--name", "made", "--out", "FOLDER", "--quick"], 15.0),
}
"""Each with the seconds that it takes about."""


class Scene:
    """An artifact, a table, and a folder with an older output of each kind."""

    def __init__(self, folder: Path) -> None:
        self.out, self.folder, self.temporary = (
            folder / "out" / "out.csv",
            folder / "out" / "made",
            folder / "temporary",
        )
        self.artifact = linear_artifact(folder / "linear")
        self.rows = written(table(10_000), folder / "rows.csv")
        self.home = folder / "home"
        self.temporary.mkdir()
        linear_artifact(self.folder)
        self.out.write_text("old")

    def arguments(self, name: str) -> list[str]:
        known = {"MODEL": self.artifact, "FILE": self.rows, "OUT": self.out, "FOLDER": self.folder}
        return [str(known.get(word, word)) for word in COMMANDS[name][0]]

    def left(self) -> dict[str, bytes]:
        """What is where outputs and temporary files go."""
        places = [*self.out.parent.rglob("*"), *self.temporary.iterdir()]
        return {str(path): path.read_bytes() for path in places if path.is_file()}

    def start(self, name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *self.arguments(name)],
            env=environment(self.home, TMPDIR=str(self.temporary)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_control_c,
        )

    def finished(self, name: str) -> dict[str, bytes]:
        """What is left by the command that nobody stops."""
        with self.start(name) as command:
            _, err = command.communicate(timeout=300)
        assert command.returncode == 0, err
        return self.left()

    def restore(self, before: dict[str, bytes]) -> None:
        for path in self.left().keys() - before.keys():
            Path(path).unlink()
        for path, content in before.items():
            Path(path).write_bytes(content)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_moment_ends_a_command_without_a_trace(
    name: str, number: signal.Signals, scene: Scene
) -> None:
    before, after = scene.left(), scene.finished(name)
    for delay in np.random.default_rng([number, len(name)]).uniform(FIRST_S, COMMANDS[name][1], 8):
        scene.restore(before)
        with scene.start(name) as command:
            try:
                command.wait(delay)
            except subprocess.TimeoutExpired:
                command.send_signal(number)
            _, err = command.communicate(timeout=60)
        assert command.returncode in (0, 128 + number), (delay, err)
        assert "Traceback" not in err
        assert "nelbo: " not in err
        left = scene.left()
        assert left == before or left.keys() == after.keys()
        if name == "train":
            read_artifact(scene.folder)  # the older one or the new one, whole: run.json holds times
        else:
            assert left in (before, after)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("free", [0, 100])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_sentence_and_the_older_output_stays(
    name: str, free: int, scene: Scene
) -> None:
    """A file system of 1 MiB with `free` KiB left, where the output, temporary files and the data
    folder are."""
    script = (
        'mount -t tmpfs -o size=1m none "$1" && mkdir "$1/out" "$1/out/made" && printf old'
        ' >"$1/out/out.csv" && shift &&'
        ' head -c $((1024 * (1000 - $1))) /dev/zero >"$0/fill"; test $1 = 0 && cat /dev/zero'
        ' >>"$0/fill" 2>/dev/null; shift;'
        ' "$@"; code=$?; ls -A "$0/out" "$0"; cat "$0/out/out.csv"; exit $code'
    )
    disk = scene.out.parent.parent / "disk"
    disk.mkdir()
    scene.out, scene.folder = disk / "out" / "out.csv", disk / "out" / "made"
    command = [*COMMAND, *scene.arguments(name)]
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(disk), str(disk), str(free), *command],
        env=environment(disk / "home", TMPDIR=str(disk)),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in ran.stderr:
        pytest.skip("needs mount namespaces")
    if name in ("schema", "explain") and free:
        assert ran.returncode == 0, ran.stderr  # 100 KiB are enough
        return
    assert ran.returncode in (1, 3), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "internal error" not in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("nelbo: "), ran.stderr
    assert ran.stdout.split() == [
        f"{disk}:",
        "fill",
        "out",
        f"{disk}/out:",
        "made",
        "out.csv",
        "old",
    ], ran.stdout
