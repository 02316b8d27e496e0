"""The report as one page of HTML that needs nothing else: no network, no script, no font.

Pure.
"""

from __future__ import annotations

from datetime import date, timedelta
from html import escape
from typing import TYPE_CHECKING

from plantao.report.chart import style
from plantao.report.chart.words import NONE, day, metric_name, number, percent
from plantao.report.charts import PICTURES, WIDE
from plantao.report.data import arrival_of, estimate_error, overdispersion_of
from plantao.report.headline import headline
from plantao.report.page_style import CSS
from plantao.report.page_tables import (
    Html,
    arrival,
    columns,
    days_in_words,
    effect,
    figures,
    incidents,
    segments,
    table,
    unjudged,
)
from plantao.report.page_words import tell

if TYPE_CHECKING:
    from plantao.report.data import ReportData

# Widths in pixels: of a picture over the whole page, of one beside another, and of one on a phone.
FULL, HALF, PHONE = 1110, 540, 336


def page(data: ReportData) -> str:
    """Return the whole report. Every value of the data is escaped; every picture is inside, as SVG."""
    language = data.language
    title = tell("report_of", language, job=data.job)
    return (
        f'<!doctype html>\n<html lang="{"pt-BR" if language == "pt" else "en"}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # An empty icon, or the browser asks the server for one.
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"{_header(data, title)}{_state(data)}{_happened(data)}{_figures(data)}{_arrival(data)}{_incidents(data)}"
        f"{_segments(data)}{_effect(data)}{_inputs(data)}{_data(data)}{_footer(data)}</main></body></html>\n"
    )


def _header(data: ReportData, title: str) -> str:
    language = data.language
    facts = [tell("period", language, first=_day(data, data.first), last=_day(data, data.last))]
    if data.version is not None:
        facts.append(tell("version", language, model=data.model, version=data.version))
    about = f"<p>{escape(data.description)}</p>" if data.description else ""
    return f"<header><h1>{escape(title)}</h1>{about}<p>{escape(' · '.join(facts))}</p></header>"


def _day(data: ReportData, when: date) -> str:
    return day(when, data.language, year=True)


def _written(data: ReportData, text: str | None) -> str:
    """Return a day of the profile as people read it; one that cannot be read as it stands there."""
    try:
        return _day(data, date.fromisoformat(text or ""))
    except ValueError:
        return text or NONE


def _section(heading: str, *parts: str, note: str = "", kind: str = "text") -> str:
    """Return a section, or nothing when it has nothing to show."""
    if not any(parts):
        return ""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    top = f"<h2>{escape(heading)}</h2>" if heading else ""
    return f'<section class="{kind}">{top}{said}{"".join(parts)}</section>'


def _figure(data: ReportData, name: str) -> str:
    """Return a picture twice, for a wide page and for a phone: only one of them is shown."""
    drawn = []
    for kind, width in (("wide", FULL if name in WIDE else HALF), ("narrow", PHONE)):
        picture = PICTURES[name](data, width)
        if picture is not None:
            drawn.append(f'<figure class="{kind}">{style.svg(picture, f"{name}-{kind}")}</figure>')
    return "".join(drawn)


def _state(data: ReportData) -> str:
    found = headline(data)
    told = " ".join(found.sentences)
    return f'<section class="state {found.level}"><h2>{escape(found.title)}</h2><p>{escape(told)}</p></section>'


def _happened(data: ReportData) -> str:
    return _section("", _figure(data, "over_time"), kind="picture")


def _figures(data: ReportData) -> str:
    note = " ".join([tell("figures_note", data.language), *_estimates(data)])
    return _section(tell("figures", data.language), figures(data), note=note)


def _estimates(data: ReportData) -> list[str]:
    """Say how wrong the estimates were that can be held against what came true."""
    language, found = data.language, []
    for name in sorted({one.name for one in data.figures if one.name.startswith("estimated_") and not one.segment}):
        plain = name.removeprefix("estimated_")
        error = estimate_error(data, plain)
        if error is not None:
            bias, size = number(abs(error[0]), language), number(error[1], language)
            key = "estimates_high" if error[0] > 0 else "estimates_low"
            found.append(tell(key, language, what=metric_name(plain, language), bias=bias, error=size))
    return found


