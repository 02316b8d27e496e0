"""Late commits under real concurrency: long transactions, ids and timestamps that become visible out of order.

Several writers insert readings at the present of a clock of the test's own, and keep their transactions open while
the clock goes on; every hour its window is scored meanwhile. Afterwards every row must have its prediction, which a
watermark does not achieve.
"""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import psycopg2
import pytest
from psycopg2.sql import SQL

from plantao.config import job_file
from plantao.extract import read
from plantao.extract.query import Branch
from plantao.postgres.session import dsn
from plantao.run.reconcile import reconcile
from plantao.window import Window
from world import APRIL, JOB, TABLE, World

HOURS = 16
LOOK_BACK = 6
WRITERS = 8
HOURLY = JOB.replace('"daily"', '"0 * * * *"').replace('"3 days"', f'"{LOOK_BACK} hours"')


def hour(number: int) -> Window:
    return Window(APRIL + timedelta(hours=number), APRIL + timedelta(hours=number + 1))


@pytest.fixture(params=["one database", "two databases", "hot standby"])
def client(request, server, tmp_path):
    kind = request.param
    (tmp_path / "world").mkdir()
    with World.create(server, tmp_path / "world", "results_db" if kind == "two databases" else "client_db") as world:
        world.sql(TABLE)
        world.register()
        if kind == "hot standby":
            copy = request.getfixturevalue("standby")
            world.databases["standby"] = world.databases["client_db"]
            world.servers["standby"] = copy
            world.job(
                HOURLY.replace("[extract]", '[extract]\nconnection = "standby"').replace(
                    "[load]", '[load]\nconnection = "client_db"'
                )
            )
        yield world


class Writers:
    """Sessions that insert at the present and commit up to LOOK_BACK - 2 hours later, in any order."""

    def __init__(self, client: World, seed: int) -> None:
        self.client, self.now = client, threading.Condition()
        self.hour, self.next_id = 0, 0
        self.problems: list[BaseException] = []
        self.threads = [threading.Thread(target=self._guarded, args=(seed + n,)) for n in range(WRITERS)]
        for thread in self.threads:
            thread.start()

    def tick(self) -> None:
        with self.now:
            self.hour += 1
            self.now.notify_all()

    def finish(self) -> None:
        for thread in self.threads:
            thread.join(60)
        assert self.problems == []

    def _guarded(self, seed: int) -> None:
        try:
            self._write(random.Random(seed))
        except BaseException as error:  # noqa: BLE001 - the test itself looks at it
            self.problems.append(error)

    def _write(self, chance: random.Random) -> None:
        connection = psycopg2.connect(dsn(self.client.owner("client_db"), "writer"))
        try:
            while True:
                with self.now:
                    began = self.hour
                    first = self.next_id
                    self.next_id += 25
                if began >= HOURS:
                    return
                with connection, connection.cursor() as cursor:
                    for key in range(first, first + 25):
                        moment = APRIL + timedelta(hours=began + chance.random())
                        cursor.execute("insert into readings values (%s, %s, 0.5, 0.5, 'Porto')", (key, moment))
                    self._await(began + chance.choice([0, 1, 1, 2, 3, LOOK_BACK - 2]))
        finally:
            connection.close()

    def _await(self, hour: int) -> None:
        with self.now:
            self.now.wait_for(lambda: self.hour >= min(hour, HOURS))


def rehearse(client: World) -> int:
    """Score every hour while the writers write, and then until the look-back has passed; return the rows lost."""
    path = client.folder / "jobs" / "bad_reading.toml"
    job = job_file.read_file(path) if path.exists() else client.job(HOURLY)
    writers = Writers(client, seed=11)
    for number in range(HOURS):
        writers.tick()
        client.score(job, hour(number))
    writers.finish()
    caught_up(client)
    for number in range(HOURS, HOURS + LOOK_BACK):
        client.score(job, hour(number))
    written = {row[0] for row in client.sql("select id from readings")}
    assert len(written) > 25 * WRITERS
    keys = [row[0] for row in client.predictions("id")]
    assert len(keys) == len(set(keys))
    return len(written - set(keys))


def caught_up(client: World) -> None:
    """Return when the standby, if there is one, has everything."""
    if "standby" in client.databases:
        total = client.sql("select count(*) from readings")
        for _ in range(200):
            if client.sql("select count(*) from readings", at="standby") == total:
                return
            time.sleep(0.05)


def test_every_row_has_its_prediction_however_late_it_was_committed(client):
    assert rehearse(client) == 0
    late = client.results("select sum(rows_late) from plantao.runs")[0][0]
    assert late > 0, "the writers were never late, so this proved nothing"
    job = job_file.read_file(client.folder / "jobs" / "bad_reading.toml")
    found = reconcile(job, client.place, Window(APRIL, APRIL + timedelta(hours=HOURS))).found
    assert (found.rows_owed, found.rows_gone) == (0, 0)


def test_a_watermark_in_the_place_of_the_anti_join_loses_rows(client, monkeypatch):
    def after_the_newest(source, *_, **__):
        newest = client.results("select max(source_timestamp) from predictions.bad_reading")[0][0]
        condition = source.within(Window(APRIL - timedelta(days=1), APRIL + timedelta(days=30)))
        if newest is not None:
            condition = SQL("{} and {} > {}").format(
                condition, source.instant, SQL(f"'{newest.isoformat()}'::timestamptz")
            )
        return read.Extraction((Branch(condition),), 0)

    monkeypatch.setattr(read, "plan", after_the_newest)
    assert rehearse(client) > 0
