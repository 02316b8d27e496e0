"""The last guard: what the database refuses, whoever asks; and how attempts replace one another."""

from __future__ import annotations

import threading

import psycopg2
import pytest
from sqlalchemy.exc import OperationalError

from plantao.errors import NotInitialised, Superseded, WindowBusy
from plantao.ledger import runs
from plantao.ledger import session as ledger_session
from plantao.postgres import session as database
from plantao.window import Window
from world import day

ORIGIN = runs.Origin("schedule", "bad_reading/run_1", "here:1", "test", {})
OTHER = runs.Origin("manual", None, "there:2", "test", {})


@pytest.fixture
def job(world):
    return world.ready()


def session(world):
    return database.session(world.address(world.home_of_results), "plantao")


def session_of_the_owner(world, schema="plantao"):
    """`plantao init` makes a schema, which is more than the scorer role may."""
    return database.session(world.owner(world.home_of_results), schema)


def test_the_books_must_balance(world, job):
    world.score(job, day(1))
    insert = (
        "insert into plantao.runs (job, model, model_version, window_start, window_end, trigger, status, rows_read,"
        " rows_scored, rows_rejected, rows_already_scored, rows_late, rows_rescored, finished_at, code_version,"
        " environment, worker) values ('j', 'm', 1, '2013-01-01Z', '2013-01-02Z', 'manual', 'succeeded', {}, now(),"
        " 'x', '{{}}', 'w')"
    )
    world.results(insert.format("10, 7, 2, 1, 0, 0"))
    for wrong in ("10, 7, 2, 2, 0, 0", "null, 7, 2, 1, 0, 0", "10, null, 2, 1, 0, 0", "10, 11, 0, -1, 0, 0"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            world.results(insert.format(wrong))


def test_a_finished_attempt_never_changes(world, job):
    world.score(job, day(1))
    for attack in (
        "update plantao.runs set rows_scored = 0",
        "delete from plantao.runs",
        "truncate plantao.runs cascade",
    ):
        with pytest.raises(psycopg2.errors.IntegrityError, match=r"never changes|only ever added to"):
            world.results(attack)


def test_a_probability_outside_its_range_cannot_be_written(world, job):
    world.score(job, day(1))
    for wrong in ("1.1", "-0.1", "'NaN'", "'infinity'"):
        with pytest.raises(psycopg2.errors.CheckViolation):
            world.results(f"update predictions.bad_reading set score = {wrong}")


def test_of_two_live_attempts_the_second_says_who_holds_the_window(world, job):
    with session(world) as first, session(world) as second:
        run_id = runs.start(first, job, day(1), None, ORIGIN)
        with pytest.raises(WindowBusy, match=f"held by run {run_id} of here:1, since"):
            runs.start(second, job, day(1), None, OTHER)
        overlapping = Window(day(1).start, day(4).end)
        with pytest.raises(WindowBusy):
            runs.start(second, job, overlapping, None, OTHER)
        runs.start(second, job, day(2), None, OTHER)
    assert not WindowBusy.permanent


def test_an_attempt_whose_process_is_gone_is_closed_by_the_next(world, job):
    with session(world) as first:
        run_id = runs.start(first, job, day(1), None, ORIGIN)
    with session(world) as second:
        runs.start(second, job, day(1), None, OTHER)
    status, error = world.results(f"select status, error from plantao.runs where run_id = {run_id}")[0]
    assert status == "failed"
    assert "its process (here:1) ended without a word" in error


def test_a_newer_try_of_the_same_task_takes_over_and_the_older_one_writes_nothing(world, job):
    with session(world) as zombie, session(world) as retry, session(world) as another:
        run_id = runs.start(zombie, job, day(1), None, ORIGIN)
        runs.start(retry, job, day(1), None, ORIGIN)
        with pytest.raises(OperationalError, match="terminat"):
            ledger_session.now(zombie)  # its session was ended, since it could have held the locks of a load
        with pytest.raises(Superseded, match="It wrote nothing"), another.begin():
            runs.hold(another, run_id)
    assert world.results("select error from plantao.runs where status = 'failed'")[0][0].startswith("superseded")


def test_a_zombie_that_wakes_up_in_the_middle_of_its_run_is_fenced(world, job, monkeypatch):
    """The run is frozen between reading and loading; its replacement finishes; then it goes on."""
    from plantao.load import write

    frozen, go_on = threading.Event(), threading.Event()
    load = write.Load.wait

    def wait(self):
        if threading.current_thread().name == "zombie":
            frozen.set()
            go_on.wait(30)
        load(self)

    monkeypatch.setattr(write.Load, "wait", wait)
    caught = []

    def zombie():
        try:
            world.score(job, day(1), airflow_run="task", trigger="schedule")
        except Superseded as error:
            caught.append(error)

    thread = threading.Thread(target=zombie, name="zombie")
    thread.start()
    assert frozen.wait(30)
    assert world.score(job, day(1), airflow_run="task", trigger="schedule").counts.scored == 20
    after = world.predictions("*")
    go_on.set()
    thread.join(30)
    assert len(caught) == 1
    assert world.predictions("*") == after
    assert [row[0] for row in world.attempts()] == ["failed", "succeeded"]


def test_two_runs_that_meet_the_same_late_rows_score_them_once(world, job, monkeypatch):
    """A run of day 1 again, and one of day 2 that looks back: both read the late row before either has loaded."""
    from plantao.load import write

    world.score(job, day(1))
    world.insert(1, [9001])
    barrier = threading.Barrier(2, timeout=30)
    begin = write.Load._begin
    monkeypatch.setattr(write.Load, "_begin", lambda self: (barrier.wait(), begin(self)))
    reports = []
    threads = [threading.Thread(target=lambda n=n: reports.append(world.score(job, day(n)))) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reports) == 2
    assert sum(report.counts.scored for report in reports) == 21
    assert len(world.predictions()) == 41
    assert len({row[0] for row in world.predictions()}) == 41


def test_the_view_status_tells_the_client_how_things_stand(world, job):
    world.score(job, day(1))
    world.score(job, day(3))
    row = world.results(
        "select health, last_window_end, last_rows_scored, model_version, prediction_table, lower(owed)"
        " from plantao.status"
    )[0]
    assert row == ("late", day(3).end, 20, 1, "predictions.bad_reading", day(2).start)


def test_a_failed_attempt_is_the_health_that_the_client_sees(world, job):
    world.score(job, day(1))
    world.sql("alter table readings drop x")
    with pytest.raises(Exception, match="column 'x' is missing"):
        world.score(job, day(2))
    assert world.results("select health, last_error like '%''x'' is missing%' from plantao.status") == [
        ("failing", True)
    ]


def test_init_is_safe_to_repeat_and_to_run_twice_at_once(world):
    from plantao.ledger.migrate import migrations, upgrade

    world.sql("drop schema plantao cascade")
    applied = []

    def run():
        with session_of_the_owner(world) as connection:
            applied.append(upgrade(connection, "plantao"))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


def test_the_ledger_may_live_in_a_schema_of_any_name(world):
    from dataclasses import replace

    from plantao.ledger.migrate import require_current, upgrade
    from plantao.ledger.request import Request
    from plantao.release import register as registering
    from plantao.run import run
    from plantao.runtime import Place

    name = 'Ünï "ledger"'
    job = world.ready()
    place = Place(replace(world.place.settings, schema=name), world.place.address)
    with session_of_the_owner(world, name) as connection:
        with pytest.raises(NotInitialised):
            require_current(connection, name, "here")
        upgrade(connection, name)
    world.grant(name)
    from plantao.models import store

    manifest = store.read_manifest(place.settings.model_store, "bad_reading", 1)
    registering.enter(manifest, place, ["client_db"])
    assert run.score_window(Request(job, day(1)), place).counts.scored == 20
    assert world.sql('select count(*) from "Ünï ""ledger""".runs') == [(1,)]
    assert world.attempts() == []
