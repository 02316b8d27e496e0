"""Days held against the days of the reference: what opens an episode, what closes it, and what is passed over."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from plantao.config.job import Degraded
from plantao.measure.detect.cusum import (
    DIRECTIONS,
    LABELS,
    Baseline,
    DayValue,
    baseline,
    detectable,
    effect_margin,
    episodes,
    limit_episodes,
    no_baseline,
    overdispersion,
    reference_days,
    word,
)
from plantao.measure.detect.findings import Episode

START = date(2013, 4, 1)
BASE = Baseline(mean=0.4, sd=0.1, days=90, autocorrelation=0.0)
SLOW = Baseline(mean=0.4, sd=0.1, days=90, autocorrelation=0.3)


def at(place):
    return START + timedelta(days=place)


def days(values, n=200):
    """Give days in a row; a value is in standard deviations above the mean, None is undefined."""
    found = [None if z is None else 0.4 + 0.1 * z for z in values]
    return [DayValue(at(place), value, n) for place, value in enumerate(found)]


def worse(values, base=BASE, direction="worse_is_higher"):
    return episodes(days(values), base, direction).worse


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_baseline_is_the_mean_deviation_and_lag_one_of_the_days():
    values = np.random.default_rng(1).normal(0.4, 0.1, 60)
    found = baseline([DayValue(at(i), float(v), 100 + i) for i, v in enumerate(values)])
    assert found.mean == pytest.approx(values.mean())
    assert found.sd == pytest.approx(values.std(ddof=1))
    around = values - values.mean()
    assert found.autocorrelation == pytest.approx((around[1:] * around[:-1]).sum() / (around**2).sum())
    assert (found.days, found.n) == (60, 129.5)


def test_without_thirty_days_there_is_no_statistical_alarm_and_a_sentence_says_so():
    few = [*days([0.1, -0.1] * 14 + [0]), DayValue(at(40), 0.4, 29), DayValue(at(41), None, 500)]
    assert baseline(few) is None
    assert "29 days" in no_baseline(few)
    judged = episodes(days([9] * 20), None, "worse_is_higher")
    assert (judged.worse, judged.improved) == ((), ())
    assert "30" in judged.note


def test_days_that_never_differed_do_not_divide_by_zero():
    base = baseline(days([0] * 30))
    assert base.sd > 0
    assert base.autocorrelation == 0
    assert episodes(days([0] * 30), base, "worse_is_higher").worse == ()
    assert len(episodes(days([1]), base, "worse_is_higher").worse) == 1


def test_the_reference_profile_gives_its_days_whatever_is_missing_in_them():
    rows = [{"day": "2013-01-01", "n": 800, "log_loss": 0.5, "roc_auc": None}, {"day": "2013-01-02", "n": 3}]
    assert reference_days(rows, "log_loss") == [
        DayValue(date(2013, 1, 1), 0.5, 800),
        DayValue(date(2013, 1, 2), None, 3),
    ]
    assert reference_days(rows, "roc_auc")[0].value is None


# --- what opens ------------------------------------------------------------------------------------------------------


def test_small_departures_add_up_until_they_pass_five():
    # 1.6 - 0.5 = 1.1 a day: the sum is above 5 on the fifth day.
    (found,) = worse([1.6] * 8)
    assert found.opened == at(4)
    assert found.closed is None
    assert "since 2013-04-01" in found.reason
    assert "5.5" in found.reason


def test_dependent_days_need_a_sum_of_eight():
    (found,) = worse([1.6] * 10, SLOW)
    assert found.opened == at(7)


def test_one_day_far_out_opens_alone_and_less_does_not():
    (found,) = worse([0, 4.6, 0])
    assert found.opened == at(1)
    assert found.worst == pytest.approx(4.6)
    assert "one day 4.6 standard deviations above" in found.reason
    assert worse([0, 4.4, 0]) == ()


def test_a_day_adds_at_most_four_to_the_sum():
    # 4.4 adds 3.5 as 4 would, so the sum is 5.0 after a day of 2.0 and not above it.
    assert worse([4.4, 2.0]) == ()
    assert len(worse([4.4, 2.1])) == 1


def test_of_auc_lower_is_worse_and_higher_is_an_improvement():
    judged = episodes(days([-1.5] * 8), BASE, "worse_is_lower")
    assert len(judged.worse) == 1
    assert judged.improved == ()
    judged = episodes(days([1.5] * 8), BASE, "worse_is_lower")
    assert judged.worse == ()
    assert len(judged.improved) == 1


def test_bias_is_worse_on_either_side_and_never_improves():
    for sign in (1, -1):
        judged = episodes(days([1.5 * sign] * 8), BASE, "two_sided")
        assert len(judged.worse) == 1
        assert judged.improved == ()
        assert ("above" if sign > 0 else "below") in judged.worse[0].reason
    assert DIRECTIONS["bias"] == "two_sided"


# --- what closes, and what comes after -------------------------------------------------------------------------------


def test_an_episode_is_over_ten_ordinary_days_after_however_bad_a_time():
    (found,) = worse([3] * 30 + [0] * 12)
    assert found.closed == at(39)
    assert found.worst_day == found.opened


def test_a_lasting_fault_stays_one_episode():
    values = np.random.default_rng(3).normal(1.5, 1, 300)
    assert len(worse(list(values))) == 1


def test_after_it_is_over_the_sum_starts_from_nothing():
    first, second = worse([3] * 5 + [0] * 12 + [1.6] * 6)
    assert first.closed is not None
    assert second.opened == at(21)


# --- what is passed over ---------------------------------------------------------------------------------------------


def test_days_that_are_not_mature_undefined_or_thin_neither_add_nor_forgive():
    bad = DayValue(START, 2.0, 500)
    skipped = [
        DayValue(bad.day, bad.value, 500, mature=False),
        DayValue(bad.day, None, 500),
        DayValue(bad.day, float("nan"), 500),
        DayValue(bad.day, float("inf"), 500),
        DayValue(bad.day, bad.value, LABELS - 1),
        DayValue(bad.day, bad.value, 0),
    ]
    for day in skipped:
        assert episodes([day], BASE, "worse_is_higher").worse == ()
    interrupted = [1.6, None, 1.6, None, None, 1.6, 1.6, 1.6]
    assert worse(interrupted)[0].opened == at(7)


def test_a_day_with_fewer_labels_than_usual_is_judged_more_mildly():
    base = Baseline(0.4, 0.1, 90, 0, n=400)
    day = [DayValue(START, 0.4 + 0.1 * 5, 100)]
    assert episodes(day, base, "worse_is_higher").worse == ()
    assert len(episodes([DayValue(START, 0.9, 400)], base, "worse_is_higher").worse) == 1


def test_days_may_come_in_any_order():
    some = days([1.5] * 8)
    assert episodes(some[::-1], BASE, "worse_is_higher") == episodes(some, BASE, "worse_is_higher")


# --- the owner's limits ----------------------------------------------------------------------------------------------


def test_an_owners_limit_holds_in_n_of_the_last_m_days():
    limit = Degraded(metric="roc_auc", below=0.7, runs=3, of=5)
    values = [0.6, 0.8, 0.6, 0.8, 0.6, 0.8, 0.8, 0.8]
    (found,) = limit_episodes(limit, [DayValue(at(i), v, 100) for i, v in enumerate(values)])
    assert (found.opened, found.closed, found.worst_day) == (at(4), at(5), at(4))
    assert found.worst == pytest.approx(0.1)
    assert found.reason == "roc_auc was below 0.7 on 3 of the last 5 days, which is the owner's limit"


def test_an_owners_limit_without_m_wants_days_in_a_row_and_judges_mature_days_only():
    limit = Degraded(metric="mae", above=10, runs=2)
    values = [11, 9, 11, 12, 9]
    some = [DayValue(at(i), v, 100) for i, v in enumerate(values)]
    (found,) = limit_episodes(limit, some)
    assert (found.opened, found.closed, found.worst, found.worst_day) == (at(3), at(4), 2, at(3))
    assert limit_episodes(limit, [DayValue(d.day, d.value, d.n, mature=False) for d in some]) == []


def test_a_value_on_the_owners_limit_is_within_it():
    limit = Degraded(metric="mae", above=10)
    assert limit_episodes(limit, [DayValue(START, 10.0, 100)]) == []


# --- the words and the figures beside it -----------------------------------------------------------------------------


def test_degraded_needs_the_margin_and_less_is_watch():
    episode = Episode(START, None, 4.8, START, "")
    margin = effect_margin("log_loss", 0.02, BASE)
    assert margin == pytest.approx(0.008)
    assert word(episode, 0.4081, BASE, margin, "worse_is_higher") == "degraded"
    assert word(episode, 0.4079, BASE, margin, "worse_is_higher") == "watch"
    assert word(episode, 0.2, BASE, margin, "worse_is_higher") == "watch"
    assert word(episode, None, BASE, margin, "worse_is_higher") == "degraded"


def test_the_margin_of_auc_is_absolute_and_that_of_a_regressions_bias_a_share_of_its_error():
    assert effect_margin("roc_auc", 0.02, BASE) == 0.02
    assert effect_margin("bias", 0.02, Baseline(0.0, 1, 90, 0), size=20) == pytest.approx(0.4)
    episode = Episode(START, None, 5, START, "")
    assert word(episode, -0.5, Baseline(0.0, 1, 90, 0), 0.4, "two_sided") == "degraded"
    assert word(episode, 0.3, Baseline(0.0, 1, 90, 0), 0.4, "two_sided") == "watch"
    assert word(episode, 0.37, BASE, 0.02, "worse_is_lower") == "degraded"


def test_what_can_be_found_in_a_week_follows_from_the_limit():
    assert detectable(BASE) == pytest.approx((0.5 + 5 / 7) * 0.1)
    assert detectable(SLOW) == pytest.approx((0.5 + 8 / 7) * 0.1)


def test_independent_rows_have_a_sigma_z_of_one_and_clustered_days_more():
    rng = np.random.default_rng(5)
    counts = np.full(2000, 400)
    plain = rng.binomial(counts, 0.2) / counts
    clustered = rng.binomial(counts, np.clip(rng.normal(0.2, 0.1, 2000), 0, 1)) / counts
    assert overdispersion(plain, counts) == pytest.approx(1, abs=0.06)
    assert overdispersion(clustered, counts) > 4
    # By hand: two days of 100 rows, .4 and .6, mean .5: z = -2 and 2, moving range 4, over 1.128.
    assert overdispersion([0.4, 0.6], [100, 100]) == pytest.approx(4 / 1.128)


@pytest.mark.parametrize(("shares", "counts"), [([], []), ([0.5], [9]), ([0, 0], [9, 9]), ([1, 1], [9, 9])])
def test_where_nothing_can_vary_there_is_no_sigma_z(shares, counts):
    assert overdispersion(shares, counts) is None
