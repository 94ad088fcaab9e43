"""NelboDetector in scikit-learn's convention."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import training
from nelbo.errors import InvalidInput
from training.config import Config
from training.estimator import NelboDetector

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(4, 4))
NORMAL = RNG.normal(size=(400, 4)) @ MIX
ODD = 4 * RNG.normal(size=(50, 4)) @ MIX
QUICK = Config(min_steps=20, max_steps=20, threads=1)


def test_it_tells_odd_rows_from_normal_ones() -> None:
    detector = NelboDetector(random_state=0, config=QUICK).fit(NORMAL[:300])
    scores = detector.score_samples(np.vstack([NORMAL[300:], ODD]))
    assert scores.shape == (150,)
    assert roc_auc_score(np.repeat([1, 0], [100, 50]), scores) > 0.9


def test_the_same_seed_gives_the_same_scores() -> None:
    first, again = (NelboDetector(random_state=3, config=QUICK).fit(NORMAL).score_samples(ODD) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_missing_values_are_scored() -> None:
    x = NORMAL.copy()
    x[::5, 1] = np.nan
    assert np.isfinite(NelboDetector(config=QUICK).fit(x).score_samples(x)).all()


@pytest.mark.parametrize(
    ("x", "said"), [(np.zeros(5), "shape"), (NORMAL[:5], "too few"), (np.full((50, 2), np.inf), "infinite"), ([[]], "shape")]
)
def test_what_it_cannot_fit_is_refused_in_words(x: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        NelboDetector(config=QUICK).fit(np.asarray(x, dtype=float))


def test_it_is_at_hand_in_the_package() -> None:
    assert training.NelboDetector is NelboDetector
    with pytest.raises(AttributeError, match="nothing"):
        _ = training.nothing


def test_told_of_anomalies_in_the_training_rows_it_is_not_taken_in_by_a_clump_of_them() -> None:
    clump = np.full((15, 4), 6.0) + 0.01 * RNG.normal(size=(15, 4))
    train, test = np.vstack([NORMAL[:300], clump[:10]]), np.vstack([NORMAL[300:], clump[10:]])
    configs = (QUICK, QUICK.model_copy(update={"contaminated": 0.05}))
    naive, told = (NelboDetector(config=config).fit(train).score_samples(test) for config in configs)
    is_normal = np.repeat([1, 0], [100, 5])
    assert roc_auc_score(is_normal, told) > roc_auc_score(is_normal, naive)
