"""A database that is frozen while a task of a real Airflow waits for it: the wait ends, and the retry gets it right.

The server's process is stopped, as when a machine hangs: it has accepted and answers nothing, not even a time-out.
Airflow's own time limit cannot end such a wait, since it is a signal, which the driver's C code does not look at.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager

import pytest

from live_airflow import LiveAirflow, wait_for
from world import day

PER_DAY = 900
DEADLINE = 6

# The project's DAGs as they are, but for deadlines and pauses that a test can wait for. The process of every task
# reads this file, so it is there that the deadlines are shorter.
DAG_FILE = f"""
from plantao.airflow import scoring_dags
from plantao.config import settings
bad_reading = scoring_dags(settings.read().jobs)["bad_reading"]  # an airflow dag
from datetime import timedelta
from plantao.postgres import session

session.STATEMENT_SECONDS = {DEADLINE}
session.LOCK_SECONDS = {DEADLINE}
session.CONNECT_SECONDS = 2
for one in bad_reading.tasks:
    one.retry_delay, one.retry_exponential_backoff = timedelta(seconds=5), 0
"""
WAITS = {
    "source": "application_name like 'plantao/bad_reading/%' and query like 'COPY%' and state = 'active'",
    "target": "application_name = 'plantao/bad_reading' and query like 'copy%' and wait_event_type = 'Lock'",
}


@pytest.fixture
def live(server, tmp_path):
    with LiveAirflow.slow(server, tmp_path, DAG_FILE, PER_DAY, 0.002) as found:
        yield found


@contextmanager
def frozen(world, where):
    """Stop the server's process that a task waits for, as soon as there is one, until the end of the context."""
    find = f"select pid from pg_stat_activity where datname = current_database() and {WAITS[where]}"
    pid = wait_for(lambda: world.sql(find))[0][0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ends_at_its_deadline(live, run) -> None:
    """The task of a run ends soon, and is to be tried again."""
    began = time.monotonic()
    task = wait_for(lambda: ended(live.ask(f"{run}/taskInstances/score")), patience=40 * DEADLINE)
    assert task["state"] == "up_for_retry"
    # A slow machine takes longer to notice; without the deadline it would be the 600 s of a statement.
    assert DEADLINE / 2 < time.monotonic() - began < 40 * DEADLINE


def ended(task):
    return task if task["state"] not in {"queued", "running", "scheduled", None} else None


def ends_well(live, run) -> None:
    state = wait_for(lambda: ended(live.ask(run)))["state"]
    assert (state, live.ask(f"{run}/taskInstances/score")["try_number"] > 1) == ("success", True)
    assert live.world.attempts("status, rows_scored")[-1] == ("succeeded", PER_DAY)


def test_the_task_ends_at_its_deadline_and_its_retry_after_the_thaw_gets_every_row(live):
    world = live.world

    run = live.trigger(day(1))
    with frozen(world, "source"):
        ends_at_its_deadline(live, run)
        # On a slow machine a try before it may have met another of the short deadlines.
        assert set(world.attempts("status, error_kind")) == {("failed", "transient")}
        assert re.search("did not answer|sent no row", world.attempts("error")[-1][0])
        assert world.predictions() == []
    ends_well(live, run)

    world.sql("create or replace view readings as select * from slow_readings")
    before = world.predictions("*")
    client = world.connect()
    client.cursor().execute("lock table predictions.bad_reading in share mode")  # to meet the load in its middle
    run = live.trigger(day(2))
    with frozen(world, "target"):
        client.rollback()
        ends_at_its_deadline(live, run)
        assert world.predictions("*") == before
    ends_well(live, run)
    assert [row[0] for row in world.predictions("id")] == [n * 1000 + i for n in (1, 2) for i in range(PER_DAY)]
