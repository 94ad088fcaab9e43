"""Rows that break a rule are found, and made rows keep every rule."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nelbo.datetime_parts import DAY, part_of
from nelbo.errors import InvalidInput
from nelbo.rule_finding import declared_rule
from nelbo.rule_keeping import (
    ATTEMPTS,
    RuleKeeper,
    encoded_rows,
    matrix_of,
    unkept,
)
from nelbo.schema import Column, Schema

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

SEATS = {"A320": 180.0, "B737": 160.0, "E190": 100.0}
COLUMNS = (
    Column(name="model", kind="categorical", categories=tuple(SEATS)),
    Column(name="same model", kind="categorical", categories=tuple(reversed(SEATS))),
    Column(name="seats", kind="integer"),
    Column(name="arrive", kind="datetime", step=DAY),
    Column(name="leave", kind="datetime", step=DAY),
    Column(name="nights", kind="integer"),
    Column(name="month", kind="integer"),
    Column(name="net", kind="continuous"),
    Column(name="tax", kind="continuous"),
    Column(name="total", kind="continuous"),
    Column(name="rooms", kind="integer"),
    Column(name="price", kind="continuous"),
)
RULES = (
    "same model = model",
    "model -> seats",
    "arrive <= leave",
    "nights = days(leave - arrive)",
    "month = month(arrive)",
    "total = net + tax",
    "price = rooms * total",
)
TABLE = Schema(columns=COLUMNS)
AT = {column.name: j for j, column in enumerate(COLUMNS)}


def stays(rows: int, seed: int = 0) -> Floats:
    """Rows that keep all rules."""
    rng = np.random.default_rng(seed)
    model = rng.integers(0, 3, rows)
    arrive = (19_000 + rng.integers(0, 700, rows)) * DAY
    nights = rng.integers(0, 15, rows)
    net = np.round(rng.lognormal(3, 1, rows), 2)
    tax = np.round(net * 0.19, 2)
    total = np.round(net + tax, 2)
    rooms = rng.integers(1, 5, rows)
    columns = {
        "model": model,
        "same model": 2 - model,
        "seats": np.array(list(SEATS.values()))[model],
        "arrive": arrive,
        "leave": arrive + nights * DAY,
        "nights": nights,
        "month": part_of(arrive.astype(np.float64), "month"),
        "net": net,
        "tax": tax,
        "total": total,
        "rooms": rooms,
        "price": np.round(rooms * total, 2),
    }
    return np.column_stack([columns[column.name] for column in COLUMNS]).astype(np.float64)


def keeper(*texts: str) -> RuleKeeper:
    return RuleKeeper(with_rules(*texts))


def with_rules(*texts: str) -> Schema:
    x = stays(2_000)
    rules = tuple(declared_rule(text, x, TABLE, 1) for text in texts)
    return TABLE.model_copy(update={"rules": rules})


ALL = keeper(*RULES)


def shuffled(rows: int, seed: int) -> Floats:
    """Rows whose columns have nothing to do with each other, with missing cells."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.permutation(column) for column in stays(rows, seed).T])
    x[rng.random(x.shape) < 0.05] = np.nan
    return x


def drawn_again(x: Floats, hidden: Booleans, at: NDArray[np.int64], attempt: int) -> Floats:
    """A model for which all columns are independent."""
    rng = np.random.default_rng([attempt, len(at)])
    fresh = shuffled(max(2, len(x)), int(rng.integers(1 << 30)))[: len(x)]
    return np.where(hidden & ~np.isnan(x), fresh, x)


def kept(rules: RuleKeeper, x: Floats, fixed: Booleans) -> Floats:
    def uniforms(at: NDArray[np.int64]) -> Floats:
        return np.random.default_rng(1).random(len(at))

    return rules.kept(x, fixed, drawn_again, uniforms)


def test_rows_that_keep_the_rules_break_none() -> None:
    assert not ALL.broken(stays(500, seed=9)).any()


@pytest.mark.parametrize("text", RULES)
def test_a_row_that_breaks_a_rule_is_found(text: str) -> None:
    rules = keeper(text)
    x = stays(50, seed=3)
    target = rules.rules[0].target
    x[:, target] += -30 * DAY if text == "arrive <= leave" else 1
    x[:, target] %= 3 if COLUMNS[target].kind == "categorical" else np.inf
    assert rules.broken(x).all()


@pytest.mark.parametrize("text", RULES)
def test_a_rule_says_nothing_about_a_missing_cell(text: str) -> None:
    rules = keeper(text)
    for column in rules.rules[0].columns.tolist():
        x = shuffled(200, 4)
        x[:, column] = np.nan
        assert not rules.broken(x).any()


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_made_rows_break_no_rule(seed: int) -> None:
    x = shuffled(200, seed)
    result = kept(ALL, x, np.zeros(x.shape, dtype=np.bool_))
    assert not ALL.broken(result).any()


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_fixed_cells_never_change(seed: int) -> None:
    x = shuffled(100, seed)
    fixed = np.random.default_rng(seed).random(x.shape) < 0.3
    result = kept(ALL, x, fixed)
    assert np.array_equal(result[fixed], x[fixed], equal_nan=True)


