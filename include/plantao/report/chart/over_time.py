"""The objective and the main metric, day by day: what happened, since when, and what the client did not yet know.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import altair as alt

from plantao.report.chart import style
from plantao.report.chart.words import NONE, incident_word, metric_name, number, say
from plantao.report.point import last_judged, mean_of, week_means

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from plantao.report.chart.style import Picture
    from plantao.report.chart.words import Language
    from plantao.report.point import Point


@dataclass(frozen=True)
class Track:
    """A metric over time: its days, its estimate before outcomes, the reference's mean and what a week must change.

    `each_day_alike` is for sums of a day, which are not weighted by rows. `unit` stands above the axis.
    """

    metric: str
    points: Sequence[Point]
    estimate: Sequence[Point] = ()
    mean: float | None = None
    detectable: float | None = None
    each_day_alike: bool = False
    label: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Change:
    """A model version that became champion."""

    day: date
    version: int


@dataclass(frozen=True)
class Span:
    """An incident: the days on which its condition held, the last one included; None while it is open."""

    first: date
    last: date | None
    lane: str
    word: str


@dataclass(frozen=True)
class Events:
    """What happened beside the figures: changes of the version, and incidents."""

    changes: Sequence[Change] = ()
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class _Canvas:
    days: Sequence[date]
    width: int
    language: Language
    entries: Sequence[tuple[str, str]]
    """What the key says, in words and colours."""

    @property
    def height(self) -> int:
        return 150 if style.is_phone(self.width) else 200


def chart(
    tracks: Sequence[Track],
    days: Sequence[date],
    events: Events | None = None,
    *,
    width: int = 1100,
    language: Language = "en",
) -> Picture:
    """Return the tracks under one another, on one axis of days, which covers all `days` (oldest first)."""
    drawn = [track for track in tracks if any(point.value is not None for point in (*track.points, *track.estimate))]
    if not drawn or not days:
        names = ", ".join(_name(track, language) for track in tracks)
        return style.empty(say("nothing", language, what=names or NONE), width, language)
    events = events or Events()
    seen = [span for span in events.spans if span.first <= days[-1] and (span.last or days[-1]) >= days[0]]
    canvas = _Canvas(days, width, language, _entries(drawn, seen, language))
    panels = [_panel(track, Events(events.changes, seen), canvas) for track in drawn]
    # A concatenation cannot be fitted into a width, so that the room of the axis is fixed instead.
    whole = alt.vconcat(*panels, spacing=22).resolve_legend(color="shared").resolve_scale(color="shared")
    return style.finished(whole, language, fit=False)


# Pixels that the axis of values takes, and what is left free around the picture.
AXIS, MARGIN = 46, 28
STILL_ARRIVING = frozenset({"provisional", "no_labels"})
SHADED = frozenset({"break", "degraded", "missing"})
# Of incidents that begin on the same day the gravest is named.
GRAVITY = {"broken": 0, "degraded": 1, "missing": 2, "watch": 3}


def _panel(track: Track, events: Events, canvas: _Canvas) -> Any:
    days, width = canvas.days, canvas.width
    x = style.time_axis(days, width)
    y = partial(
        style.value_axis,
        label=track.unit,
        look={"minExtent": AXIS, "maxExtent": AXIS},
        domain=_domain(track),
        nice=True,
    )
    layers = [
        *_behind(track, x, events.spans, days),
        *_dots(track, x, y, phone=style.is_phone(width)),
        *_lines(track, x, y),
        *_versions(events.changes, x, days),
        *_names(events.spans, x, canvas),
        _key(x, canvas),
    ]
    heading = style.title(_heading(track, canvas.language), "", width)
    return alt.layer(*layers).properties(width=width - AXIS - MARGIN, height=canvas.height, title=heading)


def _domain(track: Track) -> list[float]:
    """Return the range of the axis: of values, and of the band; long intervals are cut off."""
    values = [point.value for point in (*track.points, *track.estimate) if point.value is not None]
    if track.mean is not None:
        reach = track.detectable or 0.0
        values += [track.mean - reach, track.mean + reach]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return [low - room, high + room]


def _name(track: Track, language: Language) -> str:
    name = track.label or metric_name(track.metric, language)
    return name[:1].upper() + name[1:]


def _heading(track: Track, language: Language) -> str:
    what = _name(track, language)
    week = mean_of(last_judged(track.points), by_rows=not track.each_day_alike)
    if week is None:
        return say("nothing", language, what=what)
    value = number(week.value, language)
    if track.mean is None:
        return say("now", language, what=what, value=value)
    return say("now_against", language, what=what, value=value, mean=number(track.mean, language))


def _behind(track: Track, x: alt.X, spans: Sequence[Span], days: Sequence[date]) -> list[Any]:
    """Draw what lies behind the values: open incidents, provisional days, the limits and the reference's mean."""
    first, last = days[0], days[-1]
    held = [
        {
            "day": style.moment(max(span.first, first)),
            "until": style.moment(min(span.last or last, last) + timedelta(days=1)),
        }
        for span in spans
        if span.first <= last and (span.last or last) >= first and span.lane in SHADED
    ]
    pale = [
        {"day": style.moment(point.day), "until": style.moment(point.day + timedelta(days=1))}
        for point in track.points
        if point.status in STILL_ARRIVING
    ]
    layers = [
        alt.Chart(style.table(rows)).mark_rect(color=colour, clip=True).encode(x=x, x2="until:T")
        for rows, colour in ((held, style.ALERT), (pale, style.GRID))
        if rows
    ]
    if track.mean is None:
        return layers
    ends = {"day": style.moment(first), "until": style.moment(last + timedelta(days=1)), "mean": track.mean}
    if track.detectable:
        ends |= {"low": track.mean - track.detectable, "high": track.mean + track.detectable}
        band = alt.Chart(style.table([ends])).mark_rect(color=style.BAND, opacity=0.75)
        layers.append(band.encode(x=x, x2="until:T", y="low:Q", y2="high:Q"))
    rule = alt.Chart(style.table([ends])).mark_rule(color=style.MUTED, strokeDash=[2, 3])
    return [*layers, rule.encode(x=x, x2="until:T", y="mean:Q")]


