"""The readers that are fuzzed, with the modules of Nelbo that each runs through."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import columnar, delimited, graphs, json_lines, manifest, packing


@dataclass(frozen=True)
class Reader:
    """A reader of what strangers send.

    read: reads bytes, and may write into an empty folder. seeds: sound inputs, and some that are
    not. mutate: an input after a change. share: its part of all inputs. may_run_out: whether its
    caller answers a MemoryError. deadline_s: process CPU time for one input. peak_mib: most memory
    that its process may have held, the fuzzer's own included.
    """

    read: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[Random, bytes], bytes]
    modules: tuple[str, ...]
    share: float
    may_run_out: bool = False
    deadline_s: float = 5.0
    peak_mib: int = 768


def _files(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"nelbo/files/{name}.py" for name in names)


READERS: dict[str, Reader] = {
    "csv": Reader(
        delimited.read, delimited.seeds, delimited.mutate, _files(delimited.MODULES), 0.18, True
    ),
    "jsonl": Reader(
        json_lines.read, json_lines.seeds, json_lines.mutate, _files(json_lines.MODULES), 0.12, True
    ),
    "parquet": Reader(
        columnar.read_parquet,
        columnar.parquet_seeds,
        columnar.mutate_parquet,
        _files(columnar.MODULES),
        0.17,
        True,
    ),
    "arrow": Reader(
        columnar.read_arrow,
        columnar.arrow_seeds,
        columnar.mutate_arrow,
        _files(columnar.MODULES),
        0.11,
        True,
    ),
    "zip": Reader(packing.read, packing.seeds, packing.mutate, ("nelbo/packing.py",), 0.14),
    "manifest": Reader(
        manifest.read,
        manifest.seeds,
        manifest.mutate,
        ("nelbo/artifact.py", "nelbo/schema.py"),
        0.14,
    ),
    "onnx": Reader(graphs.read, graphs.seeds, graphs.mutate, ("nelbo/graphs.py",), 0.14, True),
}
SHARED = (
    *_files(("compression", "formats", "parts", "reading", "source", "table", "text")),
    "nelbo/schema_inference.py",
    "nelbo/cells.py",
    "nelbo/spelling/columns.py",
    "nelbo/spelling/dates.py",
    "nelbo/spelling/numbers.py",
)
"""Modules that all readers of tables run through. nelbo/encoding.py, which reads the rows as a
worker does, does not count: half of it makes rows."""
