"""Where the inputs left the reference: columns by days, the colour says by how much.

Pure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import altair as alt

from plantao.report.chart import style
from plantao.report.chart.words import say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from plantao.report.chart.style import Picture
    from plantao.report.chart.words import Language

# A distance over its limit, up to which a colour goes: within the limit pale, beyond it the darker the farther.
STEPS: Final = (
    (0.5, "< ½", "#f1f5f9"),
    (1.0, "½\N{EN DASH}1", "#d5dee9"),
    (1.5, "1\N{EN DASH}1½", "#fdc98b"),
    (2.0, "1½\N{EN DASH}2", "#f08a4b"),
    (3.0, "2\N{EN DASH}3", "#cf4520"),
    (math.inf, "> 3", "#7a1210"),
)
UNJUDGED = "#8a94a3"
MOST_COLUMNS = 20
NAMED = 3


@dataclass(frozen=True)
class Cell:
    """How far a column was from the reference on a day, over its limit; None when that was not judged.

    The score is the column with an empty name.
    """

    column: str
    day: date
    over_limit: float | None


def chart(
    cells: Sequence[Cell], ranking: Sequence[str], days: Sequence[date], *, width: int = 1100, language: Language = "en"
) -> Picture:
    """Return the heat map of the columns in the order of `ranking`, the first 20 of them."""
    drawn = [column for column in ranking if any(cell.column == column for cell in cells)]
    if not drawn or not days:
        return style.empty(say("heat_none", language) if days and cells else "", width, language)
    shown, room = drawn[:MOST_COLUMNS], 96 if style.is_phone(width) else 140
    by_week = len(days) * 2 > width - room
    below = say("heat_sub", language)
    below += say("heat_weeks", language) if by_week else ""
    below += say("heat_more", language, count=len(drawn) - len(shown)) if len(drawn) > len(shown) else ""
    names = {column: column or say("score", language) for column in shown}
    rows = _rows([cell for cell in cells if cell.column in names], names, days, by_week=by_week, language=language)
    unjudged = say("not_judged", language)
    labels = [label for _, label, _ in STEPS] + ([unjudged] if any(r["step"] == unjudged for r in rows) else [])
    colours = [colour for _, _, colour in STEPS] + [UNJUDGED]
    legend = alt.Legend(
        symbolType="square", symbolStrokeWidth=0, symbolSize=110, columns=4 if style.is_phone(width) else 8
    )
    colour = alt.Color(
        "step:N", scale=alt.Scale(domain=labels, range=colours[: len(labels)]), legend=legend, sort=labels
    )
    axis = alt.Axis(title=None, labelLimit=room - 16, domain=False, ticks=False, labelColor=style.INK)
    y = alt.Y("column:N", sort=list(names.values()), axis=axis, scale=alt.Scale(paddingInner=0.12))
    mark = alt.Chart(style.table(rows)).mark_rect()
    picture = mark.encode(x=style.time_axis(days, width), x2="until:T", y=y, color=colour)
    heading = style.title(_heading(cells, names, days, language), below, width)
    return style.finished(picture.properties(width=width, height=90 + 17 * len(names), title=heading), language)


def _rows(
    cells: Sequence[Cell], names: dict[str, str], days: Sequence[date], *, by_week: bool, language: Language
) -> style.Rows:
    span = timedelta(days=7 if by_week else 1)
    worst: dict[tuple[str, date], list[float | None]] = defaultdict(list)
    for cell in cells:
        if not days[0] <= cell.day <= days[-1]:
            continue
        since = (cell.day - days[0]).days // span.days * span.days
        worst[cell.column, days[0] + timedelta(days=since)].append(cell.over_limit)
    return [
        {
            "column": names[column],
            "day": style.moment(first),
            "until": style.moment(min(first + span, days[-1] + timedelta(days=1))),
            "step": _step([value for value in values if value is not None], language),
        }
        for (column, first), values in sorted(worst.items())
    ]


def _step(values: Sequence[float], language: Language) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return say("not_judged", language)
    return next(label for limit, label, _ in STEPS if max(known) <= limit)


def _heading(cells: Sequence[Cell], names: dict[str, str], days: Sequence[date], language: Language) -> str:
    """Say which columns were beyond their limit on 2 of the last 7 days or more."""
    week = days[-1] - timedelta(days=6)
    beyond: dict[str, int] = defaultdict(int)
    for cell in cells:
        if cell.day >= week and cell.over_limit is not None and cell.over_limit > 1:
            beyond[cell.column] += 1
    found = [name for column, name in names.items() if beyond[column] >= 2]
    if not found:
        return say("heat_none", language)
    listed = ", ".join(found[:NAMED])
    if len(found) > NAMED:
        listed = say("and_more", language, names=listed, count=len(found) - NAMED)
    return say("heat_one" if len(found) == 1 else "heat_some", language, names=listed)
