"""Nelbo: score table rows by negative ELBO and generate rows like them, as batch jobs that lose
nothing.

    from nelbo import Client          # submit jobs to a service
    from nelbo import load            # run an artifact in this process
    from nelbo import NelboDetector   # train and score like an estimator of scikit-learn
"""

import os

# Or ONNX Runtime, when it is loaded, leaves a file in the folder for temporary ones and sends
# events to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Type checkers take this for typing's own, whose import takes long: ^C would show a trace.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from nelbo.client import Client as Client
    from nelbo.engine import Engine
    from training.estimator import NelboDetector as NelboDetector
    from training.pyod import NELBO as NELBO

__version__ = "0.1.0"
__all__ = ["NELBO", "Client", "NelboDetector", "__version__", "load"]


def load(artifact: "str | Path") -> "Engine":
    """The engine of an artifact: the folder that `nelbo train` writes. It scores and makes rows in
    this process.

    Raises NotFound, InvalidArtifact, or MissingExtra where ONNX Runtime is not installed.
    """
    from pathlib import Path

    from nelbo.errors import needs_extra

    with needs_extra("nelbo.load", "engine", "onnxruntime"):
        from nelbo.engine import Engine

    return Engine.load(Path(artifact))


def __getattr__(name: str) -> object:
    # Lazy, so that a worker does not load the HTTP client, and only who trains loads torch.
    if name == "Client":
        from nelbo.client import Client

        return Client
    if name in ("NELBO", "NelboDetector"):
        from nelbo import programs
        from nelbo.errors import needs_extra

        with needs_extra(f"nelbo.{name}", "training", "torch"):
            return getattr(programs.package("training"), name)
    raise AttributeError(f"module 'nelbo' has no attribute {name!r}")
