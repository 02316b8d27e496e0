"""The conditions that pick rows of a source: right, and so written that an index serves them."""

from __future__ import annotations

import json
from datetime import timedelta

from psycopg2.sql import SQL

from plantao.extract.source import Source
from plantao.postgres import session as database
from plantao.window import Window
from world import APRIL, JOB, day


def rows_in(world, windows):
    """Return the keys of the rows in `windows`, and the plan by which PostgreSQL finds them."""
    source = Source(world.job(JOB), {"at": "timestamptz", "id": "int8"})
    with database.session(world.place.address("client_db"), "plantao") as session, session.begin():
        database.execute(session, SQL("set local enable_bitmapscan = off"))
        select = SQL("select id from public.readings as s where {}").format(source.within_any(windows))
        plan = database.fetch(session, SQL("explain (format json) {}").format(select))[0][0]
        return [key for (key,) in database.fetch(session, select)], json.dumps(plan)


def test_a_window_and_the_look_back_before_it_are_found_by_an_index(world):
    # Written with an `or`, they made the server read ten million rows to find those of four days.
    world.fill(days=30, per_day=200)
    world.sql("create index on readings (at)")
    world.sql("analyze readings")
    keys, plan = rows_in(world, [day(12), day(10), day(11)])
    assert sorted(keys) == [1000 * d + n for d in (10, 11, 12) for n in range(200)]
    assert "Index Cond" in plan
    assert "Seq Scan" not in plan
    keys, plan = rows_in(world, [day(12), day(9), day(9)])
    assert sorted(keys) == [1000 * d + n for d in (9, 12) for n in range(200)]
    assert "Index Cond" in plan
    assert "Seq Scan" not in plan


def test_windows_that_overlap_or_are_missing_pick_each_row_once_or_none(world):
    world.fill(days=5, per_day=10)
    half = timedelta(hours=12)
    keys, _ = rows_in(world, [Window(APRIL, APRIL + half), Window(APRIL + half / 2, APRIL + 2 * half), day(4)])
    assert sorted(keys) == [1000 * d + n for d in (1, 4) for n in range(10)]
    assert rows_in(world, [])[0] == []
