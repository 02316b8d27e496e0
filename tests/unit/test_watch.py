"""What the watchdog decides, from facts and a moment: no server, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plantao import window as windows
from plantao.config import job_file
from plantao.errors import DatabaseUnavailable, ModelTampered, SourceChanged, TooManyRejected
from plantao.ledger.jobs import Declared
from plantao.outbox import run_alerts
from plantao.outbox.incident import Incident
from plantao.watch import liveness, overdue
from plantao.watch.overdue import JobFacts, Running
from plantao.window import Schedule, Window, is_covered, merged

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TEXT = """
schedule = "daily"
starts   = 2026-11-20
[extract]
table     = "public.readings"
key       = ["id"]
timestamp = "at"
[score]
model = "m"
[load]
table = "predictions.p"
[alert]
late_after = "6 hours"
"""


def job(text: str = TEXT) -> Any:
    return job_file.parse("bad_reading", text, read_query=lambda _: "")


def day(number: int) -> Window:
    start = datetime(2026, 11, number, tzinfo=UTC)
    return Window(start, start + timedelta(days=1))


def late(covered: list[Window], now: datetime = NOON, text: str = TEXT, seen: datetime = LONG_AGO) -> list[Window]:
    return overdue.late_windows(job(text), merged(covered), seen, now)


# --- late windows ----------------------------------------------------------------------------------------------------


def test_a_window_is_late_six_hours_after_its_end_and_not_a_second_earlier():
    done = [day(20), day(21), day(22), day(23)]
    due = day(24).end + timedelta(hours=6)
    assert late(done, due - timedelta(seconds=1)) == []
    assert late(done, due) == [day(24)]


def test_what_is_done_is_not_late_and_a_gap_in_the_middle_is():
    assert late([day(n) for n in (20, 21, 22, 23, 24)]) == []
    assert late([day(20), day(22), day(24)]) == [day(21), day(23)]


def test_a_job_that_was_met_just_now_owes_nothing_yet_however_old_its_windows():
    assert late([], seen=NOON - timedelta(hours=5)) == []
    assert len(late([], seen=NOON - timedelta(hours=6))) == 5


def test_nothing_is_late_of_a_job_on_demand_or_after_its_end():
    assert late([], text=TEXT.replace('"daily"', '"on demand"')) == []
    assert late([], text=TEXT.replace("starts   = 2026-11-20", "starts = 2026-11-20\nends = 2026-11-22")) == [
        day(20),
        day(21),
    ]


@pytest.mark.parametrize("cron", ["0 * * * *", "15 6 * * 1", "0 0 1 * *"])
@pytest.mark.parametrize("zone", ["UTC", "America/Sao_Paulo"])
def test_late_windows_are_those_that_are_owed_at_the_moment_that_late_after_allows(cron, zone):
    text = TEXT.replace('"daily"', f'"{cron}"\ntimezone = "{zone}"').replace("2026-11-20", "2026-09-01")
    declared = job(text)
    schedule = Schedule(declared.cron, declared.zone)
    windows = list(schedule.windows(declared.starts_at, NOON))
    covered = merged(window for place, window in enumerate(windows) if place % 3)
    due = list(schedule.windows(declared.starts_at, NOON - timedelta(hours=6)))
    expected = [window for window in due if not is_covered(window, covered)]
    assert overdue.late_windows(declared, covered, LONG_AGO, NOON) == expected


def test_a_job_that_owes_years_is_spoken_of_all_the_same():
    text = TEXT.replace('"daily"', '"* * * * *"').replace("2026-11-20", "2020-01-01")
    assert len(late([], text=text)) == overdue.MOST_WINDOWS


def facts(**values: Any) -> JobFacts:
    return JobFacts(job(), **{"covered": [], "first_seen": LONG_AGO, **values})


def test_the_message_says_why_as_far_as_the_ledger_knows():
    never = overdue.late(facts(), [day(23), day(24)], None, None)
    assert never.message.startswith("2 windows are not scored 6 h after the end, the first is 2026-11-23;")
    assert "no run was ever started for it; it never succeeded" in never.message
    assert "plantao run bad_reading --from 2026-11-23T00:00:00 --to 2026-11-24T00:00:00" in never.next_step
    failed = overdue.late(facts(last_success_at=NOON), [day(24)], "extract: no such column", None)
    assert "its last try failed: extract: no such column; the last success was at 2026-11-25 12:00" in failed.message
    run = Running(7, day(24), NOON, "here:1")
    assert "a run is working on it" in overdue.late(facts(running=[run]), [day(24)], "x", None).message
    long = overdue.late(facts(), [day(24)], "y" * 500, None)
    assert "… (plantao status bad_reading shows all)" in long.message


def test_the_recovery_counts_all_windows_that_were_missed_while_it_lasted():
    first = overdue.late(facts(), [day(22)], None, None)
    incident = Incident(1, first.fingerprint, "late", 1.0, first.message, first.since, NOON, first.details)
    second = overdue.late(facts(), [day(23), day(24)], None, incident)  # the first of them is scored by now
    incident = Incident(1, first.fingerprint, "late", 1.0, second.message, first.since, NOON, second.details)
    over = day(22).end + timedelta(hours=6 + 49)
    assert overdue.caught_up(incident, job(), [day(22), Window(day(23).start, day(24).end)], over) == (
        "no window is late any more; it lasted 2 d 1 h. 3 windows were missed, the first 2026-11-22; 3 are filled now"
    )
    assert "2 are filled now, 1 no longer owed" in overdue.caught_up(
        incident, job(), [Window(day(23).start, day(24).end)], over
    )


# --- runs, files -----------------------------------------------------------------------------------------------------


def moved(to: str, covered: list[Window], hours: int = 0) -> Any:
    text = TEXT.replace("2026-11-20", to)
    return overdue.starts_moved(
        JobFacts(job(text), merged(covered), LONG_AGO, first_starts=day(20).start + timedelta(hours=hours)), NOON
    )


def test_a_start_that_was_moved_behind_successes_is_a_condition_while_something_before_it_is_missing():
    condition = moved("2026-11-24", [day(20), day(21)])
    assert (condition.lane, condition.word) == ("watch", "starts moved")
    assert condition.message == (
        "`starts` was moved from 2026-11-20 00:00 to 2026-11-24 00:00, behind successes of the job: what is missing"
        " between 2026-11-22 00:00 and 2026-11-24 00:00 is due no more"
    )
    assert "--from-date 2026-11-22T00:00 --to-date 2026-11-24T00:00" in condition.next_step
    assert "2026-11-25 12:00 is due no more" in moved("2027-01-01", [day(20)]).message
    assert moved("2026-11-24", [day(20), day(22), day(23)]) is not None  # a gap in the middle
    assert moved("2026-11-24", [day(20), day(21), day(22), day(23)]) is None  # all before it is done
    assert moved("2026-11-24", []) is None  # nothing has succeeded yet
    assert moved("2026-11-24", [day(24)]) is None
    assert moved("2026-11-18", [day(20)]) is None  # to an earlier day
    assert moved("2026-11-22", [day(21)], hours=5) is None  # from no tick


def test_a_run_is_too_long_against_its_own_history():
    usual = [600.0] * 18 + [900.0, 4000.0]  # one that was slow once does not count
    limit = timedelta(seconds=3 * 900)
    assert overdue.longest(job(), usual) == limit
    run = Running(7, day(24), NOON - limit, "here:1")
    assert overdue.too_long(facts(running=[run], seconds=usual), NOON) is None
    found = overdue.too_long(facts(running=[run], seconds=usual), NOON + timedelta(seconds=1))
    assert found is not None
    assert "run 7 (2026-11-24, on here:1) has been running since 2026-11-25 11:15" in found.message


def test_a_quick_job_may_take_ten_minutes_and_an_unknown_one_as_long_as_it_may_be_late():
    assert overdue.longest(job(), [1.0] * 20) == timedelta(minutes=10)
    assert overdue.longest(job(), [1.0] * 4) == timedelta(hours=6)


def test_a_job_whose_file_is_gone_is_missed_unless_it_had_come_to_its_end():
    there = Declared("gone", None, timedelta(days=1), NOON, NOON)
    assert overdue.file_gone(there, NOON) is not None
    ended = Declared("gone", day(24).end, timedelta(days=1), NOON, day(24).end)
    assert overdue.file_gone(ended, NOON) is None
    owing = Declared("gone", day(24).end, timedelta(days=1), NOON, day(23).end)
    assert overdue.file_gone(owing, NOON) is not None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90000, "1 d 1 h"), (86400, "1 d"), (-5, "0 s")],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds, said):
    assert windows.span(timedelta(seconds=seconds)) == said


# --- Airflow, the outbox, the clock ----------------------------------------------------------------------------------


def health(**parts: Any) -> dict[str, Any]:
    well = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor")}
    well["scheduler"]["latest_scheduler_heartbeat"] = (NOON - timedelta(seconds=5)).isoformat()
    return {**well, "triggerer": {"status": None, "latest_triggerer_heartbeat": None}, **parts}


def marks(page: dict[str, Any]) -> list[str]:
    return [condition.fingerprint for condition in liveness.airflow_conditions(page, NOON)]


def test_an_airflow_that_is_well_says_nothing_and_a_triggerer_may_be_missing():
    assert marks(health()) == []


def test_every_part_that_is_unwell_is_named():
    assert marks(health(scheduler={"status": "unhealthy"}, triggerer={"status": "unhealthy"})) == [
        "watch airflow scheduler",
        "watch airflow triggerer",
    ]
    assert marks({}) == ["watch airflow metadatabase", "watch airflow scheduler"]


def test_a_scheduler_that_is_called_healthy_may_have_been_silent_too_long():
    old = {"status": "healthy", "latest_scheduler_heartbeat": (NOON - timedelta(seconds=91)).isoformat()}
    (found,) = liveness.airflow_conditions(health(scheduler=old), NOON)
    assert "last sign of life is 1 min 31 s old" in found.message
    nonsense = {"status": "healthy", "latest_scheduler_heartbeat": "yesterday"}
    assert marks(health(scheduler=nonsense)) == []


def test_an_outbox_may_wait_for_five_minutes_and_its_sender_be_silent_for_ten():
    five, ten, more = timedelta(minutes=5), timedelta(minutes=10), timedelta(seconds=1)
    assert liveness.outbox_stuck(0, None, None, NOON) is None
    assert liveness.outbox_stuck(1, NOON - five, NOON - ten, NOON) is None
    assert liveness.outbox_stuck(3, NOON - five - more, NOON, NOON) is not None
    assert liveness.outbox_stuck(0, None, NOON - ten - more, NOON) is not None


@pytest.mark.parametrize(("seconds", "word"), [(60, None), (-60, None), (61, "ahead of"), (-61, "behind")])
def test_a_clock_may_be_wrong_by_a_minute(seconds, word):
    found = liveness.skewed(NOON + timedelta(seconds=seconds), NOON)
    assert (found is None) == (word is None)
    assert found is None or word in found.message


def test_an_outage_is_told_at_once_and_then_more_and_more_seldom():
    outage, trouble, told = liveness.Outage(NOON), liveness.Trouble("nobody answers", "start it"), []
    for minute in range(60 * 24 * 4):
        now = NOON + timedelta(minutes=minute)
        if outage.is_due(trouble, now):
            outage = outage.was_told(trouble, now, f"ts {len(told)}")
            told.append(minute / 60)
    assert told == [0, 1, 3, 7, 15, 31, 55, 79]
    assert outage.thread == "ts 0"


def test_what_may_pass_is_told_at_the_second_look_and_a_further_subject_at_once():
    minute, lock = timedelta(minutes=1), liveness.Trouble("locked", "wait", ("a",), may_pass=True)
    outage = liveness.Outage(NOON)
    assert not outage.is_due(lock, NOON)
    assert outage.is_due(lock, NOON + minute)
    outage = outage.was_told(lock, NOON + minute, None)
    assert not outage.is_due(lock, NOON + 2 * minute)
    assert outage.is_due(replace(lock, subjects=("a", "b")), NOON + 2 * minute)


# --- runs that failed ------------------------------------------------------------------------------------------------


def test_a_failure_that_is_retried_by_itself_wakes_nobody():
    error = DatabaseUnavailable("the server is gone.", "nothing: it is retried", "load")
    retried = run_alerts.of_error(error, "j", "2026-11-24", 7, tries_left=2)
    assert (retried.kind, retried.fingerprint) == ("retrying", "retrying j DatabaseUnavailable")
    assert "Airflow tries it again by itself; 2 tries are left." in retried.message
    last = run_alerts.of_error(error, "j", "2026-11-24", 7, tries_left=0)
    assert last.kind == "failed"
    assert last.next_step.startswith("let it run again")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SourceChanged("x"), "source_changed"),
        (ModelTampered("x"), "model_refused"),
        (TooManyRejected("x"), "too_many_rejected"),
    ],
)
def test_what_will_happen_again_is_told_at_once_in_a_word_of_its_own(error, kind):
    alert = run_alerts.of_error(error, "j", "w", 7, tries_left=3)
    assert alert.kind == kind
    assert "it is not retried" in alert.message


def test_the_words_of_an_error_that_is_not_ours_stay_in_the_ledger():
    alert = run_alerts.of_error(ValueError("row 7 of Maria"), "j", "w", 7)
    assert "Maria" not in alert.message + alert.next_step
    assert "unexpected ValueError" in alert.message


def test_a_recovery_is_loud_only_if_the_failure_was():
    times: dict[str, Any] = {"times": 2, "since": NOON, "now": NOON + timedelta(minutes=9)}
    assert run_alerts.recovered("j", "w", 7, kinds=["retrying", None], **times).kind == "healed"
    loud = run_alerts.recovered("j", "w", 7, kinds=["retrying", "failed"], **times)
    assert loud.kind == "recovered"
    assert loud.message == "j, w: scored after 2 failed tries, 9 min after the first of them began."


def test_rows_that_were_set_aside_are_counted_by_reason():
    alert = run_alerts.rejected("j", "w", 7, {"null_feature": 2, "bad_output": 10}, 100)
    assert alert.message == "j, w: 12 rows were set aside of 100: 10 bad_output, 2 null_feature."
