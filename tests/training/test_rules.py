"""A trained model keeps the rules of its table in all rows that it makes, and tells of rows that
break them."""

import html
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.condition_reading import read_conditions
from nelbo.encoding import encode
from nelbo.engine import Engine
from nelbo.errors import InvalidInput
from nelbo.explanation import explain_row
from nelbo.novelty import BROKEN
from nelbo.rows import Anomaly
from nelbo.schema import Column, Schema
from training.config import Config
from training.data import TrainingSource, read
from training.pipeline import Run, train

ROWS = 2_000
CONFIG = Config(min_steps=200, max_steps=200)
SEATS = {"A320": 180, "B737": 160, "E190": 100, "A380": 500}
RULES = {
    "copy = code",
    "nights = days(leave - arrive)",
    "total = net + tax",
    "code -> seats",
    "lowest <= highest",
}


def stays(rows: int = ROWS, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    code = rng.choice(list(SEATS), rows)
    arrive = np.datetime64("2024-01-01") + rng.integers(0, 300, rows)
    nights = rng.choice([1, 2, 3, 7, 14], rows)
    net = rng.lognormal(4, 1, rows).round(2)
    tax = (net * rng.choice([0.07, 0.19], rows)).round(2)
    lowest = rng.normal(10, 8, rows).round(1)
    return pa.table(
        {
            "code": pa.array(code),
            "copy": pa.array(code),
            "seats": pa.array([SEATS[name] for name in code.tolist()]),
            "arrive": pa.array(arrive),
            "leave": pa.array(arrive + nights),
            "nights": pa.array(nights),
            "net": pa.array(net, mask=rng.random(rows) < 0.1),
            "tax": pa.array(tax),
            "total": pa.array((net + tax).round(2), mask=rng.random(rows) < 0.1),
            "lowest": pa.array(lowest),
            "highest": pa.array((lowest + rng.exponential(2, rows)).round(1)),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("stays")
    pq.write_table(stays(), folder / "stays.parquet")
    source = TrainingSource(folder / "stays.parquet")
    return train(source, "stays", folder / "artifact", CONFIG, 0, None, lambda *_: None)


@pytest.fixture(scope="module")
def engine(run: Run) -> Engine:
    return Engine.load(run.artifact.folder)


def batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def broken(engine: Engine, made: pa.RecordBatch) -> int:
    """The rules that the rows break, counted."""
    return int(engine.scorer.broken_rules(encode(made, engine.schema)).sum())


def test_the_rules_of_the_table_are_found(engine: Engine) -> None:
    assert {rule.text for rule in engine.schema.rules or ()} == RULES


def test_generated_rows_keep_all_rules(engine: Engine) -> None:
    made = engine.generate(1, 0, 5_000).batch
    assert broken(engine, made) == 0
    distinct = {name: len(set(made[name].to_pylist())) for name in made.schema.names}
    assert all(count > 1 for count in distinct.values()), distinct


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_copies_keep_all_rules(engine: Engine, spread: float) -> None:
    made = engine.augment(batch(stays(300, 5)), 0, 3, 1, spread=spread).batch
    assert broken(engine, made) == 0


@pytest.mark.parametrize("keep", ["seats", "copy", "total", "leave", "nights", "highest"])
def test_copies_keep_all_rules_beside_the_columns_that_they_keep(engine: Engine, keep: str) -> None:
    table = batch(stays(200, 6))
    made = engine.augment(table, 0, 2, 1, keep=[keep]).batch
    assert broken(engine, made) == 0
    assert made[keep].to_pylist() == [v for v in table[keep].to_pylist() for _ in range(2)]


def test_filled_cells_keep_all_rules(engine: Engine) -> None:
    table = stays(400, 7)
    rng = np.random.default_rng(7)
    hidden = pa.table(
        {
            name: pa.array(column.to_pylist(), column.type, mask=rng.random(400) < 0.3)
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    )
    made = engine.reconstruct(batch(hidden), 0, 1).batch
    assert broken(engine, made) == 0
    for name in hidden.column_names:
        pairs = zip(hidden[name].to_pylist(), made[name].to_pylist(), strict=True)
        assert all(given is None or given == filled for given, filled in pairs)


def test_a_made_row_depends_on_its_number_alone(engine: Engine) -> None:
    whole = engine.generate(3, 0, 1_500).batch
    part = engine.generate(3, 700, 300).batch
    assert whole.slice(700, 300).equals(part)


def spoilt(engine: Engine) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Rows as they are, and the same with another number of nights."""
    table = stays(200, 8)
    at = table.column_names.index("nights")
    nights = pa.array([14 if n == 1 else 1 for n in table["nights"].to_pylist()])
    return batch(table), batch(table.set_column(at, "nights", nights))


def test_a_row_that_breaks_a_rule_costs_more_and_surprises(engine: Engine) -> None:
    table, odd = spoilt(engine)
    before, after = engine.score(table), engine.score(odd)
    rule = next(rule for rule in engine.rules.rules if "nights" in rule.rule.text)
    at = engine.manifest.order.index("nights")
    assert (after.terms[:, at] >= rule.cost).all()
    assert np.allclose(after.terms.sum(1) + after.kl, after.nelbo)
    assert (after.p_value <= before.p_value).mean() > 0.99
    assert np.median(after.p_value) < 0.01
    assert np.median(before.p_value) > 0.2


def test_explain_names_the_rule(engine: Engine) -> None:
    _, odd = spoilt(engine)
    odd = odd.slice(0, 1)
    cells = explain_row(engine, scored(engine, odd), odd, 3, seed=0)
    assert cells[0].column in {"nights", "arrive", "leave"}
    assert cells[0].reason == "breaks the rule nights = days(leave - arrive)"


def scored(engine: Engine, row: pa.RecordBatch) -> Anomaly:
    scores = engine.score(row)
    return Anomaly(
        row=0,
        nelbo=scores.nelbo[0],
        surprise=scores.surprise[0],
        p_value=scores.p_value[0],
        anomaly=True,
        kl=scores.kl[0],
        terms=dict(zip(scores.columns, scores.terms[0].tolist(), strict=True)),
        surprises=dict(zip(scores.columns, scores.surprises[0].tolist(), strict=True)),
    )


def test_explain_names_the_other_cell_of_a_rule_about_two(engine: Engine) -> None:
    table = stays(20, 9)
    at = table.column_names.index("seats")
    odd = batch(table.set_column(at, "seats", pa.array([170] * 20))).slice(3, 1)
    (cell, *_) = explain_row(engine, scored(engine, odd), odd, 3, seed=0)
    (code,) = odd["code"].to_pylist()
    assert (cell.column, cell.against) == ("seats", "code")
    assert cell.reason == f"does not fit code {code}: code -> seats"


def test_report_and_card_list_the_rules(run: Run) -> None:
    card = (run.artifact.folder / "MODEL_CARD.md").read_text("utf-8")
    assert run.report is not None
    page = run.report.read_text("utf-8")
    for text in RULES:
        assert f"`{text}`" in card
        assert html.escape(text) in page


def source_of(table: pa.Table, folder: Path) -> TrainingSource:
    pq.write_table(table, folder / "table.parquet")
    return TrainingSource(folder / "table.parquet")


def test_a_declared_rule_is_kept_and_its_exceptions_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(size=1_000).round(2)
    table = pa.table(
        {"low": pa.array(low), "high": pa.array((low + rng.normal(1, 0.5, 1_000)).round(2))}
    )
    source = source_of(table, tmp_path)
    config = CONFIG.model_copy(update={"rules": ("low <= high",)})
    run = train(source, "m", tmp_path / "m", config, 0, None, lambda *_: None)
    exceptions = int((table["low"].to_numpy() > table["high"].to_numpy()).sum())
    assert f"{exceptions} of 1,000 training rows break the rule 'low <= high'" in run.notices[0]
    engine = Engine.load(tmp_path / "m")
    assert broken(engine, engine.generate(0, 0, 2_000).batch) == 0


def test_a_declared_rule_about_an_unknown_column_is_refused(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"rules": ("low <= hihg",)})
    low = np.random.default_rng(0).normal(size=100)
    table = pa.table({"low": pa.array(low), "high": pa.array(low + 1)})
    with pytest.raises(InvalidInput, match="'hihg' is neither a column"):
        read(source_of(table, tmp_path), config, 0)


def test_a_schema_that_names_its_rules_has_these_alone(tmp_path: Path) -> None:
    source = source_of(stays(), tmp_path)
    found = read(source, CONFIG, 0).schema
    assert {rule.text for rule in found.rules or ()} == RULES
    none = Schema(columns=_bare(found), rules=())
    assert read(source, CONFIG, 0, none).schema.rules == ()
    one = Schema.model_validate({"columns": _bare(found), "rules": ["tax <= total"]})
    rules = read(source, CONFIG, 0, one).schema.rules
    assert rules is not None
    assert [rule.text for rule in rules] == ["tax <= total"]


def test_rules_are_not_looked_for_where_the_settings_say_so(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"find_rules": False})
    assert read(source_of(stays(), tmp_path), config, 0).schema.rules == ()


def _bare(schema: Schema) -> tuple[Column, ...]:
    return tuple(
        column.model_copy(update={"categories": (), "rarer": ()})
        if column.kind == "categorical"
        else column
        for column in schema.columns
    )


def test_a_broken_rule_is_more_surprising_than_an_ordinary_cell(engine: Engine) -> None:
    surprise = engine.manifest.surprise
    assert surprise is not None
    at = engine.manifest.order.index("nights")
    assert surprise.columns[at].novelty[BROKEN] > np.log(ROWS)


CONDITIONS: dict[str, list[str]] = {
    "a category that fixes another column": ["code = A380"],
    "a column that another one fixes": ["seats = 180"],
    "a sum": ["total between 300 and 400"],
    "a rare sum of given parts": ["total > 1000 and tax < 100"],
    "both ends of an order": ["lowest > 20 and highest < 21"],
    "a time between two dates": ["nights = 14 and arrive = 2024-05"],
    "a date that counts from another one": ["leave = 2024-07-04"],
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_rows_with_conditions_meet_them_and_keep_all_rules(engine: Engine, name: str) -> None:
    conditions = read_conditions(engine.manifest, CONDITIONS[name])
    made = engine.generate(1, 0, 300, conditions).batch
    rows = encode(made, engine.schema)
    assert made.num_rows == 300
    assert conditions.met(engine.schema, rows.numbers, rows.codes).all()
    assert broken(engine, made) == 0
    assert engine.generate(1, 40, 9, conditions).batch.equals(made.slice(40, 9))


def test_balanced_rows_keep_all_rules(engine: Engine) -> None:
    made = engine.generate(1, 0, 400, read_conditions(engine.manifest, balance="code")).batch
    assert broken(engine, made) == 0
    assert all(made["code"].to_pylist().count(name) == 100 for name in SEATS)


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("code = A380 and copy = A320", "copy = code"),
        ("code = A380 and seats = 100", "code -> seats"),
        ("lowest > 20 and highest < 10", "lowest <= highest"),
    ],
)
def test_conditions_that_break_a_rule_are_refused_with_its_name(
    engine: Engine, where: str, rule: str
) -> None:
    """Before any row is made, so that a service refuses the request."""
    with pytest.raises(InvalidInput, match=f"keeps the rule '{rule}'"):
        read_conditions(engine.manifest, [where])
