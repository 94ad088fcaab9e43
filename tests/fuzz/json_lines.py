"""JSON Lines and JSON arrays for the fuzzer."""

import json
from pathlib import Path
from random import Random
from typing import Any

from nelbo.files import CsvOptions
from tests.fuzz import mutations, tables
from tests.fuzz.delimited import ENCODINGS
from tests.fuzz.tables import Opening

MODULES = ("json_lines",)
OPENINGS = (
    *[Opening("jsonl")] * 8,
    Opening(None, name=None),
    Opening(None, name="table.json"),
    Opening("jsonl", pipe=True),
    Opening("jsonl", CsvOptions(encoding="utf-16")),
    Opening("jsonl", CsvOptions(encoding="latin-1")),
    Opening("jsonl", CsvOptions(encoding="punycode")),
    Opening("jsonl", CsvOptions(encoding="hex")),
)


def read(content: bytes, folder: Path) -> None:
    tables.read(content, folder, OPENINGS)


def seeds() -> list[bytes]:
    rng = Random(2)
    odd: list[bytes] = [
        b"[]", b"{}", b"[[1]]", b"[{}]", b'{"a":1}{"a":2}', b'{"a":1,"a":2}', b'{"a":"\\ud800"}',
        b"[" * 5_000,
        b'{"a":' * 5_000, b'[{"a":1},{"a":' + b"[" * 3_000, b"{" * 100, b'{"a":{"b":1}}',
        b'{"a":[1]}', b'{"a":NaN}',
    ]  # fmt: skip
    large = [
        b'{"a":"' + b"x" * 5 * 2**19 + b'"}\n',
        b'[{"a":"' + b"x" * 5 * 2**19 + b'"}]',
        b'[{"a":"' + b"x" * 9 * 2**18 + b'"},{"a":1}',
        b'[{"a":1},' * 2 + b'{"a":2},' * 150_000,
        b"[" + b'{"a":2},' * 15_000 + b" " * 2**20 + b'{"a":3}]',
    ]
    return tables.inputs(odd + [written(rng) for _ in range(40)], large)


def mutate(rng: Random, content: bytes) -> bytes:
    return tables.changed(rng, content, _changed)


def written(rng: Random) -> bytes:
    columns = tables.table_of_text(rng)
    objects = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _spelled(
        rng, [{name: _value(rng, cell) for name, cell in one.items()} for one in objects]
    )


def _value(rng: Random, cell: str) -> Any:
    try:
        return json.loads(cell) if rng.random() < 0.9 else cell
    except ValueError:
        return None if not cell and rng.random() < 0.5 else cell


def _spelled(rng: Random, objects: list[Any]) -> bytes:
    as_array, ascii_only = rng.random() < 0.3, rng.random() < 0.5
    texts = [json.dumps(one, ensure_ascii=ascii_only) for one in objects]
    text = (
        "[" + rng.choice((",", ", ", ",\n", "\n")).join(texts) + "]"
        if as_array
        else "\n".join(texts) + "\n"
    )
    if rng.random() < 0.1:
        return text.encode(rng.choice(ENCODINGS), errors="replace")
    return text.encode(errors="surrogatepass")


def _changed(rng: Random, content: bytes) -> bytes:
    choice = rng.random()
    if choice < 0.1:
        return written(rng)
    if choice < 0.4:
        return mutations.changed(rng, content)
    try:
        objects = _parsed(content.decode())
    except (ValueError, RecursionError):
        return mutations.changed(rng, content)

    value = mutations.json_value(rng, objects)
    return _spelled(rng, value if isinstance(value, list) else [value])


def _parsed(text: str) -> list[Any]:
    whole = text.lstrip().startswith("[")
    objects: list[Any] = (
        json.loads(text)
        if whole
        else [json.loads(line) for line in text.splitlines() if line.strip()]
    )
    return objects
