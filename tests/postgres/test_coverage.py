"""The time that is done is kept beside the runs, in the transaction of each success, and agrees with them."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from plantao.ledger import migrate, runs
from plantao.ledger.grants import SCORER
from plantao.postgres import session
from plantao.release import promotion
from plantao.window import Window
from world import APRIL, day, training_frame

FROM_RUNS = (
    "select range_agg(tstzrange(window_start, greatest(window_start, least(window_end, started_at)))) from plantao.runs"
    " where job = 'bad_reading' and role = 'champion' and status in ('succeeded', 'empty')"
)
FINISHED = """
insert into plantao.runs (job, model, model_version, role, window_start, window_end, trigger, status, rows_read,
  rows_scored, rows_rejected, rows_already_scored, rows_late, rows_rescored, started_at, finished_at, code_version,
  environment, worker, error)
select 'bad_reading', 'm', 1, %(role)s, %(start)s, %(end)s, 'manual', %(status)s, n, n, 0, 0, 0, 0, %(started)s, now(),
  'x', '{}', 'w', case when %(status)s = 'failed' then 'x' end
from (select case when %(status)s = 'succeeded' then 5 else 0 end as n) as counts
"""


def covered(world, job):
    with world.place_session(job) as connection:
        return runs.covered(connection, job.name)


def test_a_success_covers_its_window_in_its_own_transaction_and_nothing_else_does(world):
    job = world.ready()
    version = world.register(frame=training_frame(seed=1)).version
    promotion.mark("bad_reading", version, "let us see", world.place, "challenger")
    assert covered(world, job) == []
    world.score(job, day(1))
    world.score(job, day(3))
    world.score(job, day(28))  # without rows
    assert covered(world, job) == [day(1), day(3), day(28)]
    world.score(job, day(2))
    assert covered(world, job) == [Window(day(1).start, day(3).end), day(28)]
    world.sql("alter table readings rename x to z")
    with pytest.raises(Exception, match="column 'x' is missing"):
        world.score(job, day(4))
    assert covered(world, job) == [Window(day(1).start, day(3).end), day(28)]
    assert world.results("select status, role from plantao.runs where role = 'challenger' limit 1")


def test_a_success_that_cannot_be_kept_is_none(world):
    job = world.ready()
    world.results(f"revoke insert, update on plantao.coverage from {SCORER}")
    with pytest.raises(Exception, match="permission denied for table coverage"):
        world.score(job, day(1))
    assert world.attempts("status") == [("failed",)]
    assert world.results("select count(*) from predictions.bad_reading") == [(0,)]


def random_runs(world, seed: int, count: int = 60) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        start = APRIL + timedelta(hours=rng.randrange(400))
        end = start + timedelta(hours=rng.randrange(1, 40))
        values = {
            "role": rng.choice(["champion", "champion", "challenger"]),
            "status": rng.choice(["succeeded", "empty", "failed"]),
            "start": start,
            "end": end,
            # Some were asked for a window that had not ended.
            "started": start + timedelta(hours=rng.randrange(-5, 60)),
        }
        world.results(FINISHED, values)


def test_coverage_is_always_what_the_runs_say(world):
    world.results(
        "alter database current_database() set timezone = 'UTC'".replace(
            "current_database()", world.databases["client_db"]
        )
    )
    for seed in range(3):
        random_runs(world, seed, 30)
        assert world.results("select done from plantao.coverage") == world.results(FROM_RUNS)


def test_the_upgrade_of_an_older_ledger_fills_it_from_the_history(world, monkeypatch):
    world.sql("drop schema plantao cascade")
    everything = migrate.migrations()
    before = [one for one in everything if one[0] < 15]
    monkeypatch.setattr(migrate, "migrations", lambda: before)
    with session.session(world.owner("client_db"), "plantao") as connection:
        migrate.upgrade(connection, "plantao")
        random_runs(world, 7)
        monkeypatch.undo()
        assert migrate.upgrade(connection, "plantao")[0] == "015_coverage.sql"
    assert world.results("select done from plantao.coverage") == world.results(FROM_RUNS)
