"""What a metric gives before it is judged: a value, the rows it rests on, and its interval.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plantao.measure.metrics.interval import UNKNOWN, inside_one, of_mean, of_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.measure.metrics.interval import Interval


@dataclass(frozen=True)
class Figure:
    """A value, None where it is not defined."""

    value: float | None
    n: int
    interval: Interval = UNKNOWN
    column: str = ""


def share(hits: int, n: int, column: str = "") -> Figure:
    """Return a share with Wilson's interval; not defined of nothing."""
    return Figure(hits / n if n else None, n, of_share(hits, n), column)


def f1(hits: int, wrong: int, column: str = "") -> Figure:
    """Return F1 from the true positives and the two kinds of mistake together; not defined without either.

    Its interval is that of the share hits / (hits + wrong), which F1 is a rising function of.
    """
    of_union = share(hits, hits + wrong, column)
    if of_union.value is None:
        return of_union
    lower, upper = (None if x is None else 2 * x / (1 + x) for x in of_union.interval)
    return Figure(2 * hits / (2 * hits + wrong), of_union.n, (lower, upper), column)


def mean(sums: Mapping[str, Sequence[float]], name: str, n: int, floor: float = float("-inf")) -> Figure:
    """Return the mean of what was summed under a name as [sum, sum of squares], with its normal interval."""
    total, squares = sums[name]
    return Figure(total / n if n else None, n, of_mean(total, squares, n, floor) if n else UNKNOWN)


def between_none_and_one(found: tuple[float, float | None] | None, n: int, column: str = "") -> Figure:
    """Return a value with an interval that stays between 0 and 1; not defined when nothing was found."""
    return Figure(None, n, UNKNOWN, column) if found is None else Figure(found[0], n, inside_one(*found), column)
