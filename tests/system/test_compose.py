"""The deployment for real: docker-compose brings it up, a job comes in from outside, its result
goes out again."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.client import Client
from nelbo.engine import Engine
from nelbo.errors import NotAuthenticated
from tests.artifacts import linear_artifact, sample
from tests.deadline import until

DEPLOY = Path(__file__).parents[2] / "deploy"
ROWS = 25_000
OURS = ("api", "worker")


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not docker_answers(), reason="the deployment is left out: `docker info` does not answer"
    ),
]


@dataclass(frozen=True)
class Deployment:
    """A compose project of its own name, port, image tag and secrets, so that it meets no other one
    on this machine."""

    command: tuple[str, ...]
    environment: dict[str, str]
    url: str

    def run(self, *words: str) -> str:
        ran = subprocess.run(
            [*self.command, *words],
            cwd=DEPLOY,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{' '.join(words)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def container(self, service: str) -> dict[str, dict[str, object]]:
        """What the engine says about a service's container."""
        name = self.run("ps", "-q", service).strip()
        assert name, f"{service} has no container"
        told = subprocess.run(
            ["docker", "inspect", name], capture_output=True, text=True, check=True
        )
        return dict(json.loads(told.stdout)[0])

    def up(self) -> None:
        self.run("up", "--build", "--detach")
        for service in OURS:
            until(partial(self.is_healthy, service), f"a healthy {service}", 180, pause_s=1)

    def is_healthy(self, service: str) -> bool:
        health = self.container(service)["State"]["Health"]
        return isinstance(health, dict) and health["Status"] == "healthy"


def compose_command() -> tuple[str, ...]:
    """Compose version 2 is a part of docker, version 1.29 a program of its own."""
    second = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ("docker", "compose") if second.returncode == 0 else ("docker-compose",)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    port = free_port()
    own = {
        "NELBO_PORT": str(port),
        "NELBO_TAG": "test",
        "NELBO_SECRETS": str(tmp_path_factory.mktemp("deploy") / "secrets"),
        "COMPOSE_PROJECT_NAME": f"nelbo-test-{os.getpid()}",
    }
    deployment = Deployment(compose_command(), os.environ | own, f"http://127.0.0.1:{port}")
    subprocess.run([DEPLOY / "make-secrets"], env=deployment.environment, check=True)
    try:
        deployment.up()
        yield deployment
    finally:
        print(deployment.run("logs", "--no-color", "--tail=100"))
        deployment.run("down", "--volumes", "--timeout=20")


@pytest.fixture(scope="module")
def key(deployment: Deployment) -> str:
    """A key as deploy/README.md makes it; it is shown once."""
    return deployment.run(
        "run", "--rm", "--no-deps", "-T", "migrate", "nelbo", "keys", "create", "ann"
    ).strip()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the hand-made model as CSV; every thousandth holds text where a number belongs."""
    numbers, codes = sample(ROWS, seed=2)
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    with path.open("w") as out:
        out.write("id,length,colour,width,weight\n")
        for row, (values, code) in enumerate(zip(numbers, codes[:, 0], strict=True)):
            length, width, weight = (repr(float(value)) for value in values)
            out.write(
                f"r{row},{length if row % 1000 else 'long'},"
                f"{('red', 'green', 'blue')[code]},{width},{weight}\n"
            )
    return path


def test_a_job_from_outside_ends_in_a_download_and_outlives_a_restart(
    deployment: Deployment, key: str, table: Path, tmp_path: Path
) -> None:
    artifact = linear_artifact(tmp_path / "linear")
    with Client(deployment.url, key) as client:
        version = client.models.push(artifact)
        job = client.jobs.score(f"linear@{version.version}", table).wait(timeout_s=120)
        scores = pq.read_table(job.results("parquet").save(tmp_path / "scores.parquet")).sort_by(
            "row"
        )
        errors = list(job.errors())
    assert [error.row for error in errors] == list(range(0, ROWS, 1000))
    assert len(errors) + len(scores) == ROWS

    expected = Engine.load(artifact).score(as_text(table))
    assert np.array_equal(scores["row"].to_numpy(), expected.rows)
    assert np.array_equal(scores["nelbo"].to_numpy(), expected.nelbo)

    deployment.run("stop", "--timeout=60")
    assert "database system is shut down" in deployment.run(
        "logs", "--no-color", "--tail=5", "postgres"
    )
    deployment.run("down")
    deployment.up()
    with Client(deployment.url, key) as client:
        again = client.jobs.get(job.id).results("parquet").save(tmp_path / "again.parquet")
    assert pq.read_table(again).sort_by("row").equals(scores)


def as_text(table: Path) -> pa.RecordBatch:
    """The file's rows with every cell as text, which is how CSV enters the engine."""
    names, *lines = (line.split(",") for line in table.read_text().splitlines())
    return pa.record_batch([pa.array(cells) for cells in zip(*lines, strict=True)], names=names)


