"""The metrics of a classifier with two classes, from the histogram of its score by decision and outcome.

Pure. The area under the ROC curve, average precision and calibration see the score through its 200 bins; all others
are those of the rows themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from plantao.measure.metrics import ranking
from plantao.measure.metrics.metric import Figure, between_none_and_one, f1, mean, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from plantao.measure.outcomes.tally import Numbers, Tally


@dataclass(frozen=True)
class Confusion:
    """Labelled rows by the decision that was written (positive or not) and the outcome."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def n(self) -> int:
        """All of them."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives


def confusion(state: Mapping[str, Any], positive: str) -> Confusion:
    """Count the labelled rows of a state.

    Raises:
        ValueError: There are two decisions and neither is the positive class, so its name is written otherwise.
    """
    counts: dict[str, list[int]] = {}
    for decisions in state["bins"].values():
        for decision, (negatives, positives, *_) in decisions.items():
            row = counts.setdefault(decision, [0, 0])
            row[0] += negatives
            row[1] += positives
    fp, tp = counts.pop(positive, (0, 0))
    if len(counts) > 1:
        message = f"none of the decisions {', '.join(sorted(counts))} is the positive class {positive}"
        raise ValueError(message)
    tn, fn = next(iter(counts.values()), (0, 0))
    return Confusion(tp, fp, fn, tn)


def histograms(state: Mapping[str, Any]) -> Numbers:
    """Return, as bins by four: negatives, positives, and the sum of the score of each; occupied bins, ascending."""
    rows = []
    for place in sorted(state["bins"], key=int):
        decisions = list(state["bins"][place].values())
        rows.append(decisions[0] if len(decisions) == 1 else [sum(column) for column in zip(*decisions, strict=True)])
    return np.array(rows, dtype=float).reshape(-1, 4)


@dataclass(frozen=True)
class Counted:
    """A tally with what several metrics look at, counted once when the first of them asks."""

    tally: Tally
    positive: str

    @cached_property
    def confusion(self) -> Confusion:
        """The labelled rows by decision and outcome."""
        return confusion(self.tally.state, self.positive)

    @cached_property
    def cells(self) -> Numbers:
        """The histograms (see `histograms`)."""
        return histograms(self.tally.state)

    @property
    def n(self) -> int:
        """The labelled rows."""
        return self.tally.labelled

    def mean(self, name: str, floor: float = -math.inf) -> Figure:
        """Return the mean of what was summed under a name."""
        return mean(self.tally.state["sums"], name, self.n, floor)


def _accuracy(of: Counted) -> list[Figure]:
    found = of.confusion
    return [share(found.true_positives + found.true_negatives, found.n)]


def _precision(of: Counted) -> list[Figure]:
    return [share(of.confusion.true_positives, of.confusion.true_positives + of.confusion.false_positives)]


def _recall(of: Counted) -> list[Figure]:
    return [share(of.confusion.true_positives, of.confusion.true_positives + of.confusion.false_negatives)]


def _f1(of: Counted) -> list[Figure]:
    return [f1(of.confusion.true_positives, of.confusion.false_positives + of.confusion.false_negatives)]


def _roc_auc(of: Counted) -> list[Figure]:
    return [between_none_and_one(ranking.roc_auc(of.cells[:, 0], of.cells[:, 1]), of.n)]


def _average_precision(of: Counted) -> list[Figure]:
    return [between_none_and_one(ranking.average_precision(of.cells[:, 0], of.cells[:, 1]), of.n)]


def _calibration(of: Counted) -> list[Figure]:
    # Without an interval: a mean of distances is too large by chance alone, and more so the fewer rows there are.
    rows, scores = of.cells[:, 0] + of.cells[:, 1], of.cells[:, 2] + of.cells[:, 3]
    return [Figure(ranking.calibration(rows, of.cells[:, 1], scores), of.n)]


METRICS: Mapping[str, Callable[[Counted], list[Figure]]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "log_loss": lambda of: [of.mean("log_loss", 0.0)],
    "brier": lambda of: [of.mean("squared_error", 0.0)],
    "calibration": _calibration,
    "bias": lambda of: [of.mean("residual")],
}
