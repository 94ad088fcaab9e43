"""The report is one file that loads nothing, obeys no markup of users, copes with any table; a card
needs only a manifest."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.artifact import Calibration, Manifest, Tail
from nelbo.engine import Engine
from nelbo.explanation import explain_row
from nelbo.row_scorer import RowScorer
from nelbo.schema import Column, Schema
from training.calibrate import one_batch, split_calibration
from training.config import Config
from training.data import Rows, Training, TrainingSource, read
from training.evaluate import Evaluation, evaluate
from training.export import export, write_manifest
from training.fields import DAY, HOUR, MONDAY
from training.fit import History, fit_rows
from training.report import charts, figures, model_card, words, write_report

QUICK = Config(min_steps=8, max_steps=8, threads=1)
SECTIONS = (
    "key-figures",
    "verdict",
    "learning",
    "marginals",
    "pairs",
    "scores",
    "terms",
    "worst",
    "schema",
    "settings",
    "versions",
    "notices",
)
SCRIPT = "<script>alert(1)</script>"
NASTY = ("</svg><img src=x onerror=alert(2)>", "&amp;", "{{ 7 * 7 }}", "\x00\x1b[31m\u202e|\n# x")
VOID = {"meta", "br", "link", "img", "input", "hr"}

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Reported:
    """A report, what it was made of, and what a browser would see in it."""

    page: str
    seen: "Page"
    parts: tuple[Engine, Training, History, Evaluation]

    @property
    def manifest(self) -> Manifest:
        return self.parts[0].manifest


class Page(HTMLParser):
    """Tags with their attributes, the texts outside the style sheet, and whether all tags are
    closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open, self.balanced = "", list[str](), True
        self.feed(text)
        self.balanced = self.balanced and not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.balanced = self.balanced and bool(self._open) and self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


def strange_table() -> pa.Table:
    """Names and values that break out of HTML, SVG, templates and Markdown; dates; numbers that are
    hard to draw."""
    n, rng = 60, np.random.default_rng(0)
    spread = np.concatenate([[-1.7e308, 1.7e308], rng.normal(size=n - 2)])
    return pa.table(
        {
            SCRIPT: pa.array(rng.normal(size=n)),
            "a\"b' onload=x & [0].| *c*": list(NASTY) * (n // 4),
            "all missing": pa.array([None] * n, pa.float64()),
            "constant": [5] * n,
            "constant and large": [1e300] * n,
            "far apart": pa.array(spread),
            "tiny": pa.array(1e-9 * rng.normal(size=n)),
            "moment": pa.array(
                [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * i) for i in range(n)]
            ),
            "day": pa.array(
                [date(2024, 1, 1) + timedelta(days=int(i)) for i in rng.integers(0, 400, n)]
            ),
            "flag": [True, False, None] * (n // 3),
            "key": [f"<b>{i}</b>" for i in range(n)],
        }
    )


def numbers_table() -> pa.Table:
    """As few rows as training takes."""
    rng = np.random.default_rng(0)
    return pa.table({"x": pa.array(rng.normal(size=20)), "y": pa.array(rng.integers(0, 9, 20))})


def categories_table() -> pa.Table:
    return pa.table({"x": list("abc") * 20, "long": ["q" * 5_000, "q" * 5_001] * 30})


def empty_table() -> pa.Table:
    return pa.table(
        {"x": pa.array([None] * 30, pa.string()), "y": pa.array([None] * 30, pa.float64())}
    )


def many_columns_table() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            f"column {i}": pa.array(rng.normal(size=60) if i % 2 else list("abc") * 20)
            for i in range(45)
        }
    )


