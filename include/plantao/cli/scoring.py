"""`plantao run`, `backfill`, `measure`, `status`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantao import runtime
from plantao.cli import output
from plantao.cli.watch import show_signs
from plantao.config.job_file import read_folder, read_job
from plantao.errors import PlantaoError, described
from plantao.ledger import jobs, session
from plantao.ledger import runs as ledger
from plantao.ledger.request import Request
from plantao.outbox.incidents import open_incidents
from plantao.run import run as runs
from plantao.run.requested_windows import Asked, backfilled_windows
from plantao.window import Window, is_covered

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantao.config.job import Job
    from plantao.run.report import Report
    from plantao.runtime import Place

STATUS_COLUMNS = ("job", "health", "last_window", "last_success_at", "rows_scored", "model_version", "windows_owed")
ATTEMPT_COLUMNS = (
    *("run_id", "status", "window", "trigger", "rows_read", "rows_scored", "rows_rejected"),
    *("rows_already_scored", "rows_late", "finished_at"),
)
INCIDENT_COLUMNS = ("lane", "word", "since", "message")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's name: its file without .toml.")]
FromOption = Annotated[
    str | None, typer.Option("--from", help="Start of the window: a date, or a date with time; in the job's zone.")
]
ToOption = Annotated[str | None, typer.Option("--to", help="End of the window; the window does not include it.")]


def run(
    job: JobArgument,
    start: FromOption = None,
    end: ToOption = None,
    model_version: Annotated[int | None, typer.Option(help="Score with this version, not with the champion.")] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score rows again that have a prediction; the old ones go to the history.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
    accept_checks: Annotated[
        bool, typer.Option("--accept-checks", help="Let the rows become visible although a check that blocks failed.")
    ] = False,
    json_: output.JsonOption = False,
) -> None:
    """Score a window: by default the last complete one."""
    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    (window,) = runs.windows_for(declared, here, Asked(start, end))
    request = Request(
        declared,
        window,
        "manual",
        model_version=model_version,
        rescore=rescore,
        dry_run=dry_run,
        accept_checks=accept_checks,
    )
    report = watched(f"scoring {job}, {window.shown(declared.zone)}", lambda: runs.score_window(request, here))
    if json_:
        output.as_json(report.as_dict())
    else:
        _print_report(report, declared)


def backfill(
    job: JobArgument,
    from_date: Annotated[
        str | None, typer.Option(help="The first window is the first that starts at or after this.")
    ] = None,
    to_date: Annotated[
        str | None, typer.Option(help="The last window is the last that starts at or before this.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Score every window that is due and has no success yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the windows.")] = False,
    json_: output.JsonOption = False,
) -> None:
    """Score the windows of a period, or all that are missing, oldest first; stops at the first that fails."""
    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    with session.session(declared, here) as connection:
        now, covered = session.now(connection), ledger.covered(connection, job)
    windows = backfilled_windows(declared, from_date, to_date, missing=missing, covered=covered, now=now)
    if dry_run:
        lines = [(w.shown(declared.zone), "done" if is_covered(w, covered) else "owed") for w in windows]
        if json_:
            output.as_json(
                [{"start": w.start, "end": w.end, "state": s} for w, (_, s) in zip(windows, lines, strict=True)]
            )
        else:
            output.table(f"{job}: windows of the period", ("window", "state"), lines)
        return
    reports = []
    try:
        with _progress(f"scoring {job}", len(windows)) as advance:
            for window in windows:
                reports.append(runs.score_window(Request(declared, window, "backfill"), here))
                advance()
    finally:
        if json_:
            output.as_json([report.as_dict() for report in reports])
        else:
            columns = ("window", "run", "status", "read", "scored", "rejected", "already scored", "late")
            output.table(
                f"{job}: {len(reports)} of {len(windows)} windows done", columns, [_line(r, declared) for r in reports]
            )


def measure(job: JobArgument, start: FromOption = None, end: ToOption = None, json_: output.JsonOption = False) -> None:
    """Measure the predictions of a window and keep the figures in plantao.metrics.

    With --from and --to its daily state is counted anew, from the source and the predictions.
    """
    from plantao.measure.measure import measure

    here = runtime.from_environment()
    declared = read_job(here.settings.jobs, job)
    (window,) = runs.windows_for(declared, here, Asked(start, end))
    measured = watched(f"measuring {job}", lambda: measure(declared, window, here, anew=start is not None))
    metrics = [metric for metric in measured.metrics if metric.window.overlap(window) is not None]
    if json_:
        output.as_json([{**vars(m), "window": {"start": m.window.start, "end": m.window.end}} for m in metrics])
    else:
        lines = [
            (m.window.shown(declared.zone), m.name, m.column or "-", m.segment or "-", m.value, m.n, m.status)
            for m in metrics
            if m.role == "champion"
        ]
        output.table(f"{job}: metrics", ("window", "metric", "column", "segment", "value", "rows", "status"), lines)
    for name, error in measured.problems.items():
        typer.echo(f"{name}: {error}", err=True)
    if measured.problems:
        raise typer.Exit(1)


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job, with its last attempts.")] = None,
    json_: output.JsonOption = False,
) -> None:
    """Show how every job stands: last complete window, health, and what is owed."""
    here = runtime.from_environment()
    found: dict[str, Any] = {job: read_job(here.settings.jobs, job)} if job else dict(read_folder(here.settings.jobs))
    states = [_guarded_state(name, declared, here) for name, declared in found.items()]
    if json_:
        output.as_json(states if job is None else states[0])
    else:
        output.table("Status", STATUS_COLUMNS, [[state.get(column) for column in STATUS_COLUMNS] for state in states])
        for state in states:
            if state.get("error"):
                typer.echo(f"{state['job']}: {state['error']}", err=True)
        if job is not None:
            attempts = states[0].get("attempts", [])
            if open_ones := states[0].get("incidents"):
                output.table(
                    "Open incidents", INCIDENT_COLUMNS, [[line[c] for c in INCIDENT_COLUMNS] for line in open_ones]
                )
            output.table("Last attempts", ATTEMPT_COLUMNS, [[line[c] for c in ATTEMPT_COLUMNS] for line in attempts])
        else:
            show_signs(here)
    if any(state["health"] not in {"fine", "running", "waiting"} for state in states):
        raise typer.Exit(1)


def _guarded_state(name: str, declared: Job | PlantaoError, here: Place) -> dict[str, Any]:
    """Return how a job stands; of one about which nothing can be found out, the reason."""
    if isinstance(declared, PlantaoError):
        return {"job": name, "health": "broken", "error": str(declared)}
    try:
        return _state(name, declared, here)
    except Exception as error:  # noqa: BLE001 - the other jobs are still shown
        return {"job": name, "health": "unknown", "error": described(error)}


def _state(name: str, declared: Job, here: Place) -> dict[str, Any]:
    with session.session(declared, here, "plantao/status") as connection:
        row = next((dict(r) for r in jobs.status(connection) if r["job"] == name), {})
        attempts = [dict(r) for r in jobs.attempts(connection, name, 10)]
        incidents = open_incidents(connection, name)
    owed = runs.owed_windows(declared, here)
    last = Window.of(row["last_window_start"], row["last_window_end"]) if row.get("last_window_start") else None
    health = row.get("health", "waiting")
    for attempt in attempts:
        attempt["window"] = Window.of(attempt["window_start"], attempt["window_end"]).shown(declared.zone)
    return {
        "job": name,
        "health": health,
        "last_window": last.shown(declared.zone) if last else None,
        "last_success_at": row.get("last_success_at"),
        "rows_scored": row.get("last_rows_scored"),
        "model_version": row.get("model_version"),
        "windows_owed": len(owed),
        "owed": [{"start": window.start, "end": window.end} for window in owed],
        "prediction_table": str(declared.load.table),
        "error": row.get("last_error"),
        "incidents": incidents,
        "attempts": attempts,
    }


# --- showing ---------------------------------------------------------------------------------------------------------


def _print_report(report: Report, job: Job) -> None:
    counts = report.counts
    output.pairs(
        {
            "job": report.job,
            "window": report.window.shown(job.zone),
            "status": report.status,
            "run": report.run_id,
            "model": f"{report.model}/{report.model_version}",
            "rows read": counts.read,
            "scored": counts.scored,
            "rejected": counts.rejected,
            "already scored": counts.already_scored,
            **({"of these in conflict": counts.conflicting} if counts.conflicting else {}),
            "late": counts.late,
            "rescored": counts.rescored,
            "mean score": report.mean_score,
            **({"reasons": ", ".join(f"{n} {r}" for r, n in report.reject_reasons.items())} if counts.rejected else {}),
            "table": job.load.table,
            **({"note": report.note} if report.note else {}),
        }
    )


def _line(report: Report, job: Job) -> tuple[Any, ...]:
    c = report.counts
    return (
        report.window.shown(job.zone), report.run_id, report.status,
        c.read, c.scored, c.rejected, c.already_scored, c.late,
    )  # fmt: skip


def watched(what: str, call: Callable[[], Any]) -> Any:
    """Return what `call` returns; on a terminal something moves meanwhile."""
    if not sys.stderr.isatty():
        return call()
    from rich.console import Console

    with Console(stderr=True).status(what):
        return call()


class _progress:  # noqa: N801 - used as a function
    """A progress bar on a terminal; elsewhere the events of the runs are the progress."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.bar: Any = None

    def __enter__(self) -> Callable[[], None]:
        if not sys.stderr.isatty():
            return lambda: None
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True))
        self.bar.start()
        task = self.bar.add_task(self.what, total=self.total)
        return lambda: self.bar.advance(task)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
