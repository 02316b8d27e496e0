"""The watchdog against a real ledger: what it finds, what it says, and that it speaks once."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from plantao.ledger import heartbeats, runs
from plantao.ledger.grants import SCORER
from plantao.runtime import Place
from plantao.watch import facts
from plantao.watch.watchdog import Look
from watching import Voice, dog
from world import JOB, day

ORIGIN = runs.Origin("manual", None, "there:2", "test", {})


@pytest.fixture
def voice():
    return Voice()


def alerts(world, columns: str = "kind, message") -> list[Any]:
    return world.results(f"select {columns} from plantao.alerts order by alert_id")


@pytest.fixture
def job(world):
    return world.ready(JOB.replace("starts   = 2013-04-01", "starts   = 2013-04-01\nends = 2013-04-06"))


def was_met_long_ago(world) -> None:
    world.results(
        "insert into plantao.heartbeats (component, host, details)"
        """ values ('file bad_reading', 'x', '{"first_seen": "2013-01-01T00:00:00Z"}')"""
    )


# --- windows ---------------------------------------------------------------------------------------------------------


def test_a_late_window_is_told_once_and_its_recovery_says_what_was_missed_and_filled(world, job, voice):
    was_met_long_ago(world)
    world.score(job, day(1))
    after = day(2).end + timedelta(hours=6)
    assert dog(world, voice, after - timedelta(seconds=1)).look() == Look()
    assert len(dog(world, voice, after).look().changes) == 1
    assert dog(world, voice, after + timedelta(minutes=1)).look().changes == []
    assert len(dog(world, voice, after + timedelta(days=1)).look().changes) == 1  # two windows are worse than one
    ((_, first), (_, second)) = alerts(world)
    assert "1 window is not scored 6 h after the end, the first is 2013-04-02; no run was ever started for it" in first
    assert "worse: 2 windows are" in second
    world.score(job, day(2))
    assert dog(world, voice, after + timedelta(days=1, minutes=1)).look().changes == []
    world.score(job, day(3))
    dog(world, voice, after + timedelta(days=1, hours=2)).look()
    kind, message = alerts(world)[2]
    assert kind == "late_recovered"
    assert message == (
        "bad_reading: no window is late any more; it lasted 1 d 2 h. 2 windows were missed, the first 2013-04-02;"
        " 2 are filled now"
    )
    assert world.results("select state, lane from plantao.incidents") == [("closed", "late")]


def test_a_job_that_was_added_just_now_may_catch_up_in_peace(world, job, voice):
    now = datetime.now(UTC)
    assert dog(world, voice, now).look().changes == []
    assert "5 windows are not scored" in dog(world, voice, now + timedelta(hours=6, minutes=1)).look().changes[0]


def test_a_late_window_says_why_its_last_try_failed(world, job, voice):
    was_met_long_ago(world)
    world.sql("alter table readings drop x")
    with pytest.raises(Exception, match="column 'x' is missing"):
        world.score(job, day(1))
    (change,) = dog(world, voice, day(1).end + timedelta(hours=6)).look().changes
    assert "its last try failed: validate: the source of job bad_reading" in change


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_whose_process_is_gone_is_closed_with_an_alert(world, job, voice):
    with world.place_session(job) as gone:
        run_id = runs.start(gone, job, day(1), None, ORIGIN)
        with world.place_session(job) as alive:
            runs.start(alive, job, day(2), None, ORIGIN)
            assert dog(world, voice).look().changes == []
            gone.close()
            (change,) = dog(world, voice).look().changes
            assert change == f"bad_reading: run {run_id} had lost its process and is closed as failed"
            assert world.attempts("status") == [("failed",), ("running",)]
            ((kind, message, run),) = alerts(world, "kind, message, run_id")
            assert (kind, run) == ("failed", run_id)
            assert "(there:2) ended without a word; nothing of it was written. Nothing tries it again" in message


def test_a_run_of_airflow_whose_process_is_gone_is_left_to_its_retry(world, job, voice):
    with world.place_session(job) as gone:
        runs.start(gone, job, day(1), None, replace(ORIGIN, airflow_run="bad_reading/run_1"))
    dog(world, voice).look()
    assert [kind for kind, _ in alerts(world)] == ["retrying"]


def test_a_run_that_takes_too_long_is_told_until_it_ends(world, job, voice):
    with world.place_session(job) as connection:
        run_id = runs.start(connection, job, day(1), None, ORIGIN)
        (change,) = dog(world, voice, datetime.now(UTC) + timedelta(hours=5, minutes=59)).look().changes or [""]
        assert change == ""
        later = datetime.now(UTC) + timedelta(hours=6, minutes=1)
        changes = dog(world, voice, later).look().changes
        assert any(f"run {run_id} (2013-04-01, on there:2) has been running since" in change for change in changes)
    world.score(job, day(1))
    dog(world, voice).look()
    assert "watch_recovered" in [kind for kind, _ in alerts(world)]


# --- job files -------------------------------------------------------------------------------------------------------


def test_a_job_that_ran_and_whose_file_is_gone_is_missed_and_its_return_is_told(world, job, voice):
    world.score(job, day(1))
    path = world.folder / "jobs" / "bad_reading.toml"
    text = path.read_text()
    path.unlink()
    (change,) = dog(world, voice).look().changes
    assert "its file bad_reading.toml is gone" in change
    path.write_text(text)
    changes = dog(world, voice).look().changes
    assert any("over after" in line and "is gone" in line for line in changes)


def test_a_broken_job_file_is_told_with_its_mistakes_and_hides_no_other_job(world, job, voice):
    was_met_long_ago(world)
    (world.folder / "jobs" / "torn.toml").write_text("[extract]\ntable = 7\n")
    changes = dog(world, voice, day(1).end + timedelta(hours=6)).look().changes
    assert len(changes) == 2
    assert any(line.startswith("torn: the job file has mistakes") for line in changes)
    (world.folder / "jobs" / "torn.toml").unlink()
    changes = dog(world, voice, day(1).end + timedelta(hours=6)).look().changes
    assert [line.partition(":")[0] for line in changes] == ["torn"]


# --- the database ----------------------------------------------------------------------------------------------------


def test_a_database_that_is_down_is_told_from_memory_once_and_its_return_in_the_same_thread(world, job, voice):
    was_met_long_ago(world)
    world.job(JOB + '\n[alert]\nchannel = "#on-call"\n')
    now = day(1).end
    place, reached = world.place, [True]

    def address(name: str) -> Any:
        found = place.address(name)
        lost = {**found.parameters, "host": "/nowhere"}
        return found if reached[0] else replace(found, parameters=lost)

    watching = dog(world, voice, place=Place(place.settings, address))
    watching.ledger_clock = lambda _: now
    watching.clock = lambda: now
    assert watching.look().is_complete
    reached[0] = False
    now = day(2).end + timedelta(hours=6)
    first = watching.look()
    assert (first.unreachable, first.told) == (["client_db"], True)
    watching.look()
    again = dog(world, voice, place=Place(place.settings, address))  # another process remembers
    again.clock = lambda: now
    again.look()
    ((channel, said, thread),) = voice.said
    assert (channel, thread) == ("#on-call", None)
    assert "The database client_db cannot be used since 2013-04-03 06:00:00 UTC (0 s)" in said
    assert "Affected: bad_reading." in said
    assert "bad_reading: 2 windows are late by now" in said
    reached[0] = True
    now += timedelta(minutes=20)
    back = watching.look()
    assert back.is_complete
    over = "the database client_db answers again after 20 min; it did not since 2013-04-03 06:00:00 UTC"
    assert [text for _, text, thread in voice.said if thread == "ts 1"] == [over]


def test_when_nobody_can_be_told_either_it_is_said_as_soon_as_somebody_can(world, job, voice):
    voice.is_down = True
    lost = Place(world.place.settings, lambda name: replace(world.address(name), parameters={"host": "/nowhere"}))
    watching = dog(world, voice, place=lost)
    assert not watching.look().told
    voice.is_down = False
    assert watching.look().told
    assert len(voice.said) == 1


def test_a_subject_that_somebody_holds_a_lock_on_hides_no_other(world, job, voice, monkeypatch):
    from plantao.postgres import session

    was_met_long_ago(world)
    world.job(JOB.replace("predictions.bad_reading", "predictions.another"), "another")
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    holder = world.connect(world.home_of_results)
    holder.cursor().execute(
        "select pg_advisory_xact_lock(hashtextextended('plantao.incidents bad_reading',"
        " 'plantao'::regnamespace::bigint))"
    )
    world.results(
        "insert into plantao.heartbeats (component, host, details)"
        """ values ('file another', 'x', '{"first_seen": "2013-01-01T00:00:00Z"}')"""
    )
    after = day(1).end + timedelta(hours=6)
    look = dog(world, voice, after).look()
    assert [line.partition(":")[0] for line in look.changes] == ["another"]
    assert not look.told
    assert look.unreachable == []
    assert "cannot watch" not in str(voice.said)
    # A lock that is still held at the next look is told past the ledger.
    assert dog(world, voice, after + timedelta(minutes=1)).look().told
    assert "cannot watch these since 2013-04-02 06:00:00 UTC (1 min): bad_reading." in str(voice.said)
    holder.rollback()
    assert any("can watch all of" in line for line in dog(world, voice, after + timedelta(minutes=2)).look().changes)


# What the watchdog reads and writes; of the others it has no need.
RIGHTS = [
    ("update", "runs"),
    *(("select", table) for table in ("runs", "jobs", "incidents", "heartbeats", "alerts", "digests")),
    *(("insert", table) for table in ("alerts", "incidents", "incident_events", "heartbeats", "digests")),
    *(("update", table) for table in ("heartbeats", "digests", "alerts")),
]


def test_a_right_that_is_missing_on_any_table_of_the_ledger_leaves_nothing_untold(world, job, voice):
    now = day(2).end + timedelta(hours=6)
    with world.place_session(job) as gone:
        runs.start(gone, job, day(1), None, ORIGIN)
    for right, table in RIGHTS:
        world.results("truncate plantao.alerts, plantao.incident_events, plantao.incidents, plantao.digests")
        world.results("delete from plantao.heartbeats")
        was_met_long_ago(world)
        world.results(f"revoke {right} on plantao.{table} from {SCORER}")
        look = dog(world, voice, now).look()
        world.results(f"grant {right} on plantao.{table} to {SCORER}")
        assert not look.is_complete, (right, table)
        said = str(voice.said)
        assert f"permission denied for table {table}" in said, (right, table)
        assert "plantao check" in said or "plantao init --print-grants" in said, (right, table)
        (world.folder / ".plantao" / "watch.json").unlink()
        voice.said.clear()


def test_late_windows_of_which_no_alert_can_be_written_are_told_past_the_ledger_and_its_end_too(world, job, voice):
    was_met_long_ago(world)
    now = day(2).end + timedelta(hours=6)
    world.results(f"revoke insert on plantao.alerts from {SCORER}")
    dog(world, voice, now).look()
    dog(world, voice, now + timedelta(minutes=1)).look()
    ((_, said, _),) = voice.said
    assert "In the ledger client_db the watchdog cannot watch these since" in said
    assert "permission denied for table alerts (42501) while watching bad_reading" in said
    assert "bad_reading: 2 windows are late by now" in said
    world.results(f"grant insert on plantao.alerts to {SCORER}")
    changes = dog(world, voice, now + timedelta(minutes=2)).look().changes
    assert any("can watch all of the ledger client_db again after 2 min" in line for line in changes)
    assert any("2 windows are not scored" in line for line in changes)
    assert [text for _, text, thread in voice.said if thread == "ts 1"] == [changes[-1]]


def test_a_defect_in_one_subject_is_told_and_hides_no_other(world, job, voice, monkeypatch):
    was_met_long_ago(world)
    monkeypatch.setattr(facts, "outbox", lambda _: 1 // 0)
    look = dog(world, voice, day(1).end + timedelta(hours=6)).look()
    assert any("1 window is not scored" in line for line in look.changes)
    assert "unexpected ZeroDivisionError" in str(voice.said)


# --- the outbox, the clock, Airflow, and signs of life ---------------------------------------------------------------


def raised(world, minutes: int, count: int = 1) -> None:
    world.results(
        "insert into plantao.alerts (raised_at, job, kind, fingerprint, message, next_step)"
        " select now() - make_interval(mins => %s), 'bad_reading', 'failed', 'failed f' || n, 'm ' || n, 'x'"
        " from generate_series(1, %s) n",
        (minutes, count),
    )


def sent_last(world, seconds: int) -> None:
    world.results(
        "insert into plantao.heartbeats (component, host, at) values ('digest', 'x', now() - make_interval(secs => %s))"
        " on conflict (component) do update set at = excluded.at",
        (seconds,),
    )


def test_an_outbox_that_nobody_empties_is_emptied_by_the_watchdog(world, job, voice):
    sent_last(world, 30)
    raised(world, minutes=4, count=12)
    assert dog(world, voice).look() == Look()
    assert voice.said == []
    raised(world, minutes=6)
    sent_last(world, 400)
    look = dog(world, voice).look()
    assert any(
        "wait to be sent, the oldest since 6 min; the watchdog sends them itself" in line for line in look.changes
    )
    assert any("m 3" in text for _, text, _ in voice.said)
    # What repeats an alert that was told waits for the digest of its hour.
    assert world.results("select count(*) from plantao.alerts where sent_at is null and route = 'page'") == [(0,)]
    changes = dog(world, voice).look().changes
    assert any("over after" in line for line in changes)


@pytest.mark.parametrize("silent_for", [120, None])
def test_what_waits_is_not_left_waiting_while_the_sender_gives_no_sign_of_life(world, job, voice, silent_for):
    if silent_for:
        sent_last(world, silent_for)
    raised(world, minutes=1)
    assert dog(world, voice).look().changes == []
    assert any("m 1" in text for _, text, _ in voice.said)


def test_an_outbox_that_cannot_be_sent_keeps_everything(world, job, voice):
    raised(world, minutes=6)
    voice.is_down = True
    assert not dog(world, voice).look().told
    assert world.results("select count(*) from plantao.alerts where kind = 'failed' and sent_at is null") == [(1,)]


def test_a_sender_that_fell_silent_is_missed_though_nothing_waits(world, job, voice):
    world.results(
        "insert into plantao.heartbeats (component, host, at) values ('digest', 'x', now() - interval '11 minutes')"
    )
    (change,) = dog(world, voice).look().changes
    assert "whoever sends alerts was last alive 11 min ago" in change


def test_a_clock_that_is_wrong_is_told(world, job, voice):
    watching = dog(world, voice)
    watching.clock = lambda: datetime.now(UTC) + timedelta(hours=1)
    (change,) = watching.look().changes
    assert "clock is" in change
    assert "ahead of the database's" in change


class Page(BaseHTTPRequestHandler):
    """Answers as Airflow's health page does, and takes pings."""

    health: ClassVar[Any] = {}
    pings: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path.startswith("/ping"):
            self.pings.append(self.path)
        body = json.dumps(self.health).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page():
    Page.pings.clear()
    Page.health = {}
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_airflow_that_is_unwell_is_told_and_the_schedulers_sign_of_life_is_kept(world, job, voice, page):
    now = datetime.now(UTC)
    beat = (now - timedelta(seconds=3)).isoformat()
    well = {"status": "healthy"}
    Page.health = {
        "metadatabase": well, "dag_processor": well,
        "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": beat},
    }  # fmt: skip
    place = Place(replace(world.place.settings, airflow_url=page), world.place.address)
    assert dog(world, voice, place=place).look().changes == []
    Page.health = {**Page.health, "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": beat}}
    (change,) = dog(world, voice, place=place).look().changes
    assert change.startswith("plantao-watchdog: Airflow says that its scheduler is unhealthy; it was last heard of at")
    with world.place_session(job) as connection:
        found = {row["component"]: row for row in heartbeats.signs(connection)}
    assert found["airflow scheduler"]["at"].isoformat() == beat
    assert found["watchdog"]["age"] < 60
    gone = Place(replace(world.place.settings, airflow_url="http://127.0.0.1:9"), world.place.address)
    changes = dog(world, voice, place=gone).look().changes
    assert any("Airflow does not answer at http://127.0.0.1:9: " in line for line in changes)


