"""Training in this process: a frame in, a model out, the same as the command's."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import nelbo
from nelbo.errors import InvalidInput
from nelbo.model import NelboWarning, TableModel
from training.config import Config
from training.data import TrainingSource
from training.pipeline import train

N = 1_000
STEPS: dict[str, Any] = {"min_steps": 20, "max_steps": 20, "contaminated": 0.0}


def frame() -> pd.DataFrame:
    """Types and spellings that only pandas and text have."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, N)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, N), unit="D")
    return pd.DataFrame(
        {
            "x": rng.normal(group).astype("float32"),
            "count": pd.Series(rng.poisson(3, N), dtype="Int64").mask(group == 1),
            "group": pd.Categorical(np.array(["u", "v", "w"])[group], ["u", "v", "w", "never"]),
            "paid": np.where(group > 0, "yes", "no"),
            "day": days.strftime("%d.%m.%Y"),
            "flag": rng.integers(0, 2, N).astype(bool),
        }
    )


@pytest.fixture(scope="module")
def model() -> TableModel:
    with pytest.warns(NelboWarning, match="column 'day': .* is read as the date"):
        return nelbo.fit(frame(), quick=True, name="frame", **STEPS)


def test_a_model_fitted_to_a_frame_can_be_asked_and_has_a_report(model: TableModel) -> None:
    assert model.name == "frame"
    assert model.columns == tuple(frame().columns)
    assert model.report is not None
    assert "<html" in model.report.read_text("utf-8")
    assert len(model.score(frame()[:50])) == 50


def test_made_rows_have_the_types_and_the_spelling_of_the_frame(model: TableModel) -> None:
    for made_rows in (model.generate(50), model.augment(frame()), model.reconstruct(frame())):
        assert made_rows.dtypes.equals(frame().dtypes)
        assert set(made_rows["paid"].dropna()) <= {"yes", "no"}
        assert pd.to_datetime(made_rows["day"].dropna(), format="%d.%m.%Y").notna().all()


def test_a_frame_gives_the_model_that_its_file_gives(model: TableModel, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pandas(frame()), tmp_path / "frame.parquet")
    config = Config.quick().model_copy(update=STEPS)
    source = TrainingSource(tmp_path / "frame.parquet")
    run = train(source, "frame", tmp_path / "out", config, 0, None, lambda *_: None)
    assert run.artifact.digest == model.engine.artifact.digest
    with pytest.warns(NelboWarning, match="column 'day'"):
        by_path = nelbo.fit(tmp_path / "frame.parquet", quick=True, name="frame", **STEPS)
    assert by_path.engine.artifact.digest == model.engine.artifact.digest


def test_the_temporary_artifact_goes_with_the_model_and_a_saved_one_stays(tmp_path: Path) -> None:
    passing = nelbo.fit(frame()[["x", "flag"]], **STEPS)
    folder = passing.engine.artifact.folder
    saved = passing.save(tmp_path / "saved")
    rows = passing.generate(5, seed=1)
    del passing
    gc.collect()
    assert not folder.exists()
    assert nelbo.load(saved).generate(5, seed=1).equals(rows)


def test_training_leaves_torch_as_it_was() -> None:
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    try:
        state = torch.random.get_rng_state()
        nelbo.fit(frame()[["x", "flag"]], **STEPS)
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.equal(torch.random.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


def test_an_array_is_a_table_of_numbers() -> None:
    numbers = np.random.default_rng(0).normal(size=(N, 3))
    model = nelbo.fit(numbers, **STEPS)
    assert model.columns == ("x0", "x1", "x2")
    far = np.vstack([numbers[:4], [9.0, 9.0, 9.0]])
    assert model.score(far)["surprise"].idxmax() == 4
    assert list(model.generate(2).columns) == ["x0", "x1", "x2"]


def test_notices_of_the_training_are_warnings_at_the_line_of_the_user() -> None:
    named = frame()[["x"]].assign(name=[f"name {row}" for row in range(N)])
    with pytest.warns(NelboWarning, match="column 'name' looks like an identifier") as caught:
        model = nelbo.fit(named, **STEPS)
    assert list(model.generate(5).columns) == ["x", "name"]
    assert list(model.generate(5, identifiers=False).columns) == ["x"]
    assert {Path(warning.filename).name for warning in caught} == {Path(__file__).name}


def test_what_cannot_be_used_is_refused_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (frame(), {"epoch": 3}, "the settings: epoch: .* known keys are learning_rate"),
        (frame(), {"rare": 0}, "the settings: rare: "),
        (frame()[:5], {}, "5 usable rows .* are too few"),
        (np.zeros(3), {}, "1 dimensions"),
        ([1, 2], {}, "list is not a data frame"),
    ]
    for data, settings, words in wrong:
        with pytest.raises(InvalidInput, match=words):
            nelbo.fit(data, **settings)
    assert list(tmp_path.iterdir()) == []