def reported(table: pa.Table, folder: Path) -> Reported:
    """Train on the table for a moment and write its report."""
    pq.write_table(table, folder / "table.parquet")
    training = read(TrainingSource(folder / "table.parquet"), QUICK, 0)
    vae, history = fit_rows(
        training.schema, training.rows, training.split, QUICK, 0, lambda *_: None
    )
    manifest = export(folder, vae, "quick <b>", training, QUICK, 0).manifest
    rest = np.concatenate([training.split.stop, training.split.calibrate])
    split = replace(training.split, calibrate=rest)
    held_out = split_calibration(Engine.load(folder), replace(training, split=split), 0)
    update = {"calibration": held_out.calibration, "surprise": held_out.surprise}
    manifest = manifest.model_copy(update=update)
    write_manifest(folder, manifest)
    evaluation = evaluate(Engine.load(folder), training, 0)
    artifact = write_manifest(
        folder,
        manifest.model_copy(update={"metrics": evaluation.metrics}),
    )
    parts = Engine(artifact), training, history, evaluation
    write_report(folder / "report.html", *parts)
    page = (folder / "report.html").read_text("utf-8")
    return Reported(page, Page(page), parts)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    return reported(strange_table(), tmp_path_factory.mktemp("strange"))


def test_the_page_loads_nothing(strange: Reported) -> None:
    assert not {tag for tag, _ in strange.seen.tags} & {
        "script",
        "link",
        "iframe",
        "img",
        "image",
        "object",
        "embed",
        "base",
    }
    attributes = [
        (name, value or "") for _, found in strange.seen.tags for name, value in found.items()
    ]
    assert not [
        name
        for name, _ in attributes
        if name in ("src", "srcset", "href", "xlink:href", "style") or name.startswith("on")
    ]
    addresses = [(name, value) for name, value in attributes if "://" in value]
    assert {name for name, _ in addresses} <= {"xmlns", "xmlns:xlink"}
    style = strange.page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_forbids_a_browser_to_load_anything(strange: Reported) -> None:
    policies = [
        found["content"]
        for tag, found in strange.seen.tags
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_names_and_values_of_users_are_text_wherever_they_stand(strange: Reported) -> None:
    assert SCRIPT not in strange.page
    assert SCRIPT in strange.seen.text
    assert {f"<b>{i}</b>" for i in range(60)}.isdisjoint(
        re.findall("<b>[0-9]+</b>", strange.page.split('id="worst"')[1])
    )
    assert "quick <b>" in strange.seen.text
    assert "{{ 7 * 7 }}" in strange.seen.text
    assert "onerror=alert(2)" in strange.seen.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", strange.page)


def test_every_tag_is_closed_in_order(strange: Reported) -> None:
    assert strange.seen.balanced


def test_every_section_is_there_in_order(strange: Reported) -> None:
    assert tuple(found["id"] for tag, found in strange.seen.tags if tag == "section") == SECTIONS


def test_the_title_names_model_rows_columns_seed_and_artifact(strange: Reported) -> None:
    head = " ".join(strange.seen.text.split("Key figures")[0].split())
    assert head.endswith(
        "Nelbo report quick <b> 60 rows · 11 columns · seed 0 · artifact"
        f" {strange.parts[0].artifact.digest[:12]}"
    )


def test_every_chart_says_what_it_shows(strange: Reported) -> None:
    labels = [
        found.get("aria-label") for _, found in strange.seen.tags if found.get("role") == "img"
    ]
    assert len(labels) >= 9
    assert all(labels)


def test_an_identifier_stands_beside_its_row_and_is_not_drawn(strange: Reported) -> None:
    worst = figures.worst_rows(
        strange.parts[0], strange.parts[1], figures.held_out(*strange.parts[:2])
    )
    assert worst[0].identifiers == (figures.ShownCell("key", f"<b>{worst[0].row}</b>"),)
    assert f"<b>{worst[0].row}</b>" in strange.seen.text
    assert "Real and synthetic values of key" not in strange.page


def test_the_worst_rows_are_the_held_out_rows_with_the_highest_surprise(
    strange: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        RowScorer, "surprise", lambda _, costs, levels: (-costs.nelbo, -costs.terms)
    )
    engine, training, _, _ = strange.parts
    scored = figures.held_out(engine, training)
    worst = figures.worst_rows(engine, training, scored)
    highest = sorted(scored.scores.surprise.tolist(), reverse=True)[: figures.WORST]
    assert [row.surprise for row in worst] == highest
    first = worst[0]
    assert first.p_value == engine.scorer.p_value(np.array([first.surprise]))[0]
    assert len(first.odd) + len(first.others) + first.more == len(engine.manifest.order)


def test_a_worst_row_shows_its_odd_cells_with_what_is_expected_there(strange: Reported) -> None:
    engine, training, _, _ = strange.parts
    scored = figures.held_out(engine, training)
    first = scored.scores.top(1)[0]
    row = one_batch(training.table.take([first.row]))
    worst = figures.worst_rows(engine, training, scored)
    assert list(worst[0].odd) == explain_row(engine, first, row, figures.ODD, 0)
    section = strange.page.split('id="worst"')[1].split("</section>")[0]
    cells = [cell for one in worst for cell in one.odd if cell.missing is not None]
    assert section.count(">expected ") == len(cells) > 0


def test_the_same_parts_give_the_same_page(strange: Reported, tmp_path: Path) -> None:
    write_report(tmp_path / "again.html", *strange.parts)
    assert (tmp_path / "again.html").read_text("utf-8") == strange.page


def test_dates_are_drawn_on_an_axis_of_dates(strange: Reported) -> None:
    (found,) = (
        one
        for one in figures.marginals(strange.manifest.table_schema, strange.parts[3])
        if one.column.name == "day"
    )
    assert found.shape is not None
    assert re.search(
        ">(January|April|July|October|2024|2025|May|March)",
        charts.marginal(found.column, found.shape),
    )


@pytest.mark.parametrize("table", [numbers_table, categories_table, empty_table])
def test_a_table_of_any_shape_gets_a_whole_report(
    table: Callable[[], pa.Table], tmp_path: Path
) -> None:
    found = reported(table(), tmp_path)
    assert found.seen.balanced
    assert tuple(tags["id"] for tag, tags in found.seen.tags if tag == "section") == SECTIONS
    assert len(found.page) < 300_000


def test_a_table_with_many_columns_shows_the_worst_forty(tmp_path: Path) -> None:
    found = reported(many_columns_table(), tmp_path)
    assert found.page.count("Real and synthetic values of") == 40
    assert "The 40 of 45 columns with the largest errors" in " ".join(found.seen.text.split())
    assert "The other 5 columns cost" in " ".join(found.seen.text.split())
    assert len(found.page) < 1_500_000


def test_a_thousand_columns_are_ranked_and_cut() -> None:
    rng = np.random.default_rng(0)
    schema = Schema(columns=tuple(Column(name=f"c{i}", kind="continuous") for i in range(1_000)))
    none = np.empty((300, 0), dtype=np.int64)
    real, synthetic = (Rows(rng.normal(size=(300, 1_000)), none) for _ in range(2))
    synthetic.numbers[:, 700] += 5
    found = figures.furthest(figures.marginals(schema, Evaluation({}, real, real, synthetic)), 40)
    assert len(found) == 40
    assert found[0].column.name == "c700"
    assert [one.off for one in found] == sorted((one.off for one in found), reverse=True)


NUMBERS: dict[str, Floats] = {
    "normal": np.random.default_rng(0).normal(size=500),
    "one value": np.full(5, 3.0),
    "one huge value": np.full(5, 1e299),
    "one row": np.array([2.5]),
    "mostly zero": np.concatenate([np.zeros(995), np.arange(5.0)]),
    "neighbours": np.array([1.0, np.nextafter(1.0, 2)] * 20),
    "with missing": np.array([1.0, np.nan, 2.0, np.nan]),
    "integers": np.arange(-50.0, 50.0),
}


@pytest.mark.parametrize("kind", ["continuous", "integer", "datetime"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_histogram_holds_every_present_cell_once(name: str, kind: str) -> None:
    column = Column.model_validate({"name": "x", "kind": kind})
    values = (
        NUMBERS[name]
        if kind == "continuous"
        else np.clip(np.round(NUMBERS[name]), -(2.0**53), 2.0**53)
    )
    rows = Rows(values[:, None], np.empty((len(values), 0), dtype=np.int64))
    (found,) = figures.marginals(Schema(columns=(column,)), Evaluation({}, rows, rows, rows))
    assert isinstance(found.shape, figures.Histogram)
    assert found.shape.real.sum() + found.shape.beyond[0] == pytest.approx(1)
    assert found.shape.beyond[0] <= 0.011
    assert (np.diff(found.shape.edges) >= 0).all()
    assert len(found.shape.edges) <= figures.BINS + 2
    assert found.missing == (np.isnan(values).mean(), np.isnan(values).mean())
    assert found.off == 0


def test_bars_hold_every_present_cell_once() -> None:
    column = Column(name="x", kind="categorical", categories=tuple(f"c{i:02}" for i in range(30)))
    codes = np.random.default_rng(0).integers(0, 32, (500, 1))
    rows = Rows(np.empty((500, 0)), codes)
    (found,) = figures.marginals(Schema(columns=(column,)), Evaluation({}, rows, rows, rows))
    assert isinstance(found.shape, figures.Bars)
    assert len(found.shape.names) == figures.TOP
    assert found.shape.more == 30 - figures.TOP
    assert found.shape.real.sum() + found.shape.rest[0] == pytest.approx(1)
    assert found.missing[0] == pytest.approx(float((codes == 31).mean()))


def test_dates_show_their_weekdays_and_hours_or_the_time_since_another() -> None:
    """Mondays and Tuesdays at 9 and at 10 o'clock, left three hours later; a day that is always the
    same has no rhythm."""
    columns = (
        Column(name="came", kind="datetime"),
        Column(name="left", kind="datetime", since="came"),
    )
    schema = Schema(columns=(*columns, Column(name="day", kind="datetime", step=DAY)))
    came = np.array([MONDAY + 9 * HOUR, MONDAY + 10 * HOUR, MONDAY + DAY + 9 * HOUR, np.nan])
    numbers = np.column_stack([came, came + 3 * HOUR + [0, 1, 2, 3], np.full(4, 5.0 * DAY)])
    rows = Rows(numbers, np.empty((4, 0), dtype=np.int64))
    found = {
        one.column.name: one for one in figures.rhythms(schema, Evaluation({}, rows, rows, rows))
    }
    assert list(found) == ["came: weekday", "came: hour", "left: hours since came"]
    weekday = found["came: weekday"].shape
    assert isinstance(weekday, figures.Histogram)
    assert weekday.edges.tolist() == [0.5, 1.5, 2.5]
    np.testing.assert_allclose(weekday.real, [2 / 3, 1 / 3])
    assert found["came: hour"].missing == (0.25, 0.25)
    assert charts.marginal(found["left: hours since came"].column, weekday)


@pytest.mark.parametrize("n", [1, 19, 20, 99, 100, 250])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
def test_exactly_the_rows_above_the_threshold_are_flagged(n: int, alpha: float) -> None:
    scores = np.sort(np.round(np.random.default_rng(n).normal(size=n), 1))
    nelbo = np.linspace(-5, 5, 1_001)
    p_value = (1 + (scores[None, :] >= nelbo[:, None]).sum(1)) / (n + 1)
    found = figures.threshold(scores, alpha)
    expected = p_value <= alpha + 1e-12
    np.testing.assert_array_equal(
        nelbo > found if found is not None else np.zeros(len(nelbo), bool), expected
    )


def test_names_that_look_alike_keep_their_own_bars() -> None:
    assert list(words.distinct(["a\x00", "a\x01", "", "a\ufffd"])) == [
        "a\ufffd",
        "a\ufffd (2)",
        "(empty)",
        "a\ufffd (3)",
    ]


def test_long_names_are_cut_where_they_seldom_differ() -> None:
    assert words.shown("the temperature of sensor number 17", 18) == "the tempera…ber 17"
    assert len(words.shown("x" * 10_000, 18)) == 18


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.14159, "3.14"),
        (-0.5, "−0.50"),
        (12_345.6, "12,346"),
        (float("inf"), "not finite"),
        (1e300, "1e+300"),
    ],
)
def test_nats_are_written_for_people(value: float, expected: str) -> None:
    assert words.nats(value) == expected


