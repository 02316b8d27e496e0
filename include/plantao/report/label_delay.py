"""How long outcomes are waited for: after how many days they arrive, and what share of them is known by when.

Pure. Days are counted from the row's own time, and whole ones, so *within 1 day* is less than 24 hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from plantao.window import of_days

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

SHARES_AFTER = (1, 3, 7, 30)
"""Days after which it is told what share of the outcomes is known."""


@dataclass(frozen=True)
class Arrived:
    """The predictions of a day, and of how many of them the outcome came after how many whole days."""

    day: date
    rows: int
    labelled: int
    lags: Mapping[int, int]


@dataclass(frozen=True)
class Arrival:
    """What is known of the arrival of outcomes: within how many days they came, and the share known by when."""

    median: int
    ninety: int
    slowest: int
    shares: Mapping[int, float | None]
    """By days: of the predictions at least so old, how many had their outcome by then; None when none is so old."""
    enough: int | None
    """The first day by which the share is known that a day needs to be judged; None when it never was."""


def arrival(days: Sequence[Arrived], known_after: timedelta, mature_at: float, now: datetime) -> Arrival | None:
    """Return how outcomes arrive; None when no arrival is known. `now` is in the zone of the days.

    How long they take is told of the days whose outcomes are due, since of later ones only the fast are known; when
    none is due, of all days.
    """
    age = {one.day: now - of_days(one.day, one.day, now.tzinfo or UTC).end for one in days}
    due = [one for one in days if one.lags and age[one.day] >= known_after] or [one for one in days if one.lags]
    counts: dict[int, int] = {}
    for one in due:
        for lag, rows in one.lags.items():
            counts[max(lag, 0) + 1] = counts.get(max(lag, 0) + 1, 0) + rows
    if not counts:
        return None

    def share(count: int) -> float | None:
        old = [one for one in days if age[one.day] >= timedelta(days=count)]
        # An outcome that does not say when it arrived says nothing about how long they take.
        rows = sum(one.rows - one.labelled + sum(one.lags.values()) for one in old)
        known = sum(n for one in old for lag, n in one.lags.items() if lag < count)
        return known / rows if rows else None

    slowest = max(counts)
    enough = next((n for n in sorted(counts) if (known := share(n)) is not None and known >= mature_at), None)
    shares = {count: share(count) for count in SHARES_AFTER}
    return Arrival(_within(counts, 0.5), _within(counts, 0.9), slowest, shares, enough)


def _within(counts: Mapping[int, int], part: float) -> int:
    """Return within how many days this part of the outcomes came."""
    total, seen = sum(counts.values()), 0
    for days in sorted(counts):
        seen += counts[days]
        if seen >= part * total:
            break
    return days
