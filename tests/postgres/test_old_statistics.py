"""Rows newer than the last ANALYZE: PostgreSQL expects one of them, and a daily run may not become quadratic for it.

What is compared is work, not time: the rows that the nodes of a plan give and throw away, all loops counted.
"""

from __future__ import annotations

import json

import pytest

from plantao.load.existing import find_table
from plantao.load.table import as_found, resolve_rejects
from plantao.postgres.session import driver_connection
from plantao.postgres.snapshot import Snapshot
from plantao.run.reconcile import reconcile
from plantao.window import Window
from world import APRIL, JOB, TABLE, day

EDITS = JOB.replace("late_rows", 'on_change = "rescore"\nchanged_at = "edited_at"\nlate_rows')
QUERY = JOB.replace('table     = "public.readings"', 'query = "select r.* from public.readings r"')
KNOWN, NEW, PER_DAY = 20, 5, 2_000
MOST_WORK_PER_ROW = 40


def work_of(plan: dict) -> int:
    """Return how many rows the nodes of a plan gave or threw away."""
    per_loop = plan["Actual Rows"] + sum(plan.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Join Filter"))
    return int(per_loop * plan["Actual Loops"]) + sum(work_of(part) for part in plan.get("Plans", ()))


@pytest.fixture
def work(monkeypatch):
    """The work of every SELECT that is sent to the source, each explained in the snapshot that runs it."""
    found = []
    table, batches = Snapshot.table, Snapshot.batches

    def explain(snapshot, text):
        if "from pg_catalog" in text or "::timestamptz" not in text:
            return
        with snapshot._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(f"explain (analyze, timing off, format json) {text}")
            found.append(work_of(json.loads(cursor.fetchone()[0])[0]["Plan"]))

    def explained_table(self, text):
        explain(self, text)
        return table(self, text)

    def explained_batches(self, text):
        explain(self, text)
        return batches(self, text)

    monkeypatch.setattr(Snapshot, "table", explained_table)
    monkeypatch.setattr(Snapshot, "batches", explained_batches)
    return found


def grow(world, first, last):
    world.sql(
        "insert into readings (id, at, x, y, city) select d * 10000 + i, %s + make_interval(days => d - 1)"
        " + i * interval '40 s', sin(i), cos(i), 'Porto' from generate_series(%s, %s) d, generate_series(1, %s) i",
        (APRIL, first, last, PER_DAY),
    )


def with_old_statistics(world, text, setup=""):
    """Score some days at once, analyse, and let no autovacuum look at what comes then."""
    world.sql(f"{TABLE}; alter table readings set (autovacuum_enabled = off); {setup}")
    grow(world, 1, KNOWN)
    world.register()
    job = world.job(text)
    world.score(job, Window(day(1).start, day(KNOWN).end))
    world.results("alter table predictions.bad_reading set (autovacuum_enabled = off)")
    world.results("analyze predictions.bad_reading")
    world.sql("analyze readings")
    return job


INDEXED, BRIN = "create index on readings (at)", "create index on readings using brin (at)"


@pytest.mark.parametrize(
    ("text", "index"),
    [(JOB, INDEXED), (JOB, BRIN), (JOB, ""), (EDITS, INDEXED), (QUERY, BRIN)],
    ids=["btree", "brin", "no index", "edited rows", "a query"],
)
def test_a_run_days_after_the_last_analyze_is_linear(world, work, text, index):
    job = with_old_statistics(world, text, index)
    for number in range(KNOWN + 1, KNOWN + NEW + 1):
        grow(world, number, number)
        work.clear()
        assert world.score(job, day(number)).counts.scored == PER_DAY
        assert work
        assert max(work) < MOST_WORK_PER_ROW * PER_DAY * (4 if index else KNOWN + NEW)


def test_the_same_with_the_predictions_in_another_database(two_databases, work):
    job = with_old_statistics(two_databases, JOB, INDEXED)
    for number in range(KNOWN + 1, KNOWN + NEW + 1):
        grow(two_databases, number, number)
        # A few rows come late, so that the days before the window are compared too.
        two_databases.insert(number - 1, [900_000 + number * 10 + i for i in range(5)])
        work.clear()
        assert two_databases.score(job, day(number)).counts.scored == PER_DAY + 5
        assert work
        assert max(work) < MOST_WORK_PER_ROW * PER_DAY * 4


def test_a_window_scored_again_and_a_comparison_of_new_days_are_linear(world, work):
    job = with_old_statistics(world, JOB, INDEXED)
    last = KNOWN + NEW
    grow(world, KNOWN + 1, last)
    new_days = Window(day(KNOWN + 1).start, day(last).end)
    world.score(job, new_days)
    world.results(
        "delete from predictions.bad_reading where id %% 500 = 0 and source_timestamp >= %s", (new_days.start,)
    )
    work.clear()
    missing = NEW * PER_DAY // 500
    assert world.score(job, new_days, dry_run=True).counts.scored == missing
    assert reconcile(job, world.place, new_days, repair=True).rows_repaired == missing
    assert world.score(job, new_days, rescore=True).counts.rescored == NEW * PER_DAY
    assert len(work) > 5
    assert max(work) < MOST_WORK_PER_ROW * PER_DAY * NEW


def test_open_rejects_are_closed_without_a_look_at_each_pair(world):
    job = with_old_statistics(world, JOB, INDEXED)
    grow(world, KNOWN + 1, KNOWN + 1)
    run_id = world.score(job, day(KNOWN + 1)).run_id
    world.results(
        "insert into plantao.rejected_rows (job, key, source_timestamp, reason, run_id)"
        " select 'bad_reading', jsonb_build_object('id', id + 5000), source_timestamp, 'not_finite', 1"
        " from predictions.bad_reading where run_id = %s",
        (run_id,),
    )
    with world.place_session(job) as connection:
        table = as_found(job, find_table(connection, job.load.table))
        with driver_connection(connection).cursor() as cursor:
            text = resolve_rejects(table, job.name, run_id).as_string(cursor)
            cursor.execute(f"explain (analyze, timing off, format json) {text}")
            work = work_of(cursor.fetchone()[0][0]["Plan"])
    assert work < MOST_WORK_PER_ROW * PER_DAY
