"""A client that reloads its table while a run reads it: each run is complete, or it fails and is retried."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import psycopg2
import pytest

from plantao.errors import DatabaseUnavailable
from plantao.postgres import replaced, snapshot
from plantao.postgres.pinned import CLOSED_PATH
from plantao.postgres.session import dsn
from plantao.run.reconcile import reconcile
from plantao.window import Window
from world import APRIL, JOB, SCORER, day

ROWS = 20
COPY = "create table kept as select * from readings;"
# What the client does in one transaction, after which the same rows are there.
RELOADS = {
    "truncate": "truncate readings; insert into readings select * from kept",
    "delete": "delete from readings; insert into readings select * from kept",
    "rename and swap": "create table fresh (like readings including all); insert into fresh select * from kept;"
    f" grant select on fresh to {SCORER}; drop table readings; alter table fresh rename to readings",
    "alter type": "alter table readings alter x type real; alter table readings alter x type double precision",
}


@contextlib.contextmanager
def reloading(world, reload):
    """Let the client reload while the context lasts: it commits as soon as the product waits for its lock."""
    begun, failed = threading.Event(), []
    waits = "select exists (select from pg_locks where not granted)"

    def client():
        try:
            with (
                contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "client"))) as connection,
                connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(reload)
                begun.set()
                # A reload by DELETE locks no reader out: it commits when the run is long under way, or over.
                patience = 50 if reload.startswith("delete") else 6000
                while patience:
                    cursor.execute(waits)
                    if cursor.fetchone()[0]:
                        break
                    patience -= 1
                    time.sleep(0.01)
        except psycopg2.Error as error:
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=client)
    thread.start()
    begun.wait()
    yield
    thread.join()
    assert not failed


def with_source(name):
    """Return a job file that reads the readings through a table, a view or a query."""
    if name == "query":
        return JOB.replace('table     = "public.readings"', 'query     = "select * from public.readings"')
    return JOB.replace("public.readings", f"public.{name}")


def prepared(world, statements, text):
    world.fill(days=2, per_day=ROWS)
    world.sql(COPY + statements)
    world.register()
    job = world.job(text)
    world.sql(f"grant select on all tables in schema public to {SCORER}")
    return job


@pytest.mark.parametrize("reload", RELOADS)
def test_a_run_is_complete_whichever_way_the_client_reloads(world, reload):
    job = prepared(world, "", JOB)
    with reloading(world, RELOADS[reload]):
        assert world.score(job, day(1)).counts.scored == ROWS


APRIL_OF_SEEN = "create table april partition of seen for values from ('2013-04-01Z') to ('2013-05-01Z');"
# What the source is made of: how the client makes it, its name, and how it is reloaded.
SOURCES = {
    "view": (
        "create view seen as select * from readings",
        "seen",
        "truncate readings; insert into readings table kept",
    ),
    "query": ("", "query", "truncate readings; insert into readings table kept"),
    "materialized view": ("create materialized view seen as table kept", "seen", "refresh materialized view seen"),
    "inheritance child": (
        "create table child () inherits (readings); insert into child table kept; delete from only readings",
        "readings",
        "truncate child; insert into child table kept",
    ),
    "partition": (
        f"create table seen (like readings) partition by range (at); {APRIL_OF_SEEN} insert into seen table kept",
        "seen",
        f"drop table april; {APRIL_OF_SEEN} insert into seen table kept",
    ),
    "function": (
        (
            "create function all_readings() returns setof readings language plpgsql stable as"
            " $$begin return query select * from public.readings; end$$;"
            " create view seen as select * from all_readings()"
        ),
        "seen",
        "truncate readings; insert into readings table kept",
    ),
}


@pytest.mark.parametrize("made_of", SOURCES)
def test_a_run_is_complete_whatever_the_source_is_made_of(world, made_of):
    statements, source, reload = SOURCES[made_of]
    job = prepared(world, statements, with_source(source))
    with reloading(world, reload):
        assert world.score(job, day(1)).counts.scored == ROWS


def test_a_right_on_columns_alone_is_enough(world):
    job = prepared(
        world, "", JOB.replace('table     = "public.readings"', 'query = "select id, at, x, y, city from readings"')
    )
    world.sql(f"revoke select on readings from {SCORER}; grant select (id, at, x, y, city) on readings to {SCORER}")
    with reloading(world, RELOADS["truncate"]):
        assert world.score(job, day(1)).counts.scored == ROWS


def reloaded_behind_each_snapshot(world, monkeypatch):
    """Let the client reload just after each snapshot of a run's source is taken, before anything is locked."""
    original = snapshot.open_snapshot

    def then_reload(address, application="plantao", lock=(), path=CLOSED_PATH):
        is_source = application.count("/") == 2
        opened = original(address, application, () if is_source else lock, path)
        if is_source:
            opened.value("select 1")
            world.sql(RELOADS["truncate"])
        return opened

    monkeypatch.setattr(snapshot, "open_snapshot", then_reload)


