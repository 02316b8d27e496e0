"""The demo as a stranger meets it, with a real scheduler: from nothing to predictions, and then what an operator does.

The tests share one demo and go on from one another's state, in their order; it takes about two minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from sklearn import metrics

import warm
from demo.stack import Stack
from plantao.config import settings
from plantao.postgres import embedded, session

ROOT = Path(__file__).parents[2]
JOBS = ("flight_delay", "arrival_minutes")


class Demo:
    """The commands of the demo, in a home of their own."""

    def __init__(self, home: Path) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "PLANTAO_HOME": str(home),
            "PLANTAO_JOBS": str(ROOT / "include" / "jobs"),
            "PYTHONPATH": str(ROOT / "include"),
        }
        self.settings = settings.read(self.environment)
        self.stack = Stack(self.settings)

    def call(self, *command: str, status: int = 0) -> str:
        if command[0] == "plantao":
            done = warm.module(*command, environment=self.environment)
        else:
            done = subprocess.run(
                [sys.executable, "-m", *command], env=self.environment, capture_output=True, text=True, check=False
            )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def sql(self, statement: str) -> list[tuple]:
        address = embedded.Server(self.settings.state).address("client_db", "client")
        connection = psycopg2.connect(session.dsn(address, "tests"))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def predictions(self) -> list[tuple]:
        return [
            self.sql(f"select md5(string_agg(p::text, '|' order by flight_id)), count(*) from predictions.{job} p")[0]
            for job in JOBS
        ]

    def wait_for(self, run_ids: list[str], job: str = "flight_delay", patience: float = 1200) -> None:
        until = time.monotonic() + patience
        states = {}
        while time.monotonic() < until:
            states = {run_id: self.stack.ask(f"dags/{job}/dagRuns/{run_id}")["state"] for run_id in run_ids}
            if set(states.values()) <= {"success", "failed"}:
                break
            time.sleep(0.5)
        assert set(states.values()) == {"success"}, states

    def wait_for_backfills(self, job: str = "flight_delay", patience: float = 1200) -> None:
        """Wait until the scheduler has written down that they are over: a DAG can have one at a time."""
        until = time.monotonic() + patience
        while any(one["completed_at"] is None for one in self.stack.ask(f"backfills?dag_id={job}")["backfills"]):
            assert time.monotonic() < until
            time.sleep(0.5)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    found = Demo(tmp_path_factory.mktemp("demo"))
    try:
        yield found
    finally:
        found.call("demo", "down")


def test_one_command_leads_from_nothing_to_every_row_scored_once(demo):
    said = demo.call("demo", "run")
    assert "Every row once" in said
    assert "Where to look next" in said
    for job, windows in (("flight_delay", 14), ("arrival_minutes", 2)):
        source = demo.sql(
            "select count(*) from public.flights where departed_at >= '2013-04-01 00:00 America/New_York'"
            " and departed_at < '2013-04-15 00:00 America/New_York'"
        )[0][0]
        counts = demo.sql(f"select count(*), count(distinct flight_id) from predictions.{job}")[0]
        assert counts == (source, source) == (13205, 13205)
        runs = demo.sql(f"select count(*), bool_and(trigger = 'schedule') from plantao.runs where job = '{job}'")
        assert runs == [(windows, True)]
    unbalanced = "rows_read <> rows_scored + rows_rejected + rows_already_scored or status <> 'succeeded'"
    assert demo.sql(f"select count(*) from plantao.runs where {unbalanced}") == [(0,)]
    assert not demo.stack.parts


def test_what_was_measured_is_what_one_computes_from_the_tables(demo):
    day = "(source_timestamp at time zone 'America/New_York')::date"
    together = demo.sql(f"select {day}, prediction, score, late from predictions.flight_delay"
                        " join public.arrivals using (flight_id)")  # fmt: skip
    found = demo.sql("select (window_start at time zone 'America/New_York')::date, name, value, n, status, maturity"
                     " from plantao.metrics_latest where job = 'flight_delay' and role = 'champion' and segment = ''"
                     " and column_name = ''")  # fmt: skip
    measured = {(on, name): (value, n, status) for on, name, value, n, status, _ in found}
    days = sorted({row[0] for row in together})
    assert len(days) == 14
    for on in days:
        _, said, score, late = zip(*(row for row in together if row[0] == on), strict=True)
        value, n, status = measured[on, "roc_auc"]
        assert (n, status) == (len(late), "ok")
        assert value == pytest.approx(metrics.roc_auc_score(late, score), abs=0.0035)
        assert measured[on, "brier"][0] == pytest.approx(metrics.brier_score_loss(late, score), abs=1e-12)
        assert measured[on, "log_loss"][0] == pytest.approx(metrics.log_loss(late, score), abs=1e-12)
        saved = sum((20 if really else -5) for warned, really in zip(said, late, strict=True) if warned)
        assert measured[on, "objective"][0] == saved
    # The sum of the days is the whole period, decision by decision and outcome by outcome.
    confusion = Counter((row[1], row[3]) for row in together)
    sums = Counter()
    for (bins,) in demo.sql("select state -> 'bins' from plantao.daily_outcomes where job = 'flight_delay'"
                            " and segment = ''"):  # fmt: skip
        for cell in bins.values():
            for decision, (negatives, positives, *_) in cell.items():
                sums[decision == "true", False] += negatives
                sums[decision == "true", True] += positives
    assert sums == confusion
    rows = demo.sql("select day, sum(rows) from plantao.daily_state where job = 'flight_delay' and segment = ''"
                    " and column_name = '' group by day order by day")  # fmt: skip
    assert rows == demo.sql(f"select {day}, count(*) from predictions.flight_delay group by 1 order by 1")


def test_a_second_time_finds_nothing_left_to_do(demo):
    before = demo.predictions()
    demo.call("demo", "up")
    demo.call("demo", "run")
    assert demo.predictions() == before
    assert demo.sql("select count(*) from plantao.runs") == [(16,)]
    assert set(demo.stack.parts) == {"api-server", "scheduler", "dag-processor", "triggerer"}


def test_everything_listens_on_the_loopback_address_only(demo):
    groups = {os.getpgid(pid) for pid in demo.stack.parts.values()}
    addresses = {
        connection.laddr.ip
        for process in psutil.process_iter()
        if _group(process.pid) in groups
        for connection in _connections(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections(kind="inet")
    except psutil.NoSuchProcess:  # Airflow's own short-lived helpers
        return []


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_the_pool_of_the_client_was_made(demo):
    assert {pool["name"] for pool in demo.stack.ask("pools")["pools"]} == {"default_pool", "client_db"}


def test_clearing_a_run_changes_no_row_and_the_ledger_says_why(demo):
    before = demo.predictions()
    run_id = "scheduled__2013-04-03T04:00:00+00:00"
    demo.stack.ask(f"dags/flight_delay/dagRuns/{run_id}/clear", {"dry_run": False}, "POST")
    demo.wait_for([run_id])
    assert demo.predictions() == before
    newest = demo.sql("select rows_scored, rows_already_scored, status from plantao.runs order by run_id desc limit 1")
    assert newest == [(0, 983, "succeeded")]


def test_a_backfill_over_scored_days_changes_no_row(demo):
    before = demo.predictions()
    asked = {
        "dag_id": "flight_delay",
        "from_date": "2013-04-05T00:00:00-04:00",
        "to_date": "2013-04-11T00:00:00-04:00",
        "reprocess_behavior": "completed",
        "max_active_runs": 2,
    }
    demo.stack.ask("backfills", asked, "POST")
    demo.wait_for([f"scheduled__2013-04-{day:02}T04:00:00+00:00" for day in range(6, 13)])
    assert demo.predictions() == before
    runs = demo.sql(
        "select extract(day from window_start)::int, rows_scored from plantao.runs"
        " where trigger = 'backfill' order by 1"
    )
    assert runs == [(day, 0) for day in range(5, 12)]


def test_airflows_command_line_backfills_too(demo):
    before = demo.predictions()
    demo.wait_for_backfills()
    period = ["--from-date", "2013-04-01", "--to-date", "2013-04-02T12:00:00-04:00"]
    again = ["--reprocess-behavior", "completed"]
    demo.call("demo", "airflow", "backfill", "create", "--dag-id", "flight_delay", *period, *again)
    demo.wait_for([f"scheduled__2013-04-{day:02}T04:00:00+00:00" for day in (2, 3)])
    assert demo.predictions() == before
    newest = "select window_start, rows_scored, trigger from plantao.runs order by run_id desc limit 2"
    assert {row[1:] for row in demo.sql(newest)} == {(0, "backfill")}


def test_the_command_line_changes_no_row_either(demo):
    before = demo.predictions()
    report = json.loads(
        demo.call("plantao", "run", "flight_delay", "--from", "2013-04-02", "--to", "2013-04-03", "--json")
    )
    assert (report["rows_scored"], report["rows_already_scored"]) == (0, 983)
    assert demo.predictions() == before


def test_an_operator_can_score_any_past_period_also_after_the_jobs_end(demo):
    asked = {
        "logical_date": "2013-05-01T04:00:00Z",
        "data_interval_start": "2013-05-01T04:00:00Z",
        "data_interval_end": "2013-05-02T04:00:00Z",
        "conf": {},
    }
    run_id = demo.stack.ask("dags/flight_delay/dagRuns", asked, "POST")["dag_run_id"]
    demo.wait_for([run_id])
    newest = demo.sql("select window_start::text, rows_scored, trigger from plantao.runs order by run_id desc limit 1")
    assert newest == [("2013-05-01 04:00:00+00", 964, "manual")]


def test_a_run_without_a_date_scores_the_jobs_last_window(demo):
    run_id = demo.stack.ask("dags/flight_delay/dagRuns", {"logical_date": None, "conf": {}}, "POST")["dag_run_id"]
    demo.wait_for([run_id])
    newest = "select window_start::text, rows_scored, trigger from plantao.runs order by run_id desc limit 1"
    assert demo.sql(newest) == [("2013-04-14 04:00:00+00", 0, "manual")]


def test_rows_inserted_into_a_scored_window_are_scored_by_the_next_days_run(demo):
    demo.sql(
        "insert into public.flights select flight_id + 1000000, departed_at, carrier, flight_number, tailnum, origin,"
        " dest, distance, dep_hour, day_of_week, scheduled_minutes, plane_year, plane_seats"
        " from public.flights where departed_at >= '2013-04-13 12:00Z' order by departed_at limit 5"
    )
    asked = {
        "logical_date": "2013-04-15T04:00:00Z",
        "data_interval_start": "2013-04-15T04:00:00Z",
        "data_interval_end": "2013-04-16T04:00:00Z",
        "conf": {},
    }
    demo.wait_for([demo.stack.ask("dags/flight_delay/dagRuns", asked, "POST")["dag_run_id"]])
    assert demo.sql("select rows_late from plantao.runs order by run_id desc limit 1") == [(5,)]
    late = "select count(*), min(run_id) = (select max(run_id) from plantao.runs) from predictions.flight_delay"
    assert demo.sql(late + " where flight_id > 1000000") == [(5, True)]


def test_the_status_tells_what_is_fine_and_what_is_not(demo):
    said = json.loads(demo.call("plantao", "status", "--json", status=1))
    assert {state["job"]: (state["health"], state["windows_owed"]) for state in said} == {
        "flight_delay": ("fine", 0),
        "arrival_minutes": ("broken", 0),
    }
    # It was trained on January to March, and April is warmer than any day of theirs.
    (found,) = [one for state in said for one in state["incidents"] if one["lane"] == "break"]
    assert found["fingerprint"] == "break range temp"


def test_down_ends_everything_that_was_started(demo):
    pids = list(demo.stack.parts.values())
    groups = {os.getpgid(pid) for pid in pids}
    said = demo.call("demo", "down")
    assert "Airflow is stopped" in said
    assert "the database is stopped" in said
    assert not [process for process in psutil.process_iter() if _group(process.pid) in groups]
    assert "was not running" in demo.call("demo", "down")
