"""Whole runs of a job's DAG, in this process: the same operators, parameters and retries as under the scheduler."""

from __future__ import annotations

import sys
from pathlib import Path

import pendulum
import pytest

from world import JOB

sys.path.insert(0, str(Path(__file__).parent))
from conftest import load_dags


@pytest.fixture
def trigger(airflow_world):
    """Return a function that runs the DAG and gives back the run's state and its tasks'."""
    airflow_world.ready()

    def run(day: int | None = 1, **conf):
        # A manual run infers the last window that was complete at its date.
        moment = None if day is None else pendulum.datetime(2013, 4, day + 1)
        dag_run = load_dags()["bad_reading"].test(logical_date=moment, run_conf=conf)
        return str(dag_run.state), {ti.task_id: (str(ti.state), ti.try_number) for ti in dag_run.get_task_instances()}

    return run


def test_a_run_scores_its_window_and_measures_it(trigger, airflow_world):
    state, tasks = trigger()
    assert state == "success"
    measured = {f"measure.{name}": ("success", 1) for name in ("data_quality", "drift", "performance")}
    assert tasks == {"score": ("success", 1), **measured, "reconcile": ("skipped", 1)}
    assert [row[0] for row in airflow_world.predictions()] == list(range(1000, 1020))
    assert airflow_world.attempts("status, trigger, airflow_run is not null") == [("succeeded", "manual", True)]
    names = {row[0] for row in airflow_world.results("select name from plantao.metrics_latest")}
    assert names >= {"rows", "late_rows", "mean_score", "null_share", "rejected_share", "jensen_shannon", "drift"}


def test_results_go_to_the_client_until_another_database_is_set(trigger, airflow_world, monkeypatch):
    airflow_world.job(JOB.replace("[load]", '[load]\nconnection = "results_db"'))
    assert trigger(1)[0] == "success"
    assert len(airflow_world.predictions()) == 20
    elsewhere = airflow_world.server.address("results_db", "postgres")  # a database without a ledger
    monkeypatch.setenv("AIRFLOW_CONN_RESULTS_DB", elsewhere.url())
    assert trigger(2)[1]["score"] == ("failed", 1)
    assert len(airflow_world.predictions()) == 20


def test_running_again_changes_no_row(trigger, airflow_world):
    trigger()
    before = airflow_world.predictions("*")
    figures = airflow_world.results("select count(*) from plantao.metrics")
    assert trigger()[0] == "success"
    assert airflow_world.predictions("*") == before
    assert airflow_world.attempts()[1] == ("succeeded", 20, 0, 0, 20)
    assert airflow_world.results("select count(*) from plantao.metrics") == figures


def windows(world) -> list[str]:
    return [start for (start,) in world.attempts("to_char(window_start, 'MM-DD HH24:MI')")]


def test_each_way_of_asking_scores_the_window_that_was_asked_for(trigger, airflow_world):
    new_york = JOB.replace("starts ", 'ends = 2013-04-05\ntimezone = "America/New_York"\nstarts ')
    airflow_world.job(new_york)
    assert trigger(None)[0] == "success"  # by the API, with neither date nor window
    assert trigger(None, **{"from": "2013-04-01", "to": "2013-04-02"})[0] == "success"
    assert trigger(2, **{"from": "2013-04-02", "to": "2013-04-03"})[0] == "success"  # the fields win
    assert windows(airflow_world) == ["04-04 04:00", "04-01 04:00", "04-02 04:00"]
    assert airflow_world.attempts("note") == [(None,)] * 3
    assert trigger(None, missing=True)[0] == "success"
    assert windows(airflow_world)[3:] == ["04-03 04:00"]
    assert trigger(None, missing=True)[0] == "success"
    assert len(airflow_world.attempts()) == 4


def test_a_run_by_hand_after_the_end_of_a_job_scores_its_last_window(trigger, airflow_world):
    airflow_world.job(JOB.replace("starts ", "ends = 2013-04-04\nstarts "))
    assert trigger(20)[0] == "success"
    assert windows(airflow_world) == ["04-03 00:00"]


def test_a_window_in_the_future_is_refused_and_not_retried(trigger, airflow_world):
    state, tasks = trigger(1, **{"from": "2013-04-01", "to": "2036-01-01"})
    assert (state, tasks["score"]) == ("failed", ("failed", 1))
    assert airflow_world.attempts() == []


