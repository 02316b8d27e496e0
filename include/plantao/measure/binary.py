"""The metrics of a classifier with two classes, from the histogram of its score by decision and outcome.

Pure. The area under the ROC curve, average precision and calibration see the score through its 200 bins; all others
are those of the rows themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plantao.measure import ranking
from plantao.measure.figure import Figure, between_none_and_one, f1, mean, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from plantao.measure.tally import Numbers, Tally


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
    names = {decision for decisions in state["bins"].values() for decision in decisions}
    if len(names - {positive}) > 1:
        message = f"none of the decisions {', '.join(sorted(names))} is the positive class {positive}"
        raise ValueError(message)
    counts = [[0, 0], [0, 0]]
    for decisions in state["bins"].values():
        for decision, (negatives, positives, *_) in decisions.items():
            row = counts[decision == positive]
            row[0] += negatives
            row[1] += positives
    (tn, fn), (fp, tp) = counts
    return Confusion(tp, fp, fn, tn)


def histograms(state: Mapping[str, Any]) -> Numbers:
    """Return, as bins by four: negatives, positives, and the sum of the score of each; occupied bins, ascending."""
    rows = [
        [sum(column) for column in zip(*state["bins"][place].values(), strict=True)]
        for place in sorted(state["bins"], key=int)
    ]
    return np.array(rows, dtype=float).reshape(-1, 4)


def _accuracy(tally: Tally, positive: str) -> list[Figure]:
    found = confusion(tally.state, positive)
    return [share(found.true_positives + found.true_negatives, found.n)]


def _precision(tally: Tally, positive: str) -> list[Figure]:
    found = confusion(tally.state, positive)
    return [share(found.true_positives, found.true_positives + found.false_positives)]


def _recall(tally: Tally, positive: str) -> list[Figure]:
    found = confusion(tally.state, positive)
    return [share(found.true_positives, found.true_positives + found.false_negatives)]


def _f1(tally: Tally, positive: str) -> list[Figure]:
    found = confusion(tally.state, positive)
    return [f1(found.true_positives, found.false_positives + found.false_negatives)]


def _roc_auc(tally: Tally, _positive: str) -> list[Figure]:
    cells = histograms(tally.state)
    return [between_none_and_one(ranking.roc_auc(cells[:, 0], cells[:, 1]), tally.labelled)]


def _average_precision(tally: Tally, _positive: str) -> list[Figure]:
    cells = histograms(tally.state)
    return [between_none_and_one(ranking.average_precision(cells[:, 0], cells[:, 1]), tally.labelled)]


def _calibration(tally: Tally, _positive: str) -> list[Figure]:
    # Without an interval: a mean of distances is too large by chance alone, and more so the fewer rows there are.
    cells = histograms(tally.state)
    rows, scores = cells[:, 0] + cells[:, 1], cells[:, 2] + cells[:, 3]
    return [Figure(ranking.calibration(rows, cells[:, 1], scores), tally.labelled)]


METRICS: Mapping[str, Callable[[Tally, str], list[Figure]]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "log_loss": lambda tally, _: [mean(tally.state["sums"], "log_loss", tally.labelled, 0.0)],
    "brier": lambda tally, _: [mean(tally.state["sums"], "squared_error", tally.labelled, 0.0)],
    "calibration": _calibration,
    "bias": lambda tally, _: [mean(tally.state["sums"], "residual", tally.labelled)],
}
