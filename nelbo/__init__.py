"""Nelbo: score table rows by negative ELBO and generate rows like them, as batch jobs that lose
nothing.

    from nelbo import Client          # submit jobs to a service
    from nelbo import load            # ask a model in this process, with data frames
    from nelbo import fit             # train such a model in this process
    from nelbo import NelboDetector   # train and score like an estimator of scikit-learn
    from nelbo import NelboSynthesizer  # train and sample like a synthesizer of SDV
"""

import os

# Or ONNX Runtime, when it is loaded, leaves a file in the folder for temporary ones and sends
# events to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Type checkers take this for typing's own, whose import takes long: ^C would show a trace.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from nelbo.client import Client as Client
    from nelbo.model import Data, TableModel
    from nelbo.schema import Schema
    from training.estimator import NelboDetector as NelboDetector
    from training.pyod import NELBO as NELBO
    from training.synthesizer import NelboSynthesizer as NelboSynthesizer

__version__ = "0.1.0"
__all__ = ["NELBO", "Client", "NelboDetector", "NelboSynthesizer", "__version__", "fit", "load"]


def load(model: "str | Path") -> "TableModel":
    """A model to ask in this process: a name in the data folder (also name@2 or name@alias), or the
    folder that `nelbo train` writes.

        model = nelbo.load("adult")
        scores = model.score(df)

    Raises NotFound, InvalidArtifact, or MissingExtra where ONNX Runtime is not installed.
    """
    from nelbo.errors import needs_extra

    with needs_extra("nelbo.load", "engine", "onnxruntime"):
        import nelbo.engine  # noqa: F401  # to see whether its packages are there
    from nelbo.model import TableModel
    from nelbo.model_folder import folder_here
    from nelbo.settings import read_settings

    return TableModel.read(folder_here(read_settings(), str(model)))


def fit(
    data: "Data",
    *,
    name: str = "model",
    quick: bool = False,
    seed: int = 0,
    schema: "Schema | None" = None,
    **settings: "Any",
) -> "TableModel":
    """Train a model on a data frame, a file, or an array of numbers, in this process. It can be
    asked as one that `load` gives.

        model = nelbo.fit(df, quick=True)
        model.save("adult")

    The artifact is in a temporary folder until `save` writes it to another one. A terminal shows
    the progress. Notices of the training are warnings.

    name: name of the model.
    quick: train a draft in less than half the time.
    seed: the same data, settings and seed give the same model.
    schema: the kinds of the columns. Default: inferred.
    settings: training settings by name, such as rare=10; docs/reference/training.md lists them.

    Raises InvalidInput where the data or a setting cannot be used, and MissingExtra where torch is
    not installed.
    """
    train: Callable[..., TableModel] = _of_training("fit_model", "nelbo.fit")
    return train(data, name=name, quick=quick, seed=seed, schema=schema, **settings)


def _of_training(attribute: str, name: str) -> "Any":
    """What the package `training` holds; it brings torch with it."""
    from nelbo import programs
    from nelbo.errors import needs_extra

    with needs_extra(name, "training", "torch"):
        return getattr(programs.package("training"), attribute)


def __getattr__(name: str) -> object:
    # Lazy, so that a worker does not load the HTTP client, and only who trains loads torch.
    if name == "Client":
        from nelbo.client import Client

        return Client
    if name in ("NELBO", "NelboDetector", "NelboSynthesizer"):
        return _of_training(name, f"nelbo.{name}")
    raise AttributeError(f"module 'nelbo' has no attribute {name!r}")