def test_a_row_beyond_the_look_back_is_scored_when_the_reconciliation_is_due(trigger, airflow_world):
    airflow_world.job(JOB.replace("late_rows ", 'reconcile = "daily"\nlate_rows '))
    for day in (1, 5):
        trigger(day)
    airflow_world.insert(1, [9001])
    airflow_world.results(
        "insert into plantao.reconciliations (job, period_start, period_end, rows_source, rows_accounted, rows_owed,"
        " rows_edited, rows_gone, rejects_gone, rows_without_time, examples, started_at, finished_at) values"
        " ('bad_reading', '2013-04-01', '2013-04-02', 20, 20, 0, 0, 0, 0, 0, '{}', now(), now() - interval '2 days')"
    )
    assert trigger(5, dry_run=True)[1]["reconcile"][0] == "skipped"
    state, tasks = trigger(5)
    assert (state, tasks["reconcile"][0]) == ("success", "success")
    assert (9001,) in airflow_world.predictions("id")
    # Days 2 to 4 were never scored, so the reconciliation has scored these too.
    newest = "select rows_owed, rows_repaired from plantao.reconciliations order by 1 desc limit 1"
    assert airflow_world.results(newest) == [(61, 61)]
    assert trigger(5)[1]["reconcile"][0] == "skipped"


def test_a_job_with_parts_leaves_what_one_task_would_have_left(trigger, airflow_world):
    trigger(1)
    whole = airflow_world.predictions("id, prediction, score")
    airflow_world.results("delete from predictions.bad_reading")
    airflow_world.job(JOB.replace("[load]", "parts = 3\n[load]"))
    state, tasks = trigger(1)
    assert state == "success"
    assert {name for name, (outcome, _) in tasks.items() if outcome == "success"} == {
        "plan", "score_part", "publish", "measure.data_quality", "measure.drift", "measure.performance"
    }  # fmt: skip
    assert airflow_world.predictions("id, prediction, score") == whole
    assert airflow_world.attempts("status, parts")[-1] == ("succeeded", 3)
    assert trigger(2, dry_run=True)[0] == "success"
    assert len(airflow_world.attempts()) == 2


def test_a_permanent_error_is_not_tried_again(trigger, airflow_world):
    airflow_world.sql("alter table readings drop x")
    state, tasks = trigger()
    assert state == "failed"
    assert tasks["score"] == ("failed", 1)
    assert tasks["measure.drift"][0] == "upstream_failed"
    assert len(airflow_world.attempts()) == 1


def test_a_passing_error_is_tried_again(trigger, airflow_world, monkeypatch):
    from datetime import timedelta

    from plantao.errors import DatabaseUnavailable
    from plantao.run import run

    score, calls = run.score_window, []

    def fails_once(request, place):
        calls.append(request)
        if len(calls) == 1:
            message = "the server restarts."
            raise DatabaseUnavailable(message)
        return score(request, place)

    monkeypatch.setattr(run, "score_window", fails_once)
    load = load_dags

    def without_pause():
        dags = load()
        for task in dags["bad_reading"].tasks:
            task.retry_delay, task.retry_exponential_backoff = timedelta(seconds=0.1), 0
        return dags

    monkeypatch.setattr(sys.modules[__name__], "load_dags", without_pause)
    state, tasks = trigger()
    assert (state, tasks["score"]) == ("success", ("success", 2))
    assert len(airflow_world.predictions()) == 20


def test_the_form_can_score_again_with_another_version(trigger, airflow_world):
    trigger()
    airflow_world.register()
    assert trigger(1, rescore=True, model_version=2)[0] == "success"
    assert airflow_world.results("select distinct model_version from predictions.bad_reading") == [(2,)]
    assert airflow_world.results("select count(*) from predictions.bad_reading_history") == [(20,)]


def test_a_dry_run_writes_nothing(trigger, airflow_world):
    assert trigger(1, dry_run=True)[0] == "success"
    assert airflow_world.attempts() == []
    assert airflow_world.results("select to_regclass('predictions.bad_reading')") == [(None,)]


def test_a_job_on_demand_scores_up_to_now(trigger, airflow_world):
    airflow_world.job(JOB.replace('"daily"', '"on demand"'))
    assert trigger(3)[0] == "success"
    assert len(airflow_world.predictions()) == 100
    airflow_world.insert(3, [9001])
    airflow_world.sql("update readings set at = now() where id = 9001")
    assert trigger(4)[0] == "success"
    assert len(airflow_world.predictions()) == 101


def test_a_broken_job_file_fails_visibly(trigger, airflow_world):
    airflow_world.job(JOB)
    (airflow_world.folder / "jobs" / "broken.toml").write_text("[extract]\n")
    dag_run = load_dags()["broken"].test()
    assert str(dag_run.state) == "failed"