def _arrival(data: ReportData) -> str:
    """Say when outcomes arrive, which is why a day is not judged earlier."""
    found = arrival_of(data)
    if found is None:
        return ""
    language, known_after = data.language, data.known_after
    hours, whole = known_after / timedelta(hours=1), known_after % timedelta(days=1)
    after = days_in_words(known_after.days, language) if not whole else tell("hours", language, count=f"{hours:g}")
    note = [tell("arrival_note", language, after=after, share=percent(data.mature_at, language))]
    if found.enough is None:
        note.append(tell("arrival_never", language))
    else:
        note.append(tell("arrival_enough", language, days=days_in_words(found.enough, language)))
    return _section(tell("arrival", language), arrival(found, language), note=" ".join(note))


def _incidents(data: ReportData) -> str:
    language = data.language
    parts = []
    for key, some in (
        ("open_now", [one for one in data.incidents if one.is_open]),
        ("closed_now", [one for one in data.incidents if not one.is_open]),
    ):
        if some:
            parts.append(f"<h3>{escape(tell(key, language))} ({len(some)})</h3>{incidents(some, language)}")
    return _section(tell("incidents", language), *(parts or [f"<p>{escape(tell('no_incidents', language))}</p>"]))


def _segments(data: ReportData) -> str:
    if not data.segments:
        return ""
    found, few = segments(data)
    note = tell("segments_few", data.language, names=", ".join(few)) if few else ""
    picture = _figure(data, "segments")
    beside = f'<div class="grid plain"><div>{picture}</div><div>{found}</div></div>' if found else picture
    return _section(tell("segments", data.language), beside, note=note)


def _effect(data: ReportData) -> str:
    share = percent(data.control_share, data.language)
    note = tell("effect_note", data.language, share=share) if data.control_share else ""
    return _section(tell("effect", data.language), effect(data), note=note)


def _inputs(data: ReportData) -> str:
    heading = tell("columns", data.language)
    shown = _section("", _figure(data, "inputs"), kind="picture") + _section(
        heading, columns(data), note=tell("columns_note", data.language)
    )
    return shown + _section(tell("unjudged", data.language), unjudged(data), note=tell("unjudged_note", data.language))


def _data(data: ReportData) -> str:
    drawn = [_section("", _figure(data, name), kind="picture") for name in ("scores", "calibration", "volume")]
    drawn.append(_versions(data))
    return f'<div class="grid">{"".join(drawn)}</div>'


def _versions(data: ReportData) -> str:
    lines = [(f"v{one.version}", _day(data, one.day), one.who, one.why) for one in reversed(data.versions)]
    names = ("", "", "", "")
    return _section(tell("versions", data.language), table(names, lines))


def _overdispersion(data: ReportData) -> str:
    """Say why the limits do not come from the number of rows: how much more than them the days differ."""
    found = overdispersion_of(data)
    return (
        ""
        if found is None
        else " " + tell("about_overdispersion", data.language, times=number(round(found, 1), data.language, 2))
    )


def _footer(data: ReportData) -> str:
    language = data.language
    days = data.reference.get("days") or {}
    about = tell("about_no_reference", language)
    if days:
        ends = {"first": _written(data, days.get("from")), "last": _written(data, days.get("until"))}
        whose = {"number": data.reference_version or 1, "model": data.model, "version": data.version}
        about = tell("about_reference", language, days=days.get("count", 0), **ends, **whose)
    said = [
        about,
        tell("about_days", language, zone=str(data.now.tzinfo)),
        tell("about_detectable", language) + _overdispersion(data),
        *(tell(f"about_{what}", language) for what in ("interval", "estimate", "drift")),
    ]
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    made = tell("made", language, moment=f"{_day(data, data.now.date())}, {data.now:%H:%M}")
    return Html(f"<footer><h2>{escape(tell('meaning', language))}</h2><ul>{lines}</ul><p>{escape(made)}</p></footer>")
