"""Which incidents open, worsen or close: the conditions that hold now, against those that were open.

Pure. A condition is a state, not an event: it notifies when it opens, when it grows clearly worse and when it closes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from plantao.measure.detect.findings import LOOK_AT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from plantao.measure.detect.cusum import Word
    from plantao.measure.detect.findings import Break, Episode, NotJudged
from plantao.outbox.incident import Condition, fingerprint


@dataclass(frozen=True)
class Subject:
    """What an episode is about: a metric of a model version, of all rows or of a segment."""

    metric: str
    version: int
    segment: str = ""


def column_mark(column: str) -> str:
    """Return what a fingerprint calls a column: its name, and `score` for the score, whose column has none.

    A column that is called score itself stands in quotes, and so does one whose name begins with a quote, so that no
    two are called the same.
    """
    if column == SCORE or column.startswith('"'):
        return json.dumps(column, ensure_ascii=False)
    return column or SCORE


SCORE = "score"


def of_break(found: Break, since: date) -> Condition:
    """Return the condition that a failed check of a run is."""
    mark = fingerprint("break", found.check, found.column)
    details = {"check": found.check, "column": found.column, "value": found.value, "limit": found.limit, "n": found.n}
    return Condition("break", mark, "broken", found.severity, since, found.message, LOOK_AT[found.check], details)


def of_episode(subject: Subject, episode: Episode, word: Word | Literal["improved"]) -> Condition:
    """Return the condition that an open episode of a metric is, as severe as its worst day."""
    name = f"{subject.metric} of {subject.segment}" if subject.segment else subject.metric
    # An improvement and a degradation of the same metric are two conditions; degraded and watch are one.
    lane: tuple[str, ...] = ("improved",) if word == "improved" else ()
    mark = fingerprint("degraded", subject.metric, subject.segment, f"v{subject.version}", *lane)
    message = f"{name} of version {subject.version} is {WORDS[word]}: {episode.reason}"
    details = {**vars(subject), "worst": episode.worst, "worst_day": episode.worst_day.isoformat()}
    return Condition("degraded", mark, word, episode.worst, episode.opened, message, NEXT[word], details)


WORDS = {"degraded": "degraded", "watch": "worse by less than the margin", "improved": "better than the reference"}
NEXT = {
    "degraded": "see in the report since when and for whom; a challenger trained on newer data shows if that helps",
    "watch": "nothing yet; it becomes degraded when the value of 7 days is worse by the margin",
    "improved": "nothing; if it stays, draw a new baseline, so that the limits fit again",
}


def unjudged(not_judged: Iterable[NotJudged]) -> frozenset[str]:
    """Return the fingerprints about which this run says nothing, neither that they hold nor that they are over."""
    return frozenset(fingerprint("break", one.check, one.column) for one in not_judged)
