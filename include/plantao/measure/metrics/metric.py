"""One measurement of a period, as it is written into `plantao.metrics`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from plantao.extract.window import Window
    from plantao.ledger import Role
    from plantao.measure.metrics.quality import Measurement

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
