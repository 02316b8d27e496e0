"""The metrics of a model that predicts a number.

Pure. All are those of the rows themselves, but the quantiles of the error, which are known to 1 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from plantao.measure.metrics.interval import UNKNOWN, ranks_of_quantile
from plantao.measure.metrics.metric import Figure, mean
from plantao.measure.outcomes.tally import edges_of_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plantao.measure.outcomes.tally import Tally

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# A spread of the outcomes below this share of their mean square is nothing but rounding.
NO_SPREAD = 1e-12


def _rmse(tally: Tally) -> list[Figure]:
    squared = mean(tally.state["sums"], "squared_error", tally.labelled, 0.0)
    if squared.value is None:
        return [squared]
    lower, upper = (None if x is None else math.sqrt(x) for x in squared.interval)
    return [Figure(math.sqrt(squared.value), squared.n, (lower, upper))]


def _r2(tally: Tally) -> list[Figure]:
    # Without an interval: it would need the sum of the products of error and outcome. The spread loses as many digits
    # as the outcomes' mean square is larger than it.
    n = tally.labelled
    total, squares = tally.state["sums"]["outcome"]
    spread = squares - total * total / n
    if n < 2 or spread <= NO_SPREAD * squares:
        return [Figure(None, n)]
    return [Figure(1 - tally.state["sums"]["squared_error"][0] / spread, n)]


def _error_quantiles(tally: Tally) -> list[Figure]:
    errors = tally.state["errors"]
    bins = sorted(errors.items(), key=lambda item: -math.inf if item[0] == "zero" else int(item[0]))
    n = sum(errors.values())
    if not n:
        return [Figure(None, 0, UNKNOWN, name) for name in QUANTILES]
    found = []
    for name, quantile in QUANTILES.items():
        below, above = edges_of_error(_at_rank(bins, max(math.ceil(quantile * n), 1)))
        # The point of a bin that is at most 1 % from either edge.
        value = 2 * below * above / (below + above) if above else 0.0
        lower, upper = ranks_of_quantile(quantile, n)
        interval = (
            None if lower is None else edges_of_error(_at_rank(bins, lower))[0],
            None if upper is None else edges_of_error(_at_rank(bins, upper))[1],
        )
        found.append(Figure(value, n, interval, name))
    return found


def _at_rank(bins: Sequence[tuple[str, int]], rank: int) -> str:
    passed = 0
    for name, count in bins:
        passed += count
        if passed >= rank:
            return name
    message = f"there is no value of rank {rank} among {passed}"
    raise IndexError(message)


METRICS: Mapping[str, Callable[[Tally], list[Figure]]] = {
    "mae": lambda tally: [mean(tally.state["sums"], "absolute_error", tally.labelled, 0.0)],
    "rmse": _rmse,
    "bias": lambda tally: [mean(tally.state["sums"], "residual", tally.labelled)],
    "r2": _r2,
    "error_quantiles": _error_quantiles,
}