def test_a_small_share_is_not_nothing() -> None:
    assert [words.share(value) for value in (0.0, 1e-9, 0.123, 1.0)] == [
        "0.0 %",
        "< 0.1 %",
        "12.3 %",
        "100.0 %",
    ]


def test_the_card_says_how_scores_are_calibrated(strange: Reported) -> None:
    card = model_card(strange.manifest)
    n = len(strange.manifest.calibration.scores)
    assert f"n = {n} rows were held back" in card
    assert f"1/(n + 1) = 1/{n + 1}" in card
    small = strange.manifest.calibration.model_copy(update={"method": "cross-conformal"})
    assert "rows was scored by a model that was fitted without it" in model_card(
        strange.manifest.model_copy(update={"calibration": small})
    )


def tailed(n: int, used: bool) -> Calibration:
    """n calibration scores with a tail that the check takes or refuses."""
    tail = Tail(
        threshold=9.5,
        excesses=n // 20,
        components=((1.0, 0.2, 3.0),),
        fit=0.4 if used else 0.01,
        used=used,
    )
    return Calibration(method="split", scores=tuple(np.linspace(0, 10, n).tolist()), tail=tail)


def with_calibration(reported: Reported, calibration: Calibration, asked: bool = True) -> Manifest:
    config = reported.manifest.config | {"peaks_over_threshold": asked}
    return reported.manifest.model_copy(update={"calibration": calibration, "config": config})


