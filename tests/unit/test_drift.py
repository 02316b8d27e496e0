"""Columns that have drifted and columns that have not, and the twelve ways of not noticing."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from plantao.measure.detect import distance, drift
from plantao.measure.detect.drift import ColumnDrift, column_drift, day_limits, episodes, ranked, weekly_distances
from plantao.measure.profile.bins import Atoms
from plantao.measure.profile.counts import (
    ABOVE,
    BELOW,
    MISSING,
    OTHER,
    UNSEEN,
    atoms,
    cells,
    reference_cells,
    score_cells,
    shares,
)

FIRST = date(2013, 4, 1)
LIMITS = {"count": 90, "drift_max": 1.0, "week_mean": 0.5, "week_sd": 0.2}
NAN, INF = float("nan"), float("inf")


def number_profile(values: Any) -> dict[str, Any]:
    values = np.asarray(values, dtype=float)
    known = values[np.isfinite(values)]
    profile: dict[str, Any] = {"rows": len(values), "missing": int(np.isnan(values).sum())}
    if not len(known):
        return profile
    edges, mean = np.unique(np.quantile(known, np.linspace(0, 1, 21))), known.mean()
    place = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, max(len(edges) - 2, 0))
    size = max(len(edges) - 1, 1)
    counts, sums = np.bincount(place, minlength=size), np.bincount(place, known - mean, size)
    profile |= {"edges": edges.tolist(), "counts": counts.tolist(), "sums": sums.tolist()}
    return profile | {"mean": float(mean), "std": float(known.std())}


def number_state(values: Any, profile: dict[str, Any]) -> dict[str, Any]:
    values = np.asarray(values, dtype=float)
    known, edges = values[np.isfinite(values)], np.array(profile.get("edges", []))
    mean, size = profile.get("mean", 0.0), max(len(edges) - 1, 1)
    place = np.clip(np.searchsorted(edges, known, side="right"), 1, size)
    if len(edges):
        place[known < edges[0]], place[known > edges[-1]] = 0, size + 1
    missing = int(np.isnan(values).sum())
    return {
        "rows": len(values),
        "missing": missing,
        "counts": np.bincount(place, minlength=size + 2).tolist(),
        "sums": np.bincount(place, known - mean, size + 2).tolist(),
        "squares": float(((known - mean) ** 2).sum()),
        "other": len(values) - missing - len(known),
    }


def score_state(scores: Any) -> dict[str, Any]:
    counts = np.histogram(scores, 200, (0, 1))[0].tolist()
    return {"rows": len(scores), "scores": {"true": counts}, "chosen": {"true": counts}}


def text_state(counts: list[int], other: int = 0, unseen: int = 0, missing: int = 0) -> dict[str, Any]:
    rows = sum(counts) + other + unseen + missing
    return {"rows": rows, "missing": missing, "counts": counts, "other": other, "unseen": unseen}


@pytest.fixture
def chance():
    return np.random.default_rng(2013)


@pytest.fixture
def reference(chance):
    return number_profile(chance.normal(10, 3, 50_000))


TEXT = {"rows": 1000, "missing": 10, "values": {"EWR": 500, "JFK": 300, "LGA": 150}, "other": 40}


# --- cells -----------------------------------------------------------------------------------------------------------


def test_a_number_column_is_below_bins_above_other_and_missing():
    profile = {"rows": 12, "missing": 1, "edges": [0, 1, 2], "counts": [4, 6], "mean": 1.0, "std": 0.5}
    state = number_state([-5, 0, 0.5, 1.5, 2, 9, INF, -INF, NAN], profile)
    assert cells(state).tolist() == [1, 2, 2, 1, 2, 0, 1]
    assert reference_cells(profile).tolist() == [0, 4, 6, 0, 1, 0, 1]


def test_a_text_column_is_its_values_other_unseen_and_missing():
    vector = cells(text_state([5, 3, 0], other=1, unseen=2, missing=4))
    assert vector.tolist() == [0, 5, 3, 0, 0, 1, 2, 4]
    assert [vector[place] for place in (BELOW, ABOVE, OTHER, UNSEEN, MISSING)] == [0, 0, 1, 2, 4]
    assert reference_cells(TEXT).tolist() == [0, 500, 300, 150, 0, 40, 0, 10]


def test_a_date_is_there_or_missing():
    assert cells({"rows": 5, "missing": 2}).tolist() == [0, 3, 0, 0, 0, 2]
    assert reference_cells({"rows": 5, "missing": 2, "link": 0.1}).tolist() == [0, 3, 0, 0, 0, 2]


def test_a_score_is_folded_into_cells_of_about_equal_reference_weight(chance):
    scores = chance.beta(2, 5, 100_000) * 0.8 + 0.1
    profile = {"bins": 200, "counts": np.histogram(scores, 200, (0, 1))[0].tolist()}
    reference, current = score_cells(profile, score_state(np.r_[0.01, scores[:998], 0.99]))
    assert 18 <= len(reference) - 5 <= 20
    assert reference[1:-4].max() < 1.8 * reference[1:-4].mean()
    assert reference[1:-4].min() > 0.4 * reference[1:-4].mean()
    assert reference[[BELOW, ABOVE]].tolist() == [0, 0]
    assert current[[BELOW, ABOVE]].tolist() == [1, 1]
    assert (reference.sum(), current.sum()) == (100_000, 1000)


def test_a_constant_score_of_the_reference_still_tells_another_score_apart():
    profile = {"bins": 200, "counts": np.histogram([0.3] * 500, 200, (0, 1))[0].tolist()}
    reference, current = score_cells(profile, score_state([0.1, 0.3, 0.3, 0.8]))
    assert reference.tolist() == [0, 500, 0, 0, 0, 0]
    assert current.tolist() == [1, 2, 1, 0, 0, 0]


def test_the_scores_of_several_classes_stand_side_by_side(chance):
    one, other = (np.histogram(chance.beta(*shape, 9000), 200, (0, 1))[0] for shape in ((2, 5), (5, 2)))
    profile = {"classes": {"a": {"counts": one.tolist()}, "b": {"counts": other.tolist()}}}
    state = {"rows": 9000, "scores": {"b": one.tolist(), "a": other.tolist()}}
    reference, current = score_cells(profile, state)
    assert reference.sum() == current.sum() == 18_000
    found = column_drift("", profile, None, state)
    assert (found.status, found.n) == ("ok", 9000)
    assert found.jensen_shannon > 0.5


def test_shares_are_of_all_rows_and_the_fullest_cell_of_those_with_a_value():
    found = shares(np.array([1.0, 2, 4, 0, 0, 1, 2]))
    assert found == drift_shares(missing=0.2, unseen=0.1, largest_cell=0.5, outside=0.1)
    assert shares(np.zeros(6)) is None
    assert shares(np.array([0.0, 0, 0, 0, 0, 7])).largest_cell == 0


def drift_shares(**values: float) -> Any:
    from plantao.measure.profile.counts import Shares

    return Shares(**values)


# --- distances -------------------------------------------------------------------------------------------------------


def test_jensen_shannon_by_chance_is_what_is_expected(chance):
    shares_of = np.full(20, 0.05)
    reference = chance.multinomial(50_000, shares_of).astype(float)
    for n in (165, 1000, 5000):
        found = [distance.jensen_shannon(reference, chance.multinomial(n, shares_of).astype(float)) for _ in range(300)]
        assert np.mean(found) == pytest.approx(distance.expected_jensen_shannon(20, 50_000, n), rel=0.03)


def test_population_stability_by_hand():
    # Half a row is added to each cell: 10.5, 30.5, .5 of 41.5 against 20.5, 20.5, 1.5 of 42.5; the fourth is dropped.
    p, q = np.array([10.5, 30.5, 0.5]) / 41.5, np.array([20.5, 20.5, 1.5]) / 42.5
    found = distance.population_stability(np.array([10.0, 30, 0, 0]), np.array([20.0, 20, 1, 0]))
    assert found == pytest.approx(float(((p - q) * np.log(p / q)).sum()), abs=1e-15)


def test_wasserstein_of_bin_means_is_near_that_of_the_rows(chance, reference):
    from scipy.stats import wasserstein_distance

    for shift, scale in ((0.0, 1.0), (1.0, 1.0), (0.0, 1.3), (20.0, 1.0)):
        values = chance.normal(10, 3, 5000) * scale + shift
        found = column_drift("x", reference, None, number_state(values, reference)).wasserstein
        rows = wasserstein_distance(np.random.default_rng(2013).normal(10, 3, 50_000), values) / reference["std"]
        assert found == pytest.approx(rows, abs=0.03)


def test_what_cannot_be_measured_is_an_error_and_no_number():
    empty, full = np.zeros(3), np.ones(3)
    one = Atoms(np.ones(1), np.ones(1))
    for measure in (distance.jensen_shannon, distance.population_stability, distance.chi_square):
        for pair in ((empty, full), (full, empty), (full, np.array([1.0, NAN, 1])), (full, np.array([2.0, -1, 1]))):
            with pytest.raises(ValueError, match="counts"):
                measure(*pair)
    with pytest.raises(ValueError, match="3 cells against 2"):
        distance.chi_square(full, np.ones(2))
    with pytest.raises(ValueError, match="no rows"):
        distance.expected_jensen_shannon(3, 100, 0)
    with pytest.raises(ValueError, match="constant"):
        distance.wasserstein(one, one, 0.0)
    with pytest.raises(ValueError, match="finite"):
        distance.wasserstein(one, Atoms(np.array([INF]), np.ones(1)), 1.0)


def test_a_single_row_where_the_reference_has_none_does_not_outweigh_all_others():
    reference, current = np.array([5000.0] * 20 + [0]), np.array([50.0] * 20 + [1])
    assert distance.chi_square(reference, current)[0] > 90
    assert distance.log_distance(reference, current) < -1
    current[-1] = 30
    assert distance.log_distance(reference, current) > 3


def test_what_chance_reaches_is_the_quantile_of_chi_square():
    from scipy.stats import chi2

    for freedom in (1, 2, 5, 20, 60):
        for share in (0.05, 0.01, 0.001):
            found = distance.log_ratio_by_chance(freedom, share)
            assert found == pytest.approx(math.log(chi2.isf(share, freedom) / freedom), abs=0.035)


def test_a_table_of_one_cell_has_nothing_to_differ_in():
    assert distance.chi_square(np.array([5.0, 0]), np.array([7.0, 0])) == (0.0, 0)
    assert distance.log_ratio(0.0, 0) == distance.log_ratio(0.0, 3) == math.log(distance.LEAST_RATIO)


# --- one column ------------------------------------------------------------------------------------------------------


def test_an_undrifted_day_is_near_what_chance_gives(chance, reference):
    found = column_drift("x", reference, LIMITS, number_state(chance.normal(10, 3, 1000), reference))
    assert found.status == "ok"
    assert found.jensen_shannon == pytest.approx(found.expected, rel=0.4)
    assert found.wasserstein < 0.15
    assert found.distance < 1
    assert found.day_limit == 1.0
    assert not found.over_day_limit


def test_a_shift_is_seen(chance, reference):
    found = column_drift("x", reference, LIMITS, number_state(chance.normal(13, 3, 1000), reference))
    assert found.over_day_limit
    assert found.wasserstein == pytest.approx(1, abs=0.1)
    assert found.jensen_shannon > 3 * found.expected
    assert found.population_stability > 0.5


def test_a_column_that_is_nothing_but_missing_is_far_away_and_no_nan(reference):
    found = column_drift("x", reference, LIMITS, number_state([NAN] * 200, reference))
    assert found.status == "ok"
    assert found.jensen_shannon == pytest.approx(1)
    assert found.missing_share == 1
    assert found.wasserstein is None
    assert found.over_day_limit


def test_a_reference_that_is_nothing_but_missing_notices_the_first_values():
    for profile in ({"rows": 900, "missing": 900}, {"rows": 900, "missing": 900, "values": {}, "other": 0}):
        same = {"rows": 100, "missing": 100}
        found = column_drift("x", profile, LIMITS, same)
        assert (found.status, found.jensen_shannon, found.over_day_limit) == ("ok", 0, False)
        for filled in (
            number_state([1.0] * 50 + [NAN] * 50, profile),
            text_state([], unseen=50, missing=50),
            {"rows": 100, "missing": 50, "counts": [20, 30], "sums": [1.0, 2.0], "squares": 3.0, "other": 0},
        ):
            assert column_drift("x", profile, LIMITS, filled).over_day_limit


def test_a_constant_feature_is_quiet_until_it_changes():
    profile = number_profile([7.0] * 500)
    assert len(profile["edges"]) == 1
    same = column_drift("x", profile, LIMITS, number_state([7.0] * 100, profile))
    assert (same.status, same.jensen_shannon, same.population_stability, same.over_day_limit) == ("ok", 0, 0, False)
    assert same.wasserstein is None
    assert column_drift("x", profile, LIMITS, number_state([7.0] * 50 + [8.0] * 50, profile)).over_day_limit
    assert column_drift("x", profile, LIMITS, number_state([6.0] * 100, profile)).over_day_limit
    vector = reference_cells(profile)
    days = np.stack([cells(number_state([7.0] * 100, profile))] * 40)
    limits = day_limits(vector * 10, days, seed=1)
    assert drift.day_limit(limits) == drift.week_limit(limits, 20) == pytest.approx(math.log(6.635), abs=0.02)
    one_in_thousand = number_state([7.0] * 999 + [NAN], profile)
    assert not column_drift("x", profile, limits, one_in_thousand).over_day_limit


def test_an_unseen_category_is_counted_and_far_away():
    found = column_drift("origin", TEXT, LIMITS, text_state([50, 30, 0], other=4, unseen=15, missing=1))
    assert found.unseen_share == pytest.approx(0.15)
    assert found.over_day_limit
    assert not column_drift("origin", TEXT, LIMITS, text_state([50, 30, 15], other=4, missing=1)).over_day_limit


def test_infinite_values_are_neither_missing_nor_a_nan(reference, chance):
    values = np.r_[chance.normal(10, 3, 900), [INF] * 50, [-INF] * 50]
    found = column_drift("x", reference, LIMITS, number_state(values, reference))
    assert found.status == "ok"
    assert found.missing_share == 0
    assert found.over_day_limit
    assert found.wasserstein < 0.2
    assert json.loads(json.dumps(found.__dict__), parse_constant=pytest.fail)


def test_values_too_large_to_add_up_lose_the_one_figure_only(reference):
    state = number_state([10.0] * 100, reference)
    state["sums"][3] = INF
    state["counts"][3] = max(state["counts"][3], 1)
    assert column_drift("x", reference, LIMITS, state).status == "failed"


def test_three_rows_are_measured_but_not_judged(reference):
    found = column_drift("x", reference, LIMITS, number_state([50, 60, 70], reference))
    assert found.status == "not_enough"
    assert found.n == 3
    assert 0 < found.expected <= 1
    assert found.jensen_shannon == pytest.approx(1)
    assert math.isfinite(found.distance)
    assert not found.over_day_limit


@pytest.mark.parametrize("state", [None, {}, {"rows": 0, "missing": 0, "counts": [0, 0, 0], "sums": [0, 0, 0]}])
def test_a_day_without_rows_says_so(reference, state):
    assert column_drift("x", reference, LIMITS, state) == ColumnDrift("x", 0, "no_rows")


@pytest.mark.parametrize(
    "state",
    [
        {"rows": 50, "missing": 0, "counts": [1, 49], "sums": [0, 0]},  # the bins of another reference
        {"rows": 50, "missing": 0, "counts": "abc"},
        {"rows": 50, "missing": 0, "counts": [-1] + [51] * 21, "sums": [0] * 22},
        {"rows": 50, "missing": None},
        {"rows": 50, "missing": 0, "counts": [0] * 22, "sums": [0] * 22},
        {"rows": "many"},
        {"rows": 50, "scores": {}},
        {"rows": 50, "scores": {"true": [1] * 200}},
    ],
)
def test_a_broken_state_fails_alone(reference, state):
    found = column_drift("x", reference, LIMITS, state)
    assert found.status == "failed"
    assert found.distance is None


def test_a_reference_without_rows_leaves_the_distance_undefined():
    found = column_drift("x", {"rows": 0, "missing": 0}, None, {"rows": 50, "missing": 10})
    assert (found.status, found.missing_share, found.distance) == ("undefined", 0.2, None)


def test_a_regression_score_is_a_number_column(chance):
    profile = number_profile(chance.normal(100, 20, 5000))
    del profile["rows"], profile["missing"]
    state = number_state(chance.normal(130, 20, 500), profile)
    del state["missing"], state["other"]
    found = column_drift("", profile, LIMITS, state)
    assert (found.status, found.missing_share) == ("ok", 0)
    assert found.wasserstein == pytest.approx(1.5, abs=0.15)


def test_a_sum_of_days_is_a_week(chance, reference):
    days = [number_state(chance.normal(10, 3, 200), reference) for _ in range(7)]
    week = {
        name: np.sum([day[name] for day in days], axis=0).tolist()
        for name in ("rows", "missing", "counts", "sums", "other")
    }
    merged = column_drift("x", reference, None, week)
    expected = weekly_distances(reference_cells(reference), [cells(day) for day in days])
    assert merged.distance == pytest.approx(expected[-1], abs=1e-12)
    assert expected[:3] == [None] * 3


def test_atoms_need_sums(reference):
    assert atoms({"counts": [1, 2]}, 0.0) is None
    assert atoms({"counts": [0, 0], "sums": [0, 0]}, 0.0) is None
    found = atoms({"counts": [2, 0, 4], "sums": [-2.0, 0.0, 8.0]}, 10.0)
    assert found.values.tolist() == [9, 12]
    assert found.weights.tolist() == [2, 4]
    without = {name: value for name, value in reference.items() if name != "sums"}
    assert column_drift("x", without, None, number_state([1, 2, 3] * 20, reference)).wasserstein is None


# --- limits ----------------------------------------------------------------------------------------------------------


def drawn_days(chance, count: int, rows: int, spread: float = 0.0) -> np.ndarray:
    """Days of one distribution whose shares wobble from day to day, laid out as a number column."""
    inner = [
        chance.multinomial(rows, chance.dirichlet(np.full(20, 1 / spread)) if spread else np.full(20, 0.05))
        for _ in range(count)
    ]
    return np.pad(np.array(inner, dtype=float), ((0, 0), (1, 4)))


def test_limits_are_plain_values_and_the_same_for_the_same_seed(chance):
    days = drawn_days(chance, 90, 165)
    limits = day_limits(days.sum(axis=0), days, seed=3)
    assert json.loads(json.dumps(limits), parse_constant=pytest.fail) == limits
    assert limits == day_limits(days.sum(axis=0), days, seed=3)
    assert set(limits) == {
        *("count", "chance", "drift_max", "week_mean", "week_sd"),
        *("missing_max", "unseen_max", "largest_cell_max", "outside_max"),
    }
    assert limits["count"] == 90
    assert 0.4 < limits["drift_max"] < 1.1
    # For independent rows chi-square over its degrees of freedom is 1, give or take sqrt(2/19).
    assert limits["week_mean"] == pytest.approx(-1 / 19, abs=0.1)
    assert limits["week_sd"] == pytest.approx(math.sqrt(2 / 19), abs=0.08)


def test_a_day_is_held_against_the_others_even_when_the_reference_is_only_the_days(chance):
    days = drawn_days(chance, 40, 100)
    days[0] = 0
    days[0, 20] = 100
    rest = days[1:].sum(axis=0)
    expected = distance.log_distance(rest, days[0])
    assert day_limits(days.sum(axis=0), days, seed=1)["drift_max"] == pytest.approx(expected)
    assert day_limits(days.sum(axis=0) / 2, days, seed=1)["drift_max"] == pytest.approx(expected)
    more = day_limits(days.sum(axis=0) * 2, days, seed=1)["drift_max"]
    assert more == pytest.approx(distance.log_distance(days.sum(axis=0) * 2 - days[0], days[0]))


def test_quality_maxima_are_those_of_the_worst_day():
    day = np.array([0.0, 50, 50, 0, 0, 0, 0])
    worst = np.array([3.0, 60, 20, 7, 0, 2, 8])
    limits = day_limits(day * 40, np.stack([day] * 30 + [worst]), seed=1)
    assert limits["missing_max"] == pytest.approx(0.08)
    assert limits["unseen_max"] == pytest.approx(0.02)
    assert limits["outside_max"] == pytest.approx(0.10)
    assert limits["largest_cell_max"] == pytest.approx(60 / 92)


def test_too_few_days_or_rows_give_no_limits(chance):
    few = drawn_days(chance, 5, 100)
    assert day_limits(few.sum(axis=0), few, seed=1)["week_mean"] is None
    tiny = drawn_days(chance, 50, 3)
    nothing = day_limits(tiny.sum(axis=0), tiny, seed=1)
    assert nothing["count"] == 0
    assert {value for name, value in nothing.items() if name not in {"count", "chance"}} == {None}
    one = drawn_days(chance, 1, 100)
    assert day_limits(one.sum(axis=0), one, seed=1)["drift_max"] is None
    assert drift.day_limit(nothing) is None
    assert drift.day_limit(LIMITS | {"count": 29}) is None
    assert drift.week_limit(LIMITS | {"count": 29}, 5) is None
    assert drift.week_limit(LIMITS | {"week_mean": None}, 5) is None


def test_the_weekly_limit_rises_with_the_number_of_columns_watched():
    assert drift.week_limit(LIMITS, 1) == pytest.approx(0.5 + 2.3263478740 * 0.2)
    assert drift.week_limit(LIMITS, 20) == pytest.approx(0.5 + 3.2905267315 * 0.2)


# --- episodes --------------------------------------------------------------------------------------------------------


def told(daily: list[float | None], weekly: list[float | None] | None = None, limits: Any = LIMITS) -> list[Any]:
    days = [FIRST + timedelta(days=i) for i in range(len(daily))]
    drifts = [None if d is None else ColumnDrift("x", 100, "ok", distance=d) for d in daily]
    found = episodes(days, drifts, weekly or [None] * len(daily), limits, 20)
    return [((e.opened - FIRST).days, e.closed and (e.closed - FIRST).days, (e.worst_day - FIRST).days) for e in found]


def test_one_day_above_is_no_drift_but_two_of_three_are():
    assert told([0, 2, 0, 0, 2, 0, 0]) == []
    assert told([0, 2, 0, 2]) == [(3, None, 3)]
    assert told([2, 3, 0, 0, 0, 0, 0, 0, 0]) == [(1, 8, 1)]


def test_it_closes_after_seven_quiet_days_and_not_before():
    assert told([2, 2, *[0] * 6, 4, *[0] * 7]) == [(1, 15, 8)]
    assert told([2, 2, *[0] * 6]) == [(1, None, 1)]
    assert told([2, 2, *[0] * 7, 2, 2, *[0] * 7]) == [(1, 8, 1), (10, 17, 10)]


def test_days_that_were_not_measured_are_neither_loud_nor_quiet():
    assert told([2, None, None, 2]) == [(3, None, 3)]
    assert told([2, 2, *[None] * 20]) == [(1, None, 1)]
    few = ColumnDrift("x", 3, "not_enough", distance=9.0)
    assert episodes([FIRST, FIRST + timedelta(days=1)], [few, few], [None, None], LIMITS, 1) == []


def test_a_week_above_its_limit_opens_and_keeps_open():
    weekly = [0.0, 1.2, 1.3, *[1.0] * 9]
    assert told([0.0] * 12, weekly) == [(1, 9, 2)]
    days = [FIRST, FIRST + timedelta(days=1)]
    loud = ColumnDrift("x", 100, "ok", distance=2.0)
    both = episodes(days, [loud, loud], [0.0, 3.0], LIMITS, 20)
    assert both[0].reason == "above its largest reference day on 2 of 3 days and 7 days together above their limit"
    assert both[0].worst == pytest.approx(math.exp(3.0 - drift.week_limit(LIMITS, 20)))


def test_without_thirty_reference_days_nothing_is_said():
    assert told([9] * 5, limits=None) == told([9] * 5, limits={}) == told([9] * 5, limits=LIMITS | {"count": 29}) == []


def test_undrifted_days_rarely_open_an_episode_and_a_shift_does_within_days(chance):
    opened = 0
    for _ in range(10):
        days = drawn_days(chance, 300, 165, spread=0.02)
        reference, later = days[:90], days[90:]
        whole, limits = reference.sum(axis=0), day_limits(reference.sum(axis=0), reference, seed=1)
        opened += len(followed(whole, later, limits))
    assert opened <= 10  # in 2100 days: at most one in 210, for one column of twenty
    later[100:, 3] += 15
    found = followed(whole, later[95:130], limits)
    assert found
    assert (found[0].opened - FIRST).days <= 10


def followed(whole: Any, later: Any, limits: Any) -> list[Any]:
    distances = [distance.log_distance(whole, day) for day in later]
    daily = [ColumnDrift("x", 165, "ok", distance=away) for away in distances]
    days = [FIRST + timedelta(days=i) for i in range(len(later))]
    return episodes(days, daily, weekly_distances(whole, list(later)), limits, 20)


# --- ranking ---------------------------------------------------------------------------------------------------------


def test_columns_are_ranked_by_how_far_over_the_limit_times_the_link():
    def one(name: str, away: float | None, limit: float | None = 1.0) -> ColumnDrift:
        return ColumnDrift(name, 100, "ok" if away is not None else "failed", distance=away, day_limit=limit)

    drifts = [one("far_unlinked", 5.0), one("broken", None), one("near", 1.5), one("far", 4.0), one("", 2.0)]
    links = {"far_unlinked": 0.0, "near": 0.9, "far": 0.5, "broken": 1.0}
    assert [d.column for d in ranked(drifts, links)] == ["far", "", "near", "far_unlinked", "broken"]
