"""Is something broken? The checks of every run: what its rows looked like, against the days of the reference.

Pure. Each check is one of `plantao.config.job.CHECKS`. What comes in are sums, so a run, a day and a week are judged
alike. What cannot be judged is said to be so, and never takes the rest with it. Limits come from the worst day of the
reference, because days differ by far more than independent rows would.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from plantao.measure.detect.findings import (
    FROZEN,
    LOOK_AT,
    VARIED,
    Break,
    Column,
    Findings,
    NotJudged,
    fullest_cell,
    is_luck,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date

    from plantao.measure.detect.findings import Json


# Fewer rows say nothing about shares.
ROWS = 30
# Of a column with many nulls a day may set a record, too: beyond the worst day by a point, or a tenth of it if more.
NULLS_BEYOND_WORST_DAY, NULLS_BEYOND_WHOLE = 0.01, 0.05
UNSEEN, OUTSIDE_BEYOND_WORST_DAY = 0.01, 0.05
# A number column whose spread is less than this share of the reference's does not really vary.
HARDLY = 0.01
# And a constant shows a spread by the rounding of its sums alone.
ROUNDING = 1e-6
# Values outside the training range are far out on average by more than this share of a standard deviation, or they are
# most of the rows.
FAR, MOST = 0.5, 0.5
# In a small run one or two odd rows are a large share, and no fault.
FEWEST_ROWS = 3
# Days of the same weekday that a row count is held against: at least, and the newest of them.
SAME_WEEKDAYS, NEWEST = 4, 8
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _outside(state: Json) -> dict[str, int]:
    """Return how many values of a number column are below and above the training range, and not finite at all."""
    return {"below": state["counts"][0], "above": state["counts"][-1], "not_finite": state.get("other", 0)}


def findings(reference: Json, states: Mapping[str, Json], *, whole_day: bool = True) -> Findings:
    """Hold the merged state of a run against the reference, column by column, the score under the name ''.

    A run that does not cover whole local days is not asked whether a column is frozen: a time of day always is.
    """
    days = reference.get("days") or {}
    result = Findings(looked=True)
    for name, profile in (reference.get("columns") or {}).items():
        worst = (days.get("columns") or {}).get(name) or {}
        column = Column(name, states.get(name) or {}, profile, worst)
        for check, judge in COLUMN_CHECKS.items():
            if whole_day or check != "frozen_column":
                result.take(_judged(check, column, judge))
            else:
                result.take(NotJudged(check, name, "provisional", f"{name}: {check} is judged on whole days"))
    worst = days.get("score") or {}
    score = Column("", states.get("") or {}, reference.get("score") or {}, worst)
    result.take(_judged("score", score, score_break))
    return result


def _judged(
    check: str, column: Column, judge: Callable[[Column], Break | NotJudged | None]
) -> Break | NotJudged | None:
    """Make one check of one column; a state that makes no sense is a finding of its own and stops nothing."""
    shown = column.name or "score"
    if not column.state:
        return NotJudged(check, column.name, "undefined", f"{shown}: the run kept no counts")
    try:
        if column.rows >= ROWS:
            return judge(column)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"{shown}: {check} cannot be judged: {type(error).__name__}: {error}. Next: measure the day anew"
        return NotJudged(check, column.name, "failed", message)
    message = f"{shown}: {column.rows} rows are too few to judge; {ROWS} are enough"
    return NotJudged(check, column.name, "not_enough", message)


# --- the checks of a column ------------------------------------------------------------------------------------------


def _null_share(column: Column) -> Break | None:
    missing, rows = int(column.state["missing"]), column.rows
    profile = column.profile
    pooled = profile["missing"] / profile["rows"] if profile.get("rows") else 0.0
    if column.has_days:
        known = column.worst_share("missing_max")
        limit, than = known + max(NULLS_BEYOND_WORST_DAY, known / 10), "on the worst day of the reference"
    else:
        known, limit, than = pooled, pooled + NULLS_BEYOND_WHOLE, "in the reference"
    share = (profile.get("missing", 0) + 1) / (profile.get("rows", 0) + 2)
    if missing / rows <= limit or is_luck(missing, rows, share):
        return None
    seen = f"{missing / rows:.1%} of {rows} rows are missing; {known:.1%} were {than}, the limit is {limit:.1%}"
    return column.found("null_share", missing / rows, limit, seen)


def _unseen_share(column: Column) -> Break | None:
    unseen, rows = int(column.state.get("unseen", 0)), column.rows
    limit = max(UNSEEN, column.worst_share("unseen_max"))
    if unseen < FEWEST_ROWS or unseen / rows <= limit:
        return None
    seen = f"{unseen / rows:.1%} of {rows} rows have a value that training never saw; the limit is {limit:.1%}"
    return column.found("unseen_share", unseen / rows, limit, seen)


def _frozen_column(column: Column) -> Break | NotJudged | None:
    profile, cells = column.profile, list(column.state.get("counts", ()))
    reference = [*profile.get("values", {}).values(), profile.get("other", 0), *profile.get("counts", ())]
    if not sum(reference):
        if not profile.get("rows") or profile.get("missing", 0) < profile["rows"]:
            return None  # a point in time: its values are not counted
        message = f"{column.name}: the training frame had no value to compare with. Next: see whether it should have"
        return NotJudged("frozen_column", column.name, "undefined", message)
    # Values outside the range or never seen are the business of the other checks: one fault, one finding.
    inside = [*cells, column.state.get("other", 0)] if "unseen" in column.state else cells[1:-1]
    share = max(inside, default=0) / column.known if column.known else 0.0
    pooled, side = max(reference) / sum(reference), "the same or in the same bin"
    if share < FROZEN and _hardly_varies(column):
        # What was divided by a thousand lies on both sides of an edge when the edge is near nothing.
        share = max(map(sum, pairwise(inside)), default=0) / column.known
        pooled, side = (
            max(map(sum, pairwise(reference)), default=1) / sum(reference),
            "within a hundredth of the usual spread",
        )
    varied = max(pooled, column.worst_share("largest_cell_max"))
    if column.known < ROWS or share < FROZEN or varied >= VARIED:
        return None
    if is_luck(round(share * column.known), column.known, pooled):
        return None
    if not column.has_days and _is_constant(column, share):
        # A day of the week, or a rate that is set once a day, is the same in all rows of a day, and rightly so.
        message = (
            f"{column.name}: {share:.1%} of {column.known} values are {side}, and whether that is so every day nobody"
            " knows: the reference has too few days. Next: register the version with --timestamp, or rebase"
        )
        return NotJudged("frozen_column", column.name, "not_enough", message)
    seen = f"{share:.1%} of {column.known} values are {side}; at most {varied:.1%} were in the reference"
    return column.found("frozen_column", share, FROZEN, f"{seen}, the limit is {FROZEN:.0%}", column.known)


def _hardly_varies(column: Column) -> bool:
    """Tell whether the spread of a number column is less than a hundredth of the reference's."""
    return _spread_is_below(column, HARDLY)


