"""The client comes first: what it changes waits for no read of ours, and a slow model holds nothing open."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg2
import pytest

from plantao.errors import DatabaseUnavailable
from plantao.extract import lock_watch
from plantao.extract.spool import Spool
from plantao.postgres import snapshot
from plantao.postgres.session import dsn
from world import day


@pytest.fixture
def slow_read(monkeypatch):
    """Let each batch take a while, and let there be many; tells when the first one is here."""
    put, begun = Spool.put, threading.Event()
    monkeypatch.setattr(snapshot, "BATCH_BYTES", 4 << 10)

    def slowly(self, batch):
        begun.set()
        time.sleep(0.1)
        return put(self, batch)

    monkeypatch.setattr(Spool, "put", slowly)
    monkeypatch.setattr(lock_watch, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(lock_watch, "LOOK_EVERY_SECONDS", 0.2)
    return begun


def test_a_read_gives_way_to_the_clients_alter_table_and_comes_back(world, slow_read, monkeypatch):
    # Far more than the socket holds: a read whose last row is already under way has nothing left to give way with.
    job = world.ready(days=1, per_day=12_000)
    waited = []

    def alter():
        assert slow_read.wait(60)
        with contextlib.closing(psycopg2.connect(dsn(world.owner("client_db"), "client"))) as connection:
            began = time.monotonic()
            with connection, connection.cursor() as cursor:
                cursor.execute("alter table readings add remark text")
            waited.append(time.monotonic() - began)

    client = threading.Thread(target=alter)
    client.start()
    with pytest.raises(DatabaseUnavailable, match="this read has given way"):
        world.score(job, day(1))
    client.join()
    assert waited[0] < 10  # the whole read takes longer: each of its batches waits a tenth of a second
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    monkeypatch.undo()
    assert world.score(job, day(1)).counts.scored == 12_000


def test_a_read_that_nobody_waits_for_goes_on(world, slow_read):
    assert world.score(world.ready(days=1, per_day=1500), day(1)).counts.scored == 1500


def test_a_slow_model_does_not_hold_the_source_open(world, monkeypatch):
    from plantao.score.batch import BatchScorer

    job = world.ready(days=1, per_day=3000)
    monkeypatch.setattr(snapshot, "BATCH_BYTES", 4 << 10)
    score = BatchScorer.score
    open_reads = []

    def slowly(self, batch, watch):
        time.sleep(0.1)
        mine = "from pg_stat_activity where application_name like 'plantao/bad_reading/%' and xact_start is not null"
        open_reads.append(world.sql(f"select count(*) {mine}")[0][0])
        return score(self, batch, watch)

    monkeypatch.setattr(BatchScorer, "score", slowly)
    world.score(job, day(1))
    assert len(open_reads) > 5
    assert set(open_reads[3:]) == {0}
