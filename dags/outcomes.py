"""Every day: measure again the days whose outcomes have come or changed since, for every job that has outcomes."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task

import job_tasks
from plantao import settings
from plantao.job import Job
from plantao.job_file import read_folder

with DAG(
    "outcomes",
    description="Measures the days whose outcomes have become known, however late.",
    doc_md=__doc__,
    schedule="@daily",
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    default_args={"owner": "plantao", "retries": 2},
    tags={"plantao"},
) as dag:
    for name, found in read_folder(settings.read().jobs).items():
        if isinstance(found, Job) and found.measure.outcome is not None:

            @task(task_id=name)
            def outcomes(job: str) -> int:
                """Measure the days whose outcomes have changed."""
                return job_tasks.outcomes(job)

            outcomes(name)
