"""Every task of a job's DAG with every state of what is before it: a failed run is red at once, by its own error."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pendulum
import pytest
from airflow.sdk.exceptions import AirflowSkipException

from plantao.airflow import tasks
from plantao.errors import ModelMissing
from world import JOB

sys.path.insert(0, str(Path(__file__).parent))
from conftest import load_dags

WITH_OBJECTIVE = (
    JOB
    + """
[measure]
outcome = { table = "public.truth", key = ["id"], column = "bad", known_after = "0 days" }
objective = { name = "gain", values = [{ prediction = true, outcome = true, value = 3 }] }
"""
)
IN_PARTS = WITH_OBJECTIVE.replace("[load]", "parts = 2\n[load]")
MEASURING = ("data_quality", "drift", "performance", "objective", "performance_done")


def fails(*_):
    message = "there is no version 99 of model bad_reading."
    raise ModelMissing(message, "register it")


def skips(*_):
    message = "nothing to do"
    raise AirflowSkipException(message)


def leaves_nothing(*_):
    """Stand for a task that was marked as a success by hand."""


@pytest.fixture
def states_of():
    """Return a function that runs the DAG with one of its tasks replaced, and gives back the states."""

    days = itertools.cycle(range(2, 7))

    def run() -> tuple[str, dict[str, str]]:
        # Each on a day of its own: parts that were scored and not published keep their window.
        dag_run = load_dags()["bad_reading"].test(logical_date=pendulum.datetime(2013, 4, next(days)))
        found = dag_run.get_task_instances()
        assert {ti.try_number for ti in found} <= {0, 1}  # nothing is retried, so a failed run is red in seconds
        return str(dag_run.state), {ti.task_id.removeprefix("measure."): str(ti.state) for ti in found}

    return run


@pytest.fixture
def ready(airflow_world):
    airflow_world.ready(WITH_OBJECTIVE)
    airflow_world.sql("create table public.truth (id bigint primary key, bad boolean)")
    airflow_world.grant()
    return airflow_world


def test_in_one_task(ready, states_of, monkeypatch):
    usual = {"score": "success", **dict.fromkeys(MEASURING, "success"), "reconcile": "skipped"}
    assert states_of() == ("success", usual)

    def with_(outcome, task):
        with monkeypatch.context() as here:
            here.setattr(tasks, task, outcome)
            return states_of()

    after = (*MEASURING, "reconcile")
    assert with_(fails, "score") == ("failed", {"score": "failed", **dict.fromkeys(after, "upstream_failed")})
    assert with_(skips, "score") == ("success", {"score": "skipped", **dict.fromkeys(after, "skipped")})
    nothing = {**usual, **dict.fromkeys(MEASURING, "skipped")}
    assert with_(leaves_nothing, "score") == ("success", nothing)
    # The objective needs what was scored, and not that its metrics could be measured.
    for task in ("data_quality", "drift", "objective", "reconcile"):
        assert with_(fails, task) == ("failed", {**usual, task: "failed"}), task
    failed = {**usual, "performance": "failed", "performance_done": "upstream_failed"}
    assert with_(fails, "performance") == ("failed", failed)
    skipped = dict.fromkeys(("performance", "performance_done", "objective"), "skipped")
    assert with_(skips, "performance") == ("success", {**usual, **skipped})


def test_in_parts(ready, states_of, monkeypatch):
    ready.job(IN_PARTS)
    scoring = dict.fromkeys(("plan", "score_part", "publish"), "success")
    usual = {**scoring, **dict.fromkeys(MEASURING, "success"), "reconcile": "skipped"}
    assert states_of() == ("success", usual)

    def with_(outcome, task):
        with monkeypatch.context() as here:
            here.setattr(tasks, task, outcome)
            return states_of()

    after = dict.fromkeys((*MEASURING, "reconcile"), "upstream_failed")
    for place, task in enumerate(scoring):
        later = dict.fromkeys(list(scoring)[place + 1 :], "upstream_failed")
        assert with_(fails, task) == ("failed", {**scoring, task: "failed", **later, **after}), task
    assert with_(leaves_nothing, "publish") == ("success", {**usual, **dict.fromkeys(MEASURING, "skipped")})
