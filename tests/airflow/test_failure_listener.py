"""What Airflow sees fail becomes an alert, once, and not what the ledger has told already."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pendulum
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import load_dags


@pytest.fixture
def listener(airflow_world):
    from airflow.plugins_manager import _get_plugins

    plugin = next(plugin for plugin in _get_plugins()[0] if plugin.name == "plantao")
    return sys.modules[type(plugin.listeners[1]).__module__]


@pytest.fixture
def trigger(airflow_world, listener):
    """Return a function that runs the DAG, and waits for what the listener has to write."""

    def run(day: int = 1) -> str:
        dag_run = load_dags()["bad_reading"].test(logical_date=pendulum.datetime(2013, 4, day + 1))
        for thread in threading.enumerate():
            if thread.name == "plantao alert":
                thread.join(30)
        return str(dag_run.state)

    return run


def alerts(world, columns: str = "kind, fingerprint"):
    return world.results(f"select {columns} from plantao.alerts order by alert_id")


def test_a_task_that_the_ledger_knows_nothing_of_is_told_once_and_the_run_with_it(trigger, airflow_world, monkeypatch):
    from plantao.errors import ObjectiveFailed
    from plantao.measure import data_quality

    airflow_world.ready()

    def fails_for_good(*_):
        message = "no number."
        raise ObjectiveFailed(message)

    monkeypatch.setattr(data_quality, "data_quality", fails_for_good)
    assert trigger() == "failed"
    assert alerts(airflow_world) == [("failed", "failed bad_reading task measure.data_quality")]
    message = alerts(airflow_world, "message")[0][0]
    assert message.startswith("bad_reading: the task measure.data_quality failed with ObjectiveFailed, and Airflow")


def test_what_the_ledger_has_told_is_not_told_again(trigger, airflow_world):
    airflow_world.ready()
    airflow_world.sql("alter table readings drop x")
    assert trigger() == "failed"
    assert [kind for kind, _ in alerts(airflow_world)] == ["source_changed"]


def test_a_try_that_is_followed_by_another_is_none_of_airflows_business(listener, airflow_world):
    class Task:
        dag_id, run_id, task_id, start_date, state = "bad_reading", "r", "score", None, "up_for_retry"

    airflow_world.ready()
    listener.TellFailures().on_task_instance_failed("running", Task, ValueError())
    Task.state, Task.dag_id = "failed", "somebody_elses"
    listener.TellFailures().on_task_instance_failed("running", Task, ValueError())
    assert alerts(airflow_world) == []


def test_a_red_dag_is_told_once_however_often_it_runs(listener, airflow_world):
    airflow_world.ready()
    (airflow_world.folder / "jobs" / "torn.toml").write_text("[extract]\ntable = 7\n")
    for run in ("r1", "r2"):
        facts = {"dag": "torn", "run": run, "since": datetime.now(UTC), "tasks": ("job_file_is_broken",)}
        listener.tell({**facts, "whole_run": True})
    assert alerts(airflow_world) == [("broken_file", "broken_file torn")]


def test_a_dag_file_that_cannot_be_read_is_told_once(listener, airflow_world):
    airflow_world.ready()
    trace = "Traceback\n  File x\nSyntaxError: password=hunter2secret\n"
    for _ in range(2):
        listener.told.clear()
        listener.tell_import_error("dags/x.py", trace)
    ((kind, message),) = alerts(airflow_world, "kind, message")
    assert kind == "import_error"
    assert "cannot read dags/x.py: SyntaxError: password=***." in message


def test_import_errors_are_read_from_airflows_own_records(listener, airflow_home):
    import airflow.settings as airflow_settings
    from airflow.models.errors import ParseImportError
    from sqlalchemy import delete, insert

    with airflow_settings.engine.begin() as connection:
        connection.execute(insert(ParseImportError).values(filename="y.py", stacktrace="boom"))
    try:
        assert ("y.py", "boom") in listener.import_errors()
    finally:
        with airflow_settings.engine.begin() as connection:
            connection.execute(delete(ParseImportError))


def test_a_client_that_cannot_be_reached_stops_neither_task_nor_scheduler(listener, airflow_world, monkeypatch):
    airflow_world.ready()
    monkeypatch.setenv("AIRFLOW_CONN_CLIENT_DB", "postgres://nobody@127.0.0.1:9/nowhere")
    facts = {"dag": "bad_reading", "run": "r", "since": datetime.now(UTC), "tasks": ("score",)}
    listener.tell(facts)  # does not raise
