"""From the outbox to Slack: everything arrives, once where that can be, in order and in few messages."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

import slack_stand_in as faults
from plantao.alert import plan
from plantao.alert.delivery import deliver
from plantao.alert.digest import addressee
from plantao.alert.plan import Addressees
from plantao.alert.routing import routes
from plantao.alert.slack import messenger
from plantao.errors import UsageError
from plantao.outbox.incident import Condition
from plantao.outbox.incidents import acknowledge, settle, silence
from plantao.postgres import session as database
from slack_stand_in import SlackStandIn
from world import JOB

MORNING = datetime(2026, 3, 2, 9, 10, tzinfo=UTC)
ALERTING = JOB + '\n[alert]\nchannel = "#ops"\n'


class Desk:
    """A job whose alerts go to a stand-in for Slack, and a clock that is turned by hand."""

    def __init__(self, world, there) -> None:
        self.world, self.there, self.now = world, there, MORNING
        world.sql("create table public.readings (id bigint primary key, at timestamptz not null)")
        self.job = world.job(ALERTING)
        self.to = Addressees({self.job.name: addressee(self.job)})
        self.slack = messenger({"AIRFLOW_CONN_SLACK": there.connection()})

    def session(self):
        return database.session(self.world.address("client_db"), "plantao")

    def raise_(self, kind="failed", about="Kaboom", *, count=1, at=None, message="it broke", **more):
        values = {"job": self.job.name, "next_step": "look", "incident_id": None, "run_id": None, **more}
        self.world.sql(
            "insert into plantao.alerts (raised_at, job, kind, fingerprint, message, next_step, incident_id, run_id)"
            " select %s, %s, %s, %s, %s, %s, %s, %s from generate_series(1, %s)",
            (at or self.now, values["job"], kind, f"{kind} {self.job.name} {about}", message, values["next_step"],
             values["incident_id"], values["run_id"], count),
        )  # fmt: skip

    def deliver(self, slack=None, **passed):
        self.now += timedelta(**passed)
        with self.session() as connection:
            return deliver(connection, self.to, slack or self.slack, self.now)

    def settle(self, *conditions, lane="break", unjudged=()):
        with self.session() as connection, connection.begin():
            return settle(connection, self.job.name, lane, conditions, unjudged=unjudged)

    def unsent(self):
        return self.world.sql("select count(*) from plantao.alerts where sent_at is null")[0][0]

    def messages(self, columns="digest_id, possible_repeat, tries, sent_at is not null"):
        return self.world.sql(f"select {columns} from plantao.digests order by digest_id")

    def words(self):
        return [one.words for one in self.there.messages]

    def pages(self, saying):
        return [words for words in self.words() if "has something to tell" in words and saying in words]


@pytest.fixture
def desk(world):
    with SlackStandIn() as there:
        yield Desk(world, there)


def broken(severity=0.1, name="null_share x", word="broken", lane="break"):
    return Condition(lane, f"{lane} {name}", word, severity, MORNING.date(), f"{name} is bad", "look at the source")


def test_an_error_goes_out_at_once_and_is_counted_in_the_digest_too(desk):
    desk.raise_()
    desk.deliver()
    (page,) = desk.words()
    assert page.startswith("Hey, *bad_reading* has something to tell you now. There is a total of 1 notification.")
    assert "*Runs failed*: triggered 1 time" in page
    assert "• it broke\nNext: look" in page
    assert "Another 0 notifications were triggered in this interval." in page
    assert desk.unsent() == 0
    desk.deliver(minutes=49)
    assert len(desk.words()) == 1
    desk.deliver(minutes=1)
    assert desk.words()[1].startswith(
        "Hey, this is your HOURLY notification digest for *bad_reading*. There is a total of 1 notification.\n"
        "2026-03-02 09:00 .. 10:00 UTC"
    )
    desk.deliver(minutes=120)
    assert len(desk.words()) == 2


def test_what_wakes_nobody_waits_for_the_digest(desk):
    desk.raise_("drift", "x", count=3, message="x has drifted")
    assert desk.deliver().sent == []
    desk.deliver(hours=1)
    assert "*The data have drifted*: triggered 3 times" in desk.words()[0]
    assert desk.unsent() == 0


def test_a_storm_of_a_thousand_is_one_message(desk):
    desk.raise_(count=400)
    for number in range(600):
        desk.raise_("source_changed", f"n{number}", message=f"column {number} is gone")
    desk.deliver()
    (words,) = desk.words()
    assert "There are a total of 601 notifications" in words  # the same failure 400 times is told once
    assert "and 597 more of this type" in words
    desk.deliver(hours=1)
    assert "There are a total of 1000 notifications" in desk.words()[1]
    assert "*Runs failed*: triggered 400 times" in desk.words()[1]
    assert len(desk.words()) == 2


def test_however_many_wait_one_look_routes_them_all_oldest_first_into_few_messages(desk, monkeypatch):
    monkeypatch.setattr(plan, "MOST_AT_ONCE", 100)
    routed = []
    monkeypatch.setattr(
        plan, "routes", lambda *given: routed.append([one.alert_id for one in given[0]]) or routes(*given)
    )
    desk.world.sql(
        "insert into plantao.alerts (raised_at, job, kind, fingerprint, message, next_step)"
        " select %s, job, 'failed', 'failed ' || job || ' ' || n, 'm ' || n, 'look'"
        " from generate_series(1, 400) n, unnest(array['bad_reading', 'of_a_lost_file']) job order by n",
        (desk.now,),
    )
    desk.deliver()
    assert [len(batch) for batch in routed] == [100] * 8
    assert routed == sorted(routed)
    assert desk.world.sql("select count(*) from plantao.alerts where route is null or sent_at is null") == [(0,)]
    assert sorted(count for (count,) in desk.messages("notifications")) == [400, 400]


def test_what_is_held_keeps_no_other_from_its_turn(desk, monkeypatch):
    monkeypatch.setattr(plan, "MOST_AT_ONCE", 10)
    desk.world.sql(
        "insert into plantao.alerts (raised_at, job, kind, fingerprint, message, next_step, route)"
        " select %s, 'bad_reading', 'break', 'break bad_reading ' || n, 'm', 'look', 'held'"
        " from generate_series(1, 30) n",
        (desk.now,),
    )
    desk.raise_(message="behind them")
    desk.deliver()
    assert len(desk.pages("behind them")) == 1


def test_the_same_failure_300_times_in_an_hour_is_one_page_and_one_line_of_the_digest(desk):
    for minute in range(50):
        desk.raise_(count=6)
        desk.deliver(minutes=0 if minute == 0 else 1)
    assert len(desk.words()) == 1
    desk.deliver(minutes=1)
    assert next(line for line in desk.words()[1].splitlines() if "triggered" in line) == (
        "*Runs failed*: triggered 300 times"
    )
    desk.raise_(at=desk.now + timedelta(days=1))
    desk.deliver(days=1)
    assert "repeated: 300 times before" in desk.words()[2]


def test_a_recovery_is_told_after_a_failure_and_none_without(desk):
    desk.raise_("recovered", "", message="works again")
    desk.deliver()
    assert desk.words() == []
    desk.raise_()
    desk.deliver()
    desk.raise_("recovered", "", message="works again after 2 failed tries")
    desk.deliver(minutes=1)
    assert desk.words()[1].startswith("Hey, good news from *bad_reading*.")
    desk.raise_()
    desk.deliver(minutes=1)
    assert len(desk.words()) == 3


def test_what_flaps_is_counted_and_told_when_it_has_settled(desk):
    for _ in range(10):
        desk.raise_("late", "window")
        desk.deliver(minutes=1)
        desk.raise_("late_recovered", "window")
        desk.deliver(minutes=1)
    assert len(desk.words()) == 3  # late, good, late
    desk.deliver(minutes=14)
    assert len(desk.words()) == 3
    desk.deliver(hours=1)
    assert desk.words()[-1].startswith("Hey, good news") or desk.words()[-2].startswith("Hey, good news")
    assert "triggered 10 times" in "\n".join(desk.words())
    assert desk.unsent() == 0


def test_slack_down_for_an_hour_then_429_then_fine_everything_arrives_in_order_in_few_messages(desk):
    desk.there.fault = faults.reset()
    for minute in range(60):
        desk.raise_("source_changed", f"n{minute}", message=f"column {minute} is gone")
        desk.deliver(minutes=1 if minute else 0)
    assert desk.words() == []
    assert len(desk.there.asked) < 30  # it backs off
    desk.there.fault = None
    desk.there.faults.append(faults.rate_limited(120))
    desk.deliver(minutes=6)
    asked = len(desk.there.asked)
    desk.deliver(seconds=100)
    assert len(desk.there.asked) == asked  # Retry-After is kept
    desk.deliver(seconds=30)
    assert desk.unsent() == 0
    texts = desk.words()
    assert len(texts) <= 4
    assert "may repeat message 1" in texts[0]
    assert "column 0 is gone" in texts[0]
    pages = [page for (page,) in desk.world.sql("select page_id from plantao.alerts order by alert_id")]
    assert pages == sorted(pages)
    assert all("may repeat" not in text for text in texts[1:])


def test_a_message_whose_answer_was_lost_may_come_again_and_says_so(desk):
    desk.raise_()
    desk.there.faults.append(faults.lost())
    desk.deliver()
    desk.deliver(minutes=1)
    first, second = desk.there.messages
    assert not first.acknowledged
    assert ":warning: This may repeat message 1, whose acknowledgement was lost." in second.words
    assert "message 1 ·" in first.words
    assert desk.messages() == [(1, True, 2, True)]


def test_a_429_is_no_doubt(desk):
    desk.raise_()
    desk.there.faults.append(faults.rate_limited(30))
    desk.deliver()
    desk.deliver(seconds=29)
    desk.deliver(seconds=2)
    assert desk.messages() == [(1, False, 2, True)]


def test_a_revoked_token_is_an_incident_goes_to_the_log_and_nothing_is_lost(desk, caplog):
    desk.there.fault = faults.refuse("token_revoked")
    desk.raise_(message="it broke badly")
    with caplog.at_level("INFO", "plantao"):
        desk.deliver()
    assert "it broke badly" in caplog.text
    assert desk.world.sql("select job, lane, fingerprint, state from plantao.incidents") == [
        ("plantao-alerts", "delivery", "delivery token", "open")
    ]
    for _ in range(20):
        desk.deliver(minutes=30)
    assert desk.unsent() > 0
    desk.there.fault = None
    desk.deliver(hours=2)
    assert desk.unsent() == 0
    assert desk.there.messages[0].words.count("it broke badly") == 1
    assert desk.world.sql("select state from plantao.incidents") == [("closed",)]
    said = desk.there.said()
    assert "Alerts could not be delivered" in said
    assert "Alerts are delivered again" in said


def test_an_archived_channel_keeps_only_its_own_messages(desk):
    desk.there.archived.add("#ops")
    desk.raise_()
    desk.raise_(job="another_job")
    desk.deliver()
    assert [one.channel for one in desk.there.messages] == ["#on-call"]
    assert desk.world.sql("select job, fingerprint from plantao.incidents") == [
        ("bad_reading", "delivery channel #ops")
    ]
    desk.there.archived.clear()
    desk.deliver(hours=1)
    assert "#ops" in [one.channel for one in desk.there.messages]
    assert desk.world.sql("select state from plantao.incidents") == [("closed",)]


def test_a_message_that_slack_refuses_comes_in_the_plainest_form(desk):
    desk.raise_()
    desk.raise_(job="another_job")
    desk.there.faults.append(faults.refuse("invalid_blocks"))
    desk.deliver()
    assert [one.words.split("*")[1] for one in desk.there.messages] == ["another_job", "bad_reading"]
    assert "Slack refuses the message: invalid_blocks. Its alerts wait, and are in the log." in desk.words()[1]
    assert desk.world.sql("select state from plantao.incidents") == [("open",)]
    desk.deliver(minutes=10)
    assert any("cannot be shown here: plantao alerts list bad_reading" in text for text in desk.words())
    assert desk.world.sql("select state from plantao.incidents") == [("closed",)]
    assert desk.unsent() == 0


def test_two_senders_at_once_send_everything_once(desk):
    for number in range(8):
        desk.raise_("failed", f"n{number}", job=f"job_{number}")
    slow = messenger({"AIRFLOW_CONN_SLACK": desk.there.connection()})
    gate = threading.Barrier(4)

    def send():
        gate.wait()
        with desk.session() as connection:
            for _ in range(8):
                deliver(connection, desk.to, slow, desk.now)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert desk.unsent() == 0
    assert len(desk.words()) == 8
    assert not any(repeat for _, repeat, _, _ in desk.messages())


def test_a_frozen_senders_message_is_taken_over_when_its_lease_is_over(desk):
    desk.raise_()
    with desk.session() as frozen:
        from plantao.alert.delivery import Outcome, _Sender
        from plantao.alert.plan import plan

        plan(frozen, desk.to, desk.now)
        assert _Sender(frozen, desk.to, desk.slack, None, Outcome(), 0)._claim(desk.now, set()) is not None
        desk.deliver(minutes=2)
        assert desk.words() == []
        desk.deliver(minutes=2)
    assert "may repeat message 1" in desk.words()[0]


def test_what_follows_an_incident_is_a_reply_in_its_thread(desk):
    desk.settle(broken())
    desk.deliver()
    desk.settle(broken(0.9))
    desk.deliver(minutes=1)
    desk.settle()
    desk.deliver(minutes=1)
    first, second, third = desk.there.messages
    assert (first.thread, second.thread, third.thread) == (None, first.ts, first.ts)
    assert "worse: null_share x is bad" in second.words
    assert desk.world.sql("select event, who from plantao.incident_events order by event_id") == [
        ("opened", "plantao"), ("worsened", "plantao"), ("closed", "plantao")
    ]  # fmt: skip


def test_an_incident_that_stays_open_reminds_until_it_is_acknowledged_or_silenced(desk):
    desk.settle(broken(), broken(name="range y"))
    desk.now = datetime.now(UTC)
    desk.deliver()
    desk.deliver(hours=23)
    assert "Still open" not in desk.there.said()
    with desk.session() as connection, connection.begin():
        acknowledge(connection, 1, "ana", "on it")
    desk.deliver(hours=2)
    (reminder,) = desk.pages("Still open")
    assert "still open: range y is bad" in reminder
    assert "null_share" not in reminder
    with desk.session() as connection, connection.begin():
        silence(connection, 2, desk.now + timedelta(days=3), "rui", "known")
    desk.deliver(days=2)
    assert len(desk.pages("Still open")) == 1
    with desk.session() as connection, connection.begin(), pytest.raises(UsageError, match="no open incident 9"):
        acknowledge(connection, 9, "ana")


def test_without_slack_the_digest_is_in_the_log(desk, caplog):
    desk.raise_(message="it broke badly")
    with caplog.at_level("WARNING", "plantao"):
        desk.deliver(messenger({}))
    assert "no Slack is configured; this is for #ops:" in caplog.text
    assert "it broke badly" in caplog.text
    assert desk.world.sql("select destination, message_ts from plantao.digests") == [("log", None)]
    assert desk.unsent() == 0


def test_every_day_says_that_all_is_well(desk):
    desk.world.sql(
        "insert into plantao.runs (job, model, window_start, window_end, trigger, status, rows_read, rows_scored,"
        " rows_rejected, rows_already_scored, rows_late, rows_rescored, model_version, started_at, finished_at,"
        " code_version, environment, worker) select 'bad_reading', 'm', '2013-04-01Z', '2013-04-02Z', 'schedule',"
        " 'succeeded', 5, 5, 0, 0, 0, 0, 1, %s, %s, '1', '{}', 'w'", (MORNING - timedelta(days=1),) * 2,
    )  # fmt: skip
    desk.deliver()
    (words,) = desk.words()
    assert words == (
        "Hey, this is your DAILY notification digest for *bad_reading*."
        " There are a total of 0 notifications, 1 run, all windows complete.\n"
        "2026-03-01 00:00 .. 2026-03-02 00:00 UTC · runs daily\n"
        "Another 0 notifications were triggered in this interval.\n"
        "message 1 · all of it: plantao alerts list bad_reading"
    )
    desk.deliver(hours=1)
    assert len(desk.words()) == 1
    desk.deliver(days=3)
    assert len(desk.words()) == 2


def test_what_an_alert_says_never_changes(desk):
    desk.raise_()
    with pytest.raises(Exception, match="never changes"):
        desk.world.sql("update plantao.alerts set message = 'nothing happened'")
    desk.settle(broken())
    with pytest.raises(Exception, match="stays written"):
        desk.world.sql("update plantao.incident_events set who = 'me'")
