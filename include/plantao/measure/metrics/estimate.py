"""What a metric is likely to be before any outcome is known, from the scores alone.

Pure. Confidence-based performance estimation (CBPE, as in NannyML 0.13; Bialek et al., arXiv:2505.05295): the score is
calibrated on the outcomes of the reference, and every metric gets the value that it has on average when outcomes fall
as the calibrated probabilities say. An estimate sees another mix of rows; it cannot see that the same rows now turn out
otherwise (concept drift), where even its sign can be wrong. It is shown beside the realized value and never pages.

Scores come as the day's histogram of 200 equal bins on [0, 1] and stand at the middle of their bin: ROC AUC is within
0.0035 of that of the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plantao.measure.profile.bins import Counts

BINS = 200
FEWEST_ROWS = 30
"""Rows below which an estimate is shown as not enough."""
NORMAL_95 = 1.959963984540054
BINARY = ("roc_auc", "average_precision", "accuracy", "precision", "recall", "f1", "brier", "log_loss")
MULTICLASS = ("accuracy", "precision", "recall", "f1", "roc_auc")
_MIDDLES = (np.arange(BINS) + 0.5) / BINS


@dataclass(frozen=True)
class Calibration:
    """How often the class was the right one, by bin of its score; fixed on the reference."""

    probability: Counts
    """[200], never falling."""
    step: np.ndarray[Any, np.dtype[np.intp]]
    """[200], which bins were found to have the same probability, because together they have."""
    rows: Counts
    """[200], the labelled rows that each bin's step rests on."""

    @classmethod
    def fitted(cls, counts: Mapping[str, Any]) -> Calibration:
        """Fit an isotonic regression to `{"n": [200], "positives": [200]}`, as stored in the reference's calibration.

        Always: on scores that were calibrated already it changes little, so no test for the need precedes it (such as
        whether the expected calibration error falls). Raises ValueError for counts of another form or without rows.
        """
        from sklearn.isotonic import IsotonicRegression

        n, positives = _histogram(counts["n"]), _histogram(counts["positives"])
        there = n > 0
        if not there.any() or (positives > n).any():
            message = "no labelled rows, or more positive ones than rows"
            raise ValueError(message)
        regression = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        regression.fit(_MIDDLES[there], positives[there] / n[there], sample_weight=n[there])
        probability = np.clip(np.asarray(regression.predict(_MIDDLES), dtype=float), 0, 1)
        step = np.unique(np.round(probability, 12), return_inverse=True)[1]
        # Between two steps lie empty bins, whose probability is drawn from both: they know what one row would.
        return cls(probability, step, np.maximum(np.bincount(step, n)[step], 1))


@dataclass(frozen=True)
class Estimate:
    """An estimated metric, with the 95 % interval in which the realized value falls if the calibration still holds."""

    value: float | None
    lower: float | None
    upper: float | None
    n: int
    status: Literal["ok", "not_enough", "no_rows", "undefined", "failed"]
    """not_enough: fewer than 30 rows. undefined: nothing to divide by, such as no row decided positive."""


@dataclass(frozen=True)
class _Rows:
    """The rows of some days by bin of their score, and whether the class was chosen: [chosen, not chosen] x 200."""

    counts: Counts
    calibration: Calibration

    @property
    def positives(self) -> Counts:
        return self.counts * self.calibration.probability

    @property
    def negatives(self) -> Counts:
        return self.counts * (1 - self.calibration.probability)

    def deviation(self, gradient: Counts) -> float:
        """Return the standard deviation of a metric over what the outcomes may turn out to be.

        `gradient` [2 x 200, or 200] is what the metric gains when one row turns out positive instead of negative (the
        delta method). To the chance of the outcomes, each Bernoulli(p), comes that of the calibration, which was learnt
        from a limited number of rows: an error of a step is shared by all of its bins.
        """
        p = self.calibration.probability
        by_chance = (self.counts * gradient**2 * p * (1 - p)).sum()
        steps = np.bincount(self.calibration.step, (self.counts * gradient).sum(axis=0))[self.calibration.step]
        bins = np.maximum(np.bincount(self.calibration.step)[self.calibration.step], 1)
        return math.sqrt(float(by_chance + (steps**2 * p * (1 - p) / self.calibration.rows / bins).sum()))


