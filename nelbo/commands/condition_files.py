"""The files that say what generated rows are like: JSON objects that people write by hand, or small
tables, as a spreadsheet writes them."""

import json
from pathlib import Path
from typing import Any

from nelbo.errors import InvalidInput, NotFound
from nelbo.files import open_table
from nelbo.files.formats import SUFFIXES
from nelbo.utf8 import read_text

MOST_ROWS = 100_000
"""Maximum number of rows of such a table; more are not read."""


def read_like(path: Path | None) -> dict[str, Any]:
    """The cells of the only row in a file, or of a JSON object: {column: value}. Empty cells are
    None. Without a file, there are none."""
    if path is None:
        return {}
    if not _is_table(path):
        return _read_object(path, '{"age": 39, "workclass": "Private"}')
    rows = _read_rows(path)
    if len(rows) != 1:
        raise InvalidInput(f"{path} has {len(rows):,} rows; the file of --like has one")
    return {name: None if cell == "" else cell for name, cell in rows[0].items()}


def read_weights(path: Path | None) -> dict[str, dict[str, float]]:
    """The weights in a table of two columns, which are called like the weighted column and like
    anything, or in a JSON object: {column: {category: weight}}. Without a file, there are none."""
    if path is None:
        return {}
    if not _is_table(path):
        return _read_object(path, '{"plan": {"basic": 1, "pro": 3}}')
    rows = _read_rows(path)
    if len(rows[0]) != 2:
        raise InvalidInput(
            f"{path} has {len(rows[0])} columns; the file of --weights has two: the categories,"
            " below the name of their column, and the weights"
        )
    name, _ = rows[0]
    weights: dict[str, float] = {}
    for category, weight in (row.values() for row in rows):
        category = str(category).lower() if isinstance(category, bool) else str(category)
        if category in weights:
            raise InvalidInput(f"{path} has two weights of {category!r}; write one")
        try:
            weights[category] = float(weight)
        except (TypeError, ValueError):
            raise InvalidInput(
                f"{path} has the weight {weight!r} of {category!r}; a weight is a number"
            ) from None
    return {name: weights}


def _is_table(path: Path) -> bool:
    """Whether the suffix, without that of a compression, is that of a table. Any other file, also
    one in .json or .txt, is JSON."""
    suffix = path.with_suffix("").suffix if path.suffix in (".gz", ".zst") else path.suffix
    return suffix.lower() in SUFFIXES.keys() - {".json", ".txt"}


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with open_table(path) as table:
        for batch in table.batches():
            rows += batch.to_pylist()
            if len(rows) > MOST_ROWS:
                break
    return rows


def _read_object(path: Path, example: str) -> dict[str, Any]:
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
