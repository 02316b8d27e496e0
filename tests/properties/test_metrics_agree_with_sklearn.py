"""The metrics from counts are those that scikit-learn computes from the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from examples import examples
from plantao.measure.metrics.quality import measure_tally
from plantao.measure.outcomes.tally import merged, tally_of

EXACT = {"rel": 1e-9, "abs": 1e-9}
SEEDS = st.integers(0, 2**32 - 1)


def by_name(tally, kind, positive=None, wanted=()):
    return {(m.name, m.column): m.value for m in measure_tally(tally, kind, positive, wanted)}


def binary_rows(seed, rows, *, grid=False):
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, rows)
    truth[:2] = 0, 1
    scores = 1 / (1 + np.exp(-chance.normal(truth * chance.uniform(0, 3) - 1, 1.5)))
    if grid:
        scores = np.minimum(np.floor(scores * 200), 199) / 200 + 0.0025
    decisions = (scores + chance.normal(0, 0.05, rows) >= 0.5).astype(int)
    decisions[1] = 1
    return truth, scores, decisions


def pieces(seed, rows, count=4):
    return np.array_split(np.random.default_rng(seed).permutation(rows), count)


@given(seed=SEEDS, rows=st.integers(10, 900))
@settings(max_examples=examples(60), deadline=None)
def test_binary(seed, rows):
    truth, scores, decisions = binary_rows(seed, rows)
    whole = tally_of("binary", decisions, scores, truth, classes=(0, 1), positive=1)
    found = by_name(whole, "binary", 1)
    expected = {
        "accuracy": metrics.accuracy_score(truth, decisions),
        "precision": metrics.precision_score(truth, decisions),
        "recall": metrics.recall_score(truth, decisions),
        "f1": metrics.f1_score(truth, decisions, zero_division=0.0),
        "brier": metrics.brier_score_loss(truth, scores),
        "log_loss": metrics.log_loss(truth, scores),
        "bias": float(np.mean(scores - truth)),
    }
    assert {name: found[name, ""] for name in expected} == pytest.approx(expected, **EXACT)


@given(seed=SEEDS)
@settings(max_examples=examples(60), deadline=None)
def test_area_under_the_roc_curve_of_a_day(seed):
    truth, scores, decisions = binary_rows(seed, 900)
    found = by_name(tally_of("binary", decisions, scores, truth, classes=(0, 1), positive=1), "binary", 1)
    assert found["roc_auc", ""] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=0.0035)


@given(seed=SEEDS, rows=st.integers(2, 500))
@settings(max_examples=examples(60), deadline=None)
def test_ranking_is_exact_where_the_scores_lie_on_the_grid(seed, rows):
    truth, scores, decisions = binary_rows(seed, rows, grid=True)
    found = by_name(tally_of("binary", decisions, scores, truth, classes=(0, 1), positive=1), "binary", 1)
    assert found["roc_auc", ""] == pytest.approx(metrics.roc_auc_score(truth, scores), **EXACT)
    expected = metrics.average_precision_score(truth, scores)
    assert found["average_precision", ""] == pytest.approx(expected, **EXACT)


@given(seed=SEEDS, classes=st.integers(3, 6))
@settings(max_examples=examples(40), deadline=None)
def test_multiclass(seed, classes):
    chance = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), chance.integers(0, classes, 400)])
    logits = chance.normal(0, 1, (len(truth), classes)) + 1.5 * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    decisions = scores.argmax(axis=1)
    decisions[:classes] = np.arange(classes)
    names = tuple(range(classes))
    found = by_name(tally_of("multiclass", decisions, scores, truth, classes=names), "multiclass")
    exact = {
        "accuracy": metrics.accuracy_score(truth, decisions),
        "precision": metrics.precision_score(truth, decisions, average="macro"),
        "recall": metrics.recall_score(truth, decisions, average="macro"),
        "f1": metrics.f1_score(truth, decisions, average="macro"),
        "log_loss": metrics.log_loss(truth, scores),
        "brier": metrics.brier_score_loss(truth, scores),
    }
    assert {name: found[name, ""] for name in exact} == pytest.approx(exact, **EXACT)
    each = metrics.precision_score(truth, decisions, average=None)
    assert [found["precision", str(name)] for name in names] == pytest.approx(list(each), **EXACT)
    expected = metrics.roc_auc_score(truth, scores, multi_class="ovr")
    assert found["roc_auc", ""] == pytest.approx(expected, abs=0.0035)


@given(seed=SEEDS, rows=st.integers(10, 400), size=st.sampled_from([1e-3, 1.0, 1e6]))
@settings(max_examples=examples(60), deadline=None)
def test_regression(seed, rows, size):
    chance = np.random.default_rng(seed)
    truth = chance.normal(2, 1, rows) * size
    predicted = truth + chance.standard_t(3, rows) * size * 0.3
    found = by_name(tally_of("regression", None, predicted, truth), "regression")
    expected = {
        "mae": metrics.mean_absolute_error(truth, predicted),
        "rmse": math.sqrt(metrics.mean_squared_error(truth, predicted)),
        "r2": metrics.r2_score(truth, predicted),
        "bias": float(np.mean(predicted - truth)),
    }
    assert {name: found[name, ""] for name in expected} == pytest.approx(expected, rel=1e-9)
    for column, quantile in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        true = np.quantile(np.abs(predicted - truth), quantile, method="inverted_cdf")
        assert found["error_quantiles", column] == pytest.approx(true, rel=0.01)


@given(seed=SEEDS, rows=st.integers(4, 300))
@settings(max_examples=examples(40), deadline=None)
def test_the_sum_of_the_days_is_the_month(seed, rows):
    truth, scores, decisions = binary_rows(seed, rows)
    known = np.where(np.random.default_rng(seed).random(rows) < 0.2, None, truth)
    whole = tally_of("binary", decisions, scores, known, classes=(0, 1), positive=1)
    parts = [
        tally_of("binary", decisions[p], scores[p], known[p], classes=(0, 1), positive=1) for p in pieces(seed, rows)
    ]
    together = merged(parts)
    assert (together.rows, together.labelled) == (whole.rows, whole.labelled)
    assert flat(together.state) == pytest.approx(flat(whole.state))
    one, other = (measure_tally(tally, "binary", 1) for tally in (whole, together))
    assert [(m.name, m.n, m.status) for m in one] == [(m.name, m.n, m.status) for m in other]
    assert [m.value for m in one] == pytest.approx([m.value for m in other])


@given(seed=SEEDS, rows=st.integers(4, 300))
@settings(max_examples=examples(20), deadline=None)
def test_the_sum_of_the_days_is_the_month_for_other_kinds(seed, rows):
    chance = np.random.default_rng(seed)
    truth, scores = chance.integers(0, 3, rows), chance.dirichlet((1, 1, 1), rows)
    decided, numbers = scores.argmax(axis=1), chance.normal(0, 9, rows)
    parts = pieces(seed, rows)
    several = [tally_of("multiclass", decided[p], scores[p], truth[p], classes=(0, 1, 2)) for p in parts]
    whole = tally_of("multiclass", decided, scores, truth, classes=(0, 1, 2))
    assert flat(merged(several).state) == pytest.approx(flat(whole.state))
    several = [tally_of("regression", None, numbers[p], truth[p]) for p in parts]
    assert flat(merged(several).state) == pytest.approx(flat(tally_of("regression", None, numbers, truth).state))


def flat(state, path=()):
    found = {}
    for name, value in state.items():
        if isinstance(value, dict):
            found |= flat(value, (*path, name))
        elif isinstance(value, list):
            found |= {(*path, name, place): one for place, one in enumerate(value)}
        elif not isinstance(value, str):
            found[*path, name] = value
    return found
