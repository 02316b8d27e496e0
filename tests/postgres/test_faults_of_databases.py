"""What happens to servers and sessions: cut connections, full servers, deadlocks, restored backups, tired standbys."""

from __future__ import annotations

import contextlib
import selectors
import socket
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from plantao.alert.slack import messenger
from plantao.errors import DatabaseUnavailable, DiskFull, PlantaoError, TargetRefused
from plantao.extract import spool
from plantao.extract import standby as waiting
from plantao.load import rejects, write
from plantao.postgres import session
from plantao.postgres import snapshot as snapshots
from plantao.run import run
from plantao.run.reconcile import reconcile
from plantao.watch.watchdog import Watchdog
from plantao.window import Window
from world import JOB, administer, day, on_call


@pytest.fixture
def job(world, monkeypatch):
    monkeypatch.setattr(snapshots, "BATCH_BYTES", 4 << 10)
    return world.ready(days=2, per_day=900)


def passes(world, job, monkeypatch, match, error=DatabaseUnavailable):
    """The run ends with a passing error and nothing visible; the next one has every row."""
    with pytest.raises(error, match=match) as caught:
        world.score(job, day(1), tries_left=1)
    assert not caught.value.permanent
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    assert world.results("select kind from plantao.alerts") == [("retrying",)]
    assert world.predictions() == []
    monkeypatch.undo()
    assert world.score(job, day(1)).counts.scored == 900


# --- the way to the server -------------------------------------------------------------------------------------------


class Cut:
    """A way to the server's socket that can be cut."""

    def __init__(self, server) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="plantao-cut-")
        self.folder, self.is_cut = self._folder.name, False
        self._target = str(server.socket_folder / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self.folder) / ".s.PGSQL.5432"))
        self._listener.listen()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._pass_on, args=(self._listener.accept()[0],), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
            server.connect(self._target)
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while True:
                    for key, _ in ready.select():
                        content = key.fileobj.recv(1 << 14)
                        if self.is_cut or not content:
                            return
                        key.data.sendall(content)


def test_a_connection_that_is_cut_in_the_middle_of_a_read_leaves_no_part_of_it(two_databases, monkeypatch):
    world = two_databases
    world.fill(days=1, per_day=900)
    world.sql("alter table readings rename to all_readings; create view readings as"
              " select r.* from all_readings r, pg_sleep(0.0015 + 0 * r.x)")  # fmt: skip
    world.register()
    job, direct = world.job(), world.address
    monkeypatch.setattr(snapshots, "BATCH_BYTES", 4 << 10)
    with Cut(world.server) as way:

        def address(name):
            found = direct(name)
            return replace(found, parameters={**found.parameters, "host": way.folder}) if name == "client_db" else found

        monkeypatch.setattr(world, "address", address)
        on_call(monkeypatch, spool.Spool, "put", 3, lambda: setattr(way, "is_cut", True))
        with pytest.raises(DatabaseUnavailable, match=r"extract: .*while reading the source"):
            world.score(job, day(1))
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    assert world.predictions() == []
    monkeypatch.undo()
    assert world.score(job, day(1)).counts.scored == 900


def test_a_server_with_too_many_connections_is_tried_again(world, job, monkeypatch):
    name = world.databases["client_db"]
    administer(world.server, f"alter database {name} connection limit 0")
    with pytest.raises(PlantaoError, match="too many connections") as caught:
        world.score(job, day(1))
    assert not caught.value.permanent
    administer(world.server, f"alter database {name} connection limit -1")
    assert world.score(job, day(1)).counts.scored == 900


def test_a_load_that_falls_silent_is_ended_by_the_server_so_that_it_holds_no_lock(world, job, monkeypatch):
    """As when the worker's machine has vanished: its session would hold the lock of the load for ever."""
    monkeypatch.setattr(session, "IDLE_SECONDS", 1)
    free = []

    def silent():
        lock = "select pg_try_advisory_xact_lock(hashtextextended('plantao.load predictions.bad_reading', 0))"
        eventually(lambda: world.sql(lock)[0][0])
        free.append(True)

    on_call(monkeypatch, rejects, "write", 1, silent)
    passes(world, job, monkeypatch, "idle|session|closed")
    assert free == [True]