def estimate_binary(scores: Any, chosen: Any, calibration: Calibration) -> dict[str, Estimate]:
    """Return the estimates of a binary classifier's metrics, by name.

    `scores` [200] is the histogram of the positive class's score, `chosen` [200] the same over the rows that were
    decided positive. Losses are those of the raw score, as the realized ones are. Never raises for bad counts: every
    estimate has failed then.
    """
    try:
        rows = _rows(scores, chosen, calibration)
    except (TypeError, ValueError):
        return dict.fromkeys(BINARY, Estimate(None, None, None, 0, "failed"))
    n = int(rows.counts.sum())
    return {name: _estimate(n, *_ONE_CLASS[name](rows), name) for name in BINARY}


def estimate_multiclass(
    scores: Mapping[str, Any], chosen: Mapping[str, Any], calibrations: Mapping[str, Calibration]
) -> dict[str, Estimate]:
    """Return the estimates of a classifier's metrics over several classes, by name: accuracy, and means over classes.

    `scores` [200 per class] are the histograms of each class's probability over all rows, `chosen` the same over the
    rows decided for that class. A class that no row was decided for has precision and F1 of 0, as in scikit-learn; one
    without expected rows leaves recall and ROC AUC undefined. Probabilities are calibrated class by class and not
    made to add up to 1 again, because the histograms do not say which belong to one row. The interval of a mean takes
    the classes for fully dependent, and is wide rather than narrow.
    """
    try:
        every = {label: _rows(scores[label], chosen.get(label, [0] * BINS), calibrations[label]) for label in scores}
        totals = [int(rows.counts.sum()) for rows in every.values()]
        if not totals or min(totals) != max(totals):
            return dict.fromkeys(MULTICLASS, Estimate(None, None, None, max(totals, default=0), "failed"))
    except (KeyError, TypeError, ValueError):
        return dict.fromkeys(MULTICLASS, Estimate(None, None, None, 0, "failed"))
    n, classes = totals[0], list(every.values())
    found = {"accuracy": _estimate(n, *_right(classes, n), "accuracy")}
    for name in MULTICLASS[1:]:
        values, deviations = zip(*(_of_class(name, rows) for rows in classes), strict=True)
        whole = None if None in values else float(np.mean(values))
        found[name] = _estimate(n, whole, float(np.mean(deviations)), name)
    return found


def _of_class(name: str, rows: _Rows) -> tuple[float | None, float]:
    value, deviation = _ONE_CLASS[name](rows)
    return (0.0, 0.0) if value is None and name in {"precision", "f1"} else (value, deviation)


def _right(classes: list[_Rows], n: int) -> tuple[float | None, float]:
    if not n:
        return None, 0.0
    gradient = np.array([[1 / n], [0.0]]) * np.ones(BINS)
    deviations = [rows.deviation(gradient) for rows in classes]
    return sum(float(rows.positives[0].sum()) for rows in classes) / n, math.hypot(*deviations)


def _histogram(values: Any) -> Counts:
    found: Counts = np.asarray(values, dtype=float)
    if found.shape != (BINS,) or not np.isfinite(found).all() or found.min() < 0:
        message = f"a histogram is {BINS} finite numbers from 0"
        raise ValueError(message)
    return found


def _rows(scores: Any, chosen: Any, calibration: Calibration) -> _Rows:
    every, decided = _histogram(scores), _histogram(chosen)
    if (decided > every).any():
        message = "more rows decided than there are"
        raise ValueError(message)
    return _Rows(np.stack((decided, every - decided)), calibration)


