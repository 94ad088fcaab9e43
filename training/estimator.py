"""NelboDetector: anomaly scores in scikit-learn's convention, by the whole road from a schema to ONNX Runtime."""

import tempfile
import warnings
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nelbo.engine import Engine, score_encoded
from nelbo.errors import InvalidInput
from nelbo.schema import Column, Schema
from training.config import Config
from training.data import MIN_ROWS, Rows, Split, split_rows
from training.export import export_model
from training.fit import fit_rows

Floats = NDArray[np.float64]


class NelboDetector:
    """Scores rows of numbers by their ELBO after a fit to normal rows.

    >>> detector = NelboDetector(random_state=0).fit(np.random.default_rng(0).normal(size=(500, 3)))
    >>> near, far = detector.score_samples([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    >>> bool(near > far)
    True
    """

    def __init__(self, random_state: int = 0, contaminated: float = 0.0, config: Config | None = None) -> None:
        """`contaminated` is the share of the rows to fit to that may be anomalies; `config` takes the place of all defaults."""
        self.random_state, self.contaminated, self.config = random_state, contaminated, config

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # scikit-learn's name
        """Fit to normal rows X float[n, d]; NaN is a missing value, y is not looked at. Raises InvalidInput."""
        rows = _rows(X)
        if len(rows) < MIN_ROWS:
            raise InvalidInput(f"{len(rows)} rows are too few to fit; Nelbo wants {MIN_ROWS} at least")
        config = self.config or Config.quick(self.contaminated)
        schema = Schema(columns=tuple(Column(name=f"x{j}", kind="continuous") for j in range(rows.numbers.shape[1])))
        parts = split_rows(len(rows), config.held_out, self.random_state)
        split = Split(np.sort(np.concatenate([parts.fit, parts.calibrate])), parts.stop, parts.calibrate[:0])
        vae, _ = fit_rows(schema, rows, split, config, self.random_state, lambda *_: None)
        with tempfile.TemporaryDirectory(prefix="nelbo-detector-") as made:
            stop = rows.take(split.stop)
            exported = export_model(Path(made), vae, "detector", schema, config, self.random_state, stop)
            for notice in exported.notices:
                warnings.warn(notice, RuntimeWarning, stacklevel=2)
            self.engine_ = Engine.load(Path(made))
            self.score_samples(rows.numbers[:1])  # reads the graph, which is all that scoring needs
        return self

    def score_samples(self, X: ArrayLike) -> Floats:  # scikit-learn's name
        """The ELBO float64[n] of each row in nats, −nelbo: higher is more normal."""
        rows = _rows(X)
        return -score_encoded(self.engine_, rows.numbers, rows.codes)[0]


def _rows(x: ArrayLike) -> Rows:
    numbers = np.array(x, dtype=np.float64)
    if numbers.ndim != 2 or not numbers.shape[1]:
        raise InvalidInput(f"an array of shape {numbers.shape} is no table; give rows and columns, [n, d]")
    if np.isinf(numbers).any():
        raise InvalidInput("the table holds an infinite number; Nelbo wants finite ones, or NaN where a value is missing")
    return Rows(numbers, np.empty((len(numbers), 0), dtype=np.int64))
