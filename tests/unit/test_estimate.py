"""Estimates without outcomes, held against the rows they summarise and against what then happens."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from plantao.measure.metrics.estimate import (
    BINARY,
    MULTICLASS,
    Calibration,
    Estimate,
    estimate_binary,
    estimate_multiclass,
)

NAN = float("nan")
EMPTY = [0] * 200


def histogram(scores: Any) -> Any:
    return np.bincount(np.minimum((np.asarray(scores) * 200).astype(int), 199), minlength=200)


def calibration(scores: Any, outcomes: Any) -> Calibration:
    return Calibration.fitted({"n": histogram(scores).tolist(), "positives": histogram(scores[outcomes]).tolist()})


def estimated(scores: Any, decided: Any, fitted: Calibration) -> dict[str, Estimate]:
    return estimate_binary(histogram(scores).tolist(), histogram(scores[decided]).tolist(), fitted)


def realized(y: Any, scores: Any, decided: Any, weights: Any = None) -> dict[str, float]:
    w = {"sample_weight": weights}
    return {
        "roc_auc": metrics.roc_auc_score(y, scores, **w),
        "average_precision": metrics.average_precision_score(y, scores, **w),
        "accuracy": metrics.accuracy_score(y, decided, **w),
        "precision": metrics.precision_score(y, decided, **w),
        "recall": metrics.recall_score(y, decided, **w),
        "f1": metrics.f1_score(y, decided, **w),
        "brier": metrics.brier_score_loss(y, scores, **w),
        "log_loss": metrics.log_loss(y, scores, **w),
    }


def row_level(scores: Any, decided: Any, p: Any) -> dict[str, float]:
    """CBPE by its definition: every row is positive with weight p and negative with weight 1 - p."""
    y = np.r_[np.ones(len(scores)), np.zeros(len(scores))]
    return realized(y, np.r_[scores, scores], np.r_[decided, decided], np.r_[p, 1 - p])


@pytest.fixture
def chance():
    return np.random.default_rng(60)


@pytest.fixture
def fitted(chance):
    scores = chance.beta(1, 2.5, 50_000)
    return calibration(scores, chance.random(50_000) < scores)


# --- binary ----------------------------------------------------------------------------------------------------------


def test_the_estimates_are_those_of_the_rows(chance, fitted):
    scores = chance.beta(1.2, 2, 5000)
    # Not simply the score above a threshold: what counts is the decision that was written.
    decided = (scores > 0.4) ^ (chance.random(5000) < 0.1)
    bins = np.minimum((scores * 200).astype(int), 199)
    found, p = estimated(scores, decided, fitted), fitted.probability[bins]
    exact, near = row_level((bins + 0.5) / 200, decided, p), row_level(scores, decided, p)
    assert set(found) == set(BINARY)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(exact[name], abs=1e-9), name
        assert estimate.value == pytest.approx(near[name], abs=0.0035), name
        assert (estimate.status, estimate.n) == ("ok", 5000)


def test_a_calibrated_stream_falls_into_the_interval_nineteen_times_in_twenty(chance, fitted):
    hits = dict.fromkeys(BINARY, 0)
    for _ in range(200):
        scores = chance.beta(1.2, 2, 400)
        decided = scores > 0.5
        truth = realized(chance.random(400) < scores, scores, decided)
        for name, estimate in estimated(scores, decided, fitted).items():
            hits[name] += estimate.lower <= truth[name] <= estimate.upper
    assert all(178 <= hit <= 200 for hit in hits.values()), hits


def test_a_calibration_learnt_from_few_rows_widens_the_interval(chance):
    scores = chance.beta(1.2, 2, 20_000)
    decided, widths = scores > 0.5, []
    for rows in (300, 300_000):
        reference = chance.beta(1, 2.5, rows)
        found = estimated(scores, decided, calibration(reference, chance.random(rows) < reference))["accuracy"]
        widths.append(found.upper - found.lower)
    assert widths[0] > 2 * widths[1]


def test_scores_that_are_not_calibrated_are_made_so(chance):
    scores = chance.random(60_000)
    outcomes = chance.random(60_000) < scores**3
    fitted = calibration(scores[:50_000], outcomes[:50_000])
    assert (np.diff(fitted.probability) >= 0).all()
    later, decided = scores[50_000:], scores[50_000:] > 0.5
    truth = realized(outcomes[50_000:], later, decided)
    for name, estimate in estimated(later, decided, fitted).items():
        assert estimate.value == pytest.approx(truth[name], abs=0.025), name


def test_a_change_of_the_rows_is_seen_and_one_of_their_meaning_is_not(chance, fitted):
    easy, hard = chance.choice([0.02, 0.98], 5000), chance.choice([0.4, 0.6], 5000)
    both = [estimated(scores, scores > 0.5, fitted)["accuracy"].value for scores in (easy, hard)]
    assert both == pytest.approx([0.98, 0.6], abs=0.03)


# --- what is no number -----------------------------------------------------------------------------------------------


def test_no_rows_say_so(fitted):
    assert estimate_binary(EMPTY, EMPTY, fitted) == dict.fromkeys(BINARY, Estimate(None, None, None, 0, "no_rows"))
    found = estimate_multiclass({"a": EMPTY, "b": EMPTY}, {}, {"a": fitted, "b": fitted})
    assert found == dict.fromkeys(MULTICLASS, Estimate(None, None, None, 0, "no_rows"))


def test_one_class_leaves_undefined_what_has_nothing_to_divide_by():
    for label, undefined in (
        (False, {"roc_auc", "average_precision", "recall", "precision", "f1"}),
        (True, {"roc_auc", "precision"}),
    ):
        scores = np.linspace(0, 1, 1000)
        fitted = calibration(scores, np.full(1000, label))
        found = estimated(scores, np.zeros(1000, dtype=bool), fitted)
        assert {name for name, estimate in found.items() if estimate.status == "undefined"} == undefined
        assert {estimate.value for name, estimate in found.items() if name in undefined} == {None}
        assert found["accuracy"].value == (0 if label else 1)


def test_probabilities_of_exactly_zero_and_one_give_finite_figures():
    scores = np.r_[np.zeros(500), np.ones(500)]
    fitted = calibration(scores, scores == 1)
    found = estimated(scores, scores == 1, fitted)
    assert [found[name].value for name in ("roc_auc", "accuracy", "precision", "recall", "f1")] == [1] * 5
    assert all(math.isfinite(x) for e in found.values() for x in (e.value, e.lower, e.upper))
    assert found["log_loss"].value == pytest.approx(-math.log(1 - 0.0025))
    wrong = estimated(scores, scores == 0, fitted)
    assert wrong["accuracy"].value == 0
    assert json.loads(json.dumps({name: e.__dict__ for name, e in found.items()}), parse_constant=pytest.fail)


def test_three_rows_are_not_enough_and_have_a_wide_interval(fitted):
    found = estimated(np.array([0.1, 0.5, 0.8]), np.array([False, False, True]), fitted)
    assert {estimate.status for estimate in found.values()} == {"not_enough"}
    assert found["accuracy"].upper - found["accuracy"].lower > 0.7
    assert all(0 <= e.lower <= e.value <= e.upper for e in found.values())


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [([1] * 199, [0] * 199), ([1] * 200, [2] * 200), ([NAN] * 200, EMPTY), ([-1] * 200, EMPTY), ("abc", None)],
)
def test_broken_counts_fail_and_raise_nothing(fitted, scores, chosen):
    assert {e.status for e in estimate_binary(scores, chosen, fitted).values()} == {"failed"}
    assert {e.status for e in estimate_multiclass({"a": scores}, {"a": chosen}, {"a": fitted}).values()} == {"failed"}


def test_a_class_without_calibration_or_with_other_totals_fails(fitted):
    ones = [1] * 200
    assert estimate_multiclass({"a": ones, "b": ones}, {}, {"a": fitted})["accuracy"].status == "failed"
    two = estimate_multiclass({"a": ones, "b": EMPTY}, {}, {"a": fitted, "b": fitted})
    assert two["accuracy"].status == "failed"
    assert estimate_multiclass({}, {}, {})["accuracy"].status == "failed"


@pytest.mark.parametrize("counts", [{"n": EMPTY, "positives": EMPTY}, {"n": [1] * 200, "positives": [2] * 200}])
def test_a_calibration_needs_labelled_rows(counts):
    with pytest.raises(ValueError, match="no labelled rows"):
        Calibration.fitted(counts)


# --- several classes -------------------------------------------------------------------------------------------------

LABELS = ("a", "b", "c")


def of_classes(chance, rows: int) -> tuple[Any, Any, Any]:
    p = chance.dirichlet([1.0, 0.7, 0.4], rows)
    outcome = (chance.random(rows)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    return p, np.minimum(outcome, 2), p.argmax(axis=1)


def of_histograms(p: Any, decided: Any, calibrations: Any) -> dict[str, Estimate]:
    scores = {label: histogram(p[:, c]).tolist() for c, label in enumerate(LABELS)}
    chosen = {label: histogram(p[decided == c, c]).tolist() for c, label in enumerate(LABELS)}
    return estimate_multiclass(scores, chosen, calibrations)


def of_rows(p: Any, outcome: Any, decided: Any) -> dict[str, float]:
    macro = {"average": "macro", "zero_division": 0.0}
    return {
        "accuracy": metrics.accuracy_score(outcome, decided),
        "precision": metrics.precision_score(outcome, decided, **macro),
        "recall": metrics.recall_score(outcome, decided, **macro),
        "f1": metrics.f1_score(outcome, decided, **macro),
        "roc_auc": metrics.roc_auc_score(outcome, p, multi_class="ovr", average="macro"),
    }


@pytest.fixture
def calibrations(chance):
    p, outcome, _ = of_classes(chance, 60_000)
    return {label: calibration(p[:, c], outcome == c) for c, label in enumerate(LABELS)}


def test_several_classes_fall_into_their_intervals(chance, calibrations):
    hits = dict.fromkeys(MULTICLASS, 0)
    for _ in range(60):
        p, outcome, decided = of_classes(chance, 500)
        truth = of_rows(p, outcome, decided)
        found = of_histograms(p, decided, calibrations)
        for name, estimate in found.items():
            assert estimate.status == "ok"
            hits[name] += estimate.lower <= truth[name] <= estimate.upper
    assert all(hit >= 53 for hit in hits.values()), hits


def test_many_rows_of_several_classes_come_close(chance, calibrations):
    p, outcome, decided = of_classes(chance, 50_000)
    truth = of_rows(p, outcome, decided)
    for name, estimate in of_histograms(p, decided, calibrations).items():
        assert estimate.value == pytest.approx(truth[name], abs=0.01), name


def test_a_class_that_is_never_decided_counts_as_zero(chance, calibrations):
    p, outcome, decided = of_classes(chance, 5000)
    decided = np.minimum(decided, 1)
    truth = of_rows(p, outcome, decided)
    for name, estimate in of_histograms(p, decided, calibrations).items():
        assert estimate.status == "ok"
        assert estimate.value == pytest.approx(truth[name], abs=0.025), name
