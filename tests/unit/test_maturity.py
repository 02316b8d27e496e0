"""When a day is ripe to be judged, and which days are looked at again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from plantao.config.job import Outcome
from plantao.measure.outcomes.maturity import (
    Check,
    Cohort,
    Predicted,
    Tallied,
    changed_days,
    chunks,
    coverage,
    days_to_probe,
    days_with_news,
    is_mature,
    windows_of,
)
from plantao.measure.profile.sketch import added
from plantao.window import of_days

OUTCOME = Outcome(table="t", column="c", known_after=timedelta(days=2), mature_at=0.8)
END = datetime(2013, 4, 2, tzinfo=UTC)
FIRST = date(2013, 4, 1)


@pytest.mark.parametrize(
    ("labelled", "rows", "after", "mature"),
    [(80, 100, 2, True), (79, 100, 2, False), (100, 100, 1.99, False), (0, 0, 9, False), (100, 100, 2, True)],
)
def test_a_day_is_mature_when_its_outcomes_are_due_and_enough_are_there(labelled, rows, after, mature):
    assert is_mature(OUTCOME, END, labelled, rows, END + timedelta(days=after)) is mature


def test_coverage_of_nothing_is_nothing():
    assert coverage(1, 4) == 0.25
    assert coverage(0, 0) is None


def test_a_local_day_is_as_long_as_the_clock_makes_it():
    zone = ZoneInfo("America/New_York")
    window = of_days(date(2013, 3, 10), date(2013, 3, 10), zone)
    assert window.end - window.start == timedelta(hours=23)
    assert windows_of([date(2013, 3, 10), date(2013, 3, 9), date(2013, 3, 12)], zone) == [
        of_days(date(2013, 3, 9), date(2013, 3, 10), zone),
        of_days(date(2013, 3, 12), date(2013, 3, 12), zone),
    ]


def test_days_are_taken_together_up_to_a_number_of_rows():
    days = {FIRST + timedelta(days=i): rows for i, rows in enumerate([4, 4, 4, 30, 1, 1])}
    assert [[day.day for day in chunk] for chunk in chunks(days, 10)] == [[1, 2], [3], [4], [5, 6]]
    assert [len(chunk) for chunk in chunks(days, 100, 4)] == [4, 2]
    assert chunks({FIRST: 1, date(2013, 4, 3): 1}, 10) == [[FIRST], [date(2013, 4, 3)]]
    assert chunks({}, 10) == []


def test_what_changed_is_looked_at_and_what_is_old_is_not():
    cohort = Cohort("champion", FIRST, 1)
    full = Tallied(Predicted(10, 5), 10, Check(10, 77))
    assert changed_days({cohort: Predicted(10, 5)}, {cohort: full}) == set()
    assert changed_days({cohort: Predicted(10, 6)}, {cohort: full}) == {FIRST}
    assert changed_days({cohort: Predicted(10, 5)}, {}) == {FIRST}
    part = Tallied(Predicted(10, 5), 9, Check(9, 78))
    for known, days, probed in [(full, 29, True), (full, 32, False), (part, 32, True), (part, 53, False)]:
        now = datetime(2013, 4, 1, tzinfo=UTC) + timedelta(days=days)
        assert bool(days_to_probe({cohort: known}, OUTCOME, now, UTC)) is probed
    assert days_with_news({cohort: full}, {FIRST}, {FIRST: Check(10, 77)}) == set()
    assert days_with_news({cohort: full}, {FIRST}, {FIRST: Check(10, 78)}) == {FIRST}
    assert days_with_news({cohort: full}, {FIRST}, {}) == {FIRST}
    assert days_with_news({cohort: full}, set(), {}) == set()


def test_sums_add_up_by_name_and_by_place():
    one = {"kind": "binary", "bins": {"3": [1, 2.5]}, "n": 1}
    other = {"kind": "binary", "bins": {"3": [1, 2.5], "4": [7, 0]}, "n": 2, "lags": {"1": 1}}
    assert added([one, other]) == {"kind": "binary", "bins": {"3": [2, 5.0], "4": [7, 0]}, "n": 3, "lags": {"1": 1}}
    assert added([]) == {}
