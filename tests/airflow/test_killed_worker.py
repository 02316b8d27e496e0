"""A worker that is killed in the middle of `score`: Airflow tries again, and on-call sleeps unless that does not help.

SIGKILL fires no callback and no listener. The dead attempt is found by its session, which is gone; that it was tried
again, and healed, stands in the digest; that nothing tries again any more is told once.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from live_airflow import LiveAirflow, wait_for
from plantao.alert.delivery import deliver
from plantao.alert.send import addressees
from plantao.alert.slack import messenger
from plantao.ledger import session
from slack_stand_in import SlackStandIn
from world import day

PER_DAY = 900
DIGEST = "notification digest for"
DAG_FILE = """
from plantao.airflow import scoring_dags
from plantao.config import settings
bad_reading = scoring_dags(settings.read().jobs)["bad_reading"]  # an airflow dag
from datetime import timedelta

for one in bad_reading.tasks:
    one.retries, one.retry_delay, one.retry_exponential_backoff = 1, timedelta(seconds=2), 0
"""
SECONDS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}


@pytest.fixture
def slack():
    with SlackStandIn() as running:
        yield running


@pytest.fixture
def live(server, tmp_path):
    with LiveAirflow.slow(server, tmp_path, DAG_FILE, PER_DAY, 0.005, **SECONDS) as found:
        yield found


def kill_the_worker(live) -> None:
    """SIGKILL the process that reads, with the one that watches over it, as the end of their machine would."""
    running = "select worker from plantao.runs where status = 'running'"
    reads = (
        "select 1 from pg_stat_activity where datname = current_database() and state = 'active'"
        " and application_name like 'plantao/bad_reading/%' and query like 'COPY%'"
    )
    wait_for(lambda: live.world.sql(reads))
    pid = int(live.world.sql(running)[0][0].split(":")[1])
    task = psutil.Process(pid)
    for process in (task.parent(), task):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not psutil.pid_exists(pid) or task.status() == psutil.STATUS_ZOMBIE)


def ended(live, run) -> str | None:
    state = live.ask(run)["state"]
    return state if state in {"success", "failed"} else None


def pages(live, slack, later: timedelta = timedelta()) -> list[str]:
    """Send what is due now, or would be later, and return the pages among it: a digest may become due at any moment."""
    before = len(slack.messages)
    with session.session(live.world.jobs["bad_reading"], live.world.place, "tests") as connection:
        to = addressees(live.world.jobs)
        deliver(connection, to, messenger({"AIRFLOW_CONN_SLACK": slack.connection()}), datetime.now(UTC) + later)
    return [one.words for one in slack.messages[before:] if DIGEST not in one.words]


def test_it_is_tried_again_without_a_page_and_when_tries_run_out_there_is_one(live, slack):
    world = live.world
    run = live.trigger(day(1))
    kill_the_worker(live)
    assert wait_for(lambda: ended(live, run)) == "success"
    assert live.ask(f"{run}/taskInstances/score")["try_number"] == 2
    assert world.attempts("status, rows_scored")[-1] == ("succeeded", PER_DAY)
    assert [kind for (kind,) in world.results("select kind from plantao.alerts order by 1")] == ["healed", "retrying"]
    assert pages(live, slack) == []

    run = live.trigger(day(2))
    kill_the_worker(live)
    wait_for(lambda: live.ask(f"{run}/taskInstances/score")["try_number"] == 2)
    kill_the_worker(live)
    assert wait_for(lambda: ended(live, run)) == "failed"
    wait_for(lambda: world.results("select 1 from plantao.alerts where kind = 'failed'"))
    (message,) = pages(live, slack)
    assert "Runs failed" in message
    assert pages(live, slack) == []
    assert len(world.predictions("id")) == PER_DAY

    # The digest says that the first one healed by itself.
    pages(live, slack, timedelta(hours=1))
    digest = "\n".join(one.words for one in slack.messages if DIGEST in one.words)
    assert "Runs healed by themselves*: triggered 1 time" in digest
    assert "Runs failed and are tried again" in digest
