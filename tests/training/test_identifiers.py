"""Identifiers learned from tables of many forms: what is made has the table's form and none of its
values."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nelbo.engine import Engine
from nelbo.identifiers import Identifier, with_identifiers
from nelbo.schema import Column, Schema
from tests.training.tables import QUICK
from training.data import TrainingSource
from training.identifiers import learn_identifiers, of_free_text
from training.pipeline import train

RARE, MADE, ROOM = 5, 4_000, 2**20
Texts = list[Any]
Maker = Callable[[np.random.Generator, int], Texts]


def random_text(rng: np.random.Generator, letters: str, length: int) -> str:
    return "".join(rng.choice(list(letters), length))


def of_kinds(rng: np.random.Generator, n: int) -> Texts:
    kinds = rng.choice(["GEN", "VIP"], n, p=[0.8, 0.2])
    return [f"{kind}-{number:07}" for kind, number in zip(kinds, digits(rng, n, 7), strict=True)]


def digits(rng: np.random.Generator, n: int, length: int) -> list[int]:
    numbers: list[int] = rng.choice(10**length, n, replace=False).tolist()
    return numbers


HEX = "0123456789abcdef"
FORMS: dict[str, tuple[Maker, str]] = {
    "row numbers": (lambda rng, n: list(map(str, range(n))), r"\d+"),
    "shuffled keys from 500": (
        lambda rng, n: (500 + rng.permutation(n)).astype(str).tolist(),
        r"\d+",
    ),
    "tens": (lambda rng, n: [str(10 * i) for i in range(n)], r"\d+0"),
    "sparse keys": (
        lambda rng, n: [str(10**6 + number) for number in digits(rng, n, 6)],
        r"[1-9]\d{6}",
    ),
    "padded numbers": (lambda rng, n: [f"{i:06}" for i in range(n)], r"\d{6}"),
    "prefixed numbers": (lambda rng, n: [f"user{i}" for i in range(n)], r"user\d+"),
    "numbers of invoices": (lambda rng, n: [f"R-{i:05}/24" for i in range(n)], r"R-\d{5}/24"),
    "kinds and numbers": (of_kinds, r"(GEN|VIP)-\d{7}"),
    "UUIDs": (
        lambda rng, n: [str(uuid.UUID(bytes=rng.bytes(16), version=4)) for _ in range(n)],
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    ),
    "digests": (lambda rng, n: [random_text(rng, HEX, 32) for _ in range(n)], r"[0-9a-f]{32}"),
    "addresses of devices": (
        lambda rng, n: [":".join(random_text(rng, HEX, 2) for _ in range(6)) for _ in range(n)],
        r"([0-9a-f]{2}:){5}[0-9a-f]{2}",
    ),
    "days": (
        lambda rng, n: [str(np.datetime64("2001-01-01") + int(i)) for i in rng.permutation(n)],
        r"\d{4}-\d\d-\d\d",
    ),
}
SIZES = [40, 3_000]


def learned(values: Any, **column: Any) -> tuple[Identifier, Schema]:
    columns = (Column(name="id", kind="identifier", **column), Column(name="x", kind="integer"))
    schema = Schema(columns=columns)
    return learn_identifiers(pa.table({"id": values}), schema, RARE, ROOM)["id"], schema


def made(identifier: Identifier, schema: Schema, rows: int = MADE, seed: int = 3) -> Any:
    numbers = np.arange(rows)
    table = pa.record_batch({"x": pa.array(numbers)})
    return with_identifiers(table, schema, {"id": identifier}, seed, numbers).column("id")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", SIZES)
def test_new_values_have_the_form_of_the_table_s_and_all_differ(form: str, n: int) -> None:
    maker, pattern = FORMS[form]
    values = maker(np.random.default_rng(n), n)
    texts = list(map(str, made(*learned(values)).to_pylist()))
    assert len(set(texts)) == MADE
    assert not set(texts) & set(values)
    assert all(re.fullmatch(pattern, text) for text in texts)


def test_numbers_go_on_after_the_largest() -> None:
    assert made(*learned(["7", "5", "6", "4", "8"]), rows=3).to_pylist() == [9, 10, 11]
    assert made(*learned(pa.array(range(30)), type="int64"), rows=2).to_pylist() == [30, 31]


@pytest.mark.parametrize("n", [60, 600, 900])
def test_a_small_space_is_used_up_before_values_become_longer(n: int) -> None:
    """Of 900 values of three digits, none of the table's is made."""
    numbers = np.random.default_rng(n).permutation(np.arange(100, 1_000))[:n]
    values = [f"{number // 100}-{number % 100:02}" for number in numbers]
    texts = made(*learned(values), rows=2_000).to_pylist()
    assert len(set(texts)) == 2_000
    assert not set(texts) & set(values)
    assert sum(len(text) == 4 for text in texts) >= 0.3 * (900 - n)
    assert all(re.fullmatch(r"\d-\d\d+", text) for text in texts)


