"""For whom it is worst: three segments against all rows, now and before.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import altair as alt

from plantao.report.chart import style
from plantao.report.chart.words import metric_name, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.report.chart.style import Picture
    from plantao.report.chart.words import Language
    from plantao.report.point import Mean


@dataclass(frozen=True)
class Segment:
    """A metric in a segment (`column=value`; empty: all rows): in the last 28 judged days, and in the 28 before."""

    name: str
    now: Mean
    before: Mean | None = None


def chart(
    metric: str, worst: Sequence[Segment], everything: Segment | None, *, width: int = 540, language: Language = "en"
) -> Picture:
    """Return a row for each segment, the worst first, and one for all rows."""
    what = metric_name(metric, language)
    if not worst:
        return style.empty(say("segments_none", language), width, language)
    shown = [*worst, *([everything] if everything else [])]
    rows = [
        {
            "name": one.name or say("all_rows", language),
            "value": one.now.value,
            "whole": not one.name,
            "lower": one.now.lower,
            "upper": one.now.upper,
            "before": one.before.value if one.before else None,
        }
        for one in shown
    ]
    data = style.table(rows)
    now, before = say("last_28", language), say("before_28", language)
    names, colours = [now, *([before] if any(r["before"] is not None for r in rows) else [])], [style.BLUE, style.GREY]
    scale = alt.Scale(domain=names, range=colours[: len(names)])
    legend = alt.Legend(symbolType="circle", symbolSize=70, columns=2, symbolOpacity=1)
    axis = alt.Axis(title=None, labelLimit=130, domain=False, ticks=False, labelColor=style.INK)
    y = alt.Y("name:N", sort=[str(row["name"]) for row in rows], axis=axis)
    x = alt.X("value:Q", axis=alt.Axis(title=what, tickCount=5), scale=alt.Scale(zero=False, padding=14))
    base = alt.Chart(data).encode(y=y)
    layers = [
        base.mark_rule(color=style.BLUE, opacity=0.35, strokeWidth=5).encode(
            x=alt.X("lower:Q", title=what), x2="upper:Q"
        ),
        base.mark_rule(color=style.GREY, strokeWidth=1.5).encode(x="before:Q", x2="value:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x="before:Q", color=alt.Color("label:N", scale=scale, legend=legend)
        ).transform_calculate(label=f"'{before}'").transform_filter("datum.before !== null"),
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=x, color=alt.Color("label:N", scale=scale, legend=legend)
        ).transform_calculate(label=f"'{now}'"),
    ]  # fmt: skip
    heading = say("segments_title", language, what=what, name=worst[0].name)
    title = style.title(heading, say("segments_sub", language), width)
    return style.finished(alt.layer(*layers).properties(width=width, height=250, title=title), language)