def test_a_table_that_is_always_replaced_is_a_passing_error_and_nothing_is_written(world, monkeypatch):
    job = prepared(world, "", JOB)
    reloaded_behind_each_snapshot(world, monkeypatch)
    with pytest.raises(DatabaseUnavailable, match=r"public\.readings was replaced during the read"):
        world.score(job, day(1))
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    assert world.results("select count(*) from predictions.bad_reading") == [(0,)]


def test_what_only_the_rows_themselves_read_is_looked_at_when_they_are_all_here(world, monkeypatch):
    job = prepared(world, "", JOB)

    def without_a_look(opened, use):
        found = opened(())
        return found, use(found)

    monkeypatch.setattr("plantao.run.attempt.whole", without_a_look)
    reloaded_behind_each_snapshot(world, monkeypatch)
    with pytest.raises(DatabaseUnavailable, match="was replaced"):
        world.score(job, day(1))


def test_locks_are_taken_before_the_snapshot_when_a_relation_was_replaced(world):
    address = world.ready(days=1, per_day=ROWS) and world.address("client_db")
    opened, seen = [], []

    def use(found):
        if not seen:
            found.value("select 1")
            world.sql("truncate readings")
        seen.append(found.value("select count(*) from public.readings"))

    def open_(lock):
        opened.append(list(lock))
        return snapshot.open_snapshot(address, "plantao/test", lock)

    found, _ = replaced.whole(open_, use)
    locked = "select count(*) from pg_locks where relation = 'readings'::regclass and mode = 'AccessShareLock'"
    assert world.sql(locked) == [(1,)]
    found.close()
    assert opened == [[], ["public.readings"]]
    assert seen == [0, 0]


def test_a_comparison_of_the_history_is_of_a_whole_table(world):
    job = prepared(world, "", JOB)
    for number in (1, 2):
        world.score(job, day(number))
    with reloading(world, RELOADS["truncate"]):
        found = reconcile(job, world.place, Window(APRIL, day(2).end)).found
    assert (found.rows_gone, found.rows_owed, found.rows_source) == (0, 0, 2 * ROWS)


def test_under_a_client_that_reloads_all_the_time_no_run_is_empty(world):
    job = prepared(world, "", JOB)
    done, empty, failed = threading.Event(), 0, 0

    def client():
        ways = itertools.cycle(RELOADS.values())
        with contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "client"))) as connection:
            while not done.is_set():
                with contextlib.suppress(psycopg2.Error), connection, connection.cursor() as cursor:
                    cursor.execute("set local lock_timeout = '1s'")
                    cursor.execute(next(ways))
                    done.wait(0.05)
                done.wait(0.05)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        for _ in range(15):
            try:
                empty += world.score(job, day(1), rescore=True).counts.read != ROWS
            except DatabaseUnavailable:
                failed += 1
    finally:
        done.set()
        thread.join()
    assert empty == 0
    assert failed < 15
    assert world.results("select count(*) from plantao.runs where status = 'empty'") == [(0,)]
