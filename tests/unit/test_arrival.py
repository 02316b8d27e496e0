"""How long outcomes take is told of days that are old enough to know."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

import story
from plantao.report import page as report_page
from plantao.report.label_delay import Arrived, arrival
from plantao.report.page import page

FIRST = date(2013, 4, 1)
DAY = timedelta(days=1)


def after(days, count=1, *, now=60, known_after=DAY, mature_at=0.8):
    moment = datetime(2013, 4, 1, tzinfo=UTC) + now * DAY
    given = [replace(days, day=FIRST + n * DAY) for n in range(count)] if isinstance(days, Arrived) else days
    return arrival(given, known_after, mature_at, moment)


def of_day(lags, rows=100, labelled=None, place=0):
    return Arrived(FIRST + place * DAY, rows, sum(lags.values()) if labelled is None else labelled, lags)


def test_it_tells_the_median_the_slow_tenth_the_slowest_and_the_shares():
    found = after(of_day({0: 50, 1: 35, 5: 9, 20: 1}))
    assert (found.median, found.ninety, found.slowest) == (1, 6, 21)
    assert found.shares == {1: 0.50, 3: 0.85, 7: 0.94, 30: 0.95}
    assert found.enough == 2


def test_a_day_that_is_not_so_old_yet_says_nothing_of_later_days():
    old, young = of_day({0: 50, 5: 50}), of_day({0: 50}, place=59)
    assert after([old, young], now=60).shares == {1: 0.5, 3: 0.5, 7: 1.0, 30: 1.0}
    # Of the young one only the fast outcomes are known yet: how long they take is told of the other.
    assert after([old, replace(young, lags={0: 90})]).slowest == after([old]).slowest
    assert after([old, replace(young, lags={0: 90})]).ninety == 6
    assert after(of_day({0: 50}), now=1).shares == {1: None, 3: None, 7: None, 30: None}
    assert after(of_day({0: 50}), now=1).median == 1


def test_outcomes_without_a_moment_say_nothing_and_early_ones_came_within_a_day():
    found = after(of_day({-2: 30, 0: 10}, rows=100, labelled=100))
    assert (found.median, found.slowest, found.shares[1]) == (1, 1, 1.0)
    assert after(of_day({}, labelled=100)) is None
    assert after([]) is None


def test_what_never_suffices_is_said():
    assert after(of_day({0: 50})).enough is None
    assert after(of_day({0: 50}), mature_at=0.5).enough == 1


@pytest.fixture(scope="module")
def told():
    return story.data()


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Draw nothing, which takes seconds and is not what is looked at."""
    monkeypatch.setattr(report_page, "PICTURES", dict.fromkeys(report_page.PICTURES, lambda *_: None))


def test_the_report_says_when_outcomes_arrive_in_both_languages(told):
    written = page(told)
    for words in (
        *("When outcomes arrive", ">within 1 day<", ">within 2 days<", ">within 7 days<"),
        *("A day is judged from 1 day after", "80\u00a0% of its rows", "so many are known within 2 days"),
        'data-label="known after 7 days">100',
    ):
        assert words in written
    portuguese = page(replace(told, language="pt", known_after=timedelta(hours=36)))
    for words in ("Quando os desfechos chegam", ">em até 7 dias<", "a partir de 36 horas", "em até 2 dias"):
        assert words in portuguese
    assert "so many never arrive" in page(replace(told, mature_at=1.0, arrived=[of_day({0: 9})]))


def test_without_moments_of_arrival_the_report_is_silent_about_them(told):
    assert "When outcomes arrive" not in page(replace(told, arrived=()))
