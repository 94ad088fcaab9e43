"""A p-value follows from the calibration scores of an artifact and from their tail."""

from dataclasses import replace

import numpy as np
import pytest

from nelbo.artifact import Manifest, Tail
from nelbo.engine import Engine
from tests.artifacts import linear_artifact


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(linear_artifact(tmp_path_factory.mktemp("artifact")))


def test_a_p_value_counts_calibration_scores_at_least_as_high(engine: Engine) -> None:
    calibration = np.array(engine.manifest.calibration.scores)
    n = len(calibration)
    at = np.array([calibration[-1] + 1, calibration[-1], calibration[0], calibration[0] - 1])
    assert engine.scorer.p_value(at).tolist() == [1 / (n + 1), 2 / (n + 1), 1.0, 1.0]


@pytest.mark.parametrize("used", [True, False])
def test_a_tail_in_the_manifest_makes_smaller_p_values_only_where_it_is_used(
    engine: Engine, used: bool
) -> None:
    scores = engine.manifest.calibration.scores
    tail = Tail(
        threshold=scores[93],
        excesses=5,
        components=((1.0, 0.1, 1.0),),
        fit=0.5 if used else 0.01,
        used=used,
    )
    calibration = engine.manifest.calibration.model_copy(update={"tail": tail})
    manifest = engine.manifest.model_copy(update={"calibration": calibration})
    tailed = Engine(
        replace(engine.artifact, manifest=Manifest.model_validate_json(manifest.model_dump_json()))
    )
    assert np.array_equal(
        tailed.scorer.p_value(np.array(scores)), engine.scorer.p_value(np.array(scores))
    )
    beyond = scores[-1] + np.array([1.0, 2.0, 1e6])
    if used:
        assert (
            np.diff(tailed.scorer.p_value(beyond), prepend=engine.scorer.p_value(beyond)[0]) < 0
        ).all()
    else:
        assert np.array_equal(tailed.scorer.p_value(beyond), engine.scorer.p_value(beyond))
    assert tailed.scorer.p_value(beyond)[-1] == tailed.manifest.calibration.smallest