def _dots(track: Track, x: alt.X, y: partial[alt.Y], *, phone: bool) -> list[Any]:
    """Draw each day with its interval; hollow where it may not be judged."""
    known = [point for point in track.points if point.value is not None]
    rows = [
        {"day": style.noon(p.day), "value": p.value, "lower": p.lower, "upper": p.upper, "judged": p.is_judged}
        for p in known
    ]
    if not rows:
        return []
    data = style.table(rows)
    size = 9 if phone else 22
    judged, others = "datum.judged", "!datum.judged"
    spread = alt.Chart(data).mark_rule(color=style.BLUE, opacity=0.22, clip=True, strokeWidth=1 if phone else 1.5)
    filled = alt.Chart(data).mark_point(filled=True, color=style.BLUE, opacity=0.5, size=size)
    hollow = alt.Chart(data).mark_point(filled=True, fill=style.PAPER, stroke=style.MUTED, opacity=1, size=size)
    return [
        spread.encode(x=x, y=y("lower:Q"), y2="upper:Q"),
        filled.encode(x=x, y=y("value:Q")).transform_filter(judged),
        hollow.encode(x=x, y=y("value:Q")).transform_filter(others),
    ]


def _lines(track: Track, x: alt.X, y: partial[alt.Y]) -> list[Any]:
    """Draw the means of seven days: of what came true, and of what had been estimated."""
    found = []
    for points, colour, dash in ((track.estimate, style.PURPLE, [5, 3]), (track.points, style.BLUE, [1, 0])):
        means = week_means(points, by_rows=not track.each_day_alike)
        rows = [{"day": style.noon(day), "value": value} for day, value in means]
        if rows:
            line = alt.Chart(style.table(rows)).mark_line(color=colour, strokeDash=dash, strokeWidth=2.4, clip=True)
            found.append(line.encode(x=x, y=y("value:Q")))
    return found


