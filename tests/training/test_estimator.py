"""NelboDetector in scikit-learn's convention: on arrays, in scikit-learn's tools, pickled, with
thresholds that hold."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import training
import training.estimator
import training.pyod
from training.config import Config
from training.estimator import NelboDetector

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(4, 4))
NORMAL = RNG.normal(size=(400, 4)) @ MIX
FRESH = RNG.normal(size=(2_000, 4)) @ MIX
ODD = 4 * RNG.normal(size=(50, 4)) @ MIX
QUICK = Config(min_steps=20, max_steps=20, threads=1)
SHORTEST = Config(min_steps=4, max_steps=4, threads=1)
IS_ODD = np.repeat([0, 1], [400, 50])
BOTH = np.vstack([NORMAL, ODD])

WAIVED = {
    "check_outliers_fit_predict": "fit_predict(X) judges rows by detectors that have not seen them,"
    " fit(X).predict(X) by one "
    "that has. The check wants the same labels from both, which only detectors can give that keep"
    " no rows; LocalOutlierFactor "
    "gives two answers as well, and hides fit_predict where `novelty` is true."
}


@pytest.fixture(scope="module")
def fitted() -> NelboDetector:
    return NelboDetector(config=QUICK).fit(NORMAL)


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [NelboDetector(config=SHORTEST)], expected_failed_checks=lambda _: WAIVED
)
def test_it_keeps_what_scikit_learn_checks(estimator: NelboDetector, check: Any) -> None:
    check(estimator)


def test_it_tells_odd_rows_from_normal_ones() -> None:
    detector = NelboDetector(random_state=0, config=QUICK).fit(NORMAL[:300])
    scores = detector.score_samples(np.vstack([NORMAL[300:], ODD]))
    assert scores.shape == (150,)
    assert roc_auc_score(np.repeat([1, 0], [100, 50]), scores) > 0.9


def test_the_same_seed_gives_the_same_scores() -> None:
    first, again = (
        NelboDetector(random_state=3, config=QUICK).fit(NORMAL).score_samples(ODD) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_a_random_state_draws_another_seed_at_each_fit_and_the_same_ones_again() -> None:
    def two_fits() -> list[np.ndarray[Any, Any]]:
        detector = NelboDetector(random_state=np.random.RandomState(0), config=SHORTEST)
        return [detector.fit(NORMAL).training_scores_ for _ in range(2)]

    (first, second), (again, _) = two_fits(), two_fits()
    assert (first != second).any()
    np.testing.assert_array_equal(first, again)


def test_a_missing_random_state_is_a_new_one() -> None:
    first, second = (
        NelboDetector(random_state=None, config=SHORTEST).fit(NORMAL).training_scores_
        for _ in range(2)
    )
    assert (first != second).any()


def test_missing_values_are_scored() -> None:
    x = NORMAL.copy()
    x[::5, 1] = np.nan
    assert np.isfinite(NelboDetector(config=QUICK).fit(x).score_samples(x)).all()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(5), "2D array"),
        (NORMAL[:5], "minimum of 10"),
        (np.full((50, 2), np.inf), "infinity"),
        (np.empty((50, 0)), "0 feature"),
    ],
)
def test_what_it_cannot_fit_is_refused_in_words(x: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NelboDetector(config=QUICK).fit(np.asarray(x, dtype=float))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"contamination": 0}, "contamination is 0; give a share above 0"),
        ({"contamination": 0.6}, "at most 0.5"),
        ({"contamination": "much"}, "contamination is 'much'"),
        ({"contaminated": 0.3}, "contaminated is 0.3; give a share from 0 to below 0.2"),
        ({"contaminated": "much"}, "contaminated is 'much'"),
        ({"random_state": "seed"}, "seed"),
        ({"config": {"epochs": 1}}, "give a training.config.Config"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused_at_fit(
    parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        NelboDetector(**parameters).fit(NORMAL)


def test_a_detector_that_is_not_fitted_says_so() -> None:
    for method in ("score_samples", "decision_function", "predict"):
        with pytest.raises(NotFittedError):
            getattr(NelboDetector(), method)(NORMAL)


def test_another_number_of_columns_is_refused(fitted: NelboDetector) -> None:
    with pytest.raises(ValueError, match="2 features, but NelboDetector is expecting 4"):
        fitted.score_samples(NORMAL[:, :2])


def test_it_is_at_hand_in_the_package() -> None:
    assert training.NelboDetector is NelboDetector
    with pytest.raises(AttributeError, match="nothing"):
        _ = training.nothing


def test_a_clump_of_anomalies_among_the_rows_fitted_to_does_not_make_new_ones_look_normal() -> None:
    clump = np.full((15, 4), 6.0) + 0.01 * RNG.normal(size=(15, 4))
    train, test = np.vstack([NORMAL[:300], clump[:10]]), np.vstack([NORMAL[300:], clump[10:]])
    trusting, doubting, warned = (
        NelboDetector(contaminated=share).fit(train).score_samples(test)
        for share in (0.0, None, 0.05)
    )
    is_normal = np.repeat([1, 0], [100, 5])
    assert roc_auc_score(is_normal, trusting) < 0.5
    assert roc_auc_score(is_normal, doubting) > 0.99
    assert (warned[100:] < doubting[100:]).all()


def test_of_new_normal_rows_about_the_contamination_is_flagged() -> None:
    flagged = NelboDetector(config=QUICK, contamination=0.1).fit(NORMAL).predict(FRESH) == -1
    assert 0.05 < flagged.mean() < 0.16


def test_of_the_rows_fitted_to_the_contamination_is_flagged_and_the_odd_ones_first() -> None:
    flagged = NelboDetector(config=QUICK, contamination=0.1).fit_predict(BOTH) == -1
    assert flagged.sum() == 45
    assert flagged[IS_ODD == 1].mean() > 0.5


def test_the_contamination_moves_the_offset_alone() -> None:
    few, many = (
        NelboDetector(config=QUICK, contamination=share).fit(NORMAL) for share in (0.01, 0.2)
    )
    assert few.offset_ < many.offset_
    np.testing.assert_array_equal(few.score_samples(ODD), many.score_samples(ODD))


def test_an_automatic_contamination_is_the_share_that_may_be_contaminated() -> None:
    detectors = [
        NelboDetector(config=SHORTEST.model_copy(update={"contaminated": share}))
        for share in (None, 0.0, 0.05)
    ]
    flagged = [int((detector.fit_predict(NORMAL) == -1).sum()) for detector in detectors]
    assert flagged == [40, 40, 20]


def test_scores_decisions_and_predictions_agree(fitted: NelboDetector) -> None:
    decisions = fitted.decision_function(BOTH)
    np.testing.assert_array_equal(decisions, fitted.score_samples(BOTH) - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(BOTH), np.where(decisions >= 0, 1, -1))


def test_a_copy_by_any_road_gives_the_same_scores(fitted: NelboDetector, tmp_path: Path) -> None:
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    copies = [pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), joblib.load(stream)]
    for detector in [*copies, pickle.loads(pickle.dumps(copies[0]))]:
        np.testing.assert_array_equal(detector.score_samples(ODD), fitted.score_samples(ODD))


def test_other_processes_score_and_fit() -> None:
    detector = NelboDetector(config=SHORTEST).fit(NORMAL)
    here = detector.score_samples(ODD)
    there = joblib.Parallel(n_jobs=2)(
        joblib.delayed(detector.score_samples)(part) for part in (ODD[:25], ODD[25:])
    )
    np.testing.assert_array_equal(np.concatenate(there), here)
    search = GridSearchCV(
        clone(detector),
        {"contamination": [0.05, 0.2]},
        scoring="roc_auc",
        cv=StratifiedKFold(2),
        n_jobs=2,
    )
    assert search.fit(BOTH, 1 - IS_ODD).best_score_ > 0.5


def test_a_fit_leaves_the_threads_and_random_numbers_of_torch_to_the_caller() -> None:
    before = torch.get_num_threads(), torch.random.get_rng_state()
    NelboDetector(config=SHORTEST.model_copy(update={"threads": before[0] + 1})).fit(NORMAL)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_it_is_a_step_of_a_pipeline_and_of_a_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), NelboDetector(config=SHORTEST))
    assert pipeline.fit(NORMAL).predict(ODD).shape == (50,)
    assert (
        cross_val_score(pipeline, BOTH, 1 - IS_ODD, scoring="roc_auc", cv=StratifiedKFold(2)).mean()
        > 0.5
    )


def test_its_parameters_are_read_set_and_cloned() -> None:
    detector = clone(NelboDetector(contaminated=0.1)).set_params(random_state=3, contamination=0.2)
    assert detector.get_params() == {
        "config": None,
        "contaminated": 0.1,
        "contamination": 0.2,
        "random_state": 3,
    }
    assert repr(detector) == "NelboDetector(contaminated=0.1, contamination=0.2, random_state=3)"
