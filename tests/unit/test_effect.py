"""Labelled rows that stand for others: what is seen of the acted-on rows alone is not taken for the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from plantao.measure.metrics.effect import weighted
from plantao.measure.metrics.interval import Z
from plantao.measure.metrics.quality import measure_tally
from plantao.measure.metrics.strata import is_withheld, sample_of, strata_of
from plantao.measure.outcomes.tally import Tally, merged, tally_of

DECISIONS = 25_000
SHARE = 0.05


def loans(seed, count=DECISIONS):
    """Return who will repay, the score, the decision (approve), and who is in the control group."""
    chance = np.random.default_rng(seed)
    repays = (chance.random(count) < 0.6).astype(int)
    score = 1 / (1 + np.exp(-chance.normal(2.4 * repays - 1.2, 1.2)))
    return repays, score, (score >= 0.5).astype(int), chance.random(count) < SHARE


def groups(outcomes, score, decision, control):
    return [
        tally_of("binary", decision[at], score[at], outcomes[at], classes=(0, 1), positive=1)
        for at in (~control, control)
    ]


def only_acted_on(repays, score, decision, control):
    """Of those who were turned down nothing is ever known, but in the control group, where everybody gets a loan."""
    seen = control | (decision == 1)
    return groups(np.where(seen, repays, None), score, decision, control)


def by_name(found):
    for one in found:
        for value in (one.value, one.lower, one.upper):
            assert value is None or math.isfinite(value)
    return {(one.name, one.column): one for one in found}


def error_of(one):
    """Return the standard error that an interval on the scale of the logit rests on."""
    middle, lower = (math.log(x / (1 - x)) for x in (one.value, one.lower))
    return (middle - lower) / Z * one.value * (1 - one.value)


def test_a_control_group_shows_the_truth_where_the_acted_on_rows_do_not():
    seeds, within, covered = 60, {}, {}
    for seed in range(seeds):
        rows = loans(seed)
        repays, score, decision, _ = rows
        truth = {
            "roc_auc": metrics.roc_auc_score(repays, score),
            "accuracy": metrics.accuracy_score(repays, decision),
            "recall": metrics.recall_score(repays, decision),
            "f1": metrics.f1_score(repays, decision),
        }
        treated, control = only_acted_on(*rows)
        found = by_name(weighted(treated, control, SHARE, "binary", positive=1, wanted=list(truth)))
        naive = {one.name: one for one in measure_tally(treated, "binary", 1, list(truth))}
        for name, value in truth.items():
            one = found[f"{name}_weighted", ""]
            assert one.status == "ok"
            within[name] = within.get(name, 0) + (abs(one.value - value) <= 3 * error_of(one))
            covered[name] = covered.get(name, 0) + (one.lower <= value <= one.upper)
            if name != "recall":
                assert abs(naive[name].value - value) > 3 * error_of(naive[name])
            else:
                assert naive[name].value == 1.0
    # 3 standard errors leave out 1 in 370; 95 % intervals 3 of these 60.
    assert min(within.values()) >= seeds - 1
    assert all(0.86 <= count / seeds <= 1 for count in covered.values())


def test_the_errors_are_those_that_are_observed():
    names = ["roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier", "bias"]
    values, errors = {name: [] for name in names}, {name: [] for name in names}
    for seed in range(150):
        treated, control = only_acted_on(*loans(1000 + seed, 10_000))
        found = by_name(weighted(treated, control, SHARE, "binary", positive=1, wanted=names))
        for name in names:
            one = found[f"{name}_weighted", ""]
            values[name].append(one.value)
            errors[name].append((one.upper - one.lower) / 2 / Z)
    ratios = {name: float(np.mean(errors[name]) / np.std(values[name], ddof=1)) for name in names}
    # 150 draws know a standard deviation to 6 %.
    assert {name: ratio for name, ratio in ratios.items() if not 0.82 <= ratio <= 1.22} == {}


def test_all_metrics_of_one_draw_are_close_to_those_of_all_rows():
    rows = loans(7)
    treated, control = only_acted_on(*rows)
    everything = merged(groups(rows[0], *rows[1:]))
    truth = {one.name: one.value for one in measure_tally(everything, "binary", 1)}
    found = by_name(weighted(treated, control, SHARE, "binary", positive=1))
    assert {name: found[f"{name}_weighted", ""].value for name in truth} == pytest.approx(truth, abs=0.03)
    assert found["accuracy_treated", ""].value == measure_tally(treated, "binary", 1, ["accuracy"])[0].value
    assert found["accuracy_control", ""].n == control.labelled


def test_with_all_outcomes_the_weighted_metrics_are_the_plain_ones():
    rows = loans(8, 4_000)
    treated, control = groups(rows[0], *rows[1:])
    plain = {one.name: one for one in measure_tally(merged([treated, control]), "binary", 1)}
    found = by_name(weighted(treated, control, SHARE, "binary", positive=1))
    for name, one in plain.items():
        same = found[f"{name}_weighted", ""]
        assert same.value == pytest.approx(one.value, abs=1e-5)
        if name in {"roc_auc", "brier", "bias", "log_loss", "accuracy"}:
            assert (same.lower, same.upper) == pytest.approx((one.lower, one.upper), rel=5e-3)


def test_late_outcomes_are_not_taken_for_withheld_ones():
    repays, score, decision, control = loans(9, 8_000)
    late = np.random.default_rng(1).random(8_000) < 0.6
    treated, kept = groups(np.where(late, None, repays), score, decision, control)
    assert [stratum.withheld for stratum in strata_of(treated, kept)] == [False, False]
    sample = sample_of(treated, kept)
    assert sample.rows == 8_000
    assert sample.weight.sum() == pytest.approx(8_000)
    assert is_withheld((0, 500), (20, 25))
    assert is_withheld((30, 500), (20, 25))  # a few that leaked
    assert not is_withheld((0, 2), (1, 1))
    assert not is_withheld((0, 500), (0, 25))
    assert not is_withheld((0, 0), (5, 5))


def test_the_effect_is_the_difference_that_acting_makes():
    hits, seeds = {"outcome": 0, "objective_per_row": 0}, 200
    worths = [SimpleNamespace(prediction=p, outcome=1, value=-10.0) for p in (0, 1)]
    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        score = chance.random(4_000)
        decision, control = (score >= 0.7).astype(int), chance.random(4_000) < 0.2
        # Customers that are called leave half as often: 0.3 x 0.85 / 2 fewer of all.
        leaves = (chance.random(4_000) < np.where((decision == 1) & ~control, score / 2, score)).astype(int)
        treated, kept = groups(leaves, score, decision, control)
        found = by_name(weighted(treated, kept, 0.2, "binary", positive=1, wanted=["accuracy"], worths=worths))
        for column, truth in (("outcome", -0.1275), ("objective_per_row", 1.275)):
            one = found["effect", column]
            assert one.status == "ok"
            hits[column] += one.lower <= truth <= one.upper
    assert all(0.915 <= count / seeds <= 0.99 for count in hits.values())


def test_without_the_outcomes_of_one_group_there_is_no_effect():
    found = by_name(weighted(*only_acted_on(*loans(3)), SHARE, "binary", positive=1, wanted=["accuracy"]))
    assert found["effect", "outcome"].status == "undefined"
    assert found["effect", "outcome"].value is None


def test_several_classes():
    chance = np.random.default_rng(2)
    truth, scores = chance.integers(0, 3, 6_000), chance.dirichlet((1, 1, 1), 6_000)
    scores = (scores + 0.5 * np.eye(3)[truth]) / 1.5
    decision, control = scores.argmax(axis=1), chance.random(6_000) < 0.1
    seen = np.where((decision == 0) & ~control, None, truth)
    treated, kept = (
        tally_of("multiclass", decision[at], scores[at], seen[at], classes=(0, 1, 2)) for at in (~control, control)
    )
    worths = [SimpleNamespace(prediction=0, outcome=0, value=1.0)]
    found = by_name(weighted(treated, kept, 0.1, "multiclass", worths=worths))
    expected = {
        "accuracy_weighted": metrics.accuracy_score(truth, decision),
        "recall_weighted": metrics.recall_score(truth, decision, average="macro"),
        "precision_weighted": metrics.precision_score(truth, decision, average="macro"),
        "f1_weighted": metrics.f1_score(truth, decision, average="macro"),
        "objective_per_row_weighted": float(np.mean((truth == 0) & (decision == 0))),
    }
    for name, value in expected.items():
        one = found[name, ""]
        assert one.lower <= value <= one.upper
        assert one.upper - one.lower < 0.1
    assert {column for name, column in found if name == "effect"} == {"0", "1", "2", "objective_per_row"}


def test_numbers():
    chance = np.random.default_rng(4)
    predicted, control = chance.normal(10, 2, 5_000), chance.random(5_000) < 0.1
    happened = predicted + chance.normal(0, 1, 5_000) + np.where(control, 0.0, 0.5)
    treated, kept = (tally_of("regression", None, predicted[at], happened[at]) for at in (~control, control))
    found = by_name(weighted(treated, kept, 0.1, "regression"))
    effect = found["effect", "outcome"]
    assert effect.lower <= 0.5 <= effect.upper
    assert found["mae_weighted", ""].n == 5_000
    nothing = tally_of("regression", None, predicted[~control], [None] * int((~control).sum()))
    found = by_name(weighted(nothing, kept, 0.1, "regression"))
    assert found["mae_weighted", ""].value == found["mae_control", ""].value
    assert found["effect", "outcome"].status == "undefined"


def test_what_cannot_be_said_is_not_said():
    treated, control = only_acted_on(*loans(5, 2_000))
    found = by_name(weighted(treated, control, 0.3, "binary", positive=1, wanted=["accuracy"]))
    assert found["accuracy_weighted", ""].status == found["effect", ""].status == "failed"
    assert found["accuracy_treated", ""].status == "ok"
    none = Tally(0, 0, {})
    assert {one.status for one in weighted(none, none, 0.1, "binary", positive=1)} == {"no_rows"}
    unlabelled = groups(np.full(40, None), np.full(40, 0.5), np.ones(40, dtype=int), np.arange(40) < 4)
    assert {one.status for one in weighted(*unlabelled, 0.1, "binary", positive=1)} == {"no_labels"}
    with pytest.raises(ValueError, match="share"):
        weighted(treated, control, 0.0, "binary", positive=1)


def test_each_group_is_held_against_the_shares_by_which_its_own_rows_were_drawn():
    def drawn(share, groups):
        return [
            replace(one, state={**one.state, "assigned": [share * one.rows, share * (1 - share) * one.rows]})
            for one in groups
        ]

    def status(groups, today):
        return by_name(weighted(*groups, today, "binary", positive=1, wanted=["accuracy"]))[
            "accuracy_weighted", ""
        ].status

    groups = only_acted_on(*loans(5, 2_000))
    own = drawn(SHARE, groups)
    assert [status(own, today) for today in (SHARE, 0.3, 0.0)] == ["ok"] * 3
    assert status(drawn(0.3, groups), SHARE) == "failed"
    assert status([own[0], groups[1]], 0.3) == "failed"  # one that does not say is held against today's
    # Two days with different shares together: what is expected adds up.
    repays, score, decision, _ = loans(6, 4_000)
    half = only_acted_on(repays, score, decision, np.random.default_rng(6).random(4_000) < 0.5)
    both = [merged(pair) for pair in zip(own, drawn(0.5, half), strict=True)]
    assert status(both, 0.5) == "ok"
    assert status(drawn(0.5, both), 0.5) == "failed"


def test_a_handful_of_control_rows_is_not_enough_to_stand_for_hundreds():
    treated, control = only_acted_on(*loans(6, 150))
    assert 0 < min(stratum.control for stratum in strata_of(treated, control)) < 10
    found = by_name(weighted(treated, control, SHARE, "binary", positive=1, wanted=["accuracy"]))
    assert found["accuracy_weighted", ""].status == "not_enough"


def test_a_decision_of_which_nothing_is_known_stops_the_weighted_metrics():
    repays, score, decision, control = loans(10, 2_000)
    treated, kept = groups(np.where(decision == 1, repays, None), score, decision, control)
    found = by_name(weighted(treated, kept, SHARE, "binary", positive=1, wanted=["accuracy"], mature=True))
    assert found["accuracy_weighted", ""].status == "no_labels"
    assert found["accuracy_control", ""].status == "ok"


def test_a_state_that_cannot_be_read_fails_without_losing_the_rest():
    treated, control = groups(*loans(11, 1_000))
    broken = Tally(control.rows, control.labelled, {"kind": "binary", "bins": {"1": {"0": [1]}}})
    found = by_name(weighted(treated, broken, SHARE, "binary", positive=1, wanted=["accuracy"]))
    assert found["accuracy_treated", ""].status == "ok"
    assert found["accuracy_weighted", ""].status == "failed"
