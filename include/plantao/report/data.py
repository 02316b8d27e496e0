"""All that a report is made from, as it was read; and what follows from it, without a database and without a clock.

Pure.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from plantao.measure.detect.cusum import overdispersion, reference_days
from plantao.measure.detect.findings import REFERENCE_DAYS
from plantao.report.chart.words import metric_name
from plantao.report.label_delay import arrival
from plantao.report.point import JUDGED, Mean, Point, last_judged, mean_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from plantao.report.chart.words import Language
    from plantao.report.label_delay import Arrival, Arrived

# Figures of a column of the input, or with an empty column of the score; all others tell how good the model is.
OF_COLUMNS = frozenset(
    {
        *("null_share", "unseen_share", "outside_share", "drift", "drift_limit"),
        *("jensen_shannon", "jensen_shannon_expected", "wasserstein", "population_stability"),
    }
)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration", "mae", "rmse"})
MAIN = ("roc_auc", "log_loss", "mae", "rmse", "accuracy", "brier", "f1", "average_precision", "precision", "recall")
# A sum over a day is not to be weighted by the rows of the day.
SUMS_OF_A_DAY = frozenset({"objective", "rows", "late_rows"})
# Of words for incidents, the gravest first.
GRAVITY = {"broken": 0, "degraded": 1, "missing": 2, "watch": 3, "drifting": 4, "improved": 5}
RECENT = 28
SEGMENT_LABELS = 100
"""Labels that a segment needs over its days before it is listed among the worst."""


@dataclass(frozen=True)
class Figure:
    """A row of `plantao.metrics_latest` about one local day."""

    name: str
    point: Point
    column: str = ""
    segment: str = ""
    detectable: float | None = None
    version: int = 0


@dataclass(frozen=True)
class Incident:
    """A row of `plantao.incidents`."""

    lane: str
    word: str
    message: str
    since: date
    opened_at: datetime
    closed_at: datetime | None = None
    version: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    until: date | None = None
    """The day of the data that closed it; None while it is open, and where the condition is one of the clock."""

    @property
    def is_open(self) -> bool:
        """Whether it still holds."""
        return self.closed_at is None

    @property
    def last_day(self) -> date | None:
        """The day on which it closed: of the data, else by the clock; None while it is open."""
        return self.until if self.until is not None or self.closed_at is None else self.closed_at.date()


@dataclass(frozen=True)
class Version:
    """An entry of `plantao.model_timeline`, by its first local day."""

    day: date
    version: int
    who: str
    why: str


@dataclass(frozen=True)
class Run:
    """What became of a window of the job, by its first local day."""

    day: date
    scored: int
    rejected: int
    failed: bool


@dataclass(frozen=True)
class Unjudged:
    """A check of runs that could not be made, of how many days, and why."""

    check: str
    column: str
    status: str
    days: int


@dataclass(frozen=True)
class ReportData:
    """A job, a period of it (both days included), and what was recorded about it.

    `score_state` and `outcome_state` are the sums over the last 28 days of the period that have any.
    """

    job: str
    description: str
    first: date
    last: date
    now: datetime
    figures: Sequence[Figure] = ()
    incidents: Sequence[Incident] = ()
    versions: Sequence[Version] = ()
    runs: Sequence[Run] = ()
    score_state: Mapping[str, Any] = field(default_factory=dict)
    outcome_state: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    version: int | None = None
    reference_version: int | None = None
    objective: str = ""
    metrics: Sequence[str] = ()
    """The metrics that the job names, the most important first."""
    segments: Sequence[str] = ()
    control_share: float = 0.0
    arrived: Sequence[Arrived] = ()
    """When the outcomes of each day came, where the job says when that was."""
    known_after: timedelta = timedelta(days=1)
    mature_at: float = 0.8
    unjudged: Sequence[Unjudged] = ()
    """Checks of the runs that could not be made."""
    language: Language = "en"

    @property
    def days(self) -> list[date]:
        """Every day of the period, oldest first."""
        return [self.first + timedelta(days=count) for count in range((self.last - self.first).days + 1)]

    @property
    def main_metric(self) -> str | None:
        """The first metric that the job names, or the most usual one that was measured; None when there is none."""
        measured = {figure.name for figure in self.figures if not figure.segment}
        return next((name for name in (*self.metrics, *MAIN) if name in measured), None)

    def points(self, name: str, column: str = "", segment: str = "") -> list[Point]:
        """Return the days of a metric, oldest first."""
        wanted = (name, column, segment)
        found = [figure.point for figure in self.figures if (figure.name, figure.column, figure.segment) == wanted]
        return sorted(found, key=lambda point: point.day)

    def detectable(self, name: str, column: str = "") -> float | None:
        """Return the newest smallest detectable change of a metric."""
        known = [
            figure
            for figure in self.figures
            if (figure.name, figure.column, figure.segment) == (name, column, "") and figure.detectable is not None
        ]
        return max(known, key=lambda figure: figure.point.day).detectable if known else None

    def title_of(self, name: str) -> str:
        """Return a metric as people call it, with a capital; the objective by the name that the job gives it."""
        title = metric_name(name, self.language)
        if name.startswith("objective") and self.objective:
            title = f"{self.objective.replace('_', ' ')} {title.rpartition(', ')[2]}"
        return title[:1].upper() + title[1:]

    def reference_mean(self, name: str) -> float | None:
        """Return the mean of a metric over the days of the reference."""
        days = self.reference.get("days") or {}
        values = [day.get(name) for day in days.get("performance") or ()]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return sum(known) / len(known) if known else None


def overdispersion_of(data: ReportData) -> float | None:
    """Return how many times more the reference's days differ than independent rows would, told by the accuracy.

    None for a regression, and with too few days to know how much they differ.
    """
    days = reference_days((data.reference.get("days") or {}).get("performance") or (), "accuracy")
    counted = [(day.value, day.n) for day in days if day.counts and day.value is not None]
    if len(counted) < REFERENCE_DAYS:
        return None
    return overdispersion([value for value, _ in counted], [n for _, n in counted])


def arrival_of(data: ReportData) -> Arrival | None:
    """Return how the outcomes of the period arrive; None when that is not known."""
    return arrival(data.arrived, data.known_after, data.mature_at, data.now)


def kpis(data: ReportData) -> list[tuple[str, str]]:
    """Return the metrics of all rows, each with its class or an empty text, the most important first."""
    found = {(f.name, f.column) for f in data.figures if not f.segment and f.name not in OF_COLUMNS}
    columns = data.reference.get("columns") or {}
    found = {(name, column) for name, column in found if column not in columns and not is_of_effect(name)}
    order = ["objective", "objective_per_row", *data.metrics, *MAIN, "bias", "calibration"]
    last = ["mean_score", "rows", "late_rows", "rejected_share", "label_coverage"]

    def rank(key: tuple[str, str]) -> tuple[int, str, int, str]:
        name, column = key
        plain = name.removeprefix("estimated_")
        place = order.index(plain) if plain in order else 200 + last.index(plain) if plain in last else 100
        return place, plain, int(name != plain), column

    return sorted(found, key=rank)


def is_of_effect(name: str) -> bool:
    """Tell whether a metric is about what the system changes: of the control group, of the others, or between them."""
    return name == "effect" or name.endswith(("_control", "_treated", "_weighted", "_effect"))


def week_of(data: ReportData, name: str, column: str = "", segment: str = "") -> Mean | None:
    """Return a metric over its last 7 judged days."""
    return mean_of(last_judged(data.points(name, column, segment)), by_rows=name not in SUMS_OF_A_DAY)


def statuses(points: Iterable[Point]) -> dict[str, int]:
    """Return how many days have each status, the most first."""
    counts: dict[str, int] = defaultdict(int)
    for point in points:
        counts[point.status] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def status_of(points: Sequence[Point]) -> str:
    """Return the status of the newest day whose outcomes have arrived, for the newest days of all never have theirs.

    When none has, that of the newest day; `no_rows` without any.
    """
    mature = [point for point in points if point.status not in {"provisional", "no_labels"}]
    return (mature or list(points))[-1].status if points else "no_rows"


def estimate_error(data: ReportData, name: str) -> tuple[float, float] | None:
    """Return by how much the estimates of a metric were too high, on average and without the sign.

    Over the last 28 days with both, estimated and real; None without such days.
    """
    real = {point.day: point.value for point in last_judged(data.points(name), RECENT)}
    estimated = {point.day: point.value for point in data.points(f"estimated_{name}") if point.is_judged}
    pairs = [(estimated.get(day), value) for day, value in real.items()]
    errors = [before - after for before, after in pairs if before is not None and after is not None]
    return (sum(errors) / len(errors), sum(map(abs, errors)) / len(errors)) if errors else None


# --- segments --------------------------------------------------------------------------------------------------------


def segment_means(data: ReportData, name: str) -> dict[str, tuple[Mean | None, Mean | None, int]]:
    """Return for each segment (empty: all rows) the mean of the last 28 days, that of the 28 before, and the labels.

    A day of a segment with few labels is no day to judge, but 28 of them together may be: so days that only have too
    few labels count here. A segment with fewer than 100 labels has no mean.
    """
    by_segment: dict[str, list[Point]] = defaultdict(list)
    for figure in data.figures:
        if figure.name == name and not figure.column and not figure.segment.startswith("@"):
            by_segment[figure.segment].append(figure.point)
    last = max((p.day for p in by_segment.get("", []) if p.is_judged), default=data.last)
    found = {}
    for segment, points in by_segment.items():
        usable = [
            Point(p.day, p.value, p.lower, p.upper, p.n) for p in points if p.is_judged or p.status == "not_enough"
        ]
        now = [p for p in usable if 0 <= (last - p.day).days < RECENT]
        before = [p for p in usable if RECENT <= (last - p.day).days < 2 * RECENT]
        labels = sum(p.n for p in now)
        means = [mean_of(some) if sum(p.n for p in some) >= SEGMENT_LABELS else None for some in (now, before)]
        found[segment] = (means[0], means[1], labels)
    return found


def worst_first(data: ReportData, name: str) -> list[str]:
    """Return the segments that can be judged, the worst first: far from zero for a bias, high for a loss, else low."""
    means = {segment: mean.value for segment, (mean, _, _) in segment_means(data, name).items() if segment and mean}
    if name == "bias":
        return sorted(means, key=lambda segment: -abs(means[segment]))
    sign = -1 if name in LOWER_IS_BETTER else 1
    return sorted(means, key=lambda segment: sign * means[segment])


# --- columns ---------------------------------------------------------------------------------------------------------


FARTHEST = 12.0
"""What the difference of two logarithms is cut to, so that its power stays a number that can be drawn."""


def over_limits(data: ReportData, column: str) -> list[Point]:
    """Return for each day how far a column was from the reference, over the farthest that the reference's days were.

    Both are chi-square over its degrees of freedom, whose logarithms are measured as `drift` and `drift_limit`; so 2 is
    twice as far as ever before. A day without one of the two has no value and keeps the status that says why.
    """
    limits = {point.day: point.value for point in data.points("drift_limit", column)}
    measured = {point.day: point for point in data.points("drift", column)}
    found = []
    for day, point in sorted({**{p.day: p for p in data.points("jensen_shannon", column)}, **measured}.items()):
        away, limit = measured[day].value if day in measured else None, limits.get(day)
        if away is None or limit is None or not point.is_judged:
            status = "not_enough" if point.status == JUDGED else point.status
            found.append(Point(day, None, n=point.n, status=status))
        else:
            found.append(Point(day, math.exp(max(-FARTHEST, min(FARTHEST, away - limit))), n=point.n))
    return found


def columns_by_importance(data: ReportData) -> list[str]:
    """Return the score (empty) and the columns, those that go most strongly with the score first."""
    profiles = data.reference.get("columns") or {}
    seen = {f.column for f in data.figures if f.name in OF_COLUMNS and not f.segment}
    return sorted(seen | set(profiles), key=lambda c: (c != "", -(profiles.get(c, {}).get("link") or 0.0), c))


# --- sums of days ----------------------------------------------------------------------------------------------------


def merged_bins(counts: Sequence[float], into: int) -> list[float]:
    """Return neighbouring bins added together, so that `into` are left; the number of bins must be a multiple."""
    size = len(counts) // into
    return [sum(counts[place * size : (place + 1) * size]) for place in range(into)]