def test_nobody_without_a_key_is_answered(deployment: Deployment) -> None:
    with (
        Client(deployment.url, "nb_0000000000000000_" + "0" * 43) as client,
        pytest.raises(NotAuthenticated),
    ):
        list(client.jobs.list())


def test_a_revoked_key_is_refused_without_a_restart(deployment: Deployment) -> None:
    run = partial(deployment.run, "run", "--rm", "--no-deps", "-T", "migrate", "nelbo", "keys")
    key = run("create", "bob").strip()
    with Client(deployment.url, key) as client:
        assert list(client.jobs.list()) == []
        run("revoke", key[:19])
        with pytest.raises(NotAuthenticated, match="revoked"):
            until(partial(refused, client), "the key to be refused", 20)


def refused(client: Client) -> bool:
    list(client.jobs.list())
    return False


@pytest.mark.parametrize("service", OURS)
def test_our_containers_may_do_nothing_but_their_work(deployment: Deployment, service: str) -> None:
    container = deployment.container(service)
    assert container["Config"]["User"] == "10001:10001"
    limits = container["HostConfig"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["CapDrop"] == ["ALL"]
    assert limits["CapAdd"] is None
    assert limits["SecurityOpt"] == ["no-new-privileges:true"]
    for limit in (limits["Memory"], limits["NanoCpus"]):
        assert isinstance(limit, int)
        assert limit > 0
    assert isinstance(limits["Tmpfs"], dict)
    assert "noexec" in limits["Tmpfs"]["/tmp"]


def test_only_the_api_is_reachable_and_only_from_this_machine(deployment: Deployment) -> None:
    published = {}
    for service in ("postgres", "redis", *OURS):
        ports = deployment.container(service)["NetworkSettings"]["Ports"]
        assert isinstance(ports, dict)
        published[service] = [
            binding["HostIp"] for bindings in ports.values() for binding in bindings or ()
        ]
    assert published == {"postgres": [], "redis": [], "worker": [], "api": ["127.0.0.1"]}


def test_no_secret_shows_in_descriptions_and_logs(deployment: Deployment) -> None:
    folder = Path(deployment.environment["NELBO_SECRETS"])
    names = (
        "postgres_password",
        "broker_url",
        *(f"{role}_database_url" for role in ("migrate", "api", "worker")),
    )
    secrets = [re.sub(r".*:(.+)@.*", r"\1", (folder / name).read_text()) for name in names]
    shown = deployment.run("logs", "--no-color") + "".join(
        json.dumps(deployment.container(service)) for service in ("postgres", "redis", *OURS)
    )
    assert not [secret for secret in secrets if secret in shown]


RUNS_A_PROGRAM = """
import psycopg
from pathlib import Path
url = Path("/run/secrets/{role}_database_url").read_text().replace("+psycopg", "")
try:
    psycopg.connect(url).execute("COPY (SELECT 1) TO PROGRAM 'id'")
except psycopg.errors.InsufficientPrivilege:
    print("refused")
"""


@pytest.mark.parametrize("role", OURS)
def test_no_container_of_ours_starts_programs_on_the_databases(
    deployment: Deployment, role: str
) -> None:
    said = deployment.run(
        "exec", "-T", role, "python", "-P", "-c", RUNS_A_PROGRAM.format(role=role)
    )
    assert said.strip() == "refused"


def test_several_apis_are_one_service(deployment: Deployment, key: str) -> None:
    first = int(deployment.url.rpartition(":")[2])
    ranged = replace(
        deployment, environment=deployment.environment | {"NELBO_PORT": f"{first}-{first + 7}"}
    )
    ranged.run("up", "--detach", "--no-build", "--scale", "api=2", "api")
    jobs = []
    for number in ("1", "2"):
        address = f"http://{ranged.run('port', '--index', number, 'api', '8765').strip()}"
        until(partial(answers, address), f"{address} to answer", 60)
        with Client(address, key) as client:
            jobs.append([job.id for job in client.jobs.list()])
    assert jobs[0] == jobs[1] != []
    deployment.run("up", "--detach", "--no-build", "--scale", "api=1", "api")


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False
