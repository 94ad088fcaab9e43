"""report.html: one file with its style sheet and its charts inside, which loads nothing and runs no
script."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from nelbo.artifact import Manifest
from nelbo.engine import Engine
from nelbo.explanation import AS_A_WHOLE
from nelbo.schema import NUMBERS
from nelbo.spelling.numbers import rounded

from ..config import Config
from ..data import Training
from ..evaluate import Evaluation
from ..fit import History
from . import charts, figures, words
from .verdict import verdict

MOST_MARGINALS = 40
MOST_TERMS = 40
MOST_OPEN_COLUMNS = 60
"""A schema table with more rows is folded."""
NOTED = 0.02
"""Smallest share outside a histogram's range that is noted; it is about 0.01 for the real
numbers."""
WIDE, NARROW = 720, 350
"""Widths of the large charts: the page shows the one that fits the screen."""
VARIABLES = {
    charts.REAL: "real",
    charts.SYNTHETIC: "synthetic",
    charts.QUIET: "quiet",
    charts.INK: "muted",
    charts.LINE: "line",
}
"""The variable of the style sheet that replaces a chart's colour."""


def write_report(
    path: Path, engine: Engine, training: Training, history: History, evaluation: Evaluation
) -> None:
    """Write the report. The same artifact and evaluation give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in ("with_commas", "nats", "percent", "share", "signed", "small", "shown")
    }
    environment.filters["rounded"] = rounded
    page = environment.get_template("report.html.j2")
    path.write_text(page.render(_content(engine, training, history, evaluation)), "utf-8")


def _content(
    engine: Engine, training: Training, history: History, evaluation: Evaluation
) -> dict[str, Any]:
    """The values of the template's variables."""
    manifest = engine.manifest
    scored = figures.held_out(engine, training)
    marginals = figures.marginals(training.schema, evaluation)
    pairs = figures.pairs(training.schema, evaluation)
    return {
        "manifest": manifest,
        "digest": engine.artifact.digest,
        "variables": VARIABLES,
        "of": words.of,
        "key_figures": _key_figures(manifest, len(evaluation.fresh)),
        "verdict": verdict(evaluation, marginals, pairs),
        "learning": _learning(history),
        "marginals": [
            _with_chart(marginal) for marginal in figures.furthest(marginals, MOST_MARGINALS)
        ],
        "rhythms": [
            _with_chart(marginal)
            for marginal in figures.rhythms(training.schema, evaluation)[:MOST_MARGINALS]
        ],
        "sizes": {"real": len(evaluation.fitted), "synthetic": len(evaluation.synthetic)},
        "pairs": pairs[: figures.PAIRS],
        "association": charts.association,
        "scores": _scores(manifest),
        "terms": _terms(manifest, scored),
        "scored": scored,
        "as_a_whole": AS_A_WHOLE,
        "worst": figures.worst_rows(engine, training, scored),
        "row_names": "row" if training.total == len(training.table) else "usable row",
        "columns": list(figures.columns(engine, training)),
        "fold": len(training.schema.columns) > MOST_OPEN_COLUMNS,
        "settings": list(_settings(manifest)),
        "notices": training.notices,
    }


@dataclass(frozen=True)
class KeyFigure:
    """A measure, what it is to be compared with, and how to read it."""

    name: str
    value: str
    unit: str
    beside: str
    reading: str


def _key_figures(manifest: Manifest, fresh: int) -> list[KeyFigure]:
    """The key figures that could be measured."""
    metrics = manifest.metrics
    figures = {
        "nelbo": lambda nelbo: KeyFigure(
            "Held-out nelbo",
            words.nats(nelbo),
            "nats",
            f"mean of {words.of(fresh, 'row')}",
            "mean cost of a row that the model was not fitted to; lower is better among models of"
            " this table",
        ),
        "z_kl": lambda kl: KeyFigure(
            "KL",
            words.nats(kl),
            "nats",
            f"the columns: {words.nats(metrics['nelbo'] - kl)}" if "nelbo" in metrics else "",
            "the part of the nelbo for z: the information that z, or the choice of an exemplar, has"
            " about a row",
        ),
        "shape_error": lambda error: KeyFigure(
            "Shape error",
            f"{error:.1f}",
            "%",
            _floor(metrics, "shape_error_floor", words.percent),
            "how far single columns of synthetic rows are from the real ones",
        ),
        "pair_error": lambda error: KeyFigure(
            "Pair error",
            f"{error:.1f}",
            "%",
            _floor(metrics, "pair_error_floor", words.percent),
            "the same for pairs of columns: do values go together as they should?",
        ),
        "detect_auc": lambda auc: KeyFigure(
            "Detection AUC",
            f"{auc:.2f}",
            "",
            _floor(metrics, "detect_auc_floor", "{:.2f}".format),
            "how well a classifier tells synthetic from real rows; 0.5 is not at all, 1 is always",
        ),
    }
    return [figure(metrics[name]) for name, figure in figures.items() if name in metrics]


