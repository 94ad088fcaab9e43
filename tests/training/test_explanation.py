"""The cells that explain a row: the wrong ones are named, with what is wrong with them, in the form
of the table, and cells whose value is expected are not."""

import csv
import random
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from nelbo.engine import Engine
from nelbo.explanation import AS_A_WHOLE, EXPLAINED, ExplainedCell, explain_row, explained
from nelbo.files import open_table
from nelbo.forms import identifier_columns
from nelbo.row_repair import ORDINARY_P, repair_row
from nelbo.rows import Anomaly
from nelbo.surprise import ONE_IN_TEN
from training.config import Config
from training.data import TrainingSource
from training.pipeline import train

CURRENCIES = {"Britain": "GBP", "Germany": "EUR", "America": "USD", "Japan": "JPY"}
PRICES = {"lamp": 40, "desk": 400, "sofa": 4_000}
ORDERED = date(2007, 1, 1)
ODD = {
    "misspelt": {"currency": "GPB"},
    "new": {"country": "Italy"},
    "missing": {"currency": ""},
    "contradiction": {"country": "Germany", "currency": "JPY"},
    "price": {"product": "sofa", "gift": "Yes", "price": "4,000,000.0"},
    "flag": {"product": "sofa", "gift": "No", "price": "4,012.5"},
    "date": {"ordered": "2031-11-11", "shipped": "2031-11-13"},
    "backwards": {"ordered": "2007-06-20", "shipped": "2007-05-20"},
}


def order(number: int, rng: random.Random) -> dict[str, str]:
    """An ordinary order: the currency follows from the country, price and gift from the product."""
    country = rng.choice(list(CURRENCIES))
    product = rng.choice(list(PRICES))
    ordered = ORDERED + timedelta(days=rng.randrange(365))
    return {
        "order": f"N{number:05}",
        "country": country,
        "currency": CURRENCIES[country],
        "product": product,
        "price": f"{PRICES[product] * rng.uniform(0.8, 1.2):,.1f}",
        "gift": "Yes" if product == "sofa" else "No",
        "ordered": ordered.isoformat(),
        "shipped": (ordered + timedelta(days=rng.randrange(1, 4))).isoformat(),
    }


def written(orders: list[dict[str, str]], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, orders[0])
        writer.writeheader()
        writer.writerows(orders)
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("orders")
    rng = random.Random(1)
    table = written([order(number, rng) for number in range(1_600)], folder / "orders.csv")
    # Without rules, the model alone says what goes together.
    config = Config(epochs=30, min_steps=300, max_steps=300, threads=1, find_rules=False)
    train(TrainingSource(table), "orders", folder / "model", config, 0, None, lambda *_: None)
    return Engine.load(folder / "model")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.RecordBatch:
    """The odd orders first, then 100 ordinary ones."""
    rng = random.Random(2)
    orders = [order(9_000 + number, rng) | change for number, change in enumerate(ODD.values())]
    orders += [order(9_500 + number, rng) for number in range(100)]
    path = written(orders, tmp_path_factory.mktemp("new") / "new.csv")
    with open_table(path) as opened:
        (batch,) = opened.batches()
    return batch


@pytest.fixture(scope="module")
def scored(engine: Engine, table: pa.RecordBatch) -> Mapping[int, Anomaly]:
    return {row.row: row for row in engine.score(table).top(table.num_rows)}


@pytest.fixture(scope="module")
def cells(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> dict[str, list[ExplainedCell]]:
    """The explanation of each odd order."""
    return {
        name: explain_row(engine, scored[number], table.slice(number, 1), 3, 0)
        for number, name in enumerate(ODD)
    }


@pytest.mark.parametrize("name", ODD)
def test_the_wrong_cell_is_the_first(name: str, cells: dict[str, list[ExplainedCell]]) -> None:
    assert cells[name][0].column in ODD[name]
    assert cells[name][0].stands_out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("misspelt", "did you mean GBP?"),
        ("new", "not in training"),
        ("missing", "never missing in training"),
        ("contradiction", "does not fit country Germany"),
        ("flag", "does not fit product sofa"),
        ("backwards", "does not fit ordered 2007-06-20"),
        ("price", None),
    ],
)
def test_what_is_wrong_is_said_in_words(
    name: str, reason: str | None, cells: dict[str, list[ExplainedCell]]
) -> None:
    assert cells[name][0].reason == reason


