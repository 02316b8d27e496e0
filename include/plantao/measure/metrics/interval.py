"""How far chance alone may have moved a figure: intervals that cover the truth 95 times in 100.

Pure. Each takes counts and sums, never rows, and answers (None, None) where it cannot say anything honest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Interval = tuple[float | None, float | None]
Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""
UNKNOWN: Interval = (None, None)


def of_share(hits: float, n: float) -> Interval:
    """Return Wilson's interval of a share of `n` rows; it is honest at 0 and 1, too.

    Source: Wilson 1927, JASA 22; recommended by Brown, Cai and DasGupta 2001, Statistical Science 16.
    """
    if n <= 0:
        return UNKNOWN
    share, spread = hits / n, Z * Z / n
    middle = share + spread / 2
    half = Z * math.sqrt(max(share * (1 - share) / n + spread / n / 4, 0.0))
    # At none and all, the limits are 0 and 1; rounding must not put them on the wrong side of the share.
    return (
        min(max((middle - half) / (1 + spread), 0.0), share),
        max(min((middle + half) / (1 + spread), 1.0), share),
    )


def of_mean(total: float, squares: float, n: int, floor: float = -math.inf) -> Interval:
    """Return the normal interval of a mean from the sum and the sum of squares of `n` values.

    `floor` is the smallest value that the mean can have.
    """
    error = error_of_mean(total, squares, n)
    return UNKNOWN if error is None else around(total / n, error, floor)


def error_of_mean(total: float, squares: float, n: int) -> float | None:
    """Return the standard error of a mean, None for fewer than two values."""
    if n < 2:
        return None
    variance = max(squares - total * total / n, 0.0) / (n - 1)
    return math.sqrt(variance / n)


def around(value: float, error: float, floor: float = -math.inf, ceiling: float = math.inf) -> Interval:
    """Return the normal interval around a value, inside what the value can be."""
    return max(value - Z * error, floor), min(value + Z * error, ceiling)


def inside_one(value: float, error: float | None) -> Interval:
    """Return the interval of a figure between 0 and 1, normal on the scale of its logit.

    At exactly 0 or 1, or without a spread, the counts say nothing about it. Source: Pepe 2003, The Statistical
    Evaluation of Medical Tests, section 5.2; for average precision: Boyd, Eng and Page 2013, ECML PKDD.
    """
    if error is None or error <= 0 or not 0 < value < 1:
        return UNKNOWN
    middle, half = math.log(value / (1 - value)), Z * error / (value * (1 - value))
    return _expit(middle - half), _expit(middle + half)


def of_mean_of_shares(shares: Sequence[tuple[float, float]]) -> Interval:
    """Return the interval of the plain mean of independent shares, each given as (hits, n).

    Source: Zou and Donner 2008, Statistics in Medicine 27 (variance recovered from the limits of each share).
    """
    if not shares:
        return UNKNOWN
    below = above = middle = 0.0
    for hits, n in shares:
        lower, upper = of_share(hits, n)
        if lower is None or upper is None:
            return UNKNOWN
        share = hits / n
        middle += share
        below += (share - lower) ** 2
        above += (upper - share) ** 2
    count = len(shares)
    return max((middle - math.sqrt(below)) / count, 0.0), min((middle + math.sqrt(above)) / count, 1.0)


def ranks_of_quantile(share: float, n: int) -> tuple[int | None, int | None]:
    """Return the ranks (from 1) of the two values that enclose a quantile; None where `n` values do not reach so far.

    Free of any distribution. Source: Conover 1999, Practical Nonparametric Statistics, section 3.2.
    """
    half = Z * math.sqrt(n * share * (1 - share))
    lower, upper = math.floor(n * share - half), math.ceil(n * share + half) + 1
    return (lower if lower >= 1 else None), (upper if upper <= n else None)


def student(freedom: int) -> float:
    """Return the 97.5 % point of Student's distribution, to three decimals from 4 degrees of freedom on.

    Source: Abramowitz and Stegun 1964, formula 26.7.5.
    """
    z3, z5, z7 = Z**3, Z**5, Z**7
    return (
        Z
        + (z3 + Z) / (4 * freedom)
        + (5 * z5 + 16 * z3 + 3 * Z) / (96 * freedom**2)
        + (3 * z7 + 19 * z5 + 17 * z3 - 15 * Z) / (384 * freedom**3)
    )


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(max(x, -700.0)) / (1 + math.exp(max(x, -700.0)))
