"""Which window each way of asking means; the table in docs/jobs.md says the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from plantao.config.job_file import parse
from plantao.errors import UsageError
from plantao.run.requested_windows import Asked, backfilled_windows, named_window, note_of, requested_windows
from plantao.window import Window
from world import JOB

NOW = datetime(2013, 4, 20, 15, tzinfo=UTC)
NEW_YORK = JOB.replace('"daily"', '"daily"\ntimezone = "America/New_York"')
ENDED = JOB.replace("starts ", "ends = 2013-04-11\nstarts ")
ON_DEMAND = JOB.replace('"daily"', '"on demand"')


def job(text: str = JOB):
    return parse("bad_reading", text, read_query=str)


def days(first: int, last: int, hour: int = 0) -> Window:
    return Window(datetime(2013, 4, first, hour, tzinfo=UTC), datetime(2013, 4, last, hour, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "asked", "windows"),
    [
        # the schedule, an Airflow backfill, and a person who has filled in the data interval
        (JOB, Asked(interval=days(6, 7)), [days(6, 7)]),
        (NEW_YORK, Asked(interval=days(6, 8)), [days(6, 8)]),
        # the fields from and to, of the form, of the API's `conf` and of the command line; they win over an interval
        (JOB, Asked("2013-04-06", "2013-04-07"), [days(6, 7)]),
        (JOB, Asked("2013-04-06", "2013-04-08", interval=days(18, 19)), [days(6, 8)]),
        (NEW_YORK, Asked("2013-04-06", "2013-04-07"), [days(6, 7, hour=4)]),
        (NEW_YORK, Asked("2013-04-06T00:00Z", "2013-04-07T00:00+00:00"), [days(6, 7)]),
        (JOB, Asked("", ""), [days(19, 20)]),
        # nothing named: the last complete window that is due
        (JOB, Asked(), [days(19, 20)]),
        (NEW_YORK, Asked(), [days(19, 20, hour=4)]),
        (ENDED, Asked(), [days(10, 11)]),
        (JOB, Asked(interval=None, by_hand_at=NOW), [days(19, 20)]),
        # everything missing, when it is asked for
        (ENDED, Asked(missing=True), [days(n, n + 1) for n in (1, 2, 3, 6, 7, 8, 9, 10)]),
        (ENDED, Asked(missing=True, interval=days(10, 11)), [days(n, n + 1) for n in (1, 2, 3, 6, 7, 8, 9, 10)]),
        # a job without a schedule
        (ON_DEMAND, Asked(), [Window(days(4, 6).end, NOW)]),
        (ON_DEMAND, Asked(missing=True), [Window(days(4, 6).end, NOW)]),
        (ON_DEMAND, Asked("2013-04-06", "2013-04-07"), [days(6, 7)]),
    ],
)
def test_the_window_that_was_asked_for_is_the_window_that_is_scored(text, asked, windows):
    assert requested_windows(job(text), asked, [days(4, 6)], NOW) == windows


@pytest.mark.parametrize("start", ["2013-04-20", "2013-05-01"])
def test_a_job_whose_first_window_has_not_ended_has_none_by_default(start):
    young = job(JOB.replace("2013-04-01", start))
    filled_in = Asked(interval=days(19, 20), by_hand_at=NOW)  # by Airflow, when a person names none
    for asked in (Asked(), filled_in):
        with pytest.raises(UsageError, match="no window of job bad_reading is due: it starts on"):
            requested_windows(young, asked, [], NOW)
    assert requested_windows(young, Asked("2013-04-06", "2013-04-07"), [], NOW) == [days(6, 7)]
    assert requested_windows(young, Asked(interval=days(6, 7), by_hand_at=NOW), [], NOW) == [days(6, 7)]
    assert requested_windows(young, Asked(missing=True), [], NOW) == []


@pytest.mark.parametrize(
    "asked",
    [
        Asked("2013-04-01", "2036-01-01"),
        Asked("2013-04-20", "2013-04-21"),
        Asked(interval=days(20, 21)),
        Asked("2013-04-21", "2013-04-22"),
        Asked("2013-04-20T15:00", "2013-04-20T15:02"),
    ],
)
@pytest.mark.parametrize("text", [JOB, ON_DEMAND])
def test_a_window_that_has_not_ended_is_refused_in_words(text, asked):
    with pytest.raises(UsageError, match=r"ends in .*: it is 2013-04-20 15:00 in UTC by the database") as refused:
        requested_windows(job(text), asked, [], NOW)
    assert "Nothing was written." in str(refused.value)
    assert refused.value.next_step.endswith("\nplantao run bad_reading")


def test_a_clock_that_is_seconds_ahead_is_no_future():
    window = Window(NOW - timedelta(hours=1), NOW + timedelta(seconds=30))
    assert requested_windows(job(), Asked(interval=window, by_hand_at=NOW), [], NOW) == [window]


def test_a_window_of_the_schedule_is_waited_for_where_the_databases_clock_is_minutes_behind():
    window = Window(NOW - timedelta(hours=1), NOW + timedelta(minutes=9))
    assert requested_windows(job(), Asked(interval=window), [], NOW) == [window]
    for asked in (Asked(interval=window, by_hand_at=NOW), Asked("2013-04-20T14:00", "2013-04-20T15:09")):
        with pytest.raises(UsageError, match="ends in 9 min"):
            requested_windows(job(), asked, [], NOW)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2013-04-01", None, "belong together"),
        (None, "2013-04-01", "belong together"),
        ("yesterday", "2013-04-01", "'yesterday' is not a date"),
        ("0001-01-01T00:00+14:00", "2013-04-01", "is not a date"),
        ("2013-04-02", "2013-04-01", "must start before it ends"),
    ],
)
def test_a_window_that_is_none_is_refused(start, end, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        named_window(job(), start, end)


def test_a_window_and_everything_missing_are_one_too_many():
    with pytest.raises(UsageError, match="give one of the two"):
        requested_windows(job(), Asked("2013-04-01", "2013-04-02", missing=True), [], NOW)


@pytest.mark.parametrize(
    ("text", "window", "noted"),
    [
        (JOB, days(6, 7), False),
        (JOB, days(6, 9), False),
        (NEW_YORK, days(20, 21), True),
        (NEW_YORK, days(20, 21, hour=4), False),
        (JOB, days(6, 7, hour=1), True),
        (ON_DEMAND, days(6, 7, hour=1), False),
    ],
)
def test_a_window_that_is_none_of_the_jobs_is_noted_with_the_zone(text, window, noted):
    note = note_of(job(text), window)
    assert (note is not None) == noted
    if text == NEW_YORK and noted:
        named = "the window 2013-04-19 20:00 .. 2013-04-20 20:00 in America/New_York"
        assert note.startswith(f"{named} does not line up with the job's windows")


def test_a_backfill_means_the_windows_of_a_period_or_all_that_are_missing():
    def found(first, last, text=JOB, *, missing=False):
        return backfilled_windows(job(text), first, last, missing=missing, covered=[days(4, 6)], now=NOW)

    assert found("2013-04-05", "2013-04-07") == [days(5, 6), days(6, 7), days(7, 8)]
    assert found("2013-04-18", "2036-01-01") == [days(18, 19), days(19, 20)]
    assert found(None, None, ENDED, missing=True) == [days(n, n + 1) for n in (1, 2, 3, 6, 7, 8, 9, 10)]
    yearly = JOB.replace('"daily"', '"0 0 29 2 *"').replace("2013-04-01", "2000-01-01")
    assert found("2008-02-29", "2008-03-01", yearly)[0].end == datetime(2012, 2, 29, tzinfo=UTC)
    for first, last, missing in [(None, None, False), ("2013-04-01", None, False), ("2013-04-01", "2013-04-02", True)]:
        with pytest.raises(UsageError, match="needs the days of a period, or --missing"):
            found(first, last, missing=missing)
    with pytest.raises(UsageError, match="has no schedule"):
        found("2013-04-01", "2013-04-02", ON_DEMAND)