def _is_constant(column: Column, share: float) -> bool:
    """Tell whether all values are the same, and do not only lie close together."""
    return share >= 1 and ("unseen" in column.state or _spread_is_below(column, ROUNDING))


def _spread_is_below(column: Column, part: float) -> bool:
    usual, finite = float(column.profile.get("std") or 0.0), sum(column.state.get("counts", ()))
    if "unseen" in column.state or not (usual > 0 and finite and "squares" in column.state):
        return False
    mean = sum(column.state["sums"]) / finite
    return bool(column.state["squares"] / finite - mean**2 < (part * usual) ** 2)


def _range(column: Column) -> Break | None:
    if "unseen" in column.state or len(column.state.get("counts", ())) < 2:
        return None
    rows, profile = column.rows, column.profile
    known = profile.get("rows", 0) - profile.get("missing", 0)
    odd = (known - sum(profile.get("counts", ()))) / known if known else 0.0
    worst = column.worst_share("outside_max")
    usual = {"below": worst, "above": worst, "not_finite": odd}
    sides = {side: count / rows for side, count in _outside(column.state).items() if count >= FEWEST_ROWS}
    limits = {side: usual[side] + OUTSIDE_BEYOND_WORST_DAY for side in sides}
    beyond = [side for side in sides if sides[side] > limits[side] and _is_far(column, side, sides[side])]
    if not beyond:
        return None
    side = max(beyond, key=lambda side: sides[side] - limits[side])
    edges = profile.get("edges") or [math.nan]
    words = {"below": f"below the training range, which starts at {edges[0]:g}"}
    words |= {"above": f"above the training range, which ends at {edges[-1]:g}", "not_finite": "not finite"}
    seen = f"{sides[side]:.1%} of {rows} values are {words[side]}; the limit is {limits[side]:.1%}"
    return column.found("range", sides[side], limits[side], seen)


