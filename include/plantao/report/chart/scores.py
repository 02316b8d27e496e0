"""What the scores look like, and whether what they promise comes true.

Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import altair as alt

from plantao.report.chart import style
from plantao.report.chart.words import number, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.report.chart.style import Picture
    from plantao.report.chart.words import Language

EVEN = 1e-6
MOST_CLASSES = 4
# Pixels beside the plot of a class: the axis and the margins.
CLASS_ROOM = 54


@dataclass(frozen=True)
class Distribution:
    """How many scores lie between two edges each, now and in the reference; `label` is a class, or empty."""

    edges: Sequence[float]
    now: Sequence[float]
    reference: Sequence[float]
    mean_now: float | None = None
    mean_reference: float | None = None
    label: str = ""


@dataclass(frozen=True)
class Group:
    """Labelled rows with about the same score: their mean score, the share that came true, and how many they are."""

    predicted: float
    share: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share (Wilson 1927)."""
        z = 1.959964
        centre = (self.share + z * z / (2 * self.n)) / (1 + z * z / self.n)
        half = z / (1 + z * z / self.n) * math.sqrt(self.share * (1 - self.share) / self.n + z * z / (4 * self.n**2))
        return max(0.0, centre - half), min(1.0, centre + half)


def distribution(parts: Sequence[Distribution], *, width: int = 540, language: Language = "en") -> Picture:
    """Return the scores now (line) over those of the reference (area); of several classes the first four."""
    known = [part for part in parts if sum(part.now) > 0 or sum(part.reference) > 0][:MOST_CLASSES]
    if not known:
        return style.empty(say("scores_plain", language), width, language)
    if len(known) == 1:
        return style.finished(_one(known[0], width, 250, language, key=True), language)
    panels = [_one(part, width - CLASS_ROOM, 80, language, key=part is known[-1]) for part in known]
    return style.finished(alt.vconcat(*panels, spacing=12).resolve_legend(color="shared"), language, fit=False)


def _one(part: Distribution, width: int, height: int, language: Language, *, key: bool) -> Any:
    edges = list(part.edges)
    widths = [high - low for low, high in pairwise(edges)]
    even = max(widths) - min(widths) < EVEN * max(1.0, *widths)
    now, reference = say("last_28", language), say("reference", language)
    rows = []
    for what, counts in ((reference, part.reference), (now, part.now)):
        total = sum(counts)
        if not total:
            continue
        heights = [c / total / (1 if even else w) for c, w in zip(counts, widths, strict=True)]
        # A step line needs the height of the last bin a second time, at its right edge.
        rows += [{"x": x, "y": y, "what": what} for x, y in zip(edges, [*heights, heights[-1]], strict=True)]
    data = style.table(rows)
    legend = alt.Legend(symbolType="square", symbolStrokeWidth=0, symbolSize=90, columns=2) if key else None
    scale = alt.Scale(domain=[now, reference], range=[style.BLUE, style.GREY])
    axis = alt.Axis(title=say("score", language), tickCount=5, grid=False)
    x = alt.X("x:Q", axis=axis, scale=alt.Scale(domain=[edges[0], edges[-1]], nice=False))
    label = say("share_of_rows" if even else "density", language)
    y = style.value_axis("y:Q", label, zero=True, look={"format": "%"} if even else {})
    base = alt.Chart(data).encode(x=x, y=y, color=alt.Color("what:N", scale=scale, legend=legend))
    area = base.mark_area(interpolate="step-after", opacity=0.45, line=False).transform_filter(
        alt.datum.what == reference
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=2.2).transform_filter(alt.datum.what == now)
    heading = style.title(_heading(part, language), "", width)
    return alt.layer(area, line).properties(width=width, height=height, title=heading)


def _heading(part: Distribution, language: Language) -> str:
    if part.label:
        return say("scores_class", language, label=part.label)
    if part.mean_now is None or part.mean_reference is None:
        return say("scores_plain", language)
    now, mean = number(part.mean_now, language), number(part.mean_reference, language)
    return say("scores_title", language, now=now, mean=mean)