@pytest.mark.parametrize("text", RULES)
def test_where_the_last_column_is_fixed_the_others_give_way(text: str) -> None:
    rules = keeper(text)
    if text == "price = rooms * total":
        return  # a price that is no multiple has no such rooms
    x = shuffled(300, 6)
    fixed = np.zeros(x.shape, dtype=np.bool_)
    fixed[:, rules.rules[0].target] = True
    result = kept(rules, x, fixed)
    assert not rules.broken(result).any()


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_a_row_does_not_depend_on_its_neighbours(seed: int) -> None:
    def by_number(x: Floats, hidden: Booleans, at: NDArray[np.int64], attempt: int) -> Floats:
        fresh = [shuffled(2, int(row) * 100 + attempt)[0] for row in rows[at]]
        return np.where(hidden & ~np.isnan(x), np.array(fresh), x)

    def uniforms(at: NDArray[np.int64]) -> Floats:
        return np.asarray(rows[at] % 10 / 10.0)

    x = shuffled(40, seed)
    none = np.zeros(x.shape, dtype=np.bool_)
    rows = np.arange(40)
    whole = ALL.kept(x, none, by_number, uniforms)
    rows = np.arange(10, 40)
    part = ALL.kept(x[10:], none[10:], by_number, uniforms)
    assert np.array_equal(whole[10:], part, equal_nan=True)


LIMITS = [
    "model = A320 => rooms <= 2",
    "model in (B737, E190) => leave < 2022-06-01",
    "net > 50 => model != A320",
    "rooms in (1, 3)",
    "price >= 20",
    "arrive > 2022-03-01",
]


@pytest.mark.parametrize("text", LIMITS)
@pytest.mark.parametrize("stuck", [False, True])
def test_made_rows_keep_limits(text: str, stuck: bool) -> None:
    rules = keeper(text)
    x = shuffled(500, 8)
    assert rules.broken(x).any()
    before = rules.broken(x).all(1)
    fixed = np.zeros(x.shape, dtype=np.bool_)

    def same(x: Floats, hidden: Booleans, at: NDArray[np.int64], attempt: int) -> Floats:
        return x

    redraw = same if stuck else drawn_again
    result = rules.kept(x, fixed, redraw, lambda at: np.linspace(0, 0.99, len(at)))
    assert not rules.broken(result).any()
    assert np.array_equal(result[~before], x[~before], equal_nan=True)


BOUNDS = ("total <= 1000", "rooms > 3 => seats in (100, 160)", "nights != 3")
LIMITED = with_rules(*RULES, *BOUNDS)


@given(st.integers(0, 10_000))
def test_cells_around_those_of_a_row_that_keeps_the_rules_are_not_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (row,) = stays(1, seed)
    assume(not RuleKeeper(LIMITED).broken(row[None]).any())
    spans = {}
    for name, at in AT.items():
        if rng.random() < 0.7:
            width = (
                0.0 if COLUMNS[at].kind == "categorical" else abs(row[at]) * rng.choice([0, 0.1])
            )
            others = rng.choice(stays(50)[:, at], rng.integers(0, 3))
            own = [(row[at] - width, row[at] + width)]
            spans[name] = np.array([*((cell, cell) for cell in others), *own])
    assert unkept(LIMITED, spans) is None


@given(st.integers(0, 10_000))
def test_single_cells_are_refused_where_a_row_with_them_breaks_a_rule(seed: int) -> None:
    (row,) = shuffled(1, seed)
    spans = {name: np.full((1, 2), row[at]) for name, at in AT.items() if not np.isnan(row[at])}
    rule = unkept(LIMITED, spans)
    rules = RuleKeeper(LIMITED)
    broken = rules.broken(row[None])[0]
    expected = [each.rule for each, is_broken in zip(rules.rules, broken, strict=True) if is_broken]
    assert rule == next(iter(expected), None)


@pytest.mark.parametrize(
    ("rule", "spans"),
    [
        ("arrive <= leave", {"arrive": (DAY, 3 * DAY), "leave": (-9 * DAY, 0)}),
        ("total = net + tax", {"net": (0, 5), "tax": (1, 2), "total": (8, 9)}),
        ("price = rooms * total", {"rooms": (2, 3), "total": (10, 20), "price": (70, 80)}),
        (
            "nights = days(leave - arrive)",
            {"arrive": (0, DAY), "leave": (0, DAY), "nights": (3, 9)},
        ),
        ("month = month(arrive)", {"arrive": (0, 40 * DAY), "month": (3, 12)}),
        ("rooms > 3 => seats in (100, 160)", {"rooms": (4, 5), "seats": (101, 159)}),
        ("total <= 1000", {"total": (1000.5, 2000)}),
        ("nights != 3", {"nights": (3, 3)}),
    ],
)
def test_ranges_that_no_row_can_have_together_are_refused(
    rule: str, spans: dict[str, tuple[float, float]]
) -> None:
    by_column = {name: np.array([span], dtype=np.float64) for name, span in spans.items()}
    refused = unkept(LIMITED, by_column)
    assert refused is not None
    assert refused.text == rule
    one, *_ = by_column
    wide = {one: np.array([[-1e18, 1e18]])}
    if len(by_column) > 1:
        assert unkept(LIMITED, by_column | wide) is None