def test_of_a_deadlock_with_the_client_the_run_gives_way_and_is_tried_again(world, job, monkeypatch):
    world.score(job, day(2))
    client = world.connect()
    client.cursor().execute("set deadlock_timeout = '60s'")  # so that the server ends ours
    client.commit()
    client.cursor().execute("lock table predictions.bad_reading in share mode")
    waited = []

    def wait_for_ours():
        client.cursor().execute(
            "select pg_advisory_xact_lock(hashtextextended('plantao.load predictions.bad_reading', 0))"
        )
        waited.append(True)

    threads = []

    def begin():
        threads.append(threading.Thread(target=wait_for_ours))
        threads[0].start()

    on_call(monkeypatch, write.Load, "_write", 1, begin)
    with pytest.raises(DatabaseUnavailable, match="deadlock detected") as caught:
        world.score(job, day(1))
    assert not caught.value.permanent
    threads[0].join(30)
    assert waited == [True]
    client.rollback()
    monkeypatch.undo()
    assert len(world.predictions()) == 900
    assert world.score(job, day(1)).counts.scored == 900


# --- what the server says --------------------------------------------------------------------------------------------


def test_a_row_that_the_server_quotes_in_an_error_does_not_get_out(world, job, caplog):
    world.score(job, day(2))
    world.sql("alter table predictions.bad_reading add constraint of_the_client check (id <> 1003)")
    with pytest.raises(TargetRefused, match="of_the_client") as caught:
        world.score(job, day(1))
    assert caught.value.permanent
    assert "1003" in str(caught.value.__cause__)  # the driver's error quotes the row
    told = world.results("select * from plantao.alerts")
    said = f"{caught.value} {told} {world.attempts('error')} {caplog.text}"
    assert "1003" not in said
    assert "Failing row" not in said


# --- the disk of the worker ------------------------------------------------------------------------------------------


def test_a_worker_whose_disk_is_full_says_so_and_tries_again(world, job, monkeypatch):
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (0,))
    full = Path("/dev/full").open("w+b", 0)  # noqa: SIM115 - the spool closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full)
    passes(world, job, monkeypatch, "No space left on device", DiskFull)


# --- backups and standbys --------------------------------------------------------------------------------------------


def test_a_target_that_was_restored_from_a_backup_owes_what_it_has_lost(two_databases):
    """As after a failover that lost the last commits: predictions and ledger are lost together."""
    world = two_databases
    job = world.ready(JOB.replace("starts   = 2013-04-01", "starts   = 2013-04-01\nends = 2013-04-04"))
    world.score(job, day(1))
    name = world.databases["results_db"]
    world.leave()
    administer(world.server, f"create database {name}_backup template {name}")
    for number in (2, 3):
        world.score(job, day(number))
    administer(world.server, f"drop database {name} with (force)", f"alter database {name}_backup rename to {name}")
    assert len(world.predictions()) == 20

    look = Watchdog(world.place, messenger({}), environment={}, pause=lambda _: None).look
    world.results(
        "insert into plantao.heartbeats (component, host, details)"
        """ values ('file bad_reading', 'x', '{"first_seen": "2013-01-01T00:00:00Z"}')"""
        " on conflict (component) do update set details = excluded.details"
    )
    assert any("2 windows are not scored" in change for change in look().changes)
    owed = run.owed_windows(job, world.place)
    assert owed == [day(2), day(3)]
    for window in owed:
        world.score(job, window)
    assert len(world.predictions()) == 60


def test_a_source_that_was_restored_from_a_backup_leaves_predictions_without_a_row_that_are_counted(two_databases):
    world = two_databases
    job = world.ready(days=3)
    world.score(job, day(1))
    name = world.databases["client_db"]
    world.leave()
    administer(world.server, f"create database {name}_backup template {name}")
    world.insert(2, [2900, 2901])
    world.score(job, day(2))
    administer(world.server, f"drop database {name} with (force)", f"alter database {name}_backup rename to {name}")
    world.insert(2, [2902])
    assert world.score(job, day(3)).counts.late == 1
    found = reconcile(job, world.place).found
    assert (found.rows_owed, found.rows_gone) == (0, 2)


@pytest.fixture
def from_standby(world, standby):
    """A job whose source is a hot standby of the database with the predictions."""
    world.fill(days=3)
    world.register()
    world.databases["standby"] = world.databases["client_db"]
    world.servers["standby"] = standby
    text = JOB.replace("[extract]", '[extract]\nconnection = "standby"')
    return world.job(text.replace("[load]", '[load]\nconnection = "client_db"'))


def eventually(asked, patience=20):
    until = time.monotonic() + patience
    while not asked():
        assert time.monotonic() < until
        time.sleep(0.05)


