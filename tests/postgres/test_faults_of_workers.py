"""Workers that are ended from outside, or that a model takes down with it: noticed, told, and nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import cloudpickle
import psutil
import pytest
from sklearn.linear_model import LogisticRegression

from plantao.alert.slack import messenger
from plantao.ledger import session
from plantao.outbox.incidents import settle
from plantao.release.register import register
from plantao.watch.watchdog import Watchdog
from world import JOB, day, training_frame

LENIENT = JOB.replace("[score]", "[validate]\nat_most_rejected = 1\n[score]").replace(
    "starts   = 2013-04-01", "starts   = 2013-04-01\nends = 2013-04-02"
)


class TakesTheProcessWithIt(LogisticRegression):
    """A model whose native code crashes on some rows."""

    def predict_proba(self, frame):
        if (frame["x"] > 600).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().predict_proba(frame)


def worker(world, before=""):
    """Start to score the first of April in a process of its own, as on a command line; `before` is run first."""
    # Whoever is started in the background of a script inherits that Ctrl-C is ignored.
    listen = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listen}\n{before}\nrunpy.run_module('plantao', run_name='__main__')"
    window = ["--from", "2013-04-01", "--to", "2013-04-02"]
    command = [sys.executable, "-c", program, "-q", "run", "bad_reading", *window]
    environment = {**os.environ, **world.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def looked_after(world):
    """Let the watchdog look; return what it did."""
    return Watchdog(world.place, messenger({}), environment={}, pause=lambda _: None).look().changes


def kinds(world):
    return [kind for (kind,) in world.results("select kind from plantao.alerts order by alert_id")]


def no_predictions(world):
    there = world.results("select to_regclass('predictions.bad_reading') is not null") == [(True,)]
    return not there or world.predictions() == []


def test_a_model_that_crashes_the_process_is_told_by_the_watchdog(world):
    world.fill()
    frame = training_frame()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    model = cloudpickle.dumps(TakesTheProcessWithIt().fit(frame[["x"]], frame["bad"]))
    register(model, frame, world.place, name="bad_reading", connections=["client_db"])
    job = world.job(LENIENT)
    world.sql("update readings set x = 666 where id = 1003")
    assert worker(world).wait(120) == -signal.SIGSEGV
    assert world.attempts("status") == [("running",)]
    assert no_predictions(world)
    assert any("had lost its process and is closed as failed" in change for change in looked_after(world))
    assert world.attempts("status, error_kind") == [("failed", "transient")]
    assert kinds(world) == ["failed"]
    world.sql("update readings set x = 0 where id = 1003")
    assert world.score(job, day(1)).counts.scored == 20
    assert kinds(world) == ["failed", "recovered"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_a_worker_that_is_ended_in_the_middle_of_its_read_leaves_nothing_and_the_next_one_scores_it_all(world, how):
    """As a deployment, a restart of the machine or somebody's Ctrl-C does it."""
    world.fill(days=1, per_day=900)
    world.sql("alter table readings rename to all_readings; create view readings as"
              " select r.* from all_readings r, pg_sleep(0.005 + 0 * r.x)")  # fmt: skip
    world.register()
    job = world.job(LENIENT)
    process = worker(world)
    reading = "application_name like 'plantao/bad_reading/%%' and query like 'COPY%%\"doubles\"%%' and state = 'active'"
    until = time.monotonic() + 60
    while not world.sql(f"select 1 from pg_stat_activity where {reading} and datname = current_database()"):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(how)
    assert process.wait(60) != 0
    assert no_predictions(world)
    world.sql("create or replace view readings as select * from all_readings")
    assert world.score(job, day(1)).counts.scored == 900
    assert [status for (status,) in world.attempts("status")] == ["failed", "succeeded"]
    assert kinds(world) == [
        "failed" if how == signal.SIGINT else "retrying",
        "recovered" if how == signal.SIGINT else "healed",
    ]


FREEZE_IN_ITS_TURN = """
import os, signal
from plantao.ledger import jobs, runs
from plantao.load import existing, ownership
from plantao.postgres import locks

def freeze(connection, name, *of, take=locks.in_turn):
    take(connection, name, *of)
    if name == {name!r}:
        os.kill(os.getpid(), signal.SIGSTOP)

locks.SILENT_SECONDS = 1
for module in (jobs, runs, existing, ownership):
    assert module.in_turn is locks.in_turn
    module.in_turn = freeze
"""


@pytest.mark.parametrize("name", ["plantao.declare bad_reading", "plantao.start bad_reading", "plantao.create"])
def test_a_worker_that_freezes_in_its_turn_holds_up_nobody_for_longer_than_they_wait(world, name):
    world.fill()
    world.register()
    job = world.job(LENIENT.replace("ends = 2013-04-02", ""))
    frozen = worker(world, FREEZE_IN_ITS_TURN.format(name=name))
    try:
        while psutil.Process(frozen.pid).status() != psutil.STATUS_STOPPED:
            assert frozen.poll() is None
            time.sleep(0.05)
        assert world.score(job, day(2)).counts.scored == 20
    finally:
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(60) != 0
    assert world.score(job, day(1)).counts.scored == 20
    assert len(world.predictions()) == 40


def test_a_long_transaction_keeps_its_time_when_incidents_are_settled_in_it(world):
    """Between two statements it measures, for as long as that takes."""
    world.fill()
    with session.session(world.job(LENIENT), world.place) as connection, connection.begin():
        settle(connection, "bad_reading", "drift", [])
        assert connection.exec_driver_sql("show idle_in_transaction_session_timeout").scalar() == "5min"
