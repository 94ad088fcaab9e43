"""The files that say what generated rows are like: JSON objects that people write by hand."""

import json
from pathlib import Path
from typing import Any

from nelbo.errors import InvalidInput, NotFound
from nelbo.utf8 import read_text

LIKE = '{"age": 39, "workclass": "Private"}'
"""An example of a file for --like."""
WEIGHTS = '{"plan": {"basic": 1, "pro": 3}}'
"""An example of a file for --weights."""


def read_object(path: Path | None, example: str) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    if path is None:
        return {}
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise NotFound(f"no file at {path}") from None
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is not JSON; write {example}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} does not hold a JSON object; write {example}")
    return content
