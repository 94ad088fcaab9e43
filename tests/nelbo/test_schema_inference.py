"""Each rule of inference, and that it holds however the rows are cut and whatever type holds the
values."""

import datetime as dt
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nelbo.encoding import encode
from nelbo.errors import InvalidInput
from nelbo.files import open_table
from nelbo.schema import Column, Kind, Schema
from nelbo.schema_inference import Inspected, Inspector, infer
from nelbo.spelling.numbers import NumberFormat

N = 40


def inferred(values: Any, name: str = "x", rows: int = 7, override: Kind | None = None) -> Column:
    batch = pa.record_batch({name: values})
    batches = [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)]
    return infer(batches, {name: override} if override else None).columns[0]


def texts(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


RULES: dict[str, tuple[Any, str]] = {
    "fractions": (["1.5", "2", "3", "4"], "continuous"),
    "exponents": (["1e3", "2.5e-3", "1", "2"], "continuous"),
    "huge amounts": (["1e20", "1.5e21", "1", "1"], "continuous"),
    "whole numbers": (["3", "-1", "3", " 4 ", ""], "integer"),
    "whole numbers written with a point": (["3.0", "4.0", "3.0"], "integer"),
    "zero and one": (["0", "1"] * 20, "integer"),
    "typed numbers": (pa.array([1, 2, 2]), "integer"),
    "typed fractions": (pa.array([1.5, None, 1.5]), "continuous"),
    "typed whole fractions": (pa.array([1.0, float("nan"), 1.0]), "integer"),
    "decimals": (pa.array([1, 2, 2], pa.decimal128(10, 2)), "integer"),
    "leading zeros": (["007", *texts(range(100, 139)), "100"], "categorical"),
    "leading zeros that all differ": (["007", *texts(range(100, 139))], "identifier"),
    "beyond 2^53": (["9007199254740993", "9007199254740993", "1"], "identifier"),
    "typed beyond 2^53": (pa.array([2**53 + 1, 2**53 + 1, 1]), "identifier"),
    "a row number": (texts(range(N)), "identifier"),
    "a shuffled row number": (texts(range(N - 1, -1, -1)), "identifier"),
    "numbers that all differ with gaps": (texts(range(0, 2 * N, 2)), "integer"),
    "numbers that follow one another, few": (texts(range(10)), "integer"),
    "words": (["a", "b"] * 20, "categorical"),
    "few words that all differ": (texts(f"w{at}" for at in range(19)), "categorical"),
    "words that all differ": (texts(f"w{at}" for at in range(N)), "identifier"),
    "sentences of which few repeat": (
        texts(f"a film of {at % 33}" for at in range(N)),
        "identifier",
    ),
    "sentences that repeat": (texts(f"film {at % 25}" for at in range(N)), "categorical"),
    "words, few of which repeat": (
        texts(f"w{at % 33}" for at in range(N)),
        "categorical",
    ),
    "true and false": (["true", "False", "TRUE", ""], "boolean"),
    "yes and no": (["yes", "No", "y", "n"], "boolean"),
    "t and f": (["t", "F"], "boolean"),
    "a word besides true and false": (["true", "false", "maybe"], "categorical"),
    "typed booleans": (pa.array([True, None, False]), "boolean"),
    "dates": (["2024-01-31", "2024-02-29", ""], "datetime"),
    "times": (["2024-01-31T12:00", "2024-02-29 23:59:59.5"], "datetime"),
    "typed dates": (pa.array([1, 2, None], pa.date32()), "datetime"),
    "typed times": (pa.array([1, 2, None], pa.timestamp("ns", "Europe/Berlin")), "datetime"),
    "times of day": (pa.array([1, 2, 1], pa.time32("s")), "categorical"),
    "nothing": (["", "NA", None, "nan"], "categorical"),
    "typed nothing": (pa.nulls(3), "categorical"),
    "numbers with 5 % junk": ([*texts([1.5, 2.5] * 19), "junk", "1"], "continuous"),
    "numbers with more junk": ([*texts([1, 2] * 8), "junk", "trash"], "categorical"),
    "dates with 5 % junk": ([*["2024-01-31"] * 19, "junk"], "datetime"),
    "dictionary": (pa.array(["a", "b", "a"]).dictionary_encode(), "categorical"),
    "dictionary of numbers": (pa.array([1, 2, 1]).dictionary_encode(), "integer"),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rows", [1, 7, 1_000])
def test_a_column_has_the_kind_that_the_rules_say_however_the_rows_are_cut(
    rule: str, rows: int
) -> None:
    values, kind = RULES[rule]
    assert inferred(values, rows=rows).kind == kind


@pytest.mark.parametrize(
    "name", ["id", "ID", "user_id", "customerId", "key", "uuid", "row_number", "Order ID"]
)
def test_whole_numbers_that_all_differ_under_the_name_of_a_key_are_identifiers(name: str) -> None:
    assert inferred(texts(range(0, 30, 3)), name).kind == "identifier"
    assert inferred(texts([1, 5, 5]), name).kind == "integer"


@pytest.mark.parametrize("name", ["paid", "monkey", "width", "age", "valid", "humid"])
def test_a_name_that_only_ends_like_a_key_is_none(name: str) -> None:
    assert inferred(texts(range(0, 30, 3)), name).kind == "integer"


@pytest.mark.parametrize(
    ("values", "zone", "step"),
    [
        (["2024-01-31", "2024-02-29"], None, 86_400_000_000),
        (["2024-01-31", "2024-02-29T13:00"], None, 3_600_000_000),
        (["2024-01-31T12:01"], None, 60_000_000),
        (["2024-01-31T12:01:01"], None, 1_000_000),
        (["2024-01-31T12:01:01.250"], None, 1_000),
        (["2024-01-31T12:01:01.250001", "2024-01-31"], None, 1),
        (["2024-01-31T00:00:00Z", "2024-01-31T01:30:00+05:30"], "utc", 3_600_000_000),
        (pa.array([86_400, 2 * 86_400], pa.timestamp("s")), None, 86_400_000_000),
        (pa.array([3, None], pa.date32()), None, 86_400_000_000),
        (pa.array([1], pa.timestamp("ms", "UTC")), "utc", 1_000),
    ],
)
def test_a_datetime_knows_its_zone_and_its_resolution(
    values: Any, zone: str | None, step: int
) -> None:
    column = inferred(values, rows=1)
    assert (column.kind, column.zone, column.step) == ("datetime", zone, step)


def test_titles_are_free_text_however_the_rows_are_sorted() -> None:
    """Of 40,000 titles one in four occurs twice, and they are more than the sample holds."""
    titles = [f"The {at}. film of {at % 7}" for at in range(32_000)]
    for values in ([*titles, *titles[:8_000]], sorted([*titles, *titles[:8_000]])):
        inspector = Inspector()
        inspector.update(pa.record_batch({"title": values}))
        (decision,) = inspector.finish().decisions
        assert decision.rule == "free text: several words, nearly all different"
    often = [title for title in titles[:8_000] for _ in range(5)]
    assert inferred(often, rows=40_000).kind == "categorical"


def test_times_of_which_half_have_a_zone_are_text() -> None:
    assert inferred(["2024-01-31T00:00Z", "2024-01-31T00:00"] * 20).kind == "categorical"


def test_an_override_wins_and_one_for_no_column_is_refused() -> None:
    assert inferred(["0", "1"], override="boolean").categories == ("false", "true")
    assert inferred(["9007199254740993"] * 2, override="integer").kind == "integer"
    with pytest.raises(InvalidInput, match=r"'y'.*it has 'x'"):
        infer([pa.record_batch({"x": [1]})], {"y": "integer"})


def test_notices_tell_what_a_user_may_want_to_override() -> None:
    inspector = Inspector()
    inspector.update(
        pa.record_batch(
            {
                "age": ["1", "2"] * 19 + ["3", "old"],
                "name": texts(f"n{at}" for at in range(N)),
                "gone": [""] * N,
            }
        )
    )
    inference = inspector.finish()
    assert inference.rows == N
    age, name, gone = inference.notices
    assert "'age': 1 of 40" in age
    assert "'old'" in age
    assert "'name' looks like an identifier" in name
    assert "'gone' has no values" in gone


def test_a_weird_table_has_a_schema_too() -> None:
    assert infer([]).columns == ()
    columns: dict[str, Any] = {
        "bytes": pa.array([b"a", None]),
        "span": pa.array([1, 2], pa.duration("s")),
        "odd": ["\x00", "\U0001f600"],
    }
    assert len(infer([pa.record_batch(columns)]).columns) == 3


def test_the_search_for_repeated_values_is_bounded_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nelbo.schema_inference.DISTINCT_BYTES", 1_000)
    batches = [
        pa.record_batch({"x": texts(f"w{batch}-{at}" for at in range(100))}) for batch in range(20)
    ]
    inspector = Inspector()
    for batch in batches:
        inspector.update(batch)
    kept = inspector._columns["x"]._distinct
    assert kept is not None
    assert kept.nbytes < 3_000
    assert inspector.finish().schema.columns[0].kind == "identifier"


def inspected(content: str, format: str = "csv") -> Inspected:
    inspector = Inspector()
    with open_table(io.BytesIO(content.encode()), format) as table:
        for batch in table.batches():
            inspector.update(batch)
    return inspector.finish()


@pytest.mark.parametrize("word", ["None", "none", "?", "-", "--", "n.a.", "unknown", "."])
@pytest.mark.parametrize(
    "values",
    [["1.5", "2"], ["7", "8"], ["2024-01-31", "2024-02-01"], ["Yes", "No"], ["1,5", "2,25"]],
)
def test_a_word_that_may_mean_missing_does_so_beside_numbers_dates_and_flags(
    word: str, values: list[str]
) -> None:
    inference = inspected(
        "\n".join(["a;b", *(f"{value};x" for value in [*values * 5, word, word])])
    )
    (column, _) = inference.schema.columns
    assert column.kind != "categorical"
    for texts in ([word], [word, values[0]]):
        encoded = encode(pa.record_batch({"a": texts}), Schema(columns=(column,)))
        assert encoded.errors == []
        assert np.isnan(encoded.numbers[:1]).all()
    assert any(word in notice and "read as missing" in notice for notice in inference.notices)


@pytest.mark.parametrize("word", ["#N/A", "NAN", "n/a", "\\N", "NaT", "<NA>", "#DIV/0!"])
@pytest.mark.parametrize("values", [["1.5", "2"], ["red", "blue"]])
def test_a_word_that_programs_write_for_missing_does_so_everywhere(
    word: str, values: list[str]
) -> None:
    inference = inspected("\n".join(["a", *values * 5, word, word]))
    assert encode(pa.record_batch({"a": [word, values[0]]}), inference.schema).errors == []
    assert inference.notices == ()
    assert word in inference.schema.missing


def test_a_word_that_may_mean_missing_is_a_category_beside_text_and_this_is_said() -> None:
    inference = inspected("\n".join(["a", *["red", "blue", "None"] * 5]))
    assert inference.schema.columns[0].missing == ()
    assert any("'None'" in notice and "are a category" in notice for notice in inference.notices)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_the_row_index_of_a_data_frame_is_an_identifier_also_of_a_sample(name: str) -> None:
    inference = inspected(
        "\n".join([f"{name},b", *(f"{n * n % 101},{n % 3}.5" for n in range(40))])
    )
    assert [column.kind for column in inference.schema.columns] == ["identifier", "continuous"]


@pytest.mark.parametrize("number", ["-9999", "999", "-99", "99999"])
def test_a_number_far_from_all_others_that_comes_often_is_told(number: str) -> None:
    rows = [*(str(n % 20 / 2) for n in range(60)), *[number] * 6]
    (notice,) = inspected("\n".join(["a", *rows])).notices
    assert f"{number} is in 6 cells" in notice
    assert inspected("\n".join(["a", *(str(n * 7) for n in range(60)), "399"])).notices == ()


def test_a_declared_sentinel_is_missing_as_text_and_as_a_number() -> None:
    schema = Schema(columns=(Column(name="a", kind="continuous", missing=("-9999", "?")),))
    for values in (
        ["-9999", "?", "-9999.0", "1"],
        pa.array([-9999.0, None, -9999.0, 1.0]),
        pa.array([-9999, None, -9999, 1]),
    ):
        encoded = encode(pa.record_batch({"a": values}), schema)
        assert np.isnan(encoded.numbers[:3, 0]).all()
        assert encoded.numbers[3, 0] == 1.0


@pytest.mark.parametrize("format", [None, "%d.%m.%Y"])
def test_a_declared_open_end_is_missing_however_dates_are_written(format: str | None) -> None:
    schema = Schema(
        columns=(Column(name="a", kind="datetime", format=format, missing=("9999-12-31",)),)
    )
    last, first = dt.date(9999, 12, 31), dt.date(2024, 2, 1)
    texts = [f"{day:{format or '%Y-%m-%d'}}" for day in (last, first)]
    for values in (
        texts,
        pa.array([last, first]),
        pa.array([last, first]).cast(pa.timestamp("us")),
    ):
        encoded = encode(pa.record_batch({"a": values}), schema)
        assert encoded.errors == []
        assert np.isnan(encoded.numbers[:, 0]).tolist() == [True, False]


def test_a_decimal_sign_that_the_sample_has_not_shown_is_found_in_the_whole_table() -> None:
    rows = [*["0"] * 30_000, *["3,4", "2,25"], *["0"] * 30_000]
    inference = inspected("\n".join(["a;b", *(f"{row};x" for row in rows)]))
    assert inference.schema.columns[0].kind == "continuous"
    assert inference.schema.columns[0].number == NumberFormat(decimal=",")


def test_ordinary_tables_are_read_without_a_word() -> None:
    rows = [
        f"{n % 7},{n / 4},{['a', 'b'][n % 2]},2024-01-{n % 28 + 1:02},{['yes', 'no'][n % 2]},"
        for n in range(50)
    ]
    content = "\n".join(["i,f,c,d,b,i2", *(row + str(n % 3) for n, row in enumerate(rows))])
    assert inspected(content).notices == ()


def test_each_decision_has_its_rule_and_examples() -> None:
    inference = inspected(
        "\n".join(["a,b,c", *(f"{n % 7},{n % 28 + 1:02}/12/2023,w{n % 2}" for n in range(50))])
    )
    assert [(decision.column.kind, decision.rule) for decision in inference.decisions] == [
        ("integer", "whole numbers"),
        ("datetime", "dates written %d/%m/%Y"),
        ("categorical", "text that repeats"),
    ]
    assert inference.decisions[1].examples == ("01/12/2023", "02/12/2023", "03/12/2023")
