"""Rules are read from text, and written as text that means the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nelbo.errors import InvalidInput
from nelbo.rules import (
    PARTS,
    UNITS,
    Dependency,
    Elapsed,
    Equal,
    Implication,
    Limit,
    Nearly,
    Order,
    Part,
    Product,
    Rule,
    Statement,
    Sum,
    check_kinds,
    read_rule,
)
from nelbo.schema import Column, Schema

NAMES = ["a", "b", "net", "net of tax", "US Gross", 'say "so"', "x-y", "days", "É", "month"]

READ: list[tuple[str, Statement]] = [
    ("a = b", Equal("a", "b")),
    ("a == b", Equal("a", "b")),
    ("a <= b", Order("b", "a")),
    ("b > a", Order("b", "a", strict=True)),
    ("b>=a", Order("b", "a")),
    ("a -> b", Dependency("b", ("a",))),
    ("a,b->net", Dependency("net", ("a", "b"))),
    ("US Gross <= net of tax", Order("net of tax", "US Gross")),
    ("\"US Gross\" <= 'net of tax'", Order("net of tax", "US Gross")),
    ("a = net + net of tax - b", Sum("a", ((1, "net"), (1, "net of tax"), (-1, "b")))),
    ("a = -b + net", Sum("a", ((-1, "b"), (1, "net")))),
    ("x-y = a*b", Product("x-y", "a", "b")),
    ("a = b / net", Product("a", "b", "net", divided=True)),
    ("a = month(b)", Part("a", "month", "b")),
    ("days = days(b - a)", Elapsed("days", "days", "b", "a")),
    ("a = month", Equal("a", "month")),
    ("a ~ b", Nearly("a", ("b",))),
    ("US Gross ~ a, net of tax", Nearly("US Gross", ("a", "net of tax"))),
    ("a >= 18", Implication(Limit("a", ">=", ("18",)))),
    ("a <= -1.5e3", Implication(Limit("a", "<=", ("-1.5e3",)))),
    ("b = free", Implication(Limit("b", "=", ("free",)))),
    ("b != 'a'", Implication(Limit("b", "!=", ("a",)))),
    ("b in ('x y', z, 3)", Implication(Limit("b", "in", ("x y", "z", "3")))),
    ("a > 2024-01-31", Implication(Limit("a", ">", ("2024-01-31",)))),
    (
        "US Gross in ('a', 'b') => net of tax <= 5",
        Implication(Limit("net of tax", "<=", ("5",)), Limit("US Gross", "in", ("a", "b"))),
    ),
    (
        "a = 'it''s' => b = x",
        Implication(Limit("b", "=", ("x",)), Limit("a", "=", ("it's",))),
    ),
]


@pytest.mark.parametrize(("text", "statement"), READ, ids=[text for text, _ in READ])
def test_a_rule_is_read(text: str, statement: Statement) -> None:
    assert read_rule(text, NAMES) == statement


def statements() -> st.SearchStrategy[Statement]:
    columns = st.lists(st.sampled_from(NAMES), min_size=4, max_size=4, unique=True)
    signs = st.lists(st.sampled_from([1, -1]), min_size=3, max_size=3)

    def all_kinds(names: list[str], signs: list[int]) -> st.SearchStrategy[Statement]:
        a, b, c, d = names
        kinds: list[Statement] = [
            Equal(a, b),
            Dependency(a, (b,)),
            Dependency(a, (b, c, d)),
            Order(a, b, strict=signs[0] > 0),
            Nearly(a, (b, c)),
            Sum(a, tuple(zip(signs, (b, c, d), strict=True))),
            Product(a, b, c, divided=signs[0] > 0),
            Implication(Limit(a, "in", ("x y", "it's", "7"))),
            Implication(Limit(a, "<=", ("-1.5",)), Limit(b, "!=", ("a, b",))),
            *(Part(a, part, b) for part in PARTS),
            *(Elapsed(a, unit, b, c) for unit in UNITS),
        ]
        return st.sampled_from(kinds)

    return st.tuples(columns, signs).flatmap(lambda drawn: all_kinds(*drawn))


@given(statements())
def test_a_written_rule_is_read_as_the_same(statement: Statement) -> None:
    assert read_rule(str(statement), NAMES) == statement


WRONG = [
    ("", "a column is missing"),
    ("a", "one of = <= < -> is missing"),
    ("a =", "a column or a value is missing"),
    ("a in (1, 2", ") is missing"),
    ("a = 1 => b", "one of = != <= >= < > in is missing"),
    ("a = 1 => zz = 2", "no column 'zz'"),
    ("zz = a", "no column 'zz'"),
    ("a = b net", "more text than a rule has"),
    ("a = days(b)", "wants the time between two columns"),
    ("a = month(b", ") is missing"),
    ("a, b", "-> is missing"),
    ("a = a", "names a column twice"),
    ("a, b, net, days -> É", "at most 3 columns"),
    ("a ~ b, net, days, É", "at most 3 columns"),
]


@pytest.mark.parametrize(("text", "reason"), WRONG)
def test_a_rule_that_cannot_be_read_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        read_rule(text, NAMES)
    assert reason in refusal.value.message
    assert repr(text) in refusal.value.message


def test_a_rule_about_columns_of_the_wrong_kinds_is_refused() -> None:
    kinds = {"a": "continuous", "b": "datetime", "c": "categorical", "d": "datetime"}
    with pytest.raises(InvalidInput, match="its values have no order"):
        check_kinds("c <= 5", read_rule("c <= 5", list(kinds)), kinds)
    for text in ("a = x", "b <= 5", "c = x => a >= y"):
        with pytest.raises(InvalidInput, match="is neither a column of the table nor a"):
            check_kinds(text, read_rule(text, list(kinds)), kinds)
    for text in ("a <= 5", "b < 2024-02-01", "c in (x, y) => b >= 2024-01-01T12:00"):
        check_kinds(text, read_rule(text, list(kinds)), kinds)
    for text in ("a <= b", "a = b", "a = c", "b = a + c", "c = month(b)", "a = month(c)"):
        with pytest.raises(InvalidInput, match="does not suit the kinds of its columns"):
            check_kinds(text, read_rule(text, list(kinds)), kinds)
    for text in ("b <= d", "a = month(b)", "c -> b", "a = hours(d - b)"):
        check_kinds(text, read_rule(text, list(kinds)), kinds)


def test_a_schema_takes_rules_as_text_and_refuses_unknown_columns() -> None:
    columns = (Column(name="start", kind="integer"), Column(name="end", kind="integer"))
    schema = Schema.model_validate({"columns": columns, "rules": ["start <= end"]})
    assert schema.rules == (Rule(text="start <= end"),)
    with pytest.raises(ValidationError, match="'stop' is neither a column"):
        Schema.model_validate({"columns": columns, "rules": ["start <= stop"]})


def test_a_schema_without_rules_leaves_them_to_training() -> None:
    schema = Schema(columns=(Column(name="a", kind="integer"),))
    assert schema.rules is None
    assert "rules" not in schema.model_dump()


BROKEN_PARTS = [
    {"text": "a -> b", "keys": [[1.0], [2.0]], "values": [3.0], "counts": [5]},
    {"text": "a -> b", "keys": [["one"]], "values": [3.0], "counts": [5]},
    {"text": "a, b -> c", "keys": [[1.0], [2.0]], "values": ["x"], "counts": [5]},
    {
        "text": "a ~ b, c",
        "curve": {
            "centre": [0.0],
            "scale": [1.0],
            "weights": [0.0] * 5,
            "left": [0.0],
            "lowest": 0.0,
            "highest": 1.0,
        },
    },
]


@pytest.mark.parametrize("rule", BROKEN_PARTS)
def test_a_rule_with_values_of_other_columns_is_refused(rule: dict[str, object]) -> None:
    columns = [{"name": name, "kind": "continuous"} for name in "abc"]
    with pytest.raises(ValidationError, match="holds values of other columns than it names"):
        Schema.model_validate({"columns": columns, "rules": [rule]})


def test_a_curve_has_a_weight_for_each_term_and_a_positive_scale() -> None:
    curve = {"centre": [0.0], "scale": [1.0], "weights": [0.0] * 5, "left": [0.0]}
    ends = {"lowest": 0.0, "highest": 1.0}
    assert Rule.model_validate({"text": "a ~ b", "curve": curve | ends}).curve is not None
    for wrong in ({"weights": [0.0]}, {"scale": [0.0]}, {"centre": [0.0, 1.0]}):
        with pytest.raises(ValidationError, match="a polynomial"):
            Rule.model_validate({"text": "a ~ b", "curve": curve | ends | wrong})
