"""Where the faults happen: a database, a broker, the API and two worker hosts of their own, to be
killed and started again."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx
import psycopg
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nelbo.artifact import MANIFEST, Artifact, Manifest, read_artifact
from nelbo.processes import command
from nelbo.storage import artifact_key
from nelbo.store.session import connect
from tests.api.serving import free_port
from tests.artifacts import packed
from tests.deadline import until
from tests.processes import alive
from tests.servers import Postgres, Valkey, postgresql_commands, running_postgres, running_valkey
from tests.system.faults import oracle
from tests.system.faults.inside.sitecustomize import READ_ONLY
from tests.system.faults.proxy import Proxy, proxy
from tests.worker.host import Host, lifeline, start_worker
from tests.worker.stage import Stage

ROOT, INSIDE = Path(__file__).parents[3], Path(__file__).with_name("inside")
LEASE_S = 1.5
QUICK = {"NELBO_LEASE_S": str(LEASE_S), "NELBO_RENEW_S": "0.5", "NELBO_SWEEP_S": "0.3"}
HOSTS, PROCESSES = 2, 2
CHUNK_ROWS = 3_000
TOIL = 6
"""Products of a matrix of 512 x 512 with each batch of 16 rows: thousands of rows a second instead
of a hundred thousand."""


class SlowStage(Stage):
    """The artifact computes what it always does, and much else whose result is multiplied by zero:
    kills hit mid-chunk."""

    def _artifact(self, name: str) -> tuple[Artifact, str]:
        quick, version_id = super()._artifact(name)
        manifest = quick.manifest
        for key, given, output in (("generate", "u", "numbers"), ("score", "numbers", "kl")):
            graph = manifest.graphs[key]
            content = _toiling(onnx.load(quick.folder / graph.file), given, output)
            (quick.folder / graph.file).write_bytes(content)
            changed = graph.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
            manifest = manifest.model_copy(update={"graphs": {**manifest.graphs, key: changed}})
        (quick.folder / MANIFEST).write_text(
            Manifest.model_validate(manifest).model_dump_json(indent=1)
        )
        slow = read_artifact(quick.folder)
        self.storage.put(artifact_key(version_id), packed(slow.folder))
        return slow, version_id


def _toiling(model: onnx.ModelProto, given: str, output: str) -> bytes:
    """The model with its output plus nothing, worked out from `given` the long way."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["light" if name == output else name for name in node.output]
    shape = [
        dim.dim_value
        for value in graph.output
        if value.name == output
        for dim in value.type.tensor_type.shape.dim
    ]
    add = graph.node.append
    add(helper.make_node("ReduceSum", [given, "toil_axis"], ["toil_sum"], keepdims=1))
    add(helper.make_node("Cast", ["toil_sum"], ["toil_float"], to=TensorProto.FLOAT))
    add(helper.make_node("MatMul", ["toil_float", "toil_row"], ["toil_0"]))
    for i in range(TOIL):
        add(helper.make_node("MatMul", [f"toil_{i}", "toil_matrix"], [f"toil_{i + 1}"]))
    add(
        helper.make_node(
            "ReduceMean", [f"toil_{TOIL}", "toil_axis"], ["toil_mean"], keepdims=len(shape) - 1
        )
    )
    add(helper.make_node("Cast", ["toil_mean"], ["toil_double"], to=TensorProto.DOUBLE))
    add(helper.make_node("Mul", ["toil_double", "toil_zero"], ["toil_nothing"]))
    add(helper.make_node("Add", ["light", "toil_nothing"], [output]))
    constants: dict[str, NDArray[Any]] = {
        "toil_axis": np.array([1], dtype=np.int64),
        "toil_row": np.ones((1, 512), dtype=np.float32),
        "toil_matrix": np.full((512, 512), 1 / 512, dtype=np.float32),
        "toil_zero": np.array(0.0),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    content: bytes = model.SerializeToString()
    return content


# As of a real one: what would take a new page of a file fails.
FULL_DISK = [
    "CREATE TABLE full_disk (since DOUBLE PRECISION)",
    """
CREATE FUNCTION need_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM full_disk) THEN
        RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$
""",
    *(
        f"CREATE TRIGGER need_disk BEFORE INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION"
        " need_disk()"
        for table in ("job", "chunk", "score_chunk", "table_chunk", "row_error", "anomaly")
    ),
]


@dataclass
class Arena:
    """The proxies stand between each host or the API and its broker and, where that is PostgreSQL,
    its database."""

    stage: Stage
    broker: Valkey
    worker_brokers: list[Proxy]
    api_broker: Proxy
    postgresql: Postgres | None = None
    worker_database: Proxy | None = None
    api_database: Proxy | None = None
    urls: dict[str, str] = field(default_factory=dict)
    """Of the database, for `worker` and for `api`."""
    times: dict[str, str] = field(default_factory=lambda: QUICK)
    hosts: list[Host] = field(default_factory=list)
    api: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # Workers

    def start_hosts(self) -> None:
        for at in range(HOSTS):
            self.start_host(at)

    def start_host(self, at: int, clock_s: float = 0.0) -> None:
        started = start_worker(self.stage, PROCESSES, **self._environment(at, clock_s))
        self.hosts[at : at + 1] = [started]

    def kill_host(self, at: int) -> None:
        """All processes of a host at once, as when the machine goes."""
        for pid in self.hosts[at].pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.hosts[at].process.wait()

    def end_hosts(self) -> None:
        """In order where they can; nothing may remain."""
        below = set().union(*(host.pids() for host in self.hosts))
        for host in self.hosts:
            host.process.send_signal(signal.SIGTERM)
        for host in self.hosts:
            host.process.wait(60)
        until(lambda: not any(map(alive, below)), "the workers' processes to end")

    @contextmanager
    def zombie(self, at: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of its own that freezes itself at a crash point; ends with the first chunk that
        it went on with."""
        line = command(lifeline(), "tests.system.faults.zombie", [at, "with"])
        settings = {"NELBO_HOME": str(self.stage.settings.home)} | self._environment(0)
        with (self.stage.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                line,
                pass_fds=[lifeline().reading],
                cwd=self.stage.folder,
                env=os.environ | settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    # The API

    def start_api(self) -> None:
        settings = {
            "NELBO_HOME": str(self.stage.settings.home),
            "NELBO_CHUNK_ROWS": str(CHUNK_ROWS),
        }
        reached = {
            "NELBO_DATABASE_URL": self.urls["api"],
            "NELBO_BROKER_URL": f"redis://127.0.0.1:{self.api_broker.port}",
        }
        with (self.stage.folder / "api.log").open("ab") as log:
            self.api = subprocess.Popen(
                command(lifeline(), "api.app", ["--port", str(self.port)]),
                pass_fds=[lifeline().reading],
                cwd=self.stage.folder,
                env=os.environ | settings | reached | self._inside(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def api_answers(self) -> bool:
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/healthz", trust_env=False).is_success
        return False

    def kill_api(self) -> None:
        assert self.api is not None
        self.api.kill()
        self.api.wait()

    # The broker

    def waiting_hints(self) -> int:
        """Hints in the broker: those that nobody took, and those that are not acknowledged yet."""
        with self.broker.client() as client:
            return int(client.llen("nelbo:nelbo")) + int(client.hlen("nelbo:unacked"))

    # The database

    def sql(self, statement: str) -> list[Any]:
        """The first column of what PostgreSQL answers, asked as its superuser and past the
        proxies."""
        assert self.postgresql is not None
        with psycopg.connect(self.postgresql.url("faults"), autocommit=True) as connection:
            asked = connection.execute(statement.encode())
            return [row[0] for row in asked] if asked.description else []

    def start_postgresql(self) -> None:
        """Its backends may still be about to notice that the postmaster is gone."""
        assert self.postgresql is not None
        server = self.postgresql

        def started() -> bool:
            with suppress(RuntimeError):
                server.start()
                return True
            return False

        until(started, "PostgreSQL to start again", pause_s=0.2)

    @contextmanager
    def limited(self, fault: str) -> Iterator[None]:
        """The database's disk is full, or it is read-only."""
        if self.postgresql is None:
            file = self._faults / fault
            file.touch()
            try:
                yield
            finally:
                file.unlink()
        else:
            begin, end = (
                (READ_ONLY_ON, READ_ONLY_OFF) if fault == READ_ONLY else (FULL_ON, FULL_OFF)
            )
            for statement in begin:
                self.sql(statement)
            try:
                yield
            finally:
                for statement in end:
                    self.sql(statement)

    def end(self) -> None:
        """Whatever still runs."""
        for at, host in enumerate(self.hosts):
            if host.process.poll() is None:
                self.kill_host(at)
        if self.api is not None:
            self.kill_api()

    @property
    def _faults(self) -> Path:
        return self.stage.folder / "faults"

    def _inside(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{INSIDE}{os.pathsep}{ROOT}", "NELBO_FAULTS": str(self._faults)}

    def _environment(self, at: int, clock_s: float = 0.0) -> dict[str, str]:
        broker = f"redis://127.0.0.1:{self.worker_brokers[at].port}"
        reached = {"NELBO_DATABASE_URL": self.urls["worker"], "NELBO_BROKER_URL": broker}
        return self.times | reached | self._inside() | {"NELBO_FAULTS_CLOCK": str(clock_s)}


READ_ONLY_ON = ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"]
READ_ONLY_OFF = ["ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"]
FULL_ON, FULL_OFF = ["INSERT INTO full_disk VALUES (0)"], ["DELETE FROM full_disk"]


@contextmanager
def arena(kind: str, folder: Path, times: dict[str, str] = QUICK) -> Iterator[Arena]:
    """An arena without hosts; at its end none is left."""
    (folder / "faults").mkdir()
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'nelbo.db'}"
        reached: dict[str, Any] = {"urls": {"worker": url, "api": url}}
        if kind == "postgresql":
            url, reached = _postgresql(stack)
        database = connect(url)
        database.migrate()
        database.dispose()
        broker = stack.enter_context(running_valkey())
        stage = stack.enter_context(SlowStage(folder, url, broker.url))
        oracle.watch(stage.database)
        if kind == "postgresql":
            for statement in FULL_DISK:
                with stage.database.write() as connection:
                    connection.exec_driver_sql(statement)
        brokers = [stack.enter_context(proxy(broker.socket)) for _ in range(HOSTS + 1)]
        made = Arena(stage, broker, brokers[:HOSTS], brokers[HOSTS], times=times, **reached)
        stack.callback(made.end)
        yield made


def _postgresql(stack: ExitStack) -> tuple[str, dict[str, Any]]:
    """The database's URL, and what is reached how through the proxies before it."""
    commands = postgresql_commands()
    assert commands is not None, "there is no PostgreSQL that this user can run"
    server = stack.enter_context(running_postgres(commands))
    server.execute("CREATE DATABASE faults")
    proxies, urls = {}, {}
    for who in ("worker", "api"):
        folder = server.folder / who
        folder.mkdir()
        socket = ".s.PGSQL.5432"
        proxies[f"{who}_database"] = stack.enter_context(
            proxy(server.folder / socket, folder / socket)
        )
        urls[who] = Postgres(folder, commands).url("faults")
    return server.url("faults"), {"postgresql": server, "urls": urls, **proxies}
