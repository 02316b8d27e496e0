"""One Airflow DAG per job file in include/jobs.

A job file with mistakes becomes a red DAG that names them, and all the others go on; without that, one typo would take
every DAG of this file away.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    TaskGroup,
    get_current_context,
    get_parsing_context,
    task,
)

import job_tasks
from job_windows import JobTimetable
from plantao import settings
from plantao.errors import JobFileError, PlantaoError
from plantao.job import Job
from plantao.job_file import read_folder

# Permanent errors will happen again, so they fail at once; the others are tried again with growing pauses.
PERMANENT_ONES_FAIL = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception="plantao.errors.DatabaseUnavailable", action=RetryAction.DEFAULT),
        RetryRule(exception="plantao.errors.WindowBusy", action=RetryAction.DEFAULT),
        RetryRule(exception=PlantaoError, action=RetryAction.FAIL, reason="it would happen again"),
    ]
)
RETRIES = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": PERMANENT_ONES_FAIL,
}
FORM: dict[str, Any] = {
    "model_version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Model version",
        description="Score with this version; empty means the champion.",
    ),
    "rescore": Param(
        False,
        type="boolean",
        title="Score again",
        description="Score rows again that have a prediction; the old predictions move to the history table.",
    ),
    "accept_checks": Param(
        False,
        type="boolean",
        title="Accept checks",
        description="Let the rows become visible although a check that blocks has failed.",
    ),
    "dry_run": Param(False, type="boolean", title="Dry run", description="Do everything but write."),
}

# Jobs with one rhythm share it: Airflow puts each cron expression into words, a tenth of the time that parsing takes.
timetable = cache(JobTimetable)


def scoring_dag(job: Job) -> DAG:
    """Return the DAG of a job: score the window, measure it, and from time to time look at the whole history."""
    with DAG(
        job.name,
        description=job.description,
        doc_md=documentation(job),
        schedule=timetable(job.cron, job.timezone, job.ends_at) if job.cron else None,
        start_date=job.starts_at and job.starts_at.astimezone(job.zone),
        catchup=True,
        max_active_runs=4,
        is_paused_upon_creation=False,  # adding a file is adding a job; a paused one would silently never run
        default_args={"owner": job.owner or "plantao", **RETRIES},
        tags={"plantao", job.score.model},
    ) as dag:
        predictions = Asset(
            name=f"{job.load.connection}/{job.load.table}", uri=f"plantao://{job.load.connection}/{job.load.table}"
        )

        scored = in_parts(job, predictions) if job.score.fans_out else in_one(job, predictions)

        measured(job, scored)
        if job.extract.reconcile != "never":

            @task(pool=job.extract.connection)
            def reconcile() -> dict[str, Any]:
                """When it is time: compare the whole history with the predictions, and score what is owed."""
                return job_tasks.reconcile(job, get_current_context())

            scored >> reconcile()
    # Last: each task would copy them again and again, for a hundred jobs a third of the time that parsing takes.
    dag.params.update(FORM)
    return dag


def measured(job: Job, scored: Any) -> None:
    """Add the tasks that measure what was scored; one that fails takes none of the others with it."""
    with TaskGroup("measure"):

        @task
        def data_quality(scored: list[dict[str, Any]]) -> int:
            """Write down how many rows there were, how many gaps, and how many values training never saw."""
            return job_tasks.data_quality(job, scored)

        @task
        def drift(scored: list[dict[str, Any]]) -> int:
            """Hold the rows against the reference, column by column."""
            return job_tasks.drift(job, scored)

        @task
        def performance(scored: list[dict[str, Any]]) -> int:
            """Hold the predictions against what really happened, as far as it is known."""
            return job_tasks.performance(job, scored)

        data_quality(scored)
        drift(scored)
        judged = performance(scored)
        if job.measure.objective is not None:

            @task(trigger_rule="all_done")
            def objective(scored: list[dict[str, Any]]) -> int:
                """Measure what the predictions were worth to the business."""
                return job_tasks.objective(job, scored)

            judged >> objective(scored)


def in_one(job: Job, predictions: Asset) -> Any:
    """Return the reports of the one task that scores a window."""

    @task(pool=job.extract.connection, outlets=[predictions])
    def score() -> list[dict[str, Any]]:
        """Extract, validate, score and load the rows of the window, once each."""
        return job_tasks.score(job, get_current_context())

    return score()


def in_parts(job: Job, predictions: Asset) -> Any:
    """Return the reports of the tasks that cut a window, score its parts and publish them."""

    @task(pool=job.extract.connection)
    def plan() -> list[dict[str, Any]]:
        """Cut the window into parts."""
        return job_tasks.plan(job, get_current_context())

    @task(pool=job.extract.connection)
    def score_part(part: dict[str, Any]) -> dict[str, Any]:
        """Extract, validate and score the rows of one part, where nobody sees them yet."""
        return job_tasks.score_part(job, part)

    @task(outlets=[predictions], trigger_rule="none_failed")
    def publish(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make all parts visible at once."""
        return job_tasks.publish(job, parts, get_current_context())

    parts = plan()
    published = publish(parts)
    score_part.expand(part=parts) >> published
    return published


def red_dag(name: str, error: JobFileError) -> DAG:
    """Return the DAG that stands in for a broken job file: it fails, naming the mistakes."""
    dag_id = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in name)
    with DAG(
        dag_id,
        description=f"BROKEN JOB FILE: {len(error.complaints)} mistakes",
        doc_md=f"The job file has mistakes, so this job does not run:\n\n```\n{error}\n```",
        schedule="@hourly",
        start_date=datetime(2013, 1, 1, tzinfo=UTC),
        catchup=False,
        tags={"plantao", "broken"},
    ) as dag:

        @task(retries=0)
        def job_file_is_broken() -> None:
            """Name the mistakes in the job file."""
            raise error

        job_file_is_broken()
    return dag


def documentation(job: Job) -> str:
    """Return what a person finds behind the book in the Airflow UI."""
    source = job.extract.table or job.extract.query_file or "a query"
    return f"""\
{job.description}

| | |
|---|---|
| source | `{source}` on connection `{job.extract.connection}`, key `{", ".join(job.extract.key)}` |
| window | {job.schedule}, {job.timezone}, by `{job.extract.timestamp}` |
| late rows | looked for {job.extract.late_rows} back; the whole history: {job.extract.reconcile} |
| model | `{job.score.model}` |
| predictions | `{job.load.table}` on connection `{job.load.connection}` |
| owner | {job.owner or "nobody is named"} |

**To score a past period**, choose *Trigger*, then *Data Interval: specify manually*, or use *Backfill*. Rows that have
a prediction are left alone, so running anything again does no harm. **When a run is red**, its task log ends with what
happened, whether anything was written, and what to do next; the same sentence stands in `plantao.runs.error`.
"""


# A task's process parses this file again, and needs only its own DAG.
only = get_parsing_context().dag_id
for name, found in read_folder(settings.read().jobs).items():
    if only is None or only == name or not isinstance(found, Job):
        globals()[name] = scoring_dag(found) if isinstance(found, Job) else red_dag(name, found)
