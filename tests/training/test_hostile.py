"""No sound table is refused: whatever its columns hold it trains, scores, generates, and all that
comes out is finite."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from tests.training.hostile import COLUMNS, table, tables
from training.config import Config
from training.data import TrainingSource
from training.pipeline import train

FEW_STEPS = Config(min_steps=5, max_steps=5, epochs=1, widest=32)


def check_all(made: pa.Table, folder: Path) -> None:
    """Train on a table, then use the model in every way."""
    pq.write_table(made, folder / "table.parquet")
    try:
        run = train(
            TrainingSource(folder / "table.parquet"),
            "hostile",
            folder / "artifact",
            FEW_STEPS,
            0,
            None,
            lambda *_: None,
        )
    except InvalidInput as refused:
        if "all of them are identifiers" in refused.message:
            return
        raise
    assert not [
        notice for notice in run.notices if "could not be" in notice or "please report" in notice
    ]
    assert {"manifest.json", "report.html", "MODEL_CARD.md"} <= {
        path.name for path in run.artifact.folder.iterdir()
    }
    engine, rows = Engine.load(folder / "artifact"), made.combine_chunks().to_batches()[0]
    scored = engine.score(rows)
    assert not scored.errors
    assert len(scored.nelbo) == len(made)
    assert np.isfinite(scored.terms).all()
    assert np.isfinite(scored.kl).all()
    assert all(np.isfinite(value) for value in run.artifact.manifest.metrics.values())
    made_rows = engine.generate(0, 0, 40).batch
    assert not engine.score(made_rows).errors
    for batch in (
        made_rows,
        engine.augment(rows, 0, 2, 0, spread=0.5).batch,
        engine.reconstruct(rows, 0, 0).batch,
        engine.reconstruct(rows, 0, 0, mode=True, denoise=True).batch,
        *(engine.explain(rows, name).batch for name in engine.manifest.order[:3]),
    ):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_floating(column.type):
                assert np.isfinite(column.drop_null().to_numpy(zero_copy_only=False)).all(), name


@pytest.mark.parametrize(
    "names", [list(COLUMNS)[i : i + 4] for i in range(0, len(COLUMNS), 4)], ids=", ".join
)
def test_a_table_with_troublesome_columns_trains_and_is_of_use(
    names: list[str], tmp_path: Path
) -> None:
    check_all(table([*names, "continuous"], 40, 0), tmp_path)


@settings(deadline=None, derandomize=True, max_examples=6, suppress_health_check=list(HealthCheck))
@given(made=tables())
def test_any_small_table_trains_and_is_of_use(made: pa.Table) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_all(made, Path(folder))
