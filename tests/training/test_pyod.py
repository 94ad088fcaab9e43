"""NELBO under PyOD's names and signs, asked what PyOD's own tests ask of each of its detectors."""

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import training
from training.config import Config
from training.estimator import NelboDetector
from training.pyod import NELBO

RNG = np.random.default_rng(0)
CONTAMINATION = 0.1
Y_TRAIN, Y_TEST = np.repeat([0, 1], [180, 20]), np.repeat([0, 1], [90, 10])


def rows(y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Normal rows in a clump, odd ones all over the place."""
    shape = len(y), 2
    return np.where(y[:, None] == 1, RNG.uniform(-9, 9, shape), RNG.normal(size=shape))


X_TRAIN, X_TEST = rows(Y_TRAIN), rows(Y_TEST)
QUICK = Config(min_steps=20, max_steps=20, threads=1)


@pytest.fixture(scope="module")
def detector() -> NELBO:
    return NELBO(contamination=CONTAMINATION, config=QUICK).fit(X_TRAIN)


def test_the_attributes_of_a_fit(detector: NELBO) -> None:
    assert detector.decision_scores_.shape == detector.labels_.shape == Y_TRAIN.shape
    assert detector.threshold_ == np.percentile(detector.decision_scores_, 90)
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > detector.threshold_)
    assert detector.labels_.sum() == 20


def test_higher_is_more_anomalous_in_the_rows_fitted_to_and_in_new_ones(detector: NELBO) -> None:
    assert roc_auc_score(Y_TRAIN, detector.decision_scores_) > 0.9
    scores = detector.decision_function(X_TEST)
    assert scores.shape == Y_TEST.shape
    assert roc_auc_score(Y_TEST, scores) > 0.9


def test_scores_are_those_of_the_other_name_with_the_other_sign(detector: NELBO) -> None:
    other = NelboDetector(config=QUICK, contamination=CONTAMINATION).fit(X_TRAIN)
    np.testing.assert_array_equal(detector.decision_function(X_TEST), -other.score_samples(X_TEST))
    np.testing.assert_array_equal(detector.decision_scores_, -other.training_scores_)
    np.testing.assert_array_equal(detector.predict(X_TEST) == 1, other.predict(X_TEST) == -1)


def test_predictions_are_0_and_1(detector: NELBO) -> None:
    labels = detector.predict(X_TEST)
    assert labels.shape == Y_TEST.shape
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal(labels, detector.decision_function(X_TEST) > detector.threshold_)


@pytest.mark.parametrize("method", ["linear", "unify"])
def test_probabilities_lie_in_0_to_1_and_add_up(detector: NELBO, method: Any) -> None:
    shares = detector.predict_proba(X_TEST, method=method)
    assert shares.shape == (len(Y_TEST), 2)
    assert shares.min() >= 0
    assert shares.max() <= 1
    np.testing.assert_allclose(shares.sum(1), 1)
    assert roc_auc_score(Y_TEST, shares[:, 1]) > 0.9


def test_another_method_of_probabilities_is_refused(detector: NELBO) -> None:
    with pytest.raises(ValueError, match="method is 'something'"):
        detector.predict_proba(X_TEST, method="something")  # type: ignore[call-overload]


def test_confidences_lie_in_0_to_1_alone_and_beside_labels_and_probabilities(
    detector: NELBO,
) -> None:
    confidence = detector.predict_confidence(X_TEST)
    assert confidence.shape == Y_TEST.shape
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    labels, beside_labels = detector.predict(X_TEST, return_confidence=True)
    shares, beside_shares = detector.predict_proba(X_TEST, method="linear", return_confidence=True)
    np.testing.assert_array_equal(labels, detector.predict(X_TEST))
    np.testing.assert_array_equal(shares, detector.predict_proba(X_TEST))
    for beside in (beside_labels, beside_shares):
        np.testing.assert_array_equal(beside, confidence)


def test_a_label_far_from_the_threshold_is_sure(detector: NELBO) -> None:
    assert detector.predict_confidence([[0.0, 0.0], [50.0, 50.0]]).min() > 0.95


def test_fit_predict_gives_the_labels_of_the_rows_fitted_to(detector: NELBO) -> None:
    labels = clone(detector).fit_predict(X_TRAIN)
    np.testing.assert_array_equal(labels, detector.labels_)


def test_it_is_cloned_pickled_and_at_hand_in_the_package(detector: NELBO) -> None:
    assert clone(detector).get_params() == detector.get_params()
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(
        again.decision_function(X_TEST), detector.decision_function(X_TEST)
    )
    assert training.NELBO is NELBO


def test_what_is_wrong_is_said_in_the_same_words(detector: NELBO) -> None:
    with pytest.raises(NotFittedError):
        NELBO().predict(X_TEST)
    for contamination in (0, 0.7, None, "auto"):
        with pytest.raises(ValueError, match="contamination is"):
            NELBO(contamination=contamination).fit(X_TRAIN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 features, but NelboDetector is expecting 2"):
        detector.decision_function(X_TEST[:, :1])
