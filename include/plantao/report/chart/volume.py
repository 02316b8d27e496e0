"""How many rows came, how many were set aside, and where nothing could be written.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

import altair as alt

from plantao.report.chart import style
from plantao.report.chart.words import number, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from plantao.report.chart.style import Picture
    from plantao.report.chart.words import Language

SCORED = "#7fb3d5"


@dataclass(frozen=True)
class Volume:
    """A window of the job, by its first day: what was scored and set aside, and whether all attempts failed.

    `least` are the fewest rows of the same weekday in the reference, where that is known.
    """

    day: date
    scored: int
    rejected: int = 0
    failed: bool = False
    least: float | None = None


def chart(volumes: Sequence[Volume], days: Sequence[date], *, width: int = 540, language: Language = "en") -> Picture:
    """Return scored rows as bars, with what was set aside on top of them and failed windows as crosses."""
    if not volumes or not days:
        return style.empty(say("rows_axis", language), width, language)
    rejected = sum(one.rejected for one in volumes)
    usual = median(one.scored + one.rejected for one in volumes)
    heading = say("volume_title", language, rows=number(usual, language), rejected=number(rejected, language))
    x = style.time_axis(days, width)
    layers = [_bars(volumes, days, x, width, language), *_least(volumes, x), *_failed(volumes, x)]
    title = style.title(heading, say("volume_sub", language), width)
    return style.finished(alt.layer(*layers).properties(width=width, height=230, title=title), language)


def _y(name: str, language: Language, largest: float) -> alt.Y:
    return style.value_axis(
        name, say("rows_axis", language), zero=True, look={"format": "~s" if largest >= 10_000 else ",.0f"}
    )


def _bars(volumes: Sequence[Volume], days: Sequence[date], x: alt.X, width: int, language: Language) -> Any:
    names = [(say("scored", language), SCORED), (say("set_aside", language), style.ORANGE)]
    if any(one.failed for one in volumes):
        names.append((say("failed_runs", language), style.VERMILION))
    if any(one.least is not None for one in volumes):
        names.append((say("least", language), style.INK))
    rows = []
    for one in volumes:
        until = style.moment(one.day + timedelta(days=1))
        ends = {"day": style.moment(one.day), "until": until}
        rows.append({**ends, "from": 0, "to": one.scored, "what": names[0][0]})
        if one.rejected:
            rows.append({**ends, "from": one.scored, "to": one.scored + one.rejected, "what": names[1][0]})
    scale = alt.Scale(domain=[name for name, _ in names], range=[colour for _, colour in names])
    columns = 1 if style.is_phone(width) else 2
    legend = alt.Legend(symbolType="square", symbolStrokeWidth=0, symbolSize=90, columns=columns)
    # A gap between bars only where there is room for one.
    gap = 1 if (width - 70) / len(days) > 4 else 0
    mark = alt.Chart(style.table(rows)).mark_rect(strokeWidth=gap, stroke=style.PAPER, opacity=1)
    colour = alt.Color("what:N", scale=scale, legend=legend)
    return mark.encode(
        x=x,
        x2="until:T",
        y=_y("from:Q", language, max(one.scored + one.rejected for one in volumes)),
        y2="to:Q",
        color=colour,
    )


def _least(volumes: Sequence[Volume], x: alt.X) -> list[Any]:
    rows = [
        {"day": style.moment(one.day), "until": style.moment(one.day + timedelta(days=1)), "least": one.least}
        for one in volumes
        if one.least is not None
    ]  # fmt: skip
    if not rows:
        return []
    base = alt.Chart(style.table(rows)).mark_rule(color=style.INK, strokeWidth=1.2, opacity=0.8)
    return [base.encode(x=x, x2="until:T", y=alt.Y("least:Q", title=None))]


def _failed(volumes: Sequence[Volume], x: alt.X) -> list[Any]:
    rows = [{"day": style.noon(one.day)} for one in volumes if one.failed]
    if not rows:
        return []
    mark = alt.Chart(style.table(rows)).mark_point(
        shape="cross", angle=45, filled=True, color=style.VERMILION, size=70, yOffset=-8, opacity=1
    )
    return [mark.encode(x=x, y=alt.value("height"))]