def calibration(
    groups: Sequence[Group],
    reference: Sequence[Group] = (),
    *,
    pooled: bool = False,
    width: int = 540,
    language: Language = "en",
) -> Picture:
    """Return what was predicted against what came true, with how many rows each point rests on.

    `pooled` says that the groups are of several classes, each against the others.
    """
    heading = _verdict(groups, language)
    if not groups:
        return style.empty(heading, width, language)
    top = min(1.0, 1.08 * max([*(g.interval[1] for g in groups), *(g.predicted for g in (*groups, *reference))]))
    layers = _points(groups, reference, top, language, phone=style.is_phone(width))
    below = say("calibration_pooled" if pooled else "calibration_sub", language)
    properties = {"width": width, "height": 270, "title": style.title(heading, below, width)}
    return style.finished(alt.layer(*layers).properties(**properties), language)


def _points(
    groups: Sequence[Group], reference: Sequence[Group], top: float, language: Language, *, phone: bool
) -> list[Any]:
    axis = alt.Axis(title=say("predicted", language), format="%", grid=False, tickCount=5)
    x = alt.X("predicted:Q", axis=axis, scale=alt.Scale(domain=[0, top], nice=False))
    largest = max(group.n for group in groups)
    rows = [
        {
            "predicted": group.predicted,
            "share": group.share,
            "what": say("last_28", language),
            "low": group.interval[0],
            "high": group.interval[1],
            "count": f"{number(group.n, language)}",
            "foot": -0.24 * top,
            "bar": (0.14 * group.n / largest - 0.24) * top,
        }
        for group in groups
    ]
    was = [{"predicted": g.predicted, "share": g.share, "what": say("reference", language)} for g in reference]
    names = [say("last_28", language), *([say("reference", language)] if was else [])]
    legend = alt.Legend(symbolType="square", symbolStrokeWidth=0, symbolSize=90, columns=2, symbolOpacity=1)
    scale = alt.Scale(domain=names, range=[style.BLUE, style.GREY][: len(names)])
    colour = alt.Color("what:N", scale=scale, legend=legend)

    def y(name: str) -> alt.Y:
        # Below zero is the room for the bars, which no tick may name.
        step = 0.2 if top > 0.5 else 0.1 if top > 0.2 else 0.02
        look = {"format": "%", "values": [step * place for place in range(int(top / step) + 1)]}
        label = say("came_true", language)
        return style.value_axis(name, label, look=look, domain=[-0.24 * top, top], nice=False)

    data = style.table(rows)
    diagonal = style.table([{"predicted": 0.0, "share": 0.0}, {"predicted": top, "share": top}])
    bars = alt.Chart(data).mark_bar(color=style.GRID, width=14 if phone else 24)
    layers = [
        bars.encode(x=x, y=y("foot:Q"), y2="bar:Q"),
        alt.Chart(diagonal)
        .mark_line(color=style.MUTED, strokeDash=[2, 3], strokeWidth=1.2)
        .encode(x=x, y=y("share:Q")),
        alt.Chart(data)
        .mark_rule(color=style.BLUE, opacity=0.5, strokeWidth=1.5)
        .encode(x=x, y=y("low:Q"), y2="high:Q"),
        alt.Chart(data).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(filled=True, size=45)),
    ]
    layers[-1] = layers[-1].encode(x=x, y=y("share:Q"), color=colour)
    if was:
        line = alt.Chart(style.table(was)).mark_line(strokeWidth=1.6, opacity=0.9)
        layers.insert(2, line.encode(x=x, y=y("share:Q"), color=colour))
    if not phone:
        text = alt.Chart(data).mark_text(color=style.MUTED, fontSize=10, dy=-7)
        layers.append(text.encode(x=x, y=y("bar:Q"), text="count:N"))
    return layers


def _verdict(groups: Sequence[Group], language: Language) -> str:
    rows = sum(group.n for group in groups)
    if not rows:
        return say("nothing", language, what=say("calibration_word", language))
    gap = sum(group.n * (group.predicted - group.share) for group in groups) / rows
    share = sum(group.n * group.share for group in groups) / rows
    if abs(gap) <= max(0.01, 2 * math.sqrt(share * (1 - share) / rows)):
        return say("calibration_fine", language)
    points = number(100 * abs(gap), language, 2)
    return say("calibration_high" if gap > 0 else "calibration_low", language, gap=points)
