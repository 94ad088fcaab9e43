"""Engines by digest: fetched once, whole or not at all, and never from a copy that is not what was
stored."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from nelbo import copies
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact, NotFound
from nelbo.storage import artifact_key
from tests.hostile import large_batch_artifact
from tests.worker.stage import Stage
from worker.confined import ConfinedGraphs, ModelLimits
from worker.engines import Engines

ROW = pa.record_batch(
    {"id": ["a"], "length": ["1.5"], "colour": ["red"], "width": ["-2"], "weight": ["10"]}
)


@pytest.fixture
def stage(tmp_path: Path, sqlite_url: str) -> Iterator[Stage]:
    with Stage(tmp_path, sqlite_url) as stage:
        yield stage


def engines(stage: Stage, keep: int = 4) -> Engines:
    """None of them starts a process before its first batch, so that nothing has to be closed."""
    return Engines(
        stage.storage, copies.artifacts(stage.settings.home), ModelLimits(60.0, 2_048), keep
    )


def test_an_engine_is_loaded_once(stage: Stage) -> None:
    version, loaded = stage.version(), engines(stage)
    assert loaded.get(version) is loaded.get(version)


def test_a_model_keeps_little_memory_while_another_one_is_at_work(stage: Stage) -> None:
    """Else the memory that a worker may take is that of all models which it has run lately."""
    greedy = stage.version("greedy", lambda folder: large_batch_artifact(folder, 400))
    loaded, small = engines(stage), stage.version("small")
    for version in (greedy, small):
        loaded.get(version).score(ROW)
    assert process_of(loaded.get(small)) is not None
    assert process_of(loaded.get(greedy)) is None, "it has ended; a next batch starts another"
    assert process_of(loaded.get(small)) is not None, "it holds little"
    loaded.get(greedy).score(ROW)
    assert process_of(loaded.get(greedy)) is not None, "its own next batch would want it"
    for version in (greedy, small):
        confined_graphs(loaded.get(version)).close()


def confined_graphs(engine: Engine) -> ConfinedGraphs:
    assert isinstance(engine.graphs, ConfinedGraphs)
    return engine.graphs


def process_of(engine: Engine) -> object:
    return confined_graphs(engine)._process


def test_an_artifact_is_fetched_once_for_all_processes_of_a_machine(stage: Stage) -> None:
    version = stage.version()
    engines(stage).get(version)
    stage.storage.delete(artifact_key(version.id))
    assert engines(stage).get(version).artifact.digest == version.digest


def test_a_damaged_local_copy_is_fetched_again(stage: Stage) -> None:
    version = stage.version()
    graph = engines(stage).fetch(version) / "score.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert engines(stage).get(version).artifact.digest == version.digest


def test_a_damaged_stored_copy_is_refused_and_leaves_nothing(stage: Stage) -> None:
    version = stage.version()
    stage.storage.put(artifact_key(version.id), stage.packed()[:-400])
    with pytest.raises(InvalidArtifact):
        engines(stage).get(version)
    assert list(copies.artifacts(stage.settings.home).iterdir()) == []


def test_another_artifact_under_the_versions_key_is_refused(stage: Stage) -> None:
    version, other = stage.version("linear"), stage.version("other")
    stage.storage.put(artifact_key(version.id), stage.storage.get(artifact_key(other.id)))
    with pytest.raises(InvalidArtifact, match="digest"):
        engines(stage).get(version)


def test_an_artifact_that_is_gone_is_not_found(stage: Stage) -> None:
    version = stage.version()
    stage.storage.delete(artifact_key(version.id))
    with pytest.raises(NotFound):
        engines(stage).get(version)


def test_many_that_fetch_at_once_all_get_it_whole(stage: Stage) -> None:
    version = stage.version()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: engines(stage).get(version).artifact.digest, range(8)))
    assert set(found) == {version.digest}
    assert [path.name for path in copies.artifacts(stage.settings.home).iterdir()] == [
        version.digest
    ]


def test_only_so_many_engines_stay_in_memory(stage: Stage) -> None:
    first, second = stage.version("first"), stage.version("second")
    loaded = engines(stage, keep=1)
    engine = loaded.get(first)
    loaded.get(second)
    assert loaded.get(first) is not engine
