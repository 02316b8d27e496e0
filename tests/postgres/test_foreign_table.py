"""A foreign table as the source: rows that lie in another database of the client's, seen through postgres_fdw.

The wheel's PostgreSQL comes without postgres_fdw, so these tests start a server of the machine's.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

import debian_packages
from plantao.errors import DatabaseUnavailable
from plantao.ledger.request import Request
from plantao.postgres import embedded, session
from plantao.run import parallel, publish
from plantao.run.parallel import Part
from plantao.run.reconcile import reconcile
from plantao.window import Window
from world import APRIL, JOB, TABLE, WORKER, World, administer, day, serving

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]")
EDITS = JOB.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A server of the PostgreSQL that is installed on this machine."""
    programs = debian_packages.need("postgresql").resolve().parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "_programs", lambda: programs)
        with serving(tmp_path_factory.mktemp("machine")) as server:
            yield server


@pytest.fixture(params=["one database", "two databases"])
def client(request, machine, tmp_path):
    """A world whose readings lie far away."""
    with World.create(machine, tmp_path, "client_db" if request.param == "one database" else "results_db") as world:
        far = world.databases["far"] = f"{world.databases['client_db']}_far"
        administer(machine, f"create database {far}")
        world.sql(f"{TABLE}; grant usage on schema public to {WORKER}; grant select on readings to {WORKER}", at="far")
        world.sql(
            "create extension postgres_fdw;"
            " create server far foreign data wrapper postgres_fdw options"
            f" (host '{machine.socket_folder}', dbname '{far}', application_name 'far');"
            f" create user mapping for {embedded.USER} server far options (user '{embedded.USER}');"
            f" create user mapping for {WORKER} server far options (user '{WORKER}', password_required 'false');"
            " import foreign schema public limit to (readings) from server far into public"
            " options (import_default 'true')"
        )
        for number in range(1, 6):
            world.insert(number, [number * 1000 + i for i in range(20)])
        world.register()
        yield world


def test_every_row_is_scored_once_and_late_rows_are_found(client):
    job = client.job()
    assert client.score(job, day(1)).counts.scored == 20
    client.insert(1, [9001, 9002])
    assert client.score(job, day(1), dry_run=True).counts.scored == 2
    counts = client.score(job, day(2)).counts
    assert (counts.scored, counts.late) == (22, 2)
    before = client.predictions("*")
    counts = client.score(job, day(1)).counts
    assert (counts.scored, counts.already_scored) == (0, 22)
    assert client.predictions("*") == before
    assert len(before) == 42


def test_the_predictions_are_those_of_a_plain_table(client):
    client.score(client.job(), day(1))
    through_the_wrapper = client.predictions("id, source_timestamp, prediction, score")
    client.results("delete from predictions.bad_reading")
    client.sql("create table plain as select * from readings")
    client.score(client.job(JOB.replace("public.readings", "public.plain")), day(1))
    assert client.predictions("id, source_timestamp, prediction, score") == through_the_wrapper


def test_bad_rows_are_set_aside_and_scored_when_they_are_mended(client):
    job = client.job(LENIENT)
    client.sql("alter table readings drop constraint readings_pkey; alter table readings alter id drop not null;"
               " update readings set x = null where id = 1003; update readings set x = 'NaN' where id = 1004;"
               " update readings set id = null where id = 1005; update readings set id = 1006 where id = 1007",
               at="far")  # fmt: skip
    client.score(job, day(1))
    counts = client.score(job, day(1)).counts
    assert (counts.read, counts.rejected, counts.already_scored) == (20, 5, 15)
    rejects = "select reason, count(*) from plantao.rejected_rows where resolved_at is null group by 1 order by 1"
    assert client.results(rejects) == [("duplicate_key", 2), ("not_finite", 1), ("null_feature", 1), ("null_key", 1)]
    client.sql("update readings set x = 1 where id in (1003, 1004)", at="far")
    assert client.score(job, day(2)).counts.late == 5  # the three that stay bad are looked at again
    assert client.results(rejects) == [("duplicate_key", 2), ("null_key", 1)]
    assert len(client.predictions()) == 37


def test_an_edited_row_is_scored_again_and_its_old_prediction_kept(client):
    job = client.job(EDITS)
    client.score(job, day(1))
    client.sql("update readings set x = x + 10, edited_at = '2013-04-01 12:00Z' where id = 1003", at="far")
    counts = client.score(job, day(1)).counts
    assert (counts.scored, counts.rescored, counts.already_scored) == (1, 1, 19)
    client.sql("update readings set x = x - 10, edited_at = '2013-04-05 12:00Z' where id = 1004", at="far")
    assert client.score(job, day(5)).counts.rescored == 1
    assert client.results("select id from predictions.bad_reading_history order by id") == [(1003,), (1004,)]


def test_a_window_is_cut_into_parts_and_the_history_compared(client):
    job = client.job(JOB.replace("[load]", "parts = 3\n[load]"))
    parts = [Part.of(part.as_dict()) for part in parallel.plan(Request(job, day(1)), client.place)]
    assert len(parts) == 3
    for part in parts:
        parallel.score_part(job, part, client.place)
    assert publish.publish(job, parts[0].run_id, client.place).counts.scored == 20
    client.sql("delete from readings where id = 1001", at="far")
    client.insert(1, [9001])
    found = reconcile(job, client.place, Window(APRIL, day(2).end), repair=True)
    assert (found.found.rows_owed, found.found.rows_gone, found.rows_repaired) == (21, 1, 21)


def test_a_far_server_that_ends_the_session_in_the_middle_of_a_read_is_a_passing_error(client, monkeypatch):
    from plantao.extract.spool import Spool
    from plantao.postgres import snapshot

    monkeypatch.setattr(snapshot, "BATCH_BYTES", 4 << 10)
    client.insert(1, list(range(100_000, 101_000)))
    client.sql(
        "alter table readings rename to slow; create view readings as"
        " select r.* from slow r, pg_sleep(0.0005 + 0 * r.x); grant select on readings, slow to worker",
        at="far",
    )
    job, put, batches = client.job(), Spool.put, []

    def then_end(self, batch):
        batches.append(batch)
        if len(batches) == 3:
            client.sql(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'far'"
                " and usename = 'worker'"
            )
        return put(self, batch)

    monkeypatch.setattr(Spool, "put", then_end)
    with pytest.raises(DatabaseUnavailable):
        client.score(job, day(1))
    assert len(batches) >= 3
    assert client.attempts("status, error_kind") == [("failed", "transient")]
    monkeypatch.undo()
    assert client.score(job, day(1)).counts.scored == 1020


def test_a_far_table_that_is_reloaded_while_the_run_starts_is_read_whole(client):
    job = client.job()
    client.sql("create table kept as select * from readings", at="far")
    far = psycopg2.connect(session.dsn(client.owner("far"), "client"))
    with contextlib.closing(far), ThreadPoolExecutor(1) as pool, far.cursor() as cursor:
        cursor.execute("truncate readings; insert into readings table kept")
        run = pool.submit(client.score, job, day(1))
        waits = "select exists (select from pg_locks where not granted)"
        while not client.sql(waits, at="far")[0][0] and not run.done():
            time.sleep(0.01)
        far.commit()
        assert run.result().counts.scored == 20
    client.sql("truncate readings", at="far")
    assert client.score(job, day(2)).counts.read == 0
