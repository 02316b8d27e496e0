"""The metrics of a classifier with several classes: for each class against the others, and their plain mean (macro).

Pure. A mean is taken over the classes for which the metric is defined: precision where a class was decided, recall
where it occurred, F1 where either, the area under the ROC curve where it and another one occurred. A class that never
occurs on a day is shown as undefined and does not spoil the mean of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plantao.measure.metrics import ranking
from plantao.measure.metrics.interval import UNKNOWN, of_mean_of_shares
from plantao.measure.metrics.metric import Figure, between_none_and_one, f1, mean, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from plantao.measure.outcomes.tally import Tally


@dataclass(frozen=True)
class OfClass:
    """Labelled rows of one class against the others, by the decision that was written."""

    name: str
    hits: int
    decided: int
    occurred: int


def names_of(state: Mapping[str, Any]) -> list[str]:
    """Return the classes that a state knows of, in the order of their names."""
    outcomes = {name for row in state.get("confusion", {}).values() for name in row}
    return sorted({*state.get("bins", {}), *state.get("decided", {}), *state.get("confusion", {}), *outcomes})


def by_class(state: Mapping[str, Any]) -> list[OfClass]:
    """Count the labelled rows of each class."""
    table = state["confusion"]
    return [
        OfClass(
            name,
            table.get(name, {}).get(name, 0),
            sum(table.get(name, {}).values()),
            sum(row.get(name, 0) for row in table.values()),
        )
        for name in names_of(state)
    ]


def _accuracy(tally: Tally) -> list[Figure]:
    counts = by_class(tally.state)
    return [share(sum(one.hits for one in counts), sum(one.decided for one in counts))]


def _precision(tally: Tally) -> list[Figure]:
    return _with_mean_of_shares([(one.name, one.hits, one.decided) for one in by_class(tally.state)], tally)


def _recall(tally: Tally) -> list[Figure]:
    return _with_mean_of_shares([(one.name, one.hits, one.occurred) for one in by_class(tally.state)], tally)


def _with_mean_of_shares(counts: Sequence[tuple[str, int, int]], tally: Tally) -> list[Figure]:
    parts = [share(hits, n, name) for name, hits, n in counts]
    macro = _macro(parts, tally.labelled)
    # Given the sizes of the classes, their shares are independent of one another.
    interval = of_mean_of_shares([(hits, n) for _, hits, n in counts if n])
    return [Figure(macro.value, macro.n, interval), *parts]


def _f1(tally: Tally) -> list[Figure]:
    parts = [f1(one.hits, one.decided + one.occurred - 2 * one.hits, one.name) for one in by_class(tally.state)]
    return [_macro(parts, tally.labelled), *parts]


def _ranked(tally: Tally, metric: Callable[[Any, Any], tuple[float, float | None] | None]) -> list[Figure]:
    parts = []
    for name in names_of(tally.state):
        bins = tally.state["bins"].get(name, {})
        pairs = np.array([bins[place] for place in sorted(bins, key=int)], dtype=float).reshape(-1, 2)
        parts.append(between_none_and_one(metric(pairs[:, 0], pairs[:, 1]), tally.labelled, name))
    return [_macro(parts, tally.labelled), *parts]


def _macro(parts: Sequence[Figure], n: int) -> Figure:
    # Without an interval where the parts rest on the same rows, and so hang together.
    values = [part.value for part in parts if part.value is not None]
    return Figure(sum(values) / len(values) if values else None, n, UNKNOWN)


METRICS: Mapping[str, Callable[[Tally], list[Figure]]] = {
    "roc_auc": lambda tally: _ranked(tally, ranking.roc_auc),
    "average_precision": lambda tally: _ranked(tally, ranking.average_precision),
    "accuracy": _accuracy,
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "log_loss": lambda tally: [mean(tally.state["sums"], "log_loss", tally.labelled, 0.0)],
    "brier": lambda tally: [mean(tally.state["sums"], "squared_error", tally.labelled, 0.0)],
}
