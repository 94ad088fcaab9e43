"""What the proxy does is a real fault: silence, and a COMMIT whose answer is lost."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nelbo.jobs import GenerateRequest
from nelbo.store import ledger
from tests.servers import Postgres, Valkey
from tests.system.faults.proxy import proxy
from tests.worker.stage import Stage
from worker import runner


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for a socket, whose path has to be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_connections_that_are_there_go_silent_and_new_ones_work(valkey: Valkey) -> None:
    with proxy(valkey.socket) as before:
        first, second = (
            redis.Redis(port=before.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0))
            for _ in range(2)
        )
        assert first.ping()
        assert before.drop() == 1
        with pytest.raises((redis.TimeoutError, socket.timeout)):
            first.ping()
        assert second.ping()
        first.close()
        second.close()


def test_a_commit_whose_answer_is_lost_is_known_to_be_done(
    tmp_path: Path, short: Path, postgresql: Postgres, postgresql_url: str
) -> None:
    name = ".s.PGSQL.5432"
    url = postgresql_url.replace(quote(str(postgresql.folder), safe=""), quote(str(short), safe=""))
    with proxy(postgresql.folder / name, short / name) as before, Stage(tmp_path, url) as stage:
        job = stage.submit(GenerateRequest(model="linear", n=10), stage.version(), 10)
        claim = ledger.claim(stage.database, "one", lease_s=600.0)
        assert claim is not None
        outcome = runner.compute(stage.process(), claim, lambda: None)
        before.cut_commit(only_results=True)
        assert ledger.renew(stage.database, claim, 600.0)
        assert before.cuts == 1
        assert ledger.commit(stage.database, claim, outcome)
        assert before.cuts == 0
        assert stage.made(job.id).num_rows == 10
