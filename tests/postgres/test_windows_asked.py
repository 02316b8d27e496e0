"""Windows that are asked for: nothing in the future is scored, and no job hides the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from plantao.errors import UsageError
from plantao.ledger import jobs, runs
from plantao.ledger.request import Request
from plantao.run import parallel
from plantao.run.requested_windows import Asked
from plantao.run.run import owed_windows, windows_for
from plantao.watch import overdue
from plantao.window import Schedule, Window
from watching import Voice, dog
from world import JOB, day

NOON = datetime(2013, 4, 10, 12, tzinfo=UTC)
FUTURE = Window(day(1).start, datetime(2036, 1, 1, tzinfo=UTC))


# --- C2: the future --------------------------------------------------------------------------------------------------


def test_a_window_that_ends_in_the_future_is_refused_by_every_way_and_leaves_nothing(plantao, world):
    job = world.ready(JOB.replace("[load]", "parts = 2\n[load]"))
    for arguments in (("run",), ("run", "--dry-run"), ("measure",), ("reconcile", "--repair")):
        status, out, err = plantao("-q", *arguments, "bad_reading", "--from", "2013-04-01", "--to", "2036-01-01")
        assert (status, out) == (2, ""), arguments
        assert "it is 20" in err
        assert "Next: name a window that has ended" in err
    for ask in (lambda: world.score(job, FUTURE), lambda: world.score(job, FUTURE, dry_run=True)):
        with pytest.raises(UsageError, match="Nothing was written"):
            ask()
    with pytest.raises(UsageError, match="Nothing was written"):
        parallel.plan(Request(job, FUTURE), world.place)
    assert world.attempts() == world.results("select job from plantao.jobs") == []


def test_a_window_that_ends_within_seconds_is_waited_for(world):
    job = world.ready()
    now = world.results("select now()")[0][0]
    world.insert(1, [9])
    world.sql("update readings set at = clock_timestamp() - interval '1 minute' where id = 9")
    report = world.score(job, Window(now - timedelta(hours=1), now + timedelta(seconds=0.5)))
    assert report.counts.scored == 1
    assert world.results("select bool_and(window_end <= started_at) from plantao.runs") == [(True,)]


def test_a_success_of_the_past_that_reached_into_the_future_covers_no_more_than_its_start(world):
    job = world.ready()
    world.was_scored(FUTURE, Window(FUTURE.end, FUTURE.end + timedelta(days=1)), started_at=NOON)
    with world.place_session(job) as connection:
        assert runs.covered(connection, "bad_reading") == [Window(day(1).start, NOON)]
        jobs.declare(connection, job)
    assert owed_windows(job, world.place)[0] == day(10)
    owed = world.results("select lower(owed), upper(owed) > now() - interval '1 minute' from plantao.status")
    assert owed == [(NOON, True)]


def test_a_window_of_no_tick_is_noted_in_the_ledger_and_in_the_report(plantao, world):
    world.ready(JOB.replace('"daily"', '"daily"\ntimezone = "America/New_York"'))
    arguments = ("run", "bad_reading", "--from", "2013-04-02T00:00Z", "--to", "2013-04-03T00:00Z")
    _, out, err = plantao(*arguments)
    said = "2013-04-01 20:00 .. 2013-04-02 20:00 in America/New_York does not line up with the job's windows"
    assert said in out
    assert said in err
    plantao("-q", "run", "bad_reading", "--from", "2013-04-02", "--to", "2013-04-03")
    (noted,), (of_a_day,) = world.attempts("note")
    assert said in noted
    assert of_a_day is None


def test_a_start_that_was_moved_behind_successes_is_told_and_is_no_recovery(world):
    text = JOB.replace("starts   = 2013-04-01", "starts   = 2013-04-01\nends = 2013-04-06")
    job = world.ready(text)
    world.score(job, day(1))
    world.job(text.replace("starts   = 2013-04-01", "starts   = 2013-04-04"))
    (change,) = dog(world, Voice(), day(2).end + timedelta(days=4)).look().changes
    assert "`starts` was moved from 2013-04-01 00:00 to 2013-04-04 00:00" in change
    world.score(job, day(2))
    world.score(job, day(3))
    (change,) = dog(world, Voice(), day(2).end + timedelta(days=4)).look().changes
    assert change.startswith("bad_reading: over")


# --- what is missing -------------------------------------------------------------------------------------------------


def test_a_backfill_of_everything_missing_scores_the_windows_without_a_success(plantao, world):
    job = world.ready(JOB.replace("starts ", "ends = 2013-04-06\nstarts "))
    world.score(job, day(2))
    status, out, _ = plantao("-q", "backfill", "bad_reading", "--missing", "--json")
    assert status == 0
    assert [line["window"]["start"][:10] for line in json.loads(out)] == [f"2013-04-0{n}" for n in (1, 3, 4, 5)]
    assert windows_for(job, world.place, Asked(missing=True)) == []


def scored(world, job, *windows):
    """Write successes of a job as `run` does, without a row."""
    with world.place_session(job) as connection:
        jobs.declare(connection, job)
        for window in windows:
            runs.start(connection, job, window, 1, runs.Origin("manual", None, "", "", {}))
    world.results(
        "update plantao.runs set status = 'empty', rows_read = 0, rows_scored = 0, rows_rejected = 0, rows_late = 0,"
        " rows_already_scored = 0, rows_rescored = 0, finished_at = clock_timestamp() where status = 'running'"
    )


def test_the_view_the_command_line_and_the_watchdog_mean_the_same_windows(world):
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    ticks = [day(1).start + timedelta(hours=hour, minutes=17) for hour in (0, 5, 10, 15, 20)]
    five_hours = [Window(*both) for both in pairwise(ticks)]
    january = Window(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 2, 1, tzinfo=UTC))
    by_hand = Window(now - timedelta(seconds=2), now - timedelta(seconds=1))
    three = [day(1), day(2), day(3)]
    cases = {
        # name: schedule, starts, ends, what is done, the first window that is owed
        "shorter_at_night": (
            "17 */5 * * *",
            "2013-04-01T00:17:00",
            "2013-04-02T00:17:00",
            five_hours,
            five_hours[-1].end,
        ),
        "short_month": ("monthly", "2013-01-01", "2013-03-01", [january], january.end),
        "starts_at_noon": ("daily", "2013-03-31T12:00:00", "2013-04-04", three, None),
        "ends_at_noon": ("daily", "2013-04-01", "2013-04-04T12:00:00", [*three, day(6)], None),
        "beyond_its_end": ("daily", "2013-04-01", "2013-04-04", [*three, day(200)], None),
        "gap": ("daily", "2013-04-01", "2013-04-05", [day(1), day(3), day(4)], day(2).start),
        "nothing_done": ("daily", "2013-04-01", "2013-04-04", [], day(1).start),
        "young": ("daily", f"{today:%Y-%m-%d}", "2099-01-01", [], None),
        "by_hand_today": ("daily", f"{today:%Y-%m-%d}", "2099-01-01", [by_hand], None),
    }
    world.ready()
    for name, (schedule, starts, ends, done, first) in cases.items():
        text = JOB.replace('"daily"', f'"{schedule}"').replace("2013-04-01", f"{starts}\nends = {ends}")
        job = world.job(text.replace("predictions.bad_reading", f"predictions.{name}"), name)
        scored(world, job, *done)
        owed = owed_windows(job, world.place)
        ((health, view),) = world.results(f"select health, lower(owed) from plantao.status where job = '{name}'")
        with world.place_session(job) as connection:
            late = overdue.late_windows(job, runs.covered(connection, name), day(1).start, now)
        assert (owed[0].start if owed else None, view, late) == (first, first, owed), name
        assert not done or health == ("late" if late else "fine"), name


# --- C6: one broken job ----------------------------------------------------------------------------------------------


@pytest.fixture
def three_jobs(world, monkeypatch):
    """A good job; one whose database is gone; and one on which a defect of ours fails."""
    ended = JOB.replace("starts ", "ends = 2013-04-02\nstarts ")
    world.ready(ended)
    world.job(ended.replace("bad_reading", "lost", 2).replace("[load]", '[load]\nconnection = "gone"'), "lost")
    world.job(ended.replace("predictions.bad_reading", "predictions.odd").replace('"daily"', '"0 3 * * *"'), "odd")
    monkeypatch.setenv("AIRFLOW_CONN_GONE", "postgresql:///gone?host=/nowhere")

    def fails(self, *_):
        if self.cron == "0 3 * * *":
            raise ZeroDivisionError
        return original(self, *_)

    original = Schedule.at_or_after
    monkeypatch.setattr(Schedule, "at_or_after", fails)
    return world


def test_no_verb_that_looks_at_several_jobs_dies_of_one(plantao, three_jobs):
    (three_jobs.folder / "jobs" / "never.toml").write_text(JOB.replace('"daily"', '"0 0 30 2 *"'))
    status, out, err = plantao("status", "--json")
    health = {state["job"]: state["health"] for state in json.loads(out)}
    assert (status, health) == (1, {"bad_reading": "waiting", "lost": "unknown", "never": "broken", "odd": "unknown"})
    status, out, err = plantao("-q", "status")
    assert status == 1
    assert "odd: unexpected ZeroDivisionError" in err
    assert "Signs of life" in out or "component" in out or "lost: " in err
    status, out, err = plantao("jobs", "list")
    assert (status, "bad_reading\tdaily" in out) == (2, True)
    assert "no day is one of this cron expression" in err
    status, out, err = plantao("-q", "check")
    assert status == 2
    assert "bad_reading: model" in out
    for text in (out, err):
        assert "Traceback" not in text


def test_the_watchdog_looks_at_the_others_and_says_that_it_could_not_look_at_one(three_jobs):
    three_jobs.results(
        "insert into plantao.heartbeats (component, host, details) select 'file ' || job, 'x',"
        """ '{"first_seen": "2013-01-01T00:00:00Z"}' from unnest(array['bad_reading', 'odd']) as job"""
    )
    (three_jobs.folder / "jobs" / "lost.toml").unlink()
    look = dog(three_jobs, Voice()).look()
    assert any(change.startswith("bad_reading: 1 window is not scored") for change in look.changes)
    assert not look.is_complete
