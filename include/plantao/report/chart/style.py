"""How every picture looks, and what it becomes: pixels or vectors, without a browser and without the network.

Pure. The colours are those of Okabe and Ito, which people with any kind of colour vision tell apart. The page of the
report knows these very codes, and swaps them where it is read in the dark.
"""

from __future__ import annotations

import re
import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import altair as alt
import vl_convert

from plantao.report.chart.words import MONTHS, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from plantao.report.chart.words import Language

# An Altair chart of any kind: its methods are typed as unions, of which a call returns one.
Picture: TypeAlias = Any
Rows: TypeAlias = "list[dict[str, Any]]"

# The first is in every wheel of vl-convert and as wide, letter by letter, as the second.
FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"
INK, MUTED, GRID, PAPER = "#1f2937", "#5b6472", "#e5e7eb", "#ffffff"
BLUE, PURPLE, ORANGE, VERMILION, GREEN, GREY = "#0072b2", "#a8518a", "#e69f00", "#d55e00", "#009e73", "#9aa3af"
BAND, PALE, ALERT = "#d3e5f2", "#f0f1f4", "#fbe3d3"
PHONE: Final = 480
"""Up to this width, in pixels, a picture is drawn for a phone."""


def table(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Return rows as data that stand in the specification itself."""
    return alt.InlineData(values=[dict(row) for row in rows])


def moment(day: date) -> str:
    """Return a day as the specification needs it: midnight, in a zone that never changes its clock."""
    return f"{day.isoformat()}T00:00:00Z"


def noon(day: date) -> str:
    """Return the middle of a day, where the value of a day stands."""
    return f"{day.isoformat()}T12:00:00Z"


def is_phone(width: int) -> bool:
    """Tell whether a picture of this width is for a phone."""
    return width <= PHONE


def title(text: str, below: str, width: int) -> alt.TitleParams:
    """Return the title and the line under it, broken so that they fit the width."""
    room = width - 20
    more: dict[str, Any] = {"subtitle": textwrap.wrap(below, max(12, int(room / 5.4)))} if below else {}
    lines = textwrap.wrap(text, max(12, int(room / 7.2))) or [""]
    return alt.TitleParams(text=lines, anchor="start", frame="bounds", offset=14, **more)


def time_axis(days: Sequence[date], width: int, name: str = "day:T") -> alt.X:
    """Return the axis of days; it covers all of the period, also where there are no figures."""
    first, last = days[0], days[-1]
    long = (last - first).days > 300
    ticks = min(max(2, len(days) - 1), 4 if is_phone(width) else 9)
    axis = alt.Axis(title=None, format="%b %Y" if long else "%-d %b", tickCount=ticks, grid=False, labelOverlap=True)
    domain = [moment(first - timedelta(days=1)), moment(last + timedelta(days=1))]
    return alt.X(name, axis=axis, scale=alt.Scale(type="utc", domain=domain, nice=False))


def value_axis(
    name: str, label: str, *, zero: bool = False, look: Mapping[str, Any] | None = None, **scale: Any
) -> alt.Y:
    """Return the axis of values, its unit written flat above it; `look` is what else the axis is told."""
    told: dict[str, Any] = {"tickCount": 5, **(look or {})}
    axis = alt.Axis(title=label, titleAngle=0, titleAlign="left", titleAnchor="end", titleX=0, titleY=-9, **told)
    return alt.Y(name, axis=axis, scale=alt.Scale(zero=zero, **scale))


def finished(chart: Picture, language: Language, *, fit: bool = True) -> Picture:
    """Return the chart in the style of the house, in the language."""
    more: dict[str, Any] = {"autosize": alt.AutoSizeParams(type="fit", contains="padding")} if fit else {}
    drawn = chart.configure(
        font=FONT,
        background=PAPER,
        aria=False,
        padding=8,
        locale=_locale(language),
        **more,
    )
    drawn = drawn.configure_view(stroke=None).configure_axis(
        labelColor=MUTED, titleColor=MUTED, gridColor=GRID, domainColor=GREY, tickColor=GREY, labelFontSize=11,
        titleFontSize=11, titleFontWeight="normal", labelPadding=4,
    )  # fmt: skip
    drawn = drawn.configure_title(
        color=INK, subtitleColor=MUTED, fontSize=14, fontWeight="bold", subtitleFontSize=11, subtitlePadding=4
    )
    return drawn.configure_legend(
        orient="bottom", title=None, labelColor=MUTED, labelFontSize=11, labelLimit=330, symbolStrokeWidth=2,
        padding=0, offset=8, rowPadding=2, columnPadding=12,
    )  # fmt: skip


def empty(text: str, width: int, language: Language) -> Picture:
    """Return a picture that says there is nothing to draw; never a broken one, never none."""
    chart = alt.Chart(table([{"text": say("no_data", language)}]), width=width, height=110)
    mark = chart.mark_text(color=MUTED, fontSize=12).encode(text="text:N")
    return finished(mark.properties(title=title(text, "", width)), language)


def png(chart: Picture, scale: float = 2) -> bytes:
    """Return the picture as PNG, `scale` pixels for each of its own."""
    found: bytes = vl_convert.vegalite_to_png(chart.to_dict(), scale=scale, allowed_base_urls=[])
    return found


def svg(chart: Picture, name: str) -> str:
    """Return the picture as SVG to stand inside a page; `name` is in front of every id, for these must not repeat."""
    text: str = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)


def _locale(language: Language) -> dict[str, Any]:
    if language == "en":
        return {}
    time = vl_convert.get_time_format_locale("pt-BR")
    return {
        "number": {**vl_convert.get_format_locale("pt-BR"), "percent": " %"},
        "time": {**time, "shortMonths": list(MONTHS["pt"])},
    }
