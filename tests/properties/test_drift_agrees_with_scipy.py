"""The distances are those of scipy, where scipy has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, wasserstein_distance

from examples import examples
from plantao.measure.detect import distance
from plantao.measure.profile.bins import Atoms

# Days of three rows, years of millions, and many empty cells.
COUNTS = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 2_000_000))
TABLES = arrays.arrays(np.int64, st.tuples(st.just(2), st.integers(1, 40)), elements=COUNTS).map(
    lambda table: table.astype(float)
)
PLACES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))


@st.composite
def atoms(draw) -> Atoms:
    size = draw(st.integers(1, 25))
    values = draw(arrays.arrays(float, size, elements=PLACES))
    weights = draw(arrays.arrays(np.int64, size, elements=st.integers(1, 100_000)))
    return Atoms(values, weights.astype(float))


def both_have_rows(table) -> bool:
    return bool((table.sum(axis=1) > 0).all())


@given(table=TABLES)
@settings(max_examples=examples(400), deadline=None)
def test_jensen_shannon(table):
    assume(both_have_rows(table))
    ours, theirs = distance.jensen_shannon(*table), jensenshannon(*table, base=2)
    assert 0 <= ours <= 1 + 1e-12
    # Near zero the square root turns a rounding of 1e-16 into one of 1e-8, in theirs as in ours.
    assert ours == pytest.approx(theirs, abs=1e-9) or max(ours, theirs) < 1e-6


@given(table=TABLES)
@settings(max_examples=examples(400), deadline=None)
def test_chi_square(table):
    assume(both_have_rows(table))
    statistic, freedom = distance.chi_square(*table)
    theirs = chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False)
    assert freedom == theirs.dof
    assert statistic == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-9)
    assert np.isfinite(distance.log_ratio(statistic, freedom))


# Shares that were rounded before they were added up were 5e-9 off here.
FAR_APART = (
    Atoms(np.array([400_518.0] + [0] * 17), np.array([2.0, 16_549, 96_620] + [1] * 15)),
    Atoms(np.array([401_005.0] + [0] * 17), np.array([2.0, 1, 11_983, 86, 437, 99_959] + [1] * 12)),
)


@given(one=atoms(), other=atoms(), std=st.floats(1e-3, 1e6))
@example(*FAR_APART, 0.0625)
@settings(max_examples=examples(400), deadline=None)
def test_wasserstein(one, other, std):
    theirs = wasserstein_distance(one.values, other.values, one.weights, other.weights) / std
    assert distance.wasserstein(one, other, std) == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@given(table=TABLES)
@settings(max_examples=examples(200), deadline=None)
def test_population_stability_is_a_symmetric_finite_distance(table):
    assume(both_have_rows(table))
    ours = distance.population_stability(*table)
    assert np.isfinite(ours)
    assert ours >= -1e-12
    assert ours == pytest.approx(distance.population_stability(*table[::-1]))
    assert distance.population_stability(table[0], table[0]) == pytest.approx(0, abs=1e-12)
