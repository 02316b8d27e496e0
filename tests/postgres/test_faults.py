"""Connections that break, servers that freeze, disks that fill up: the right error, and nothing half done."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from plantao.errors import DatabaseUnavailable, PlantaoError
from plantao.extract.spool import Spool
from plantao.load import copy_format, rejects, write
from plantao.postgres import session
from plantao.postgres import snapshot as snapshots
from plantao.postgres.locks import DATABASE, LEDGER, in_turn
from world import day, on_call


@pytest.fixture
def job(world, monkeypatch):
    monkeypatch.setattr(snapshots, "BATCH_BYTES", 4 << 10)
    monkeypatch.setattr(write, "ROWS_BEFORE_LOAD", 200)
    return world.ready(days=2, per_day=900)


def backends(world, where):
    return [pid for (pid,) in world.sql(f"select pid from pg_stat_activity where {where} and pid <> pg_backend_pid()")]


READING = "application_name like 'plantao/bad_reading/%' and datname = current_database()"
LOADING = "application_name = 'plantao/bad_reading' and datname = current_database()"


def end(world, where):
    def act():
        for pid in backends(world, where):
            world.sql("select pg_terminate_backend(%s)", (pid,))

    return act


def slow_down(world):
    """Let the source take 1.5 ms for every row, so that a read can be met in its middle."""
    world.sql(
        "alter table readings rename to slow_readings;"
        " create view readings as select r.* from slow_readings r, pg_sleep(0.0015 + 0 * r.x)"
    )
    world.grant()


def fails_and_recovers(world, job, monkeypatch, match, *, seen=0):
    with pytest.raises(DatabaseUnavailable, match=match) as caught:
        world.score(job, day(1))
    assert not caught.value.permanent
    there = world.results("select to_regclass('predictions.bad_reading') is not null")[0][0]
    assert len(world.predictions()) == seen if there else seen == 0
    monkeypatch.undo()
    report = world.score(job, day(1))
    assert (report.counts.read, len(world.predictions())) == (900, 900)
    assert not world.results("select from plantao.runs where status = 'running'")


def test_the_source_is_lost_in_the_middle_of_the_read(world, job, monkeypatch):
    slow_down(world)
    on_call(monkeypatch, Spool, "put", 3, end(world, READING))
    fails_and_recovers(world, job, monkeypatch, "extract: ")
    assert world.attempts("status, error_kind")[0] == ("failed", "transient")


def test_the_target_is_lost_in_the_middle_of_the_load(world, job, monkeypatch):
    on_call(monkeypatch, copy_format, "encode", 4, end(world, LOADING))
    fails_and_recovers(world, job, monkeypatch, "load: |session")


def test_the_target_is_lost_before_the_books_are_closed(world, job, monkeypatch):
    on_call(monkeypatch, rejects, "write", 1, end(world, LOADING))
    fails_and_recovers(world, job, monkeypatch, "closing the books|session")


def test_a_read_that_takes_too_long_is_ended(world, job, monkeypatch):
    slow_down(world)
    monkeypatch.setattr(session, "STATEMENT_SECONDS", 1)
    with pytest.raises(DatabaseUnavailable):
        world.score(job, day(1))
    assert world.attempts("status, error_kind") == [("failed", "transient")]


def test_a_source_that_is_locked_is_not_waited_for_for_ever(world, job, monkeypatch):
    monkeypatch.setattr(snapshots, "SOURCE_LOCK_SECONDS", 1)
    client = world.connect()
    client.cursor().execute("lock table readings in access exclusive mode")
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        world.score(job, day(1))
    assert time.monotonic() - began < 30
    client.rollback()
    assert world.score(job, day(1)).counts.scored == 900


@pytest.mark.parametrize(
    ("lock", "doing"),
    [
        ("plantao.load predictions.bad_reading", "opening the load into predictions.bad_reading"),
        ("plantao.start bad_reading", ""),
        ("plantao.declare bad_reading", ""),
    ],
)
def test_whoever_waits_in_vain_for_another_run_learns_which_process_it_is(world, job, monkeypatch, lock, doing):
    world.score(job, day(2))
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    with session.session(world.address("client_db"), "plantao", "plantao/another") as frozen, frozen.begin():
        in_turn(frozen, lock, DATABASE if lock.startswith("plantao.load") else LEDGER)
        pid = frozen.connection.driver_connection.info.backend_pid
        holder = rf"{lock} is held by process {pid} \(plantao/another\), in a transaction since .* \(idle in "
        with pytest.raises(DatabaseUnavailable, match=f"lock timeout .*{doing}.*; {holder}"):
            world.score(job, day(1))
    assert world.score(job, day(1)).counts.scored == 900


def test_a_prediction_table_that_is_locked_is_not_waited_for_for_ever(world, job, monkeypatch):
    world.score(job, day(2))
    monkeypatch.setattr(session, "LOCK_SECONDS", 1)
    client = world.connect()
    client.cursor().execute("lock table predictions.bad_reading in share mode")
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        world.score(job, day(1))
    client.rollback()
    assert world.score(job, day(1)).counts.scored == 900


def test_a_target_whose_disk_is_full_is_tried_again_later(world, job):
    world.score(job, day(2))
    world.results(
        "create function full_disk() returns trigger language plpgsql as $$ begin"
        " raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;"
        " create trigger full_disk before insert on predictions.bad_reading for each statement"
        " execute function full_disk()"
    )
    with pytest.raises(DatabaseUnavailable, match="No space left on device"):
        world.score(job, day(1))
    world.results("drop trigger full_disk on predictions.bad_reading")
    assert len(world.predictions()) == 900
    assert world.score(job, day(1)).counts.scored == 900


@pytest.mark.parametrize("where", [READING, LOADING], ids=["source", "target"])
def test_a_frozen_server_ends_the_wait_at_its_deadline(world, job, monkeypatch, where):
    """The server's process is stopped: it has accepted, and answers nothing at all, not even a time-out."""
    monkeypatch.setattr(session, "STATEMENT_SECONDS", 4)
    monkeypatch.setattr(session, "CONNECT_SECONDS", 2)
    frozen = []
    if where == READING:
        slow_down(world)

    def freeze():
        for pid in backends(world, where):
            os.kill(pid, signal.SIGSTOP)
            frozen.append(pid)

    on_call(monkeypatch, *((Spool, "put", 3) if where == READING else (copy_format, "encode", 4)), freeze)
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable, match=r"did not answer|sent no row|the session ended"):
            world.score(job, day(1))
        assert time.monotonic() - began < 60
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert frozen
    monkeypatch.undo()
    for _ in range(50):
        try:
            assert world.score(job, day(1)).counts.read == 900
            break
        except PlantaoError:
            time.sleep(0.1)  # the revived process of the server has to notice first that nobody is there
    assert len(world.predictions()) == 900


