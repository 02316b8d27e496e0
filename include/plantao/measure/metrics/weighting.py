"""The metrics of a classifier from labelled rows that stand for others, each with its interval by linearisation.

Pure. They are those of `binary` and `classes`, on weights instead of counts; equal to them when all weights are one.
Brier sees the score through the mean of its bin, which is off by less than 0.00001.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from plantao.measure.metrics import ranking
from plantao.measure.metrics.interval import UNKNOWN, around, inside_one
from plantao.measure.metrics.metric import Figure
from plantao.measure.metrics.objective import NOT_POSITIVE
from plantao.measure.profile.bins import SCORE_BINS, label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plantao.measure.metrics.strata import Sample
    from plantao.measure.outcomes.tally import Kind, Label, Numbers


def _of_mean(sample: Sample, values: Numbers, *, is_share: bool = False, floor: float = -math.inf) -> Figure:
    value = sample.mean(values)
    error = sample.error(values - value)
    n = int(sample.count.sum())
    if is_share:
        return Figure(value, n, inside_one(value, error))
    return Figure(value, n, UNKNOWN if error is None else around(value, error, floor))


def _of_ratio(sample: Sample, part: Numbers, whole: Numbers) -> Figure:
    """Return the share that `part` has in `whole`."""
    size, n = sample.mean(whole), int(sample.count[whole > 0].sum())
    if size <= 0:
        return Figure(None, n)
    value = sample.mean(part) / size
    return Figure(value, n, inside_one(value, sample.error((part - value * whole) / size)))


def _truth(sample: Sample) -> Numbers:
    return np.array([outcome == "1" for outcome in sample.outcomes], dtype=float)


def _histogram(sample: Sample, values: Numbers) -> Numbers:
    """Return the sum of a value of each cell over all the rows that are stood for, by the bin of the score."""
    found = np.zeros(SCORE_BINS)
    np.add.at(found, sample.place, sample.weight * values)
    return found


def _chosen(sample: Sample, name: str) -> Numbers:
    return np.array([decision == name for decision in sample.decisions], dtype=float)


def _roc_auc(sample: Sample, _: str) -> Figure:
    truth, n = _truth(sample), int(sample.count.sum())
    found = ranking.placement(_histogram(sample, 1 - truth), _histogram(sample, truth))
    if found is None:
        return Figure(None, n)
    of_positives = (found.of_positives[sample.place] - found.auc) / sample.mean(truth)
    of_negatives = (found.of_negatives[sample.place] - found.auc) / sample.mean(1 - truth)
    return Figure(found.auc, n, inside_one(found.auc, sample.error(np.where(truth == 1, of_positives, of_negatives))))


def _average_precision(sample: Sample, _: str) -> Figure:
    # Without an interval: the weights leave no number of positives that its error could be taken from.
    truth = _truth(sample)
    found = ranking.average_precision(_histogram(sample, 1 - truth), _histogram(sample, truth))
    return Figure(None if found is None else found[0], int(sample.count.sum()))


def _calibration(sample: Sample, _: str) -> Figure:
    truth = _truth(sample)
    rows, positives, scores = (_histogram(sample, values) for values in (np.ones_like(truth), truth, sample.score))
    return Figure(ranking.calibration(rows, positives, scores), int(sample.count.sum()))


def _f1(sample: Sample, positive: str) -> Figure:
    truth, chosen = _truth(sample), _chosen(sample, positive)
    return _of_ratio(sample, 2 * truth * chosen, truth + chosen)


def _accuracy_of_classes(sample: Sample, _: str) -> Figure:
    pairs = zip(sample.decisions, sample.outcomes, strict=True)
    return _of_mean(sample, np.array([a == b for a, b in pairs], dtype=float), is_share=True)


def _macro(of: Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]) -> Callable[[Sample, str], Figure]:
    """Return the plain mean over the classes of a share, where it is defined; `of` gives its part and its whole."""

    def figure(sample: Sample, _: str) -> Figure:
        shares, influences = [], []
        for name in sorted({*sample.decisions, *sample.outcomes}):
            occurred = np.array([outcome == name for outcome in sample.outcomes], dtype=float)
            part, whole = of(_chosen(sample, name), occurred)
            size = sample.mean(whole)
            if size > 0:
                shares.append(sample.mean(part) / size)
                influences.append((part - shares[-1] * whole) / size)
        n = int(sample.count.sum())
        if not shares:
            return Figure(None, n)
        value = sum(shares) / len(shares)
        return Figure(value, n, inside_one(value, sample.error(np.mean(influences, axis=0))))

    return figure


def worth(sample: Sample, kind: Kind, positive: Label | None, values: Mapping[tuple[str, str], float]) -> Figure:
    """Return the mean value of a row, by what each pair of decision and outcome is worth."""
    if kind == "binary":
        name = label(positive)
        pairs = [
            (name if decision == name else NOT_POSITIVE, name if outcome == "1" else NOT_POSITIVE)
            for decision, outcome in zip(sample.decisions, sample.outcomes, strict=True)
        ]
    else:
        pairs = list(zip(sample.decisions, sample.outcomes, strict=True))
    return _of_mean(sample, np.array([values.get(pair, 0.0) for pair in pairs]))


WEIGHTED: Mapping[str, Mapping[str, Callable[[Sample, str], Figure]]] = {
    "binary": {
        "roc_auc": _roc_auc,
        "average_precision": _average_precision,
        "accuracy": lambda s, p: _of_mean(s, np.equal(_truth(s), _chosen(s, p)).astype(float), is_share=True),
        "precision": lambda s, p: _of_ratio(s, _truth(s) * _chosen(s, p), _chosen(s, p)),
        "recall": lambda s, p: _of_ratio(s, _truth(s) * _chosen(s, p), _truth(s)),
        "f1": _f1,
        "log_loss": lambda s, _: _of_mean(s, s.log_loss, floor=0.0),
        "brier": lambda s, _: _of_mean(s, (s.score - _truth(s)) ** 2, floor=0.0),
        "calibration": _calibration,
        "bias": lambda s, _: _of_mean(s, s.score - _truth(s)),
    },
    # What is counted by decision; the scores of several classes are not.
    "multiclass": {
        "accuracy": _accuracy_of_classes,
        "precision": _macro(lambda chosen, occurred: (chosen * occurred, chosen)),
        "recall": _macro(lambda chosen, occurred: (chosen * occurred, occurred)),
        "f1": _macro(lambda chosen, occurred: (2 * chosen * occurred, chosen + occurred)),
    },
}
