"""Nelbo: score table rows by negative ELBO and generate rows like them, as batch jobs that lose nothing."""

from typing import TYPE_CHECKING

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
