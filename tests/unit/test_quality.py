"""Every metric has a value with an interval that is honest, or says why it has none."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from plantao.measure.metrics import binary, interval
from plantao.measure.metrics.objective import from_blocks, measure_aggregate, measure_values
from plantao.measure.metrics.quality import METRICS_OF, measure_tally, worst_segments
from plantao.measure.outcomes.tally import Tally, merged, tally_of

KINDS = {"binary": (0, 1), "multiclass": (0, 1, 2), "regression": ()}


def rows(kind, truth, scores, decisions=None):
    positive = 1 if kind == "binary" else None
    scores = np.asarray(scores, dtype=float)
    if decisions is None and kind != "regression":
        decisions = (scores >= 0.5).astype(int) if kind == "binary" else scores.argmax(axis=1)
    return tally_of(kind, decisions, scores, truth, classes=KINDS[kind], positive=positive)


def measured(kind, tally, wanted=(), mature=None):
    found = measure_tally(tally, kind, 1 if kind == "binary" else None, wanted, mature)
    for one in found:
        for value in (one.value, one.lower, one.upper):
            assert value is None or math.isfinite(value)
        if None not in {one.value, one.lower, one.upper}:
            assert one.lower <= one.value <= one.upper
    return {(one.name, one.column): one for one in found}


def day(count=300, seed=1):
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, count)
    return truth, np.clip(chance.normal(0.35 + 0.3 * truth, 0.2), 0, 1)


# --- when there is nothing, or too little, to say --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_day_without_rows_and_one_without_labels_say_so(kind):
    nothing = measured(kind, Tally(0, 0, {}))
    assert {one.status for one in nothing.values()} == {"no_rows"}
    scores = np.full((5, 3), 1 / 3) if kind == "multiclass" else np.zeros(5)
    found = measured(kind, rows(kind, [None] * 5, scores), mature=False)
    assert {one.status for one in found.values()} == {"no_labels"}
    assert {name for name, _ in found} == set(METRICS_OF[kind])
    assert all(one.value is None and one.n == 0 for one in found.values())


def test_a_day_of_one_class_has_no_ranking_but_everything_else():
    found = measured("binary", rows("binary", np.zeros(50), np.linspace(0, 0.4, 50)))
    for name in ("roc_auc", "average_precision", "recall", "precision", "f1"):
        assert found[name, ""].status == "undefined"
        assert found[name, ""].value is None
    assert found["accuracy", ""].value == 1.0
    assert found["accuracy", ""].lower == pytest.approx(0.9287, abs=1e-4)
    assert all(found[name, ""].status == "ok" for name in ("accuracy", "log_loss", "brier", "bias", "calibration"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_three_rows_are_not_enough(kind, count):
    scores = np.tile([0.2, 0.3, 0.5], (count, 1)) if kind == "multiclass" else np.linspace(0.1, 0.9, count)
    found = measured(kind, rows(kind, [0, 1, 1][:count], scores))
    assert {one.status for one in found.values()} <= {"not_enough", "undefined"}
    assert found["mae" if kind == "regression" else "accuracy", ""].status == "not_enough"


def test_a_share_of_few_rows_is_not_enough_though_there_are_many():
    truth, scores = np.zeros(500, dtype=int), np.full(500, 0.1)
    scores[:3] = 0.9
    truth[:2] = 1
    found = measured("binary", rows("binary", truth, scores))
    assert (found["precision", ""].value, found["precision", ""].n) == (2 / 3, 3)
    assert found["precision", ""].status == "not_enough"
    assert found["accuracy", ""].status == "ok"


def test_a_day_that_is_not_mature_is_provisional():
    truth, scores = day()
    assert {one.status for one in measured("binary", rows("binary", truth, scores), mature=False).values()} == {
        "provisional"
    }
    assert {one.status for one in measured("binary", rows("binary", truth, scores), mature=True).values()} == {"ok"}
    assert measured("binary", rows("binary", truth, scores * 0), mature=False)["precision", ""].value is None


def test_probabilities_of_exactly_none_and_one():
    truth = np.array([0, 1] * 10)
    found = measured("binary", rows("binary", truth, truth))
    assert found["roc_auc", ""].value == 1.0
    assert found["log_loss", ""].value == pytest.approx(0, abs=1e-12)
    found = measured("binary", rows("binary", truth, 1 - truth))
    assert found["roc_auc", ""].value == 0.0
    assert found["log_loss", ""].value == pytest.approx(-math.log(1e-15), rel=1e-3)
    assert found["calibration", ""].value == 1.0


def test_a_class_that_never_occurs_is_undefined_and_spoils_nothing():
    chance = np.random.default_rng(5)
    scores, truth = chance.dirichlet((2, 2, 1), 200), chance.integers(0, 2, 200)
    decisions = scores[:, :2].argmax(axis=1)
    found = measured("multiclass", rows("multiclass", truth, scores, decisions))
    for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
        assert found[name, "2"].status == "undefined"
        others = [found[name, column].value for column in ("0", "1")]
        assert found[name, ""].value == pytest.approx(sum(others) / 2)
        assert found[name, ""].status == "ok"


def test_contradicting_outcomes_do_not_count():
    truth, scores = day(40)
    conflicting = np.arange(40) < 5
    tally = tally_of("binary", scores >= 0.5, scores, truth, classes=(0, 1), positive=1, conflicting=conflicting)
    assert tally.state["conflicting"] == 5
    assert {one.n for one in measured("binary", tally, ["accuracy", "roc_auc"]).values()} == {35}


def test_one_metric_that_fails_leaves_the_others():
    truth, scores = day()
    tally = rows("binary", truth, scores)
    sums = {name: value for name, value in tally.state["sums"].items() if name != "log_loss"}
    broken = Tally(tally.rows, tally.labelled, {**tally.state, "sums": sums})
    found = measured("binary", broken)
    assert {name for (name, _), one in found.items() if one.status == "failed"} == {"log_loss"}
    found = measured("binary", Tally(tally.rows, tally.labelled, {**tally.state, "sums": None, "bins": 7}))
    assert {one.status for one in found.values()} == {"failed"}


def test_errors_too_large_to_square_fail_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured("regression", rows("regression", np.zeros(20), np.full(20, 1e200)))
    assert found["rmse", ""].status == "failed"
    assert found["mae", ""].value == pytest.approx(1e200)


def test_constant_outcomes_leave_nothing_to_explain():
    found = measured("regression", rows("regression", np.full(30, 1e6 + 0.1), np.linspace(0, 1, 30)))
    assert found["r2", ""].status == "undefined"
    assert found["mae", ""].status == "ok"


def test_a_metric_of_another_kind_is_undefined_and_a_wrong_positive_class_is_noticed():
    truth, scores = day()
    tally = rows("binary", truth, scores)
    assert measured("binary", tally, ["mae"])["mae", ""].status == "undefined"
    assert measure_tally(tally, "binary", "yes", ["recall"])[0].status == "failed"
    with pytest.raises(ValueError, match="positive class"):
        measure_tally(tally, "binary", None)


def test_only_what_is_wanted_in_its_order():
    truth, scores = day()
    assert [name for name, _ in measured("binary", rows("binary", truth, scores), ["f1", "roc_auc"])] == [
        "f1",
        "roc_auc",
    ]


def test_metrics_are_of_the_decision_that_was_written():
    truth = np.array([1] * 20 + [0] * 20)
    found = measured("binary", rows("binary", truth, np.full(40, 0.9), decisions=truth), ["accuracy", "recall"])
    assert found["accuracy", ""].value == found["recall", ""].value == 1.0


# --- intervals -------------------------------------------------------------------------------------------------------


def test_intervals_equal_those_of_scipy():
    expected = stats.binomtest(37, 120).proportion_ci(method="wilson")
    assert interval.of_share(37, 120) == pytest.approx((expected.low, expected.high))
    assert [interval.student(f) for f in (9, 19, 60)] == pytest.approx(
        [stats.t.ppf(0.975, f) for f in (9, 19, 60)], abs=1e-3
    )
    values = np.random.default_rng(1).normal(5, 2, 80)
    error = stats.sem(values)
    assert interval.of_mean(values.sum(), (values**2).sum(), 80) == pytest.approx(
        (values.mean() - interval.Z * error, values.mean() + interval.Z * error)
    )
    assert interval.of_share(0, 20)[0] == 0.0
    assert interval.of_share(20, 20)[1] == 1.0
    assert interval.of_share(0, 0) == interval.of_mean(1, 1, 1) == interval.UNKNOWN


def truth_of_metrics():
    truth, scores = day(400_000, seed=99)
    found = measured("binary", rows("binary", truth, scores))
    return {
        name: found[name, ""].value
        for name in ("roc_auc", "average_precision", "accuracy", "recall", "f1", "brier", "bias")
    }


def test_intervals_cover_the_truth_about_95_times_in_100():
    truth, seen = truth_of_metrics(), 400
    hits = dict.fromkeys(truth, 0)
    for seed in range(seen):
        found = measured("binary", rows("binary", *day(165, seed=seed)), list(truth))
        for name, value in truth.items():
            one = found[name, ""]
            hits[name] += one.lower <= value <= one.upper
    # 400 tries of 0.95 have a standard deviation of 0.011.
    assert {name: count / seen for name, count in hits.items() if not 0.915 <= count / seen <= 0.995} == {}


def test_intervals_of_several_classes_and_of_errors_cover_the_truth():
    truth, hits, seen = 0.0, {"recall": 0, "p50": 0, "p90": 0, "rmse": 0}, 300

    def sample(seed, count):
        chance = np.random.default_rng(seed)
        outcome = chance.integers(0, 3, count)
        scores = chance.dirichlet((1, 1, 1), count) + 0.8 * np.eye(3)[outcome]
        return outcome, scores / scores.sum(axis=1, keepdims=True)

    truth = measured("multiclass", rows("multiclass", *sample(0, 200_000)))["recall", ""].value
    for seed in range(1, seen + 1):
        one = measured("multiclass", rows("multiclass", *sample(seed, 150)), ["recall"])["recall", ""]
        hits["recall"] += one.lower <= truth <= one.upper
        errors = np.random.default_rng(seed).normal(0, 1, 300)
        found = measured("regression", rows("regression", np.zeros(300), errors), ["rmse", "error_quantiles"])
        hits["rmse"] += found["rmse", ""].lower <= 1 <= found["rmse", ""].upper
        for name, share in (("p50", 0.5), ("p90", 0.9)):
            one = found["error_quantiles", name]
            hits[name] += one.lower <= stats.norm.ppf((1 + share) / 2) <= one.upper
    assert {name: count / seen for name, count in hits.items() if count / seen < 0.91} == {}


def test_a_rare_quantile_has_no_upper_limit():
    found = measured("regression", rows("regression", np.zeros(50), np.arange(50)), ["error_quantiles"])
    assert found["error_quantiles", "p99"].upper is None
    assert found["error_quantiles", "p50"].value == pytest.approx(24, rel=0.01)


# --- segments --------------------------------------------------------------------------------------------------------


def test_the_worst_segments_are_those_with_enough_labels():
    def segment(right, count):
        truth = np.array([0, 1] * (count // 2))
        wrong = np.arange(count) >= right * count
        return rows("binary", truth, np.where(wrong, 1 - truth, truth) * 0.8 + 0.1)

    tallies = {"": segment(0.1, 200), "@control": segment(0.0, 200), "city=tiny": segment(0.0, 98)}
    tallies |= {f"city={share}": segment(share, 100) for share in (0.9, 0.5, 0.7, 0.6)}
    worst = worst_segments(tallies, "accuracy", "binary", 1)
    assert [(name, one.value) for name, one in worst] == [("city=0.5", 0.5), ("city=0.6", 0.6), ("city=0.7", 0.7)]
    assert [name for name, _ in worst_segments(tallies, "log_loss", "binary", 1)] == [name for name, _ in worst]
    assert worst_segments(tallies, "accuracy", "binary", 1, at_least=1000) == []


# --- the objective ---------------------------------------------------------------------------------------------------


def worth(prediction, outcome, value):
    return SimpleNamespace(prediction=prediction, outcome=outcome, value=value)


WORTHS = [worth(1, 1, 50.0), worth(1, 0, -10.0), worth(0, 1, -3.5)]


def test_the_table_of_values_is_applied_to_the_decisions():
    truth, scores = day()
    decisions = (scores >= 0.5).astype(int)
    values = np.select([(decisions == 1) & (truth == 1), decisions == 1, truth == 1], [50.0, -10.0, -3.5], 0.0)
    total, each = measure_values(rows("binary", truth, scores), WORTHS, 1)
    assert (total.name, each.name, total.n, total.status) == ("objective", "objective_per_row", 300, "ok")
    assert total.value == pytest.approx(values.sum(), rel=1e-12)
    assert each.value == pytest.approx(values.mean())
    error = interval.Z * values.std(ddof=1) / math.sqrt(300)
    assert (each.lower, each.upper) == pytest.approx((values.mean() - error, values.mean() + error))
    assert (total.lower, total.upper) == pytest.approx((each.lower * 300, each.upper * 300))


def test_values_of_several_classes_of_booleans_and_of_nothing():
    scores = np.eye(3)[[0, 1, 2] * 10]
    tally = rows("multiclass", [0, 1, 1] * 10, scores)
    assert measure_values(tally, [worth(2, 1, -4.0), worth(0, 0, 1.0)], None)[0].value == -30.0
    flags = tally_of("binary", [True] * 12, np.full(12, 0.9), [True] * 12, classes=(False, True), positive=True)
    assert measure_values(flags, [worth(True, True, 2.0)], True)[0].value == 24.0
    assert {one.status for one in measure_values(Tally(0, 0, {}), WORTHS, 1)} == {"no_rows"}
    assert {one.status for one in measure_values(Tally(4, 0, {}), WORTHS, 1)} == {"no_labels"}
    assert {one.status for one in measure_values(rows("regression", [1.0] * 20, np.zeros(20)), WORTHS, None)} == {
        "undefined"
    }
    assert {one.status for one in measure_values(Tally(4, 4, {"kind": "binary"}), WORTHS, 1)} == {"failed"}


@pytest.mark.parametrize("taken_for", ["sum", "mean"])
def test_blocks_give_the_interval_of_any_aggregate(taken_for):
    hits, seen = 0, 300
    for seed in range(seen):
        chance = np.random.default_rng(seed)
        count = chance.poisson(2_000)
        values, block = chance.exponential(3.0, count), chance.integers(0, 20, count)
        apply, truth = (np.sum, 6_000) if taken_for == "sum" else (np.median, 3 * math.log(2))
        spread = from_blocks(float(apply(values)), [float(apply(values[block == b])) for b in range(20)])
        assert spread.taken_for == taken_for
        hits += spread.interval[0] <= truth <= spread.interval[1]
    assert 0.91 <= hits / seen <= 0.985


def test_blocks_that_say_nothing_give_no_interval():
    assert from_blocks(None, [1.0] * 20).taken_for == "unknown"
    assert from_blocks(3.0, [3.0]).taken_for == "unknown"
    assert from_blocks(3.0, [float("nan")] * 20).taken_for == "unknown"
    assert from_blocks(5.0, [1.0] * 5 + [None] * 15).taken_for == "sum"
    assert from_blocks(1.0, [1.0] * 5 + [None] * 15).taken_for == "unknown"
    tally = rows("binary", *day())
    found = measure_aggregate(600.0, [30.0] * 19 + [30.0], tally)
    assert [(one.name, one.value, one.status) for one in found] == [
        ("objective", 600.0, "ok"),
        ("objective_per_row", 2.0, "ok"),
    ]
    assert [one.name for one in measure_aggregate(30.0, [30.0, 31.0] * 10, tally)] == ["objective"]
    assert measure_aggregate(None, [], tally)[0].status == "undefined"
    assert measure_aggregate(None, [], Tally(3, 0, {}))[0].status == "no_labels"


def test_counts_of_the_confusion_follow_from_the_bins():
    truth, scores = day()
    found = binary.confusion(merged([rows("binary", truth, scores)]).state, "1")
    assert found.n == 300
    assert found.true_positives == int(((scores >= 0.5) & (truth == 1)).sum())