def test_one_row_far_outside_does_not_squeeze_the_chart_of_scores() -> None:
    scores = np.append(np.linspace(20, 40, 300), 5_000.0)
    low, high = charts.score_range(scores, [(0.05, 39.0)])
    assert low == 20
    assert 39 < high < 100
    assert charts.score_range(scores, [(0.05, 39.0), (0.005, 300.0)])[1] == 300
    assert charts.score_range(np.linspace(20, 40, 300), [])[1] == pytest.approx(40, abs=0.1)
    assert charts.score_range(np.full(30, 7.0), []) == (7, 7)


@pytest.mark.parametrize(
    ("n", "can"), [(18, "nnn"), (19, "ynn"), (98, "ynn"), (99, "yyn"), (998, "yyn"), (999, "yyy")]
)
def test_card_and_report_say_which_alpha_so_many_calibration_rows_can_reach(
    strange: Reported, tmp_path: Path, n: int, can: str
) -> None:
    manifest = with_calibration(strange, tailed(n, False), asked=False)
    rows = [line.strip() for line in model_card(manifest).splitlines() if line.startswith("  | 0.")]
    words = {"y": "yes", "n": "**no**"}
    assert rows == [
        f"| {alpha} | {needed} | {words[yes]} |"
        for alpha, needed, yes in zip((0.05, 0.01, 0.001), (19, 99, 999), can, strict=True)
    ]
    text = shown(strange, manifest, tmp_path)
    for alpha, needed, yes in zip((0.05, 0.01, 0.001), (19, 99, 999), can, strict=True):
        assert (f"Alpha {alpha} needs {needed} rows: here it can flag no row" in text) == (
            yes == "n"
        )


