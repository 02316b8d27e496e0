"""Every day: measure again the days whose outcomes have come or changed since, for every job that has outcomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

import job_tasks
from plantao import settings
from plantao.job import Job
from plantao.job_file import read_folder


def outcomes_dag(jobs: list[str]) -> DAG:
    """Return the DAG with one task per job; one that fails takes none of the others with it."""
    with DAG(
        "plantao-outcomes",  # no job can have this name
        description="Measures the days whose outcomes have become known, however late.",
        doc_md=__doc__,
        schedule="@daily",
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        is_paused_upon_creation=False,
        default_args={"owner": "plantao", "retries": 2, "retry_delay": timedelta(minutes=5)},
        tags={"plantao"},
    ) as dag:
        for job in jobs:

            @task(task_id=job)
            def outcomes(job: str) -> int:
                """Measure the days whose outcomes have changed since."""
                return job_tasks.outcomes(job)

            outcomes(job)
    return dag


found = read_folder(settings.read().jobs)
if names := [name for name, job in found.items() if isinstance(job, Job) and job.measure.outcome is not None]:
    globals()["outcomes"] = outcomes_dag(names)