def _is_far(column: Column, side: str, share: float) -> bool:
    """Tell whether the values on a side are far out, or most of the rows.

    Any day may set a record (the hottest of a year does, in a tenth of its rows), and then lies just outside.
    """
    sums, usual = column.state.get("sums"), float(column.profile.get("std") or 0.0)
    if side == "not_finite" or not sums or not usual or share > MOST:
        return True
    end = 0 if side == "below" else -1
    mean = column.profile["mean"] + sums[end] / column.state["counts"][end]
    return bool(abs(mean - column.profile["edges"][end]) > FAR * usual)


COLUMN_CHECKS: dict[str, Callable[[Column], Break | NotJudged | None]] = {
    "null_share": _null_share,
    "unseen_share": _unseen_share,
    "frozen_column": _frozen_column,
    "range": _range,
}


# --- the number of rows ----------------------------------------------------------------------------------------------


def row_count(day: date, rows: int, reference: Json, history: Mapping[date, int]) -> Break | NotJudged | None:
    """Hold the rows of a whole local day against the newest days of the same weekday, production before reference.

    Broken is less than half or more than twice the median, by more than the chance of a count allows (four times its
    root). `history` are the rows of earlier whole days; a frozen reference alone would call a growing business broken.
    """
    weekday = day.isoweekday()
    known = list(((reference.get("days") or {}).get("rows") or {}).get(str(weekday), ()))
    known += [count for other, count in sorted(history.items()) if other < day and other.isoweekday() == weekday]
    name = WEEKDAYS[weekday - 1]
    if len(known) < SAME_WEEKDAYS:
        message = (
            f"{day}: {rows} rows; {len(known)} earlier {name}s are too few to compare with, {SAME_WEEKDAYS} are enough"
        )
        return NotJudged("row_count", "", "not_enough", message)
    usual = float(median(known[-NEWEST:]))
    if abs(rows - usual) <= 4 * math.sqrt(max(usual, 1.0)) or usual / 2 <= rows <= usual * 2:
        return None
    limit, side = (usual / 2, "less than half of") if rows < usual else (usual * 2, "more than twice")
    seen = f"{day}: {rows} rows, {side} the {usual:g} of a usual {name}; the limit is {limit:g}"
    return Break("row_count", "", rows, limit, rows, f"{seen}. Next: {LOOK_AT['row_count']}")


def score_break(column: Column) -> Break | None:
    """Hold the score of a run against the reference's: a score that no longer varies, or cannot be, is a break."""
    state, profile, rows = column.state, column.profile, column.rows
    impossible = _impossible_scores(state, profile, rows)
    if impossible:
        seen = f"the score is impossible: {impossible}; the limit is none at all"
        return column.found("score", rows, 0, seen)
    parts = list(profile.get("classes", {"": profile}).values())
    pooled = min((max(p["counts"]) / sum(p["counts"]) for p in parts if sum(p.get("counts", ()))), default=1.0)
    varied = max(pooled, column.worst_share("largest_cell_max"))
    largest = fullest_cell(state)
    if largest is not None and varied < VARIED and largest[0] / rows >= FROZEN:
        if not is_luck(largest[0], rows, pooled):
            seen = (
                f"{largest[0] / rows:.1%} of {rows} scores are in one bin; at most {varied:.1%} were in the reference"
            )
            return column.found("score", largest[0] / rows, FROZEN, f"{seen}, the limit is {FROZEN:.0%}")
        return None
    usual = float(profile.get("std") or 0)
    if usual > 0 and "squares" in state and _spread(state, rows) < 1e-6 * usual:
        seen = f"all {rows} scores are the same; in the reference their standard deviation was {usual:.3g}"
        return column.found("score", 1.0, FROZEN, seen)
    return None


def _impossible_scores(state: Json, profile: Json, rows: int) -> str:
    """Return what no score can be, in words; empty when there is nothing."""
    sums = state.get("sum", 0.0) if "scores" in state else sum(state.get("sums", ()))
    if not (math.isfinite(sums) and math.isfinite(state.get("squares", 0.0))):
        return "not finite"
    for name, counts in state.get("scores", {"": state.get("counts", ())}).items():
        if len(counts) and sum(counts) != rows:
            return f"{rows - sum(counts)} of {rows} values{f' of {name}' if name else ''} are no number or out of range"
    mean = profile.get("mean")
    if "scores" in state and mean is not None and not -1e-9 <= mean + sums / rows <= 1 + 1e-9:
        return f"its mean is {mean + sums / rows:.4g}, and a probability lies between 0 and 1"
    return ""


def _spread(state: Json, rows: int) -> float:
    sums = state.get("sum", 0.0) if "scores" in state else sum(state.get("sums", ()))
    return math.sqrt(max(0.0, state["squares"] / rows - (sums / rows) ** 2))
