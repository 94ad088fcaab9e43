"""Charts as SVG text inside a page: drawn by Vega-Lite without a browser, coloured by the page's
style sheet. Colours are literal here, so that an SVG alone looks right; the page replaces each by a
variable for light and dark."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from markupsafe import Markup
from numpy.typing import NDArray

from nelbo.schema import Column

from ..fit import History
from .figures import Bars, Histogram
from .words import distinct, nats

Floats = NDArray[np.float64]

REAL, SYNTHETIC, QUIET, INK, LINE = "#3f74b5", "#d0602b", "#8a8780", "#55534e", "#d9d6cf"
SMALL = 300
"""Width of a small multiple; the page never draws it wider."""
FAR = 5.0
"""Largest distance from the median that is drawn, in distances of the 95th percentile."""
_AXIS = {
    "labelColor": INK,
    "titleColor": INK,
    "labelFontSize": 11,
    "titleFontSize": 11,
    "titleFontWeight": "normal",
    "domainColor": LINE,
    "tickColor": LINE,
    "gridColor": LINE,
    "labelOverlap": True,
    "labelSeparation": 6,
}
_CONFIG: dict[str, Any] = {
    "background": None,
    "aria": False,
    "font": "Helvetica, Arial, sans-serif",
    "axis": _AXIS,
    "view": {"stroke": None},
}


def learning_curves(history: History, width: int) -> Markup:
    """Train and held-out nelbo over epochs, with the point whose weights were kept marked."""
    epoch, train, held_out = (
        np.array(values) for values in (history.epoch, history.train, history.held_out)
    )
    x = alt.X(
        "x:Q", title="epoch", axis=alt.Axis(grid=False, tickCount=6), scale=alt.Scale(zero=True)
    )
    y = alt.Y(
        "y:Q",
        title="nelbo, nats",
        axis=alt.Axis(tickCount=5, domain=False, ticks=False),
        scale=alt.Scale(zero=False),
    )
    kept = history.kept
    marked = [{"x": epoch[kept], "y": held_out[kept], "text": nats(held_out[kept])}]
    return _svg(
        alt.layer(
            alt.Chart(_points(x=epoch, y=train))
            .mark_line(stroke=QUIET, strokeWidth=1.2)
            .encode(x, y),
            alt.Chart(_points(x=epoch, y=held_out))
            .mark_line(stroke=REAL, strokeWidth=2)
            .encode(x, y),
            alt.Chart(alt.Data(values=marked))
            .mark_circle(color=REAL, size=70, opacity=1)
            .encode(x, y),
            alt.Chart(alt.Data(values=marked))
            .mark_text(color=INK, dy=16, align="right", dx=4, fontSize=12, fontWeight="bold")
            .encode(x, y, text="text:N"),
        ),
        width,
        240,
    )


def marginal(column: Column, shape: Histogram | Bars) -> Markup:
    """A column's values, real beside synthetic."""
    return _histogram(column, shape) if isinstance(shape, Histogram) else _bars(shape)


def _histogram(column: Column, shape: Histogram) -> Markup:
    """Real as an area, synthetic as a line of steps over it."""
    is_date = column.kind == "datetime"
    edges = shape.edges / 1_000 if is_date else shape.edges
    steps = _points(
        x=np.concatenate([edges[:1], edges]),
        real=np.concatenate([[0], shape.real, [0]]),
        synthetic=np.concatenate([[0], shape.synthetic, [0]]),
    )
    axis = alt.Axis(grid=False, tickCount=4, format=alt.Undefined if is_date else _format(edges))
    scale = alt.Scale(type="utc", nice=False) if is_date else alt.Scale(zero=False, nice=False)
    x = alt.X("x:T" if is_date else "x:Q", title=None, axis=axis, scale=scale)
    area = alt.Chart(steps).mark_area(interpolate="step-after", fill=REAL, opacity=0.45)
    line = alt.Chart(steps).mark_line(interpolate="step-after", stroke=SYNTHETIC, strokeWidth=1.6)
    return _svg(
        alt.layer(area.encode(x, _share("real")), line.encode(x, _share("synthetic"))), SMALL, 130
    )


def _share(field: str) -> alt.Y:
    """Shares without an axis: the two shapes are compared with each other."""
    return alt.Y(f"{field}:Q", axis=None, scale=alt.Scale(zero=True))


def _bars(shape: Bars) -> Markup:
    names = list(distinct(shape.names, 17))
    values = [
        {"name": name, "who": who, "share": float(share)}
        for who, shares in (("real", shape.real), ("synthetic", shape.synthetic))
        for name, share in zip(names, shares, strict=True)
    ]
    labels = alt.Axis(
        domain=False,
        ticks=False,
        labelLimit=112,
        minExtent=118,
        maxExtent=118,
        labelPadding=6,
        labelOverlap=False,
    )
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            alt.X(
                "share:Q",
                title=None,
                axis=alt.Axis(
                    format="~%", tickCount=3, domain=False, ticks=False, labelFlush=False
                ),
            ),
            alt.Y("name:N", title=None, sort=None, axis=labels, scale=alt.Scale(paddingInner=0.3)),
            alt.YOffset("who:N", sort=["real", "synthetic"]),
            alt.Color(
                "who:N",
                legend=None,
                scale=alt.Scale(domain=["real", "synthetic"], range=[REAL, SYNTHETIC]),
            ),
        )
    )
    return _svg(chart, SMALL, 32 + 17 * len(names))