def shown(reported: Reported, manifest: Manifest, folder: Path) -> str:
    """What the report's section on scores says of another manifest."""
    engine = Engine(replace(reported.parts[0].artifact, manifest=manifest))
    write_report(folder / "report.html", engine, *reported.parts[1:])
    return " ".join(Page((folder / "report.html").read_text()).text.split())


def test_card_and_report_mark_a_tail_as_an_assumption_with_its_check(
    strange: Reported, tmp_path: Path
) -> None:
    manifest = with_calibration(strange, tailed(500, True))
    card, page = model_card(manifest), shown(strange, manifest, tmp_path)
    assert "| 0.001 | 999 | by the tail |" in card
    assert "**Assumption: the tail.** P-values below 1/(n + 1), down to 1.6e-05, are" in card
    assert "p = 0.4. The excesses do not refute" in card
    assert "Alpha 0.001 needs 999 rows, or the tail." in page
    assert "Assumption: above the highest calibration score, p-values follow" in page
    assert "It was fitted to the 25 excesses" in page
    assert "The Anderson-Darling test does not refute it (p = 0.4)" in page


def test_a_tail_that_failed_its_check_is_told_and_counts_alone_stand(
    strange: Reported, tmp_path: Path
) -> None:
    manifest = with_calibration(strange, tailed(500, False))
    card, page = model_card(manifest), shown(strange, manifest, tmp_path)
    assert (
        "- **No tail is used:** peaks_over_threshold: no generalised Pareto distribution fits the"
        " 25 calibration" in card
    )
    assert "(Anderson-Darling, p = 0.01); p-values are counts alone." in card
    assert "| 0.001 | 999 | **no** |" in card
    assert "Assumption" not in card + page


