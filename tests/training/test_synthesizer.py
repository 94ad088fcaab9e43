"""NelboSynthesizer by SDV's contract, and in SDMetrics' reports."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nelbo
from nelbo.errors import InvalidInput, NotReady
from training.synthesizer import NelboSynthesizer

N = 1_000


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, N)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, N), unit="D")
    return pd.DataFrame(
        {
            "x": rng.normal(3.0 * group),
            "count": pd.Series(rng.poisson(3, N), dtype="Int64").mask(group == 1),
            "code": rng.integers(1, 4, N),
            "group": pd.Categorical(np.array(["u", "v", "w"])[group]),
            "kind": np.array(["p", "q", "r"])[group],
            "day": days,
            "flag": rng.integers(0, 2, N).astype(bool),
        }
    )


METADATA: dict[str, Any] = {
    "columns": {
        "x": {"sdtype": "numerical"},
        "count": {"sdtype": "numerical"},
        "code": {"sdtype": "categorical"},
        "group": {"sdtype": "categorical"},
        "kind": {"sdtype": "categorical"},
        "day": {"sdtype": "datetime"},
        "flag": {"sdtype": "boolean"},
    }
}


class OfSdv:
    """The metadata of SDV, as far as it is asked."""

    def to_dict(self) -> dict[str, Any]:
        return {"tables": {"table": METADATA}, "METADATA_SPEC_VERSION": "V1"}


@pytest.fixture(scope="module")
def synthesizer() -> NelboSynthesizer:
    return nelbo.NelboSynthesizer(OfSdv(), quick=True, contaminated=0.0).fit(frame())


def test_samples_have_the_columns_types_and_categories_of_the_data(
    synthesizer: NelboSynthesizer,
) -> None:
    samples = synthesizer.sample(num_rows=200)
    assert len(samples) == 200
    assert samples.dtypes.equals(frame().dtypes)
    for name in ("code", "group", "kind", "flag"):
        assert set(samples[name]) <= set(frame()[name])
    assert not samples.equals(synthesizer.sample(num_rows=200))
    assert synthesizer.sample(20, seed=1).equals(synthesizer.sample(30, seed=1)[:20])


def test_the_metadata_decides_kinds_where_it_says_another_one_than_the_values_do(
    synthesizer: NelboSynthesizer,
) -> None:
    kinds = {column.name: column.kind for column in synthesizer.model.schema.columns}
    assert kinds == {
        "x": "continuous",
        "count": "integer",
        "code": "categorical",
        "group": "categorical",
        "kind": "categorical",
        "day": "datetime",
        "flag": "boolean",
    }


def test_a_saved_synthesizer_makes_the_same_rows_of_the_same_types(
    synthesizer: NelboSynthesizer, tmp_path: Path
) -> None:
    synthesizer.save(tmp_path / "saved")
    again = NelboSynthesizer.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(again.sample(50, seed=3), synthesizer.sample(50, seed=3))
    assert nelbo.load(tmp_path / "saved").generate(5, seed=3).equals(again.sample(5, seed=3))


def test_reports_of_sdmetrics_run_on_samples(synthesizer: NelboSynthesizer) -> None:
    reports = pytest.importorskip("sdmetrics.reports")
    samples = synthesizer.sample(N, seed=0)
    tables = ({"table": frame()}, {"table": samples}, OfSdv().to_dict())
    diagnosis = reports.DiagnosticReport()
    diagnosis.generate(*tables, verbose=False)
    assert diagnosis.get_score() > 0.99
    quality = reports.QualityReport()
    quality.generate(*tables, verbose=False)
    assert quality.get_score() > 0.85


def test_what_cannot_be_used_is_refused_in_words() -> None:
    with pytest.raises(NotReady, match="call fit"):
        NelboSynthesizer().sample(3)
    with pytest.raises(InvalidInput, match="columns that the data lacks: absent"):
        NelboSynthesizer({"columns": {"absent": {"sdtype": "id"}}}).fit(frame())
    with pytest.raises(InvalidInput, match="of 2 tables"):
        NelboSynthesizer({"tables": {"a": {}, "b": {}}}).fit(frame())
