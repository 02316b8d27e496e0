"""The tables of the report, as HTML; every value that goes in is escaped here.

Pure.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from plantao.report.chart.words import NONE, incident_word, number, percent
from plantao.report.chart.words import day as day_words
from plantao.report.data import (
    RECENT,
    columns_by_importance,
    is_of_effect,
    kpis,
    over_limits,
    segment_means,
    status_of,
    statuses,
    week_of,
    worst_first,
)
from plantao.report.page_words import tell
from plantao.report.point import last_judged, mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plantao.report.chart.words import Language
    from plantao.report.data import Incident, ReportData
    from plantao.report.label_delay import Arrival
    from plantao.report.point import Mean, Point

SHARES: Final = frozenset({"rejected_share", "label_coverage", "null_share", "unseen_share"})
WORST = 3
# A cell that says nothing is left out where each row is a card.
NOTHING = ' class="nothing"'


class Html(str):
    """Text that is HTML already, and safe."""

    __slots__ = ()


def cell(value: str) -> str:
    """Return a value as HTML, escaped unless it is HTML already."""
    return value if isinstance(value, Html) else escape(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """Return a table whose first column names the row; on a phone each row becomes a small card."""
    if not rows:
        return Html("")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns) if any(columns) else ""
    lines = []
    for first, *others in rows:
        cells = "".join(
            f'<td data-label="{escape(name)}"{NOTHING if value == NONE else ""}>{cell(value)}</td>'
            for name, value in zip(columns[1:], others, strict=True)
        )
        lines.append(f'<tr><th scope="row">{cell(first)}</th>{cells}</tr>')
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return Html(f"<table>{top}<tbody>{''.join(lines)}</tbody></table>")


def badge(status: str, text: str) -> Html:
    """Return a word on a coloured ground; the word alone says it, too."""
    return Html(f'<span class="badge {escape(status)}">{escape(text)}</span>')


def _interval(mean: Mean | None, language: Language, *, share: bool = False) -> str:
    if mean is None or mean.lower is None or mean.upper is None:
        return NONE
    if share:
        return f"{percent(max(0.0, mean.lower), language)} … {percent(min(1.0, mean.upper), language)}"
    return f"{number(mean.lower, language)} … {number(mean.upper, language)}"


# --- figures ---------------------------------------------------------------------------------------------------------


def figures(data: ReportData) -> Html:
    """Return a line for each metric of all rows, also for those that could not be judged on any day."""
    language = data.language
    names = ("metric", "value", "interval", "n", "maturity", "status", "mean", "detectable")
    return table([tell(name, language) for name in names], [_figure(data, *key) for key in kpis(data)])


def _figure(data: ReportData, name: str, column: str) -> list[str]:
    language, points = data.language, data.points(name, column)
    week, share = week_of(data, name, column), name in SHARES
    shown = percent if share else number
    known = [(p.maturity, p.n) for p in last_judged(points) if p.maturity is not None]
    rows = sum(n for _, n in known)
    maturity = sum(part * n for part, n in known) / rows if rows else None
    title = data.title_of(name)
    return [
        f"{title}, {column}" if column else title,
        Html(f"<b>{escape(shown(week.value, language))}</b>") if week else NONE,
        _interval(week, language, share=share),
        number(week.n, language) if week else NONE,
        percent(maturity, language),
        _status(points, language),
        NONE if column else shown(data.reference_mean(name), language),
        f"± {number(found, language)}" if (found := data.detectable(name, column)) is not None else NONE,
    ]


def _status(points: Sequence[Point], language: Language) -> Html:
    """Return the status of the newest day with outcomes, and how many days have another than ok."""
    newest = status_of(points)
    others = {status: count for status, count in statuses(points).items() if status != "ok"}
    said = [
        tell("one_not_judged" if count == 1 else "days_not_judged", language, count=count, status=tell(name, language))
        for name, count in others.items()
    ]
    more = f"<small>{escape('; '.join(said))}</small>" if said and (len(points) > 1) else ""
    return Html(f"<span>{badge(newest, tell(newest, language))}{more}</span>")


def arrival(found: Arrival, language: Language) -> Html:
    """Return within how many days outcomes came, and what share of them was known by when."""
    names = [tell("outcomes", language), *(tell(name, language) for name in ("median", "ninety", "slowest"))]
    names += [tell("after", language, days=days_in_words(count, language)) for count in found.shares]
    times = [
        tell("within", language, days=days_in_words(count, language))
        for count in (found.median, found.ninety, found.slowest)
    ]
    shares = [percent(share, language) for share in found.shares.values()]
    return table(names, [[tell("all_rows", language), *times, *shares]])


def days_in_words(count: int, language: Language) -> str:
    """Return a number of days as people write it."""
    return tell("one_day" if count == 1 else "some_days", language, count=count)


# --- segments --------------------------------------------------------------------------------------------------------


def segments(data: ReportData) -> tuple[Html, list[str]]:
    """Return the worst three segments and all rows, and the names of those that could not be judged."""
    name, language = data.main_metric, data.language
    if name is None:
        return Html(""), []
    means = segment_means(data, name)
    shown = [*worst_first(data, name)[:WORST], *([""] if "" in means else [])]
    rows = []
    for segment in shown:
        now, before, labels = means[segment]
        change = now.value - before.value if now and before else None
        sign = "+" if change and change > 0 else ""
        rows.append(
            [
                segment or tell("all_rows", language),
                Html(f"<b>{escape(number(now.value, language))}</b>") if now else tell("too_few", language),
                _interval(now, language),
                number(labels, language),
                number(before.value if before else None, language),
                f"{sign}{number(change, language)}",
            ]
        )
    names = [tell(key, language) for key in ("segment", "last_28", "interval", "labels", "before", "change")]
    few = sorted(segment for segment, (now, _, _) in means.items() if segment and now is None)
    return (table(names, rows) if len(rows) > 1 or few else Html("")), few


# --- the effect ------------------------------------------------------------------------------------------------------


def effect(data: ReportData) -> Html:
    """Return the metrics of the control group, of the others and of both; and the difference that the system makes.

    The metric `effect` is treated minus control of what its column names: the outcome, a class, or the objective.
    """
    language = data.language
    found = {(one.name, one.column) for one in data.figures if not one.segment and is_of_effect(one.name)}
    arms = ("control", "treated", "weighted")
    plain = {(name.removesuffix(f"_{arm}"), of) for name, of in found for arm in arms if name.endswith(f"_{arm}")}
    between = {of for name, of in found if name == "effect"}

    def rank(key: tuple[str, str]) -> tuple[bool, bool, tuple[str, str]]:
        # What the system is for comes first, then what else it changes, then how good the model is for whom.
        return key[0] != "objective_per_row", key[0] not in between, key

    rows = []
    for name, of in sorted(plain | {(of, "") for of in between}, key=rank):
        title = tell("outcome", language) if name == "outcome" else data.title_of(name or "effect")
        difference = _arm(data, "effect", name) if name in between and not of else NONE
        cells = [_arm(data, f"{name}_{arm}", of) if (f"{name}_{arm}", of) in found else NONE for arm in arms]
        rows.append([f"{title}, {of}" if of else title, *cells, difference])
    return table([tell(key, language) for key in ("metric", *arms, "difference")], rows)


def _arm(data: ReportData, name: str, column: str) -> str:
    points = data.points(name, column)
    mean = mean_of(last_judged(points, RECENT))
    if mean is None:
        return _status(points, data.language)
    interval = _interval(mean, data.language)
    more = "" if interval == NONE else f" <small>{escape(interval)}</small>"
    return Html(f"<span><b>{escape(number(mean.value, data.language))}</b>{more}</span>")


# --- columns ---------------------------------------------------------------------------------------------------------


def columns(data: ReportData) -> Html:
    """Return a line for each column of the input, and one for the score; what nowhere was measured has no column."""
    language = data.language
    keys = ("column", "missing_now", "missing_then", "unseen", "outside", "drift", "beyond", "jensen_shannon", "status")
    rows = [_column(data, column) for column in columns_by_importance(data)]
    kept = [place for place in range(len(keys)) if not place or any(row[place] != NONE for row in rows)]
    return table([tell(keys[place], language) for place in kept], [[row[place] for place in kept] for row in rows])


def _column(data: ReportData, column: str) -> list[str]:
    language = data.language
    drift = over_limits(data, column)
    week = last_judged(drift)
    largest = max((p.value for p in week if p.value is not None), default=None)
    beyond = sum(1 for p in week if p.value is not None and p.value > 1)
    profile = (data.reference.get("columns") or {}).get(column, {})
    rows = profile.get("rows")
    then = profile.get("missing", 0) / rows if rows else None
    drifted = Html(f'<b class="beyond">{escape(number(largest, language))}</b>') if beyond else None
    shares = [percent(_latest(data, f"{name}_share", column), language) for name in ("null", "unseen", "outside")]
    return [
        column or tell("score", language),
        shares[0],
        percent(then, language),
        *shares[1:],
        drifted or number(largest, language),
        f"{beyond} / {len(week)}" if week else NONE,
        _distance(data, column),
        _status(drift or data.points("null_share", column), language),
    ]


def _distance(data: ReportData, column: str) -> str:
    """Return the Jensen-Shannon distance, and what chance alone would give with so many rows."""
    found = _latest(data, "jensen_shannon", column)
    chance = _latest(data, "jensen_shannon_expected", column)
    if found is None or chance is None:
        return number(found, data.language)
    more = tell("by_chance", data.language, value=number(chance, data.language))
    return Html(f"<span>{escape(number(found, data.language))}<small>{escape(more)}</small></span>")


def _latest(data: ReportData, name: str, column: str) -> float | None:
    mean = mean_of(last_judged(data.points(name, column)))
    return mean.value if mean else None


def unjudged(data: ReportData) -> Html:
    """Return a line for each check that could not be made, with the columns it is about and on how many days."""
    language, known = data.language, set(data.reference.get("columns") or {})
    groups: dict[tuple[str, str, int], list[str]] = {}
    for one in data.unjudged:
        groups.setdefault((one.check, one.status, one.days), []).append(one.column)
    rows = []
    for (check, status, days), found in groups.items():
        of = tell("all_columns", language) if len(found) > 1 and known <= set(found) else ", ".join(filter(None, found))
        rows.append([check, of or NONE, days_in_words(days, language), badge(status, tell(status, language))])
    return table([tell(name, language) for name in ("check", "column", "days", "status")], rows)


# --- incidents -------------------------------------------------------------------------------------------------------


def incidents(found: Sequence[Incident], language: Language) -> Html:
    """Return incidents as a list, each with its word, its days, and what was seen."""
    lines = []
    for one in found:
        first = day_words(one.since, language, year=True)
        if one.last_day is None:
            when = tell("from_on", language, first=first)
        else:
            when = tell("until", language, first=first, last=day_words(one.last_day, language, year=True))
        facts = [tell(f"lane_{one.lane}", language), when, *([f"v{one.version}"] if one.version else [])]
        word = badge(one.word, incident_word(one.word, language))
        lines.append(f"<li>{word} <small>{escape(' · '.join(facts))}</small><p>{escape(one.message)}</p></li>")
    return Html(f'<ul class="incidents">{"".join(lines)}</ul>' if lines else "")
