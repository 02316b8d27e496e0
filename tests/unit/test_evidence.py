"""What a run could not check is kept with its reason, and told when it lasts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

import story
from plantao.measure.detect.findings import NotJudged
from plantao.measure.detect.missing import PERSISTS, figures, persisting
from plantao.measure.metrics.metric import Metric
from plantao.report import page as report_page
from plantao.report.data import Unjudged
from plantao.report.page import page
from plantao.window import Window

HOUR = timedelta(hours=1)


def window(number, hours=24, place=0):
    start = datetime(2013, 4, number, tzinfo=UTC) + place * hours * HOUR
    return Window(start, start + hours * HOUR)


def unjudged(check="null_share", column="x", status="not_enough"):
    return NotJudged(check, column, status, "")


def keep(not_judged, kept=(), *, whole=True, version=1):
    found = figures(window(1), version, 12, not_judged, kept, whole=whole)
    return [(one.name, one.column, one.value, one.status, one.n) for one in found]


def test_only_what_could_not_be_judged_is_kept():
    assert keep([unjudged(), unjudged("row_count", "", "undefined")]) == [
        ("check_null_share", "x", None, "not_enough", 12), ("check_row_count", "", None, "undefined", 12)
    ]  # fmt: skip
    assert keep([]) == []


def test_what_can_be_judged_now_is_ok_and_what_was_ok_says_nothing():
    before = figures(window(1), 1, 12, [unjudged(), unjudged("range")], [], whole=True)
    assert keep([unjudged("range")], before)[1:] == [("check_null_share", "x", None, "ok", 12)]
    healed = figures(window(1), 1, 40, [], before, whole=True)
    assert keep([], healed) == []
    assert keep([], before, version=2) == []


def test_a_few_late_rows_take_nothing_back():
    assert keep([unjudged()], whole=False) == []
    before = figures(window(1), 1, 12, [unjudged()], [], whole=True)
    assert keep([unjudged()], before, whole=False) == [("check_null_share", "x", None, "not_enough", 12)]
    assert keep([], before, whole=False) == [("check_null_share", "x", None, "ok", 12)]


# --- what lasts ------------------------------------------------------------------------------------------------------


def lasting(days, status="undefined", scored=None, *, columns=("x",), version=1):
    windows = [window(day) for day in range(1, 8)] if scored is None else scored
    kept = [
        Metric(window(day), 1, "check_range", None, 40, column, status=status) for day in days for column in columns
    ]
    return persisting([(one, 1) for one in windows], kept, version, UTC)


def test_a_check_that_cannot_be_made_on_three_days_in_a_row_is_missing_evidence():
    (found,) = lasting([4, 5, 6, 7])
    assert (found.lane, found.fingerprint, found.word) == ("missing", "missing check_range v1", "missing")
    assert (found.since, found.message) == (
        date(2013, 4, 4), "the check range of x cannot be made since 2013-04-04: undefined")  # fmt: skip
    assert lasting([6, 7]) == []
    assert lasting([3, 4, 5]) == []  # it could be made since
    assert lasting([3, 5, 7]) == []
    assert lasting([5, 6, 7], version=2) == []  # a new version starts anew


@pytest.mark.parametrize("status", ["not_enough", "provisional", "ok"])
def test_few_rows_and_what_is_not_asked_are_no_trouble(status):
    assert lasting(range(1, 8), status) == []


def test_many_columns_are_one_condition():
    (found,) = lasting([5, 6, 7], columns=list("abcdefg"))
    assert "range of a, b, c, d, e and 2 more cannot" in found.message
    assert found.details["columns"] == list("abcdefg")


def test_days_without_rows_are_passed_over_and_every_window_of_a_day_counts():
    some = [window(day) for day in (1, 5, 7)]
    assert len(lasting([1, 5, 7], scored=some)) == 1
    hours = [window(day, 12, place) for day in (5, 6, 7) for place in (0, 1)]
    kept = [Metric(one, 1, "check_range", None, 40, "x", status="failed") for one in hours]
    assert len(persisting([(one, 1) for one in hours], kept, 1, UTC)) == 1
    assert persisting([(one, 1) for one in hours], kept[1:], 1, UTC) == []
    assert PERSISTS == 3


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_says_what_could_not_be_checked(monkeypatch):
    monkeypatch.setattr(report_page, "PICTURES", dict.fromkeys(report_page.PICTURES, lambda *_: None))
    told = story.data()
    assert "Checks that could not be made" not in page(told)
    every = [Unjudged("frozen_column", column, "provisional", 12) for column in story.COLUMNS]
    data = replace(
        told, unjudged=[*every, Unjudged("range", "<x>", "failed", 1), Unjudged("score", "", "undefined", 2)]
    )
    written = page(data)
    for words in ("Checks that could not be made", ">all columns<", ">12 days<", ">&lt;x&gt;<", ">1 day<", ">failed<"):
        assert words in written
    assert written.count(">frozen_column<") == 1
    assert "todas as colunas" in page(replace(data, language="pt"))
