"""NELBO: the detector with the signs and names of PyOD (Zhao, Nasrullah & Li 2019), so that its
users change one import."""

from numbers import Real
from typing import Literal, Self, overload

import numpy as np
from scipy.special import erf
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .config import Config
from .estimator import CONTAMINATION, Floats, Labels, NelboDetector, Table

Method = Literal["linear", "unify"]


class NELBO(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Scores rows by their negative ELBO in nats: higher is more anomalous. X may be what
    NelboDetector takes.

    >>> rows = np.random.default_rng(0).normal(size=(500, 3))
    >>> detector = NELBO(contamination=0.01).fit(rows)
    >>> detector.labels_.sum().item()
    5
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).tolist()
    [0, 1]

    Attributes after `fit`:
        decision_scores_: float64[n] in nats, the score of each row fitted to, as of a row that the
        detector has not seen.
        threshold_: the score in nats that the share `contamination` of the rows fitted to exceeds.
        labels_: int64[n], 1 for the rows fitted to whose score exceeds threshold_, else 0.
        detector_: the NelboDetector that was fitted.

    The other methods are for new rows. Use decision_scores_ and labels_ for the rows fitted to,
    which the detector remembers and would score too low.
    """

    detector_: NelboDetector
    decision_scores_: Floats
    threshold_: float
    labels_: Labels

    def __init__(
        self,
        contamination: float = CONTAMINATION,
        random_state: int | np.random.RandomState | None = 0,
        contaminated: float | None = None,
        config: Config | None = None,
    ) -> None:
        """Nothing is checked before `fit`.

        contamination: share of the rows to fit to that are outliers, above 0 and at most 0.5. It
        changes threshold_ alone. random_state, contaminated, config: as for NelboDetector.
        """
        self.contamination = contamination
        self.random_state = random_state
        self.contaminated = contaminated
        self.config = config

    def fit(self, X: Table, y: object = None) -> Self:  # PyOD's name
        """Fit to X[n, d]; y is ignored. Raises what NelboDetector.fit raises."""
        if not isinstance(self.contamination, Real):
            raise ValueError(
                f"contamination is {self.contamination!r}; give a share above 0 and at most 0.5"
            )
        self.detector_ = NelboDetector(
            self.random_state, self.contaminated, self.config, self.contamination
        ).fit(X)
        self.decision_scores_ = -self.detector_.training_scores_
        self.threshold_ = float(
            np.percentile(self.decision_scores_, 100 * (1 - self.contamination))
        )
        self.labels_ = self._labels(self.decision_scores_)
        return self

    def fit_predict(self, X: Table, y: object = None) -> Labels:  # PyOD's name
        """Fit to X and give its labels_."""
        self.fit(X, y)
        return self.labels_

    def decision_function(self, X: Table) -> Floats:  # PyOD's name
        """Scores float64[n] of new rows in nats, higher for anomalies. Raises NotFittedError and
        ValueError."""
        check_is_fitted(self)
        return -self.detector_.score_samples(X)

    @overload
    def predict(self, X: Table, return_confidence: Literal[False] = False) -> Labels: ...
    @overload
    def predict(self, X: Table, return_confidence: Literal[True]) -> tuple[Labels, Floats]: ...
    def predict(self, X: Table, return_confidence: bool = False) -> Labels | tuple[Labels, Floats]:
        """1 for outliers and 0 for others, int64[n], of new rows; with their confidence if that is
        asked for."""
        scores = self.decision_function(X)
        labels = self._labels(scores)
        return (labels, self._confidence(scores)) if return_confidence else labels

    @overload
    def predict_proba(
        self, X: Table, method: Method = "linear", return_confidence: Literal[False] = False
    ) -> Floats: ...
    @overload
    def predict_proba(
        self, X: Table, method: Method, return_confidence: Literal[True]
    ) -> tuple[Floats, Floats]: ...
    @overload
    def predict_proba(
        self, X: Table, *, return_confidence: Literal[True]
    ) -> tuple[Floats, Floats]: ...
    def predict_proba(
        self, X: Table, method: Method = "linear", return_confidence: bool = False
    ) -> Floats | tuple[Floats, Floats]:
        """How likely new rows are normal and outliers, float64[n, 2]; with their confidence if that
        is asked for.

        method: "linear" maps the lowest of decision_scores_ to 0 and the highest to 1; "unify"
        takes the error function of the
            scores standardised by decision_scores_ (Kriegel et al. 2011). Both are cut to [0, 1].
        """
        scores = self.decision_function(X)
        if method == "linear":
            low = self.decision_scores_.min()
            high = self.decision_scores_.max()
            outlier = (scores - low) / (high - low if high > low else 1.0)
        elif method == "unify":
            mean = self.decision_scores_.mean()
            deviation = self.decision_scores_.std()
            outlier = erf((scores - mean) / ((deviation or 1.0) * np.sqrt(2)))
        else:
            raise ValueError(f'method is {method!r}; give "linear" or "unify"')
        outlier = np.clip(outlier, 0, 1)
        shares = np.column_stack([1 - outlier, outlier])
        return (shares, self._confidence(scores)) if return_confidence else shares

    def predict_confidence(self, X: Table) -> Floats:  # PyOD's name
        """How likely each label is to stay the same with another table of as many rows to fit to
        (Perini et al. 2020).

        float64[n] in [0, 1], for new rows.
        """
        return self._confidence(self.decision_function(X))

    def _labels(self, scores: Floats) -> Labels:
        return (scores > self.threshold_).astype(np.int64)

    def _confidence(self, scores: Floats) -> Floats:
        n = len(self.decision_scores_)
        lower = np.searchsorted(np.sort(self.decision_scores_), scores, side="right")
        of_outlier = 1 - binom.cdf(n - int(n * self.contamination), n, (1 + lower) / (2 + n))
        confidence: Floats = np.where(self._labels(scores) == 1, of_outlier, 1 - of_outlier)
        return confidence
