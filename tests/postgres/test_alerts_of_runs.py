"""Every run that fails leaves its alert in the transaction that closes it; what heals says so."""

from __future__ import annotations

import pytest

from plantao.errors import DatabaseUnavailable, SourceChanged, TooManyRejected
from plantao.ledger import runs
from plantao.ledger.request import Request
from plantao.run import parallel, publish
from world import JOB, day

ORIGIN = runs.Origin("schedule", "bad_reading/run_1", "there:2", "test", {})


@pytest.fixture
def job(world):
    return world.ready()


def alerts(world, columns: str = "kind, fingerprint, run_id"):
    return world.results(f"select {columns} from plantao.alerts order by alert_id")


def test_a_source_that_changed_is_told_each_time_with_since_when_and_its_recovery_once(world, job):
    world.sql("alter table readings rename x to z")
    for _ in range(2):
        with pytest.raises(SourceChanged):
            world.score(job, day(1))
    world.sql("alter table readings rename z to x")
    world.score(job, day(1))
    world.score(job, day(2))
    assert alerts(world) == [
        ("source_changed", "source_changed bad_reading SourceChanged", 1),
        ("source_changed", "source_changed bad_reading SourceChanged", 2),
        ("recovered", "recovered bad_reading", 3),
    ]
    first, second, over = (message for (message,) in alerts(world, "message"))
    assert first.startswith("bad_reading, 2013-04-01: validate: the source of job bad_reading is not what")
    assert "It would happen again, so it is not retried." in first
    assert first.endswith("It is the first failure since the last success.")
    assert "It is failure 2 in a row since 20" in second
    assert "scored after 2 failed tries" in over


def test_a_failure_that_airflow_retries_wakes_nobody_and_heals_in_silence(world, job, monkeypatch):
    from plantao.run.attempt import Attempt

    def fails(self):
        message = "the server is gone."
        raise DatabaseUnavailable(message, "nothing: it is retried", "load")

    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "run", fails)
        with pytest.raises(DatabaseUnavailable):
            world.score(job, day(1), tries_left=2)
        with pytest.raises(DatabaseUnavailable):
            world.score(job, day(2), tries_left=0)
    world.score(job, day(1))
    world.score(job, day(2))
    assert [kind for kind, *_ in alerts(world)] == ["retrying", "failed", "healed", "recovered"]


def test_an_attempt_that_the_next_one_finds_dead_leaves_an_alert(world, job):
    with world.place_session(job) as connection:
        runs.start(connection, job, day(1), None, ORIGIN)
    world.score(job, day(1))
    assert [kind for kind, *_ in alerts(world)] == ["retrying", "healed"]
    assert "ended without a word" in alerts(world, "message")[0][0]


def test_rows_that_a_good_run_sets_aside_are_one_notification_with_their_reasons(world):
    world.fill()
    world.register()
    job = world.job(JOB + "\n[validate]\nat_most_rejected = 0.5\n[validate.columns.x]\nmax = 50\n")
    world.insert(1, [9001, 9002], x=99.0)
    world.score(job, day(1))
    ((kind, message),) = alerts(world, "kind, message")
    assert kind == "rejected_rows"
    assert message == "bad_reading, 2013-04-01: 2 rows were set aside of 22: 2 out_of_range."


def test_too_many_of_them_stop_the_run_in_a_word_of_their_own(world):
    world.fill()
    world.register()
    job = world.job(JOB + "\n[validate.columns.x]\nmax = -50\n")
    with pytest.raises(TooManyRejected):
        world.score(job, day(1))
    assert [kind for kind, *_ in alerts(world)] == ["too_many_rejected"]


def test_a_part_that_can_never_be_scored_and_a_publish_leave_theirs_too(world):
    world.fill()
    world.register()
    job = world.job(JOB.replace('model = "bad_reading"', 'model = "bad_reading"\nparts = 2'))
    parts = parallel.plan(Request(job, day(1)), world.place)
    world.sql("alter table readings rename x to z")
    with pytest.raises(SourceChanged):
        parallel.score_part(job, parts[0], world.place)
    world.sql("alter table readings rename z to x")
    parts = parallel.plan(Request(job, day(1)), world.place)
    for part in parts:
        parallel.score_part(job, part, world.place)
    publish.publish(job, parts[0].run_id, world.place)
    assert [kind for kind, *_ in alerts(world)] == ["source_changed", "recovered"]


def test_a_success_is_a_sign_of_life(world, job):
    world.score(job, day(1))
    (row,) = world.results("select component, details ->> 'rows_scored' from plantao.heartbeats")
    assert row == ("job bad_reading", "20")


def test_an_unexpected_error_is_told_without_its_words(world, job, monkeypatch):
    from plantao.run.attempt import Attempt

    def fails(self):
        message = "row 7 of Maria"
        raise ValueError(message)

    monkeypatch.setattr(Attempt, "run", fails)
    with pytest.raises(ValueError, match="Maria"):
        world.score(job, day(1))
    ((message, next_step),) = alerts(world, "message, next_step")
    assert "unexpected ValueError; its words are in plantao.runs.error of run 1" in message
    assert "Maria" not in message + next_step
