"""Windows tile time, and they are the ones that Airflow draws."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from examples import examples
from plantao.window import Schedule, Window, is_covered, merged, owed

ZONES = ["UTC", "America/New_York", "America/Sao_Paulo", "Europe/Lisbon", "Australia/Lord_Howe", "Asia/Kathmandu"]
CRONS = [
    *("0 0 * * *", "30 2 * * *", "30 1 * * *", "0 * * * *", "*/15 * * * *", "0 */2 * * *", "30 1-3 * * *"),
    *("0 0 * * 1", "0 0 1 * *", "15 3 31 * *", "0 6 * * 1-5"),
]
# Around the days on which clocks are changed in these zones, and in between.
MOMENTS = st.sampled_from(
    [datetime(2013, month, day, tzinfo=UTC) for month, day in [(3, 9), (11, 2), (10, 26), (4, 6), (2, 16)]]
).flatmap(lambda base: st.integers(0, 60 * 48).map(lambda minutes: base + timedelta(minutes=minutes)))
HOUR = timedelta(hours=1)
DAYS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=8)


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), moment=MOMENTS)
@settings(max_examples=examples(150), deadline=None)
def test_windows_follow_one_another_without_gap_or_overlap(cron, zone, moment):
    span = timedelta(days=3) if cron.split()[2] == cron.split()[4] == "*" else timedelta(days=400)
    if "*/15" in cron or cron == "0 * * * *":
        span = timedelta(days=1)
    windows = list(Schedule(cron, ZoneInfo(zone)).windows(moment, moment + span))
    assert windows
    assert windows[0].start >= moment
    assert windows[-1].end <= moment + span
    assert all(one.end == next_.start for one, next_ in pairwise(windows))


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), moment=MOMENTS)
@example(cron="30 2 * * *", zone="America/New_York", moment=datetime(2013, 3, 10, 8, tzinfo=UTC))
@settings(max_examples=examples(300), deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_they_are_the_data_intervals_of_airflows_own_timetable(cron, zone, moment):
    import pendulum
    from airflow.timetables.interval import CronDataIntervalTimetable

    theirs, ours = CronDataIntervalTimetable(cron, timezone=zone), Schedule(cron, ZoneInfo(zone))
    assume(_is_far_from_a_change(moment, zone))
    there = pendulum.instance(moment)
    assert ours.after(moment) == theirs._get_next(there)
    assert ours.before(moment) == theirs._get_prev(there)
    assert ours.at_or_after(moment) == theirs._align_to_next(there)
    assert ours.at_or_before(moment) == theirs._align_to_prev(there)
    inferred = theirs.infer_manual_data_interval(run_after=there)
    if _is_far_from_a_change(inferred.end, zone):
        assert ours.last_complete(moment) == Window.of(inferred.start, inferred.end)
        assert type(Window.of(inferred.start, inferred.end).start) is datetime
    else:  # there Airflow steps back from a tick to the same tick, and would score an interval without length
        assert ours.last_complete(moment) == Window.of(ours.before(inferred.end), inferred.end)


@given(cron=st.sampled_from(CRONS), zone=st.sampled_from(ZONES), moment=MOMENTS)
@settings(max_examples=examples(150), deadline=None)
def test_each_moment_lies_between_the_tick_before_and_the_tick_after(cron, zone, moment):
    schedule = Schedule(cron, ZoneInfo(zone))
    assert schedule.before(moment) < moment < schedule.after(moment)
    assert schedule.at_or_before(moment) <= moment <= schedule.at_or_after(moment)
    assert schedule.before(schedule.after(moment)) in {moment, schedule.before(moment)}
    assert schedule.after(schedule.before(moment)) in {moment, schedule.after(moment)}
    assert schedule.last_complete(moment).end <= moment


def _is_far_from_a_change(moment: datetime, zone: str) -> bool:
    before, after = ((moment + step).astimezone(ZoneInfo(zone)).utcoffset() for step in (-HOUR, HOUR))
    return before == after


def days(parts) -> list[Window]:
    start = datetime(2013, 4, 1, tzinfo=UTC)
    return [Window(start + timedelta(days=s), start + timedelta(days=s + n)) for s, n in parts]


@given(done=DAYS, asked=st.tuples(st.integers(0, 30), st.integers(1, 5)))
def test_what_is_covered_is_what_is_covered_hour_by_hour(done, asked):
    (window,) = days([asked])
    hours = {s * 24 + h for s, n in done for h in range(n * 24)}
    wanted = {asked[0] * 24 + h for h in range(asked[1] * 24)}
    assert is_covered(window, merged(days(done))) == (wanted <= hours)


@given(done=DAYS)
def test_what_is_owed_and_what_is_done_are_all_there_is(done):
    start = datetime(2013, 4, 1, tzinfo=UTC)
    schedule = Schedule("0 0 * * *", UTC)
    found = owed(schedule, start, None, merged(days(done)), start + timedelta(days=30, hours=5))
    finished = {s + d for s, n in done for d in range(n)}
    assert [window.start for window in found] == [start + timedelta(days=d) for d in range(30) if d not in finished]