def association(real: float, synthetic: float) -> Markup:
    """Two associations as dots on a line from -1 to 1, with a mark at 0."""
    x, y = (8 + 72 * (1 + value) for value in (real, synthetic))
    return Markup(
        '<svg viewBox="0 0 160 16" width="160" height="16">'
        '<path d="M8 8H152M80 4V12" stroke="{}"/><path d="M{:.1f} 8H{:.1f}" stroke="{}"/>'
        '<circle cx="{:.1f}" cy="8" r="4.5" fill="{}"/>'
        '<circle cx="{:.1f}" cy="8" r="4.5" fill="{}"/></svg>'
    ).format(LINE, x, y, QUIET, x, REAL, y, SYNTHETIC)


def score_range(scores: Floats, marks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The scores that are drawn. Without a limit, a single one far outside would squeeze all."""
    quantiles = np.quantile(scores, (0.001, 0.5, 0.95, 0.999), method="closest_observation")
    low, median, usual, high = quantiles.tolist()
    limit = max([median + FAR * (usual - median), *(score for _, score in marks)])
    return low, min(high, limit) if limit > low else high


def score_chart(scores: Floats, marks: Sequence[tuple[float, float]], width: int) -> Markup:
    """Histogram of calibration scores, with (alpha, score) marks, the largest alpha first."""
    low, high = score_range(scores, marks)
    counts, edges = np.histogram(scores, 40, (low, high) if high > low else None)
    x = alt.X(
        "x:Q",
        title="surprise",
        axis=alt.Axis(grid=False, tickCount=6),
        scale=alt.Scale(zero=False, nice=False),
    )
    room_for_labels = alt.Scale(domain=[0, (1.3 if marks else 1.05) * counts.max()], nice=False)
    y = alt.Y(
        "rows:Q",
        title="rows",
        axis=alt.Axis(tickCount=4, domain=False, ticks=False),
        scale=room_for_labels,
    )
    bars = alt.Chart(_points(x=edges[:-1], x2=edges[1:], rows=counts, zero=0 * counts)).mark_bar(
        fill=REAL, opacity=0.75
    )
    layers: list[alt.Chart] = [bars.encode(x, y, x2="x2:Q", y2="zero:Q")]
    for i, (alpha, score) in enumerate(reversed(marks)):
        text = f"alpha {alpha}: {nats(score)}"
        mark = alt.Chart(alt.Data(values=[{"x": score, "text": text}])).encode(x)
        layers += _marked(mark, top=18 * i, left=score > (low + high) / 2)
    return _svg(alt.layer(*layers), width, 240)


def _marked(mark: alt.Chart, top: int, left: bool) -> list[alt.Chart]:
    """A line down from `top` pixels, and the text on its left or right."""
    rule = mark.mark_rule(stroke=SYNTHETIC, strokeWidth=1.5)
    text = mark.mark_text(
        color=INK,
        align="right" if left else "left",
        dx=-6 if left else 6,
        fontSize=12,
        fontWeight="bold",
    )
    return [
        rule.encode(y=alt.value(top), y2=alt.value("height")),
        text.encode(y=alt.value(top + 6), text="text:N"),
    ]


def terms(names: Sequence[str], values: Floats, kl: float, width: int) -> Markup:
    """Mean terms as bars in the given order, then the KL."""
    labels = list(distinct([*names, "KL, what z says"], width // 22))
    costs = [*values.tolist(), kl]
    colours = [*[REAL] * len(values), SYNTHETIC]
    rows = [
        {"name": name, "nats": value, "text": nats(value), "colour": colour}
        for name, value, colour in zip(labels, costs, colours, strict=True)
    ]
    room = min(width // 3, 24 + 8 * max(map(len, labels)))
    axis = alt.Axis(
        domain=False,
        ticks=False,
        labelLimit=int(0.85 * room) - 6,
        minExtent=room,
        maxExtent=room,
        labelPadding=6,
        labelOverlap=False,
    )
    x = alt.X("nats:Q", title=None, axis=None, scale=_with_room_for_texts(costs))
    y = alt.Y("name:N", title=None, sort=None, axis=axis, scale=alt.Scale(paddingInner=0.35))
    bars = alt.Chart(alt.Data(values=rows))
    right = bars.transform_filter("datum.nats >= -0.005").mark_text(
        color=INK, align="left", dx=5, fontSize=11
    )
    left = bars.transform_filter("datum.nats < -0.005").mark_text(
        color=INK, align="right", dx=-5, fontSize=11
    )
    layers = [
        bars.mark_bar().encode(x, y, alt.Color("colour:N", scale=None)),
        right.encode(x, y, text="text:N"),
        left.encode(x, y, text="text:N"),
    ]
    return _svg(alt.layer(*layers), width, 24 + 20 * len(rows))


def _with_room_for_texts(costs: Sequence[float]) -> alt.Scale:
    low = min(0.0, *costs)
    high = max(0.0, *costs)
    room = 0.2 * ((high - low) or 1.0)
    return alt.Scale(domain=[low - room if low < 0 else 0, high + room], nice=False)


def _points(**columns: NDArray[Any]) -> alt.Data:
    names = list(columns)
    return alt.Data(
        values=[
            dict(zip(names, row, strict=True))
            for row in zip(*(c.tolist() for c in columns.values()), strict=True)
        ]
    )


def _format(edges: Floats) -> Any:
    """Numbers with few digits, such as 150k and 2e-7; Vega's own format for sizes between."""
    largest = np.abs(edges).max()
    return "~s" if largest >= 1e5 else ".3~g" if 0 < largest < 1e-3 else alt.Undefined


def _svg(chart: alt.Chart | alt.LayerChart | alt.FacetChart, width: int, height: int) -> Markup:
    """Draw a chart of this size in pixels, labels included. Vega escapes every text that it
    draws."""
    sized = chart.properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        padding=2,
    )
    drawn = vl_convert.vegalite_to_svg(
        sized.to_dict(validate=False), config=_CONFIG, allowed_base_urls=[]
    )
    return Markup(drawn)