def has_everything(world):
    total = world.sql("select count(*) from readings")
    eventually(lambda: world.sql("select count(*) from readings", at="standby") == total)


def test_a_paused_standby_is_no_success_and_tried_again(world, from_standby):
    has_everything(world)
    world.sql("select pg_wal_replay_pause()", at="standby")
    eventually(lambda: world.sql("select pg_get_wal_replay_pause_state()", at="standby") == [("paused",)])
    world.insert(1, [1900, 1901])
    with pytest.raises(DatabaseUnavailable, match=r"the standby behind standby .* is paused, so rows may be missing"):
        world.score(from_standby, day(1))
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    assert world.results("select kind from plantao.alerts") == [("failed",)]
    world.sql("select pg_wal_replay_resume()", at="standby")
    has_everything(world)
    assert world.score(from_standby, day(1)).counts.scored == 22


def test_a_standby_that_is_behind_the_end_of_the_window_is_waited_for(world, from_standby, standby, monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_EVERY_SECONDS", 0.1)
    has_everything(world)
    assert world.score(from_standby, day(1)).counts.scored == 20
    administer(standby, "alter system set recovery_min_apply_delay = '1h'", "select pg_reload_conf()")
    eventually(lambda: world.sql("show recovery_min_apply_delay", at="standby") == [("1h",)])
    (began,) = world.sql("select now()")[0]
    world.sql("insert into readings (id, at, x, y, city) values (9000, now(), 0, 0, 'Porto')")
    (ended,) = world.sql("select now()")[0]
    arrived = "select pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()"
    eventually(lambda: world.sql(arrived, at="standby") == [(True,)])
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(DatabaseUnavailable, match=r"has only what was committed until \d{4}-.* UTC, so rows"):
        world.score(from_standby, Window(began, ended))
    assert world.score(from_standby, day(2)).counts.scored == 20  # that window was replayed long ago
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 60)
    hurry = ("alter system set recovery_min_apply_delay = 0", "select pg_reload_conf()")
    asked = waiting._lacking

    def catches_up_while_asked(snapshot, *rest):
        snapshot.value("select 1")  # from here on the snapshot stands still
        administer(standby, *hurry)
        has_everything(world)
        return asked(snapshot, *rest)

    monkeypatch.setattr(waiting, "_lacking", catches_up_while_asked)
    assert world.score(from_standby, Window(began, ended)).counts.scored == 1


def test_a_standby_that_ends_our_read_for_its_own_sake_is_asked_again(world, from_standby, standby, monkeypatch):
    """Recovery conflict: the standby must remove rows that our snapshot still sees, and does not wait for us."""
    monkeypatch.setattr(snapshots, "BATCH_BYTES", 4 << 10)
    # Only what reads the rows is slow, for up to 20 s, however long what the primary removes is under way.
    asleep = "(current_query() like 'COPY%\"doubles\"%')::int"
    world.sql(f"create view slow_readings as select r.* from readings r, pg_sleep({asleep} + 0 * r.x)")
    slow = world.job((world.folder / "jobs" / "bad_reading.toml").read_text().replace(".readings", ".slow_readings"))
    has_everything(world)
    eventually(lambda: world.sql("select to_regclass('slow_readings') is not null", at="standby") == [(True,)])
    reading = "application_name like 'plantao/bad_reading/%' and query like 'COPY%\"doubles\"%' and state = 'active'"

    ended = threading.Event()

    def vacuum():
        eventually(lambda: world.sql(f"select 1 from pg_stat_activity where {reading}", at="standby"))
        # Not before, or what else the standby removes could end what comes before the read.
        administer(standby, "alter system set max_standby_streaming_delay = 0", "select pg_reload_conf()")
        world.sql("delete from readings where id >= 3000")
        owner = world.connect()
        owner.autocommit = True
        while not ended.wait(0.2):  # again, since the first may come while a session of the primary still sees the rows
            owner.cursor().execute("vacuum readings")

    client = threading.Thread(target=vacuum)
    client.start()
    try:
        with pytest.raises(DatabaseUnavailable):
            world.score(slow, day(1))
    finally:
        ended.set()
        client.join()
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    world.sql("create or replace view slow_readings as select r.* from readings r")
    has_everything(world)
    eventually(lambda: "pg_sleep" not in world.sql("select pg_get_viewdef('slow_readings')", at="standby")[0][0])
    assert world.score(slow, day(1)).counts.scored == 20
