"""Conditions are read as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nelbo.clauses import Clause, parse_where
from nelbo.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("label = fraud", [("label", "=", ("fraud",))]),
        ("label==fraud", [("label", "=", ("fraud",))]),
        ("income = >50K", [("income", "=", (">50K",))]),
        ("income = <=50K and age > 3", [("income", "=", ("<=50K",)), ("age", ">", ("3",))]),
        ("label <> 'a and b'", [("label", "!=", ("a and b",))]),
        ('label in (a, \'b, c\', "d""e")', [("label", "in", ("a", "b, c", 'd"e'))]),
        ("label NOT IN(a)", [("label", "not in", ("a",))]),
        ("age between 30 and 40", [("age", "between", ("30", "40"))]),
        (
            "age  between 30 AND 40 and label = New  York",
            [("age", "between", ("30", "40")), ("label", "=", ("New York",))],
        ),
        ("hours per week >= -1.5", [("hours per week", ">=", ("-1.5",))]),
        ("'weeks in (a)' <= 3", [("weeks in (a)", "<=", ("3",))]),
        ("income is missing", [("income", "is missing", ())]),
        ("income IS NOT NULL", [("income", "is not missing", ())]),
        (
            "weeks in work < 3 and pay is not missing",
            [("weeks in work", "<", ("3",)), ("pay", "is not missing", ())],
        ),
    ],
)
def test_a_text_is_read_as_conditions(
    text: str, clauses: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    read = [(clause.name, clause.operator, clause.values) for clause in parse_where(text)]
    assert read == clauses


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label", "'label' is not a condition; write label = fraud"),
        ("", "'' is not a condition"),
        ("label =", "lacks a value"),
        ("age between 3", "lacks a value"),
        ("label in (a, b", "does not end"),
        ("label = Trinidad and Tobago", "'Tobago' is not a condition; .*in quotes"),
        ("label in (a) or age = 3", "'or age = 3' follows a condition"),
    ],
)
def test_what_is_no_condition_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        list(parse_where(text))


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        clauses = list(parse_where(text))
    except InvalidInput:
        return
    assert all(isinstance(clause, Clause) for clause in clauses)


@given(
    st.text("ab '\"(),=<>", min_size=1, max_size=9),
    st.text("and in'\"(),=", min_size=1, max_size=9),
)
def test_a_quoted_name_and_value_are_read_as_they_are(name: str, value: str) -> None:
    quoted = [text.replace('"', '""') for text in (name, value)]
    (clause,) = parse_where('"{}" = "{}"'.format(*quoted))
    assert (clause.name, clause.operator, clause.values) == (name, "=", (value,))


def test_a_long_text_is_read_in_no_time() -> None:
    for text in ("a" + " " * 9_000, "a in (" + "x, " * 3_000, "a = b" + " and a = b" * 900):
        try:
            list(parse_where(text))
        except InvalidInput:
            continue
