"""Commands as a user runs them: `nelbo.cli.command` in this process, or `nelbo` as a process of its
own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from nelbo import cli
from nelbo.client import find_url
from nelbo.files import open_table, open_writer
from nelbo.settings import Settings
from tests.artifacts import COLOURS, sample
from tests.deadline import until

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-P", "-m", "nelbo.cli"]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(
    *arguments: object,
    given: bytes = b"",
    encoding: str = "utf-8",
    main: Callable[[], None] = cli.command,
) -> Ran:
    """`nelbo ARGUMENTS`, with `given` on standard input, on a terminal of this encoding; or another
    program's `main`."""
    buffers = [io.BytesIO(content) for content in (given, b"", b"")]
    streams = [
        io.TextIOWrapper(buffer, encoding, "backslashreplace", write_through=True)
        for buffer in buffers
    ]
    with (
        patch.object(sys, "argv", ["nelbo", *map(str, arguments)]),
        patch.object(sys, "stdin", streams[0]),
        patch.object(sys, "stdout", streams[1]),
        patch.object(sys, "stderr", streams[2]),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    out, err = (buffer.getvalue() for buffer in buffers[1:])
    return Ran(code, out, err.decode())


def done(*arguments: object, given: bytes = b"", encoding: str = "utf-8") -> Ran:
    """The same for a command that must not fail."""
    ran = run(*arguments, given=given, encoding=encoding)
    assert ran.code == 0, ran.err
    return ran


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a process which knows the data folder and no service but its own."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("NELBO_")}
    return known | {"NELBO_HOME": str(home), "PYTHONPATH": str(ROOT)} | more


@contextmanager
def up(home: Path, **more: str) -> Iterator[str]:
    """A `nelbo up` on the data folder, and its address."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.log").open("wb") as log:
        started = subprocess.Popen(
            [*COMMAND, "up", "--port", "0"],
            cwd=home,
            stdout=log,
            stderr=log,
            env=environment(home, **more),
        )
    settings = Settings(home=home, url="")
    try:
        until(lambda: started.poll() is not None or find_url(settings), "nelbo up is ready")
        url = find_url(settings)
        assert url, (home / "up.log").read_text()
        yield url
    finally:
        started.terminate()
        started.wait(60)


def table(rows: int, seed: int = 7) -> pa.Table:
    """Rows drawn from the linear model, with ids."""
    numbers, codes = sample(rows, seed)
    columns: dict[str, Any] = {
        "id": [f"row {i}" for i in range(rows)],
        "length": numbers[:, 0],
        "colour": np.array(list(COLOURS)[:3])[codes[:, 0]],
        "width": numbers[:, 1],
        "weight": numbers[:, 2],
    }
    return pa.table(columns)


def written(given: pa.Table, path: Path) -> Path:
    with open_writer(path, schema=given.schema) as writer:
        for batch in given.to_batches():
            writer.write(batch)
    return path


def read(path: Path) -> pa.Table:
    with open_table(path) as opened:
        return pa.Table.from_batches(opened.batches(), schema=opened.schema)
