"""The two DAGs that belong to no job: one measures late outcomes, one sends what waits in the outbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk import DAG, task

from plantao.airflow import tasks
from plantao.config.job import Job
from plantao.config.job_file import read_folder

if TYPE_CHECKING:
    from pathlib import Path

# No job can have these names.
OUTCOMES, ALERTS = "plantao-outcomes", "plantao-alerts"


def outcomes_dags(folder: Path) -> dict[str, DAG]:
    """Return the DAG that measures late outcomes, by its name; none where no job has outcomes."""
    jobs = [
        name for name, job in read_folder(folder).items() if isinstance(job, Job) and job.measure.outcome is not None
    ]
    return {OUTCOMES: outcomes_dag(jobs)} if jobs else {}


def outcomes_dag(jobs: list[str]) -> DAG:
    """Return the DAG with one task per job; one that fails takes none of the others with it."""
    with DAG(
        OUTCOMES,
        description="Measures the days whose outcomes have become known, however late.",
        doc_md="Every day: measure the days whose outcomes have come or changed since, for each job that has outcomes.",
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
                return tasks.outcomes(job)

            outcomes(job)
    return dag


def alerts_dag() -> DAG:
    """Return the DAG that sends what waits in the outbox, errors at once and the rest as digests."""
    with DAG(
        ALERTS,
        description="Sends what waits in the outbox to Slack, and believes only what Slack has acknowledged.",
        doc_md="Every minute: send what waits in the outbox, errors at once, the rest as one digest per job.",
        schedule="* * * * *",
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(minutes=10),
        is_paused_upon_creation=False,
        # What was not sent waits for the next minute, so a retry would only be noise.
        default_args={"owner": "plantao", "retries": 0, "execution_timeout": timedelta(minutes=5)},
        tags={"plantao"},
    ) as dag:

        @task
        def send() -> dict[str, int]:
            """Send what is due, and return how many messages went out and how many wait."""
            return tasks.send_alerts()

        send()
    return dag