def test_a_limit_that_names_a_category_which_the_column_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="names 'A380', which column 'model' does not have"):
        keeper("model = A380 => rooms <= 2")


def test_rules_that_hold_cost_nothing_to_keep() -> None:
    def never(*_: object) -> Floats:
        raise AssertionError("nothing is broken, so nothing is drawn again")

    x = stays(100, seed=5)
    result = ALL.kept(x, np.zeros(x.shape, dtype=np.bool_), never, never)
    assert np.array_equal(result, x)


def test_a_category_whose_sources_are_too_rare_to_be_made_is_kept_and_they_are_left_empty() -> None:
    columns = (
        Column(name="plane", kind="categorical", categories=("p", "q", "r")),
        Column(name="carrier", kind="categorical", categories=("A", "F")),
    )
    schema = Schema(columns=columns)
    x = np.array([[0.0, 0.0]] * 50 + [[1.0, 0.0]] * 50 + [[2.0, 1.0]] * 4)
    rule = declared_rule("plane -> carrier", x, schema, rare=5)
    rules = RuleKeeper(schema.model_copy(update={"rules": (rule,)}))
    made = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])

    none = np.zeros(made.shape, dtype=np.bool_)
    result = kept(rules, made, none)
    expected = np.array([[0.0, 0.0], [np.nan, 1.0], [np.nan, 1.0]])
    assert np.array_equal(result, expected, equal_nan=True)

    of_plane = none.copy()
    of_plane[:, 0] = True
    assert kept(rules, made, of_plane).tolist() == [[0, 0], [0, 0], [1, 0]]


def test_a_number_follows_the_curve_of_others_but_for_a_rest_like_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    schema = Schema(columns=tuple(Column(name=name, kind="continuous") for name in "abc"))
    a, b = rng.normal(20, 8, 5_000), rng.uniform(1, 5, 5_000)
    rest = rng.exponential(2, 5_000)
    x = np.column_stack([a, b, np.round(a * b + rest, 2)])
    rule = declared_rule("c ~ a, b", x, schema, 1)
    rules = RuleKeeper(schema.model_copy(update={"rules": (rule,)}))
    made = np.column_stack([rng.permutation(column) for column in x.T])
    assert not rules.broken(made).any()

    fixed = np.zeros(made.shape, dtype=np.bool_)
    result = rules.kept(made, fixed, drawn_again, lambda at: (at % 997 + 0.5) / 997)
    off = result[:, 2] - result[:, 0] * result[:, 1]
    inside = (result[:, 2] > x[:, 2].min()) & (result[:, 2] < x[:, 2].max())
    assert np.quantile(off[inside], [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(rest, [0.1, 0.5, 0.9]), abs=0.7
    )
    assert np.array_equal(result, np.round(result, 2) * [0, 0, 1] + result * [1, 1, 0])
    assert result[:, 2].min() >= x[:, 2].min()
    assert result[:, 2].max() <= x[:, 2].max()


def test_a_combination_that_training_did_not_have_is_not_made() -> None:
    columns = tuple(Column(name=name, kind="integer") for name in ("a", "b", "c"))
    schema = Schema(columns=columns)
    pairs = [(0, 0, 10), (0, 1, 20), (1, 0, 30)]
    x = np.repeat(np.array(pairs, dtype=np.float64), 50, axis=0)
    rules = RuleKeeper(
        schema.model_copy(update={"rules": (declared_rule("a, b -> c", x, schema, 5),)})
    )
    made = np.array([[1.0, 1.0, 10.0]] * 40)

    def stuck(x: Floats, hidden: Booleans, at: NDArray[np.int64], attempt: int) -> Floats:
        assert attempt < ATTEMPTS
        return x

    fixed = np.zeros(made.shape, dtype=np.bool_)
    result = rules.kept(made, fixed, stuck, lambda at: np.linspace(0, 0.99, len(at)))
    assert set(map(tuple, result.tolist())) == set(map(tuple, np.array(pairs, float).tolist()))


def test_rows_become_a_matrix_and_rows_again() -> None:
    schema = Schema(
        columns=(
            Column(name="n", kind="continuous"),
            Column(name="c", kind="categorical", categories=("x", "y"), rarer=(("z", 5),)),
            Column(name="from", kind="datetime", step=DAY),
            Column(name="to", kind="datetime", step=DAY, since="from"),
        )
    )
    numbers = np.array([[1.5, 3.0 * DAY, DAY], [np.nan, 4.0 * DAY, 2.0 * DAY]])
    codes = np.array([[0], [3]])
    x = matrix_of(numbers, codes, schema)
    assert x[0].tolist() == [1.5, 0.0, 3.0 * DAY, 4.0 * DAY]
    assert np.isnan(x[1, :2]).all()
    again, codes_again = encoded_rows(x, schema)
    assert np.array_equal(again, numbers, equal_nan=True)
    assert np.array_equal(codes_again, codes)
