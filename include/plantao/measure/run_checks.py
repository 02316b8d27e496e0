"""The BREAK lane: what the rows of a run looked like is held against the reference before they become visible.

A check that fails is an incident and an alert, in the transaction that makes the rows visible; one that the job blocks
stops the run, and nothing becomes visible until someone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from plantao.errors import ChecksFailed
from plantao.measure.detect import checks, missing
from plantao.measure.detect.conditions import of_break, unjudged
from plantao.measure.detect.findings import LOOK_AT, Break, Findings
from plantao.measure.metrics import history
from plantao.measure.profile import daily_state
from plantao.measure.profile.sketch import added
from plantao.outbox.alerts import Alert, raise_alert
from plantao.outbox.incidents import settle
from plantao.postgres import session
from plantao.window import listed_days, of_days

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from plantao.config.job import Job
    from plantao.ledger.request import Request
    from plantao.ledger.runs import Counts
    from plantao.measure.profile.daily_state import Profile, Series
    from plantao.measure.profile.sketch import Key, State

WEEKS_OF_HISTORY = 10


def add_checked(  # noqa: PLR0913 - what was folded, and what became of the rows
    connection: Connection,
    series: Series,
    states: Mapping[Key, tuple[int, State]],
    request: Request,
    *,
    counts: Counts,
    dropped: int,
) -> None:
    """Add what a champion's run has folded to its days, once it is held against the reference.

    Inside the transaction that makes the rows visible. Raises ChecksFailed when a check has failed that the job blocks.
    """
    # The one whose cells the rows were counted in: a new one may have been drawn since the run began.
    numbers = series.model_version, series.reference_version
    reference = daily_state.reference_numbered(connection, series.job, *numbers)
    looked = look(connection, request, reference, states, counts.read - counts.late)
    refuse_blocked(request, looked)
    daily_state.add_run(connection, series, states, request, counts=counts, dropped=dropped)
    tell(connection, request, looked, series.model_version)


@dataclass(frozen=True)
class Looked:
    """What the checks of a run have found, and on which days."""

    findings: Findings
    first_day: date
    rows: int
    newest: bool
    """Whether no later window has been scored: an old window opens and closes no incident of today."""


def look(
    connection: Connection, request: Request, reference: Profile, states: Mapping[Key, tuple[int, State]], read: int
) -> Looked:
    """Return what the checks of a champion's run find. `read` is how many rows its window has."""
    job, window = request.job, request.window
    days, whole = _days(request, states)
    inside = set(days)
    merged: dict[str, list[State]] = {}
    for (day, segment, column), (_, one) in states.items():
        if day in inside and not segment:
            merged.setdefault(column, []).append(one)
    findings = Findings()
    if merged:
        together = {name: added(parts) for name, parts in merged.items()}
        findings = checks.findings(reference, together, whole_day=whole)
    with session.transaction(connection):
        earliest = date.fromordinal(max(days[0].toordinal() - 7 * WEEKS_OF_HISTORY, 1))
        history = _rows_per_day(connection, job, earliest, days[-1])
        newest = not connection.execute(LATER, {"job": job.name, "end": window.end}).scalar_one()
    if read < job.validation.at_least_rows:
        findings.take(_too_few(job, read))
    elif whole:
        for day in days:
            before = 0 if request.rescore else history.get(day, 0)
            rows = before + states.get((day, "", ""), (0, {}))[0]
            findings.take(checks.row_count(day, rows, reference, history))
    seen = sum(rows for (day, segment, column), (rows, _) in states.items() if day in inside and not segment + column)
    return Looked(findings, days[0], seen, newest)


def _days(request: Request, states: Mapping[Key, tuple[int, State]]) -> tuple[list[date], bool]:
    """Return the local days of the window, and whether it has all of each; of years, only the days with rows."""
    window, zone = request.window, request.job.zone
    if (days := listed_days(window, zone)) is not None:
        return days, of_days(days[0], days[-1], zone) == window
    last = (window.end - timedelta(microseconds=1)).astimezone(zone).date()
    return sorted({day for day, _, _ in states if day <= last}) or [last], False


LATER = text("select exists (select from coverage where job = :job and upper(done) > :end)")


def _rows_per_day(connection: Connection, job: Job, first: date, last: date) -> dict[date, int]:
    query = text(
        "select day, sum(rows)::bigint from daily_state where job = :job and role = 'champion' and segment = ''"
        " and column_name = '' and day between :first and :last group by day"
    )
    return {row[0]: row[1] for row in connection.execute(query, {"job": job.name, "first": first, "last": last})}


def _too_few(job: Job, read: int) -> Break:
    least = job.validation.at_least_rows
    message = f"{read} rows, fewer than at_least_rows = {least}. Next: {LOOK_AT['row_count']}"
    return Break("row_count", "", read, least, read, message)


def refuse_blocked(request: Request, looked: Looked) -> None:
    """Raise ChecksFailed when a check has failed that the job blocks, unless somebody has decided."""
    blocked = [found for found in looked.findings.breaks if found.check in request.job.validation.block]
    if not blocked or request.accept_checks:
        return
    listed = "; ".join(found.message.partition(" Next:")[0].rstrip(".") for found in blocked)
    message = f"checks that block have failed: {listed}. Nothing was written."
    advice = (
        f"look at the source; if the rows are right, score them with --accept-checks"
        f" (plantao run {request.job.name} --from … --to … --accept-checks, or the form in Airflow)"
    )
    raise ChecksFailed(message, advice, "validate")


def tell(connection: Connection, request: Request, looked: Looked, version: int) -> None:
    """Write down what has failed and what has recovered, inside the transaction that makes the rows visible."""
    job, findings = request.job, looked.findings
    if findings.looked:
        _keep_evidence(connection, request, looked, version)
    conditions = [of_break(found, looked.first_day) for found in findings.breaks]
    if looked.newest:
        silent = {*unjudged(findings.not_judged), *(() if findings.looked else _all_open(connection, job))}
        settle(connection, job.name, "break", conditions, unjudged=silent, version=version, day=looked.first_day)
        return
    for condition in conditions:
        message = f"{job.name}: in the past window {request.window.shown(job.zone)}: {condition.message}"
        about = f"{job.name} {condition.fingerprint} {looked.first_day}"
        raise_alert(connection, Alert("break", about, message, condition.next_step, job.name))


def _keep_evidence(connection: Connection, request: Request, looked: Looked, version: int) -> None:
    """Keep what could not be judged, and that what could not be before now is."""
    job, window = request.job, request.window
    values = {"job": job.name, "start": window.start, "end": window.end}
    whole = request.rescore or not connection.execute(SCORED_BEFORE, values).scalar_one()
    kept = history.checks_of(connection, job, window)
    found = missing.figures(window, version, looked.rows, looked.findings.not_judged, kept, whole=whole)
    if found:
        history.keep(connection, job, found)


SCORED_BEFORE = text(
    "select exists (select from runs where job = :job and role = 'champion' and status = 'succeeded'"
    " and window_start = :start and window_end = :end and rows_scored > 0)"
)


def _all_open(connection: Connection, job: Job) -> list[str]:
    """Return the incidents that a window without rows says nothing about."""
    query = text("select fingerprint from incidents where job = :job and lane = 'break' and state = 'open'")
    return [f for f in connection.execute(query, {"job": job.name}).scalars() if not f.startswith("break row_count")]