def _versions(changes: Sequence[Change], x: alt.X, days: Sequence[date]) -> list[Any]:
    rows = [
        {"day": style.moment(change.day), "text": f"v{change.version}"}
        for change in changes
        if days[0] < change.day <= days[-1]
    ]
    if not rows:
        return []
    base = alt.Chart(style.table(rows)).encode(x=x)
    text = base.mark_text(align="left", baseline="top", dx=4, dy=2, color=style.INK, fontSize=11, fontWeight="bold")
    return [
        base.mark_rule(color=style.INK, strokeWidth=1.2),
        text.encode(text="text:N", y=alt.value(0)),
    ]


def _names(spans: Sequence[Span], x: alt.X, canvas: _Canvas) -> list[Any]:
    """Draw the foot of each incident, and its word above it where there is room."""
    rows: list[dict[str, object]] = []
    days = canvas.days
    free = days[0] + timedelta(days=len(days) // 8)
    for span in sorted(spans, key=lambda span: (span.first, GRAVITY.get(span.word, len(GRAVITY)))):
        if span.lane not in SHADED:
            continue
        end = min(span.last or days[-1], days[-1]) + timedelta(days=1)
        word = incident_word(span.word, canvas.language) if end >= free else ""
        free = end + timedelta(days=len(days) // 8) if word else free
        rows.append({"day": style.moment(max(span.first, days[0])), "until": style.moment(end), "text": word})
    if not rows:
        return []
    data = style.table(rows)
    foot = alt.Chart(data).mark_rule(color=style.VERMILION, strokeWidth=4)
    text = alt.Chart(data).mark_text(
        align="right", baseline="bottom", dy=-3, color=style.VERMILION, fontSize=11, fontWeight="bold"
    )
    return [
        foot.encode(x=x, x2="until:T", y=alt.value(canvas.height - 2)),
        text.encode(x=style.time_axis(days, 0, "until:T"), text="text:N", y=alt.value(0)),
    ]


def _entries(tracks: Sequence[Track], spans: Sequence[Span], language: Language) -> list[tuple[str, str]]:
    """Return what the key says, in words and colours: only what is really drawn."""
    entries = [("days_line", style.BLUE)]
    if any(track.estimate for track in tracks):
        entries.append(("estimate", style.PURPLE))
    if any(track.mean is not None and track.detectable for track in tracks):
        entries.append(("band", style.BAND))
    if any(point.status in STILL_ARRIVING for track in tracks for point in track.points):
        entries.append(("provisional_dots", style.GRID))
    if any(span.lane in SHADED for span in spans):
        entries.append(("incident", style.ALERT))
    return [(say(key, language), colour) for key, colour in entries]


def _key(x: alt.X, canvas: _Canvas) -> Any:
    """Draw nothing but the key: one small square for each thing that is drawn."""
    names, colours = [name for name, _ in canvas.entries], [colour for _, colour in canvas.entries]
    rows = [{"day": style.moment(canvas.days[0]), "what": name} for name in names]
    columns = 1 if style.is_phone(canvas.width) else len(names) if canvas.width > 900 else 2
    legend = alt.Legend(symbolType="square", symbolOpacity=1, symbolSize=90, symbolStrokeWidth=0, columns=columns)
    scale = alt.Scale(domain=names, range=colours)
    mark = alt.Chart(style.table(rows)).mark_point(filled=True, opacity=0, size=1)
    return mark.encode(x=x, y=alt.value(0), color=alt.Color("what:N", scale=scale, legend=legend, sort=names))