def _estimate(n: int, value: float | None, deviation: float, name: str) -> Estimate:
    if n == 0:
        return Estimate(None, None, None, 0, "no_rows")
    if value is None:
        return Estimate(None, None, None, n, "undefined")
    highest = math.inf if name == "log_loss" else 1.0
    lower, upper = max(value - NORMAL_95 * deviation, 0.0), min(value + NORMAL_95 * deviation, highest)
    return Estimate(value, lower, upper, n, "ok" if n >= FEWEST_ROWS else "not_enough")


# Each takes rows and returns the value (None: undefined) and its standard deviation. ----------------------------------


def _mean_loss(rows: _Rows, if_positive: Counts, if_negative: Counts) -> tuple[float | None, float]:
    n = rows.counts.sum()
    if not n:
        return None, 0.0
    value = float((rows.positives * if_positive + rows.negatives * if_negative).sum() / n)
    return value, rows.deviation((if_positive - if_negative) / n * np.ones_like(rows.counts))


def _accuracy(rows: _Rows) -> tuple[float | None, float]:
    right = np.array([[1.0], [0.0]])
    return _mean_loss(rows, right, 1 - right)


def _brier(rows: _Rows) -> tuple[float | None, float]:
    return _mean_loss(rows, (1 - _MIDDLES) ** 2, _MIDDLES**2)


def _log_loss(rows: _Rows) -> tuple[float | None, float]:
    return _mean_loss(rows, -np.log(_MIDDLES), -np.log1p(-_MIDDLES))


def _precision(rows: _Rows) -> tuple[float | None, float]:
    decided = rows.counts[0].sum()
    if not decided:
        return None, 0.0
    return float(rows.positives[0].sum() / decided), rows.deviation(np.array([[1 / decided], [0.0]]) * np.ones(BINS))


def _recall(rows: _Rows) -> tuple[float | None, float]:
    positive = rows.positives.sum()
    if not positive:
        return None, 0.0
    value = float(rows.positives[0].sum() / positive)
    return value, rows.deviation(np.array([[(1 - value) / positive], [-value / positive]]) * np.ones(BINS))


def _f1(rows: _Rows) -> tuple[float | None, float]:
    # 2 TP / (2 TP + FP + FN); the denominator is the rows decided positive and those that are.
    denominator = rows.counts[0].sum() + rows.positives.sum()
    if not denominator:
        return None, 0.0
    value = float(2 * rows.positives[0].sum() / denominator)
    gradient = np.array([[(2 - value) / denominator], [-value / denominator]]) * np.ones(BINS)
    return value, rows.deviation(gradient)


def _roc_auc(rows: _Rows) -> tuple[float | None, float]:
    positives, negatives = rows.positives.sum(axis=0), rows.negatives.sum(axis=0)
    many, few = positives.sum(), negatives.sum()
    if not (many and few):
        return None, 0.0
    below = (negatives.cumsum() - negatives / 2) / few  # how many negatives a score outranks; a tie counts half
    above = (positives[::-1].cumsum()[::-1] - positives / 2) / many
    value = float((positives * below).sum() / many)
    gradient = (below - value) / many - (above - value) / few
    return value, rows.deviation(gradient * np.ones_like(rows.counts))


def _average_precision(rows: _Rows) -> tuple[float | None, float]:
    """Sum of the precision at each threshold times the recall it adds, thresholds from the highest score down."""
    positives, every = rows.positives.sum(axis=0)[::-1], rows.counts.sum(axis=0)[::-1]
    many = positives.sum()
    if not many:
        return None, 0.0
    found, seen = positives.cumsum(), np.maximum(every.cumsum(), 1)
    value = float((positives * found / seen).sum() / many)
    # A row that turns out positive adds its own threshold, and to the precision of every threshold below it.
    later = (positives / seen)[::-1].cumsum()[::-1]
    gradient = ((found / seen - value + later) / many)[::-1]
    return value, rows.deviation(gradient * np.ones_like(rows.counts))


_ONE_CLASS: dict[str, Callable[[_Rows], tuple[float | None, float]]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "brier": _brier,
    "log_loss": _log_loss,
}