@pytest.mark.parametrize("name", ["misspelt", "missing", "price", "flag", "backwards"])
def test_a_repair_changes_the_wrong_cell_to_an_ordinary_value_in_the_form_of_the_table(
    name: str, engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    number = list(ODD).index(name)
    changes = repair_row(engine, scored[number], table.slice(number, 1), 0)
    assert {cell.column for cell in changes} <= set(ODD[name])
    assert changes[0].p_value_after >= ORDINARY_P
    forms = {"currency": r"[A-Z]{3}", "price": r"\d,\d{3}\.\d", "gift": "Yes"}
    for cell in changes:
        assert re.fullmatch(forms.get(cell.column, r"2007-0[56]-\d\d"), cell.repaired or "")


def test_values_have_the_form_of_the_table(cells: dict[str, list[ExplainedCell]]) -> None:
    price, day, gift = (cells[name][0] for name in ("price", "date", "flag"))
    number = re.compile(r"\d,\d{3}\.\d|\d{3}\.\d|\d\d\.\d")
    assert price.value == "4,000,000.0"
    for text in (price.expected, price.low, price.high):
        assert number.fullmatch(text or "")
    assert day.value == "2031-11-11"
    for text in (day.expected, day.low, day.high):
        assert re.fullmatch(r"2007-\d\d-\d\d", text or "")
    assert (gift.value, gift.expected) == ("No", "Yes")


def test_values_of_a_typed_table_are_written_as_in_the_training_table(
    engine: Engine, table: pa.RecordBatch, cells: dict[str, list[ExplainedCell]]
) -> None:
    prices = [float(str(text).replace(",", "")) for text in table["price"].to_pylist()]
    days = {
        name: [date.fromisoformat(str(text)) for text in table[name].to_pylist()]
        for name in ("ordered", "shipped")
    }
    typed = table.set_column(4, "price", pa.array(prices))
    for name, values in days.items():
        typed = typed.set_column(typed.schema.get_field_index(name), name, pa.array(values))
    rows = {row.row: row for row in engine.score(typed).top(typed.num_rows)}
    for name in ("price", "date"):
        number = list(ODD).index(name)
        (cell, *_) = explain_row(engine, rows[number], typed.slice(number, 1), 1, 0)
        assert (cell.value, cell.expected) == (cells[name][0].value, cells[name][0].expected)


def test_a_cell_whose_value_is_expected_is_no_reason(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    for number, row in scored.items():
        shown = explain_row(engine, row, table.slice(number, 1), 3, 0)
        surprises = [cell.cell_surprise for cell in shown]
        if shown[0].reason == AS_A_WHOLE:
            assert [cell.reason for cell in shown] == [AS_A_WHOLE] * 2
            assert [cell.column for cell in shown] == [column for column, _ in row.highest(2)]
        elif shown[0].stands_out:
            assert all(cell.stands_out for cell in shown)
            assert surprises == sorted(surprises, reverse=True)
            assert min(surprises) >= ONE_IN_TEN
        else:
            assert [cell.against for cell in shown] == [shown[1].column, shown[0].column]


def test_an_interval_is_shown_only_beside_a_value_outside_of_it(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    rows = [(row, table.slice(number, 1)) for number, row in scored.items()]
    for cell in explained(engine, rows, (), 3, 0).to_pylist():
        if cell["low"] is not None and cell["value"] is not None:
            low, value, high = (
                float(text.replace(",", "")) if "." in text else text
                for text in (cell["low"], cell["value"], cell["high"])
            )
            assert not low <= value <= high
        assert cell["share"] is None or cell["value"] != cell["expected"]
        assert (cell["expected"] is None) >= (cell["missing"] is None)


def test_most_ordinary_rows_have_no_single_cell_that_explains_them(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    ordinary = range(len(ODD), table.num_rows)
    reasons = [
        explain_row(engine, scored[number], table.slice(number, 1), 3, 0)[0].reason
        for number in ordinary
    ]
    assert reasons.count(AS_A_WHOLE) >= 0.9 * len(ordinary)


def test_identifiers_come_after_the_row_number(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    rows = [(scored[number], table.slice(number, 1)) for number in range(3)]
    names = identifier_columns(table, engine.schema)
    assert names == ("order",)
    found = explained(engine, rows, names, 1, 0)
    assert found.column_names == ["row", "order", *EXPLAINED.names[1:]]
    assert found["order"].to_pylist() == ["N09000", "N09001", "N09002"]
    assert found["cell_surprise"].to_pylist() == [row.highest(1)[0][1] for row, _ in rows]
    assert found["term"][0].as_py() == rows[0][0].terms["currency"]


def test_an_identifier_keeps_its_name_beside_a_column_of_ours(
    engine: Engine, table: pa.RecordBatch, scored: Mapping[int, Anomaly]
) -> None:
    named = table.append_column("value", table.column("order"))
    names = identifier_columns(named, engine.schema)
    assert names == ("order", "value"), "the model does not know the second; all its values differ"
    found = explained(engine, [(scored[0], named.slice(0, 1))], names, 1, 0)
    assert found.column_names[:3] == ["row", "order", "value"]
    assert (found["value"][0].as_py(), found["nelbo_value"][0].as_py()) == ("N09000", "GPB")


def test_a_column_that_repeats_or_is_known_is_no_identifier(
    engine: Engine, table: pa.RecordBatch
) -> None:
    more = table.append_column("shop", pa.array(["north"] * table.num_rows))
    more = more.append_column("weight", pa.array([0.5 + i / 7 for i in range(table.num_rows)]))
    assert identifier_columns(more, engine.schema) == ("order",)
