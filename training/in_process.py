"""Training in the process of the caller, on a data frame: `nelbo.fit`."""

import shutil
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from nelbo.frames import library_of, to_arrow
from nelbo.model import Data, NelboWarning, TableModel
from nelbo.schema import Schema

from .config import Config
from .data import FrameSource, TrainingSource
from .fit import torch_for_a_while
from .pipeline import train
from .progress import progress_bars


def fit_model(
    data: Data,
    *,
    name: str = "model",
    quick: bool = False,
    seed: int = 0,
    schema: Schema | None = None,
    **settings: Any,
) -> TableModel:
    """Train a model on a data frame, a file, or an array of numbers, in this process.

    The artifact is in a temporary folder until `save` writes it to another one. A terminal shows
    the progress. Notices of the training are warnings.

    quick: train a draft in less than half the time.
    seed: the same data, settings and seed give the same model.
    schema: the kinds of the columns. Default: inferred.
    settings: training settings by name, such as rare=10 (training.config.Config).

    Raises InvalidInput where the data or a setting cannot be used.
    """
    config = _config(quick, settings)
    frame = None if isinstance(data, str | Path) else _frame(data)
    source = TrainingSource(Path(data)) if frame is None else FrameSource(frame)
    folder = Path(tempfile.mkdtemp(prefix="nelbo-model-"))
    try:
        with torch_for_a_while(config.threads), progress_bars(lines=False) as stage:
            run = train(source, name, folder, config, seed, schema, stage)
        engine = Engine(run.artifact)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(engine, shutil.rmtree, folder, ignore_errors=True)
    for notice in run.notices:
        warnings.warn(notice, NelboWarning, stacklevel=3)
    if frame is None or isinstance(data, np.ndarray):
        return TableModel(engine)
    return TableModel(engine, frame.slice(0, 0), library_of(data))


def _config(quick: bool, settings: dict[str, Any]) -> Config:
    defaults = Config.quick().model_dump(exclude_defaults=True) if quick else {}
    return Config.checked(defaults | settings, "the settings")


def _frame(data: Data) -> pa.Table:
    """The data as an Arrow table. The columns of an array are called x0, x1 ..."""
    if not isinstance(data, np.ndarray):
        return to_arrow(data)
    if data.ndim != 2:
        raise InvalidInput(f"the array has {data.ndim} dimensions; give rows and columns")
    columns = np.ascontiguousarray(data.T)
    return pa.table(
        [pa.array(column) for column in columns], [f"x{j}" for j in range(len(columns))]
    )
