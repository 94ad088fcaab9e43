"""NelboDetector: anomaly scores in scikit-learn's convention. Rows are scored by the exported
artifact, as everywhere."""

import tempfile
import warnings
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nelbo.artifact import MANIFEST, Artifact, digest_of, parse_manifest
from nelbo.engine import Engine
from nelbo.frames import is_frame, is_pandas
from nelbo.schema import Column, Schema

from . import frames
from .calibrate import FOLDS, fold_models
from .config import Config
from .data import CROSS_BELOW, Rows, Split, complete, folds, split_rows
from .exemplars import Exemplars
from .export import export_model
from .fit import fit_rows, torch_for_a_while
from .vae import VAE, score

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Table: TypeAlias = Any
"""An array-like of numbers, or a data frame of pandas, polars, Arrow or another library with
`__arrow_c_stream__`."""

MIN_ROWS = 10
"""scikit-learn's own checks fit to 10 rows, fewer than `nelbo train` takes."""
CONTAMINATION = 0.1
"""The default of scikit-learn's EllipticEnvelope and of PyOD."""
MOST_CONTAMINATED = 0.2


class NelboDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Scores rows by their ELBO after a fit to normal rows. Higher is more normal, in nats.

    >>> rows = np.random.default_rng(0).normal(size=(500, 3))
    >>> detector = NelboDetector(contamination=0.01).fit(rows)
    >>> near, far = detector.score_samples([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    >>> bool(near > far)
    True
    >>> detector.predict([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).tolist()
    [1, -1]

    `predict` is for new rows. The detector remembers the rows that it was fitted to and scores them
    too high, so that `predict` flags few of them. `fit_predict` and `training_scores_` judge them
    as rows that the detector has not seen.

    An array holds numbers, which are all continuous, and NaN where a value is missing. A data frame
    (pandas, polars, Arrow) may also hold text, categories, booleans and dates; its numbers score as
    those of an array. A text column whose values all differ is left out with a warning. A data
    frame to score must have the columns of the one fitted to, in the same order.

    Attributes after `fit`:
        offset_: the score in nats below which `predict` gives -1.
        training_scores_: float64[n] in nats, the score of each row fitted to, as of a row that the
        detector has not seen.
        n_features_in_: the number of columns. feature_names_in_: their names, where all of them are
        strings.
    """

    offset_: float
    training_scores_: Floats

    novelty = True
    """`predict` is for new rows, as in LocalOutlierFactor(novelty=True)."""

    def __init__(
        self,
        random_state: int | np.random.RandomState | None = 0,
        contaminated: float | None = None,
        config: Config | None = None,
        contamination: float | Literal["auto"] = "auto",
    ) -> None:
        """Nothing is checked before `fit`.

        random_state: a seed; None and a RandomState draw another one at each fit.
        contaminated: share of the rows to fit to that are anomalies, from 0 to below 0.2; None if
        it is unknown. It changes the
            scores: the larger it is, the less anomalies that are alike make each other look normal.
            With 0, all rows count as normal.
        config: replaces all defaults of the training, `contaminated` too.
        contamination: share of the rows to fit to that fall below offset_, above 0 and at most 0.5;
        about the same share of new
            normal rows does. It changes offset_ alone. "auto" is `contaminated` if that is above 0,
            else 0.1.
        """
        self.random_state = random_state
        self.contaminated = contaminated
        self.config = config
        self.contamination = contamination

    def fit(self, X: Table, y: object = None) -> Self:  # scikit-learn's name
        """Fit to X[n, d], at least 10 rows, most of them normal; y is ignored.

        Raises ValueError where X or a parameter cannot be used, and TypeError where X is sparse or
        config is no Config.
        """
        config, contamination = self._settings()
        seed = _seed(self.random_state)
        table = self._checked(X, reset=True)
        parts = split_rows(len(table), config.held_out, seed)
        split = Split(
            np.sort(np.concatenate([parts.fitted, parts.calibrate])),
            parts.stop,
            parts.calibrate[:0],
        )
        self._schema, rows = _schema_and_rows(table, split, config)
        with (
            torch_for_a_while(config.threads),
            tempfile.TemporaryDirectory(prefix="nelbo-detector-") as folder,
        ):
            vae, _ = fit_rows(self._schema, rows, split, config, seed, lambda *_: None)
            exported = export_model(
                Path(folder), vae, "detector", self._schema, config, seed, rows.take(split.stop)
            )
            for notice in exported.notices:
                warnings.warn(notice, RuntimeWarning, stacklevel=2)
            self._scorer = Scorer.read(Path(folder))
            self.training_scores_ = _training_scores(vae, self._schema, rows, config, seed)
        self.offset_ = float(np.quantile(self.training_scores_, contamination))
        return self

    def score_samples(self, X: Table) -> Floats:  # scikit-learn's name
        """The ELBO float64[n] of each row in nats, −nelbo: higher is more normal.

        Raises NotFittedError, and ValueError where X is not like the table fitted to.
        """
        check_is_fitted(self)
        return self._scorer.scores(_rows(self._checked(X, reset=False), self._schema))

    def decision_function(self, X: Table) -> Floats:  # scikit-learn's name
        """score_samples(X) − offset_, float64[n] in nats: negative for outliers."""
        scores: Floats = self.score_samples(X)
        return scores - self.offset_

    def predict(self, X: Table) -> Labels:  # scikit-learn's name
        """-1 for outliers and 1 for others, int64[n], of new rows."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def fit_predict(self, X: Table, y: object = None) -> Labels:  # scikit-learn's name
        """Fit to X and label its rows, int64[n]: -1 for the share `contamination` with the lowest
        scores, 1 for the others."""
        self.fit(X, y)
        return np.where(self.training_scores_ >= self.offset_, 1, -1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _settings(self) -> tuple[Config, float]:
        """The configuration and the contamination, checked."""
        if (
            self.contaminated is not None
            and not 0 <= _share("contaminated", self.contaminated) < MOST_CONTAMINATED
        ):
            raise ValueError(
                f"contaminated is {self.contaminated}; give a share from 0 to below"
                f" {MOST_CONTAMINATED}, or None"
            )
        if self.config is not None and not isinstance(self.config, Config):
            raise TypeError(
                f"config is {self.config!r}; give a training.config.Config, or None for the"
                " defaults"
            )
        config = self.config or Config.quick(self.contaminated)
        if isinstance(self.contamination, str) and self.contamination == "auto":
            return config, config.contaminated or CONTAMINATION
        return config, checked_contamination(self.contamination)

    def _checked(self, X: Table, reset: bool) -> "Floats | pa.Table":
        """X as scikit-learn checks it: its numbers float64[n, d], or an Arrow table of a data
        frame."""
        least = MIN_ROWS if reset else 1
        if not is_frame(X):
            numbers: Floats = validate_data(
                self,
                X,
                reset=reset,
                dtype=np.float64,
                ensure_all_finite="allow-nan",
                ensure_min_samples=least,
                copy=True,  # torch wants memory that it might write to
            )
            return numbers
        table = frames.arrow(X)
        validate_data(self, X if is_pandas(X) else table, reset=reset, skip_check_array=True)
        if len(table) < least or not table.num_columns:
            raise ValueError(
                f"the data frame has {len(table)} rows and {table.num_columns} columns; "
                f"the minimum is 1 column and {least} rows"
            )
        return table


class Scorer:
    """The score graph of an artifact. Pickle takes its bytes along; each process makes a session of
    its own from them."""

    def __init__(self, manifest: bytes, graph: bytes) -> None:
        self._manifest, self._graph = manifest, graph

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the artifact in a folder, which may be deleted afterwards."""
        manifest = (folder / MANIFEST).read_bytes()
        return cls(manifest, (folder / parse_manifest(manifest).graphs["score"].file).read_bytes())

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, bytes]]:
        return type(self), (self._manifest, self._graph)

    def scores(self, rows: Rows) -> Floats:
        """ELBO float64[n] in nats."""
        return -self._engine.costs(rows.numbers, rows.codes).nelbo

    @cached_property
    def _engine(self) -> Engine:
        manifest = parse_manifest(self._manifest)
        with tempfile.TemporaryDirectory(prefix="nelbo-detector-") as folder:
            (Path(folder) / manifest.graphs["score"].file).write_bytes(self._graph)
            engine = Engine(Artifact(Path(folder), manifest, digest_of(self._manifest)))
            schema = manifest.table_schema
            blank = (
                np.zeros((1, len(schema.numbers))),
                np.zeros((1, len(schema.categoricals)), dtype=np.int64),
            )
            engine.costs(*blank)  # reads the graph, so that the folder may go
        return engine


def _schema_and_rows(
    table: "Floats | pa.Table", split: Split, config: Config
) -> tuple[Schema, Rows]:
    if isinstance(table, pa.Table):
        schema = frames.schema_of(table)
        frames.rows_of(table, schema)  # refuses cells that are not of their column's kind
        schema, rows, _ = complete(schema, table, split.fitted, config)
        return schema, rows
    schema = Schema(
        columns=tuple(Column(name=f"x{j}", kind="continuous") for j in range(table.shape[1]))
    )
    return schema, _rows(table, schema)


def _rows(table: "Floats | pa.Table", schema: Schema) -> Rows:
    if isinstance(table, pa.Table):
        return frames.rows_of(table, schema)
    others = [column.name for column in schema.columns if column.kind != "continuous"]
    if others:
        raise ValueError(
            f"column {others[0]!r} of the data frame fitted to is no column of numbers, so an array"
            " cannot take its place; "
            f"give a data frame with the columns {', '.join(map(repr, schema.names))}"
        )
    return Rows(table, np.empty((len(table), 0), dtype=np.int64))


def checked_contamination(contamination: object) -> float:
    """A contamination above 0 and at most 0.5, or ValueError."""
    share = _share("contamination", contamination)
    if not 0 < share <= 0.5:
        raise ValueError(
            f'contamination is {contamination}; give a share above 0 and at most 0.5, or "auto"'
        )
    return share


def _share(name: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; give a number")
    return float(value)


def _seed(random_state: object) -> int:
    """An int is the seed itself, as for `nelbo train`; None and a RandomState draw one."""
    generator = check_random_state(random_state)
    return (
        int(random_state) if isinstance(random_state, Integral) else int(generator.randint(2**31))
    )


def _training_scores(vae: VAE, schema: Schema, rows: Rows, config: Config, seed: int) -> Floats:
    """ELBO float64[n] of the rows fitted to, each by exemplars outside of its own fifth of the
    rows.

    A row that is its own nearest exemplar would look far more normal than it is. A VAE remembers
    single rows only of small tables. Where it has a part in the scores of a small table, each fifth
    is scored by a whole model fitted without it.
    """
    scores = np.empty(len(rows))
    if vae.share < 1 and len(rows) < CROSS_BELOW:
        as_exported = config.model_copy(update={"exemplars": vae.share})
        for fold in fold_models(schema, rows, as_exported, seed, lambda *_: None):
            scores[fold.inside] = -fold.scored().nelbo.numpy()
        return scores
    if vae.exemplars is None:
        return _elbo(vae, rows)
    exemplars = vae.exemplars
    x = vae.likelihoods.numbers.fields.split(torch.from_numpy(rows.numbers))
    codes = torch.from_numpy(rows.codes)
    for outside, inside in folds(len(rows), FOLDS, seed):
        vae.exemplars = Exemplars.fit(
            vae.likelihoods, x[outside], codes[outside], seed, config.contaminated
        )
        scores[inside] = _elbo(vae, rows.take(inside))
    vae.exemplars = exemplars
    return scores


def _elbo(vae: VAE, rows: Rows) -> Floats:
    return -score(vae, rows).nelbo.numpy()
