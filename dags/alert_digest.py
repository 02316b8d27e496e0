"""Every minute: send what waits in the outbox, errors at once and the rest as one digest per job and interval."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, task

import job_tasks

with DAG(
    "plantao-alerts",  # no job can have this name
    description="Sends what waits in the outbox to Slack, and believes only what Slack has acknowledged.",
    doc_md=__doc__,
    schedule="* * * * *",
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=10),
    is_paused_upon_creation=False,
    # What was not sent waits for the next minute, so a retry would only be noise.
    default_args={"owner": "plantao", "retries": 0, "execution_timeout": timedelta(minutes=5)},
    tags={"plantao"},
):

    @task
    def send() -> dict[str, int]:
        """Send what is due, and return how many messages went out and how many wait."""
        return job_tasks.send_alerts()

    send()
