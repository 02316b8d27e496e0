"""What a row of `daily_outcomes` says, against the same counted one row at a time in the plainest way."""

from __future__ import annotations

import copy
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from plantao.measure.outcomes.tally import Tally, edges_of_error, error_bin, merged, tally_of
from plantao.measure.profile.bins import label

NAN = float("nan")


def test_binary_rows_are_counted_by_bin_decision_and_outcome():
    scores = np.array([0.0, 0.004, 0.005, 0.5, 0.999, 1.0, 0.7])
    decisions = [False, False, False, True, True, True, True]
    found = tally_of("binary", decisions, scores, [0, 1, 0, 1, 1, 0, None], classes=(False, True), positive=True)
    assert (found.rows, found.labelled) == (7, 6)
    assert found.state["decided"] == {"false": 3, "true": 4}
    assert found.state["bins"] == {
        "0": {"false": [1, 1, 0.0, 0.004]},
        "1": {"false": [1, 0, 0.005, 0.0]},
        "100": {"true": [0, 1, 0.0, 0.5]},
        "199": {"true": [1, 1, 1.0, 0.999]},
    }
    residual = [0.0, -0.996, 0.005, -0.5, -0.001, 1.0]
    assert found.state["sums"]["residual"] == pytest.approx([sum(residual), sum(r * r for r in residual)])
    assert found.state["sums"]["squared_error"] == pytest.approx(
        [sum(r**2 for r in residual), sum(r**4 for r in residual)]
    )


def test_probabilities_of_exactly_none_and_one_have_a_finite_loss():
    found = tally_of("binary", [1, 0], np.array([1.0, 0.0]), [0, 1], classes=(0, 1), positive=1)
    clipped = 1 - 1e-15
    assert found.state["sums"]["log_loss"][0] == pytest.approx(-math.log(1e-15) - math.log(1 - clipped), rel=1e-12)
    assert set(found.state["bins"]) == {"0", "199"}


def test_what_is_not_known_is_told_from_what_cannot_be_used():
    outcomes = ["yes", "no", None, pd.NA, NAN, "maybe", "yes"]
    found = tally_of(
        "binary",
        ["yes"] * 7,
        np.full(7, 0.5),
        np.array(outcomes, dtype=object),
        classes=("no", "yes"),
        positive="yes",
        conflicting=np.array([0, 0, 0, 0, 0, 0, 1]),
    )
    assert (found.rows, found.labelled) == (7, 2)
    assert (found.state["unusable"], found.state["conflicting"]) == (2, 1)
    assert found.state["decided"] == {"yes": 7}


def test_numbers_that_are_none_are_unusable():
    found = tally_of("regression", None, np.array([1.0, 2, 3, 4, 5]), np.array([1.5, NAN, np.inf, -np.inf, 5.0]))
    assert (found.labelled, found.state["unusable"]) == (2, 3)
    assert found.state["sums"]["residual"] == [-0.5, 0.25]
    assert found.state["sums"]["outcome"] == [6.5, 1.5**2 + 25]
    assert found.state["errors"] == {error_bin(0.5): 1, "zero": 1}


@pytest.mark.parametrize("error", [1e-300, 1e-9, 0.5, 1.0, 1.02, 7.3, 1e12, 1e300])
def test_the_bin_of_an_error_holds_it(error):
    below, above = edges_of_error(error_bin(error))
    assert below * (1 - 1e-9) <= error <= above * (1 + 1e-9)
    assert above / below == pytest.approx(1.02)


def test_lags_are_whole_days_of_labelled_rows():
    lags = np.array([0.2, 0.99, 1.0, NAN, 5.5])
    found = tally_of("regression", None, np.zeros(5), [0, 0, 0, 0, None], lags=lags)
    assert found.state["lags"] == {"0": 2, "1": 1}


def test_a_class_that_never_occurs_has_its_histogram():
    scores = np.array([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    found = tally_of("multiclass", [1, 2], scores, [1, 1], classes=(1, 2, 3)).state
    assert found["confusion"] == {"1": {"1": 1}, "2": {"1": 1}}
    assert found["bins"]["3"] == {"40": [1, 0], "0": [1, 0]}
    assert found["sums"]["log_loss"][0] == pytest.approx(-math.log(0.5) - math.log(1e-15))
    assert found["sums"]["squared_error"][0] == pytest.approx(0.25 + 0.09 + 0.04 + 2)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_no_rows_and_no_labels_are_tallies_too(kind):
    classes = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}[kind]
    shape = (0, 3) if kind == "multiclass" else 0
    nothing = tally_of(kind, [], np.zeros(shape), [], classes=classes, positive=1 if kind == "binary" else None)
    assert (nothing.rows, nothing.labelled) == (0, 0)
    rows = np.full((2, 3), 1 / 3) if kind == "multiclass" else np.zeros(2)
    unlabelled = tally_of(kind, [0, 1], rows, [None, None], classes=classes, positive=1 if kind == "binary" else None)
    assert (unlabelled.rows, unlabelled.labelled) == (2, 0)
    assert merged([nothing, unlabelled]).rows == 2


def test_what_is_no_probability_or_no_class_is_refused():
    with pytest.raises(ValueError, match="no probability"):
        tally_of("binary", [1], np.array([NAN]), [1], classes=(0, 1), positive=1)
    with pytest.raises(ValueError, match="needs a decision"):
        tally_of("binary", [3], np.array([0.5]), [1], classes=(0, 1), positive=1)


def test_adding_up_leaves_the_parts_as_they_were():
    one = tally_of("binary", [1, 0], np.array([0.5, 0.1]), [1, 0], classes=(0, 1), positive=1)
    before = copy.deepcopy(one)
    assert merged([one, one]).state["bins"]["100"]["1"] == [0, 2, 0.0, 1.0]
    assert one == before
    assert merged([]) == Tally(0, 0, {})
    with pytest.raises(ValueError, match="do not add up"):
        merged([one, tally_of("regression", None, np.zeros(1), [0])])


def test_labels_are_written_as_in_json():
    assert [label(value) for value in (True, np.False_, 1, "Ja")] == ["true", "false", "1", "Ja"]


def test_a_large_tally_equals_counting_row_by_row():
    chance = np.random.default_rng(3)
    scores, truth = chance.random(2_000), chance.integers(0, 2, 2_000)
    chosen = (scores > 0.4).astype(int)
    found = tally_of("binary", chosen, scores, truth, classes=(0, 1), positive=1).state
    plain = Counter(
        (str(min(math.floor(s * 200), 199)), str(d), int(y)) for s, d, y in zip(scores, chosen, truth, strict=True)
    )
    counted = {
        (b, d, y): four[y] for b, row in found["bins"].items() for d, four in row.items() for y in (0, 1) if four[y]
    }
    assert counted == dict(plain)
