"""What the tasks of a job's DAG call: Airflow's facts in, one call into `plantao`, plain values out.

The heavy imports happen inside the functions, in the task's own process, so that the scheduler's side stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plantao.airflow.connections import place_of_task, slack_variable

if TYPE_CHECKING:
    from datetime import date

    from airflow.sdk import Context

    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Trigger
    from plantao.run.requested_windows import Asked
    from plantao.runtime import Place
    from plantao.window import Window

TRIGGERS: dict[str, Trigger] = {
    "scheduled": "schedule",
    "backfill": "backfill",
    "manual": "manual",
    "asset_triggered": "asset",
    "asset_materialization": "asset",
}


def score(job: Job, context: Context) -> list[dict[str, Any]]:
    """Score the windows that the run means."""
    from plantao.run import run

    here = place_of_task()
    return [run.score_window(request, here).as_dict() for request in _requests(job, context, here)]


def plan(job: Job, context: Context) -> list[dict[str, Any]]:
    """Cut the run's windows into parts for any number of workers."""
    from plantao.run import parallel

    here = place_of_task()
    return [part.as_dict() for request in _requests(job, context, here) for part in parallel.plan(request, here)]


def score_part(job: Job, part: dict[str, Any]) -> dict[str, Any]:
    """Score one part of a window."""
    from plantao.run import parallel

    return parallel.score_part(job, parallel.Part.of(part), place_of_task())


def publish(job: Job, parts: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
    """Make the parts of every window visible, each window at once."""
    from plantao.run import publish as publishing

    here, accepted = place_of_task(), context["params"]["accept_checks"]
    runs = sorted({part["run_id"] for part in parts})
    return [publishing.publish(job, run_id, here, accept_checks=accepted).as_dict() for run_id in runs]


def _requests(job: Job, context: Context, here: Place) -> list[Request]:
    """Return what the run is asked to do, one request for each window that it means."""
    from plantao.ledger.request import Request
    from plantao.run import run

    params, dag_run = context["params"], context["dag_run"]
    return [
        Request(
            job,
            window,
            trigger=TRIGGERS.get(dag_run.run_type.value, "manual"),
            airflow_run=context["ti"].dag_id + "/" + context["run_id"],
            model_version=params["model_version"],
            rescore=params["rescore"],
            dry_run=params["dry_run"],
            accept_checks=params["accept_checks"],
            tries_left=max(0, context["ti"].max_tries - context["ti"].try_number + 1),
        )
        for window in run.windows_for(job, here, _asked(context))
    ]


def _asked(context: Context) -> Asked:
    """Return what the run says about its windows; API runs may have no interval, and one without length is none."""
    from plantao.run.requested_windows import Asked
    from plantao.window import Window

    params, dag_run = context["params"], context["dag_run"]
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    interval = None if start is None or end is None or start == end else Window.of(start, end)
    by_hand_at = dag_run.logical_date if dag_run.run_type.value == "manual" else None
    return Asked(params["from"], params["to"], interval, params["missing"], by_hand_at)


def data_quality(job: Job, scored: list[dict[str, Any]] | None) -> int:
    """Measure the rows of the windows that were scored, and return how many figures there are."""
    from plantao.measure import data_quality as measuring
    from plantao.measure.measure import freshen

    here, windows = place_of_task(), _windows(scored)
    freshen(job, here, _days(job, scored))
    return sum(len(measuring.data_quality(job, window, here)) for window in windows)


def drift(job: Job, scored: list[dict[str, Any]] | None) -> int:
    """Measure how far the days that were scored are from the reference."""
    from plantao.measure.drift import measure_drift

    return len(measure_drift(job, place_of_task(), _days(job, scored)))


def performance(job: Job, scored: list[dict[str, Any]] | None) -> int:
    """Measure how good the model was, as far as it is known."""
    from plantao.measure import measure

    return len(measure.performance(job, place_of_task(), _days(job, scored)))


def objective(job: Job, scored: list[dict[str, Any]] | None) -> int:
    """Measure what the predictions were worth."""
    from plantao.measure.performance import measure_objective

    return len(measure_objective(job, place_of_task(), _days(job, scored)))


def outcomes(name: str) -> int:
    """Measure the days of a job whose outcomes have changed since they were measured last."""
    from plantao.config.job_file import read_job
    from plantao.measure import measure

    here = place_of_task()
    return len(measure.outcomes(read_job(here.settings.jobs, name), here))


def send_alerts() -> dict[str, int]:
    """Send what waits in the outbox of every ledger."""
    from plantao.alert.send import deliver_everywhere
    from plantao.alert.slack import messenger

    outcomes = deliver_everywhere(place_of_task(), messenger(slack_variable())).values()
    return {"sent": sum(len(one.sent) for one in outcomes), "waiting": sum(one.waiting for one in outcomes)}


def _windows(scored: list[dict[str, Any]] | None) -> list[Window]:
    """Return the windows that were scored; a dry run leaves none.

    Skips the task when the one that scores has left no report: it was marked as a success, or cleared and has failed.
    """
    from datetime import datetime

    from airflow.sdk.exceptions import AirflowSkipException

    from plantao.window import Window

    if scored is None:
        message = "the task that scores left no report, so there is nothing to measure; clear it to score the window"
        raise AirflowSkipException(message)
    edges = [report["window"] for report in scored if report["status"] != "dry run"]
    return [Window.of(*(datetime.fromisoformat(edge[name]) for name in ("start", "end"))) for edge in edges]


def _days(job: Job, scored: list[dict[str, Any]] | None) -> list[date]:
    from plantao.measure.measure import days_of

    here = place_of_task()
    return sorted({day for window in _windows(scored) for day in days_of(job, window, here)})


def reconcile(job: Job, context: Context) -> dict[str, Any]:
    """Compare the whole history with the predictions when the job's rhythm asks for it, and score what is owed."""
    from airflow.sdk.exceptions import AirflowSkipException

    from plantao.run import reconcile as reconciliation

    here = place_of_task()
    if context["params"]["dry_run"]:
        message = "a dry run repairs nothing"
        raise AirflowSkipException(message)
    if not reconciliation.is_due(job, here):
        message = f"the next reconciliation is not due yet ([extract] reconcile = {job.extract.reconcile!r})"
        raise AirflowSkipException(message)
    return reconciliation.reconcile(job, here, repair=True).as_dict()
