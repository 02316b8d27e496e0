"""The DAG files, parsed as Airflow parses them: one DAG per job file, whatever is in the files."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from world import JOB

sys.path.insert(0, str(Path(__file__).parent))
from conftest import load_dags

ROOT = Path(__file__).parents[2]
ALERTS = "plantao-alerts"
MEASURE = ("measure.data_quality", "measure.drift", "measure.performance")


@pytest.fixture
def jobs(tmp_path, monkeypatch, airflow_home):
    """A folder of job files that the DAG file reads."""
    monkeypatch.setenv("PLANTAO_JOBS", str(tmp_path))

    def write(**files: str):
        for name, text in files.items():
            # No two jobs write one table.
            own = (
                text if name == "one" else text.replace("predictions.bad_reading", f"predictions.{len(name)}_{name[0]}")
            )
            (tmp_path / f"{name}.toml").write_text(own)
        return load_dags()

    return write


def test_every_job_file_is_one_dag_and_nothing_else_is(jobs):
    assert set(jobs(one=JOB, two=JOB.replace('"daily"', '"weekly"'), three=JOB)) == {"one", "two", "three", ALERTS}


def test_a_prediction_table_of_any_name_is_an_asset(jobs):
    dags = jobs(one=JOB.replace('"predictions.bad_reading"', """'"Pre Dictions"."Lïnhas"'"""))
    (asset,) = dags["one"].get_task("score").outlets
    assert asset.name == "client_db/Pre%20Dictions.L%C3%AFnhas"


def test_the_projects_own_job_files_are_dags(monkeypatch, airflow_home):
    monkeypatch.setenv("PLANTAO_HOME", str(ROOT))
    jobs = {path.stem for path in (ROOT / "include" / "jobs").glob("*.toml")}
    assert set(load_dags()) == {*jobs, "plantao-outcomes", ALERTS}


def test_a_broken_job_file_is_a_red_dag_that_names_its_mistakes_while_the_others_run(jobs):
    dags = jobs(good=JOB, bad=JOB.replace("late_rows", "laterows"), worse="not toml", **{"Strange Näme": JOB})
    assert set(dags) == {"good", "bad", "worse", "Strange_N_me", ALERTS}
    assert list(dags["good"].task_ids) == ["score", *MEASURE, "reconcile"]
    assert "did you mean 'late_rows'?" in dags["bad"].doc_md
    with pytest.raises(Exception, match=r"(?s)1 mistake.*\[extract\] laterows.*did you mean 'late_rows'"):
        dags["bad"].get_task("job_file_is_broken").python_callable()
    assert "not TOML" in dags["worse"].doc_md
    assert "broken" in dags["worse"].tags


def test_a_dag_says_whose_it_is_and_what_to_do(jobs):
    dag = jobs(one='owner = "ops"\n' + JOB)["one"]
    assert dag.get_task("score").owner == "ops"
    assert dag.tags == {"plantao", "bad_reading"}
    assert dag.description == "Will this reading be bad?"
    for said in ("public.readings", "predictions.bad_reading", "To score a past window", "When a run is red"):
        assert said in dag.doc_md


def test_a_job_runs_without_anyone_having_to_switch_it_on_and_catches_up(jobs):
    dag = jobs(one=JOB)["one"]
    assert dag.is_paused_upon_creation is False
    assert dag.catchup is True
    assert dag.start_date == datetime(2013, 4, 1, tzinfo=UTC)


def test_reading_is_bounded_by_a_pool_of_the_clients_connection(jobs):
    dag = jobs(one=JOB.replace("[extract]", '[extract]\nconnection = "other_client"'))["one"]
    assert dag.get_task("score").pool == "other_client"


def test_a_job_that_never_reconciles_has_no_such_task(jobs):
    dag = jobs(one=JOB.replace("late_rows", 'reconcile = "never"\nlate_rows'))["one"]
    assert list(dag.task_ids) == ["score", *MEASURE]


def test_a_job_with_parts_is_planned_mapped_and_published(jobs):
    dag = jobs(one=JOB.replace("[load]", "parts = 3\n[load]"))["one"]
    assert set(dag.task_ids) == {"plan", "score_part", "publish", *MEASURE, "reconcile"}
    assert dag.get_task("score_part").upstream_task_ids == {"plan"}
    assert dag.get_task("publish").upstream_task_ids == {"plan", "score_part"}
    assert dag.get_task("measure.drift").upstream_task_ids == {"publish"}


def test_the_prediction_table_is_an_asset_that_others_can_build_on(jobs):
    outlet = jobs(one=JOB)["one"].get_task("score").outlets[0]
    assert (outlet.name, outlet.uri) == (
        "client_db/predictions.bad_reading",
        "plantao://client_db/predictions.bad_reading",
    )


@pytest.mark.parametrize(
    ("schedule", "cron"),
    [("daily", "0 0 * * *"), ("weekly", "0 0 * * 1"), ("monthly", "0 0 1 * *"), ("30 6 * * 1-5", "30 6 * * 1-5")],
)
def test_schedules_become_windows_in_the_jobs_time_zone(jobs, schedule, cron):
    text = JOB.replace('"daily"', f'"{schedule}"').replace("starts ", 'timezone = "America/Sao_Paulo"\nstarts ')
    timetable = jobs(one=text)["one"].timetable
    assert (timetable.summary, str(timetable._timezone)) == (cron, "America/Sao_Paulo")


def test_a_job_on_demand_has_no_schedule_but_can_be_triggered(jobs):
    dag = jobs(one=JOB.replace('"daily"', '"on demand"'))["one"]
    assert dag.timetable.can_be_scheduled is False


def test_a_dag_survives_the_way_through_airflows_database(jobs):
    from airflow.serialization.serialized_objects import DagSerialization

    for name, dag in jobs(one=JOB + "\n", two=JOB.replace("starts ", "ends = 2013-05-01\nstarts ")).items():
        back = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        assert back.dag_id == name
        assert getattr(back.timetable, "ends", None) == getattr(dag.timetable, "ends", None)


def test_a_tasks_process_builds_only_its_own_dag(jobs, monkeypatch):
    jobs(one=JOB, two=JOB)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "two")
    assert set(load_dags()) - {ALERTS} == {"two"}


def test_the_form_asks_only_for_what_airflow_lacks(jobs):
    params = jobs(one=JOB)["one"].params
    window = {"from": None, "to": None, "missing": False}
    assert dict(params) == {**window, "model_version": None, "rescore": False, "accept_checks": False, "dry_run": False}


def test_form_and_documentation_name_the_zone_of_the_job(jobs):
    dag = jobs(one=JOB.replace("starts ", 'timezone = "America/New_York"\nstarts '))["one"]
    assert dag.params.get_param("from").schema["title"] == "From (America/New_York)"
    assert "in America/New_York" in dag.params.get_param("to").description
    assert "Its times are UTC, not America/New_York." in dag.doc_md


def test_an_interval_that_nobody_gives_is_the_last_one_that_is_due(jobs):
    import pendulum

    timetable = jobs(one=JOB.replace("starts ", "ends = 2013-05-01\nstarts "))["one"].timetable
    for now, day in ((pendulum.datetime(2026, 12, 1), "2013-04-30"), (pendulum.datetime(2013, 4, 7), "2013-04-06")):
        assert timetable.infer_manual_data_interval(run_after=now).start.date().isoformat() == day


def test_a_job_of_which_airflow_makes_no_dag_is_red_and_takes_no_other_with_it(jobs, monkeypatch):
    from plantao.airflow import dags

    made = dags.scoring_dag
    monkeypatch.setattr(dags, "scoring_dag", lambda job: 1 // 0 if job.name == "two" else made(job))
    found = jobs(one=JOB, two=JOB)
    assert "score" in found["one"].task_ids
    assert "Airflow makes no DAG of it: unexpected ZeroDivisionError" in found["two"].doc_md


def test_the_dag_file_would_not_be_skipped_by_the_discovery():
    # Airflow passes over files that do not contain both words, without a word itself.
    text = (ROOT / "dags" / "scoring_jobs.py").read_text().lower()
    assert "dag" in text
    assert "airflow" in text


def test_alerts_are_sent_every_minute_one_sender_at_a_time(jobs):
    dag = jobs(one=JOB)[ALERTS]
    assert list(dag.task_ids) == ["send"]
    assert dag.schedule == "* * * * *"
    assert (dag.catchup, dag.max_active_runs, dag.is_paused_upon_creation) == (False, 1, False)
    # What was not sent waits for the next minute.
    assert dag.get_task("send").retries == 0
    assert dag.get_task("send").execution_timeout < dag.dagrun_timeout
