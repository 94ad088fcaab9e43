"""Training: fits a variational autoencoder to a table and exports it to ONNX. The only package that loads torch."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`training.NelboDetector`, loaded when it is asked for: it brings torch with it."""
    if name == "NelboDetector":
        from training.estimator import NelboDetector

        return NelboDetector
    raise AttributeError(f"module 'training' has no attribute {name!r}")
