"""A figure of one day, and what the figures of several days say together.

Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

NORMAL_95 = 1.959964
JUDGED = "ok"
FEWEST_OF_A_WEEK = 3
"""Days of seven that must be judged before they have a mean."""


@dataclass(frozen=True)
class Point:
    """A metric on one local day: its value, 95 % interval, the rows it rests on, and whether it may be judged."""

    day: date
    value: float | None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    status: str = JUDGED
    maturity: float | None = None

    @property
    def is_judged(self) -> bool:
        """Whether the value counts: anything but `ok` is shown and never part of a mean."""
        return self.status == JUDGED and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Mean:
    """The mean of some days, with its interval, the rows behind it and the days it is of."""

    value: float
    lower: float | None
    upper: float | None
    n: int
    days: int


def mean_of(points: Iterable[Point], *, by_rows: bool = True) -> Mean | None:
    """Return the mean of the judged days, weighted by their rows or each the same; None when no day is judged.

    The interval is the wider of two: what the intervals of the days give, and what the days' own spread gives. Days
    differ more than the rows in them do, and an interval that knows only of rows would promise too much.
    """
    judged = [point for point in points if point.is_judged]
    if not judged:
        return None
    values = [float(point.value or 0.0) for point in judged]
    weights = [float(max(point.n, 1)) if by_rows else 1.0 for point in judged]
    total = math.fsum(weights)
    value = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / total
    errors = [abs(p.upper - p.lower) / 2 / NORMAL_95 if p.upper is not None and p.lower is not None else None
              for p in judged]  # fmt: skip
    within = None
    if all(error is not None for error in errors):
        within = math.sqrt(math.fsum((w * (e or 0.0)) ** 2 for w, e in zip(weights, errors, strict=True))) / total
    between = stdev(values) / math.sqrt(len(values)) if len(values) >= FEWEST_OF_A_WEEK else None
    error = max((one for one in (within, between) if one is not None), default=None)
    half = None if error is None else NORMAL_95 * error
    rows = sum(point.n for point in judged)
    lower, upper = (None, None) if half is None else (value - half, value + half)
    return Mean(value, lower, upper, rows, len(judged))


def last_judged(points: Sequence[Point], days: int = 7) -> list[Point]:
    """Return the newest judged days, at most so many, oldest first."""
    return sorted((point for point in points if point.is_judged), key=lambda point: point.day)[-days:]


def week_means(points: Sequence[Point], *, by_rows: bool = True) -> list[tuple[date, float]]:
    """Return for each judged day the mean of the judged days among it and the six before, where these are enough."""
    judged = sorted((point for point in points if point.is_judged), key=lambda point: point.day)
    found = []
    for place, point in enumerate(judged):
        week = [one for one in judged[max(0, place - 6) : place + 1] if (point.day - one.day).days < 7]
        mean = mean_of(week, by_rows=by_rows) if len(week) >= FEWEST_OF_A_WEEK else None
        if mean is not None:
            found.append((point.day, mean.value))
    return found
