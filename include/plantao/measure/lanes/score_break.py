"""Is the score itself broken: constant, or not a score at all?

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from plantao.measure.lanes.finding import FROZEN, VARIED, Break, Column, fullest_cell, is_luck

if TYPE_CHECKING:
    from plantao.measure.lanes.finding import Json


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
