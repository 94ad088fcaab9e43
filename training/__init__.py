"""Training: fits a variational autoencoder to a table and exports it to ONNX. The only package that
loads torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .estimator import NelboDetector as NelboDetector
    from .in_process import fit_model as fit_model
    from .pyod import NELBO as NELBO
    from .synthesizer import NelboSynthesizer as NelboSynthesizer


MODULES = {
    "NelboDetector": "estimator",
    "NELBO": "pyod",
    "NelboSynthesizer": "synthesizer",
    "fit_model": "in_process",
}


def __getattr__(name: str) -> Any:
    """`training.NelboDetector` and others, loaded when they are asked for: they bring torch with
    them."""
    if name in MODULES:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module 'training' has no attribute {name!r}")
