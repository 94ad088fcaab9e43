"""Training: fits a variational autoencoder to a table and exports it to ONNX. The only package that
loads torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .estimator import NelboDetector as NelboDetector
    from .pyod import NELBO as NELBO


def __getattr__(name: str) -> Any:
    """`training.NelboDetector` and `training.NELBO`, loaded when they are asked for: they bring
    torch with them."""
    if name == "NelboDetector":
        from .estimator import NelboDetector

        return NelboDetector
    if name == "NELBO":
        from .pyod import NELBO

        return NELBO
    raise AttributeError(f"module 'training' has no attribute {name!r}")
