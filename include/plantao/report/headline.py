"""How a job stands, in plain words: fine, watch, degraded, broken, or not enough evidence; since when, for whom.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from plantao.measure.detect.findings import REFERENCE_DAYS
from plantao.report.chart.words import day, metric_name, number
from plantao.report.data import segment_means, week_of, worst_first
from plantao.report.page_words import tell
from plantao.report.point import last_judged

if TYPE_CHECKING:
    from plantao.report.data import Incident, ReportData

Level = Literal["fine", "watch", "missing", "degraded", "broken"]
# The graver word speaks when several incidents are open. Drift and improvement are news, never a state of the job.
WORDS: Final[tuple[Level, ...]] = ("broken", "degraded", "missing", "watch")
STALE = timedelta(days=14)
"""So long after the last judged day, nobody knows how the model does."""
NAMED = 2


@dataclass(frozen=True)
class Headline:
    """One word for the state, the words with their date, and the sentences that follow."""

    level: Level
    title: str
    sentences: tuple[str, ...]


def headline(data: ReportData) -> Headline:
    """Return how the job stands at the end of the period."""
    opened = [one for one in data.incidents if one.is_open]
    level: Level = next((word for word in WORDS if any(one.word == word for one in opened)), "fine")
    lack = _lack_of_evidence(data)
    if lack and level in {"fine", "watch"}:
        level = "missing"
    language = data.language
    told = [one for one in opened if one.word == level]
    title = tell(level, language)
    if told:
        since = day(min(one.since for one in told), language, year=True)
        title = tell("since", language, word=title, day=since)
    sentences = [*lack, *_messages(told, level), *_value(data), *_for_whom(data, told, level), _how_many(data, opened)]
    sentences += [*_drift(data, opened), *_few_days(data)]
    return Headline(level, title, tuple(sentences))


def _lack_of_evidence(data: ReportData) -> list[str]:
    name, language = data.main_metric, data.language
    if name is None:
        return [tell("no_outcome", language)]
    judged, what = last_judged(data.points(name), 1), metric_name(name, language)
    if not judged:
        return [tell("never_judged", language, what=what)]
    newest = judged[0].day
    if data.last - newest <= STALE:
        return []
    return [tell("not_judged_since", language, what=what, day=day(newest, language, year=True))]


def _messages(told: list[Incident], level: Level) -> list[str]:
    """Return what a break or a lack of evidence says of itself; a degradation is told by its figures."""
    if level not in {"broken", "missing"}:
        return []
    text = told[0].message.partition(". Next:")[0] if told else ""
    return [text.rstrip(".") + "."] if text else []


def _value(data: ReportData) -> list[str]:
    """Say what the objective is worth now, and how good the model is: the business comes first."""
    measured = {figure.name for figure in data.figures if not figure.segment}
    objective = next((name for name in ("objective_per_row", "objective") if name in measured), None)
    return [_now(data, name) for name in (objective, data.main_metric) if name and week_of(data, name)]


def _now(data: ReportData, name: str) -> str:
    language, week, mean = data.language, week_of(data, name), data.reference_mean(name)
    value, what = number(week.value if week else None, language), data.title_of(name)
    if mean is None:
        return tell("value_only", language, what=what, value=value)
    return tell("value_now", language, what=what, value=value, mean=number(mean, language))


def _for_whom(data: ReportData, told: list[Incident], level: Level) -> list[str]:
    """Say which segments are worse than all rows by more than chance, when the job is worse at all."""
    if level not in {"degraded", "watch"} or data.main_metric is None:
        return []
    named = sorted({str(one.details.get("segment") or "") for one in told})
    if named and all(named):
        return [tell("only_for", data.language, names=", ".join(named))]
    means = segment_means(data, data.main_metric)
    everything = means.get("", (None, None, 0))[0]
    if everything is None or len(means) < NAMED:
        return []
    apart = []
    for name in worst_first(data, data.main_metric)[:NAMED]:
        mean = means[name][0]
        ends = (mean.lower, mean.upper) if mean else (None, None)
        if ends[0] is not None and ends[1] is not None and not ends[0] <= everything.value <= ends[1]:
            apart.append(name)
    if not apart:
        return [tell("for_all", data.language)]
    return [tell("worst_for", data.language, names=", ".join(apart))]


def _how_many(data: ReportData, opened: list[Incident]) -> str:
    if not opened:
        return tell("none_open", data.language)
    return tell("one_open" if len(opened) == 1 else "some_open", data.language, count=len(opened))


def _drift(data: ReportData, opened: list[Incident]) -> list[str]:
    names = [str(one.details.get("column") or tell("score", data.language)) for one in opened if one.lane == "drift"]
    return [tell("inputs_drift", data.language, names=", ".join(dict.fromkeys(names)))] if names else []


def _few_days(data: ReportData) -> list[str]:
    count = len((data.reference.get("days") or {}).get("performance") or ())
    if data.main_metric is None or count >= REFERENCE_DAYS:
        return []
    return [tell("few_days", data.language, count=count)]
