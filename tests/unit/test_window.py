"""Which rows a run is for: windows, what is owed, and where late rows are looked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from plantao.errors import UsageError
from plantao.window import BEGINNING, Schedule, Window, is_covered, late_ranges, merged, owed, owed_on_demand
from world import APRIL, day

NEW_YORK = ZoneInfo("America/New_York")
DAILY = Schedule("0 0 * * *", ZoneInfo("UTC"))


def local(*parts: int, zone: ZoneInfo = NEW_YORK) -> datetime:
    return datetime(*parts, tzinfo=zone)


@pytest.mark.parametrize(
    ("first", "hours"),
    [(local(2013, 3, 9), [24, 23, 24]), (local(2013, 11, 2), [24, 25, 24])],
    ids=["spring", "autumn"],
)
def test_days_on_which_the_clock_is_changed_have_their_own_length_and_no_gap(first, hours):
    windows = list(Schedule("0 0 * * *", NEW_YORK).windows(first, first + timedelta(days=4)))[:3]
    assert [(w.end - w.start) / timedelta(hours=1) for w in windows] == hours
    assert all(a.end == b.start for a, b in pairwise(windows))


def test_hours_are_counted_through_the_change_of_the_clock():
    windows = list(Schedule("0 * * * *", NEW_YORK).windows(local(2013, 11, 3), local(2013, 11, 3, 6)))
    assert len(windows) == 7


def test_weeks_start_on_monday_and_months_on_the_first():
    assert Schedule("0 0 * * 1", UTC).last_complete(datetime(2013, 4, 10, 12, tzinfo=UTC)) == Window(
        datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 8, tzinfo=UTC)
    )
    assert Schedule("0 0 1 * *", UTC).last_complete(datetime(2013, 4, 1, tzinfo=UTC)) == Window(
        datetime(2013, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
    )


def test_the_first_window_starts_at_the_first_tick_from_the_start_on():
    assert next(DAILY.windows(APRIL + timedelta(hours=1), APRIL + timedelta(days=5))) == day(2)


def test_a_window_needs_zones_and_a_length():
    with pytest.raises(UsageError, match="time zone"):
        Window(datetime(2013, 4, 1), datetime(2013, 4, 2))  # noqa: DTZ001 - the mistake this is about
    with pytest.raises(UsageError, match="start before it ends"):
        Window(APRIL, APRIL)


def test_windows_are_shown_in_the_jobs_zone_and_whole_days_without_the_hour():
    assert day(3).shown() == "2013-04-03"
    assert Window(day(1).start, day(7).end).shown() == "2013-04-01 .. 2013-04-08"
    assert day(1).shown(NEW_YORK) == "2013-03-31 20:00:00-0400 .. 2013-04-01 20:00:00-0400"


def test_what_is_owed_has_ended_and_is_not_done():
    done = merged([day(1), day(3)])
    now = day(5).start + timedelta(hours=5)
    assert list(owed(DAILY, APRIL, None, done, now)) == [day(2), day(4)]
    assert list(owed(DAILY, APRIL, day(3).end, done, now)) == [day(2)]
    assert list(owed(DAILY, APRIL, None, [Window(day(1).start, day(9).end)], now)) == []


def test_a_job_on_demand_owes_everything_since_the_last_run():
    now = day(5).start
    assert owed_on_demand(APRIL, [], now) == Window(APRIL, now)
    assert owed_on_demand(APRIL, [day(2)], now) == Window(day(2).end, now)
    assert owed_on_demand(None, [], now) == Window(BEGINNING, now)
    assert owed_on_demand(APRIL, [Window(APRIL, now)], now) is None


def test_late_rows_are_looked_for_only_where_the_ledger_says_done():
    done = merged([day(1), day(3)])
    assert late_ranges(day(5), timedelta(days=3), APRIL, done) == [day(3)]
    assert late_ranges(day(5), timedelta(days=9), APRIL, done) == [day(1), day(3)]
    assert late_ranges(day(5), timedelta(hours=30), APRIL, done) == [
        Window(day(3).start + timedelta(hours=18), day(3).end)
    ]
    assert late_ranges(day(5), timedelta(0), APRIL, done) == []


def test_late_rows_are_never_looked_for_before_the_jobs_start():
    done = [Window(APRIL - timedelta(days=30), day(4).end)]
    assert late_ranges(day(2), timedelta(days=9), APRIL, done) == [day(1)]
    assert late_ranges(Window(BEGINNING, APRIL), timedelta(days=9), None, done) == []


def test_time_that_touches_or_overlaps_is_one():
    assert merged([day(2), day(1), day(4), Window(day(4).start, day(6).end)]) == [
        Window(day(1).start, day(2).end),
        Window(day(4).start, day(6).end),
    ]
    assert is_covered(day(2), merged([day(1), day(2), day(3)]))
    assert not is_covered(Window(day(3).start, day(4).end), merged([day(1), day(2), day(3)]))


def test_what_is_done_is_not_walked_through(monkeypatch):
    ticks = []
    after = Schedule.after
    monkeypatch.setattr(Schedule, "after", lambda self, moment: ticks.append(moment) or after(self, moment))
    every = Schedule("*/5 * * * *", UTC)
    done = [Window(APRIL, APRIL + timedelta(days=3650)), Window(APRIL + timedelta(days=3651), day(1).end.replace(2029))]
    assert len(list(owed(every, APRIL, None, done, done[1].end))) == 24 * 12
    assert len(ticks) < 2 * 24 * 12