def test_what_the_watchdog_finds_it_tells_at_once_since_the_sender_may_be_what_has_died(world, job, voice, page):
    sent_last(world, 1)
    Page.health = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "unhealthy"}}
    dog(world, voice, place=Place(replace(world.place.settings, airflow_url=page), world.place.address)).look()
    told = [text for _, text, _ in voice.said]
    assert len(told) == 1
    assert "its scheduler is unhealthy" in told[0]


def test_the_page_elsewhere_hears_of_every_look_and_of_one_that_failed(world, job, voice, page):
    dog(world, voice, PLANTAO_PING_URL=f"{page}/ping").look()
    assert Page.pings == ["/ping/start", "/ping"]
    lost = Place(world.place.settings, lambda name: replace(world.address(name), parameters={"host": "/nowhere"}))
    dog(world, voice, place=lost, PLANTAO_PING_URL=f"{page}/ping").look()
    assert Page.pings[2:] == ["/ping/start", "/ping/fail"]
    silent = dog(world, voice, PLANTAO_PING_URL="http://127.0.0.1:9/secret")
    assert silent.look().is_complete  # that it does not answer harms nothing


def test_the_watchdog_goes_on_after_an_error_of_its_own_and_says_so_once(world, job, voice, monkeypatch):
    class Enough(BaseException):
        pass

    watching, looks = dog(world, voice), []

    def pause(_: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            raise Enough

    watching.pause = pause
    monkeypatch.setattr(watching, "look", lambda: 1 // 0)
    with pytest.raises(Enough):
        watching.run()
    assert [text for _, text, _ in voice.said] == [
        "The watchdog stumbled over an unexpected ZeroDivisionError; it goes on. Its log says more."
    ]
