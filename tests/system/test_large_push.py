"""An artifact of 400 MiB goes from the client through the service to a worker, and only the worker
holds it in memory."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nelbo.store import catalog
from tests.api.serving import process
from tests.artifacts import linear_artifact, padded
from tests.processes import peak_mib
from tests.worker.stage import OWNER, Stage

pytestmark = pytest.mark.system

MIB = 400
LITTLE_MIB = 300
PUSH = """
import sys
from nelbo.client import Client
with Client(sys.argv[1]) as client:
    print(client.models.push(sys.argv[2]).state)
status = open("/proc/self/status").read()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
"""


def test_an_artifact_of_400_mib_becomes_ready_and_client_and_service_hold_little_of_it(
    tmp_path: Path, sqlite_url: str
) -> None:
    with Stage(tmp_path, sqlite_url) as stage:
        stage.settings.home.mkdir(parents=True, exist_ok=True)
        folder = padded(linear_artifact(tmp_path / "large"), MIB)
        before = os.environ | {"TMPDIR": str(tmp_path)}
        with (
            process(stage.settings.home, NELBO_DATABASE_URL=sqlite_url) as (url, api),
            working(stage),
        ):
            command = [sys.executable, "-P", "-c", PUSH, url, str(folder)]
            pushed = subprocess.run(
                command, env=before, capture_output=True, text=True, check=False
            )
            assert pushed.returncode == 0, pushed.stderr
            state, client_mib = pushed.stdout.split()
            assert state == "ready"
            assert int(client_mib) < LITTLE_MIB
            assert peak_mib(api.pid) < LITTLE_MIB
        version = catalog.resolve(stage.database, OWNER, "linear")
        stage.storage.delete(f"artifacts/{version.id}.zip")
        (folder / "score.onnx").unlink()


@contextmanager
def working(stage: Stage) -> Iterator[None]:
    """A worker, in a thread, until the block ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.2):
            stage.work()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
