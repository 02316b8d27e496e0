"""One measurement of a period, as it is written into `plantao.metrics`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from plantao.measure.metrics.interval import UNKNOWN, inside_one, of_mean, of_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from plantao.ledger.runs import Role
    from plantao.measure.metrics.interval import Interval
    from plantao.window import Window


Status = Literal["ok", "not_enough", "undefined", "failed", "no_rows", "no_labels", "provisional"]
Key = tuple[int, str, str, str, str, object, object]


@dataclass(frozen=True)
class Metric:
    """One measurement; `n` is the number of rows it rests on, `lower` and `upper` are a 95 % interval."""

    window: Window
    model_version: int
    name: str
    value: float | None
    n: int
    column: str = ""
    """The feature, class or quantile it is about."""
    segment: str = ""
    role: Role = "champion"
    lower: float | None = None
    upper: float | None = None
    maturity: float | None = None
    """The share of the predictions whose outcome is known."""
    status: Status = "ok"
    detectable: float | None = None
    """The smallest change that the rules find within a week."""

    @property
    def key(self) -> Key:
        """What makes two metrics measurements of the same thing."""
        return (
            self.model_version,
            self.role,
            self.name,
            self.column,
            self.segment,
            self.window.start,
            self.window.end,
        )


@dataclass(frozen=True)
class Where:
    """Of which predictions a figure is."""

    window: Window
    model_version: int
    role: Role
    segment: str = ""

    def metric(self, one: Measurement, maturity: float | None, detectable: float | None = None) -> Metric:
        """Return a measurement as a metric."""
        return Metric(
            self.window,
            self.model_version,
            one.name,
            one.value,
            one.n,
            one.column,
            self.segment,
            self.role,
            one.lower,
            one.upper,
            maturity,
            one.status,
            detectable,
        )


@dataclass(frozen=True)
class Measurement:
    """One metric of a period; `value`, `lower` and `upper` are finite or None."""

    name: str
    value: float | None
    lower: float | None
    upper: float | None
    n: int
    """The rows it rests on: for a share those that it is a share of."""
    status: Status
    column: str = ""
    """Of what it is a part: a class, or the quantile of an error."""


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
