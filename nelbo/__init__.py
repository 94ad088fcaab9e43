"""Nelbo: score table rows by negative ELBO and generate rows like them, as batch jobs that lose
nothing."""

import os

# Or ONNX Runtime, when it is loaded, leaves a file in the folder for temporary ones and sends
# events to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Type checkers take this for typing's own, whose import takes long: ^C would show a trace.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from nelbo.client import Client as Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    # Lazy, so that a worker or a training process does not load the HTTP client.
    if name == "Client":
        from nelbo.client import Client

        return Client
    raise AttributeError(f"module 'nelbo' has no attribute {name!r}")