def _floor(metrics: dict[str, float], name: str, in_words: Callable[[float], str]) -> str:
    return f"fresh real rows: {in_words(metrics[name])}" if name in metrics else ""


def _both_widths(draw: Callable[[int], Markup]) -> Markup:
    wide, narrow = (
        Markup('<div class="{}">{}</div>').format(name, draw(width)) for name, width in _WIDTHS
    )
    return wide + narrow


_WIDTHS = (("wide", WIDE), ("narrow", NARROW))


def _learning(history: History) -> dict[str, Any]:
    kept = history.kept
    return {
        "chart": _both_widths(lambda width: charts.learning_curves(history, width)),
        "held_out": history.held_out[kept],
        "best": min(history.held_out),
        "epoch": history.epoch[kept],
    }


def _with_chart(marginal: figures.Marginal) -> dict[str, Any]:
    return {
        "name": words.shown(marginal.column.name),
        "kind": marginal.column.kind,
        "is_number": marginal.column.kind in NUMBERS,
        "found": marginal,
        "chart": None
        if marginal.shape is None
        else charts.marginal(marginal.column, marginal.shape),
        "notes": list(_notes(marginal)),
    }


def _notes(marginal: figures.Marginal) -> Iterator[str]:
    """Notes on cells that a chart does not show, as shares of real and of synthetic cells."""
    if any(marginal.missing):
        yield f"missing {_pair(marginal.missing)}"
    if isinstance(marginal.shape, figures.Histogram) and max(marginal.shape.beyond) > NOTED:
        yield f"beyond the chart {_pair(marginal.shape.beyond)}"
    if isinstance(marginal.shape, figures.Bars) and any(
        side > 1e-9 for side in marginal.shape.rest
    ):
        rarer = (
            words.of(marginal.shape.more, "rarer category", "rarer categories")
            if marginal.shape.more
            else "other values"
        )
        yield f"{rarer} {_pair(marginal.shape.rest)}"
    if marginal.shape is None and marginal.missing[0] < 1:
        yield "numbers too far apart to draw"


def _pair(shares: tuple[float, float]) -> str:
    return " / ".join(words.share(max(0.0, side)) for side in shares)


def _scores(manifest: Manifest) -> dict[str, Any]:
    scores = np.array(manifest.calibration.scores)
    thresholds = [(alpha, figures.threshold(scores, alpha)) for alpha in figures.ALPHAS]
    marks = [(alpha, score) for alpha, score in thresholds if score is not None]
    drawn = charts.score_range(scores, marks)[1] if len(scores) else 0.0
    return {
        "n": len(scores),
        "beyond": int((scores > drawn).sum()),
        "smallest": 1 / (len(scores) + 1),
        "method": manifest.calibration.method,
        "marks": marks,
        "no_count": [row for row in figures.reach(manifest.calibration) if row.by != "counts"],
        "tail": manifest.calibration.used_tail,
        "floor": manifest.calibration.smallest,
        "chart": _both_widths(lambda width: charts.score_chart(scores, marks, width))
        if len(scores)
        else None,
    }


def _terms(manifest: Manifest, scored: figures.HeldOut) -> dict[str, Any]:
    """The mean terms, most costly first; of a wide table the most costly ones and the sum of all
    others."""
    if not len(scored.scores.nelbo):
        return {"chart": None, "more": 0, "rest": 0.0}
    mean: NDArray[np.float64] = scored.scores.terms.mean(0)
    order = np.argsort(-mean, kind="stable")
    drawn = order[:MOST_TERMS]
    names = [manifest.order[at] for at in drawn]
    return {
        "chart": _both_widths(
            lambda width: charts.terms(names, mean[drawn], float(scored.scores.kl.mean()), width)
        ),
        "more": len(order) - len(drawn),
        "rest": float(mean[order[MOST_TERMS:]].sum()),
    }


def _settings(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """(key, value, what it means) of the run's configuration."""
    for key, value in manifest.config.items():
        field = Config.model_fields.get(key)
        number = isinstance(value, int) and not isinstance(value, bool)
        yield (
            key,
            words.with_commas(value) if number else str(value),
            (field.description or "").replace("`", "") if field else "",
        )
