"""What a project's Airflow has scored: waiting for it, and holding its books against the source."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from containers.engine import Failed
from containers.project import PATIENCE_SECONDS, ROOT
from demo.summary import windows
from plantao.config.job import Job
from plantao.config.job_file import read_folder

if TYPE_CHECKING:
    from containers.project import Project

JOBS = [job for job in read_folder(ROOT / "include" / "jobs").values() if isinstance(job, Job)]
MODELS = tuple(job.score.model for job in JOBS)
LEDGER = """
  select job, to_char(window_start, 'YYYY-MM-DD') as window, status, rows_read, rows_scored, rows_rejected,
         rows_already_scored, model_version, code_version
  from plantao.runs order by job, window_start, run_id
"""
RUNS = "select dag_id, state, count(*) from dag_run group by 1, 2"
ALIVE = "select component from plantao.heartbeats where component in ('digest', 'watchdog') order by 1"


@dataclass(frozen=True)
class Books:
    """A job's counts, and one digest of all that it has predicted."""

    job: str
    source_rows: int
    predictions: int
    keys: int
    rejects: int
    digest: str


def wait(project: Project, results: str) -> None:
    """Return when Airflow has finished a run for every window of every job. Raises Failed when one fails."""
    owed = {job.name: len(windows(job)) for job in JOBS}
    finished: dict[str, int] = {}
    began = time.monotonic()
    while finished != owed:
        time.sleep(2)
        runs = [run for run in project.rows("postgres", RUNS) if run[0] in owed]
        late = time.monotonic() - began > PATIENCE_SECONDS
        if late or any(state == "failed" for _, state, _ in runs):
            errors = project.rows(results, "select job, window_start, error from plantao.runs where error is not null")
            message = f"{project.name}: of {owed} runs Airflow has {runs}; the ledger says {errors}"
            raise Failed(message)
        finished = {name: int(count) for name, state, count in runs if state == "success"}
    seconds = time.monotonic() - began
    print(f"\n{sum(owed.values())} runs of {project.name} have ended {seconds:.0f} s after it was up\n")
    print(project.psql(results, LEDGER))
    while [name for (name,) in project.rows(results, ALIVE)] != ["digest", "watchdog"]:
        if time.monotonic() - began > PATIENCE_SECONDS:
            message = f"{project.name}: whoever sends alerts, or the watchdog, has given no sign of life"
            raise Failed(message)
        time.sleep(2)
    print(f"{project.name}: who sends alerts, and the watchdog, give signs of life")


def balance(client: Project, project: Project, results: str) -> list[Books]:
    """Return the books of every job, from the demo's client and the database that is `results` of a project.

    Raises Failed when a row of the source has not exactly one prediction or one reject.
    """
    books = []
    for job in JOBS:
        there = windows(job)
        within = f">= '{there[0].start}' and {{0}} < '{there[-1].end}'"
        source = f"select count(*) from public.flights where departed_at {within.format('departed_at')}"
        predicted = f"""
          select count(*), count(distinct flight_id),
                 md5(string_agg(concat_ws(' ', flight_id, prediction, score, model_version), ',' order by flight_id))
          from {job.load.table} where source_timestamp {within.format("source_timestamp")}
        """
        rejected = f"select count(*) from plantao.rejected_rows where job = '{job.name}' and resolved_at is null"
        ((rows,),) = client.rows("client", source)
        ((predictions, keys, digest),) = project.rows(results, predicted)
        ((rejects,),) = project.rows(results, rejected)
        found = Books(job.name, int(rows), int(predictions), int(keys), int(rejects), digest)
        print(f"  {found.job:<16} {found.source_rows:>6} source rows = {found.predictions} predictions"
              f" ({found.keys} keys) + {found.rejects} rejects")  # fmt: skip
        if not found.source_rows == found.predictions + found.rejects == found.keys + found.rejects:
            message = f"{project.name}: the books of {job.name} do not balance: {found}"
            raise Failed(message)
        books.append(found)
    return books