def test_whole_numbers_of_a_type_keep_it() -> None:
    rng = np.random.default_rng(0)
    keys = pa.array([10**6 + number for number in digits(rng, 300, 6)], pa.int32())
    values = made(*learned(keys, type="int32"))
    assert values.type == pa.int32()
    assert len(set(values.to_pylist())) == MADE
    snowflakes = pa.array(rng.integers(12 * 10**17, 18 * 10**17, 300))
    values = made(*learned(snowflakes, type="int64"))
    assert values.type == pa.int64()
    assert len(values.unique()) == MADE


@pytest.mark.parametrize(
    "values",
    [
        [
            f"The story of {'abcdefgh'[i % 8]} and {i} of {'its' * (i % 3)} friends"
            for i in range(60)
        ],
        [f"word{'abcdefgh'[: i % 8]}{'xyz'[: i % 3]}{chr(97 + i % 26)}" for i in range(60)],
        ["x" * 70 + str(i) for i in range(60)],
        [f"{'?!.,;:-_#*' * (i % 5)}{i}{'-' * (i % 7)}" for i in range(60)],
        pa.array([-(2**62) - 7**i for i in range(20)], pa.int64()),
    ],
    ids=["sentences", "words", "long texts", "no common form", "negative hashes"],
)
def test_what_has_no_pattern_is_left_empty_with_a_notice(values: Any) -> None:
    kind = "int64" if isinstance(values, pa.Array) else None
    identifier, schema = learned(values, type=kind)
    assert identifier.is_text
    assert made(identifier, schema).null_count == MADE
    (notice,) = of_free_text({"id": identifier})
    assert "generated rows leave it empty" in notice


def test_a_second_column_of_the_same_values_keeps_them() -> None:
    keys = [random_text(np.random.default_rng(i), HEX, 12) for i in range(100)]
    names = ("id", "again", "other")
    schema = Schema(columns=tuple(Column(name=name, kind="identifier") for name in names))
    table = pa.table({"id": keys, "again": keys, "other": keys[::-1]})
    identifiers = learn_identifiers(table, schema, RARE, ROOM)
    assert identifiers["again"].same_as == "id"
    rows = np.arange(50)
    batch = with_identifiers(pa.record_batch({"x": pa.array(rows)}), schema, identifiers, 1, rows)
    assert batch["id"].equals(batch["again"])
    assert not set(batch["id"].to_pylist()) & set(batch["other"].to_pylist())


def test_a_character_or_a_word_that_few_rows_hold_is_not_made() -> None:
    rng = np.random.default_rng(0)
    values = [f"AB-{number:07}" for number in digits(rng, 400, 7)]
    values[:3] = ["QQ-1234567", "ZZ-1234568", "AB-12345é9"]
    texts = made(*learned(values)).to_pylist()
    assert all(re.fullmatch(r"AB-\d{7}", text) for text in texts)


def test_the_form_of_a_million_values_takes_less_than_200_kilobytes() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice(36**6, 1_000_000, replace=False)
    letters = np.array(list("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    characters = letters[numbers[:, None] // 36 ** np.arange(6) % 36]
    keys = pa.array(np.ascontiguousarray(characters).view("U6").ravel())
    identifier, schema = learned(keys)
    assert len(identifier.model_dump_json()) < 200_000
    values = made(identifier, schema, rows=50_000)
    assert len(values.unique()) == 50_000
    assert not pa.compute.any(pa.compute.is_in(values, keys)).as_py()


def test_columns_without_room_in_the_manifest_are_left_empty() -> None:
    keys = [random_text(np.random.default_rng(i), HEX, 12) for i in range(100)]
    names = [f"id{at}" for at in range(40)]
    schema = Schema(columns=tuple(Column(name=name, kind="identifier") for name in names))
    table = pa.table({name: [f"{key}{name}" for key in keys] for name in names})
    identifiers = learn_identifiers(table, schema, RARE, room=50_000)
    size = sum(len(each.model_dump_json(indent=6)) for each in identifiers.values())
    assert size < 60_000
    assert not identifiers["id0"].is_text
    assert identifiers["id39"].is_text


def test_generated_rows_have_all_columns_of_the_table_in_its_order(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    lines = [
        f"{i},{rng.normal():.3f},K{i:05}x{rng.integers(100):02},day {i} of {i * i},r"
        for i in range(300)
    ]
    path.write_text("\n".join(["order,amount,key,note,shop", *lines]) + "\n")
    out = path.parent / "artifact"
    run = train(TrainingSource(path), "orders", out, QUICK, 0, None, lambda *_: None)
    engine = Engine.load(out)
    batch = engine.generate(1, 0, 50).batch
    assert batch.schema.names == ["order", "amount", "key", "note", "shop"]
    assert batch["order"].to_pylist() == list(range(300, 350))
    assert all(re.fullmatch(r"K\d{5}x\d\d", str(key)) for key in batch["key"].to_pylist())
    assert batch["note"].null_count == 50
    assert any("'note' is free text" in notice for notice in run.notices)
    assert "free text, left empty" in (out / "MODEL_CARD.md").read_text()
    without = engine.generate(1, 0, 50, identifiers=False).batch
    assert without.schema.names == ["amount", "shop"]
    assert batch.select(["amount", "shop"]).equals(without)
    assert engine.generate(1, 20, 30).batch.equals(batch.slice(20))