def test_memory_that_runs_out_is_no_half_run(world, job, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            raise MemoryError

    monkeypatch.setattr("plantao.score.batch.ScoredBatch", Full)
    with pytest.raises(MemoryError):
        world.score(job, day(1))
    assert world.attempts("status, error_kind, error") == [("failed", "transient", "MemoryError: MemoryError")]
    monkeypatch.undo()
    assert world.score(job, day(1)).counts.scored == 900


# --- twins -----------------------------------------------------------------------------------------------------------


def test_many_at_once_over_the_same_and_overlapping_windows_double_nothing(world, job):
    """Two schedulers, a backfill, manual runs, re-scoring, and a new champion in between."""
    whole = type(day(1))(day(1).start, day(2).end)
    requests = [(day(1), {}), (day(1), {}), (whole, {"trigger": "backfill"}), (day(2), {}), (day(2), {"rescore": True})]
    world.register()
    problems = []

    def work(window, request):
        for _ in range(40):
            try:
                world.score(job, window, **request)
            except DatabaseUnavailable as error:
                problems.append(error)
            except PlantaoError as error:
                if "is held by" not in str(error):
                    problems.append(error)
                time.sleep(0.1)
                continue
            return
        problems.append(TimeoutError(window))

    threads = [threading.Thread(target=work, args=one) for one in requests * 2]
    for number, thread in enumerate(threads):
        thread.start()
        if number == 4:
            world.results("update plantao.model_timeline set live_until = now() where live_until is null;"
                          " insert into plantao.model_timeline (model, version, live_from, who, why)"
                          " values ('bad_reading', 2, now(), 'test', 'twins')")  # fmt: skip
    for thread in threads:
        thread.join()
    assert problems == []
    assert world.results("select count(*), count(distinct id) from predictions.bad_reading") == [(1800, 1800)]
    books = "select sum(rows_scored) - sum(rows_rescored) from plantao.runs where status = 'succeeded'"
    assert world.results(books) == [(1800,)]
    history = "select count(*), (select sum(rows_rescored) from plantao.runs) from predictions.bad_reading_history"
    assert len(set(world.results(history)[0])) == 1


def test_a_session_that_did_not_answer_in_time_is_closed_by_the_call_that_still_waits_for_it(world, monkeypatch):
    world.fill()
    snapshot = snapshots.open_snapshot(world.place.address("client_db"), "plantao/slow")
    sessions = "select count(*) from pg_stat_activity where application_name = 'plantao/slow'"
    monkeypatch.setattr(session, "STATEMENT_SECONDS", 0.2)
    with pytest.raises(DatabaseUnavailable, match=r"did not answer for 0\.2 s"):
        snapshot.value("select 1 from pg_sleep(2)")
    snapshot.close()  # while C code still waits for the server's answer
    assert world.sql(sessions) == [(1,)]
    until = time.monotonic() + 30
    while world.sql(sessions) != [(0,)]:
        assert time.monotonic() < until
        time.sleep(0.1)
