"""Rules are found where all rows keep them and chance does not explain it; nowhere else."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from nelbo.errors import InvalidInput
from nelbo.rule_finding import AT_RISK, candidate_rules, declared_rule
from nelbo.rule_keeping import RuleKeeper, matrix_of
from nelbo.schema import Column, Schema
from nelbo.schema_inference import infer

ROWS = 2_000


def rules_of(**columns: Any) -> list[str]:
    """The texts of the rules of a table."""
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    schema = infer(table.to_batches())
    return [rule.text for rule in candidate_rules(table, schema)]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def days(rows: int = ROWS, seed: int = 0) -> NDArray[np.datetime64]:
    return np.datetime64("2020-01-01") + random(seed).integers(0, 1_000, rows)


def test_equal_columns() -> None:
    a = random().integers(0, 1_000, ROWS)
    assert rules_of(a=a, b=a, c=random(1).normal(size=ROWS)) == ["b = a"]


def test_equal_columns_of_text() -> None:
    a = random().choice(["x", "y", "z"], ROWS)
    assert rules_of(a=a, b=a) == ["b = a"]


def test_a_column_that_another_one_fixes() -> None:
    city = random().choice(["Rome", "Milan", "Paris", "Lyon"], ROWS)
    country = np.where(np.isin(city, ["Rome", "Milan"]), "IT", "FR")
    assert rules_of(country=country, city=city) == ["city -> country"]


def test_of_two_columns_that_fix_each_other_the_first_fixes_the_second() -> None:
    code = random().choice(["a", "b", "c"], ROWS)
    level = np.char.upper(code)
    assert rules_of(code=code, level=level) == ["code -> level"]


def test_a_column_that_two_others_fix() -> None:
    a = random(1).choice(["p", "q", "r"], ROWS)
    b = random(2).choice(["s", "t"], ROWS)
    table = {("p", "s"): 7, ("p", "t"): 3, ("q", "s"): 3, ("q", "t"): 9, ("r", "s"): 9}
    miles = [table.get(pair, 7) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert rules_of(a=a, b=b, miles=miles) == ["a, b -> miles"]


def test_an_order_of_numbers() -> None:
    low = random().normal(size=ROWS).round(2)
    high = (low + random(1).exponential(size=ROWS)).round(2)
    assert rules_of(high=high, low=low) == ["low <= high"]


def test_orders_that_follow_from_others_are_left_out() -> None:
    a = random().normal(size=ROWS)
    b = a + random(1).exponential(size=ROWS)
    c = b + random(2).exponential(size=ROWS)
    assert sorted(rules_of(a=a, b=b, c=c)) == ["a <= b", "b <= c"]


def test_an_order_of_datetimes() -> None:
    start = days()
    end = start + random(2).integers(0, 9, ROWS)
    assert rules_of(start=start, end=end) == ["start <= end"]


def test_numbers_far_apart_have_no_order_worth_a_rule() -> None:
    assert rules_of(a=random().normal(size=ROWS), b=100 + random(1).normal(size=ROWS)) == []


def test_a_sum_of_two() -> None:
    net = random().lognormal(3, 1, ROWS).round(2)
    tax = random(1).lognormal(1, 1, ROWS).round(2)
    assert rules_of(net=net, tax=tax, total=(net + tax).round(2)) == ["total = net + tax"]


def test_a_sum_of_many() -> None:
    parts = {name: random(i).lognormal(3, 1, ROWS).round(2) for i, name in enumerate("abcd")}
    total = (parts["a"] + parts["b"] + parts["c"] - parts["d"]).round(2)
    assert rules_of(**parts, total=total) == ["total = a + b + c - d"]


def test_a_product_and_a_ratio_up_to_their_rounding() -> None:
    price = random().lognormal(3, 1, ROWS).round(2)
    pieces = random(1).integers(1, 20, ROWS)
    amount = (price * pieces).round(2)
    assert rules_of(price=price, pieces=pieces, amount=amount) == ["amount = price * pieces"]
    share = (price / amount).round(3)
    assert rules_of(price=price, amount=amount, share=share) == ["share = price / amount"]


def test_a_sum_that_is_rounded_to_whole_numbers() -> None:
    a = random().uniform(0, 500, ROWS).round(2)
    b = random(1).uniform(0, 500, ROWS).round(2)
    assert rules_of(a=a, b=b, total=(a + b).round().astype(int)) == ["total = a + b"]


def test_parts_of_a_datetime_and_the_time_between_two() -> None:
    start = days()
    nights = random(3).integers(0, 15, ROWS)
    month = start.astype("datetime64[M]").astype(int) % 12 + 1
    rules = rules_of(start=start, end=start + nights, nights=nights, month=month)
    assert sorted(rules) == ["month = month(start)", "nights = days(end - start)"]


def test_parts_of_a_datetime_in_the_time_zone_of_a_city() -> None:
    first = datetime(2023, 1, 1, tzinfo=UTC)
    times = [first + timedelta(hours=int(h)) for h in random().integers(0, 8_760, ROWS)]
    there = [time.astimezone(ZoneInfo("Australia/Adelaide")) for time in times]
    rules = rules_of(
        time=pa.array(times, pa.timestamp("us", "UTC")),
        hour=[time.hour for time in there],
        day=[time.day for time in there],
    )
    assert sorted(rules) == ["day = day(time)", "hour = hour(time)"]


def test_a_number_that_is_nearly_a_smooth_function_of_two_others() -> None:
    a = random().normal(20, 8, ROWS).round(1)
    b = random(1).uniform(1, 5, ROWS).round(2)
    c = (a**2 / b + random(2).normal(0, 1, ROWS)).round(2)
    assert rules_of(a=a, b=b, other=random(3).normal(size=ROWS), c=c) == ["c ~ a, b"]


def test_a_number_that_others_say_much_of_is_not_nearly_their_function() -> None:
    a = random().normal(size=ROWS)
    b = a + 0.2 * random(1).normal(size=ROWS)
    assert rules_of(a=a, b=b) == []


def test_a_small_difference_of_large_numbers_is_not_made_from_them() -> None:
    """The model does not place made numbers so exactly that their difference means anything."""
    a = random().uniform(1_000, 9_000, ROWS)
    b = a + random(1).normal(0, 1, ROWS)
    c = np.log(b / a) + 1e-6 * random(2).normal(size=ROWS)
    assert not any(rule.startswith("c ~") for rule in rules_of(a=a, b=b, c=c))


def test_a_rule_that_a_single_row_breaks_is_none() -> None:
    low = random().normal(size=ROWS)
    high = low + random(1).exponential(size=ROWS)
    low[17], high[17] = high[17] + 1, low[17]
    assert rules_of(low=low, high=high) == []


@pytest.mark.parametrize("seed", range(10))
def test_columns_that_have_nothing_to_do_with_each_other_have_no_rules(seed: int) -> None:
    rng = random(seed)
    rows = int(rng.choice([30, 120, 1_000]))
    names = rng.choice([f"n{i}" for i in range(rows // 2)], rows)
    assert (
        rules_of(
            names=names,
            flag=rng.random(rows) < 0.03,
            group=rng.choice(["a", "b"], rows),
            count=rng.poisson(0.2, rows),
            integer=rng.integers(0, 50, rows),
            number=rng.normal(size=rows),
            share=rng.random(rows),
            date=days(rows, seed),
        )
        == []
    )


@pytest.mark.parametrize("rows", [0, 1, 2, 40])
def test_a_table_of_few_rows_has_no_rules(rows: int) -> None:
    x = random().normal(size=rows)
    assert rules_of(a=x, b=x + 1, c=np.full(rows, "x"), d=days(rows), e=days(rows) + 1) == []


def test_a_table_of_identifiers_alone_has_no_rules() -> None:
    assert rules_of(id=[f"X-{i}-{i * 7919 % 1000}" for i in range(300)]) == []


def test_rows_that_are_all_refused_have_no_rules() -> None:
    columns = tuple(_integer(name) for name in ("a", "b"))
    table = pa.table({"a": ["x"] * 5, "b": ["1"] * 5})
    assert candidate_rules(table, Schema(columns=columns)) == ()


def test_found_rules_are_seldom_broken_by_fresh_rows_of_columns_that_go_together() -> None:
    """Columns that are close to each other keep many orders by chance in a small table."""
    rng = random(5)

    def table(rows: int) -> NDArray[np.float64]:
        return np.asarray(
            rng.normal(size=(rows, 1)) + 0.3 * rng.normal(size=(rows, 20)) + np.arange(20) * 0.2
        )

    train = pa.table({f"c{j}": pa.array(column) for j, column in enumerate(table(300).T)})
    schema = infer(train.to_batches())
    rules = candidate_rules(train, schema)
    keeper = RuleKeeper(schema.model_copy(update={"rules": rules}))
    fresh = table(20_000)
    x = matrix_of(fresh, np.empty((len(fresh), 0), dtype=np.int64), schema)
    assert keeper.broken(x).any(1).mean() < AT_RISK


def test_a_declared_rule_says_how_many_rows_break_it() -> None:
    table = pa.table({"start": [1, 2, 3, 4, 9], "end": [1, 3, 2, 5, 9]})
    schema = Schema(columns=tuple(_integer(name) for name in ("start", "end")))
    x = np.column_stack([table["start"].to_numpy(), table["end"].to_numpy()]).astype(np.float64)
    rule = declared_rule("start <= end", x, schema, 1)
    assert (rule.rows, rule.broken) == (5, 1)
    with pytest.raises(InvalidInput, match="'finish' is neither a column"):
        declared_rule("start <= finish", x, schema, 1)


def _integer(name: str) -> Column:
    return Column(name=name, kind="integer")


def test_a_rule_that_fixes_values_leaves_out_those_of_few_rows() -> None:
    schema = Schema(columns=(_integer("a"), _integer("b")))
    x = np.array([[1.0, 10.0]] * 5 + [[2.0, 20.0]] * 4)
    rule = declared_rule("a -> b", x, schema, rare=5)
    assert (rule.keys, rule.values, rule.counts) == (((1.0,),), (10.0,), (5,))
