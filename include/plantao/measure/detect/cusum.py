"""Whether the model has become worse: daily values of a metric held against how much they differ by nature.

Pure. The limits come from the spread between the days of a frozen reference, never from a model of independent rows:
real days differ several times more than that. A departure is found by a CUSUM (Page 1954), which adds up small ones,
or by one day far out; an owner's own limit is judged beside it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np

from plantao.measure.detect.findings import REFERENCE_DAYS, Episode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from plantao.config.job import Degraded

Direction = Literal["worse_is_higher", "worse_is_lower", "two_sided"]
Word = Literal["degraded", "watch"]

# With fewer in a day, the AUC moves by a tenth for nothing, and a mean loss is one bad row.
LABELS = 30
# The share of a deviation that is allowed every day, and the sum beyond it that is not. Where one day follows the
# other (lag-1 autocorrelation above 0.2) small departures add up by nature, eight times as often; hence a higher limit.
ALLOWED = 0.5
LIMIT, LIMIT_OF_DEPENDENT_DAYS, DEPENDENT = 5.0, 8.0, 0.2
# A single day counts for at most this much in the sum, so that one outlier cannot open an episode through it ...
CLIP = 4.0
# ... but one day this far out opens it alone.
ONE_DAY = 4.5
# Of metrics that never differed between the reference's days; keeps a difference in the last digit from being infinite.
SMALLEST_SD = 1e-6
NO_ALARM = (
    f"no statistical alarm: how much the days of a reference differ is known from {REFERENCE_DAYS} of them on;"
    " the owner's own limits are still watched"
)

DIRECTIONS: Mapping[str, Direction] = {
    **dict.fromkeys(("log_loss", "brier", "calibration", "mae", "rmse"), "worse_is_higher"),
    **dict.fromkeys(("roc_auc", "average_precision", "accuracy", "precision", "recall", "f1"), "worse_is_lower"),
    **dict.fromkeys(("r2", "objective", "objective_per_row"), "worse_is_lower"),
    "bias": "two_sided",
}
# Their size has no natural unit, so that "2 % worse" is 2 % of the reference's value; the others are shares already.
LOSSES = frozenset({"log_loss", "brier", "mae", "rmse", "objective", "objective_per_row"})


@dataclass(frozen=True)
class DayValue:
    """A metric on one day of predictions: None where it is undefined; it rests on `n` labels."""

    day: date
    value: float | None
    n: int
    mature: bool = True

    @property
    def counts(self) -> bool:
        """Whether the day may be judged: mature, defined, and with enough labels."""
        return self.mature and self.n >= LABELS and self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True)
class Baseline:
    """How a metric's daily values were distributed over the reference: `n` is the usual number of labels a day."""

    mean: float
    sd: float
    days: int
    autocorrelation: float
    n: float = 0

    @property
    def limit(self) -> float:
        """The height at which the CUSUM opens an episode, in standard deviations of a day."""
        return LIMIT_OF_DEPENDENT_DAYS if self.autocorrelation > DEPENDENT else LIMIT

    def departure(self, day: DayValue) -> float:
        """Return how many standard deviations a day lies above the mean.

        A day with fewer labels than usual differs more for that reason alone. All of the spread is taken for
        sampling, which is more than it can be: such a day may be judged too mildly, never too harshly.
        """
        assert day.value is not None
        fewer = max(1.0, self.n / day.n) if day.n else 1.0
        return (day.value - self.mean) / (self.sd * math.sqrt(fewer))


@dataclass(frozen=True)
class Judgement:
    """The episodes of a metric in order of time: those that are worse, and those that are news and no alarm."""

    worse: tuple[Episode, ...] = ()
    improved: tuple[Episode, ...] = ()
    note: str = ""
    """Why nothing was judged; empty when it was."""


