"""How far one set of counts is from another: the usual distances between two distributions.

Pure. The definitions are those of scipy, where it has them; a property test compares the two. Every function takes
counts in the same cells, at least one in each vector, and raises ValueError otherwise: what cannot be measured is
never a NaN.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from plantao.measure.profile.bins import Atoms, Counts

LEAST_RATIO = 1e-3
"""Below it chi-square over its degrees of freedom says that nothing differs, and its logarithm would have no end."""


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """Return the Jensen-Shannon distance with logarithms to the base 2, from 0 (equal) to 1 (nothing in common).

    It is the square root of the divergence, as `scipy.spatial.distance.jensenshannon(…, base=2)`.
    """
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    nats = _relative_entropy(p, middle) + _relative_entropy(q, middle)
    return math.sqrt(max(nats / math.log(2) / 2, 0.0))


def expected_jensen_shannon(cells: int, n_reference: float, n: float) -> float:
    """Return the Jensen-Shannon distance that chance alone gives two samples of one distribution.

    sqrt((cells - 1) (1/n_reference + 1/n) / (8 ln 2)), for cells that are not empty in both; at most 1. An asymptotic
    formula, from the chi-square distribution of the divergence: below about five rows per cell it is too high.
    """
    if n_reference <= 0 or n <= 0:
        message = "no rows to compare"
        raise ValueError(message)
    return min(math.sqrt(max(cells - 1, 0) * (1 / n_reference + 1 / n) / (8 * math.log(2))), 1.0)


def population_stability(reference: Counts, current: Counts) -> float:
    """Return the population stability index, sum of (q - p) ln(q / p), from 0 (equal) without an upper end.

    An empty cell would make it infinite: half a row is added to every cell of both, then the shares are taken
    (cells that are empty in both are left out first). Chance alone gives about (cells - 1)(1/n + 1/n_reference).
    """
    reference, current = _together(reference, current)
    p, q = _shares(reference + 0.5), _shares(current + 0.5)
    return float(((q - p) * np.log(q / p)).sum())


def wasserstein(reference: Atoms, current: Atoms, std: float) -> float:
    """Return the earth mover's distance between two distributions of numbers, in units of `std`.

    The area between the two distribution functions, as `scipy.stats.wasserstein_distance` with weights. With bin
    means for atoms and 20 bins of equal weight it is within 0.02 standard deviations of that between the rows.
    """
    if not (std > 0 and math.isfinite(std)):
        message = "a constant reference has no unit to measure in"
        raise ValueError(message)
    places = np.sort(np.concatenate((reference.values, current.values)))
    if not len(places) or not np.isfinite(places).all():
        message = "a bin mean is not a finite number"
        raise ValueError(message)
    gap = _cumulated(reference, places[:-1]) - _cumulated(current, places[:-1])
    return float((np.abs(gap) * np.diff(places)).sum()) / std


def chi_square(reference: Counts, current: Counts, least: float = 0.0) -> tuple[float, int]:
    """Return the two-sample chi-square statistic and its degrees of freedom, over the cells that are not empty in both.

    As `scipy.stats.chi2_contingency(…, correction=False)` of the table with the two rows. Expected counts below `least`
    are taken for `least` in the denominator.
    """
    table = np.stack(_together(reference, current))
    rows, columns = table.sum(axis=1, keepdims=True), table.sum(axis=0, keepdims=True)
    expected = rows * columns / rows.sum()
    return float(((table - expected) ** 2 / np.maximum(expected, least)).sum()), table.shape[1] - 1


def log_ratio(statistic: float, freedom: int) -> float:
    """Return D = ln(chi-square / degrees of freedom): about 0 by chance, whatever the number of rows and cells.

    Where nothing can differ (one cell), or nothing does, it is ln(LEAST_RATIO).
    """
    return math.log(max(statistic / freedom if freedom else 0.0, LEAST_RATIO))


def log_distance(reference: Counts, current: Counts) -> float:
    """Return D of two vectors of counts, with expected counts below one row taken for one.

    A reference has nothing outside its own range and nothing unseen, so no limit drawn from its days allows for it. Yet
    one day in 91 has a value above the largest of 90 days by chance alone, and that single row, expected 1/91 times,
    would add 90 to the statistic, four times as much as all the other cells. So it adds 1, and ten such rows add 100.
    """
    return log_ratio(*chi_square(reference, current, least=1.0))


def log_ratio_by_chance(freedom: int, share: float) -> float:
    """Return the D that rows drawn independently exceed with probability `share`.

    From the quantile of chi-square by Wilson and Hilferty (1931), within 3 % for shares of 0.1 % to 5 %.
    """
    width = 2 / (9 * freedom)
    return log_ratio(freedom * (1 - width + NormalDist().inv_cdf(1 - share) * math.sqrt(width)) ** 3, freedom)


def _shares(counts: Counts) -> Counts:
    total = counts.sum()
    if not (np.isfinite(total) and total > 0 and counts.min() >= 0):
        message = "counts are finite numbers from 0, and not all of them 0"
        raise ValueError(message)
    found: Counts = counts / total
    return found


def _together(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    """Leave out the cells that are empty in both."""
    if reference.shape != current.shape:
        message = f"{len(reference)} cells against {len(current)}"
        raise ValueError(message)
    _shares(reference), _shares(current)
    there = reference + current > 0
    return reference[there], current[there]


def _relative_entropy(p: Counts, q: Counts) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def _cumulated(atoms: Atoms, places: Counts) -> Counts:
    order = np.argsort(atoms.values)
    _shares(atoms.weights)  # refuses what are no counts
    # Counts are added up before they are divided: their sums are exact, where shares are rounded one by one.
    rows = np.concatenate(([0.0], atoms.weights[order].cumsum()))
    found: Counts = rows[np.searchsorted(atoms.values[order], places, side="right")] / rows[-1]
    return found
