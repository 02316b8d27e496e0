"""`plantao run`, `backfill`, `measure`, `status`."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plantao import ledger, place
from plantao import run as runs
from plantao.alert.incidents import open_incidents
from plantao.cli import show
from plantao.cli.watch import show_signs
from plantao.errors import PlantaoError, UsageError
from plantao.extract.window import Schedule, Window, is_covered
from plantao.job_file import read_folder, read_job
from plantao.job_types import localise
from plantao.request import Request
from plantao.versions import standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from plantao.job import Job
    from plantao.place import Place
    from plantao.request import Report

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
    json_: show.JsonOption = False,
) -> None:
    """Score a window: by default the last complete one."""
    here = place.from_environment()
    declared = read_job(here.settings.jobs, job)
    window = _window(declared, start, end, here)
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
        show.as_json(report.as_dict())
    else:
        _print_report(report, declared)


def backfill(
    job: JobArgument,
    from_date: Annotated[str, typer.Option(help="The first window is the first that starts at or after this.")],
    to_date: Annotated[str, typer.Option(help="The last window is the last that starts at or before this.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the windows.")] = False,
    json_: show.JsonOption = False,
) -> None:
    """Score the windows of a period, oldest first; stops at the first that fails."""
    here = place.from_environment()
    declared = read_job(here.settings.jobs, job)
    if declared.cron is None:
        message = f"job {job} has no schedule, so a period of it has no windows."
        raise UsageError(message, f"plantao run {job} --from {from_date} --to {to_date}")
    first, last = _moment(from_date, declared), _moment(to_date, declared)
    now, covered = _ledger_facts(declared, here)
    # A window that starts at the last moment ends one window later; 400 days are longer than any window.
    candidates = Schedule(declared.cron, declared.zone).windows(first, min(last + timedelta(days=400), now))
    windows = [window for window in candidates if window.start <= last]
    if dry_run:
        lines = [(w.shown(declared.zone), "done" if is_covered(w, covered) else "owed") for w in windows]
        if json_:
            show.as_json(
                [{"start": w.start, "end": w.end, "state": s} for w, (_, s) in zip(windows, lines, strict=True)]
            )
        else:
            show.table(f"{job}: windows of the period", ("window", "state"), lines)
        return
    reports = []
    try:
        with _progress(f"scoring {job}", len(windows)) as advance:
            for window in windows:
                reports.append(runs.score_window(Request(declared, window, "backfill"), here))
                advance()
    finally:
        if json_:
            show.as_json([report.as_dict() for report in reports])
        else:
            columns = ("window", "run", "status", "read", "scored", "rejected", "already scored", "late")
            show.table(
                f"{job}: {len(reports)} of {len(windows)} windows done", columns, [_line(r, declared) for r in reports]
            )


def measure(job: JobArgument, start: FromOption = None, end: ToOption = None, json_: show.JsonOption = False) -> None:
    """Measure the predictions of a window and keep the figures in plantao.metrics.

    With --from and --to its daily state is counted anew, from the source and the predictions.
    """
    from plantao.measure.measuring import measure

    here = place.from_environment()
    declared = read_job(here.settings.jobs, job)
    window = _window(declared, start, end, here)
    measured = watched(f"measuring {job}", lambda: measure(declared, window, here, anew=start is not None))
    metrics = [metric for metric in measured.metrics if metric.window.overlap(window) is not None]
    if json_:
        show.as_json([{**vars(m), "window": {"start": m.window.start, "end": m.window.end}} for m in metrics])
    else:
        lines = [
            (m.window.shown(declared.zone), m.name, m.column or "-", m.segment or "-", m.value, m.n, m.status)
            for m in metrics
            if m.role == "champion"
        ]
        show.table(f"{job}: metrics", ("window", "metric", "column", "segment", "value", "rows", "status"), lines)
    for name, error in measured.problems.items():
        typer.echo(f"{name}: {error}", err=True)
    if measured.problems:
        raise typer.Exit(1)


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job, with its last attempts.")] = None,
    json_: show.JsonOption = False,
) -> None:
    """Show how every job stands: last complete window, health, and what is owed."""
    here = place.from_environment()
    found: dict[str, Any] = {job: read_job(here.settings.jobs, job)} if job else dict(read_folder(here.settings.jobs))
    states = [_state(name, declared, here) for name, declared in found.items()]
    if json_:
        show.as_json(states if job is None else states[0])
    else:
        show.table("Status", STATUS_COLUMNS, [[state.get(column) for column in STATUS_COLUMNS] for state in states])
        for state in states:
            if state.get("error"):
                typer.echo(f"{state['job']}: {state['error']}", err=True)
        if job is not None:
            attempts = states[0].get("attempts", [])
            if open_ones := states[0].get("incidents"):
                show.table(
                    "Open incidents", INCIDENT_COLUMNS, [[line[c] for c in INCIDENT_COLUMNS] for line in open_ones]
                )
            show.table("Last attempts", ATTEMPT_COLUMNS, [[line[c] for c in ATTEMPT_COLUMNS] for line in attempts])
        else:
            show_signs(here)
    if any(state["health"] not in {"fine", "running", "waiting"} for state in states):
        raise typer.Exit(1)


def _state(name: str, declared: Job | PlantaoError, here: Place) -> dict[str, Any]:
    if isinstance(declared, PlantaoError):
        return {"job": name, "health": "broken", "error": str(declared)}
    with ledger.session(declared, here, "plantao/status") as connection:
        row = next((dict(r) for r in standing.status(connection) if r["job"] == name), {})
        attempts = [dict(r) for r in standing.attempts(connection, name, 10)]
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
        "prediction_table": declared.load.table,
        "error": row.get("last_error"),
        "incidents": incidents,
        "attempts": attempts,
    }


# --- windows ---------------------------------------------------------------------------------------------------------


def _window(job: Job, start: str | None, end: str | None, here: Place) -> Window:
    """Return the window that was asked for; without both ends, the last complete one, or all a job owes."""
    if (given := given_window(job, start, end)) is not None:
        return given
    now, _ = _ledger_facts(job, here)
    if job.cron is not None:
        return Schedule(job.cron, job.zone).last_complete(now, job.ends_at)
    owed = runs.owed_windows(job, here)
    if not owed:
        message = f"job {job.name} owes nothing: it starts in the future."
        raise UsageError(message, "give --from and --to")
    return owed[0]


def given_window(job: Job, start: str | None, end: str | None) -> Window | None:
    """Return the window that --from and --to name; None when neither was given."""
    if (start is None) != (end is None):
        message = "--from and --to belong together: give both or none."
        raise UsageError(message)
    if start is None or end is None:
        return None
    return Window.of(_moment(start, job), _moment(end, job))


def _ledger_facts(job: Job, here: Place) -> tuple[datetime, list[Window]]:
    with ledger.session(job, here) as connection:
        return ledger.now(connection), ledger.covered(connection, job.name)


def _moment(given: str, job: Job) -> datetime:
    try:
        moment: date | datetime = date.fromisoformat(given) if len(given) == 10 else datetime.fromisoformat(given)
    except ValueError:
        message = f"{given!r} is not a date such as 2013-04-01, nor a date with time such as 2013-04-01T06:00."
        raise UsageError(message) from None
    return localise(moment, job.zone).astimezone(UTC)


# --- showing ---------------------------------------------------------------------------------------------------------


def _print_report(report: Report, job: Job) -> None:
    counts = report.counts
    show.pairs(
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
            "late": counts.late,
            "rescored": counts.rescored,
            "mean score": report.mean_score,
            **({"reasons": ", ".join(f"{n} {r}" for r, n in report.reject_reasons.items())} if counts.rejected else {}),
            "table": job.load.table,
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