def test_the_card_names_every_column_and_every_measure(strange: Reported) -> None:
    card = model_card(strange.manifest)
    columns = card.split("## Columns")[1].split("## ")[0]
    assert len([line for line in columns.splitlines() if line.startswith("| ")]) == 1 + len(
        strange.manifest.table_schema.columns
    )
    for heading in (
        "Model details",
        "Intended use",
        "Training data",
        "Scores",
        "Generation",
        "Evaluation",
        "Columns",
        "Limits",
        "Versions",
    ):
        assert f"\n## {heading}\n" in card
    assert "not differentially private" in card


def test_card_and_report_have_the_verdict_and_the_pairs_that_differ_most(strange: Reported) -> None:
    engine, training, _, evaluation = strange.parts
    pairs = figures.pairs(training.schema, evaluation)
    differences = [abs(pair.real - pair.synthetic) for pair in pairs if not pair.agrees]
    assert differences == sorted(differences, reverse=True)
    assert [pair.agrees for pair in pairs] == sorted(pair.agrees for pair in pairs)
    assert len(pairs) == 10 * 9 / 2
    page = " ".join(strange.seen.text.split("Are generated rows like real ones?")[1].split())
    card = model_card(engine.manifest, evaluation)
    section = strange.page.split('id="pairs"')[1].split("</section>")[0]
    assert "of 10 look like the real ones. Somewhat off: " in page
    assert "- **Columns:**" in card
    assert section.count("<tr>") == 1 + figures.PAIRS
    assert SCRIPT not in card
    for pair in pairs[: figures.PAIRS]:
        figures_of_pair = f"| {words.signed(pair.real)} | {words.signed(pair.synthetic)} |"
        assert f"| {pair.measure} {figures_of_pair}" in card
        assert f"{words.signed(pair.real)}</td>" in section


def test_a_card_without_an_evaluation_has_no_verdict(strange: Reported) -> None:
    card = model_card(strange.manifest)
    assert "**Columns:**" not in card
    assert "whose association differs most" not in card


def test_the_card_shows_names_of_users_as_text(strange: Reported) -> None:
    card = model_card(strange.manifest)
    assert "<script" not in card
    assert "# quick &lt;b&gt;\n" in card
    assert r"onload=x &amp; \[0\].\| \*c\* | categorical |" in card


def test_equal_manifests_give_equal_cards_without_a_time(strange: Reported) -> None:
    again = Manifest.model_validate_json(strange.manifest.model_dump_json())
    assert model_card(again) == model_card(strange.manifest)
    assert str(datetime.now(UTC).year) not in model_card(strange.manifest)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([9.0, 7.0, 8.0], "The lowest cost was 7.00 nats. Training went on after it"),
        ([9.0, 8.5, 8.0], "No other weights had a lower cost."),
    ],
)
def test_the_report_says_that_training_went_on_only_where_it_did(
    strange: Reported, tmp_path: Path, costs: list[float], words: str
) -> None:
    engine, training, _, evaluation = strange.parts
    history = History(kept=2)
    for step, cost in enumerate(costs):
        history.add(step, step, cost, cost)
    write_report(tmp_path / "report.html", engine, training, history, evaluation)
    assert words in " ".join(Page((tmp_path / "report.html").read_text()).text.split())