def reference_days(performance: Iterable[Mapping[str, object]], metric: str) -> list[DayValue]:
    """Return a metric's days from the reference profile's list of daily performance."""
    from datetime import date

    days = []
    for row in performance:
        value = row.get(metric)
        known = float(value) if isinstance(value, int | float) else None
        days.append(DayValue(date.fromisoformat(str(row["day"])), known, int(str(row["n"]))))
    return days


def baseline(days: Iterable[DayValue]) -> Baseline | None:
    """Return the spread between the days that count, None when they are fewer than 30."""
    usable = sorted((day for day in days if day.counts), key=lambda day: day.day)
    if len(usable) < REFERENCE_DAYS:
        return None
    values = np.array([day.value for day in usable], dtype=float)
    mean = float(values.mean())
    least = SMALLEST_SD * max(1.0, abs(mean))
    sd = float(values.std(ddof=1))
    around = values - mean
    power = float(around @ around)
    correlation = float(around[1:] @ around[:-1]) / power if sd > least else 0.0
    return Baseline(mean, max(sd, least), len(usable), correlation, median(day.n for day in usable))


def no_baseline(days: Iterable[DayValue]) -> str:
    """Return the sentence for a reference with too few days."""
    usable = sum(day.counts for day in days)
    return f"the reference has {usable} days with {LABELS} outcomes or more; {NO_ALARM}"


def episodes(days: Iterable[DayValue], base: Baseline | None, direction: Direction) -> Judgement:
    """Judge the production days of one model version against the reference.

    Days that are not mature, undefined or have fewer than 30 labels are passed over: they neither add nor forgive.
    The `worst` of an episode is in standard deviations of a reference day, one for the usual number of labels.
    An improvement is found by the same rule on the other side, except for a metric that is two-sided.
    """
    if base is None:
        return Judgement(note=NO_ALARM)
    usable = sorted((day for day in days if day.counts), key=lambda day: day.day)
    up, down = _one_side(usable, base, 1), _one_side(usable, base, -1)
    if direction == "two_sided":
        return Judgement(tuple(sorted([*up, *down], key=lambda episode: episode.opened)))
    return Judgement(tuple(up), tuple(down)) if direction == "worse_is_higher" else Judgement(tuple(down), tuple(up))


def _one_side(days: Sequence[DayValue], base: Baseline, sign: int) -> list[Episode]:
    """Return the episodes on one side of the mean.

    The sum is held at the limit while an episode is open, and the episode is over when it is back at zero: about
    ten ordinary days, however bad it was. Closing on the first good day would let a lasting fault of one standard
    deviation open and close again and again.
    """
    found: list[_Open] = []
    total, since, current = 0.0, None, None
    for day in days:
        z = sign * base.departure(day)
        total = max(0.0, total + max(-CLIP, min(CLIP, z)) - ALLOWED)
        since = (since or day.day) if total > 0 else None
        if current is None and (total > base.limit or z > ONE_DAY):
            current = _Open(day.day, _reason(sign * z, total, since or day.day, base))
            found.append(current)
        if current is None:
            continue
        current.see(day.day, z)
        total = min(total, base.limit)
        if total == 0:
            current.closed, current = day.day, None
    return [one.episode for one in found]


def _reason(departure: float, total: float, since: date, base: Baseline) -> str:
    side = "above" if departure > 0 else "below"
    mean = f"the reference's mean {base.mean:.4g}"
    if abs(departure) > ONE_DAY:
        return f"one day {abs(departure):.1f} standard deviations {side} {mean}; the limit is {ONE_DAY:g}"
    return (
        f"the days since {since} lie {side} {mean}: beyond {ALLOWED:g} a day they add up to {total:.1f} standard"
        f" deviations; the limit is {base.limit:g}"
    )


@dataclass
class _Open:
    """An episode while it is being followed; how bad it is only ever grows."""

    opened: date
    reason: str
    worst: float = -math.inf
    worst_day: date | None = None
    closed: date | None = None

    def see(self, day: date, worse: float) -> None:
        if worse > self.worst:
            self.worst, self.worst_day = worse, day

    @property
    def episode(self) -> Episode:
        return Episode(self.opened, self.closed, self.worst, self.worst_day or self.opened, self.reason)


