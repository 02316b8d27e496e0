"""What the tasks of a job's DAG call: Airflow's facts in, one call into `plantao`, plain values out.

The heavy imports happen inside the functions, in the task's own process, so that the scheduler's side stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import date

    from airflow.sdk import Context

    from plantao.address import Address
    from plantao.extract.window import Window
    from plantao.job import Job
    from plantao.place import Place
    from plantao.request import Request

TRIGGERS = {
    "scheduled": "schedule",
    "backfill": "backfill",
    "manual": "manual",
    "asset_triggered": "asset",
    "asset_materialization": "asset",
}


def score(job: Job, context: Context) -> list[dict[str, Any]]:
    """Score the run's window; a run that has none scores every window that the ledger owes."""
    from plantao import run

    here = _place()
    return [run.score_window(request, here).as_dict() for request in _requests(job, context, here)]


def plan(job: Job, context: Context) -> list[dict[str, Any]]:
    """Cut the run's windows into parts for any number of workers."""
    from plantao import fan_out

    here = _place()
    return [part.as_dict() for request in _requests(job, context, here) for part in fan_out.plan(request, here)]


def score_part(job: Job, part: dict[str, Any]) -> dict[str, Any]:
    """Score one part of a window."""
    from plantao import fan_out

    return fan_out.score_part(job, fan_out.Part.of(part), _place())


def publish(job: Job, parts: list[dict[str, Any]], context: Context) -> list[dict[str, Any]]:
    """Make the parts of every window visible, each window at once."""
    from plantao import publishing

    here, accepted = _place(), context["params"]["accept_checks"]
    runs = sorted({part["run_id"] for part in parts})
    return [publishing.publish(job, run_id, here, accept_checks=accepted).as_dict() for run_id in runs]


def _requests(job: Job, context: Context, here: Place) -> list[Request]:
    """Return what the run is asked to do: its own window, or all that are owed when it has none."""
    from plantao import run
    from plantao.request import Request

    params, dag_run = context["params"], context["dag_run"]
    given = _window(context)
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
        for window in ([given] if given is not None else run.owed_windows(job, here))
    ]


def data_quality(job: Job, scored: list[dict[str, Any]]) -> int:
    """Measure the rows of the windows that were scored, and return how many figures there are."""
    from plantao.measure import data_quality as measuring
    from plantao.measure.measuring import freshen

    here = _place()
    freshen(job, here, _days(job, scored))
    return sum(len(measuring.data_quality(job, window, here)) for window in _windows(scored))


def drift(job: Job, scored: list[dict[str, Any]]) -> int:
    """Measure how far the days that were scored are from the reference."""
    from plantao.measure.lanes.drifting import measure_drift

    return len(measure_drift(job, _place(), _days(job, scored)))


def performance(job: Job, scored: list[dict[str, Any]]) -> int:
    """Measure how good the model was, as far as it is known."""
    from plantao.measure import measuring

    return len(measuring.performance(job, _place(), _days(job, scored)))


def objective(job: Job, scored: list[dict[str, Any]]) -> int:
    """Measure what the predictions were worth."""
    from plantao.measure.lanes.performance import measure_objective

    return len(measure_objective(job, _place(), _days(job, scored)))


def outcomes(name: str) -> int:
    """Measure the days of a job whose outcomes have changed since they were measured last."""
    from plantao.job_file import read_job
    from plantao.measure import measuring

    here = _place()
    return len(measuring.outcomes(read_job(here.settings.jobs, name), here))


def send_alerts() -> dict[str, int]:
    """Send what waits in the outbox of every ledger."""
    from plantao.alert.send.everywhere import deliver_everywhere
    from plantao.alert.send.slack import messenger

    outcomes = deliver_everywhere(_place(), messenger(_slack_connection())).values()
    return {"sent": sum(len(one.sent) for one in outcomes), "waiting": sum(one.waiting for one in outcomes)}


def _slack_connection() -> dict[str, str] | None:
    """Return Airflow's own connection `slack` as the variable that Plantão reads; None leaves it to the environment."""
    import json
    import os

    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    if "AIRFLOW_CONN_SLACK" in os.environ:
        return None
    try:
        found = BaseHook.get_connection("slack")
    except AirflowNotFoundException:
        return None
    fields = {"conn_type": found.conn_type, "host": found.host, "password": found.password, "extra": found.extra_dejson}
    return {"AIRFLOW_CONN_SLACK": json.dumps(fields)}


def _windows(scored: list[dict[str, Any]]) -> list[Window]:
    """Return the windows that were scored; a dry run leaves none."""
    from datetime import datetime

    from plantao.extract.window import Window

    edges = [report["window"] for report in scored if report["status"] != "dry run"]
    return [Window.of(*(datetime.fromisoformat(edge[name]) for name in ("start", "end"))) for edge in edges]


def _days(job: Job, scored: list[dict[str, Any]]) -> list[date]:
    from plantao.measure.measuring import days_of

    here = _place()
    return sorted({day for window in _windows(scored) for day in days_of(job, window, here)})


def reconcile(job: Job, context: Context) -> dict[str, Any]:
    """Compare the whole history with the predictions when the job's rhythm asks for it, and score what is owed."""
    from airflow.sdk.exceptions import AirflowSkipException

    from plantao import reconcile as reconciliation

    here = _place()
    if context["params"]["dry_run"]:
        message = "a dry run repairs nothing"
        raise AirflowSkipException(message)
    if not reconciliation.is_due(job, here):
        message = f"the next reconciliation is not due yet ([extract] reconcile = {job.extract.reconcile!r})"
        raise AirflowSkipException(message)
    return reconciliation.reconcile(job, here, repair=True).as_dict()


def _window(context: Context) -> Window | None:
    """Return the run's data interval; API and asset runs have none, and an interval without length is none."""
    from plantao.extract.window import Window

    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start == end:
        return None
    return Window.of(start, end)


def _place() -> Place:
    from plantao import place, settings

    settings.let_threads_sleep()
    chosen = settings.read()
    return place.Place(chosen, lambda name: place.find_address(name, chosen, _look_up))


def _look_up(name: str) -> Address | None:
    """Look the connection up where Airflow does: its secrets backend, the environment, the UI."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from plantao import address

    try:
        found = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    return address.from_connection(name, found)
