"""What the decisions were worth to the business, by the owner's own table of values or the owner's own SQL.

Pure. The value of a decision is known where its outcome is; totals and means are over the labelled rows.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from plantao.measure.metrics.interval import UNKNOWN, of_mean, student
from plantao.measure.metrics.metric import Figure, Measurement
from plantao.measure.metrics.quality import judged, measured
from plantao.measure.profile.bins import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from plantao.config.job import Worth
    from plantao.measure.metrics.interval import Interval
    from plantao.measure.outcomes.tally import Label, Tally

BLOCKS = 20
FEWEST_BLOCKS = 10
SAME = 1e-9
Cell = tuple[str, str, int]
"""A decision, an outcome, and how many labelled rows had them."""
NOT_POSITIVE = "(not the positive class)"


def cells(state: Mapping[str, Any], positive: Label | None) -> list[Cell]:
    """Return the confusion counts of a classifier's state; two classes are told apart as the positive one and not."""
    if state["kind"] == "binary":
        name, found = label(positive), dict[tuple[str, str], int]()
        for decisions in state["bins"].values():
            for decision, (negatives, positives, *_) in decisions.items():
                chosen = name if decision == name else NOT_POSITIVE
                found[chosen, name] = found.get((chosen, name), 0) + positives
                found[chosen, NOT_POSITIVE] = found.get((chosen, NOT_POSITIVE), 0) + negatives
        return [(*pair, count) for pair, count in found.items()]
    return [(decision, outcome, n) for decision, row in state["confusion"].items() for outcome, n in row.items()]


def values_of(worths: Iterable[Worth], kind: str, positive: Label | None) -> dict[tuple[str, str], float]:
    """Return what each pair of decision and outcome is worth, under the names that `cells` gives them."""
    name = label(positive)

    def named(value: Label) -> str:
        return label(value) if kind != "binary" or label(value) == name else NOT_POSITIVE

    return {(named(one.prediction), named(one.outcome)): one.value for one in worths}


def measure_values(
    tally: Tally, worths: Sequence[Worth], positive: Label | None, mature: bool | None = None
) -> list[Measurement]:
    """Return `objective` (the total) and `objective_per_row` of a table of values; a pair not listed is worth 0.

    Both are exact for the labelled rows. Their intervals say what as many rows of the same kind could as well have
    brought: normal, with the variance that follows from the counts. Statuses as in `measure_tally`; for a regression,
    which has no classes to value, undefined.
    """
    names = ("objective", "objective_per_row")
    if not tally.rows or not tally.labelled:
        return [Measurement(name, None, None, None, 0, "no_labels" if tally.rows else "no_rows") for name in names]
    if tally.state.get("kind") == "regression":
        return [judged(name, Figure(None, tally.labelled), mature) for name in names]

    def valued(*, whole: bool) -> list[Figure]:
        n, total, squares = moments(cells(tally.state, positive), values_of(worths, tally.state["kind"], positive))
        lower, upper = (x if x is None or not whole else x * n for x in of_mean(total, squares, n))
        return [Figure(total if whole else total / n, n, (lower, upper))]

    return [
        *measured(names[0], lambda: valued(whole=True), tally, mature),
        *measured(names[1], lambda: valued(whole=False), tally, mature),
    ]


def moments(counts: Iterable[Cell], values: Mapping[tuple[str, str], float]) -> tuple[int, float, float]:
    """Return the number of rows, the sum of their values and the sum of the squares."""
    n, total, squares = 0, 0.0, 0.0
    for decision, outcome, count in counts:
        value = values.get((decision, outcome), 0.0)
        n, total, squares = n + count, total + count * value, squares + count * value * value
    return n, total, squares


@dataclass(frozen=True)
class Spread:
    """The interval of an aggregate from its values on blocks of rows, and what the aggregate was taken for."""

    interval: Interval
    taken_for: Literal["sum", "mean", "unknown"]


def from_blocks(total: float | None, blocks: Sequence[float | None]) -> Spread:
    """Return the interval of any aggregate from its values on disjoint blocks of about equally many rows.

    The rows have to fall into the blocks by a hash of their key, so that blocks differ by chance alone. When the blocks
    add up to the total it is a *sum*: its variance is the number of blocks times the variance between them, which also
    counts that the number of rows could have been another one. Otherwise it is taken for something *like a mean* (a
    share, a ratio, a median), each block estimating it from its part of the rows: the variance between the blocks over
    their number. A maximum or a distinct count is neither, and its interval means little. With Student's factor for so
    few blocks. A block without an answer counts 0 in a sum and is left out of a mean; *unknown*, without an interval,
    with fewer than 10 blocks that answer. Source: batch means, for instance Asmussen and Glynn 2007, section IV.5.
    """
    known = [value for value in blocks if value is not None and math.isfinite(value)]
    if total is None or not math.isfinite(total) or len(blocks) < FEWEST_BLOCKS or len(known) < 2:
        return Spread(UNKNOWN, "unknown")
    size = max(abs(total), math.fsum(map(abs, known)))
    if abs(math.fsum(known) - total) <= SAME * size:
        every = [*known, *[0.0] * (len(blocks) - len(known))]
        return Spread(_around(total, statistics.stdev(every) * math.sqrt(len(every)), len(every)), "sum")
    if len(known) < FEWEST_BLOCKS:
        return Spread(UNKNOWN, "unknown")
    return Spread(_around(total, statistics.stdev(known) / math.sqrt(len(known)), len(known)), "mean")


def measure_aggregate(
    total: float | None, blocks: Sequence[float | None], tally: Tally, mature: bool | None = None
) -> list[Measurement]:
    """Return `objective` of the owner's SQL and, where it is a sum, `objective_per_row`, over the labelled rows."""
    names = ("objective", "objective_per_row")
    if not tally.rows or not tally.labelled:
        return [Measurement(name, None, None, None, 0, "no_labels" if tally.rows else "no_rows") for name in names[:1]]
    n, spread = tally.labelled, from_blocks(total, blocks)
    found = [judged(names[0], Figure(total, n, spread.interval), mature)]
    if spread.taken_for == "sum" and total is not None:
        lower, upper = (None if x is None else x / n for x in spread.interval)
        found.append(judged(names[1], Figure(total / n, n, (lower, upper)), mature))
    return found


def _around(value: float, error: float, blocks: int) -> Interval:
    half = student(blocks - 1) * error
    return value - half, value + half
