"""A ledger of years: what a run, the view `status`, the watchdog and a digest read does not grow with it.

`make bench-ledger` measures the same with a million runs.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

import long_ledger
from plantao.alert.send import deliver_everywhere
from plantao.ledger import jobs, runs
from plantao.preflight.check import check
from plantao.report.read import read_report
from plantao.window import Window
from watching import Voice, dog
from world import day

RUNS = 3_000
NEXT = Window(long_ledger.NEXT, long_ledger.NEXT + timedelta(minutes=long_ledger.MINUTES))
HISTORY = ("runs", "alerts", "digests", "incidents", "incident_events", "metrics", "log_events", "rejected_rows")


@pytest.fixture
def job(world):
    world.fill(days=2)
    world.register()
    job = long_ledger.long_job(world, RUNS)
    world.score(job, Window(day(1).start, day(1).end))
    long_ledger.fill(world, RUNS)
    long_ledger.analyze(world)
    world.score(job, NEXT)
    deliver_everywhere(world.place, Voice())
    return job


def read_rows(world) -> dict[str, int]:
    """Return how many rows of each table scans and indexes have given since the counters were reset."""
    world.results("select pg_stat_force_next_flush()")
    read = "seq_tup_read + coalesce(idx_tup_fetch, 0)"
    found = world.results(f"select relname, {read} from pg_stat_user_tables where schemaname = 'plantao'")
    return {name: rows for name, rows in found if name in HISTORY}


def test_what_is_read_does_not_grow_with_the_history(world, job):
    def status() -> None:
        with world.place_session(job) as connection:
            jobs.status(connection)
            runs.covered(connection, job.name)
            with connection.begin():
                jobs.known(connection)

    def report() -> None:
        with world.place_session(job) as connection:
            read_report(connection, job, long_ledger.NEXT.date(), long_ledger.NEXT.date())

    commands = {
        "a run again": lambda: world.score(job, NEXT),
        "status": status,
        "watch --once": lambda: dog(world, Voice()).look(),
        "the digest": lambda: deliver_everywhere(world.place, Voice()),
        "check": lambda: check(world.place),
        "the report": report,
    }
    for name, call in commands.items():
        before = read_rows(world)
        call()
        grown = {table: rows - before[table] for table, rows in read_rows(world).items()}
        assert all(rows < RUNS / 6 for rows in grown.values()), (name, grown)