def limit_episodes(limit: Degraded, days: Iterable[DayValue]) -> list[Episode]:
    """Return the episodes of an owner's own limit: the metric beyond it on `runs` of the last `of` days that count.

    The `worst` of an episode is how far beyond the limit the metric was, in its own unit.
    Without `of` the days must follow one another. It is over when fewer than `runs` of the last `of` days are beyond.
    """
    span = max(limit.of or limit.runs, limit.runs)
    last: deque[bool] = deque(maxlen=span)
    found: list[_Open] = []
    current: _Open | None = None
    for day in sorted((day for day in days if day.counts), key=lambda day: day.day):
        beyond = _beyond(limit, day)
        last.append(beyond > 0)
        if sum(last) >= limit.runs:
            if current is None:
                current = _Open(day.day, _limit_reason(limit, span))
                found.append(current)
            current.see(day.day, beyond)
        elif current is not None:
            current.closed, current = day.day, None
    return [one.episode for one in found]


def _beyond(limit: Degraded, day: DayValue) -> float:
    """Return by how much a day is beyond the limit; negative or zero within it."""
    assert day.value is not None
    sides = []
    if limit.below is not None:
        sides.append(limit.below - day.value)
    if limit.above is not None:
        sides.append(day.value - limit.above)
    return max(sides, default=-math.inf)


def _limit_reason(limit: Degraded, span: int) -> str:
    sides = [("below", limit.below), ("above", limit.above)]
    named = " or ".join(f"{side} {value:g}" for side, value in sides if value is not None)
    days = f"{limit.runs} of the last {span} days" if span > 1 else "a day"
    return f"{limit.metric} was {named} on {days}, which is the owner's limit"


def effect_margin(metric: str, margin: float, base: Baseline, size: float | None = None) -> float:
    """Return the owner's margin in the unit of the metric.

    It is a share of the reference's value for a loss and absolute for a metric that is itself a share (AUC, accuracy).
    `size` is what the margin is a share of where the reference's value is near zero by nature: for the bias of a
    regression the mean absolute error.
    """
    if size is not None:
        return margin * abs(size)
    return margin * abs(base.mean) if metric in LOSSES else margin


def word(episode: Episode, seven_day_value: float | None, base: Baseline, margin: float, direction: Direction) -> Word:
    """Return *degraded* when the merged value of the last 7 mature days is worse by the margin, else *watch*.

    `margin` is in the unit of the metric (see `effect_margin`). Without a value of 7 days the worst day speaks.
    """
    if seven_day_value is None:
        return "degraded" if episode.worst * base.sd >= margin else "watch"
    difference = seven_day_value - base.mean
    worse = {"worse_is_higher": difference, "worse_is_lower": -difference, "two_sided": abs(difference)}[direction]
    return "degraded" if worse >= margin else "watch"


def detectable(base: Baseline, days: int = 7) -> float:
    """Return the smallest lasting change that the CUSUM finds within so many days on average, in the metric's unit.

    Each day adds the change less the allowance, until the limit is reached: (k + h / days) standard deviations.
    """
    return (ALLOWED + base.limit / days) * base.sd


def overdispersion(shares: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return how many times more the daily shares differ than independent rows would: Laney's sigma z (2002).

    From the mean moving range of the standardised shares, over 1.128. About 1: rows are independent. None when there
    are fewer than two days or no variation is possible.
    """
    share, count = np.asarray(shares, dtype=float), np.asarray(counts, dtype=float)
    known = np.isfinite(share) & (count > 0)
    share, count = share[known], count[known]
    if len(share) < 2:
        return None
    mean = float((share * count).sum() / count.sum())
    if not 0 < mean < 1:
        return None
    z = (share - mean) / np.sqrt(mean * (1 - mean) / count)
    return float(np.abs(np.diff(z)).mean() / 1.128)
