"""One Airflow DAG per job file of a folder.

A job file with mistakes becomes a red DAG that names them, and all the others go on; without that, one typo would take
every DAG of this file away.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from airflow.providers.standard.operators.empty import EmptyOperator
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

from plantao.airflow import tasks
from plantao.airflow.timetable import JobTimetable
from plantao.config.job import Job
from plantao.config.job_file import read_folder
from plantao.errors import JobFileError, PlantaoError, described

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
# Jobs with one rhythm share it: Airflow puts each cron expression into words, a tenth of the time that parsing takes.
timetable = cache(JobTimetable)


def scoring_dags(folder: str | Path) -> dict[str, DAG]:
    """Return the DAG of each job file in a folder, by the name of its job.

    A task's process parses the DAG file again and needs only its own DAG, so it gets no other.
    """
    only = get_parsing_context().dag_id
    return {
        name: dag_of(name, found)
        for name, found in read_folder(Path(folder)).items()
        if only is None or only == name or not isinstance(found, Job)
    }


def dag_of(name: str, found: Job | JobFileError) -> DAG:
    """Return the DAG of a job file; one that Airflow cannot build becomes a red DAG and takes no other with it."""
    if isinstance(found, JobFileError):
        return red_dag(name, found)
    try:
        return scoring_dag(found)
    except Exception as error:  # noqa: BLE001 - it would take every DAG of this file away
        return red_dag(name, JobFileError(f"{name}.toml", [f"Airflow makes no DAG of it: {described(error)}"]))


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
        # A name of Airflow's has ASCII characters only.
        place = f"{job.load.connection}/{'.'.join(quote(part, safe='') for part in job.load.table)}"
        predictions = Asset(name=place, uri=f"plantao://{place}")

        scored = in_parts(job, predictions) if job.score.fans_out else in_one(job, predictions)

        measured(job, scored)
        if job.extract.reconcile != "never":

            @task(pool=job.extract.connection)
            def reconcile() -> dict[str, Any]:
                """When it is time: compare the whole history with the predictions, and score what is owed."""
                return tasks.reconcile(job, get_current_context())

            scored >> reconcile()
    # Last, because each task would copy it again and again, for a hundred jobs a third of the time that parsing takes.
    dag.params.update(form(job))
    return dag


def form(job: Job) -> dict[str, Param]:
    """Return the fields of the trigger form: what Airflow's own form lacks."""
    named = "A date such as 2013-04-01, or 2013-04-01T06:00, in " + job.timezone
    return {
        "from": Param(
            None,
            type=["null", "string"],
            title=f"From ({job.timezone})",
            description=f"Start of the window. {named}. Empty, with an empty end: the last complete window.",
        ),
        "to": Param(
            None,
            type=["null", "string"],
            title=f"To ({job.timezone})",
            description=f"End of the window, which the window does not include. {named}.",
        ),
        "missing": Param(
            False,
            type="boolean",
            title="Everything missing",
            description="Score every window that is due and has no success yet, the oldest first.",
        ),
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
        "dry_run": Param(False, type="boolean", title="Dry run", description="Do everything except write."),
    }


def measured(job: Job, scored: Any) -> None:
    """Add the tasks that measure what was scored; one that fails takes none of the others with it."""
    with TaskGroup("measure"):

        @task
        def data_quality(scored: list[dict[str, Any]]) -> int:
            """Write down how many rows there were, how many gaps, and how many values training never saw."""
            return tasks.data_quality(job, scored)

        @task
        def drift(scored: list[dict[str, Any]]) -> int:
            """Hold the rows against the reference, column by column."""
            return tasks.drift(job, scored)

        @task
        def performance(scored: list[dict[str, Any]]) -> int:
            """Hold the predictions against what really happened, as far as it is known."""
            return tasks.performance(job, scored)

        data_quality(scored)
        drift(scored)
        judged = performance(scored)
        if job.measure.objective is not None:
            # Not all_done: when nothing was scored it would run, on nothing.
            @task(trigger_rule="all_done_min_one_success")
            def objective(scored: list[dict[str, Any]]) -> int:
                """Measure what the predictions were worth to the business."""
                return tasks.objective(job, scored)

            judged >> objective(scored)
            # The last tasks decide about a run: with the objective alone after it, performance could fail and be green.
            judged >> EmptyOperator(task_id="performance_done")


def in_one(job: Job, predictions: Asset) -> Any:
    """Return the reports of the one task that scores a window."""

    @task(pool=job.extract.connection, outlets=[predictions])
    def score() -> list[dict[str, Any]]:
        """Extract, validate, score and load the rows of the window, once each."""
        return tasks.score(job, get_current_context())

    return score()


def in_parts(job: Job, predictions: Asset) -> Any:
    """Return the reports of the tasks that cut a window, score its parts and publish them."""

    @task(pool=job.extract.connection)
    def plan() -> list[dict[str, Any]]:
        """Cut the window into parts."""
        return tasks.plan(job, get_current_context())

    @task(pool=job.extract.connection)
    def score_part(part: dict[str, Any]) -> dict[str, Any]:
        """Extract, validate and score the rows of one part, where nobody sees them yet."""
        return tasks.score_part(job, part)

    @task(outlets=[predictions], trigger_rule="none_failed")
    def publish(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Make all parts visible at once."""
        return tasks.publish(job, parts, get_current_context())

    parts = plan()
    published = publish(cast("list[dict[str, Any]]", parts))  # an XComArg stands in for its value
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
| window | {job.schedule} in the time zone **{job.timezone}**, by `{job.extract.timestamp}` |
| late rows | looked for {job.extract.late_rows} back; the whole history: {job.extract.reconcile} |
| model | `{job.score.model}` |
| predictions | `{job.load.table}` on connection `{job.load.connection}` |
| owner | {job.owner or "nobody is named"} |

**To score a past window**, choose *Trigger* and fill in *From* and *To*, which are meant in {job.timezone}. Without
them the last complete window is scored; *Everything missing* scores all windows without a success. For many windows
use *Backfill*. (*Data Interval: specify manually* works too. Its times are UTC, not {job.timezone}.) Through the REST
API name the window in `conf`: `{{"logical_date": null, "conf": {{"from": "2013-04-01", "to": "2013-04-02"}}}}`. Airflow
drops a `data_interval_start` that comes without a logical date.

Rows that have a prediction are left alone, so running anything again does no harm. **When a run is red**, its task log
ends with what happened, whether anything was written, and what to do next; the same sentence stands in
`plantao.runs.error`.
"""
